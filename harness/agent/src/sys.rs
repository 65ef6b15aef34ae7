//! Small pieces of `/proc`, `/sys` and `/dev`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{AgentError, Result};

/// What is dropped before a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drop {
    /// Data pages only: dentries and inodes, hence a warmed mount, stay.
    Pages,
    /// Data pages, dentries and inodes.
    All,
}

/// Writes back everything that is dirty and drops caches of the whole kernel.
///
/// # Errors
/// If the kernel refuses, which means that the process is not root.
pub fn drop_caches(what: Drop) -> Result<()> {
    nix::unistd::sync();
    let value = match what {
        Drop::Pages => "1",
        Drop::All => "3",
    };
    write("/proc/sys/vm/drop_caches", value)
}

/// Writes a short value into a file of sysfs, configfs or procfs.
///
/// # Errors
/// If the kernel refuses the value.
pub fn write(path: impl AsRef<Path>, value: &str) -> Result<()> {
    let path = path.as_ref();
    fs::write(path, value).map_err(AgentError::io(path, format!("write {value:?}")))
}

/// Reads a short value, trimmed; `None` if it cannot be read.
#[must_use]
pub fn read(path: impl AsRef<Path>) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

/// Waits until a block device node is there (udev or devtmpfs make it).
///
/// # Errors
/// If it does not come within five seconds.
pub fn wait_for_node(path: &Path) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(5);
    while !path.exists() {
        if Instant::now() > end {
            return Err(AgentError::Io {
                path: path.to_owned(),
                action: "find the device node (is devtmpfs mounted on /dev?)".into(),
                source: io::ErrorKind::NotFound.into(),
            });
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// A buffer that direct I/O takes: aligned to a page.
#[derive(Debug)]
pub(crate) struct Aligned {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Aligned {
    const PAGE: usize = 4096;

    /// Zeros.
    pub fn new(len: usize) -> Self {
        let bytes = vec![0; len + Self::PAGE];
        let start = bytes.as_ptr().align_offset(Self::PAGE);
        Self { bytes, start, len }
    }

    /// Its content.
    pub fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}

/// One line of mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where.
    pub point: PathBuf,
    /// File system type.
    pub kind: String,
    /// What the kernel names as the source.
    pub source: String,
}

/// What is mounted in this mount namespace, in order of mounting.
///
/// # Errors
/// If `/proc` is not mounted.
pub fn mounts() -> Result<Vec<Mount>> {
    let path = "/proc/self/mountinfo";
    let text = fs::read_to_string(path).map_err(AgentError::io(path, "read"))?;
    Ok(text.lines().filter_map(parse_mount).collect())
}

fn parse_mount(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut right = right.split(' ');
    Some(Mount {
        point: PathBuf::from(unescape(left.split(' ').nth(4)?)),
        kind: right.next()?.to_owned(),
        source: unescape(right.next()?),
    })
}

/// Octal escapes of the kernel: `\040` is a blank.
fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let code = rest.get(at + 1..at + 4);
        out.push_str(&rest[..at]);
        match code.and_then(|c| u8::from_str_radix(c, 8).ok()) {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &rest[at + 4..];
            }
            None => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out + rest
}

/// Processors online.
#[must_use]
pub fn cpus() -> u32 {
    thread::available_parallelism()
        .ok()
        .and_then(|n| u32::try_from(n.get()).ok())
        .unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_is_read_with_escapes() {
        let line = r"36 35 98:0 /mnt1 /mnt\040two rw,noatime master:1 - fuse.stack fs\011x rw";
        let mount = parse_mount(line).unwrap();
        assert_eq!(mount.point, Path::new("/mnt two"));
        assert_eq!(
            (mount.kind.as_str(), mount.source.as_str()),
            ("fuse.stack", "fs\tx")
        );
        assert_eq!(parse_mount("damaged"), None);
        assert_eq!(unescape(r"a\9b\"), r"a\9b\");
    }

    #[test]
    fn the_root_is_mounted() {
        assert!(mounts().unwrap().iter().any(|m| m.point == Path::new("/")));
    }
}
