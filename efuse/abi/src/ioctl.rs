//! Requests of the character device, as `_IOR`/`_IOW` encode them.

use crate::wire::BackingMap;

const MAGIC: u32 = 229;
const WRITE: u32 = 1;
const READ: u32 = 2;

const fn encode(direction: u32, number: u32, size: usize) -> libc::c_ulong {
    ((direction << 30) | ((size as u32) << 16) | (MAGIC << 8) | number) as libc::c_ulong
}

/// `FUSE_DEV_IOC_CLONE`: makes a freshly opened device descriptor one more channel of the
/// connection whose descriptor the `u32` argument holds.
pub const DEV_IOC_CLONE: libc::c_ulong = encode(READ, 0, size_of::<u32>());
/// `FUSE_DEV_IOC_BACKING_OPEN`: registers a lower file, returns its backing id.
pub const DEV_IOC_BACKING_OPEN: libc::c_ulong = encode(WRITE, 1, size_of::<BackingMap>());
/// `FUSE_DEV_IOC_BACKING_CLOSE`: gives a backing id back.
pub const DEV_IOC_BACKING_CLOSE: libc::c_ulong = encode(WRITE, 2, size_of::<u32>());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_equal_the_kernels() {
        assert_eq!(DEV_IOC_CLONE, 0x8004_e500);
        assert_eq!(DEV_IOC_BACKING_OPEN, 0x4010_e501);
        assert_eq!(DEV_IOC_BACKING_CLOSE, 0x4004_e502);
    }
}
