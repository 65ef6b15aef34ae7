//! Files that change elsewhere, and nobody says so: programs know what was, as a kernel with long
//! timeouts would.
//!
//! Looking up `now-<what>-<n>-<value>-<time>` is how a test says what happens to `f<n>`. There is no
//! such name, and programs may know that: each time is another.

use std::ffi::CStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use efuse_abi::wire::{Attr, Kstatfs, ReadIn};
use efuse_abi::{Errno, FopenFlags};
use efuse_runtime::{Attributes, Context, Entry, FileSystem, Opened};

use crate::{ROOT, attributes, entry, number, once, opened, same_bytes, space};

const FILES: u64 = 4;
const FIRST: u64 = 10;
/// More than the tests need.
const LARGEST: u64 = 1 << 20;

struct File {
    node: u64,
    size: u64,
    mode: u32,
}

impl File {
    fn attributes(&self) -> Attr {
        attributes(self.node, libc::S_IFREG | self.mode, self.size)
    }
}

pub(crate) struct Elsewhere {
    files: Mutex<Vec<File>>,
}

impl Default for Elsewhere {
    fn default() -> Elsewhere {
        let file = |n| File {
            node: FIRST + n,
            size: 0,
            mode: 0o600,
        };
        Elsewhere {
            files: Mutex::new((0..FILES).map(file).collect()),
        }
    }
}

impl Elsewhere {
    fn files(&self) -> MutexGuard<'_, Vec<File>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self, node: u64) -> Result<Attr, Errno> {
        if node == ROOT {
            return Ok(attributes(ROOT, libc::S_IFDIR | 0o777, 0));
        }
        let files = self.files();
        let file = files.iter().find(|file| file.node == node);
        file.map(File::attributes).ok_or(Errno::ESTALE)
    }

    /// What happens elsewhere; nothing if the text is none of these.
    fn happens(&self, text: &str) -> Option<()> {
        let mut words = text.split('-');
        let (what, n, value) = (words.next()?, words.next()?, words.next()?);
        let mut files = self.files();
        let file = files.get_mut(n.parse::<usize>().ok()?)?;
        match what {
            "size" => file.size = value.parse().ok().filter(|&size| size <= LARGEST)?,
            "mode" => file.mode = u32::from_str_radix(value, 8).ok()? & 0o777,
            // Another file by this name: the one before is nowhere.
            "node" => file.node = value.parse().ok().filter(|&node| node >= FIRST + FILES)?,
            _ => {}
        }
        Some(())
    }
}

impl FileSystem for Elsewhere {
    fn lookup(&self, _: &Context<'_>, _parent: u64, name: &CStr) -> Result<Entry, Errno> {
        let happens = name.to_str().ok().and_then(|n| n.strip_prefix("now-"));
        if let Some(text) = happens {
            if self.happens(text).is_none() {
                eprintln!("efuse-odd: {text} makes no sense");
                return Err(Errno::EINVAL);
            }
            return Err(Errno::ENOENT);
        }
        let n = number(name, FILES)?;
        Ok(entry(self.files()[n as usize].attributes()))
    }

    fn getattr(
        &self,
        _: &Context<'_>,
        node: u64,
        _fh: Option<u64>,
    ) -> Result<Attributes<Attr>, Errno> {
        self.look(node).map(once)
    }

    fn open(
        &self,
        _: &Context<'_>,
        node: u64,
        _flags: u32,
        _kill_suidgid: bool,
    ) -> Result<Opened, Errno> {
        self.look(node)?;
        Ok(opened(FopenFlags::empty()))
    }

    /// The number of the node, again and again.
    fn read(
        &self,
        _: &Context<'_>,
        node: u64,
        arg: &ReadIn,
        out: &mut [u8],
    ) -> Result<usize, Errno> {
        let size = self.look(node)?.size;
        Ok(same_bytes(node as u8, size, arg, out))
    }

    fn statfs(&self, _: &Context<'_>, _node: u64) -> Result<Kstatfs, Errno> {
        Ok(space())
    }
}
