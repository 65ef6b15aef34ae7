use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use efuse_abi::wire::{BackingMap, OutHeader};
use efuse_abi::{
    DEV_IOC_BACKING_CLOSE, DEV_IOC_BACKING_OPEN, DEV_IOC_CLONE, Errno, NotifyCode,
    WRITE_PAYLOAD_OFFSET,
};
use zerocopy::IntoBytes;

use crate::buffer::AlignedBuffer;
use crate::mount::{Mount, MountError, MountOptions};
use crate::transport::{
    BackingFiles, Channel, Exchange, RawRequest, ReceiveError, Transport, TransportError,
};

const PAGE: usize = 4096;

/// The character device: `/dev/fuse`, or `/dev/efuse` of our module.
///
/// Requests come by `read(2)`, replies go by `writev(2)`. Every worker but the first gets a
/// descriptor of its own by `FUSE_DEV_IOC_CLONE`, which gives it its own list of requests under
/// way, so workers do not meet on one lock when they reply.
#[derive(Debug)]
pub struct Device {
    path: PathBuf,
    file: Arc<File>,
}

impl Device {
    /// Opens the device and mounts with it.
    pub fn mount(options: &MountOptions) -> Result<(Device, Mount), MountError> {
        let file = open(&options.device).map_err(|source| MountError::Device {
            path: options.device.clone(),
            source,
        })?;
        let mount = Mount::new(options, file.as_raw_fd())?;
        Ok((
            Device {
                path: options.device.clone(),
                file: Arc::new(file),
            },
            mount,
        ))
    }

    /// Takes over the descriptor of a connection that somebody else mounted. `path` is the device
    /// to open for further workers.
    pub fn from_fd(fd: OwnedFd, path: &Path) -> Device {
        Device {
            path: path.to_owned(),
            file: Arc::new(File::from(fd)),
        }
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// One more descriptor of the connection.
    pub(crate) fn clone_descriptor(&self) -> io::Result<File> {
        let file = open(&self.path)?;
        let source: u32 = self.file.as_raw_fd() as u32;
        // SAFETY: the request reads one u32 behind the pointer.
        let result = unsafe { libc::ioctl(file.as_raw_fd(), DEV_IOC_CLONE, &source) };
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(file)
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_CLOEXEC)
        .open(path)
}

impl Transport for Device {
    fn channel(&self, worker: usize, max_write: usize) -> Result<Box<dyn Channel>, TransportError> {
        let error = |what: &str, source| TransportError {
            worker,
            what: what.to_owned(),
            source,
        };
        let file = if worker == 0 {
            Arc::clone(&self.file)
        } else {
            let what = format!("clone the descriptor of {}", self.path.display());
            Arc::new(
                self.clone_descriptor()
                    .map_err(|source| error(&what, source))?,
            )
        };
        let map = |len| AlignedBuffer::new(len).map_err(|source| error("map buffers", source));
        // The last request page starts at the page boundary behind header and arguments, so the
        // payload of a WRITE is aligned for O_DIRECT.
        let request = map(PAGE + max_write.max(efuse_abi::MIN_READ_BUFFER))?;
        let data = map(max_write.max(efuse_abi::LARGEST_XATTR))?;
        Ok(Box::new(DeviceChannel {
            file,
            request,
            received: 0,
            data,
        }))
    }

    fn notify(&self, code: NotifyCode, parts: &[&[u8]]) -> Result<(), Errno> {
        let len = size_of::<OutHeader>() + parts.iter().map(|part| part.len()).sum::<usize>();
        let header = OutHeader {
            len: len as u32,
            error: code as i32,
            unique: 0,
        };
        let mut slices = vec![IoSlice::new(header.as_bytes())];
        slices.extend(parts.iter().map(|part| IoSlice::new(part)));
        // The device takes a message whole or not at all.
        (&*self.file).write_vectored(&slices).map(drop)?;
        Ok(())
    }

