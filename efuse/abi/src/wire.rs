//! Structures of the FUSE wire format, named as in the kernel's `fuse.h` without the prefix.
//!
//! All are plain data of native byte order without hidden padding (the derives prove it), so any
//! bytes of the right length are a valid value. `type` is spelt `kind`.

#![allow(missing_docs)] // the fields carry the names of the kernel's header

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

macro_rules! wire {
    ($($(#[$meta:meta])* $name:ident { $($field:ident: $ty:ty,)* })*) => {
        $(
            $(#[$meta])*
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
            #[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
            #[repr(C)]
            pub struct $name { $(pub $field: $ty,)* }
        )*
    };
}

wire! {
    /// Attributes of an inode.
    Attr {
        ino: u64,
        size: u64,
        blocks: u64,
        atime: u64,
        mtime: u64,
        ctime: u64,
        atimensec: u32,
        mtimensec: u32,
        ctimensec: u32,
        mode: u32,
        nlink: u32,
        uid: u32,
        gid: u32,
        rdev: u32,
        blksize: u32,
        flags: u32,
    }
    /// A time of `statx`.
    SxTime {
        tv_sec: i64,
        tv_nsec: u32,
        reserved: i32,
    }
    /// `struct statx`, bit for bit.
    Statx {
        mask: u32,
        blksize: u32,
        attributes: u64,
        nlink: u32,
        uid: u32,
        gid: u32,
        mode: u16,
        spare0: [u16; 1],
        ino: u64,
        size: u64,
        blocks: u64,
        attributes_mask: u64,
        atime: SxTime,
        btime: SxTime,
        ctime: SxTime,
        mtime: SxTime,
        rdev_major: u32,
        rdev_minor: u32,
        dev_major: u32,
        dev_minor: u32,
        spare2: [u64; 14],
    }
    /// Figures of a file system.
    Kstatfs {
        blocks: u64,
        bfree: u64,
        bavail: u64,
        files: u64,
        ffree: u64,
        bsize: u32,
        namelen: u32,
        frsize: u32,
        padding: u32,
        spare: [u32; 6],
    }
    /// A POSIX lock.
    FileLock {
        start: u64,
        end: u64,
        kind: u32,
        pid: u32,
    }
    /// Reply that makes a node known; the kernel counts one lookup for it.
    EntryOut {
        nodeid: u64,
        generation: u64,
        entry_valid: u64,
        attr_valid: u64,
        entry_valid_nsec: u32,
        attr_valid_nsec: u32,
        attr: Attr,
    }
    /// FORGET.
    ForgetIn {
        nlookup: u64,
    }
    /// One of BATCH_FORGET.
    ForgetOne {
        nodeid: u64,
        nlookup: u64,
    }
    /// BATCH_FORGET; `count` times [`ForgetOne`] follow.
    BatchForgetIn {
        count: u32,
        dummy: u32,
    }
    /// GETATTR.
    GetattrIn {
        getattr_flags: u32,
        dummy: u32,
        fh: u64,
    }
    /// Reply to GETATTR and SETATTR.
    AttrOut {
        attr_valid: u64,
        attr_valid_nsec: u32,
        dummy: u32,
        attr: Attr,
    }
    /// STATX.
    StatxIn {
        getattr_flags: u32,
        reserved: u32,
        fh: u64,
        sx_flags: u32,
        sx_mask: u32,
    }
    /// Reply to STATX.
    StatxOut {
        attr_valid: u64,
        attr_valid_nsec: u32,
        flags: u32,
        spare: [u64; 2],
        stat: Statx,
    }
    /// MKNOD; a name follows.
    MknodIn {
        mode: u32,
        rdev: u32,
        umask: u32,
        padding: u32,
    }
    /// MKDIR; a name follows.
    MkdirIn {
        mode: u32,
        umask: u32,
    }
    /// RENAME; two names follow.
    RenameIn {
        newdir: u64,
    }
    /// RENAME2; two names follow.
    Rename2In {
        newdir: u64,
        flags: u32,
        padding: u32,
    }
    /// LINK; a name follows.
    LinkIn {
        oldnodeid: u64,
    }
    /// SETATTR.
    SetattrIn {
        valid: u32,
        padding: u32,
        fh: u64,
        size: u64,
        lock_owner: u64,
        atime: u64,
        mtime: u64,
        ctime: u64,
        atimensec: u32,
        mtimensec: u32,
        ctimensec: u32,
        mode: u32,
        unused4: u32,
        uid: u32,
        gid: u32,
        unused5: u32,
    }
    /// OPEN and OPENDIR.
    OpenIn {
        flags: u32,
        open_flags: u32,
    }
    /// CREATE and TMPFILE; a name follows.
    CreateIn {
        flags: u32,
        mode: u32,
        umask: u32,
        open_flags: u32,
    }
    /// Reply to OPEN and OPENDIR, second part of the reply to CREATE.
    OpenOut {
        fh: u64,
        open_flags: u32,
        backing_id: i32,
    }
    /// RELEASE and RELEASEDIR.
    ReleaseIn {
        fh: u64,
        flags: u32,
        release_flags: u32,
        lock_owner: u64,
    }
    /// FLUSH.
    FlushIn {
        fh: u64,
        unused: u32,
        padding: u32,
        lock_owner: u64,
    }
    /// READ, READDIR and READDIRPLUS.
    ReadIn {
        fh: u64,
        offset: u64,
        size: u32,
        read_flags: u32,
        lock_owner: u64,
        flags: u32,
        padding: u32,
    }
    /// WRITE; the payload follows.
    WriteIn {
        fh: u64,
        offset: u64,
        size: u32,
        write_flags: u32,
        lock_owner: u64,
        flags: u32,
        padding: u32,
    }
    /// Reply to WRITE and COPY_FILE_RANGE.
    WriteOut {
        size: u32,
        padding: u32,
    }
    /// Reply to STATFS.
    StatfsOut {
        st: Kstatfs,
    }
    /// FSYNC and FSYNCDIR.
    FsyncIn {
        fh: u64,
        fsync_flags: u32,
        padding: u32,
    }
    /// SETXATTR with `SETXATTR_EXT`; name and value follow.
    SetxattrIn {
        size: u32,
        flags: u32,
        setxattr_flags: u32,
        padding: u32,
    }
    /// GETXATTR (a name follows) and LISTXATTR.
    GetxattrIn {
        size: u32,
        padding: u32,
    }
    /// Reply to GETXATTR and LISTXATTR of size 0.
    GetxattrOut {
        size: u32,
        padding: u32,
    }
    /// GETLK, SETLK and SETLKW.
    LkIn {
        fh: u64,
        owner: u64,
        lk: FileLock,
        lk_flags: u32,
        padding: u32,
    }
    /// Reply to GETLK.
    LkOut {
        lk: FileLock,
    }
    /// ACCESS.
    AccessIn {
        mask: u32,
        padding: u32,
    }
    /// INIT.
    InitIn {
        major: u32,
        minor: u32,
        max_readahead: u32,
        flags: u32,
        flags2: u32,
        unused: [u32; 11],
    }
    /// Reply to INIT.
    InitOut {
        major: u32,
        minor: u32,
        max_readahead: u32,
        flags: u32,
        max_background: u16,
        congestion_threshold: u16,
        max_write: u32,
        time_gran: u32,
        max_pages: u16,
        map_alignment: u16,
        flags2: u32,
        max_stack_depth: u32,
        unused: [u32; 6],
    }
    /// CUSE_INIT.
    CuseInitIn {
        major: u32,
        minor: u32,
        unused: u32,
        flags: u32,
    }
    /// Reply to CUSE_INIT.
    CuseInitOut {
        major: u32,
        minor: u32,
        unused: u32,
        flags: u32,
        max_read: u32,
        max_write: u32,
        dev_major: u32,
        dev_minor: u32,
        spare: [u32; 10],
    }
    /// INTERRUPT.
    InterruptIn {
        unique: u64,
    }
    /// BMAP.
    BmapIn {
        block: u64,
        blocksize: u32,
        padding: u32,
    }
    /// Reply to BMAP.
    BmapOut {
        block: u64,
    }
    /// IOCTL; input bytes follow.
    IoctlIn {
        fh: u64,
        flags: u32,
        cmd: u32,
        arg: u64,
        in_size: u32,
        out_size: u32,
    }
    /// A buffer that an unrestricted ioctl asks for.
    IoctlIovec {
        base: u64,
        len: u64,
    }
    /// Reply to IOCTL; output bytes follow.
    IoctlOut {
        result: i32,
        flags: u32,
        in_iovs: u32,
        out_iovs: u32,
    }
    /// POLL.
    PollIn {
        fh: u64,
        kh: u64,
        flags: u32,
        events: u32,
    }
    /// Reply to POLL.
    PollOut {
        revents: u32,
        padding: u32,
    }
    /// NOTIFY_POLL.
    NotifyPollWakeupOut {
        kh: u64,
    }
    /// FALLOCATE.
    FallocateIn {
        fh: u64,
        offset: u64,
        length: u64,
        mode: u32,
        padding: u32,
    }
    /// Head of every request.
    InHeader {
        len: u32,
        opcode: u32,
        unique: u64,
        nodeid: u64,
        uid: u32,
        gid: u32,
        pid: u32,
        total_extlen: u16,
        padding: u16,
    }
    /// Head of every reply and notification.
    OutHeader {
        len: u32,
        error: i32,
        unique: u64,
    }
    /// One entry of READDIR; the name follows, padded to 8 bytes.
    Dirent {
        ino: u64,
        off: u64,
        namelen: u32,
        kind: u32,
    }
    /// NOTIFY_INVAL_INODE.
    NotifyInvalInodeOut {
        ino: u64,
        off: i64,
        len: i64,
    }
    /// NOTIFY_INVAL_ENTRY; a name with its NUL follows.
    NotifyInvalEntryOut {
        parent: u64,
        namelen: u32,
        flags: u32,
    }
    /// NOTIFY_DELETE; a name with its NUL follows.
    NotifyDeleteOut {
        parent: u64,
        child: u64,
        namelen: u32,
        padding: u32,
    }
    /// NOTIFY_STORE; data follow.
    NotifyStoreOut {
        nodeid: u64,
        offset: u64,
        size: u32,
        padding: u32,
    }
    /// NOTIFY_RETRIEVE.
    NotifyRetrieveOut {
        notify_unique: u64,
        nodeid: u64,
        offset: u64,
        size: u32,
        padding: u32,
    }
    /// NOTIFY_REPLY; data follow.
    NotifyRetrieveIn {
        dummy1: u64,
        offset: u64,
        size: u32,
        dummy2: u32,
        dummy3: u64,
        dummy4: u64,
    }
    /// Argument of `DEV_IOC_BACKING_OPEN`.
    BackingMap {
        fd: i32,
        flags: u32,
        padding: u64,
    }
    /// LSEEK.
    LseekIn {
        fh: u64,
        offset: u64,
        whence: u32,
        padding: u32,
    }
    /// Reply to LSEEK.
    LseekOut {
        offset: u64,
    }
    /// COPY_FILE_RANGE and COPY_FILE_RANGE_64.
    CopyFileRangeIn {
        fh_in: u64,
        off_in: u64,
        nodeid_out: u64,
        fh_out: u64,
        off_out: u64,
        len: u64,
        flags: u64,
    }
    /// SETUPMAPPING.
    SetupmappingIn {
        fh: u64,
        foffset: u64,
        len: u64,
        flags: u64,
        moffset: u64,
    }
    /// REMOVEMAPPING; `count` times [`RemovemappingOne`] follow.
    RemovemappingIn {
        count: u32,
    }
    /// One of REMOVEMAPPING.
    RemovemappingOne {
        moffset: u64,
        len: u64,
    }
    /// SYNCFS.
    SyncfsIn {
        padding: u64,
    }
    /// One security context; name and label follow.
    Secctx {
        size: u32,
        padding: u32,
    }
    /// Head of the security contexts of a creation.
    SecctxHeader {
        size: u32,
        nr_secctx: u32,
    }
    /// Head of one extension of a request.
    ExtHeader {
        size: u32,
        kind: u32,
    }
    /// Extension with supplementary groups; `nr_groups` times `u32` follow.
    SuppGroups {
        nr_groups: u32,
    }
    /// SETXATTR without `SETXATTR_EXT`; name and value follow.
    SetxattrInCompat {
        size: u32,
        flags: u32,
    }
    /// Reply to COPY_FILE_RANGE_64.
    CopyFileRangeOut {
        bytes_copied: u64,
    }
}
