//! Files and directories that the kernel opened without asking ([`Options::no_open`]).
//!
//! Requests for them carry the handle 0, and nobody says when the last of them came. So each is
//! served by a descriptor that is opened when it is first needed and kept among those used last.
//!
//! [`Options::no_open`]: crate::Options::no_open

use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::sync::{Arc, Mutex};

use efuse_abi::Errno;

use crate::files::OpenDir;
use crate::table::lock;
use crate::{StackFs, sys};

/// Files that are kept open, all in all.
pub const KEPT_FILES: usize = 1024;
/// Directories that are kept open, all in all; each has up to 32 KiB of entries.
pub const KEPT_DIRECTORIES: usize = 128;

const SHARDS: usize = 16;

/// Flags of the opener that a descriptor of its own is needed for.
const KINDS: i32 = libc::O_DIRECT | libc::O_NOATIME;

struct Slot<T> {
    node: u64,
    kind: i32,
    used: u64,
    value: Arc<T>,
}

struct Shard<T> {
    slots: Vec<Slot<T>>,
    clock: u64,
}

/// Values by node id and kind, so many of them at most: those that were used last.
pub(crate) struct Kept<T> {
    shards: [Mutex<Shard<T>>; SHARDS],
    /// Of each shard.
    room: usize,
}

impl<T> Kept<T> {
    fn new(room: usize) -> Kept<T> {
        Kept {
            shards: std::array::from_fn(|_| {
                Mutex::new(Shard {
                    slots: Vec::new(),
                    clock: 0,
                })
            }),
            room: room / SHARDS,
        }
    }

    /// Node ids are dense.
    fn shard(&self, node: u64) -> &Mutex<Shard<T>> {
        &self.shards[node as usize % SHARDS]
    }

    fn len(&self) -> usize {
        self.shards.iter().map(|one| lock(one).slots.len()).sum()
    }

    fn get(&self, node: u64, kind: i32) -> Option<Arc<T>> {
        let mut shard = lock(self.shard(node));
        shard.clock += 1;
        let now = shard.clock;
        let slot = shard
            .slots
            .iter_mut()
            .find(|slot| slot.node == node && slot.kind == kind)?;
        slot.used = now;
        Some(Arc::clone(&slot.value))
    }

    /// Keeps a value, in the place of another one of this node and kind or of the one that was
    /// used longest ago. Whoever uses that one keeps it so long.
    fn put(&self, node: u64, kind: i32, value: T) -> Arc<T> {
        let value = Arc::new(value);
        let mut shard = lock(self.shard(node));
        shard.clock += 1;
        let new = Slot {
            node,
            kind,
            used: shard.clock,
            value: Arc::clone(&value),
        };
        let same = shard
            .slots
            .iter()
            .position(|slot| slot.node == node && slot.kind == kind);
        let place = same.or_else(|| {
            let oldest = || (0..self.room).min_by_key(|&n| shard.slots[n].used);
            (shard.slots.len() >= self.room).then(oldest).flatten()
        });
        let replaced = match place {
            Some(place) => Some(std::mem::replace(&mut shard.slots[place], new)),
            None => {
                shard.slots.push(new);
                None
            }
        };
        // Closing may take its time.
        drop(shard);
        drop(replaced);
        value
    }

    /// The kernel does not know the node any more.
    fn forget(&self, node: u64) {
        let mut shard = lock(self.shard(node));
        let (gone, kept) = std::mem::take(&mut shard.slots)
            .into_iter()
            .partition(|slot| slot.node == node);
        shard.slots = kept;
        drop(shard);
        drop::<Vec<_>>(gone);
    }
}

/// A descriptor of a file that nobody opened.
pub(crate) struct KeptFile {
    fd: OwnedFd,
    writable: bool,
}

/// What serves files and directories without handles.
pub(crate) struct Unopened {
    files: Kept<KeptFile>,
    dirs: Kept<OpenDir>,
}

impl Unopened {
    pub(crate) fn new() -> Unopened {
        Unopened {
            files: Kept::new(KEPT_FILES),
            dirs: Kept::new(KEPT_DIRECTORIES),
        }
    }

    /// Files and directories that are open.
    pub(crate) fn len(&self) -> (usize, usize) {
        (self.files.len(), self.dirs.len())
    }

    pub(crate) fn forget(&self, node: u64) {
        self.files.forget(node);
        self.dirs.forget(node);
    }

    /// Keeps the descriptor of a file that was created, which can read and write it.
    pub(crate) fn created(&self, node: u64, fd: OwnedFd, flags: i32) {
        let file = KeptFile { fd, writable: true };
        self.files.put(node, flags & KINDS, file);
    }

    /// The flags that a file of an opener with these flags is created with.
    pub(crate) fn creating(flags: i32) -> i32 {
        flags & KINDS | libc::O_RDWR
    }
}

/// The descriptor that serves a request, for as long as it is held.
pub(crate) enum Handle {
    /// Of an open file. The kernel sends RELEASE after the last request on it was answered.
    Opened(RawFd),
    /// Of one that nobody opened.
    Kept(Arc<KeptFile>),
}

impl Handle {
    #[inline]
    pub(crate) fn fd(&self) -> RawFd {
        match self {
            Handle::Opened(fd) => *fd,
            Handle::Kept(file) => file.fd.as_raw_fd(),
        }
    }

