use std::ffi::CStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use efuse_abi::wire::{
    Attr, BmapIn, CopyFileRangeIn, CreateIn, FallocateIn, FileLock, FlushIn, FsyncIn, InHeader,
    IoctlIn, Kstatfs, LkIn, LseekIn, MkdirIn, MknodIn, PollIn, ReadIn, ReleaseIn, SetattrIn,
    SetxattrIn, Statx, StatxIn, WriteIn,
};
use efuse_abi::{DirentBuf, DirentPlusBuf, Errno, Extensions, FopenFlags};

use crate::notify::{Connection, Negotiation};

/// Who asks, and whether he still wants to know.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Unique id of the request.
    pub unique: u64,
    /// File system user id of the caller.
    pub uid: u32,
    /// File system group id of the caller.
    pub gid: u32,
    /// Thread group of the caller, 0 if it is not visible to the daemon.
    pub pid: u32,
    /// Extensions of the request, if any were negotiated.
    pub extensions: Extensions<'a>,
    pub(crate) interrupted: &'a AtomicU64,
}

impl<'a> Context<'a> {
    pub(crate) fn new(
        header: &InHeader,
        extensions: Extensions<'a>,
        interrupted: &'a AtomicU64,
    ) -> Context<'a> {
        Context {
            unique: header.unique,
            uid: header.uid,
            gid: header.gid,
            pid: header.pid,
            extensions,
            interrupted,
        }
    }

    /// Whether the caller got a signal. A handler that loops or waits should ask and give EINTR.
    pub fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed) == self.unique
    }
}

/// A node that a reply makes known. The kernel counts one lookup for it.
#[derive(Clone, Copy, Debug)]
pub struct Node {
    /// Node id. With the generation unique for the life of the mount. 0: "no such name", which
    /// the kernel may remember for `entry_ttl`.
    pub id: u64,
    /// Generation of the node id.
    pub generation: u64,
}

/// Reply to LOOKUP, MKNOD, MKDIR, SYMLINK, LINK.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The node.
    pub node: Node,
    /// Its attributes.
    pub attr: Attr,
    /// How long the kernel may trust the name.
    pub entry_ttl: Duration,
    /// How long the kernel may trust the attributes.
    pub attr_ttl: Duration,
}

/// Reply to GETATTR, SETATTR and STATX.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<A> {
    /// The attributes.
    pub attr: A,
    /// How long the kernel may trust them.
    pub ttl: Duration,
}

/// Reply to OPEN, OPENDIR, CREATE, TMPFILE.
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    /// File handle, sent back with every request on this open file.
    pub fh: u64,
    /// How the kernel treats the open file.
    pub flags: FopenFlags,
    /// Backing id, with [`FopenFlags::PASSTHROUGH`] only.
    pub backing_id: i32,
}

/// Reply to GETXATTR and LISTXATTR.
#[derive(Clone, Copy, Debug)]
pub enum XattrReply {
    /// Size in bytes, asked for with size 0.
    Size(u32),
    /// So many bytes are in the buffer.
    Data(usize),
}

/// An IOCTL of the restricted kind.
#[derive(Clone, Copy, Debug)]
pub struct Ioctl<'a> {
    /// Handle, command, sizes.
    pub arg: &'a IoctlIn,
    /// What the caller passes in.
    pub input: &'a [u8],
}

/// Reply to IOCTL.
#[derive(Clone, Copy, Debug)]
pub struct IoctlReply {
    /// What `ioctl(2)` returns.
    pub result: i32,
    /// `FUSE_IOCTL_*`; a file system has none to set, as only character devices may ask for more.
    pub flags: u32,
    /// Bytes in the buffer for the caller.
    pub len: usize,
}

/// Reply to POLL.
#[derive(Clone, Copy, Debug)]
pub struct PollReply {
    /// Events that are ready.
    pub revents: u32,
}

