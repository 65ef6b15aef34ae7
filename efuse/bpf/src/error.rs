//! What can go wrong with programs, with what to do about it.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// An error of this crate.
#[derive(Debug, Error)]
pub enum BpfError {
    /// A file or folder.
    #[error("cannot {action} {}: {reason}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        reason: io::Error,
    },
    /// There is no such policy.
    #[error("there is no policy {name:?}; there is {known}, or name a compiled program (*.bpf.o)")]
    UnknownPolicy {
        /// What was asked for.
        name: String,
        /// The built-in ones.
        known: String,
    },
    /// The object is no set of programs for eFUSE.
    #[error("{policy} {what}")]
    NotAPolicy {
        /// The policy.
        policy: String,
        /// What is missing.
        what: &'static str,
    },
    /// A tunable or a map's size is not to be had.
    #[error("policy {policy} has no {what}")]
    NoSuchSetting {
        /// The policy.
        policy: String,
        /// The setting.
        what: String,
    },
    /// Settings that are to be had, but not together.
    #[error("policy {policy}: {what}")]
    BadSetting {
        /// The policy.
        policy: String,
        /// What is wrong with them.
        what: String,
    },
    /// The kernel refused the programs.
    #[error("the kernel does not load policy {policy}: {reason}{log}")]
    Load {
        /// The policy.
        policy: String,
        /// The error, and what it most often means.
        reason: String,
        /// What libbpf and the verifier said, if anything.
        log: String,
    },
    /// The kernel refused to attach them.
    #[error("cannot attach {policy} to connection {dev}: {reason}")]
    Attach {
        /// The policy.
        policy: String,
        /// The connection.
        dev: crate::Dev,
        /// The error, and what it most often means.
        reason: String,
    },
    /// A path is not an eFUSE mount.
    #[error("{} is no mount point of type efuse; see `findmnt -t efuse,efuseblk`", path.display())]
    NotAMount {
        /// The path.
        path: PathBuf,
    },
    /// Nothing is attached there.
    #[error("no programs are attached to connection {dev}")]
    NotAttached {
        /// The connection.
        dev: crate::Dev,
    },
    /// Something else of the BPF system call.
    #[error("cannot {action}: {reason}")]
    Bpf {
        /// What was tried.
        action: String,
        /// Why not.
        reason: libbpf_rs::Error,
    },
}

impl BpfError {
    pub(crate) fn bpf(action: impl Into<String>) -> impl FnOnce(libbpf_rs::Error) -> BpfError {
        move |reason| BpfError::Bpf {
            action: action.into(),
            reason,
        }
    }
}