    /// How `pwritev2` has to write for an opener with these flags. A file that was opened has them.
    pub(crate) fn sync_flags(&self, open_flags: i32) -> i32 {
        match self {
            Handle::Opened(_) => 0,
            Handle::Kept(_) if open_flags & libc::O_SYNC == libc::O_SYNC => libc::RWF_SYNC,
            Handle::Kept(_) if open_flags & libc::O_DSYNC != 0 => libc::RWF_DSYNC,
            Handle::Kept(_) => 0,
        }
    }
}

impl StackFs {
    /// The descriptor for data of a file; `flags` are the opener's, as the request has them.
    #[inline]
    pub(crate) fn data(
        &self,
        node: u64,
        fh: u64,
        flags: i32,
        write: bool,
    ) -> Result<Handle, Errno> {
        match self.unopened.get() {
            Some(unopened) if fh == 0 => self.kept(unopened, node, flags, write),
            _ => {
                let direct = flags & libc::O_DIRECT != 0;
                self.files.for_data(fh, direct).map(Handle::Opened)
            }
        }
    }

    /// A descriptor for anything but data.
    pub(crate) fn handle(&self, node: u64, fh: u64, write: bool) -> Result<Handle, Errno> {
        match self.unopened.get() {
            Some(unopened) if fh == 0 => self.kept(unopened, node, 0, write),
            _ => self.files.descriptor(fh).map(Handle::Opened),
        }
    }

    /// The descriptor of an open directory.
    pub(crate) fn directory(&self, node: u64, fh: u64, flags: i32) -> Result<Arc<OpenDir>, Errno> {
        match self.unopened.get() {
            Some(unopened) if fh == 0 => {
                let noatime = flags & libc::O_NOATIME;
                if let Some(dir) = unopened.dirs.get(node, noatime) {
                    return Ok(dir);
                }
                let dir = OpenDir::new(self.open_directory(node, noatime)?);
                Ok(unopened.dirs.put(node, noatime, dir))
            }
            _ => self.dirs.get(fh).ok_or(Errno::EBADF),
        }
    }

    pub(crate) fn open_directory(&self, node: u64, noatime: i32) -> Result<OwnedFd, Errno> {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | noatime;
        sys::openat(self.node(node)?.fd(), c".", flags, 0)
    }

    /// Files are opened for reading alone until they are written: opening one for writing breaks
    /// leases, is refused while it is executed, and copies it on a file system with layers.
    #[cold]
    fn open_kept(&self, node: u64, kind: i32, write: bool) -> Result<KeptFile, Errno> {
        let node = self.node(node)?;
        let access = if write { libc::O_RDWR } else { libc::O_RDONLY };
        let fd = match self.reopen(node.fd(), access | kind) {
            // It belongs to somebody whose files the daemon may not open so.
            Err(Errno::EPERM) if kind & libc::O_NOATIME != 0 => {
                self.reopen(node.fd(), access | kind & !libc::O_NOATIME)?
            }
            other => other?,
        };
        let writable = write;
        Ok(KeptFile { fd, writable })
    }

    fn kept(
        &self,
        unopened: &Unopened,
        node: u64,
        flags: i32,
        write: bool,
    ) -> Result<Handle, Errno> {
        let kind = flags & KINDS;
        if let Some(file) = unopened.files.get(node, kind)
            && (file.writable || !write)
        {
            return Ok(Handle::Kept(file));
        }
        let file = self.open_kept(node, kind, write)?;
        Ok(Handle::Kept(unopened.files.put(node, kind, file)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_used_last_are_kept() {
        let kept: Kept<u64> = Kept::new(4 * SHARDS);
        let nodes: Vec<u64> = (1..=5).map(|n| n * SHARDS as u64).collect();
        for &node in &nodes[..4] {
            assert_eq!(*kept.put(node, 0, node), node);
        }
        assert_eq!(kept.get(nodes[0], 0).as_deref(), Some(&nodes[0]));
        kept.put(nodes[4], 0, nodes[4]);
        assert_eq!(kept.get(nodes[1], 0), None);
        assert_eq!(kept.get(nodes[0], 0).as_deref(), Some(&nodes[0]));
        assert_eq!(kept.len(), 4);
        // Another shard has room of its own.
        kept.put(1, 0, 1);
        assert_eq!(kept.len(), 5);
    }

    #[test]
    fn kinds_are_apart_and_forgotten_together() {
        let kept: Kept<&str> = Kept::new(4 * SHARDS);
        kept.put(7, 0, "buffered");
        let held = kept.put(7, libc::O_DIRECT, "direct");
        assert_eq!(kept.get(7, 0).as_deref(), Some(&"buffered"));
        kept.put(7, 0, "writable");
        assert_eq!(kept.get(7, 0).as_deref(), Some(&"writable"));
        assert_eq!(kept.len(), 2);
        kept.forget(7);
        assert_eq!((kept.len(), *held), (0, "direct"));
    }

    #[test]
    fn never_more_than_there_is_room_for() {
        let kept: Kept<u64> = Kept::new(KEPT_FILES);
        for node in 0..10 * KEPT_FILES as u64 {
            kept.put(node, 0, node);
        }
        assert_eq!(kept.len(), KEPT_FILES);
    }
}
