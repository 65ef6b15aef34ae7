//! Attributes.

use std::os::fd::AsRawFd;

use efuse_abi::wire::{Attr, SetattrIn};
use efuse_abi::{Errno, SetattrValid};
use efuse_runtime::{Attributes, Context};

use crate::sys::FdPath;
use crate::{StackFs, attr, sys};

impl StackFs {
    /// Whether the daemon itself keeps this from who asks (`Options::own_only`).
    pub(crate) fn hides(&self, cx: &Context<'_>, mode: u32, owner: u32) -> bool {
        self.options.own_only
            && cx.uid != 0
            && cx.uid != owner
            && mode & libc::S_IFMT != libc::S_IFDIR
    }

    /// The same for a node.
    pub(crate) fn may_see(&self, cx: &Context<'_>, node: u64) -> Result<(), Errno> {
        if !self.options.own_only {
            return Ok(());
        }
        let stat = sys::fstat(self.node(node)?.fd())?;
        if self.hides(cx, stat.st_mode, stat.st_uid) {
            return Err(Errno::EACCES);
        }
        Ok(())
    }

    pub(crate) fn do_getattr(&self, node: u64, fh: Option<u64>) -> Result<Attributes<Attr>, Errno> {
        // The handle may be a directory's; then the node serves.
        let stat = match fh.and_then(|fh| self.files.descriptor(fh).ok()) {
            Some(fd) => sys::fstat(fd)?,
            None => sys::fstat(self.node(node)?.fd())?,
        };
        Ok(Attributes {
            attr: attr::attr(&stat),
            ttl: self.options.attr_ttl,
        })
    }

    pub(crate) fn do_setattr(
        &self,
        cx: &Context<'_>,
        id: u64,
        arg: &SetattrIn,
    ) -> Result<Attributes<Attr>, Errno> {
        let node = self.node(id)?;
        let path = FdPath::new(node.fd());
        let valid = SetattrValid::from_bits_retain(arg.valid);
        let proc_fd = self.proc_fd.as_raw_fd();

        if valid.contains(SetattrValid::MODE) {
            sys::fchmodat(proc_fd, path.name(), arg.mode & 0o7777)?;
        }
        if valid.intersects(SetattrValid::UID | SetattrValid::GID) {
            let pick = |flag, id| if valid.contains(flag) { id } else { u32::MAX };
            let (uid, gid) = (
                pick(SetattrValid::UID, arg.uid),
                pick(SetattrValid::GID, arg.gid),
            );
            sys::chown_fd(node.fd(), uid, gid)?;
        }
        if valid.contains(SetattrValid::SIZE) {
            let size = i64::try_from(arg.size).map_err(|_| Errno::EFBIG)?;
            let open = if valid.contains(SetattrValid::FH) {
                self.handle(id, arg.fh, true).ok()
            } else if size == 0 && self.unopened.get().is_some() {
                // Probably O_TRUNC, which changes the times of an empty file; truncate(2) does not.
                self.handle(id, 0, true).ok()
            } else {
                None
            };
            let truncate = || match &open {
                Some(file) => sys::ftruncate(file.fd(), size),
                None => sys::truncate(path.path(), size),
            };
            if valid.contains(SetattrValid::KILL_SUIDGID) {
                let _caps = self.baseline.unprivileged(cx.gid);
                truncate()?;
            } else {
                truncate()?;
            }
        }
        if valid.intersects(SetattrValid::ATIME | SetattrValid::MTIME) {
            let time = |set, now, sec: u64, nsec: u32| {
                let nanoseconds = if !valid.contains(set) {
                    libc::UTIME_OMIT
                } else if valid.contains(now) {
                    libc::UTIME_NOW
                } else {
                    i64::from(nsec)
                };
                libc::timespec {
                    tv_sec: sec as i64,
                    tv_nsec: nanoseconds,
                }
            };
            let times = [
                time(
                    SetattrValid::ATIME,
                    SetattrValid::ATIME_NOW,
                    arg.atime,
                    arg.atimensec,
                ),
                time(
                    SetattrValid::MTIME,
                    SetattrValid::MTIME_NOW,
                    arg.mtime,
                    arg.mtimensec,
                ),
            ];
            sys::utimensat(proc_fd, path.name(), &times)?;
        }
        let stat = sys::fstat(node.fd())?;
        Ok(Attributes {
            attr: attr::attr(&stat),
            ttl: self.options.attr_ttl,
        })
    }
}
