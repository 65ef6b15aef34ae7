//! What can go wrong with a system under test.

use std::io;
use std::path::PathBuf;

use efuse_reader::ReadError;
use thiserror::Error;

/// One message that says what, where and what to do.
#[derive(Debug, Error)]
pub enum SystemError {
    /// The operating system refused.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        action: String,
        /// Why it failed.
        source: io::Error,
    },
    /// No system has this name.
    #[error("unknown system \"{id}\"; the systems are: {known}")]
    Unknown {
        /// The name.
        id: String,
        /// Every name, comma separated.
        known: String,
    },
    /// A need is not met.
    #[error("{system}: {reason}")]
    Unavailable {
        /// The system.
        system: String,
        /// What is missing and what to do.
        reason: String,
    },
    /// A description of a user's system is wrong.
    #[error(transparent)]
    Description(#[from] ReadError),
    /// Something is mounted where the system should go.
    #[error("{}: already a mount point; unmount it first", path.display())]
    Occupied {
        /// The mount point.
        path: PathBuf,
    },
    /// The daemon's program cannot be run.
    #[error("{system}: cannot start `{command}`: {source}")]
    Start {
        /// The system.
        system: String,
        /// The command line.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// The daemon ended by itself.
    #[error("{system}: the daemon {how} {when}; {log}")]
    Died {
        /// The system.
        system: String,
        /// `exited with status 1`, `was killed by signal 11`.
        how: String,
        /// `before the file system was ready`.
        when: &'static str,
        /// The end of its output.
        log: String,
    },
    /// The file system did not answer in time.
    #[error("{system}: not ready after {seconds} s: {what}; {log}")]
    NotReady {
        /// The system.
        system: String,
        /// The limit.
        seconds: u64,
        /// What was waited for.
        what: String,
        /// The end of the daemon's output.
        log: String,
    },
    /// It went away, but not as it should.
    #[error("{system}: {} was unmounted only by force: {problem}; {log}", mountpoint.display())]
    Unmount {
        /// The system.
        system: String,
        /// Where it was.
        mountpoint: PathBuf,
        /// What did not work, in order.
        problem: String,
        /// The end of the daemon's output.
        log: String,
    },
    /// A control cannot be built.
    #[error("{name}: {problem}")]
    Control {
        /// The control's program.
        name: String,
        /// Why, and what to do.
        problem: String,
    },
}

impl SystemError {
    pub(crate) fn io(
        path: impl Into<PathBuf>,
        action: impl Into<String>,
    ) -> impl FnOnce(io::Error) -> Self {
        let (path, action) = (path.into(), action.into());
        move |source| Self::Io {
            path,
            action,
            source,
        }
    }
}
