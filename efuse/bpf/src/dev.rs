//! Connections by number, and the mounts they belong to.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::BpfError;

/// A connection: the device number of its mount as the kernel keeps it (`MKDEV`, 12 and 20 bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dev(u32);

impl Dev {
    /// From the two halves, as `/proc/self/mountinfo` shows them.
    #[must_use]
    pub fn new(major: u32, minor: u32) -> Self {
        Self(major << 20 | (minor & 0xf_ffff))
    }

    /// As the kernel keeps it.
    #[must_use]
    pub fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// As the kernel keeps it.
    #[must_use]
    pub fn raw(self) -> u32 {
        self.0
    }

    /// Its number in the control file system.
    #[must_use]
    pub fn minor(self) -> u32 {
        self.0 & 0xf_ffff
    }

    /// Of an eFUSE mount, without a request to its daemon.
    ///
    /// # Errors
    /// If nothing of type efuse is mounted just there.
    pub fn of_mount(path: &Path) -> Result<Self, BpfError> {
        // Not canonicalize(): that would ask the daemon, which may be gone.
        let absolute = std::path::absolute(path).map_err(|reason| BpfError::Io {
            action: "find",
            path: path.to_owned(),
            reason,
        })?;
        let wanted: PathBuf = absolute.components().collect();
        mounts()?
            .into_iter()
            .rev()
            .find(|(_, at)| *at == wanted)
            .map(|(dev, _)| dev)
            .ok_or_else(|| BpfError::NotAMount {
                path: path.to_owned(),
            })
    }
}

impl fmt::Display for Dev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0 >> 20, self.0 & 0xf_ffff)
    }
}

/// All eFUSE mounts that this process sees, in mounting order.
///
/// # Errors
/// If `/proc` is not there.
pub fn mounts() -> Result<Vec<(Dev, PathBuf)>, BpfError> {
    let path = Path::new("/proc/self/mountinfo");
    let text = fs::read_to_string(path).map_err(|reason| BpfError::Io {
        action: "read",
        path: path.to_owned(),
        reason,
    })?;
    Ok(text.lines().filter_map(mount_of).collect())
}

/// One line of proc(5)'s mountinfo, if it is ours.
fn mount_of(line: &str) -> Option<(Dev, PathBuf)> {
    let (head, tail) = line.split_once(" - ")?;
    let kind = tail.split(' ').next()?.split('.').next()?;
    if !matches!(kind, "efuse" | "efuseblk") {
        return None;
    }
    let mut fields = head.split(' ').skip(2);
    let (major, minor) = fields.next()?.split_once(':')?;
    let at = unescape(fields.nth(1)?);
    Some((Dev::new(major.parse().ok()?, minor.parse().ok()?), at))
}

/// Blanks and the like stand as three octal digits after a backslash.
fn unescape(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt as _;

    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let code = (bytes[i] == b'\\')
            .then(|| text.get(i + 1..i + 4))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let Some(code) = code {
            out.push(code);
            i += 4;
        } else {
            out.push(bytes[i]);
            i += 1;
        }
    }
    std::ffi::OsString::from_vec(out).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_mounts_are_taken() {
        let line =
            |kind: &str| format!("64 29 0:300 / /mnt/a\\040b rw,nosuid shared:1 - {kind} /x rw");
        let found = Some((Dev::new(0, 300), PathBuf::from("/mnt/a b")));
        assert_eq!(mount_of(&line("efuse")), found);
        assert_eq!(mount_of(&line("efuse.bindfs")), found);
        assert_eq!(mount_of(&line("fuse")), None);
        assert_eq!(mount_of("nonsense"), None);
    }

    #[test]
    fn numbers_are_the_kernels() {
        assert_eq!(Dev::new(0, 45).raw(), 45);
        assert_eq!(Dev::new(8, 1).raw(), 8 << 20 | 1);
        assert_eq!(Dev::new(8, 1).to_string(), "8:1");
    }
}
