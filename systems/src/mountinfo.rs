//! `/proc/self/mountinfo`.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use crate::SystemError;

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountEntry {
    /// Minor number of the file system's device: for FUSE the connection's number.
    pub minor: u32,
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// Type, with its subtype: `fuse.bindfs`.
    pub fs_type: String,
}

/// Every mount, in the order of mounting.
pub(crate) fn all() -> Result<Vec<MountEntry>, SystemError> {
    let path = "/proc/self/mountinfo";
    let text = fs::read(path).map_err(SystemError::io(path, "read the mounts"))?;
    Ok(text.split(|b| *b == b'\n').filter_map(parse).collect())
}

/// The topmost mount at this path.
pub(crate) fn at(mountpoint: &Path) -> Result<Option<MountEntry>, SystemError> {
    Ok(all()?
        .into_iter()
        .rev()
        .find(|m| m.mountpoint == mountpoint))
}

/// Whether `fs_type` is `wanted` or a subtype of it.
pub(crate) fn is_type(fs_type: &str, wanted: &str) -> bool {
    fs_type
        .strip_prefix(wanted)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn parse(line: &[u8]) -> Option<MountEntry> {
    // 36 35 98:0 /root /mountpoint options [optional ...] - type source super-options
    let mut fields = line.split(|b| *b == b' ');
    let device = std::str::from_utf8(fields.nth(2)?).ok()?;
    let mountpoint = fields.nth(1)?;
    let fs_type = fields.skip_while(|f| *f != b"-").nth(1)?;
    Some(MountEntry {
        minor: device.split_once(':')?.1.parse().ok()?,
        mountpoint: PathBuf::from(OsString::from_vec(unescape(mountpoint))),
        fs_type: String::from_utf8_lossy(fs_type).into_owned(),
    })
}

/// Undoes the kernel's octal escapes of blanks and backslashes (`\040`).
fn unescape(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, tail)) = rest.split_first() {
        let octal = tail
            .get(..3)
            .filter(|d| *first == b'\\' && d.iter().all(|b| (b'0'..=b'7').contains(b)));
        match octal {
            Some(digits) => {
                out.push(
                    digits
                        .iter()
                        .fold(0u8, |n, d| n.wrapping_mul(8).wrapping_add(d - b'0')),
                );
                rest = &tail[3..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_optional_fields_and_escapes() {
        let line = br"43 27 0:39 / /tmp/a\040b\134c rw,nosuid shared:1 master:2 - fuse.bindfs - x rw,user_id=0";
        assert_eq!(
            parse(line),
            Some(MountEntry {
                minor: 39,
                mountpoint: PathBuf::from(r"/tmp/a b\c"),
                fs_type: "fuse.bindfs".into(),
            })
        );
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn subtypes_count_and_longer_names_do_not() {
        assert!(is_type("fuse", "fuse"));
        assert!(is_type("fuse.bindfs", "fuse"));
        assert!(!is_type("fuseblk", "fuse"));
        assert!(!is_type("fusectl", "fuse"));
        assert!(!is_type("efuse", "fuse"));
    }

    #[test]
    fn the_root_is_mounted() {
        assert!(at(Path::new("/")).unwrap().is_some());
    }
}
