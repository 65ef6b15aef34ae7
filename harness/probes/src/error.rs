//! Why something cannot be counted here.

use thiserror::Error;

/// One reason, fit for [`efuse_model::counters::Counters::missing`].
#[derive(Debug, Error)]
pub enum ProbeError {
    /// A perf event could not be opened, started or read.
    #[error("perf event for {of}: cannot {action}: {source}")]
    Perf {
        /// Task or processor.
        of: String,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The self-test read something else than what had happened.
    #[error(
        "perf events: {slept} sleeps read {read} context switches, not {low} to {high}; they cannot be trusted here"
    )]
    SelfTest {
        /// Sleeps made.
        slept: u64,
        /// Switches read.
        read: u64,
        /// The least to be trusted.
        low: u64,
        /// The most to be trusted.
        high: u64,
    },
    /// A BPF program could not be used.
    #[error("cannot {action}: {reason}")]
    Bpf {
        /// What was tried.
        action: String,
        /// Why it failed.
        reason: String,
    },
    /// A file below `/proc` or `/sys` could not be read or understood.
    #[error("{path}: {reason}")]
    Proc {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
}

/// Shorthand used all over the crate.
pub type Result<T, E = ProbeError> = std::result::Result<T, E>;
