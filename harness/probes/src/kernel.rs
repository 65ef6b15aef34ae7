//! The probes inside the kernel: BPF programs on FUSE's functions and tracepoints.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use efuse_abi::Opcode;
use efuse_model::counters::{Counters, LockContention, Requests};
use efuse_model::histogram::{BUCKETS, Histogram, lower_bound};
use libbpf_rs::query::ProgInfoIter;
use libbpf_rs::{Link, MapCore as _, MapFlags, Object, ObjectBuilder, PrintLevel, Program};

use crate::btf::Types;
use crate::error::{ProbeError, Result};

/// What `build.rs` has compiled.
static PROGRAMS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/probes.bpf.o"));

/// Slots of the map of opcodes, `OPCODES` of `requests.h`.
const OPCODES: u32 = 64;
/// 64-bit words of one opcode there: crossings, time held back and three histograms.
const HISTOGRAM_WORDS: usize = 2 + BUCKETS;
const OPCODE_WORDS: usize = 2 + 3 * HISTOGRAM_WORDS;

/// How long requests that are under way at the end may take to end.
const DRAIN: Duration = Duration::from_millis(200);

/// The connection whose requests are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection<'a> {
    /// `fuse` for the kernel's own, else the name of the module: `efuse`.
    pub family: &'a str,
    /// Number of the connection: minor number of its mount's device.
    pub number: u32,
}

/// Numbers of `counts.h`.
#[derive(Clone, Copy)]
enum Count {
    FioCalls,
    DaemonCalls,
    Contended,
    WaitNs,
    LostEnqueue,
    LostEnd,
    LostReply,
    LostMax,
    Forgotten,
}

/// Probes that are attached.
pub struct Probes {
    object: Object,
    links: Vec<Link>,
    requests: bool,
    forgets: bool,
    lock: bool,
    calls: bool,
    daemon: bool,
    missing: Vec<String>,
}

impl std::fmt::Debug for Probes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Probes")
            .field("links", &self.links.len())
            .field("missing", &self.missing)
            .finish_non_exhaustive()
    }
}

/// A program, what it is attached to, and what is missing without it.
struct Plan {
    program: &'static str,
    /// Function of FUSE, function of the kernel, or tracepoint.
    target: Target,
    group: Group,
}

