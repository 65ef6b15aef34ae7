//! A stackable pass-through file system: everything below a source directory, seen at the mount.
//!
//! Every node is an `O_PATH` descriptor of a lower inode and nothing else, so renames below or above
//! never confuse it. Data go from the worker's buffer to the lower file and back without a copy in
//! between. See `docs/conformance.md` for how it differs from the file system below.

mod attr;
mod backing;
mod creds;
mod dirs;
mod files;
mod io;
mod meta;
mod names;
mod nodes;
mod serve;
mod sys;
mod table;
mod unopened;
mod xattr;

use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use efuse_abi::{Errno, FopenFlags};
use efuse_runtime::{Connection, Entry, Node as NodeId, Opened};
use thiserror::Error;

use backing::{Mode, Passthrough};
use creds::Baseline;
use files::{Dirs, Files};
use nodes::{Key, Node, Nodes};
use sys::FdPath;
use table::{Table, lock};
use unopened::Unopened;

pub use unopened::{KEPT_DIRECTORIES, KEPT_FILES};

/// How the file system behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long the kernel may trust a name.
    pub entry_ttl: Duration,
    /// How long the kernel may trust attributes.
    pub attr_ttl: Duration,
    /// Let the kernel read and write regular files itself, where it can.
    pub passthrough: bool,
    /// Let the kernel check POSIX ACLs (and with them all permissions).
    pub posix_acl: bool,
    /// A debug knob: nobody but root is shown what is not a directory and belongs to others.
    pub own_only: bool,
    /// The kernel opens files and directories without asking. Not with `passthrough` or `own_only`.
    pub no_open: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            entry_ttl: Duration::from_secs(1),
            attr_ttl: Duration::from_secs(1),
            passthrough: false,
            posix_acl: false,
            own_only: false,
            no_open: false,
        }
    }
}

/// The file system cannot start.
#[derive(Debug, Error)]
pub enum StackFsError {
    /// The source directory does not open.
    #[error("source {}: {errno}", path.display())]
    Source {
        /// The source.
        path: PathBuf,
        /// The error.
        errno: Errno,
    },
    /// Something of the process's surroundings is missing.
    #[error("{what}: {errno}")]
    Setup {
        /// What was tried, and what it is for.
        what: &'static str,
        /// The error.
        errno: Errno,
    },
}

/// Numbers for whoever watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statistics {
    /// Nodes the kernel knows, the root included.
    pub nodes: usize,
    /// Open files.
    pub files: usize,
    /// Open directories.
    pub directories: usize,
}

/// The file system.
pub struct StackFs {
    options: Options,
    nodes: Nodes,
    files: Files,
    dirs: Dirs,
    baseline: Baseline,
    /// An open `/proc/self/fd`: the way from an `O_PATH` descriptor to one for data.
    proc_fd: OwnedFd,
    /// By device: whether close has something to do there.
    flush: Mutex<HashMap<u64, bool>>,
    connection: OnceLock<Connection>,
    passthrough: OnceLock<Passthrough>,
    /// Set if the kernel opens without asking.
    unopened: OnceLock<Unopened>,
}

impl std::fmt::Debug for StackFs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StackFs")
            .field("options", &self.options)
            .field("statistics", &self.statistics())
            .finish_non_exhaustive()
    }
}

impl StackFs {
    /// Opens `source`, a directory.
    pub fn new(source: &Path, options: Options) -> Result<StackFs, StackFsError> {
        let source_error = |errno| StackFsError::Source {
            path: source.to_owned(),
            errno,
        };
        let path = std::ffi::CString::new(source.as_os_str().as_bytes())
            .map_err(|_| source_error(Errno::EINVAL))?;
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        let root = sys::openat(libc::AT_FDCWD, &path, flags, 0).map_err(source_error)?;
        let stat = sys::fstat(root.as_raw_fd()).map_err(source_error)?;
        let wants_flush = wants_flush(root.as_raw_fd());
        let proc_fd = sys::openat(libc::AT_FDCWD, c"/proc/self/fd", flags, 0).map_err(|errno| {
            StackFsError::Setup {
                what: "/proc/self/fd, which must be mounted",
                errno,
            }
        })?;
        let baseline = Baseline::current().map_err(|errno| StackFsError::Setup {
            what: "own capabilities",
            errno,
        })?;
        let key = Key::of(&stat);
        Ok(StackFs {
            options,
            nodes: Nodes::new(root, key, wants_flush).map_err(source_error)?,
            files: Files::new(),
            dirs: Table::new(),
            baseline,
            proc_fd,
            flush: Mutex::new(HashMap::from([(key.dev, wants_flush)])),
            connection: OnceLock::new(),
            passthrough: OnceLock::new(),
            unopened: OnceLock::new(),
        })
    }

