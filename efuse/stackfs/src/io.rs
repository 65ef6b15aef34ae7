//! Open files: data, space, device control.

use std::os::fd::RawFd;

use efuse_abi::wire::{CopyFileRangeIn, FallocateIn, ReadIn, WriteIn};
use efuse_abi::{Errno, WriteFlags};
use efuse_runtime::{Context, Ioctl, IoctlReply, Opened};

use crate::unopened::Handle;
use crate::{StackFs, sys};

const SET_ID: u32 = libc::S_ISUID | libc::S_ISGID;

impl StackFs {
    /// Flags for the lower file. Names were resolved by the kernel above; an append is done by each
    /// WRITE that asks for it, so the descriptor can also write back pages at their place.
    pub(crate) fn lower_flags(flags: i32) -> i32 {
        const DROP: i32 =
            libc::O_CREAT | libc::O_EXCL | libc::O_NOCTTY | libc::O_NOFOLLOW | libc::O_APPEND;
        // O_TMPFILE contains O_DIRECTORY; a regular file has neither.
        flags & !DROP & !libc::O_TMPFILE
    }

    pub(crate) fn do_open(
        &self,
        cx: &Context<'_>,
        node: u64,
        flags: i32,
        kill_suidgid: bool,
    ) -> Result<Opened, Errno> {
        if self.unopened.get().is_some() {
            // Does not ask again.
            return Err(Errno::ENOSYS);
        }
        let node = self.node(node)?;
        let append = flags & libc::O_APPEND;
        let flags = Self::lower_flags(flags);
        let open = |flags| match kill_suidgid {
            true => {
                let _caps = self.baseline.unprivileged(cx.gid);
                self.reopen(node.fd(), flags)
            }
            false => self.reopen(node.fd(), flags),
        };
        let fd = match open(flags) {
            // A file that may only be appended to (chattr +a), and so has no pages to write back.
            Err(Errno::EPERM) if append != 0 => open(flags | append),
            opened => opened,
        }?;
        self.register(&node, fd, flags & !libc::O_TRUNC)
    }

    pub(crate) fn do_release(&self, fh: u64) {
        if let Some(file) = self.files.remove(fh)
            && let Some(passthrough) = self.passthrough.get()
        {
            passthrough.close(&file.node, file.mode);
        }
    }

