//! What can go wrong inside: one message that says what, where and what to do.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// A failure of the inside part.
#[derive(Debug, Error)]
pub enum AgentError {
    /// The operating system refused.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file, directory or device.
        path: PathBuf,
        /// What was tried.
        action: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A program that is needed is not there.
    #[error("{program} is not installed; {advice}")]
    NoProgram {
        /// Its name.
        program: String,
        /// What to do.
        advice: &'static str,
    },
    /// A program could not be started.
    #[error("cannot start {program}: {source}")]
    Start {
        /// Its path.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// A program ended with an error.
    #[error("{program} {how}: {tail}")]
    Program {
        /// Its name.
        program: String,
        /// `exited with status 1`.
        how: String,
        /// The end of what it printed.
        tail: String,
    },
    /// A program went on after what it worked on was gone.
    #[error("it hung and was killed")]
    Pointless,
    /// The time limit of the cell or check passed.
    #[error(
        "not finished after {seconds} s; everything was killed and unmounted (give it a longer time limit, or look for a hang)"
    )]
    Timeout {
        /// The limit.
        seconds: u64,
    },
    /// The kernel's lockdep has stopped to check.
    #[error(
        "the kernel's lockdep is off: it has reported something, or has no more room (see the console, and LOCKDEP_*_BITS in kernel/debug.config)"
    )]
    LockdepOff,
    /// The user stopped the run.
    #[error("interrupted; everything was killed and unmounted")]
    Interrupted,
    /// A block device cannot be had here.
    #[error("device {device}: {reason}")]
    Device {
        /// Name of the device kind or its path.
        device: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The system under test.
    #[error(transparent)]
    System(#[from] efuse_systems::SystemError),
    /// fio did not do the job, or its output is not what it should be.
    #[error("{0}")]
    Fio(String),
    /// The job cannot be run as it is written.
    #[error("test {test}: {reason}")]
    Job {
        /// The test.
        test: String,
        /// Why, and what to change.
        reason: String,
    },
    /// The system returned other bytes than the lower file system has.
    #[error("{0}")]
    Mismatch(String),
    /// The other side does not speak the protocol.
    #[error("protocol: {0}")]
    Protocol(String),
}

/// Shorthand used all over the crate.
pub type Result<T, E = AgentError> = std::result::Result<T, E>;

impl AgentError {
    /// For `map_err` on an operation on `path`.
    pub(crate) fn io(
        path: impl AsRef<Path>,
        action: impl Into<String>,
    ) -> impl FnOnce(io::Error) -> Self {
        let (path, action) = (path.as_ref().to_owned(), action.into());
        move |source| Self::Io {
            path,
            action,
            source,
        }
    }

    /// As [`AgentError::io`], for system calls through `nix`.
    pub(crate) fn errno(
        path: impl AsRef<Path>,
        action: impl Into<String>,
    ) -> impl FnOnce(nix::errno::Errno) -> Self {
        let convert = Self::io(path, action);
        move |errno| convert(errno.into())
    }
}
