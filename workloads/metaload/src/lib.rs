//! Operations on names and attributes, measured one by one, with every answer checked.
//!
//! fio 3.33 can create, stat and delete files but neither looks up names that are not
//! there, nor walks, renames, or reads extended attributes, and it checks no answer.
//! The harness therefore has this small program, which does one kind of operation in a
//! number of threads for a given time, and ends with an error at the first wrong answer.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

pub mod operation;
pub mod run;
pub mod snapshot;
pub mod tree;

/// What can go wrong; either ends the measurement.
#[derive(Debug, Error)]
pub enum LoadError {
    /// A system call failed that had to succeed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// An answer was wrong.
    #[error("wrong answer for {}: {problem}", path.display())]
    Wrong {
        /// About what.
        path: PathBuf,
        /// What was wrong with it.
        problem: String,
    },
    /// The job cannot be done as described.
    #[error("{0}")]
    Job(String),
}

impl LoadError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    fn errno(action: &'static str, path: &Path) -> impl FnOnce(rustix::io::Errno) -> Self {
        let path = path.to_owned();
        move |errno| Self::Io {
            action,
            path,
            source: errno.into(),
        }
    }

    fn wrong(path: &Path, problem: impl Into<String>) -> Self {
        Self::Wrong {
            path: path.to_owned(),
            problem: problem.into(),
        }
    }
}
