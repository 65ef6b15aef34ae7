//! Files in memory that change at odd times, when they are flushed or by device control, or whose
//! reads are short.

use std::ffi::CStr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use efuse_abi::wire::{Attr, FlushIn, Kstatfs, ReadIn, SetattrIn, WriteIn};
use efuse_abi::{Errno, FopenFlags, SetattrValid};
use efuse_runtime::{
    Attributes, Context, Entry, FileSystem, Ioctl, IoctlReply, Opened, XattrReply,
};

use crate::{ROOT, attributes, entry, number, once, opened, space, value};

/// Files `f0`, `f1` and so on.
const FILES: u64 = 4;
const FIRST: u64 = 10;
/// More than the tests need.
const LARGEST: u64 = 1 << 20;

/// `_IOW('o', 1, u64)`: cuts or extends the file.
const SET_SIZE: u32 = 0x4008_6f01;
/// `_IOW('o', 3, u64)`: writes this byte all over the file.
const FILL: u32 = 0x4008_6f03;
/// `_IO('o', 2)`: makes the file a byte longer, and asks for more arguments.
const GROW_AND_RETRY: u32 = 0x6f02;
const GETFLAGS: u32 = 0x8008_6601;
const SETFLAGS: u32 = 0x4008_6602;
/// The kernel asks for these before it sets flags.
const FSGETXATTR: u32 = 0x801c_581f;
const IMMUTABLE: u32 = 0x10;
/// `FUSE_IOCTL_RETRY`
const RETRY: u32 = 1 << 2;

#[derive(Debug, Default)]
struct File {
    content: Vec<u8>,
    /// Written and not flushed: where, what.
    held: Vec<(u64, Vec<u8>)>,
    flags: u32,
    changed: Duration,
}

impl File {
    fn write(&mut self, offset: u64, data: &[u8]) {
        let end = offset as usize + data.len();
        if self.content.len() < end {
            self.content.resize(end, 0);
        }
        self.content[offset as usize..end].copy_from_slice(data);
        self.changed();
    }

    fn changed(&mut self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        self.changed = now.unwrap_or_default();
    }

    fn set_size(&mut self, size: u64) -> Result<(), Errno> {
        if size > LARGEST {
            return Err(Errno::EFBIG);
        }
        self.content.resize(size as usize, 0);
        self.changed();
        Ok(())
    }

    fn attributes(&self, node: u64) -> Attr {
        let mode = if self.flags & IMMUTABLE == 0 {
            0o666
        } else {
            0o444
        };
        Attr {
            // So young that reading would not change it on a file system with relatime: programs
            // then believe in attributes after a READ.
            atime: self.changed.as_secs() + 1,
            mtime: self.changed.as_secs(),
            mtimensec: self.changed.subsec_nanos(),
            ..attributes(node, libc::S_IFREG | mode, self.content.len() as u64)
        }
    }
}

pub(crate) struct Files {
    /// What is written is kept apart until it is flushed.
    hold: bool,
    /// Bytes of a reply to a read.
    most: usize,
    files: [Mutex<File>; FILES as usize],
}

impl Default for Files {
    fn default() -> Files {
        Files {
            hold: false,
            most: usize::MAX,
            files: Default::default(),
        }
    }
}

impl Files {
    pub(crate) fn holding() -> Files {
        Files {
            hold: true,
            ..Files::default()
        }
    }

    pub(crate) fn replying(most: usize) -> Files {
        Files {
            most,
            ..Files::default()
        }
    }

    fn file(&self, node: u64) -> Result<MutexGuard<'_, File>, Errno> {
        let index = node.checked_sub(FIRST).ok_or(Errno::EISDIR)?;
        let file = self.files.get(index as usize).ok_or(Errno::ESTALE)?;
        Ok(file.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn look(&self, node: u64) -> Result<Attr, Errno> {
        if node == ROOT {
            return Ok(attributes(ROOT, libc::S_IFDIR | 0o777, 0));
        }
        Ok(self.file(node)?.attributes(node))
    }

    fn attributes(&self, node: u64) -> Result<Attributes<Attr>, Errno> {
        self.look(node).map(once)
    }
}

impl FileSystem for Files {
    fn lookup(&self, _: &Context<'_>, _parent: u64, name: &CStr) -> Result<Entry, Errno> {
        self.look(FIRST + number(name, FILES)?).map(entry)
    }

