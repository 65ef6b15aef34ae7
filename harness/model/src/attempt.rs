//! One measured repetition of a cell, as it is stored.

use serde::{Deserialize, Serialize};

use crate::cell::CellKey;
use crate::counters::{Counters, Probes};
use crate::histogram::Histogram;

/// Version of the record layout in `attempts.jsonl`.
pub const SCHEMA: u32 = 1;

/// Mean, spread and percentiles of one latency, in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Arithmetic mean, us.
    pub mean_us: f64,
    /// Standard deviation, us.
    pub stddev_us: f64,
    /// Smallest, us.
    pub min_us: f64,
    /// Largest, us.
    pub max_us: f64,
    /// `(percent, us)` where fio gives them (clat), ascending.
    pub percentiles: Vec<(f64, f64)>,
}

/// One direction of a job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OpMetrics {
    /// Completed requests per second.
    pub iops: f64,
    /// Bytes per second.
    pub bytes_per_s: f64,
    /// Completed requests.
    pub ios: u64,
    /// Bytes moved.
    pub bytes: u64,
    /// Submission latency: fio's slat, the document's "queueing latency".
    pub slat: Latency,
    /// Completion latency: fio's clat, the document's "processing latency".
    pub clat: Latency,
    /// fio's total latency.
    pub lat: Latency,
    /// fio's own bins of the completion latency (`json+`), nanoseconds; empty in
    /// attempts that were stored before they were kept.
    #[serde(default)]
    pub clat_bins: Histogram,
}

/// What the measured phase gave.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Reads, if the job reads.
    pub read: Option<OpMetrics>,
    /// Writes, if the job writes.
    pub write: Option<OpMetrics>,
    /// Operations of a metadata job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operations: Option<OpMetrics>,
    /// Length of the measured phase, milliseconds.
    pub runtime_ms: f64,
    /// fio's own context switches (`ctx`, summed over jobs): fio's processes only.
    pub fio_ctx: u64,
    /// fio's user CPU, percent of one processor, mean over jobs.
    pub fio_usr_percent: f64,
    /// fio's system CPU, percent of one processor, mean over jobs.
    pub fio_sys_percent: f64,
    /// What was counted beside fio; `None` in attempts stored before it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counters: Option<Counters>,
}

impl Metrics {
    /// Requests of fio, or operations, that were completed in the measured phase.
    #[must_use]
    pub fn completed(&self) -> u64 {
        [&self.read, &self.write, &self.operations]
            .into_iter()
            .flatten()
            .map(|op| op.ios)
            .sum()
    }

    /// Those of them that [`Counters`] are of: counting may begin later than the phase, by setting
    /// it up, and the rate of completion is taken for the same throughout. All, where the time that
    /// was counted is not known, or is longer than the phase, as it is by starting and ending jobs.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "far from 2^53")]
    pub fn counted(&self) -> f64 {
        let counters = self.counters.as_ref();
        let window_ms = counters.and_then(|c| c.window_s).map(|s| s * 1e3);
        let share = window_ms
            .filter(|_| self.runtime_ms > 0.0)
            .map_or(1.0, |window| (window / self.runtime_ms).min(1.0));
        self.completed() as f64 * share
    }
}

/// What was checked, all of it without a mismatch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Bytes whose crc32c was checked by reads through the system before measuring.
    pub read_bytes: u64,
    /// Bytes written through the system after measuring and read back with crc32c.
    pub write_bytes: u64,
    /// Files whose checksum through the system equals the lower directory's.
    pub files_compared: u32,
    /// Bytes in those files.
    pub bytes_compared: u64,
    /// Operations of a metadata job whose answers were checked, all of them.
    #[serde(default)]
    pub operations: u64,
}

/// The step of a cell, for progress and for failure messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Block device, mkfs and mount of the lower file system.
    Prepare,
    /// Files laid out in the lower directory.
    Layout,
    /// Mount of the system under test and ready check.
    Mount,
    /// Verified reads before measuring (also the warm-up).
    VerifyRead,
    /// The measured job.
    Measure,
    /// Verified writes after measuring.
    VerifyWrite,
    /// Comparison with the lower directory.
    Compare,
    /// Unmount and teardown.
    Unmount,
}

impl Phase {
    /// Every phase, in order.
    pub const ALL: [Self; 8] = [
        Self::Prepare,
        Self::Layout,
        Self::Mount,
        Self::VerifyRead,
        Self::Measure,
        Self::VerifyWrite,
        Self::Compare,
        Self::Unmount,
    ];

    /// The name in messages: `verify-read`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Layout => "layout",
            Self::Mount => "mount",
            Self::VerifyRead => "verify-read",
            Self::Measure => "measure",
            Self::VerifyWrite => "verify-write",
            Self::Compare => "compare",
            Self::Unmount => "unmount",
        }
    }
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// Measured, and every check passed.
    Done {
        /// Boxed: much larger than the other variant.
        metrics: Box<Metrics>,
        /// What was checked.
        verified: Verified,
    },
    /// No figure. The reason is one line that says what, where and what to do.
    Failed {
        /// The step that failed.
        phase: Phase,
        /// Why.
        reason: String,
    },
}

/// One line of `attempts.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The cell.
    pub cell: CellKey,
    /// Its system, for readers of the raw file.
    pub system: String,
    /// Its test, likewise.
    pub test: String,
    /// Repetition, from 0.
    pub repetition: u32,
    /// Whether the probes ran; a slot of its own.
    #[serde(default, skip_serializing_if = "Probes::is_off")]
    pub probes: Probes,
    /// Which try at this repetition, from 0.
    pub attempt: u32,
    /// When it started.
    pub started: jiff::Timestamp,
    /// Wall time of the whole cell, milliseconds.
    pub wall_ms: u64,
    /// Identifier of the boot (VM) or session (host) it was measured in.
    pub session: String,
    /// The exact fio command line of the measured phase.
    pub command: String,
    /// File in the run's folder with fio's raw JSON, if the measured phase ran.
    pub raw: Option<String>,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
}
