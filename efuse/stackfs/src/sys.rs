//! Thin wrappers of system calls: raw descriptors in, [`Errno`] out, no allocation.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use efuse_abi::Errno;

/// -1 means error for every call used here.
fn check(result: impl TryInto<usize>) -> Result<usize, Errno> {
    result.try_into().map_err(|_| Errno::last())
}

/// One call. Every use passes only pointers made from references, C strings and slices that live
/// through the call, and with a slice its own length.
macro_rules! call {
    ($($call:tt)*) => {{
        // SAFETY: as above.
        let result = unsafe { $($call)* };
        check(result)
    }};
}

fn owned(fd: usize) -> OwnedFd {
    // SAFETY: the number was just returned by a call that opens a new descriptor.
    unsafe { OwnedFd::from_raw_fd(fd as RawFd) }
}

pub(crate) fn openat(dir: RawFd, path: &CStr, flags: i32, mode: u32) -> Result<OwnedFd, Errno> {
    let flags = flags | libc::O_CLOEXEC;
    call!(libc::openat(dir, path.as_ptr(), flags, mode)).map(owned)
}

pub(crate) fn fstat(fd: RawFd) -> Result<libc::stat, Errno> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    call!(libc::fstat(fd, stat.as_mut_ptr()))?;
    // SAFETY: the call succeeded, so it filled the structure.
    Ok(unsafe { stat.assume_init() })
}

/// Attributes of a name, not following a symbolic link.
pub(crate) fn fstatat(dir: RawFd, name: &CStr) -> Result<libc::stat, Errno> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT;
    call!(libc::fstatat(dir, name.as_ptr(), stat.as_mut_ptr(), flags))?;
    // SAFETY: the call succeeded, so it filled the structure.
    Ok(unsafe { stat.assume_init() })
}

/// Attributes of an open file with birth time; `flags` may hold `AT_STATX_*SYNC*`.
pub(crate) fn statx(fd: RawFd, flags: i32, mask: u32) -> Result<libc::statx, Errno> {
    let mut stat = MaybeUninit::<libc::statx>::zeroed();
    let flags = flags | libc::AT_EMPTY_PATH;
    call!(libc::statx(
        fd,
        c"".as_ptr(),
        flags,
        mask,
        stat.as_mut_ptr()
    ))?;
    // SAFETY: zeroed is a valid value, and the call filled what it has.
    Ok(unsafe { stat.assume_init() })
}

pub(crate) fn fstatfs(fd: RawFd) -> Result<libc::statfs, Errno> {
    let mut stat = MaybeUninit::<libc::statfs>::uninit();
    call!(libc::fstatfs(fd, stat.as_mut_ptr()))?;
    // SAFETY: the call succeeded, so it filled the structure.
    Ok(unsafe { stat.assume_init() })
}

pub(crate) fn readlink(fd: RawFd, out: &mut [u8]) -> Result<usize, Errno> {
    call!(libc::readlinkat(
        fd,
        c"".as_ptr(),
        out.as_mut_ptr().cast(),
        out.len()
    ))
}

pub(crate) fn mkdirat(dir: RawFd, name: &CStr, mode: u32) -> Result<(), Errno> {
    call!(libc::mkdirat(dir, name.as_ptr(), mode)).map(drop)
}

pub(crate) fn mknodat(dir: RawFd, name: &CStr, mode: u32, dev: u64) -> Result<(), Errno> {
    call!(libc::mknodat(dir, name.as_ptr(), mode, dev)).map(drop)
}

pub(crate) fn symlinkat(target: &CStr, dir: RawFd, name: &CStr) -> Result<(), Errno> {
    call!(libc::symlinkat(target.as_ptr(), dir, name.as_ptr())).map(drop)
}

pub(crate) fn unlinkat(dir: RawFd, name: &CStr, flags: i32) -> Result<(), Errno> {
    call!(libc::unlinkat(dir, name.as_ptr(), flags)).map(drop)
}

pub(crate) fn linkat(
    from: RawFd,
    name: &CStr,
    dir: RawFd,
    newname: &CStr,
    flags: i32,
) -> Result<(), Errno> {
    call!(libc::linkat(
        from,
        name.as_ptr(),
        dir,
        newname.as_ptr(),
        flags
    ))
    .map(drop)
}

