//! What a killed `eval` left on the host: looked up for `clean --dry-run` and for a word
//! to the user. Taking it away is the agent's work ([`efuse_agent::sweep`]).

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The folder in which host sessions mount.
#[must_use]
pub fn state_folder(root: &Path) -> PathBuf {
    root.join("target/eval/state")
}

/// A dead agent's folder.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Leftover {
    /// The folder.
    pub folder: PathBuf,
    /// What is mounted in it.
    pub mounts: Vec<PathBuf>,
}

/// Folders `agent-PID.N` whose process is gone, with what is mounted in them; also those
/// in `/dev/shm`, where the files of loop devices are.
///
/// # Errors
/// If a folder of them or the mount table cannot be read.
pub fn find(state: &Path) -> Result<Vec<Leftover>> {
    let table = fs::read("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    let table = String::from_utf8_lossy(&table);
    let mut out = Vec::new();
    for (parent, prefix) in [(state, "agent-"), (Path::new("/dev/shm"), "efuse-agent-")] {
        for folder in dead(parent, prefix)? {
            let mounts = mount_points(&table)
                .filter(|p| p.starts_with(&folder))
                .collect();
            out.push(Leftover { folder, mounts });
        }
    }
    Ok(out)
}

fn dead(parent: &Path, prefix: &str) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(parent) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", parent.display())),
    };
    let mut out = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let pid = name.to_str().and_then(|n| {
            n.strip_prefix(prefix)?
                .split('.')
                .next()?
                .parse::<u32>()
                .ok()
        });
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            out.push(fs::canonicalize(entry.path())?);
        }
    }
    out.sort();
    Ok(out)
}

/// The fifth field of each line of mountinfo, with its octal escapes undone.
fn mount_points(table: &str) -> impl Iterator<Item = PathBuf> {
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(4).map(unescape))
}

fn unescape(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt as _;
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        if b == b'\\' {
            let digits: Vec<u8> = bytes.by_ref().take(3).collect();
            let value = std::str::from_utf8(&digits)
                .ok()
                .and_then(|d| u8::from_str_radix(d, 8).ok());
            out.extend(value);
        } else {
            out.push(b);
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_is_read_with_its_escapes() {
        let table = "36 35 98:0 /mnt1 /a\\040b\\134c rw,noatime master:1 - ext3 /dev/root rw\n\
                     40 36 0:5 / /a\\040b\\134c/deep rw - tmpfs none rw\n";
        let points: Vec<_> = mount_points(table).collect();
        assert_eq!(
            points,
            [PathBuf::from("/a b\\c"), PathBuf::from("/a b\\c/deep")]
        );
    }

    #[test]
    fn only_the_folders_of_dead_agents_are_found() {
        let state = tempfile::tempdir().unwrap();
        let alive = format!("agent-{}.0", std::process::id());
        // Larger than any process number.
        for name in [alive.as_str(), "agent-99999999.1", "agent-x", "other"] {
            fs::create_dir(state.path().join(name)).unwrap();
        }
        let found = dead(state.path(), "agent-").unwrap();
        assert_eq!(found.len(), 1);
        assert!(found[0].ends_with("agent-99999999.1"));
        assert!(
            dead(Path::new("/nonexistent"), "agent-")
                .unwrap()
                .is_empty()
        );
    }
}
