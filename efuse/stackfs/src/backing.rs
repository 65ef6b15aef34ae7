//! Mainline passthrough: which inodes the kernel reads and writes itself.
//!
//! The kernel wants all opens of an inode in one mode: either all through one backing file or none.
//! So each node counts its opens of both kinds, and a backing id lives as long as there is one
//! passthrough open.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use efuse_abi::Errno;
use efuse_runtime::BackingFiles;

use crate::creds::Baseline;
use crate::nodes::Node;
use crate::table::lock;

/// The group of nobody in particular.
const OVERFLOW_GID: u32 = 65534;

/// How the opens of one node are served.
#[derive(Debug, Default)]
pub(crate) struct Backing {
    id: i32,
    passthrough: u64,
    plain: u64,
}

/// How one open is served. Must be given back to [`Passthrough::close`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Reads and writes come to the daemon.
    Plain,
    /// The kernel does them on this backing id.
    Backed(i32),
}

/// The registry of the connection, with the decision to stop using it.
pub(crate) struct Passthrough {
    files: Arc<dyn BackingFiles>,
    refused: AtomicBool,
    /// The first refusal was reported.
    said: AtomicBool,
}

impl Passthrough {
    pub(crate) fn new(files: Arc<dyn BackingFiles>) -> Passthrough {
        Passthrough {
            files,
            refused: AtomicBool::new(false),
            said: AtomicBool::new(false),
        }
    }

    /// Chooses the mode of one more open of `node`, a regular file.
    pub(crate) fn open(&self, node: &Node, baseline: &Baseline) -> Mode {
        let mut backing = lock(&node.backing);
        if backing.passthrough > 0 {
            backing.passthrough += 1;
            return Mode::Backed(backing.id);
        }
        if backing.plain > 0 || self.refused.load(Ordering::Relaxed) {
            backing.plain += 1;
            return Mode::Plain;
        }
        match self.register(node.as_fd(), baseline) {
            Ok(id) => {
                backing.id = id;
                backing.passthrough = 1;
                Mode::Backed(id)
            }
            Err(errno) => {
                // For want of a right or of the feature it will refuse all of them. Others may be
                // of this file alone, or pass.
                let all = matches!(errno, Errno::EPERM | Errno::ENOTTY | Errno::EOPNOTSUPP);
                self.refused.fetch_or(all, Ordering::Relaxed);
                if !self.said.swap(true, Ordering::Relaxed) {
                    let which = if all { "all files" } else { "such files" };
                    eprintln!(
                        "stackfs: the kernel refuses a backing file ({errno:?}); {which} are read \
                         and written through the daemon"
                    );
                }
                backing.plain += 1;
                Mode::Plain
            }
        }
    }

    /// The kernel opens the backing file anew for every open, with that open's flags, and does I/O
    /// with the credentials of this very call. Without CAP_FSETID in them, a write clears suid and
    /// sgid below even though the daemon is root.
    fn register(&self, file: BorrowedFd<'_>, baseline: &Baseline) -> Result<i32, Errno> {
        let _caps = baseline.unprivileged(OVERFLOW_GID);
        self.files.open(file)
    }

    /// Takes back one open.
    pub(crate) fn close(&self, node: &Node, mode: Mode) {
        let mut backing = lock(&node.backing);
        match mode {
            Mode::Plain => backing.plain = backing.plain.saturating_sub(1),
            Mode::Backed(id) => {
                backing.passthrough = backing.passthrough.saturating_sub(1);
                if backing.passthrough == 0
                    && let Err(errno) = self.files.close(id)
                {
                    eprintln!("stackfs: backing id {id} cannot be given back: {errno}");
                }
            }
        }
    }
}