pub(crate) fn renameat2(
    (from, name): (RawFd, &CStr),
    (to, newname): (RawFd, &CStr),
    flags: u32,
) -> Result<(), Errno> {
    call!(libc::syscall(
        libc::SYS_renameat2,
        from,
        name.as_ptr(),
        to,
        newname.as_ptr(),
        flags
    ))
    .map(drop)
}

pub(crate) fn fchmodat(dir: RawFd, path: &CStr, mode: u32) -> Result<(), Errno> {
    call!(libc::fchmodat(dir, path.as_ptr(), mode, 0)).map(drop)
}

/// `u32::MAX` leaves an id as it is.
pub(crate) fn chown_fd(fd: RawFd, uid: u32, gid: u32) -> Result<(), Errno> {
    let flags = libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW;
    call!(libc::fchownat(fd, c"".as_ptr(), uid, gid, flags)).map(drop)
}

pub(crate) fn ftruncate(fd: RawFd, size: i64) -> Result<(), Errno> {
    call!(libc::ftruncate(fd, size)).map(drop)
}

pub(crate) fn truncate(path: &CStr, size: i64) -> Result<(), Errno> {
    call!(libc::truncate(path.as_ptr(), size)).map(drop)
}

pub(crate) fn utimensat(dir: RawFd, path: &CStr, times: &[libc::timespec; 2]) -> Result<(), Errno> {
    call!(libc::utimensat(dir, path.as_ptr(), times.as_ptr(), 0)).map(drop)
}

pub(crate) fn pread(fd: RawFd, out: &mut [u8], offset: u64) -> Result<usize, Errno> {
    call!(libc::pread(
        fd,
        out.as_mut_ptr().cast(),
        out.len(),
        offset as i64
    ))
}

pub(crate) fn pwrite(fd: RawFd, data: &[u8], offset: u64) -> Result<usize, Errno> {
    call!(libc::pwrite(
        fd,
        data.as_ptr().cast(),
        data.len(),
        offset as i64
    ))
}

/// Writes at `offset` with `RWF_*` flags.
pub(crate) fn pwrite_with(fd: RawFd, data: &[u8], offset: u64, flags: i32) -> Result<usize, Errno> {
    let slice = std::io::IoSlice::new(data);
    let offset = offset as i64;
    call!(libc::pwritev2(
        fd,
        (&raw const slice).cast(),
        1,
        offset,
        flags
    ))
}

/// Writes at the end of the file, wherever that is by then.
pub(crate) fn append(fd: RawFd, data: &[u8], flags: i32) -> Result<usize, Errno> {
    pwrite_with(fd, data, 0, flags | libc::RWF_APPEND)
}

pub(crate) fn fsync(fd: RawFd, data_only: bool) -> Result<(), Errno> {
    if data_only {
        call!(libc::fdatasync(fd)).map(drop)
    } else {
        call!(libc::fsync(fd)).map(drop)
    }
}

pub(crate) fn syncfs(fd: RawFd) -> Result<(), Errno> {
    call!(libc::syncfs(fd)).map(drop)
}

pub(crate) fn fallocate(fd: RawFd, mode: u32, offset: u64, len: u64) -> Result<(), Errno> {
    call!(libc::fallocate(fd, mode as i32, offset as i64, len as i64)).map(drop)
}

pub(crate) fn lseek(fd: RawFd, offset: i64, whence: i32) -> Result<u64, Errno> {
    call!(libc::lseek(fd, offset, whence)).map(|offset| offset as u64)
}

pub(crate) fn copy_file_range(
    (from, from_at): (RawFd, u64),
    (to, to_at): (RawFd, u64),
    len: u64,
) -> Result<usize, Errno> {
    let (mut from_at, mut to_at) = (from_at as i64, to_at as i64);
    call!(libc::copy_file_range(
        from,
        &raw mut from_at,
        to,
        &raw mut to_at,
        len as usize,
        0
    ))
}

pub(crate) fn getdents(fd: RawFd, out: &mut [u8]) -> Result<usize, Errno> {
    call!(libc::syscall(
        libc::SYS_getdents64,
        fd,
        out.as_mut_ptr(),
        out.len()
    ))
}

/// Closes a duplicate, which makes the lower file system report what close reports.
pub(crate) fn flush(fd: RawFd) -> Result<(), Errno> {
    let copy = call!(libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0))?;
    call!(libc::close(copy as RawFd)).map(drop)
}

