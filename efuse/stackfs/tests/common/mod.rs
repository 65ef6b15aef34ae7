//! A StackFS mounted in a temporary folder, and the reason if there can be none.

// Each test program uses its own part of this.
#![allow(dead_code)]

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

pub const STACKFS: &str = env!("CARGO_BIN_EXE_stackfs");

/// Longest wait for something that takes milliseconds; a limit against hanging, not a measurement.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Whether mounting is possible here. If not, says why; where `EFUSE_CI` is set that is a failure.
pub fn can_mount() -> bool {
    // SAFETY: no arguments, cannot fail.
    let reason = if unsafe { libc::geteuid() } != 0 {
        "mounting needs root"
    } else if !Path::new("/dev/fuse").exists() {
        "there is no /dev/fuse"
    } else {
        return true;
    };
    assert!(std::env::var_os("EFUSE_CI").is_none(), "{reason}");
    println!("skipped: {reason}");
    false
}

pub struct Mounted {
    pub lower: PathBuf,
    pub mountpoint: PathBuf,
    pub daemon: Child,
    folder: tempfile::TempDir,
}

impl Mounted {
    pub fn start(options: &[&str]) -> Mounted {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("chmod");
        let lower = folder.path().join("lower");
        let mountpoint = folder.path().join("mount");
        for dir in [&lower, &mountpoint] {
            std::fs::create_dir(dir).expect("mkdir");
        }
        let mut daemon = Command::new(STACKFS)
            .args([&lower, &mountpoint])
            .arg("--allow-other")
            .args(options)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start stackfs");
        let mut line = String::new();
        BufReader::new(daemon.stdout.take().expect("stdout"))
            .read_line(&mut line)
            .expect("read");
        if line != "ready\n" {
            let mut error = String::new();
            let stderr = daemon.stderr.as_mut().expect("stderr");
            stderr.read_to_string(&mut error).expect("read");
            panic!("stackfs did not start: {error}");
        }
        Mounted {
            lower,
            mountpoint,
            daemon,
            folder,
        }
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: the child was not waited for, so the number is still its own.
        let result = unsafe { libc::kill(self.daemon.id() as i32, signal) };
        assert_eq!(result, 0, "kill");
    }

    pub fn stderr(&mut self) -> BufReader<ChildStderr> {
        BufReader::new(self.daemon.stderr.take().expect("stderr, once"))
    }

    pub fn is_mounted(&self) -> bool {
        let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
        let mountpoint = self.mountpoint.to_str().expect("UTF-8");
        mounts
            .lines()
            .any(|line| line.split(' ').nth(1) == Some(mountpoint))
    }

    /// Waits for the daemon to end by itself.
    pub fn wait(&mut self) -> std::process::ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.daemon.try_wait().expect("wait") {
                return status;
            }
            assert!(Instant::now() < deadline, "the daemon does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn unmount(&self, flags: &[&str]) {
        let status = Command::new("umount")
            .args(flags)
            .arg(&self.mountpoint)
            .status();
        assert!(status.expect("umount").success(), "umount {flags:?}");
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.is_mounted() {
            let _ = Command::new("umount")
                .arg("-l")
                .arg(&self.mountpoint)
                .status();
        }
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}