    /// Numbers of nodes and handles right now.
    pub fn statistics(&self) -> Statistics {
        let (files, directories) = self.unopened.get().map_or((0, 0), Unopened::len);
        Statistics {
            nodes: self.nodes.len(),
            files: self.files.len() + files,
            directories: self.dirs.len() + directories,
        }
    }

    fn node(&self, id: u64) -> Result<Arc<Node>, Errno> {
        self.nodes.get(id)
    }

    /// Opens the inode behind an `O_PATH` descriptor.
    fn reopen(&self, fd: RawFd, flags: i32) -> Result<OwnedFd, Errno> {
        sys::openat(self.proc_fd.as_raw_fd(), FdPath::new(fd).name(), flags, 0)
    }

    fn entry(&self, node: NodeId, stat: &libc::stat) -> Entry {
        Entry {
            node,
            attr: attr::attr(stat),
            entry_ttl: self.options.entry_ttl,
            attr_ttl: self.options.attr_ttl,
        }
    }

    /// Makes the inode behind `fd` (`O_PATH`) known and counts one lookup.
    fn acquire(&self, fd: OwnedFd, stat: &libc::stat) -> Result<(Arc<Node>, NodeId), Errno> {
        self.nodes.acquire(Key::of(stat), || {
            let wants_flush = *lock(&self.flush)
                .entry(stat.st_dev)
                .or_insert_with(|| wants_flush(fd.as_raw_fd()));
            Ok((fd, wants_flush))
        })
    }

    /// Registers an open regular file and decides how the kernel treats it.
    fn register(&self, node: &Arc<Node>, fd: OwnedFd, flags: i32) -> Result<Opened, Errno> {
        let mut reply = FopenFlags::empty();
        if !node.wants_flush {
            reply |= FopenFlags::NOFLUSH;
        }
        let mode = match self.passthrough.get() {
            Some(passthrough) => passthrough.open(node, &self.baseline),
            None => Mode::Plain,
        };
        let mut backing_id = 0;
        if let Mode::Backed(id) = mode {
            reply |= FopenFlags::PASSTHROUGH;
            backing_id = id;
        } else if flags & libc::O_DIRECT != 0 {
            // The file is opened for direct I/O: do not look for its pages in the cache, and let
            // writes that do not extend it run side by side, as ext4 does.
            reply |= FopenFlags::DIRECT_IO | FopenFlags::PARALLEL_DIRECT_WRITES;
        }
        match self.files.insert(fd, Arc::clone(node), mode, flags) {
            Ok(fh) => Ok(Opened {
                fh,
                flags: reply,
                backing_id,
            }),
            Err(errno) => {
                if let Some(passthrough) = self.passthrough.get() {
                    passthrough.close(node, mode);
                }
                Err(errno)
            }
        }
    }
}

/// Whether the file system of `fd` does something on close. The local ones below do not, so closing
/// a file on them need not cost a round trip to the daemon.
fn wants_flush(fd: RawFd) -> bool {
    const F2FS: u32 = 0xf2f5_2010;
    const LOCAL: [u32; 6] = [
        libc::EXT4_SUPER_MAGIC as u32,
        libc::XFS_SUPER_MAGIC as u32,
        libc::BTRFS_SUPER_MAGIC as u32,
        libc::TMPFS_MAGIC as u32,
        0x8584_58f6, // ramfs
        F2FS,
    ];
    sys::fstatfs(fd).map_or(true, |stat| !LOCAL.contains(&(stat.f_type as u32)))
}

/// Raises this process's limit of open files as far as it may: each node takes a descriptor.
/// Answers the limit that holds then.
pub fn raise_descriptor_limit() -> u64 {
    let system = std::fs::read_to_string("/proc/sys/fs/nr_open").ok();
    let system = system
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(1 << 20);
    sys::raise_descriptors(system).unwrap_or(1024)
}
