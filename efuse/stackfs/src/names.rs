//! Names: lookup, making, linking, renaming.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, OwnedFd};

use efuse_abi::wire::{CreateIn, MkdirIn, MknodIn};
use efuse_abi::{Errno, FopenFlags};
use efuse_runtime::{Context, Entry, Opened};

use crate::nodes::Key;
use crate::sys::FdPath;
use crate::unopened::Unopened;
use crate::{StackFs, attr, sys};

impl StackFs {
    pub(crate) fn do_lookup(&self, parent: u64, name: &CStr) -> Result<Entry, Errno> {
        let parent = self.node(parent)?;
        // Most lookups find a node that is known: one system call, no descriptor.
        let seen = self.nodes.now();
        let stat = sys::fstatat(parent.fd(), name)?;
        if let Some((_, id)) = self.nodes.acquire_known(Key::of(&stat), seen) {
            return Ok(self.entry(id, &stat));
        }
        let fd = sys::openat(parent.fd(), name, libc::O_PATH | libc::O_NOFOLLOW, 0)?;
        self.adopt(fd)
    }

    /// Makes the inode behind an `O_PATH` descriptor known.
    fn adopt(&self, fd: OwnedFd) -> Result<Entry, Errno> {
        let stat = sys::fstat(fd.as_raw_fd())?;
        let (_, id) = self.acquire(fd, &stat)?;
        Ok(self.entry(id, &stat))
    }

    pub(crate) fn do_mknod(
        &self,
        cx: &Context<'_>,
        parent: u64,
        name: &CStr,
        arg: &MknodIn,
    ) -> Result<Entry, Errno> {
        let dir = self.node(parent)?;
        {
            let _caller = self.baseline.act_as(cx.uid, cx.gid, arg.umask);
            sys::mknodat(dir.fd(), name, arg.mode, attr::decode_dev(arg.rdev))?;
        }
        self.do_lookup(parent, name)
    }

    pub(crate) fn do_mkdir(
        &self,
        cx: &Context<'_>,
        parent: u64,
        name: &CStr,
        arg: &MkdirIn,
    ) -> Result<Entry, Errno> {
        let dir = self.node(parent)?;
        {
            let _caller = self.baseline.act_as(cx.uid, cx.gid, arg.umask);
            sys::mkdirat(dir.fd(), name, arg.mode)?;
        }
        self.do_lookup(parent, name)
    }

    pub(crate) fn do_symlink(
        &self,
        cx: &Context<'_>,
        parent: u64,
        name: &CStr,
        target: &CStr,
    ) -> Result<Entry, Errno> {
        let dir = self.node(parent)?;
        {
            let _caller = self.baseline.act_as(cx.uid, cx.gid, 0);
            sys::symlinkat(target, dir.fd(), name)?;
        }
        self.do_lookup(parent, name)
    }

    pub(crate) fn do_link(&self, node: u64, newparent: u64, name: &CStr) -> Result<Entry, Errno> {
        let dir = self.node(newparent)?;
        let id = node;
        let node = self.node(node)?;
        match sys::linkat(node.fd(), c"", dir.fd(), name, libc::AT_EMPTY_PATH) {
            // Without CAP_DAC_READ_SEARCH the kernel wants a path.
            Err(Errno::ENOENT) => {
                let path = FdPath::new(node.fd());
                let follow = libc::AT_SYMLINK_FOLLOW;
                sys::linkat(
                    self.proc_fd.as_raw_fd(),
                    path.name(),
                    dir.fd(),
                    name,
                    follow,
                )?;
            }
            result => result?,
        }
        let stat = sys::fstat(node.fd())?;
        let (_, id) = self.nodes.acquire_again(id)?;
        Ok(self.entry(id, &stat))
    }

    pub(crate) fn do_rename(
        &self,
        cx: &Context<'_>,
        (from, name): (u64, &CStr),
        (to, newname): (u64, &CStr),
        flags: u32,
    ) -> Result<(), Errno> {
        let (from, to) = (self.node(from)?, self.node(to)?);
        let rename = || sys::renameat2((from.fd(), name), (to.fd(), newname), flags);
        if flags & libc::RENAME_WHITEOUT != 0 {
            // Leaves a device node behind, which belongs to the caller.
            let _caller = self.baseline.act_as(cx.uid, cx.gid, 0);
            rename()
        } else {
            rename()
        }
    }

    pub(crate) fn do_create(
        &self,
        cx: &Context<'_>,
        parent: u64,
        name: &CStr,
        arg: &CreateIn,
    ) -> Result<(Entry, Opened), Errno> {
        let dir = self.node(parent)?;
        let wanted = arg.flags as i32;
        let flags = self.creating_flags(wanted) | libc::O_CREAT | libc::O_EXCL;
        let created = {
            let _caller = self.baseline.act_as(cx.uid, cx.gid, arg.umask);
            sys::openat(dir.fd(), name, flags, arg.mode)
        };
        match created {
            Ok(fd) => self.adopt_open(fd, flags),
            // Somebody made it below, behind the kernel's back. Opening it here would pass by the
            // permission checks for existing files; ESTALE makes the kernel look the name up anew.
            Err(Errno::EEXIST) if wanted & libc::O_EXCL == 0 => Err(Errno::ESTALE),
            Err(errno) => Err(errno),
        }
    }

    pub(crate) fn do_tmpfile(
        &self,
        cx: &Context<'_>,
        parent: u64,
        arg: &CreateIn,
    ) -> Result<(Entry, Opened), Errno> {
        let dir = self.node(parent)?;
        let exclusive = arg.flags as i32 & libc::O_EXCL;
        let flags = self.creating_flags(arg.flags as i32) | libc::O_TMPFILE | exclusive;
        let fd = {
            let _caller = self.baseline.act_as(cx.uid, cx.gid, arg.umask);
            sys::openat(dir.fd(), c".", flags, arg.mode)?
        };
        self.adopt_open(fd, flags & !libc::O_TMPFILE)
    }

    /// What to create a file with for an opener with these flags.
    fn creating_flags(&self, flags: i32) -> i32 {
        if self.unopened.get().is_some() {
            Unopened::creating(flags)
        } else {
            Self::lower_flags(flags)
        }
    }

    /// Makes a file that was created open known, without going by its name again.
    fn adopt_open(&self, fd: OwnedFd, flags: i32) -> Result<(Entry, Opened), Errno> {
        let pin = self.reopen(fd.as_raw_fd(), libc::O_PATH)?;
        let stat = sys::fstat(fd.as_raw_fd())?;
        let (node, id) = self.acquire(pin, &stat)?;
        if let Some(unopened) = self.unopened.get() {
            unopened.created(id.id, fd, flags);
            let opened = Opened {
                fh: 0,
                flags: FopenFlags::KEEP_CACHE,
                backing_id: 0,
            };
            return Ok((self.entry(id, &stat), opened));
        }
        match self.register(&node, fd, flags) {
            Ok(opened) => Ok((self.entry(id, &stat), opened)),
            Err(errno) => {
                self.nodes.release(id.id, 1);
                Err(errno)
            }
        }
    }
}
