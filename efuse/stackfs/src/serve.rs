//! The operations, as the runtime calls them. What needs more than a line is in its own module.

use std::ffi::CStr;
use std::os::fd::AsRawFd;

use efuse_abi::wire::{
    Attr, CopyFileRangeIn, CreateIn, FallocateIn, FlushIn, FsyncIn, Kstatfs, LseekIn, MkdirIn,
    MknodIn, ReadIn, ReleaseIn, SetattrIn, SetxattrIn, Statx, StatxIn, WriteIn,
};
use efuse_abi::{DirentBuf, DirentPlusBuf, Errno, InitFlags};
use efuse_runtime::{
    Attributes, Connection, Context, Entry, FileSystem, Ioctl, IoctlReply, Negotiation, Opened,
    XattrReply,
};

use crate::backing::Passthrough;
use crate::unopened::Unopened;
use crate::{StackFs, attr, sys};

const FSYNC_FDATASYNC: u32 = 1;

impl FileSystem for StackFs {
    fn init(&self, negotiation: &mut Negotiation, connection: &Connection) -> Result<(), Errno> {
        const NO_OPEN: InitFlags = InitFlags::NO_OPEN_SUPPORT.union(InitFlags::NO_OPENDIR_SUPPORT);
        if self.options.no_open && negotiation.offered.contains(NO_OPEN) {
            negotiation.wanted |= NO_OPEN;
            // INIT comes once, so the cell is empty.
            let _ = self.unopened.set(Unopened::new());
        } else {
            // Without OPEN there is nobody to truncate but SETATTR.
            negotiation.wanted |= InitFlags::ATOMIC_O_TRUNC;
        }
        negotiation.wanted |= InitFlags::DONT_MASK
            | InitFlags::HANDLE_KILLPRIV_V2
            | InitFlags::SETXATTR_EXT
            | InitFlags::DIRECT_IO_ALLOW_MMAP;
        // What a directory's reader may see goes into caches that all users share.
        if !self.options.own_only {
            negotiation.wanted |= InitFlags::DO_READDIRPLUS | InitFlags::READDIRPLUS_AUTO;
        }
        if self.options.posix_acl {
            negotiation.wanted |= InitFlags::POSIX_ACL;
        }
        if self.options.passthrough {
            match &connection.backing {
                Some(files) if negotiation.offered.contains(InitFlags::PASSTHROUGH) => {
                    negotiation.wanted |= InitFlags::PASSTHROUGH;
                    // Depth 1: backing files lie on a file system that is not stacked itself.
                    negotiation.max_stack_depth = 1;
                    // As above.
                    let _ = self.passthrough.set(Passthrough::new(files.clone()));
                }
                _ => eprintln!(
                    "stackfs: this kernel offers no passthrough; files are read and written \
                     through the daemon"
                ),
            }
        }
        // As above.
        let _ = self.connection.set(connection.clone());
        Ok(())
    }

    fn worker_start(&self) {
        sys::drop_groups();
        // Each worker needs a umask of its own; see `Baseline::act_as`.
        if let Err(errno) = sys::unshare_fs() {
            eprintln!("stackfs: cannot separate a worker's umask ({errno}); masks may mix");
        }
    }

    fn lookup(&self, cx: &Context<'_>, parent: u64, name: &CStr) -> Result<Entry, Errno> {
        let entry = self.do_lookup(parent, name)?;
        if self.hides(cx, entry.attr.mode, entry.attr.uid) {
            self.nodes.release(entry.node.id, 1);
            return Err(Errno::ENOENT);
        }
        Ok(entry)
    }

    fn forget(&self, node: u64, count: u64) {
        if self.nodes.release(node, count)
            && let Some(unopened) = self.unopened.get()
        {
            unopened.forget(node);
        }
    }

    fn getattr(
        &self,
        cx: &Context<'_>,
        node: u64,
        fh: Option<u64>,
    ) -> Result<Attributes<Attr>, Errno> {
        let reply = self.do_getattr(node, fh)?;
        if self.hides(cx, reply.attr.mode, reply.attr.uid) {
            return Err(Errno::EACCES);
        }
        Ok(reply)
    }

