//! What a FUSE kernel offers, asked of the kernel itself.
//!
//! A configuration file may be absent (Debian's cloud kernel has none inside itself)
//! or belong to another kernel. The flags in the INIT request cannot be wrong: they
//! are what a daemon would get.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Larger than the smallest buffer the kernel accepts (8 KiB).
const BUFFER: usize = 64 << 10;
/// The kernel queues INIT while it mounts; this only bounds a broken one.
const WAIT_MS: u16 = 3000;
const OPCODE_INIT: u32 = 26;
/// `sizeof(struct fuse_in_header)`.
const HEADER: usize = 40;
/// "There is a second word of flags" in the first.
const FUSE_INIT_EXT: u32 = 1 << 30;

/// The flags of the INIT request that a mount of `fs_type` on `device` receives.
///
/// # Errors
/// Why they could not be read, as a sentence.
pub(crate) fn offered(device: &Path, fs_type: &str) -> Result<u64, String> {
    let fail = |what: &str, e: &dyn std::fmt::Display| {
        format!("cannot {what} to ask the kernel what it offers: {e}")
    };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(device)
        .map_err(|e| fail(&format!("open {}", device.display()), &e))?;
    let dir = tempfile::Builder::new()
        .prefix("efuse-probe-")
        .tempdir()
        .map_err(|e| fail("make a temporary directory", &e))?;
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0",
        file.as_raw_fd()
    );
    mount(
        Some("efuse-probe"),
        dir.path(),
        Some(fs_type),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some(options.as_str()),
    )
    .map_err(|e| fail(&format!("mount a file system of type {fs_type}"), &e))?;
    let request = read_request(&mut file);
    // Detached, because nobody answers INIT: an ordinary unmount could wait for it.
    let unmounted = umount2(dir.path(), MntFlags::MNT_DETACH);
    // Closing the device ends the connection.
    drop(file);
    unmounted.map_err(|e| fail(&format!("unmount {}", dir.path().display()), &e))?;
    let request = request.map_err(|e| fail("read the INIT request", &e))?;
    parse(&request).ok_or_else(|| fail("understand the INIT request", &"unexpected layout"))
}

fn read_request(file: &mut std::fs::File) -> std::io::Result<Vec<u8>> {
    let mut waiting = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
    if poll(&mut waiting, PollTimeout::from(WAIT_MS))? == 0 {
        return Err(std::io::ErrorKind::TimedOut.into());
    }
    let mut buffer = vec![0u8; BUFFER];
    let n = file.read(&mut buffer)?;
    buffer.truncate(n);
    Ok(buffer)
}

/// Flags of an INIT request: `len opcode ... | major minor max_readahead flags flags2`.
fn parse(request: &[u8]) -> Option<u64> {
    let word = |at: usize| {
        let bytes = request.get(at..at + 4)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    };
    if word(4)? != OPCODE_INIT {
        return None;
    }
    let low = word(HEADER + 12)?;
    let high = if low & FUSE_INIT_EXT != 0 {
        word(HEADER + 16)?
    } else {
        0
    };
    Some(u64::from(high) << 32 | u64::from(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(opcode: u32, flags: u32, high: u32) -> Vec<u8> {
        let mut bytes = vec![0u8; HEADER + 64];
        for (at, value) in [(4, opcode), (HEADER + 12, flags), (HEADER + 16, high)] {
            bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        }
        bytes
    }

    #[test]
    fn the_second_word_counts_only_when_announced() {
        assert_eq!(parse(&request(26, 1, 1 << 5)), Some(1));
        let flags = parse(&request(26, FUSE_INIT_EXT, 1 << 5)).unwrap();
        assert_ne!(flags & 1 << 37, 0);
        assert_eq!(parse(&request(1, 1, 0)), None);
        assert_eq!(parse(&request(26, 1, 0)[..HEADER]), None);
    }
}