    fn getattr(
        &self,
        _: &Context<'_>,
        node: u64,
        _fh: Option<u64>,
    ) -> Result<Attributes<Attr>, Errno> {
        self.attributes(node)
    }

    fn setattr(
        &self,
        _: &Context<'_>,
        node: u64,
        arg: &SetattrIn,
    ) -> Result<Attributes<Attr>, Errno> {
        if SetattrValid::from_bits_retain(arg.valid).contains(SetattrValid::SIZE) {
            self.file(node)?.set_size(arg.size)?;
        }
        self.attributes(node)
    }

    fn open(
        &self,
        _: &Context<'_>,
        node: u64,
        _flags: u32,
        _kill_suidgid: bool,
    ) -> Result<Opened, Errno> {
        drop(self.file(node)?);
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
        let rest = file.content.get(arg.offset as usize..).unwrap_or_default();
        let len = rest.len().min(out.len()).min(self.most);
        out[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn write(
        &self,
        _: &Context<'_>,
        node: u64,
        arg: &WriteIn,
        data: &[u8],
    ) -> Result<usize, Errno> {
        if arg.offset + data.len() as u64 > LARGEST {
            return Err(Errno::EFBIG);
        }
        let mut file = self.file(node)?;
        if self.hold {
            file.held.push((arg.offset, data.to_vec()));
        } else {
            file.write(arg.offset, data);
        }
        Ok(data.len())
    }

    fn flush(&self, _: &Context<'_>, node: u64, _arg: &FlushIn) -> Result<(), Errno> {
        let mut file = self.file(node)?;
        for (offset, data) in std::mem::take(&mut file.held) {
            file.write(offset, &data);
        }
        Ok(())
    }

    fn statfs(&self, _: &Context<'_>, _node: u64) -> Result<Kstatfs, Errno> {
        Ok(space())
    }

    fn getxattr(
        &self,
        _: &Context<'_>,
        node: u64,
        name: &CStr,
        out: &mut [u8],
    ) -> Result<XattrReply, Errno> {
        if name != c"user.flags" {
            return Err(Errno::ENODATA);
        }
        value(out, &format!("{:08x}", self.file(node)?.flags))
    }

    fn ioctl(
        &self,
        _: &Context<'_>,
        node: u64,
        ioctl: &Ioctl<'_>,
        out: &mut [u8],
    ) -> Result<IoctlReply, Errno> {
        let mut file = self.file(node)?;
        let mut reply = IoctlReply {
            result: 0,
            flags: 0,
            len: 0,
        };
        match ioctl.arg.cmd {
            SET_SIZE => {
                let size = ioctl.input.try_into().map_err(|_| Errno::EINVAL)?;
                file.set_size(u64::from_ne_bytes(size))?;
            }
            FILL => {
                let &[byte, ..] = ioctl.input else {
                    return Err(Errno::EINVAL);
                };
                file.content.fill(byte);
                file.changed();
            }
            GROW_AND_RETRY => {
                let size = file.content.len() as u64;
                file.set_size(size + 1)?;
                reply.flags = RETRY;
            }
            GETFLAGS => {
                let room = out.get_mut(..4).ok_or(Errno::EINVAL)?;
                room.copy_from_slice(&file.flags.to_ne_bytes());
                // The kernel takes what the command's number says, or nothing.
                reply.len = out.len();
            }
            FSGETXATTR => {
                out.fill(0);
                reply.len = out.len();
            }
            SETFLAGS => {
                let flags = ioctl.input.get(..4).and_then(|word| word.try_into().ok());
                file.flags = u32::from_ne_bytes(flags.ok_or(Errno::EINVAL)?);
                file.changed();
            }
            _ => return Err(Errno::ENOTTY),
        }
        Ok(reply)
    }
}