#[derive(Clone, Copy)]
enum Target {
    Fuse(&'static str),
    Kernel(&'static str),
    /// Of FUSE: the module's is named after it.
    FuseEvent(&'static str),
    Event(&'static str),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Group {
    Requests,
    Forgets,
    LockNative,
    LockPv,
    Calls,
}

impl Group {
    const fn title(self) -> &'static str {
        match self {
            Self::Requests => "FUSE requests",
            Self::Forgets => "crossings of FORGET and INTERRUPT",
            Self::LockNative | Self::LockPv => "contention on the input queue's lock",
            Self::Calls => "system calls",
        }
    }
}

const PLANS: &[Plan] = &[
    plan(
        "background_given",
        Target::Fuse("fuse_simple_background"),
        Group::Requests,
    ),
    plan(
        "background_refused",
        Target::Fuse("fuse_simple_background"),
        Group::Requests,
    ),
    plan(
        "request_enqueue",
        Target::FuseEvent("request_send"),
        Group::Requests,
    ),
    plan(
        "request_dequeue",
        Target::Fuse("fuse_copy_args"),
        Group::Requests,
    ),
    plan(
        "request_reply",
        Target::Fuse("fuse_request_end"),
        Group::Requests,
    ),
    plan(
        "request_end",
        Target::FuseEvent("request_end"),
        Group::Requests,
    ),
    plan(
        "interrupt_enqueue",
        Target::Fuse("fuse_dev_queue_interrupt"),
        Group::Forgets,
    ),
    plan(
        "message_read",
        Target::Fuse("fuse_dev_do_read"),
        Group::Forgets,
    ),
    plan(
        "lock_wait_native",
        Target::Kernel("native_queued_spin_lock_slowpath"),
        Group::LockNative,
    ),
    plan(
        "lock_got_native",
        Target::Kernel("native_queued_spin_lock_slowpath"),
        Group::LockNative,
    ),
    plan(
        "lock_wait_pv",
        Target::Kernel("__pv_queued_spin_lock_slowpath"),
        Group::LockPv,
    ),
    plan(
        "lock_got_pv",
        Target::Kernel("__pv_queued_spin_lock_slowpath"),
        Group::LockPv,
    ),
    plan("call_enter", Target::Event("sys_enter"), Group::Calls),
];

const fn plan(program: &'static str, target: Target, group: Group) -> Plan {
    Plan {
        program,
        target,
        group,
    }
}

/// libbpf's last warning: its errors are numbers, and this says why.
static WARNING: Mutex<Option<String>> = Mutex::new(None);

fn listen(_: PrintLevel, text: String) {
    let mut last = WARNING.lock().unwrap_or_else(PoisonError::into_inner);
    // The first one is the cause.
    last.get_or_insert(text);
}

fn failed(action: String) -> impl FnOnce(libbpf_rs::Error) -> ProbeError {
    move |e| {
        let said = WARNING
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let said = said.unwrap_or_default();
        let first = said.lines().next().unwrap_or_default().trim();
        let reason = if first.is_empty() {
            e.to_string()
        } else {
            format!("{e} ({first})")
        };
        ProbeError::Bpf { action, reason }
    }
}

impl Probes {
    /// Loads the programs and attaches them. Without a connection only system calls are
    /// counted. Nothing is counted before [`Probes::start`].
    ///
    /// What this kernel does not offer is said in the counters' `missing`.
    ///
    /// # Errors
    /// If nothing at all can be counted.
    pub fn attach(connection: Option<Connection<'_>>) -> Result<Self> {
        libbpf_rs::set_print(Some((PrintLevel::Warn, listen)));
        let mut missing = Vec::new();
        let mut groups = vec![Group::Calls];
        let mut config = Config::default();
        let mut module = None;
        if let Some(connection) = connection {
            module = Some(connection.family).filter(|f| *f != "fuse");
            match Types::of(module).and_then(|t| Ok((Config::of(&t, connection.number)?, t))) {
                Ok((of, types)) => {
                    config = of;
                    groups.extend([Group::Requests, Group::Forgets]);
                    for (group, function) in [
                        (Group::LockNative, "native_queued_spin_lock_slowpath"),
                        (Group::LockPv, "__pv_queued_spin_lock_slowpath"),
                    ] {
                        if types.has_function(function) {
                            groups.push(group);
                        }
                    }
                }
                Err(e) => missing.push(format!("{}: {e}", Group::Requests.title())),
            }
        }
        config.name_space()?;
        // A program that does not load takes the others with it: without FUSE's
        // functions there still are the system calls.
        let loaded = match load(&config, &groups, module) {
            Err(e) if groups.len() > 1 => {
                missing.push(format!("{}: {e}", Group::Requests.title()));
                groups = vec![Group::Calls];
                load(&config, &groups, module)
            }
            other => other,
        };
        let object = loaded.map_err(|e| {
            let mut all = missing.clone();
            all.push(format!("{}: {e}", Group::Calls.title()));
            ProbeError::Bpf {
                action: "attach any probe".into(),
                reason: all.join("; "),
            }
        })?;
        let mut probes = Self {
            object,
            links: Vec::new(),
            requests: false,
            forgets: false,
            lock: false,
            calls: false,
            daemon: connection.is_some(),
            missing,
        };
        let mut attach = |group| match probes.attach_group(group, module) {
            Ok(()) => true,
            Err(e) => {
                probes.missing.push(format!("{}: {e}", group.title()));
                false
            }
        };
        let has = |group| groups.contains(&group);
        let calls = attach(Group::Calls);
        let requests = has(Group::Requests) && attach(Group::Requests);
        let forgets = requests && attach(Group::Forgets);
        // Every kernel has the first function; the second one's are where it is used.
        let native = requests && has(Group::LockNative) && attach(Group::LockNative);
        if native && has(Group::LockPv) {
            attach(Group::LockPv);
        }
        if requests && !has(Group::LockNative) {
            probes.missing.push(format!(
                "{}: this kernel has no native_queued_spin_lock_slowpath",
                Group::LockNative.title()
            ));
        }
        (probes.calls, probes.requests, probes.lock) = (calls, requests, native);
        probes.forgets = forgets;
        Ok(probes)
    }

    fn attach_group(&mut self, group: Group, module: Option<&str>) -> Result<()> {
        for plan in PLANS.iter().filter(|p| p.group == group) {
            let program = self
                .object
                .progs_mut()
                .find(|p| p.name() == plan.program)
                .ok_or_else(|| ProbeError::Bpf {
                    action: format!("attach {}", plan.program),
                    reason: "it is not among the programs".into(),
                })?;
            let family = module.unwrap_or("fuse");
            let (link, to) = match plan.target {
                Target::Fuse(name) | Target::Kernel(name) => (program.attach_trace(), name.into()),
                Target::FuseEvent(name) => {
                    let name = format!("{family}_{name}");
                    (program.attach_raw_tracepoint(&name), name)
                }
                Target::Event(name) => (program.attach_raw_tracepoint(name), name.into()),
            };
            let link = link.map_err(failed(format!("attach to {to}")))?;
            self.links.push(link);
        }
        Ok(())
    }

    /// Begins counting.
    ///
    /// # Errors
    /// If the programs cannot be told.
    pub fn start(&self, fio: u32, daemon: Option<u32>) -> Result<()> {
        self.control([1, fio, daemon.unwrap_or(0), 0])
    }

    fn control(&self, words: [u32; 4]) -> Result<()> {
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
        self.map(".data.control")?
            .update(&0_u32.to_ne_bytes(), &bytes, MapFlags::ANY)
            .map_err(failed("set .data.control".into()))
    }

    fn map(&self, name: &str) -> Result<libbpf_rs::Map<'_>> {
        self.object
            .maps()
            .find(|m| m.name() == name)
            .ok_or_else(|| ProbeError::Bpf {
                action: format!("find the map {name}"),
                reason: "it is not there".into(),
            })
    }

    /// Ends counting.
    ///
    /// # Errors
    /// If the programs cannot be told.
    pub fn pause(&self) -> Result<()> {
        self.control([0; 4])
    }

    /// Detaches, and puts what was counted into `counters`.
    ///
    /// # Errors
    /// If the figures cannot be read. Whatever was lost on the way is said in `missing`.
    pub fn read(mut self, counters: &mut Counters) -> Result<()> {
        counters.missing.append(&mut self.missing);
        let sums = self.counts()?;
        let sum = |which: Count| sums[which as usize];
        if self.calls {
            counters.fio_syscalls = Some(sum(Count::FioCalls));
            counters.daemon_syscalls = self.daemon.then(|| sum(Count::DaemonCalls));
        }
        if self.lock {
            counters.queue_lock = Some(LockContention {
                contended: sum(Count::Contended),
                wait_ns: sum(Count::WaitNs),
            });
        }
        if self.requests {
            let under_way = self.drain()?;
            counters.requests = self.requests()?;
            counters.forgotten = self.forgets.then(|| sum(Count::Forgotten));
            let mut lost = |n: u64, what: &str| {
                if n > 0 {
                    counters.missing.push(format!("FUSE requests: {n} {what}"));
                }
            };
            lost(
                under_way,
                "were still under way at the end and are not counted",
            );
            lost(
                sum(Count::LostEnqueue),
                "found no room among those under way and are not counted",
            );
            lost(sum(Count::LostEnd), "ended unseen and are not counted");
            lost(
                sum(Count::LostReply),
                "were answered unseen and are in no histogram",
            );
            lost(
                sum(Count::LostMax),
                "times a largest value may not have been kept",
            );
            lost(
                self.skipped()?,
                "events were skipped because a probe ran already on that processor",
            );
        }
        Ok(())
    }

    /// Nodes that FORGET and BATCH_FORGET named so far.
    ///
    /// # Errors
    /// If the figure cannot be read.
    pub fn forgotten(&self) -> Result<u64> {
        Ok(self.counts()?[Count::Forgotten as usize])
    }

    fn counts(&self) -> Result<Vec<u64>> {
        let map = self.map("counts")?;
        (0..=Count::Forgotten as u32)
            .map(|n| {
                let each = map
                    .lookup_percpu(&n.to_ne_bytes(), MapFlags::ANY)
                    .map_err(failed("read counts".into()))?
                    .unwrap_or_default();
                Ok(each.iter().flat_map(|v| words(v)).sum())
            })
            .collect()
    }

    /// Waits for requests under way, for a while. How many are left.
    fn drain(&self) -> Result<u64> {
        let map = self.map("requests")?;
        let end = Instant::now() + DRAIN;
        loop {
            let left = map.keys().count() as u64;
            if left == 0 || Instant::now() > end {
                return Ok(left);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn requests(&self) -> Result<Vec<Requests>> {
        let map = self.map("opcodes")?;
        let mut all = BTreeMap::new();
        for opcode in 0..OPCODES {
            let Some(bytes) = map
                .lookup(&opcode.to_ne_bytes(), MapFlags::ANY)
                .map_err(failed("read opcodes".into()))?
            else {
                continue;
            };
            let words: Vec<u64> = words(&bytes).collect();
            if words.len() != OPCODE_WORDS {
                return Err(ProbeError::Bpf {
                    action: "read opcodes".into(),
                    reason: format!("{} words, not {OPCODE_WORDS}", words.len()),
                });
            }
            if words[0] == 0 {
                continue;
            }
            let part = |n: usize| histogram(&words[2 + n * HISTOGRAM_WORDS..][..HISTOGRAM_WORDS]);
            let name = name(opcode);
            all.insert(
                name.clone(),
                Requests {
                    opcode: name,
                    crossings: words[0],
                    held_ns: words[1],
                    queueing: part(0),
                    processing: part(1),
                    total: part(2),
                },
            );
        }
        Ok(all.into_values().collect())
    }

    /// Events that the kernel did not run a program for, because it was running one of
    /// the same on that processor.
    fn skipped(&self) -> Result<u64> {
        let mut own = Vec::new();
        for program in self.object.progs() {
            // Those that were not loaded have no descriptor.
            if let Ok(id) = Program::id_from_fd(program.as_fd()) {
                own.push(id);
            }
        }
        Ok(ProgInfoIter::default()
            .filter(|info| own.contains(&info.id))
            .map(|info| info.recursion_misses)
            .sum())
    }
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes
        .chunks_exact(8)
        .map(|c| u64::from_ne_bytes(c.try_into().unwrap_or_default()))
}

/// Sum, largest, buckets.
fn histogram(words: &[u64]) -> Histogram {
    let bins: Vec<_> = words[2..]
        .iter()
        .enumerate()
        .filter(|(_, n)| **n > 0)
        .map(|(bucket, n)| (lower_bound(bucket), *n))
        .collect();
    if bins.is_empty() {
        return Histogram::default();
    }
    Histogram {
        bins,
        sum_ns: Some(words[0]),
        max_ns: Some(words[1]),
    }
}

/// `COPY_FILE_RANGE`, as the kernel's header has it without its prefix.
fn name(opcode: u32) -> String {
    if opcode == 0 {
        return format!("OPCODE_{OPCODES}_OR_MORE");
    }
    let Some(known) = Opcode::from_raw(opcode) else {
        return format!("OPCODE_{opcode}");
    };
    let mut out = String::new();
    for (n, c) in format!("{known:?}").chars().enumerate() {
        if n > 0 && c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_uppercase());
    }
    out
}

/// `struct config` of `config.h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Config {
    numbers: [u32; 11],
    ns: [u64; 2],
}

impl Config {
    fn of(types: &Types, minor: u32) -> Result<Self> {
        Ok(Self {
            numbers: [
                minor,
                types.offset("fuse_req", &["fm"])?,
                types.offset("fuse_req", &["in", "h", "opcode"])?,
                types.offset("fuse_mount", &["fc"])?,
                types.offset("fuse_conn", &["dev"])?,
                types.offset("fuse_conn", &["iq", "lock"])?,
                types.offset("fuse_copy_state", &["write"])?,
                types.offset("fuse_copy_state", &["req"])?,
                types.offset("fuse_dev", &["fc"])?,
                types.offset("fuse_req", &["args"])?,
                types.offset("fuse_req", &["intr_entry"])?,
            ],
            ns: [0; 2],
        })
    }

    /// Adds the name space that process numbers are given in: this process's.
    fn name_space(&mut self) -> Result<()> {
        let path = "/proc/self/ns/pid";
        let meta = std::fs::metadata(path).map_err(|e| ProbeError::Proc {
            path: path.into(),
            reason: e.to_string(),
        })?;
        self.ns = [meta.dev(), meta.ino()];
        Ok(())
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.numbers.iter().flat_map(|n| n.to_ne_bytes()).collect();
        bytes.extend([0; 4]);
        bytes.extend(self.ns.iter().flat_map(|n| n.to_ne_bytes()));
        bytes
    }
}

fn load(config: &Config, groups: &[Group], module: Option<&str>) -> Result<Object> {
    let mut open = ObjectBuilder::default()
        .open_memory(PROGRAMS)
        .map_err(failed("open the programs".into()))?;
    let bytes = config.bytes();
    for mut map in open.maps_mut() {
        if map.name().to_string_lossy().ends_with(".rodata") {
            let value = map.initial_value_mut().filter(|v| v.len() >= bytes.len());
            let value = value.ok_or_else(|| ProbeError::Bpf {
                action: "configure the programs".into(),
                reason: "their configuration has another size".into(),
            })?;
            value[..bytes.len()].copy_from_slice(&bytes);
        }
    }
    for mut program in open.progs_mut() {
        let plan = PLANS
            .iter()
            .find(|p| program.name() == p.program && groups.contains(&p.group));
        program.set_autoload(plan.is_some());
        let target = match plan.map(|p| p.target) {
            Some(Target::Fuse(name)) => {
                module.map_or_else(|| name.to_owned(), |m| format!("{m}:{name}"))
            }
            Some(Target::Kernel(name)) => name.to_owned(),
            _ => continue,
        };
        program
            .set_attach_target(0, Some(target.clone()))
            .map_err(failed(format!("find the function {target}")))?;
    }
    open.load().map_err(failed("load the programs".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opcodes_have_the_kernels_names() {
        assert_eq!(name(15), "READ");
        assert_eq!(name(42), "BATCH_FORGET");
        assert_eq!(name(44), "READDIRPLUS");
        assert_eq!(name(47), "COPY_FILE_RANGE");
        assert_eq!(name(63), "OPCODE_63");
        assert_eq!(name(0), "OPCODE_64_OR_MORE");
    }

    #[test]
    fn a_histogram_has_its_bounds() {
        let mut words = vec![0; HISTOGRAM_WORDS];
        assert_eq!(histogram(&words), Histogram::default());
        (words[0], words[1]) = (2001, 1000);
        words[2 + efuse_model::histogram::bucket(1000)] = 2;
        words[2 + 1] = 1;
        let h = histogram(&words);
        assert_eq!(h.bins, [(1, 1), (992, 2)]);
        assert_eq!((h.sum_ns, h.max_ns), (Some(2001), Some(1000)));
    }

    #[test]
    fn the_configuration_is_laid_out_as_in_c() {
        let config = Config {
            numbers: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
            ns: [12, 13],
        };
        let bytes = config.bytes();
        assert_eq!(bytes.len(), 64);
        assert_eq!(bytes[40..44], 11_u32.to_ne_bytes());
        assert_eq!(bytes[56..], 13_u64.to_ne_bytes());
    }

    /// The verifier's word on every program, where this kernel lets them be attached.
    #[test]
    fn every_program_is_accepted_or_there_is_a_reason() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: BPF needs root");
            return;
        }
        let number = 0;
        let family = "fuse";
        match Probes::attach(Some(Connection { family, number })) {
            Ok(probes) => {
                eprintln!("missing here: {:?}", probes.missing);
                assert!(probes.missing.iter().all(|m| m.contains(": ")));
                assert!(probes.calls, "{probes:?}");
                let refused = |m: &String| m.contains("BPF program load failed: -EACCES");
                assert!(!probes.missing.iter().any(refused), "{probes:?}");
            }
            Err(e) => eprintln!("no probes here: {e}"),
        }
    }

    /// Where this kernel has no BPF for it, the reason is said and nothing breaks.
    #[test]
    fn system_calls_of_this_process_or_a_reason() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: BPF needs root");
            return;
        }
        let probes = match Probes::attach(None) {
            Ok(probes) => probes,
            Err(e) => {
                eprintln!("no probes here: {e}");
                assert!(e.to_string().contains("system calls"), "{e}");
                return;
            }
        };
        probes.start(std::process::id(), None).unwrap();
        for _ in 0..100 {
            nix::unistd::getppid();
        }
        let mut counters = Counters::default();
        probes.pause().unwrap();
        probes.read(&mut counters).unwrap();
        assert!(counters.fio_syscalls.unwrap() >= 100, "{counters:?}");
        assert_eq!(counters.daemon_syscalls, None);
        assert!(counters.requests.is_empty());
    }
}
