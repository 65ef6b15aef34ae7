//! What was counted beside fio during the measured phase of one attempt.
//!
//! Cheap counters (perf software events, `/proc`) run in every repetition. The probes
//! inside the kernel (BPF programs on FUSE's own functions) cost time, so they run in
//! repetitions of their own ([`Probes::On`]) whose IOPS are no headline figure; the
//! difference between both kinds is the probes' cost.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::histogram::Histogram;

/// Whether probes ran inside the kernel during a repetition.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Probes {
    /// Only counters that cost nothing measurable. These repetitions give the headline.
    #[default]
    Off,
    /// BPF probes on every FUSE request and system call.
    On,
}

impl Probes {
    /// For leaving the field out of the JSON where it is the default.
    #[must_use]
    pub fn is_off(&self) -> bool {
        *self == Self::Off
    }
}

/// Context switches of a group of tasks, counted twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switches {
    /// By perf software events (kernel side included, inherited by new threads).
    pub perf: Option<u64>,
    /// By `voluntary_ctxt_switches` + `nonvoluntary_ctxt_switches` of
    /// `/proc/PID/task/*/status`; system-wide by `ctxt` of `/proc/stat`.
    pub proc: Option<u64>,
}

/// How the time was found in which processors were busy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BusyFrom {
    /// Clock ticks of `/proc/stat`. An emulated guest loses many.
    #[default]
    Ticks,
    /// The clock's time on every processor less idle, iowait and steal.
    Idle,
}

/// CPU time by who used it, seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CpuTime {
    /// fio's process, user + system.
    pub fio_s: Option<f64>,
    /// The daemon, user + system; `None` for systems without one.
    pub daemon_s: Option<f64>,
    /// Kernel threads (those with an empty command line), pollers and workers included.
    pub kernel_threads_s: f64,
    /// All processors: whatever is not idle, iowait or steal.
    pub busy_s: f64,
    /// How `busy_s` was found.
    #[serde(default)]
    pub busy_from: BusyFrom,
    /// All processors: idle + iowait.
    pub idle_s: f64,
    /// All processors: steal.
    pub steal_s: f64,
}

impl CpuTime {
    /// The time of all processors that is accounted for, seconds; 0 where nothing was counted.
    #[must_use]
    pub fn accounted_s(&self) -> f64 {
        self.busy_s + self.idle_s + self.steal_s
    }
}

/// Memory, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Largest resident set of the daemon (`VmHWM`).
    pub daemon_peak: Option<u64>,
    /// Kernel-side maps of the system's BPF programs (`memlock` of their fdinfo); 0 if it
    /// has none, `None` if they were not counted.
    pub maps: Option<u64>,
    /// Rings and buffers that the daemon shares with the kernel (its mappings of a device
    /// or of io_uring); 0 if it has none, `None` if they were not counted.
    pub rings: Option<u64>,
}

/// One FUSE opcode, counted inside the kernel by probes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Requests {
    /// The opcode's name (`READ`), or `OPCODE_99` for one without.
    pub opcode: String,
    /// Requests that the daemon took: each is one crossing to it and one back.
    pub crossings: u64,
    /// From when the request is given to FUSE to when the daemon takes it; for one in the
    /// background with its wait for `max_background`.
    pub queueing: Histogram,
    /// The part of queueing before the input queue, nanoseconds, of all requests together:
    /// until a background request may go into it.
    #[serde(default)]
    pub held_ns: u64,
    /// Dequeue to reply.
    pub processing: Histogram,
    /// Given to reply, measured on its own and not as a sum.
    pub total: Histogram,
}

/// How requests of one opcode were served in the measured phase, as the attached programs
/// count them. Requests that no program sees are not in here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Served {
    /// The opcode's name (`LOOKUP`).
    pub opcode: String,
    /// Answered inside the kernel, by what they were answered from: `maps`, or `kept` where
    /// an earlier answer from the maps was used again, as nothing had changed.
    pub kernel: BTreeMap<String, u64>,
    /// Passed to the daemon, by the reason (`miss`, `expired`, `changed`, ...).
    pub passed: BTreeMap<String, u64>,
}

impl Served {
    /// Requests that were answered in the kernel.
    #[must_use]
    pub fn in_kernel(&self) -> u64 {
        self.kernel.values().sum()
    }

