use bitflags::bitflags;

bitflags! {
    /// What kernel and file system can do, exchanged in INIT (`flags` and `flags2` as one word).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct InitFlags: u64 {
        /// Several READs of one file may be under way.
        const ASYNC_READ = 1 << 0;
        /// POSIX locks are sent to the file system.
        const POSIX_LOCKS = 1 << 1;
        /// OPEN carries `O_TRUNC`; no separate SETATTR.
        const ATOMIC_O_TRUNC = 1 << 3;
        /// LOOKUP of `.` and `..` works.
        const EXPORT_SUPPORT = 1 << 4;
        /// WRITE may carry more than one page.
        const BIG_WRITES = 1 << 5;
        /// The file system applies the caller's umask.
        const DONT_MASK = 1 << 6;
        /// Replies may be spliced into the device.
        const SPLICE_WRITE = 1 << 7;
        /// Spliced pages may be moved.
        const SPLICE_MOVE = 1 << 8;
        /// Requests may be spliced from the device.
        const SPLICE_READ = 1 << 9;
        /// BSD locks are sent to the file system.
        const FLOCK_LOCKS = 1 << 10;
        /// ioctl works on directories.
        const HAS_IOCTL_DIR = 1 << 11;
        /// Cached pages are dropped when size or mtime changed.
        const AUTO_INVAL_DATA = 1 << 12;
        /// READDIRPLUS is understood.
        const DO_READDIRPLUS = 1 << 13;
        /// The kernel chooses between READDIR and READDIRPLUS.
        const READDIRPLUS_AUTO = 1 << 14;
        /// Direct I/O may be submitted asynchronously.
        const ASYNC_DIO = 1 << 15;
        /// Buffered writes stay in the kernel until written back.
        const WRITEBACK_CACHE = 1 << 16;
        /// OPEN may answer ENOSYS.
        const NO_OPEN_SUPPORT = 1 << 17;
        /// Lookups and readdirs of one directory may run in parallel.
        const PARALLEL_DIROPS = 1 << 18;
        /// The file system kills suid and sgid itself (first version).
        const HANDLE_KILLPRIV = 1 << 19;
        /// The kernel checks POSIX ACLs.
        const POSIX_ACL = 1 << 20;
        /// Reading an aborted device gives ECONNABORTED.
        const ABORT_ERROR = 1 << 21;
        /// `max_pages` of the reply counts.
        const MAX_PAGES = 1 << 22;
        /// READLINK may be cached.
        const CACHE_SYMLINKS = 1 << 23;
        /// OPENDIR may answer ENOSYS.
        const NO_OPENDIR_SUPPORT = 1 << 24;
        /// Cached pages are dropped on request only.
        const EXPLICIT_INVAL_DATA = 1 << 25;
        /// `map_alignment` of the reply counts (DAX).
        const MAP_ALIGNMENT = 1 << 26;
        /// Directories may be automatic submounts.
        const SUBMOUNTS = 1 << 27;
        /// The file system kills suid, sgid and capabilities when told to (second version).
        const HANDLE_KILLPRIV_V2 = 1 << 28;
        /// SETXATTR carries the longer structure.
        const SETXATTR_EXT = 1 << 29;
        /// `flags2` counts.
        const INIT_EXT = 1 << 30;
        /// Creations carry the security context.
        const SECURITY_CTX = 1 << 32;
        /// DAX by inode.
        const HAS_INODE_DAX = 1 << 33;
        /// Creations carry one supplementary group.
        const CREATE_SUPP_GROUP = 1 << 34;
        /// NOTIFY_INVAL_ENTRY can expire only.
        const HAS_EXPIRE_ONLY = 1 << 35;
        /// Shared mmap of `DIRECT_IO` files is allowed.
        const DIRECT_IO_ALLOW_MMAP = 1 << 36;
        /// Backing files may serve reads and writes.
        const PASSTHROUGH = 1 << 37;
        /// The file system cannot be exported.
        const NO_EXPORT_SUPPORT = 1 << 38;
        /// NOTIFY_RESEND is understood.
        const HAS_RESEND = 1 << 39;
        /// Idmapped mounts are allowed.
        const ALLOW_IDMAP = 1 << 40;
        /// Requests may travel over io_uring.
        const OVER_IO_URING = 1 << 41;
        /// Requests time out.
        const REQUEST_TIMEOUT = 1 << 42;
    }

    /// `OpenOut::open_flags`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct FopenFlags: u32 {
        /// Bypass the page cache for this open file.
        const DIRECT_IO = 1 << 0;
        /// Keep cached pages on open.
        const KEEP_CACHE = 1 << 1;
        /// The file cannot seek.
        const NONSEEKABLE = 1 << 2;
        /// The kernel may cache this directory.
        const CACHE_DIR = 1 << 3;
        /// The file has no position.
        const STREAM = 1 << 4;
        /// No FLUSH on close.
        const NOFLUSH = 1 << 5;
        /// Direct writes to one file may run in parallel.
        const PARALLEL_DIRECT_WRITES = 1 << 6;
        /// Reads and writes go to the backing file.
        const PASSTHROUGH = 1 << 7;
    }

    /// `SetattrIn::valid`: which attributes to set.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct SetattrValid: u32 {
        /// Permission bits.
        const MODE = 1 << 0;
        /// Owner.
        const UID = 1 << 1;
        /// Group.
        const GID = 1 << 2;
        /// Size.
        const SIZE = 1 << 3;
        /// Access time.
        const ATIME = 1 << 4;
        /// Modification time.
        const MTIME = 1 << 5;
        /// The file handle counts.
        const FH = 1 << 6;
        /// Access time is now.
        const ATIME_NOW = 1 << 7;
        /// Modification time is now.
        const MTIME_NOW = 1 << 8;
        /// The lock owner counts.
        const LOCKOWNER = 1 << 9;
        /// Change time (writeback cache only).
        const CTIME = 1 << 10;
        /// Clear suid and sgid.
        const KILL_SUIDGID = 1 << 11;
    }

    /// `WriteIn::write_flags`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct WriteFlags: u32 {
        /// Delayed write from the page cache; the handle is any writable one of the file.
        const CACHE = 1 << 0;
        /// The lock owner counts.
        const LOCKOWNER = 1 << 1;
        /// Clear suid and sgid.
        const KILL_SUIDGID = 1 << 2;
    }

    /// `ReleaseIn::release_flags`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ReleaseFlags: u32 {
        /// Flush before release.
        const FLUSH = 1 << 0;
        /// Drop the BSD lock.
        const FLOCK_UNLOCK = 1 << 1;
    }
}
