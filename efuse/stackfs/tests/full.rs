//! A small file system below: one that is full, and one with files that only grow.

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Mounted, can_mount};

/// A tmpfs of so many bytes below the mount. Unmounted on drop.
struct Small {
    mounted: Mounted,
    below: PathBuf,
}

impl Small {
    fn new(bytes: u64) -> Small {
        let mounted = Mounted::start(&[]);
        let below = mounted.lower.join("small");
        fs::create_dir(&below).expect("mkdir");
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "small"])
            .arg(&below)
            .status();
        assert!(status.expect("mount").success(), "mount a tmpfs");
        Small { mounted, below }
    }

    fn above(&self, name: &str) -> PathBuf {
        self.mounted.mountpoint.join("small").join(name)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Lazily: the daemon holds nodes there until its own mount goes.
        let _ = Command::new("umount").arg("-l").arg(&self.below).status();
    }
}

/// Pages of a mapping are written back many at a time, and a part of them has room.
#[test]
fn pages_that_do_not_fit_below_are_an_error_of_msync() {
    if !can_mount() {
        return;
    }
    const BYTES: usize = 32 * 4096;
    let small = Small::new(10 * 4096);
    let path = small.above("sparse");
    let file = File::create_new(&path).expect("create");
    file.set_len(BYTES as u64).expect("a hole needs no room");
    let file = OpenOptions::new().read(true).write(true).open(&path);
    let file = file.expect("open");
    // SAFETY: a new mapping at an address that the kernel chooses, as long as the file.
    let map = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            BYTES,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    };
    assert_ne!(map, libc::MAP_FAILED, "mmap");
    // SAFETY: inside the mapping; nobody cuts the file.
    unsafe { map.cast::<u8>().write_bytes(7, BYTES) };
    // SAFETY: the mapping's address and length.
    let result = unsafe { libc::msync(map, BYTES, libc::MS_SYNC) };
    let error = std::io::Error::last_os_error();
    // SAFETY: as above; nothing points into it any more.
    assert_eq!(unsafe { libc::munmap(map, BYTES) }, 0);
    assert_eq!(result, -1, "msync says that all of it is written");
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{error}");
}

fn only_grows(path: &Path, yes: bool) {
    let status = Command::new("chattr")
        .arg(if yes { "+a" } else { "-a" })
        .arg(path)
        .status();
    assert!(status.expect("chattr").success(), "chattr");
}

#[test]
fn files_that_only_grow_can_be_appended_to() {
    if !can_mount() {
        return;
    }
    let small = Small::new(1 << 20);
    let (path, below) = (small.above("log"), small.below.join("log"));
    fs::write(&path, b"one\n").expect("write");
    only_grows(&below, true);
    let appended = OpenOptions::new()
        .append(true)
        .open(&path)
        .and_then(|mut file| file.write_all(b"two\n"));
    let refused = OpenOptions::new().write(true).open(&path);
    only_grows(&below, false);
    appended.expect("append");
    let error = refused.expect_err("it only grows");
    assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    assert_eq!(fs::read(&below).expect("read"), b"one\ntwo\n");
}
