//! From the C library's structures to the wire's.

use efuse_abi::wire::{Attr, Kstatfs, Statx, SxTime};

/// The kernel packs a device number into 32 bits: 12 of major between 8 and 12 of minor.
pub(crate) fn encode_dev(dev: u64) -> u32 {
    let (major, minor) = (libc::major(dev), libc::minor(dev));
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

pub(crate) fn decode_dev(dev: u32) -> u64 {
    libc::makedev(
        (dev & 0xf_ff00) >> 8,
        (dev & 0xff) | ((dev >> 12) & 0xf_ff00),
    )
}

pub(crate) fn attr(stat: &libc::stat) -> Attr {
    Attr {
        ino: stat.st_ino,
        size: stat.st_size as u64,
        blocks: stat.st_blocks as u64,
        atime: stat.st_atime as u64,
        mtime: stat.st_mtime as u64,
        ctime: stat.st_ctime as u64,
        atimensec: stat.st_atime_nsec as u32,
        mtimensec: stat.st_mtime_nsec as u32,
        ctimensec: stat.st_ctime_nsec as u32,
        mode: stat.st_mode,
        nlink: stat.st_nlink as u32,
        uid: stat.st_uid,
        gid: stat.st_gid,
        rdev: encode_dev(stat.st_rdev),
        blksize: stat.st_blksize as u32,
        flags: 0,
    }
}

fn time(time: &libc::statx_timestamp) -> SxTime {
    SxTime {
        tv_sec: time.tv_sec,
        tv_nsec: time.tv_nsec,
        reserved: 0,
    }
}

pub(crate) fn statx(stat: &libc::statx) -> Statx {
    Statx {
        mask: stat.stx_mask,
        blksize: stat.stx_blksize,
        attributes: stat.stx_attributes,
        nlink: stat.stx_nlink,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        mode: stat.stx_mode,
        spare0: [0],
        ino: stat.stx_ino,
        size: stat.stx_size,
        blocks: stat.stx_blocks,
        attributes_mask: stat.stx_attributes_mask,
        atime: time(&stat.stx_atime),
        btime: time(&stat.stx_btime),
        ctime: time(&stat.stx_ctime),
        mtime: time(&stat.stx_mtime),
        rdev_major: stat.stx_rdev_major,
        rdev_minor: stat.stx_rdev_minor,
        dev_major: stat.stx_dev_major,
        dev_minor: stat.stx_dev_minor,
        spare2: [0; 14],
    }
}

pub(crate) fn kstatfs(stat: &libc::statfs) -> Kstatfs {
    Kstatfs {
        blocks: stat.f_blocks,
        bfree: stat.f_bfree,
        bavail: stat.f_bavail,
        files: stat.f_files,
        ffree: stat.f_ffree,
        bsize: stat.f_bsize as u32,
        namelen: stat.f_namelen as u32,
        frsize: stat.f_frsize as u32,
        padding: 0,
        spare: [0; 6],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_survive() {
        for (major, minor) in [(0, 0), (1, 3), (8, 17), (259, 300), (0xfff, 0xf_ffff)] {
            let dev = libc::makedev(major, minor);
            assert_eq!(decode_dev(encode_dev(dev)), dev, "{major}:{minor}");
        }
        // As the kernel's new_encode_dev gives it.
        assert_eq!(encode_dev(libc::makedev(8, 17)), 0x811);
        assert_eq!(encode_dev(libc::makedev(259, 300)), 0x0011_032c);
    }
}
