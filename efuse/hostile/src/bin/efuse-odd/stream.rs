//! A file whose bytes come once, as those of a pipe: `FOPEN_STREAM`, `f0`, or only
//! `FOPEN_NONSEEKABLE`, `f1`.

use std::ffi::CStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use efuse_abi::wire::{Attr, Kstatfs, ReadIn};
use efuse_abi::{Errno, FopenFlags};
use efuse_runtime::{Attributes, Context, Entry, FileSystem, Opened};

use crate::{ROOT, attributes, entry, space};

const FIRST: u64 = 10;
/// By file.
const FLAGS: [FopenFlags; 2] = [
    FopenFlags::DIRECT_IO.union(FopenFlags::STREAM),
    FopenFlags::DIRECT_IO.union(FopenFlags::NONSEEKABLE),
];
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
        let n = match name.to_bytes() {
            b"f0" => 0,
            b"f1" => 1,
            _ => return Err(Errno::ENOENT),
        };
        look(FIRST + n).map(entry)
    }

    fn getattr(
        &self,
        _: &Context<'_>,
        node: u64,
        _fh: Option<u64>,
    ) -> Result<Attributes<Attr>, Errno> {
        Ok(Attributes {
            attr: look(node)?,
            ttl: Duration::ZERO,
        })
    }

    fn open(
        &self,
        _: &Context<'_>,
        node: u64,
        _flags: u32,
        _kill_suidgid: bool,
    ) -> Result<Opened, Errno> {
        Ok(Opened {
            fh: 1,
            flags: FLAGS[index(node)?],
            backing_id: 0,
        })
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