    fn statx(
        &self,
        cx: &Context<'_>,
        node: u64,
        _fh: Option<u64>,
        arg: &StatxIn,
    ) -> Result<Attributes<Statx>, Errno> {
        const SYNC: u32 = (libc::AT_STATX_FORCE_SYNC | libc::AT_STATX_DONT_SYNC) as u32;
        let node = self.node(node)?;
        let stat = sys::statx(node.fd(), (arg.sx_flags & SYNC) as i32, arg.sx_mask)?;
        if self.hides(cx, stat.stx_mode.into(), stat.stx_uid) {
            return Err(Errno::EACCES);
        }
        Ok(Attributes {
            attr: attr::statx(&stat),
            ttl: self.options.attr_ttl,
        })
    }

    fn setattr(
        &self,
        cx: &Context<'_>,
        node: u64,
        arg: &SetattrIn,
    ) -> Result<Attributes<Attr>, Errno> {
        self.do_setattr(cx, node, arg)
    }

    fn readlink(&self, cx: &Context<'_>, node: u64, out: &mut [u8]) -> Result<usize, Errno> {
        self.may_see(cx, node)?;
        sys::readlink(self.node(node)?.fd(), out)
    }

    fn symlink(
        &self,
        cx: &Context<'_>,
        parent: u64,
        name: &CStr,
        target: &CStr,
    ) -> Result<Entry, Errno> {
        self.do_symlink(cx, parent, name, target)
    }

    fn mknod(
        &self,
        cx: &Context<'_>,
        parent: u64,
        name: &CStr,
        arg: &MknodIn,
    ) -> Result<Entry, Errno> {
        self.do_mknod(cx, parent, name, arg)
    }

    fn mkdir(
        &self,
        cx: &Context<'_>,
        parent: u64,
        name: &CStr,
        arg: &MkdirIn,
    ) -> Result<Entry, Errno> {
        self.do_mkdir(cx, parent, name, arg)
    }

    fn unlink(&self, _: &Context<'_>, parent: u64, name: &CStr) -> Result<(), Errno> {
        sys::unlinkat(self.node(parent)?.fd(), name, 0)
    }

    fn rmdir(&self, _: &Context<'_>, parent: u64, name: &CStr) -> Result<(), Errno> {
        sys::unlinkat(self.node(parent)?.fd(), name, libc::AT_REMOVEDIR)
    }

    fn rename(
        &self,
        cx: &Context<'_>,
        from: (u64, &CStr),
        to: (u64, &CStr),
        flags: u32,
    ) -> Result<(), Errno> {
        self.do_rename(cx, from, to, flags)
    }

    fn link(
        &self,
        _: &Context<'_>,
        node: u64,
        newparent: u64,
        name: &CStr,
    ) -> Result<Entry, Errno> {
        self.do_link(node, newparent, name)
    }

    fn open(
        &self,
        cx: &Context<'_>,
        node: u64,
        flags: u32,
        kill_suidgid: bool,
    ) -> Result<Opened, Errno> {
        self.do_open(cx, node, flags as i32, kill_suidgid)
    }

    fn create(
        &self,
        cx: &Context<'_>,
        parent: u64,
        name: &CStr,
        arg: &CreateIn,
    ) -> Result<(Entry, Opened), Errno> {
        self.do_create(cx, parent, name, arg)
    }

    fn tmpfile(
        &self,
        cx: &Context<'_>,
        parent: u64,
        arg: &CreateIn,
    ) -> Result<(Entry, Opened), Errno> {
        self.do_tmpfile(cx, parent, arg)
    }

    fn read(
        &self,
        _: &Context<'_>,
        node: u64,
        arg: &ReadIn,
        out: &mut [u8],
    ) -> Result<usize, Errno> {
        self.do_read(node, arg, out)
    }

    fn write(
        &self,
        cx: &Context<'_>,
        node: u64,
        arg: &WriteIn,
        data: &[u8],
    ) -> Result<usize, Errno> {
        self.do_write(cx, node, arg, data)
    }

    fn flush(&self, _: &Context<'_>, _node: u64, arg: &FlushIn) -> Result<(), Errno> {
        if self.unopened.get().is_some() {
            // What a file system below does on close is done with each write.
            return Err(Errno::ENOSYS);
        }
        sys::flush(self.files.descriptor(arg.fh)?)
    }

