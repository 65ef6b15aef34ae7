//! Node numbers that are used again for another file as soon as the kernel has forgotten them, with
//! the same generation, as by daemons that number nodes by their addresses.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use efuse_abi::wire::{Attr, Kstatfs, ReadIn};
use efuse_abi::{Errno, FopenFlags};
use efuse_runtime::{Attributes, Context, Entry, FileSystem, Opened, XattrReply};

use crate::{ROOT, attributes, entry, number, once, opened, same_bytes, space, value};

/// Files `f0`, `f1` and so on.
const FILES: u64 = 8;
const FIRST: u64 = 10;

/// A node that the kernel knows.
struct Known {
    file: u64,
    lookups: u64,
}

#[derive(Default)]
struct Nodes {
    known: BTreeMap<u64, Known>,
}

impl Nodes {
    /// The node of a file: its own, or the lowest number that is free.
    fn of(&mut self, file: u64) -> u64 {
        let own = self.known.iter().find(|(_, known)| known.file == file);
        let lowest = || (FIRST..).find(|node| !self.known.contains_key(node));
        let node = own.map(|(&node, _)| node).or_else(lowest);
        let node = node.expect("there are more numbers than files");
        self.known.entry(node).or_insert(Known { file, lookups: 0 });
        node
    }
}

#[derive(Default)]
pub(crate) struct Reused {
    nodes: Mutex<Nodes>,
}

impl Reused {
    fn nodes(&self) -> MutexGuard<'_, Nodes> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, node: u64) -> Result<u64, Errno> {
        let nodes = self.nodes();
        let known = nodes.known.get(&node).ok_or(Errno::ESTALE)?;
        Ok(known.file)
    }
}

/// What `f<file>` is like: its size, and each of its bytes, is a function of its number.
fn look(node: u64, file: u64) -> Attr {
    attributes(node, libc::S_IFREG | 0o644, 5000 + file * 100)
}

impl FileSystem for Reused {
    fn lookup(&self, _: &Context<'_>, _parent: u64, name: &CStr) -> Result<Entry, Errno> {
        let file = number(name, FILES)?;
        let mut nodes = self.nodes();
        let node = nodes.of(file);
        if let Some(known) = nodes.known.get_mut(&node) {
            known.lookups += 1;
        }
        Ok(entry(look(node, file)))
    }

    fn forget(&self, node: u64, count: u64) {
        let mut nodes = self.nodes();
        let Some(known) = nodes.known.get_mut(&node) else {
            eprintln!("efuse-odd: node {node} is forgotten, and nobody knew it");
            return;
        };
        match known.lookups.checked_sub(count) {
            Some(0) => drop(nodes.known.remove(&node)),
            Some(left) => known.lookups = left,
            None => eprintln!("efuse-odd: node {node} is forgotten more often than looked up"),
        }
    }

    fn getattr(
        &self,
        _: &Context<'_>,
        node: u64,
        _fh: Option<u64>,
    ) -> Result<Attributes<Attr>, Errno> {
        let attr = if node == ROOT {
            attributes(ROOT, libc::S_IFDIR | 0o777, 0)
        } else {
            look(node, self.file(node)?)
        };
        Ok(once(attr))
    }

    fn getxattr(
        &self,
        _: &Context<'_>,
        node: u64,
        name: &CStr,
        out: &mut [u8],
    ) -> Result<XattrReply, Errno> {
        if name != c"user.file" {
            return Err(Errno::ENODATA);
        }
        value(out, &self.file(node)?.to_string())
    }

    fn open(
        &self,
        _: &Context<'_>,
        node: u64,
        _flags: u32,
        _kill_suidgid: bool,
    ) -> Result<Opened, Errno> {
        self.file(node)?;
        Ok(opened(FopenFlags::empty()))
    }

    fn read(
        &self,
        _: &Context<'_>,
        node: u64,
        arg: &ReadIn,
        out: &mut [u8],
    ) -> Result<usize, Errno> {
        let file = self.file(node)?;
        let size = look(node, file).size;
        Ok(same_bytes(file as u8, size, arg, out))
    }

    fn statfs(&self, _: &Context<'_>, _node: u64) -> Result<Kstatfs, Errno> {
        Ok(space())
    }
}
