use std::fmt;

/// A system error number, always in 1..=4095: the range that the kernel accepts in a reply.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(u16);

macro_rules! errnos {
    ($($name:ident)*) => {
        impl Errno {
            $(
                #[doc = concat!("`", stringify!($name), "`.")]
                pub const $name: Errno = Errno(libc::$name as u16);
            )*

            /// The symbolic name, where this crate has one.
            pub fn name(self) -> Option<&'static str> {
                $(if self == Errno::$name {
                    return Some(stringify!($name));
                })*
                None
            }
        }
    };
}

errnos! {
    EPERM ENOENT EINTR EIO ENXIO E2BIG EBADF EAGAIN ENOMEM EACCES EFAULT EBUSY EEXIST EXDEV ENODEV
    ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE EROFS EMLINK EPIPE ERANGE
    EDEADLK ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY ELOOP ENODATA EOVERFLOW EOPNOTSUPP ECONNABORTED
    ENOTCONN ETIMEDOUT ESTALE EDQUOT ECANCELED
}

impl Errno {
    /// Makes one from a raw number; anything outside 1..=4095 is an internal error and becomes EIO.
    pub const fn from_raw(raw: i32) -> Errno {
        if raw >= 1 && raw <= 4095 {
            Errno(raw as u16)
        } else {
            Errno::EIO
        }
    }

    /// The error of the last failed system call on this thread.
    pub fn last() -> Errno {
        Errno::from(std::io::Error::last_os_error())
    }

    /// The positive number.
    pub const fn raw(self) -> i32 {
        self.0 as i32
    }

    /// What stands in `OutHeader::error`: the negative number.
    pub const fn wire(self) -> i32 {
        -(self.0 as i32)
    }
}

impl From<std::io::Error> for Errno {
    fn from(error: std::io::Error) -> Errno {
        Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

impl From<Errno> for std::io::Error {
    fn from(errno: Errno) -> std::io::Error {
        std::io::Error::from_raw_os_error(errno.raw())
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", std::io::Error::from_raw_os_error(self.raw()))
    }
}

impl std::error::Error for Errno {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_outside_the_kernels_range_become_eio() {
        for raw in [0, -1, 4096, i32::MIN, i32::MAX] {
            assert_eq!(Errno::from_raw(raw), Errno::EIO);
        }
        assert_eq!(Errno::from_raw(2), Errno::ENOENT);
        assert_eq!(Errno::ENOENT.wire(), -2);
        assert_eq!(format!("{:?}", Errno::ENOTEMPTY), "ENOTEMPTY");
        assert_eq!(format!("{:?}", Errno::from_raw(4000)), "errno 4000");
    }
}
