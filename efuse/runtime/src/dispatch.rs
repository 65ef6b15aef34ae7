//! From a decoded request over the handler to the bytes of the reply.

use std::time::Duration;

use efuse_abi::wire::*;
use efuse_abi::{DirentBuf, DirentPlusBuf, Errno, Op, Request};
use zerocopy::{Immutable, IntoBytes};

use crate::fs::{Attributes, Context, Entry, FileSystem, Ioctl, Opened, XattrReply};

/// What to answer.
pub(crate) enum Outcome {
    /// Nothing: FORGET and the like.
    Silent,
    /// An error.
    Error(Errno),
    /// Success with the head and so many bytes of the exchange's buffer.
    Reply(usize),
}

const HEAD_MAX: usize = size_of::<StatxOut>();

/// The fixed part of a reply.
pub(crate) struct Head {
    bytes: [u8; HEAD_MAX],
    len: usize,
}

impl Head {
    /// An empty one. A worker reuses its own for all requests.
    pub(crate) const EMPTY: Head = Head {
        bytes: [0; HEAD_MAX],
        len: 0,
    };

    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    fn push<T: IntoBytes + Immutable>(&mut self, value: &T) {
        const { assert!(size_of::<T>() <= HEAD_MAX) };
        let bytes = value.as_bytes();
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

pub(crate) fn entry_out(entry: &Entry) -> EntryOut {
    EntryOut {
        nodeid: entry.node.id,
        generation: entry.node.generation,
        entry_valid: entry.entry_ttl.as_secs(),
        attr_valid: entry.attr_ttl.as_secs(),
        entry_valid_nsec: entry.entry_ttl.subsec_nanos(),
        attr_valid_nsec: entry.attr_ttl.subsec_nanos(),
        attr: entry.attr,
    }
}

impl From<&Entry> for EntryOut {
    fn from(entry: &Entry) -> EntryOut {
        entry_out(entry)
    }
}

fn attr_out(reply: Attributes<Attr>) -> AttrOut {
    let Attributes { attr, ttl } = reply;
    AttrOut {
        attr_valid: ttl.as_secs(),
        attr_valid_nsec: ttl.subsec_nanos(),
        dummy: 0,
        attr,
    }
}

fn statx_out(reply: Attributes<Statx>) -> StatxOut {
    let Attributes { attr, ttl } = reply;
    StatxOut {
        attr_valid: ttl.as_secs(),
        attr_valid_nsec: Duration::subsec_nanos(&ttl),
        flags: 0,
        spare: [0; 2],
        stat: attr,
    }
}

fn open_out(opened: Opened) -> OpenOut {
    OpenOut {
        fh: opened.fh,
        open_flags: opened.flags.bits(),
        backing_id: opened.backing_id,
    }
}

fn done(result: Result<(), Errno>) -> Outcome {
    data(result.map(|()| 0), 0)
}

fn put<T: IntoBytes + Immutable>(head: &mut Head, result: Result<T, Errno>) -> Outcome {
    match result {
        Ok(value) => {
            head.push(&value);
            Outcome::Reply(0)
        }
        Err(errno) => Outcome::Error(errno),
    }
}

fn entry(head: &mut Head, result: Result<Entry, Errno>) -> Outcome {
    put(head, result.as_ref().map(entry_out).map_err(|&errno| errno))
}

fn created(head: &mut Head, result: Result<(Entry, Opened), Errno>) -> Outcome {
    match result {
        Ok((entry, opened)) => {
            head.push(&entry_out(&entry));
            put(head, Ok(open_out(opened)))
        }
        Err(errno) => Outcome::Error(errno),
    }
}

/// `limit` guards against a handler that claims more than its buffer.
fn data(result: Result<usize, Errno>, limit: usize) -> Outcome {
    match result {
        Ok(len) if len <= limit => Outcome::Reply(len),
        Ok(_) => Outcome::Error(Errno::EIO),
        Err(errno) => Outcome::Error(errno),
    }
}

fn xattr(head: &mut Head, result: Result<XattrReply, Errno>, limit: usize) -> Outcome {
    match result {
        Ok(XattrReply::Size(size)) => put(head, Ok(GetxattrOut { size, padding: 0 })),
        Ok(XattrReply::Data(len)) => data(Ok(len), limit),
        Err(errno) => Outcome::Error(errno),
    }
}

fn clamp(out: &mut [u8], size: u32) -> &mut [u8] {
    let len = out.len().min(size as usize);
    &mut out[..len]
}

const GETATTR_FH: u32 = 1;
const OPEN_KILL_SUIDGID: u32 = 1;

/// Calls the handler. INIT and INTERRUPT are the session's own business and are refused here.
pub(crate) fn dispatch<F: FileSystem>(
    fs: &F,
    cx: &Context<'_>,
    request: &Request<'_>,
    out: &mut [u8],
    head: &mut Head,
) -> Outcome {
    let node = request.header.nodeid;
    match request.op {
        Op::Read(arg) => {
            let out = clamp(out, arg.size);
            let limit = out.len();
            data(fs.read(cx, node, arg, out), limit)
        }
        Op::Write { arg, data } => put(
            head,
            fs.write(cx, node, arg, data).map(|size| WriteOut {
                size: size as u32,
                padding: 0,
            }),
        ),
        Op::Lookup { name } => entry(head, fs.lookup(cx, node, name)),
        Op::Forget(arg) => {
            fs.forget(node, arg.nlookup);
            Outcome::Silent
        }
        Op::BatchForget(nodes) => {
            for one in nodes {
                fs.forget(one.nodeid, one.nlookup);
            }
            Outcome::Silent
        }
        Op::Getattr(arg) => {
            let fh = (arg.getattr_flags & GETATTR_FH != 0).then_some(arg.fh);
            put(head, fs.getattr(cx, node, fh).map(attr_out))
        }
        Op::Statx(arg) => {
            let fh = (arg.getattr_flags & GETATTR_FH != 0).then_some(arg.fh);
            put(head, fs.statx(cx, node, fh, arg).map(statx_out))
        }
        Op::Setattr(arg) => put(head, fs.setattr(cx, node, arg).map(attr_out)),
        Op::Readlink => {
            let limit = out.len();
            data(fs.readlink(cx, node, out), limit)
        }
        Op::Symlink { name, target } => entry(head, fs.symlink(cx, node, name, target)),
        Op::Mknod { arg, name } => entry(head, fs.mknod(cx, node, name, arg)),
        Op::Mkdir { arg, name } => entry(head, fs.mkdir(cx, node, name, arg)),
        Op::Unlink { name } => done(fs.unlink(cx, node, name)),
        Op::Rmdir { name } => done(fs.rmdir(cx, node, name)),
        Op::Rename {
            newdir,
            flags,
            name,
            newname,
        } => done(fs.rename(cx, (node, name), (newdir, newname), flags)),
        Op::Link { arg, name } => entry(head, fs.link(cx, arg.oldnodeid, node, name)),
        Op::Open(arg) => {
            let kill = arg.open_flags & OPEN_KILL_SUIDGID != 0;
            put(head, fs.open(cx, node, arg.flags, kill).map(open_out))
        }
        Op::Create { arg, name } => created(head, fs.create(cx, node, name, arg)),
        Op::Tmpfile(arg) => created(head, fs.tmpfile(cx, node, arg)),
        Op::Statfs => put(head, fs.statfs(cx, node).map(|st| StatfsOut { st })),
        Op::Release(arg) => {
            fs.release(node, arg);
            done(Ok(()))
        }
        Op::Flush(arg) => done(fs.flush(cx, node, arg)),
        Op::Fsync(arg) => done(fs.fsync(cx, node, arg)),
        Op::Opendir(arg) => put(head, fs.opendir(cx, node, arg.flags).map(open_out)),
        Op::Readdir(arg) => {
            let mut entries = DirentBuf::new(clamp(out, arg.size));
            match fs.readdir(cx, node, arg, &mut entries) {
                Ok(()) => Outcome::Reply(entries.len()),
                Err(errno) => Outcome::Error(errno),
            }
        }
        Op::Readdirplus(arg) => {
            let mut entries = DirentPlusBuf::new(clamp(out, arg.size));
            match fs.readdirplus(cx, node, arg, &mut entries) {
                Ok(()) => Outcome::Reply(entries.len()),
                Err(errno) => Outcome::Error(errno),
            }
        }
        Op::Releasedir(arg) => {
            fs.releasedir(node, arg);
            done(Ok(()))
        }
        Op::Fsyncdir(arg) => done(fs.fsyncdir(cx, node, arg)),
        Op::Syncfs => done(fs.syncfs(cx)),
        Op::Access(arg) => done(fs.access(cx, node, arg.mask)),
        Op::Setxattr {
            ref arg,
            name,
            value,
        } => done(fs.setxattr(cx, node, name, value, arg)),
        Op::Getxattr { arg, name } => {
            let out = clamp(out, arg.size);
            let limit = out.len();
            xattr(head, fs.getxattr(cx, node, name, out), limit)
        }
        Op::Listxattr(arg) => {
            let out = clamp(out, arg.size);
            let limit = out.len();
            xattr(head, fs.listxattr(cx, node, out), limit)
        }
        Op::Removexattr { name } => done(fs.removexattr(cx, node, name)),
        Op::Getlk(arg) => put(head, fs.getlk(cx, node, arg).map(|lk| LkOut { lk })),
        Op::Setlk(arg) => done(fs.setlk(cx, node, arg, false)),
        Op::Setlkw(arg) => done(fs.setlk(cx, node, arg, true)),
        Op::Bmap(arg) => put(head, fs.bmap(cx, node, arg).map(|block| BmapOut { block })),
        Op::Ioctl { arg, data: input } => {
            let out = clamp(out, arg.out_size);
            let limit = out.len();
            match fs.ioctl(cx, node, &Ioctl { arg, input }, out) {
                Ok(reply) if reply.len <= limit => {
                    head.push(&IoctlOut {
                        result: reply.result,
                        flags: reply.flags,
                        ..IoctlOut::default()
                    });
                    Outcome::Reply(reply.len)
                }
                Ok(_) => Outcome::Error(Errno::EIO),
                Err(errno) => Outcome::Error(errno),
            }
        }
        Op::Poll(arg) => put(
            head,
            fs.poll(cx, node, arg).map(|reply| PollOut {
                revents: reply.revents,
                padding: 0,
            }),
        ),
        Op::Fallocate(arg) => done(fs.fallocate(cx, node, arg)),
        Op::Lseek(arg) => put(
            head,
            fs.lseek(cx, node, arg).map(|offset| LseekOut { offset }),
        ),
        Op::CopyFileRange(arg) => {
            // The reply counts in 32 bits, so no more than that may be copied.
            let mut arg = *arg;
            arg.len = arg.len.min(u64::from(u32::MAX) & !0xfff);
            put(
                head,
                fs.copy_file_range(cx, node, &arg).map(|size| WriteOut {
                    size: size as u32,
                    padding: 0,
                }),
            )
        }
        Op::CopyFileRange64(arg) => put(
            head,
            fs.copy_file_range(cx, node, arg)
                .map(|bytes_copied| CopyFileRangeOut { bytes_copied }),
        ),
        Op::Destroy => {
            fs.destroy();
            done(Ok(()))
        }
        // No retrieval is ever asked for, so a reply to one is not for us.
        Op::NotifyReply { .. } | Op::Interrupt(_) => Outcome::Silent,
        // DAX windows and character devices in user space are not served; a second INIT is refused.
        Op::Setupmapping(_) | Op::Removemapping(_) | Op::CuseInit(_) | Op::Init(_) => {
            Outcome::Error(Errno::ENOSYS)
        }
    }
}
