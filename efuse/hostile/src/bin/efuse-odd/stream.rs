//! A file whose bytes come once, as those of a pipe: `FOPEN_STREAM`, `f0`, or only
//! `FOPEN_NONSEEKABLE`, `f1`.

use std::ffi::CStr;
use std::sync::atomic::{AtomicU64, Ordering};

use efuse_abi::wire::{Attr, Kstatfs, ReadIn};
use efuse_abi::{Errno, FopenFlags};
use efuse_runtime::{Attributes, Context, Entry, FileSystem, Opened};

use crate::{ROOT, attributes, entry, number, once, opened, space};

const FIRST: u64 = 10;
/// By file.
const FLAGS: [FopenFlags; 2] = [FopenFlags::STREAM, FopenFlags::NONSEEKABLE];
/// What the files seem to have.
const SIZE: u64 = 1 << 20;

#[derive(Default)]
pub(crate) struct Stream {
    /// How many bytes have come.
    come: [AtomicU64; FLAGS.len()],
}

fn index(node: u64) -> Result<usize, Errno> {
    let index = node.checked_sub(FIRST).ok_or(Errno::EISDIR)? as usize;
    (index < FLAGS.len()).then_some(index).ok_or(Errno::ESTALE)
}

fn look(node: u64) -> Result<Attr, Errno> {
    if node == ROOT {
        return Ok(attributes(ROOT, libc::S_IFDIR | 0o777, 0));
    }
    index(node)?;
    Ok(attributes(node, libc::S_IFREG | 0o444, SIZE))
}

impl FileSystem for Stream {
    fn lookup(&self, _: &Context<'_>, _parent: u64, name: &CStr) -> Result<Entry, Errno> {
        look(FIRST + number(name, FLAGS.len() as u64)?).map(entry)
    }

    fn getattr(
        &self,
        _: &Context<'_>,
        node: u64,
        _fh: Option<u64>,
    ) -> Result<Attributes<Attr>, Errno> {
        look(node).map(once)
    }

    fn open(
        &self,
        _: &Context<'_>,
        node: u64,
        _flags: u32,
        _kill_suidgid: bool,
    ) -> Result<Opened, Errno> {
        Ok(opened(FLAGS[index(node)?]))
    }

    /// The bytes after those of the last read, whatever the offset.
    fn read(
        &self,
        _: &Context<'_>,
        node: u64,
        _arg: &ReadIn,
        out: &mut [u8],
    ) -> Result<usize, Errno> {
        let come = self.come[index(node)?].fetch_add(out.len() as u64, Ordering::Relaxed);
        for (n, byte) in (come..).zip(out.iter_mut()) {
            *byte = (n % 251) as u8;
        }
        Ok(out.len())
    }

    fn statfs(&self, _: &Context<'_>, _node: u64) -> Result<Kstatfs, Errno> {
        Ok(space())
    }
}
