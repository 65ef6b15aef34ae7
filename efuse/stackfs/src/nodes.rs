//! Nodes: which lower inodes the kernel knows, under which id, how often it looked them up.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use efuse_abi::{Errno, ROOT_ID};
use efuse_runtime::Node as NodeId;

use crate::backing::Backing;
use crate::table::{Table, lock};

/// Identity of a lower inode. It is unambiguous while the node's descriptor pins the inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) dev: u64,
    pub(crate) ino: u64,
}

impl Key {
    pub(crate) fn of(stat: &libc::stat) -> Key {
        Key {
            dev: stat.st_dev,
            ino: stat.st_ino,
        }
    }
}

/// A lower inode that the kernel knows. No path is kept: an inode has as many as it likes.
#[derive(Debug)]
pub(crate) struct Node {
    fd: OwnedFd,
    pub(crate) key: Key,
    /// Whether the lower file system has something to do on close.
    pub(crate) wants_flush: bool,
    /// Lookups that the kernel has not taken back. Goes up under the shard's lock only, so a node
    /// at 0 under that lock stays at 0.
    lookups: AtomicU64,
    /// Position in the order in which nodes became known.
    born: u64,
    pub(crate) backing: Mutex<Backing>,
}

impl Node {
    /// The `O_PATH` descriptor that pins the inode.
    pub(crate) fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

const SHARDS: usize = 64;

pub(crate) struct Nodes {
    table: Table<Node>,
    ids: [Mutex<HashMap<Key, u64>>; SHARDS],
    births: AtomicU64,
}

impl Nodes {
    /// A table with the root node, which is never forgotten.
    pub(crate) fn new(root: OwnedFd, key: Key, wants_flush: bool) -> Result<Nodes, Errno> {
        let nodes = Nodes {
            table: Table::new(),
            ids: std::array::from_fn(|_| Mutex::default()),
            births: AtomicU64::new(0),
        };
        let (_, id) = nodes.acquire(key, || Ok((root, wants_flush)))?;
        if id.id == ROOT_ID {
            Ok(nodes)
        } else {
            Err(Errno::EIO)
        }
    }

    /// Number of nodes, the root included.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn get(&self, id: u64) -> Result<Arc<Node>, Errno> {
        self.table.get(id).ok_or(Errno::ESTALE)
    }

    fn shard(&self, key: Key) -> &Mutex<HashMap<Key, u64>> {
        let hash = (key.ino ^ key.dev.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        &self.ids[(hash >> 58) as usize]
    }

    /// The order number that the next node will get at the earliest.
    pub(crate) fn now(&self) -> u64 {
        self.births.load(Ordering::Acquire)
    }

    /// Counts one lookup of a node that was known before `seen`, if there is one.
    ///
    /// The caller read `key` from a directory after taking `seen`. A node born before that pinned
    /// its inode all the while, so the numbers cannot have passed to another inode in between.
    pub(crate) fn acquire_known(&self, key: Key, seen: u64) -> Option<(Arc<Node>, NodeId)> {
        let ids = lock(self.shard(key));
        let id = *ids.get(&key)?;
        let node = self.table.get(id)?;
        if node.born >= seen {
            return None;
        }
        node.lookups.fetch_add(1, Ordering::Relaxed);
        Some((node, node_id(id)))
    }

    /// Counts one lookup; `make` gives descriptor and flush behaviour if the node is new.
    pub(crate) fn acquire(
        &self,
        key: Key,
        make: impl FnOnce() -> Result<(OwnedFd, bool), Errno>,
    ) -> Result<(Arc<Node>, NodeId), Errno> {
        let mut ids = lock(self.shard(key));
        if let Some(&id) = ids.get(&key)
            && let Some(node) = self.table.get(id)
        {
            node.lookups.fetch_add(1, Ordering::Relaxed);
            return Ok((node, node_id(id)));
        }
        let (fd, wants_flush) = make()?;
        let node = Arc::new(Node {
            fd,
            key,
            wants_flush,
            lookups: AtomicU64::new(1),
            born: self.births.fetch_add(1, Ordering::AcqRel),
            backing: Mutex::default(),
        });
        let id = self
            .table
            .insert(Arc::clone(&node), 0)
            .ok_or(Errno::ENFILE)?;
        ids.insert(key, id);
        Ok((node, node_id(id)))
    }

    /// Counts one more lookup of a node that the kernel holds.
    pub(crate) fn acquire_again(&self, id: u64) -> Result<(Arc<Node>, NodeId), Errno> {
        let node = self.get(id)?;
        let _ids = lock(self.shard(node.key));
        node.lookups.fetch_add(1, Ordering::Relaxed);
        Ok((node, node_id(id)))
    }

    /// Takes `count` lookups back and drops the node when none is left. Whether it did.
    pub(crate) fn release(&self, id: u64, count: u64) -> bool {
        if id == ROOT_ID {
            return false;
        }
        let Ok(node) = self.get(id) else {
            eprintln!("stackfs: FORGET for node {id:#x}, which is not known");
            return false;
        };
        let mut ids = lock(self.shard(node.key));
        let before = node.lookups.load(Ordering::Relaxed);
        if count > before {
            eprintln!("stackfs: FORGET of {count} lookups of node {id:#x}, which has {before}");
        }
        let left = before.saturating_sub(count);
        node.lookups.store(left, Ordering::Relaxed);
        if left == 0 {
            ids.remove(&node.key);
            self.table.remove(id);
        }
        left == 0
    }
}

fn node_id(id: u64) -> NodeId {
    NodeId {
        id,
        generation: id >> 32,
    }
}

impl AsFd for Node {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
