//! Extended attributes.
//!
//! The calls that take an `O_PATH` descriptor are newer than the oldest kernel this runs on, so they
//! go through `/proc/self/fd`, whose links lead to the inode itself, even if that is a symbolic link.

use std::ffi::CStr;

use efuse_abi::Errno;
use efuse_abi::wire::SetxattrIn;
use efuse_runtime::{Context, XattrReply};

use crate::sys::FdPath;
use crate::{StackFs, sys};

const ACL_KILL_SGID: u32 = 1;

impl StackFs {
    pub(crate) fn do_setxattr(
        &self,
        cx: &Context<'_>,
        node: u64,
        name: &CStr,
        value: &[u8],
        arg: &SetxattrIn,
    ) -> Result<(), Errno> {
        let node = self.node(node)?;
        let path = FdPath::new(node.fd());
        let set = || sys::setxattr(path.path(), name, value, arg.flags as i32);
        if arg.setxattr_flags & ACL_KILL_SGID != 0 {
            let _caps = self.baseline.unprivileged(cx.gid);
            set()
        } else {
            set()
        }
    }

    pub(crate) fn do_getxattr(
        &self,
        node: u64,
        name: &CStr,
        out: &mut [u8],
    ) -> Result<XattrReply, Errno> {
        let node = self.node(node)?;
        let path = FdPath::new(node.fd());
        let size_only = out.is_empty();
        sys::getxattr(path.path(), name, out).map(|len| reply(len, size_only))
    }

    pub(crate) fn do_listxattr(&self, node: u64, out: &mut [u8]) -> Result<XattrReply, Errno> {
        let node = self.node(node)?;
        let path = FdPath::new(node.fd());
        let size_only = out.is_empty();
        sys::listxattr(path.path(), out).map(|len| reply(len, size_only))
    }

    pub(crate) fn do_removexattr(&self, node: u64, name: &CStr) -> Result<(), Errno> {
        let node = self.node(node)?;
        sys::removexattr(FdPath::new(node.fd()).path(), name)
    }
}

fn reply(len: usize, size_only: bool) -> XattrReply {
    if size_only {
        XattrReply::Size(len as u32)
    } else {
        XattrReply::Data(len)
    }
}