pub(crate) fn getxattr(path: &CStr, name: &CStr, out: &mut [u8]) -> Result<usize, Errno> {
    call!(libc::getxattr(
        path.as_ptr(),
        name.as_ptr(),
        out.as_mut_ptr().cast(),
        out.len()
    ))
}

pub(crate) fn listxattr(path: &CStr, out: &mut [u8]) -> Result<usize, Errno> {
    call!(libc::listxattr(
        path.as_ptr(),
        out.as_mut_ptr().cast(),
        out.len()
    ))
}

pub(crate) fn setxattr(path: &CStr, name: &CStr, value: &[u8], flags: i32) -> Result<(), Errno> {
    call!(libc::setxattr(
        path.as_ptr(),
        name.as_ptr(),
        value.as_ptr().cast(),
        value.len(),
        flags
    ))
    .map(drop)
}

pub(crate) fn removexattr(path: &CStr, name: &CStr) -> Result<(), Errno> {
    call!(libc::removexattr(path.as_ptr(), name.as_ptr())).map(drop)
}

/// An ioctl whose argument is a buffer that the command reads, fills or both. The caller passes a
/// buffer at least as long as the command's encoded size.
pub(crate) fn ioctl(fd: RawFd, command: u32, argument: &mut [u8]) -> Result<i32, Errno> {
    let encoded = ((command >> 16) & 0x3fff) as usize;
    if argument.len() < encoded {
        return Err(Errno::EINVAL);
    }
    call!(libc::ioctl(
        fd,
        libc::c_ulong::from(command),
        argument.as_mut_ptr()
    ))
    .map(|result| result as i32)
}

/// Sets the calling thread's umask, answers the old one.
pub(crate) fn umask(mask: u32) -> u32 {
    // SAFETY: umask has no pointers and cannot fail.
    unsafe { libc::umask(mask) }
}

/// Takes the calling thread's supplementary groups away: what the daemon's user happens to be a
/// member of must not count for callers. A process that may not do this has no right to act for
/// others anyway.
pub(crate) fn drop_groups() {
    // SAFETY: no groups, so no pointer is followed. The raw call concerns this thread only.
    unsafe { libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>()) };
}

/// Takes the calling thread out of the process's common umask (and working directory).
pub(crate) fn unshare_fs() -> Result<(), Errno> {
    call!(libc::unshare(libc::CLONE_FS)).map(drop)
}

/// Raises the limit of open descriptors to `wanted`, or as far as allowed. Answers the new limit.
pub(crate) fn raise_descriptors(wanted: u64) -> Result<u64, Errno> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    call!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit))?;
    let maximum = limit.rlim_max.max(wanted);
    for (current, maximum) in [(maximum, maximum), (limit.rlim_max, limit.rlim_max)] {
        let new = libc::rlimit {
            rlim_cur: current,
            rlim_max: maximum,
        };
        if call!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const new)).is_ok() {
            return Ok(current);
        }
    }
    Ok(limit.rlim_cur)
}

/// A decimal number as a C string, and as a path below `/proc/self/fd`, without allocation.
pub(crate) struct FdPath {
    bytes: [u8; 32],
    number_at: usize,
}

const PROC: &[u8] = b"/proc/self/fd/";

impl FdPath {
    pub(crate) fn new(fd: RawFd) -> FdPath {
        let mut digits = [0u8; 10];
        let mut first = digits.len();
        let mut rest = fd.max(0) as u32;
        loop {
            first -= 1;
            digits[first] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        let digits = &digits[first..];
        let mut bytes = [0; 32];
        bytes[..PROC.len()].copy_from_slice(PROC);
        bytes[PROC.len()..PROC.len() + digits.len()].copy_from_slice(digits);
        FdPath {
            bytes,
            number_at: PROC.len(),
        }
    }

    /// `/proc/self/fd/N`.
    pub(crate) fn path(&self) -> &CStr {
        // The array ends in zeros, so there always is a terminator.
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }

    /// `N`, for calls relative to an open `/proc/self/fd`.
    pub(crate) fn name(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes[self.number_at..]).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptor_paths() {
        for fd in [0, 7, 10, 4096, i32::MAX] {
            let path = FdPath::new(fd);
            assert_eq!(
                path.path().to_str(),
                Ok(format!("/proc/self/fd/{fd}").as_str())
            );
            assert_eq!(path.name().to_str(), Ok(fd.to_string().as_str()));
        }
    }
}