/// A file system: one method per operation, called by several threads at once.
///
/// Every method has a default that answers ENOSYS, which the kernel remembers for most operations
/// and then stops asking (or does the operation itself). A panic is caught and becomes EIO.
/// `node` is always the node that the request is about, `parent` a directory.
#[allow(unused_variables)]
pub trait FileSystem: Send + Sync + 'static {
    /// The mount is about to be ready. Choose among what the kernel offers; keep `connection` to
    /// send notifications and register backing files.
    fn init(&self, negotiation: &mut Negotiation, connection: &Connection) -> Result<(), Errno> {
        Ok(())
    }

    /// A worker thread starts, before its first request.
    fn worker_start(&self) {}

    /// The kernel unmounts. Not sent for every kind of mount.
    fn destroy(&self) {}

    /// Looks a name up; counts one lookup.
    fn lookup(&self, cx: &Context<'_>, parent: u64, name: &CStr) -> Result<Entry, Errno> {
        Err(Errno::ENOSYS)
    }

    /// Takes `count` lookups back; at 0 the kernel no longer knows the node.
    fn forget(&self, node: u64, count: u64) {}

    /// Attributes, of the open file `fh` if there is one.
    fn getattr(
        &self,
        cx: &Context<'_>,
        node: u64,
        fh: Option<u64>,
    ) -> Result<Attributes<Attr>, Errno> {
        Err(Errno::ENOSYS)
    }

    /// Attributes with birth time.
    fn statx(
        &self,
        cx: &Context<'_>,
        node: u64,
        fh: Option<u64>,
        arg: &StatxIn,
    ) -> Result<Attributes<Statx>, Errno> {
        Err(Errno::ENOSYS)
    }

    /// Sets the attributes that `arg.valid` names; answers the new ones.
    fn setattr(
        &self,
        cx: &Context<'_>,
        node: u64,
        arg: &SetattrIn,
    ) -> Result<Attributes<Attr>, Errno> {
        Err(Errno::ENOSYS)
    }

    /// Target of a symbolic link, into `out`.
    fn readlink(&self, cx: &Context<'_>, node: u64, out: &mut [u8]) -> Result<usize, Errno> {
        Err(Errno::ENOSYS)
    }

    /// Makes a symbolic link.
    fn symlink(
        &self,
        cx: &Context<'_>,
        parent: u64,
        name: &CStr,
        target: &CStr,
    ) -> Result<Entry, Errno> {
        Err(Errno::ENOSYS)
    }

    /// Makes a file, device node, pipe or socket.
    fn mknod(
        &self,
        cx: &Context<'_>,
        parent: u64,
        name: &CStr,
        arg: &MknodIn,
    ) -> Result<Entry, Errno> {
        Err(Errno::ENOSYS)
    }

    /// Makes a directory.
    fn mkdir(
        &self,
        cx: &Context<'_>,
        parent: u64,
        name: &CStr,
        arg: &MkdirIn,
    ) -> Result<Entry, Errno> {
        Err(Errno::ENOSYS)
    }

    /// Removes a name of something that is no directory.
    fn unlink(&self, cx: &Context<'_>, parent: u64, name: &CStr) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }

    /// Removes an empty directory.
    fn rmdir(&self, cx: &Context<'_>, parent: u64, name: &CStr) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }

    /// Renames; `flags` as for `renameat2(2)`.
    fn rename(
        &self,
        cx: &Context<'_>,
        from: (u64, &CStr),
        to: (u64, &CStr),
        flags: u32,
    ) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }

    /// Gives `node` one more name.
    fn link(
        &self,
        cx: &Context<'_>,
        node: u64,
        newparent: u64,
        name: &CStr,
    ) -> Result<Entry, Errno> {
        Err(Errno::ENOSYS)
    }

    /// Opens a file. `flags` as for `open(2)`; `kill_suidgid`: an O_TRUNC clears suid and sgid.
    fn open(
        &self,
        cx: &Context<'_>,
        node: u64,
        flags: u32,
        kill_suidgid: bool,
    ) -> Result<Opened, Errno> {
        Err(Errno::ENOSYS)
    }

    /// Creates and opens a file.
    fn create(
        &self,
        cx: &Context<'_>,
        parent: u64,
        name: &CStr,
        arg: &CreateIn,
    ) -> Result<(Entry, Opened), Errno> {
        Err(Errno::ENOSYS)
    }

    /// Creates and opens a file without a name in the directory `parent`.
    fn tmpfile(
        &self,
        cx: &Context<'_>,
        parent: u64,
        arg: &CreateIn,
    ) -> Result<(Entry, Opened), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Reads into `out`, which has the size asked for. Less than that means end of file.
    fn read(
        &self,
        cx: &Context<'_>,
        node: u64,
        arg: &ReadIn,
        out: &mut [u8],
    ) -> Result<usize, Errno> {
        Err(Errno::ENOSYS)
    }

    /// Writes `data`; answers how much was written.
    fn write(
        &self,
        cx: &Context<'_>,
        node: u64,
        arg: &WriteIn,
        data: &[u8],
    ) -> Result<usize, Errno> {
        Err(Errno::ENOSYS)
    }

    /// A descriptor of the open file was closed.
    fn flush(&self, cx: &Context<'_>, node: u64, arg: &FlushIn) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }

    /// The open file is gone. The answer is not seen by anyone.
    fn release(&self, node: u64, arg: &ReleaseIn) {}

    /// Makes data (and, unless `FSYNC_FDATASYNC`, attributes) durable.
    fn fsync(&self, cx: &Context<'_>, node: u64, arg: &FsyncIn) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }

    /// Opens a directory.
    fn opendir(&self, cx: &Context<'_>, node: u64, flags: u32) -> Result<Opened, Errno> {
        Err(Errno::ENOSYS)
    }

    /// Entries from `arg.offset` on.
    fn readdir(
        &self,
        cx: &Context<'_>,
        node: u64,
        arg: &ReadIn,
        out: &mut DirentBuf<'_>,
    ) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }

    /// Entries with attributes; each with a node id counts one lookup.
    fn readdirplus(
        &self,
        cx: &Context<'_>,
        node: u64,
        arg: &ReadIn,
        out: &mut DirentPlusBuf<'_>,
    ) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }

    /// The open directory is gone.
    fn releasedir(&self, node: u64, arg: &ReleaseIn) {}

    /// Makes a directory durable.
    fn fsyncdir(&self, cx: &Context<'_>, node: u64, arg: &FsyncIn) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }

    /// Makes the whole file system durable.
    fn syncfs(&self, cx: &Context<'_>) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }

    /// Figures of the file system.
    fn statfs(&self, cx: &Context<'_>, node: u64) -> Result<Kstatfs, Errno> {
        Err(Errno::ENOSYS)
    }

    /// Checks permission (only without `default_permissions`).
    fn access(&self, cx: &Context<'_>, node: u64, mask: u32) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }

    /// Sets an extended attribute.
    fn setxattr(
        &self,
        cx: &Context<'_>,
        node: u64,
        name: &CStr,
        value: &[u8],
        arg: &SetxattrIn,
    ) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }

    /// Value of an extended attribute, into `out`; `out` is empty if only the size is wanted.
    fn getxattr(
        &self,
        cx: &Context<'_>,
        node: u64,
        name: &CStr,
        out: &mut [u8],
    ) -> Result<XattrReply, Errno> {
        Err(Errno::ENOSYS)
    }

    /// Names of extended attributes, as [`FileSystem::getxattr`].
    fn listxattr(&self, cx: &Context<'_>, node: u64, out: &mut [u8]) -> Result<XattrReply, Errno> {
        Err(Errno::ENOSYS)
    }

    /// Removes an extended attribute.
    fn removexattr(&self, cx: &Context<'_>, node: u64, name: &CStr) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }

    /// Which lock stands in the way (only if POSIX locks were negotiated).
    fn getlk(&self, cx: &Context<'_>, node: u64, arg: &LkIn) -> Result<FileLock, Errno> {
        Err(Errno::ENOSYS)
    }

    /// Sets a lock, waiting for it if `wait`.
    fn setlk(&self, cx: &Context<'_>, node: u64, arg: &LkIn, wait: bool) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }

    /// Maps a block of the file to a block of the device.
    fn bmap(&self, cx: &Context<'_>, node: u64, arg: &BmapIn) -> Result<u64, Errno> {
        Err(Errno::ENOSYS)
    }

    /// Device control; output goes into `out`, which has the announced size.
    fn ioctl(
        &self,
        cx: &Context<'_>,
        node: u64,
        ioctl: &Ioctl<'_>,
        out: &mut [u8],
    ) -> Result<IoctlReply, Errno> {
        Err(Errno::ENOTTY)
    }

    /// Which events are ready.
    fn poll(&self, cx: &Context<'_>, node: u64, arg: &PollIn) -> Result<PollReply, Errno> {
        Err(Errno::ENOSYS)
    }

    /// Reserves, frees or zeroes space.
    fn fallocate(&self, cx: &Context<'_>, node: u64, arg: &FallocateIn) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }

    /// Finds data or a hole.
    fn lseek(&self, cx: &Context<'_>, node: u64, arg: &LseekIn) -> Result<u64, Errno> {
        Err(Errno::ENOSYS)
    }

    /// Copies between two open files; answers the number of bytes.
    fn copy_file_range(
        &self,
        cx: &Context<'_>,
        node: u64,
        arg: &CopyFileRangeIn,
    ) -> Result<u64, Errno> {
        Err(Errno::ENOSYS)
    }
}