    fn release(&self, _node: u64, arg: &ReleaseIn) {
        self.do_release(arg.fh);
    }

    fn fsync(&self, _: &Context<'_>, node: u64, arg: &FsyncIn) -> Result<(), Errno> {
        let file = self.handle(node, arg.fh, false)?;
        sys::fsync(file.fd(), arg.fsync_flags & FSYNC_FDATASYNC != 0)
    }

    fn opendir(&self, _: &Context<'_>, node: u64, flags: u32) -> Result<Opened, Errno> {
        self.do_opendir(node, flags as i32)
    }

    fn readdir(
        &self,
        _: &Context<'_>,
        node: u64,
        arg: &ReadIn,
        out: &mut DirentBuf<'_>,
    ) -> Result<(), Errno> {
        self.do_readdir(node, arg, out)
    }

    fn readdirplus(
        &self,
        _: &Context<'_>,
        node: u64,
        arg: &ReadIn,
        out: &mut DirentPlusBuf<'_>,
    ) -> Result<(), Errno> {
        self.do_readdirplus(node, arg, out)
    }

    fn releasedir(&self, _node: u64, arg: &ReleaseIn) {
        self.dirs.remove(arg.fh);
    }

    fn fsyncdir(&self, _: &Context<'_>, node: u64, arg: &FsyncIn) -> Result<(), Errno> {
        let dir = self.directory(node, arg.fh, 0)?;
        sys::fsync(dir.fd(), arg.fsync_flags & FSYNC_FDATASYNC != 0)
    }

    fn syncfs(&self, _: &Context<'_>) -> Result<(), Errno> {
        // syncfs(2) refuses O_PATH descriptors.
        let root = self.node(efuse_abi::ROOT_ID)?;
        let dir = self.reopen(root.fd(), libc::O_RDONLY | libc::O_DIRECTORY)?;
        sys::syncfs(dir.as_raw_fd())
    }

    fn statfs(&self, _: &Context<'_>, node: u64) -> Result<Kstatfs, Errno> {
        sys::fstatfs(self.node(node)?.fd()).map(|stat| attr::kstatfs(&stat))
    }

    fn setxattr(
        &self,
        cx: &Context<'_>,
        node: u64,
        name: &CStr,
        value: &[u8],
        arg: &SetxattrIn,
    ) -> Result<(), Errno> {
        self.do_setxattr(cx, node, name, value, arg)
    }

    fn getxattr(
        &self,
        cx: &Context<'_>,
        node: u64,
        name: &CStr,
        out: &mut [u8],
    ) -> Result<XattrReply, Errno> {
        self.may_see(cx, node)?;
        self.do_getxattr(node, name, out)
    }

    fn listxattr(&self, cx: &Context<'_>, node: u64, out: &mut [u8]) -> Result<XattrReply, Errno> {
        self.may_see(cx, node)?;
        self.do_listxattr(node, out)
    }

    fn removexattr(&self, _: &Context<'_>, node: u64, name: &CStr) -> Result<(), Errno> {
        self.do_removexattr(node, name)
    }

    fn ioctl(
        &self,
        _: &Context<'_>,
        node: u64,
        ioctl: &Ioctl<'_>,
        out: &mut [u8],
    ) -> Result<IoctlReply, Errno> {
        self.do_ioctl(node, ioctl, out)
    }

    fn fallocate(&self, cx: &Context<'_>, node: u64, arg: &FallocateIn) -> Result<(), Errno> {
        self.do_fallocate(cx, node, arg)
    }

    fn lseek(&self, _: &Context<'_>, node: u64, arg: &LseekIn) -> Result<u64, Errno> {
        let file = self.handle(node, arg.fh, false)?;
        sys::lseek(file.fd(), arg.offset as i64, arg.whence as i32)
    }

    fn copy_file_range(
        &self,
        cx: &Context<'_>,
        node: u64,
        arg: &CopyFileRangeIn,
    ) -> Result<u64, Errno> {
        self.do_copy_file_range(cx, node, arg)
    }
}