    fn backing(&self) -> Option<Arc<dyn BackingFiles>> {
        Some(Arc::new(DeviceBacking(Arc::clone(&self.file))))
    }
}

struct DeviceBacking(Arc<File>);

impl BackingFiles for DeviceBacking {
    fn open(&self, file: BorrowedFd<'_>) -> Result<i32, Errno> {
        let map = BackingMap {
            fd: file.as_raw_fd(),
            flags: 0,
            padding: 0,
        };
        // SAFETY: the request reads one BackingMap behind the pointer.
        let id = unsafe { libc::ioctl(self.0.as_raw_fd(), DEV_IOC_BACKING_OPEN, &map) };
        if id < 0 { Err(Errno::last()) } else { Ok(id) }
    }

    fn close(&self, id: i32) -> Result<(), Errno> {
        let id = id as u32;
        // SAFETY: the request reads one u32 behind the pointer.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), DEV_IOC_BACKING_CLOSE, &id) };
        if result < 0 {
            Err(Errno::last())
        } else {
            Ok(())
        }
    }
}

struct DeviceChannel {
    file: Arc<File>,
    /// Requests are read at `REQUEST_AT`.
    request: AlignedBuffer,
    received: usize,
    data: AlignedBuffer,
}

const REQUEST_AT: usize = PAGE - WRITE_PAYLOAD_OFFSET;

impl Channel for DeviceChannel {
    fn receive(&mut self) -> Result<(), ReceiveError> {
        loop {
            let room = &mut self.request[REQUEST_AT..];
            // SAFETY: `room` is writable for its whole length.
            let n =
                unsafe { libc::read(self.file.as_raw_fd(), room.as_mut_ptr().cast(), room.len()) };
            if n >= 0 {
                self.received = n as usize;
                return if n == 0 {
                    Err(ReceiveError::Closed)
                } else {
                    Ok(())
                };
            }
            match Errno::last() {
                // ENOENT: the request was interrupted between being queued and being read.
                Errno::EINTR | Errno::EAGAIN | Errno::ENOENT => {}
                Errno::ENODEV | Errno::ECONNABORTED => return Err(ReceiveError::Closed),
                errno => return Err(ReceiveError::Io(errno.into())),
            }
        }
    }

    fn exchange(&mut self) -> Exchange<'_> {
        Exchange {
            request: RawRequest::Whole(&self.request[REQUEST_AT..REQUEST_AT + self.received]),
            data: &mut self.data,
        }
    }

    fn reply(
        &mut self,
        unique: u64,
        result: Result<(), Errno>,
        head: &[u8],
        data: usize,
    ) -> Result<(), Errno> {
        let (error, head, data) = match result {
            Ok(()) => (0, head, &self.data[..data]),
            Err(errno) => (errno.wire(), &[][..], &[][..]),
        };
        let len = size_of::<OutHeader>() + head.len() + data.len();
        let header = OutHeader {
            len: len as u32,
            error,
            unique,
        };
        let mut slices = [
            IoSlice::new(header.as_bytes()),
            IoSlice::new(head),
            IoSlice::new(data),
        ];
        // Empty slices cost the kernel a little each: leave them out.
        let used = if head.is_empty() {
            slices.swap(1, 2);
            if data.is_empty() { 1 } else { 2 }
        } else if data.is_empty() {
            2
        } else {
            3
        };
        // SAFETY: IoSlice is ABI-compatible with iovec and all slices outlive the call.
        let n = unsafe {
            libc::writev(
                self.file.as_raw_fd(),
                slices.as_ptr().cast(),
                used as libc::c_int,
            )
        };
        if n < 0 { Err(Errno::last()) } else { Ok(()) }
    }
}

/// A path as the system calls want it.
pub(crate) fn c_path(path: &Path) -> io::Result<CString> {
    use std::os::unix::ffi::OsStrExt;
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}