    /// Requests that went to the daemon.
    #[must_use]
    pub fn by_daemon(&self) -> u64 {
        self.passed.values().sum()
    }
}

/// How paths for data were chosen by a policy that does so for each file, in the measured phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adaptive {
    /// Files whose reads went to the cache at the end.
    pub on_cache: u64,
    /// Files whose reads went to the backing file at the end.
    pub on_backing: u64,
    /// Predictions that were made.
    pub rounds: u64,
    /// Those of them that changed the path.
    pub changes: u64,
    /// Those for which the processor's work counted and not time, as it was never idle.
    pub short_rounds: u64,
}

/// In [`Served::kernel`] of READ and WRITE: the cache had it.
pub const BY_CACHE: &str = "cache";
/// Likewise: the cache lacked it, and it was read into it from the backing file.
pub const FILLED: &str = "backing file, into the cache";
/// Likewise: it went to the backing file alone.
pub const BY_BACKING: &str = "backing file";

/// What a ring channel had to do in the measured phase, and what it was like at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Channel {
    /// Requests that were sent in it.
    pub requests: u64,
    /// Those of them whose reply a caller found by polling.
    pub polled: u64,
    /// Requests that found no room.
    pub waited: u64,
    /// Requests that came from callers of other channels.
    pub redirected: u64,
    /// Requests that waited in other channels and were taken over.
    pub migrated: u64,
    /// FORGET.
    pub forgets: u64,
    /// INTERRUPT.
    pub interrupts: u64,
    /// Workers that were woken.
    pub wakeups: u64,
    /// Replies that made no sense.
    pub bad: u64,
    /// At the end: requests that have room at once.
    pub depth: u64,
    /// At the end: requests that had room.
    pub in_flight: u64,
    /// At the end: requests that waited for room.
    pub waiting: u64,
    /// At the end: workers that slept in the kernel.
    pub sleepers: u64,
    /// At the end: from sending to reply, nanoseconds, a moving average.
    pub service_ns: u64,
}

/// Waiting for the lock of FUSE's input queue, by probes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockContention {
    /// Times that the lock was not free at once.
    pub contended: u64,
    /// Time spent waiting for it, nanoseconds.
    pub wait_ns: u64,
}

/// Everything that was counted in one attempt.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counters {
    /// Of fio's job threads from the start of their work to its end: what fio counts as
    /// `ctx` itself, and neither its start nor its helpers.
    pub fio_switches: Switches,
    /// Of the daemon, all threads; `None` for systems without one.
    pub daemon_switches: Option<Switches>,
    /// Of the whole system.
    pub system_switches: Switches,
    /// System calls of fio; probes only.
    pub fio_syscalls: Option<u64>,
    /// System calls of the daemon; probes only.
    pub daemon_syscalls: Option<u64>,
    /// CPU time.
    pub cpu: CpuTime,
    /// How long was counted, seconds; `None` in attempts stored before it was, and where nothing
    /// was counted. Setting the counters up takes the beginning of the measured phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_s: Option<f64>,
    /// Memory.
    pub memory: Memory,
    /// FUSE requests by opcode, sorted by name; probes only, empty for systems without
    /// a daemon.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<Requests>,
    /// Who served the requests that programs saw, sorted by opcode; empty for systems
    /// without programs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub served: Vec<Served>,
    /// How paths for data were chosen; `None` where no policy chooses by file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adaptive: Option<Adaptive>,
    /// The load of each ring channel, in the order of their numbers; empty for systems
    /// without rings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub channels: Vec<Channel>,
    /// Nodes that FORGET and BATCH_FORGET named; probes only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forgotten: Option<u64>,
    /// The input queue's lock; probes only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_lock: Option<LockContention>,
    /// What could not be counted here, with its reason, one line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_from_before_there_were_channels_can_be_read() {
        let counters = Counters::default();
        let old = serde_json::to_value(&counters).unwrap();
        assert!(old.get("channels").is_none(), "{old}");
        assert_eq!(serde_json::from_value::<Counters>(old).unwrap(), counters);
        // A channel with fewer figures than there are now, and with one that is not known.
        let text = r#"{"requests": 7, "service_ns": 900, "later": 1}"#;
        let channel = Channel {
            requests: 7,
            service_ns: 900,
            ..Channel::default()
        };
        assert_eq!(serde_json::from_str::<Channel>(text).unwrap(), channel);
    }
}
