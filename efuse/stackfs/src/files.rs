//! Open files and open directories.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, OnceLock};

use efuse_abi::Errno;

use crate::backing::Mode;
use crate::nodes::Node;
use crate::sys::{self, FdPath};
use crate::table::Table;

/// Set in the hot word of a file whose descriptor is `O_DIRECT`. Descriptors stay far below.
const DIRECT: u32 = 1 << 30;

#[derive(Debug)]
pub(crate) struct OpenFile {
    fd: OwnedFd,
    pub(crate) node: Arc<Node>,
    pub(crate) mode: Mode,
    access: i32,
    /// A second descriptor without `O_DIRECT`, made when first needed.
    buffered: OnceLock<OwnedFd>,
}

impl OpenFile {
    pub(crate) fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// Open files by handle. Handles are table ids whose hot word holds the descriptor, so READ and
/// WRITE find it without a lock.
pub(crate) struct Files(Table<OpenFile>);

impl Files {
    pub(crate) fn new() -> Files {
        Files(Table::new())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Registers an open file; `flags` are those that `fd` was opened with.
    pub(crate) fn insert(
        &self,
        fd: OwnedFd,
        node: Arc<Node>,
        mode: Mode,
        flags: i32,
    ) -> Result<u64, Errno> {
        let direct = if flags & libc::O_DIRECT != 0 {
            DIRECT
        } else {
            0
        };
        let hot = fd.as_raw_fd() as u32 | direct;
        let access = flags & libc::O_ACCMODE;
        let file = OpenFile {
            fd,
            node,
            mode,
            access,
            buffered: OnceLock::new(),
        };
        self.0.insert(Arc::new(file), hot).ok_or(Errno::ENFILE)
    }

    pub(crate) fn get(&self, fh: u64) -> Result<Arc<OpenFile>, Errno> {
        self.0.get(fh).ok_or(Errno::EBADF)
    }

    pub(crate) fn remove(&self, fh: u64) -> Option<Arc<OpenFile>> {
        self.0.remove(fh)
    }

    /// The descriptor, whatever its mode. Valid until RELEASE of the handle, which the kernel sends
    /// after the last request on it was answered.
    pub(crate) fn descriptor(&self, fh: u64) -> Result<RawFd, Errno> {
        let hot = self.0.hot(fh).ok_or(Errno::EBADF)?;
        Ok((hot & !DIRECT) as RawFd)
    }

    /// The descriptor for data: `O_DIRECT` or not as the request wants it, if the file can.
    ///
    /// Opened with `O_DIRECT` and asked without: the opener cleared the flag by fcntl, or the kernel
    /// writes back a page that was dirtied through a mapping. Neither is aligned. Opened without and
    /// asked with: buffered I/O answers as well.
    #[inline]
    pub(crate) fn for_data(&self, fh: u64, want_direct: bool) -> Result<RawFd, Errno> {
        let hot = self.0.hot(fh).ok_or(Errno::EBADF)?;
        if hot & DIRECT == 0 || want_direct {
            Ok((hot & !DIRECT) as RawFd)
        } else {
            self.buffered(fh)
        }
    }

    #[cold]
    fn buffered(&self, fh: u64) -> Result<RawFd, Errno> {
        let file = self.get(fh)?;
        if let Some(fd) = file.buffered.get() {
            return Ok(fd.as_raw_fd());
        }
        let path = FdPath::new(file.fd());
        let fd = sys::openat(libc::AT_FDCWD, path.path(), file.access, 0)?;
        Ok(file.buffered.get_or_init(|| fd).as_raw_fd())
    }
}

const BUFFER: usize = 32 << 10;

/// Entries read from a lower directory and not handed out yet.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    buffer: Vec<u8>,
    at: usize,
    end: usize,
    /// Offset of the entry at `at`.
    next: u64,
}

/// One entry of a directory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DirEntry<'a> {
    pub(crate) ino: u64,
    /// Offset of the entry after it.
    pub(crate) next: u64,
    pub(crate) kind: u8,
    pub(crate) name: &'a CStr,
    len: usize,
}

#[derive(Debug)]
pub(crate) struct OpenDir {
    fd: OwnedFd,
    pub(crate) stream: Mutex<Stream>,
}

impl OpenDir {
    pub(crate) fn new(fd: OwnedFd) -> OpenDir {
        OpenDir {
            fd,
            stream: Mutex::default(),
        }
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl Stream {
    /// Goes to `offset`, as an earlier entry told it. Offset 0 always reads the directory anew.
    pub(crate) fn seek(&mut self, fd: RawFd, offset: u64) -> Result<(), Errno> {
        if offset == self.next && offset != 0 {
            return Ok(());
        }
        (self.at, self.end) = (0, 0);
        sys::lseek(fd, offset as i64, libc::SEEK_SET)?;
        self.next = offset;
        Ok(())
    }

    /// The entry at the current place, without passing it. None at the end.
    pub(crate) fn peek(&mut self, fd: RawFd) -> Result<Option<DirEntry<'_>>, Errno> {
        if self.at >= self.end {
            self.buffer.resize(BUFFER, 0);
            (self.at, self.end) = (0, sys::getdents(fd, &mut self.buffer)?);
            if self.end == 0 {
                return Ok(None);
            }
        }
        parse(&self.buffer[self.at..self.end])
            .map(Some)
            .ok_or(Errno::EIO)
    }

    /// Passes the entry that `peek` gave: its `next` and length.
    pub(crate) fn pass(&mut self, (next, len): (u64, usize)) {
        self.at += len;
        self.next = next;
    }
}

impl DirEntry<'_> {
    /// What [`Stream::pass`] wants.
    pub(crate) fn step(&self) -> (u64, usize) {
        (self.next, self.len)
    }

    pub(crate) fn is_dot(&self) -> bool {
        matches!(self.name.to_bytes(), b"." | b"..")
    }
}

/// The first `struct linux_dirent64` in `bytes`.
fn parse(bytes: &[u8]) -> Option<DirEntry<'_>> {
    const NAME_AT: usize = 19;
    let word = |at: usize| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let len = usize::from(u16::from_ne_bytes(bytes.get(16..18)?.try_into().ok()?));
    let name = CStr::from_bytes_until_nul(bytes.get(NAME_AT..len)?).ok()?;
    Some(DirEntry {
        ino: word(0)?,
        next: word(8)?,
        kind: bytes[18],
        name,
        len,
    })
}

/// Open directories by handle.
pub(crate) type Dirs = Table<OpenDir>;
