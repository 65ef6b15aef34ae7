//! JSON lines between `eval` (outside) and its agent (inside), one message a line.
//!
//! The agent says [`FromAgent::Ready`] once; every request carries a sequence number
//! that its answers repeat. Lines that are not valid messages are a protocol error.

use serde::{Deserialize, Serialize};

use crate::attempt::{Outcome, Phase};
use crate::cell::Cell;
use crate::counters::Probes;
use crate::environment::Environment;

/// Version of this protocol; both sides are the same binary, so a mismatch means a
/// stale guest image.
pub const PROTOCOL: u32 = 1;

/// From `eval` to the agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "to", rename_all = "kebab-case")]
pub enum ToAgent {
    /// Which of these systems can run here? Answered by [`FromAgent::Availability`].
    Probe {
        /// Sequence number.
        seq: u64,
        /// System identifiers.
        systems: Vec<String>,
    },
    /// Measure one attempt. Answered by phases and [`FromAgent::Finished`].
    Run {
        /// Sequence number.
        seq: u64,
        /// The cell.
        cell: Box<Cell>,
        /// Whether to run the probes.
        #[serde(default)]
        probes: Probes,
        /// Give the cell up after this long, milliseconds.
        timeout_ms: u64,
    },
    /// Run a named integration check against a system. Answered by [`FromAgent::Checked`].
    Check {
        /// Sequence number.
        seq: u64,
        /// Name of the check.
        check: String,
        /// System identifier.
        system: String,
        /// How many times as much of what looks for rare events.
        effort: u32,
        /// Give it up after this long, milliseconds.
        timeout_ms: u64,
    },
    /// Finish, and power the guest off.
    Shutdown,
}

/// From the agent to `eval`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "kebab-case")]
pub enum FromAgent {
    /// The first line.
    Ready {
        /// [`PROTOCOL`].
        protocol: u32,
        /// What the agent sees of its machine. Fields that only the outside knows
        /// (revision, QEMU's version) are filled in there.
        environment: Box<Environment>,
    },
    /// For each system of the probe: `None` if it can run, else why not.
    Availability {
        /// Sequence number of the request.
        seq: u64,
        /// `(system, why not)`.
        systems: Vec<(String, Option<String>)>,
    },
    /// A step began.
    Phase {
        /// Sequence number of the request.
        seq: u64,
        /// The step.
        phase: Phase,
    },
    /// An attempt ended.
    Finished {
        /// Sequence number of the request.
        seq: u64,
        /// How.
        outcome: Outcome,
        /// The exact fio command line of the measured phase, empty if it never came
        /// to that.
        command: String,
        /// fio's raw JSON of the measured phase.
        raw: Option<serde_json::Value>,
    },
    /// An integration check ended.
    Checked {
        /// Sequence number of the request.
        seq: u64,
        /// `None` if it passed, else why not.
        failure: Option<String>,
        /// What it did, for the log (counts, names of cases).
        detail: String,
        /// Why it did not run, where it could not; then `failure` is `None`.
        skipped: Option<String>,
    },
    /// A line for the log.
    Log {
        /// The text.
        text: String,
    },
}