    #[inline]
    pub(crate) fn do_read(&self, node: u64, arg: &ReadIn, out: &mut [u8]) -> Result<usize, Errno> {
        let file = self.data(node, arg.fh, arg.flags as i32, false)?;
        let fd = file.fd();
        let mut done = sys::pread(fd, out, arg.offset)?;
        // Less than asked for means end of file to the kernel above, but a signal or a boundary of
        // the lower file system may have cut it short, or an error, which must not look like an end.
        while done > 0 && done < out.len() {
            match sys::pread(fd, &mut out[done..], arg.offset + done as u64) {
                // Past the end of a file that is read directly, from where no block begins.
                Ok(0) | Err(Errno::EINVAL) => break,
                Ok(more) => done += more,
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    #[inline]
    pub(crate) fn do_write(
        &self,
        cx: &Context<'_>,
        node: u64,
        arg: &WriteIn,
        data: &[u8],
    ) -> Result<usize, Errno> {
        let flags = WriteFlags::from_bits_retain(arg.write_flags);
        // A page that is written back was written by whom nobody knows any more.
        let open_flags = if flags.contains(WriteFlags::CACHE) {
            0
        } else {
            arg.flags as i32
        };
        let file = self.data(node, arg.fh, open_flags, true)?;
        let fd = file.fd();
        let sync = file.sync_flags(open_flags);
        let write = || {
            if open_flags & libc::O_APPEND != 0 {
                sys::append(fd, data, sync)
            } else if sync != 0 {
                sys::pwrite_with(fd, data, arg.offset, sync)
            } else {
                sys::pwrite(fd, data, arg.offset)
            }
        };
        let mut written = if flags.contains(WriteFlags::KILL_SUIDGID) {
            self.killing_set_id(cx, node, fd, write)?
        } else {
            write()?
        };
        // Pages that are written back count as written if there is no error, all of them.
        while flags.contains(WriteFlags::CACHE) && written < data.len() {
            match sys::pwrite(fd, &data[written..], arg.offset + written as u64)? {
                0 => return Err(Errno::EIO),
                more => written += more,
            }
        }
        if matches!(file, Handle::Kept(_)) && self.node(node)?.wants_flush {
            // There is no FLUSH to do it or to give its error.
            sys::flush(fd)?;
        }
        Ok(written)
    }

    /// Does `change` so that it clears suid and sgid as an ordinary user's change does, and tells
    /// the kernel above if there was something to clear.
    fn killing_set_id<T>(
        &self,
        cx: &Context<'_>,
        node: u64,
        fd: RawFd,
        change: impl FnOnce() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        // Nearly always nothing is set, and looking is cheaper than changing capabilities.
        if sys::fstat(fd)?.st_mode & SET_ID == 0 {
            return change();
        }
        let result = {
            let _caps = self.baseline.unprivileged(cx.gid);
            change()
        };
        if result.is_ok()
            && let Some(connection) = self.connection.get()
        {
            // Fails only if the kernel does not know the node any more.
            let _ = connection.notifier.inval_attributes(node);
        }
        result
    }

    pub(crate) fn do_fallocate(
        &self,
        cx: &Context<'_>,
        node: u64,
        arg: &FallocateIn,
    ) -> Result<(), Errno> {
        let file = self.handle(node, arg.fh, true)?;
        let fd = file.fd();
        let change = || sys::fallocate(fd, arg.mode, arg.offset, arg.length);
        // The request does not say whether set-id bits must go; ordinary users lose them.
        if cx.uid == 0 {
            change()
        } else {
            self.killing_set_id(cx, node, fd, change)
        }
    }

    pub(crate) fn do_copy_file_range(
        &self,
        cx: &Context<'_>,
        node: u64,
        arg: &CopyFileRangeIn,
    ) -> Result<u64, Errno> {
        let (source, target) = (
            self.handle(node, arg.fh_in, false)?,
            self.handle(arg.nodeid_out, arg.fh_out, true)?,
        );
        let (from, to) = (source.fd(), target.fd());
        let change = || {
            sys::copy_file_range((from, arg.off_in), (to, arg.off_out), arg.len)
                .map(|len| len as u64)
        };
        if cx.uid == 0 {
            change()
        } else {
            self.killing_set_id(cx, arg.nodeid_out, to, change)
        }
    }

    /// Inode flags and project ids, which chattr, lsattr and quota tools use; nothing else passes:
    /// most commands carry pointers or descriptors that mean nothing in the daemon.
    pub(crate) fn do_ioctl(
        &self,
        node: u64,
        ioctl: &Ioctl<'_>,
        out: &mut [u8],
    ) -> Result<IoctlReply, Errno> {
        const GETFLAGS: u32 = 0x8008_6601;
        const SETFLAGS: u32 = 0x4008_6602;
        const GETVERSION: u32 = 0x8008_7601;
        const FSGETXATTR: u32 = 0x801c_581f;
        const FSSETXATTR: u32 = 0x401c_5820;
        const FLAG_DIR: u32 = 1 << 4;

        let command = ioctl.arg.cmd;
        if !matches!(
            command,
            GETFLAGS | SETFLAGS | GETVERSION | FSGETXATTR | FSSETXATTR
        ) {
            return Err(Errno::ENOTTY);
        }
        let fh = ioctl.arg.fh;
        let (dir, file);
        let fd = if ioctl.arg.flags & FLAG_DIR != 0 {
            dir = self.directory(node, fh, 0)?;
            dir.fd()
        } else {
            file = self.handle(node, fh, false)?;
            file.fd()
        };
        let mut argument = [0u8; 32];
        let len = ioctl.input.len().min(argument.len());
        argument[..len].copy_from_slice(&ioctl.input[..len]);
        let result = sys::ioctl(fd, command, &mut argument)?;
        let len = out.len().min(argument.len());
        out[..len].copy_from_slice(&argument[..len]);
        Ok(IoctlReply {
            result,
            flags: 0,
            len,
        })
    }
}
