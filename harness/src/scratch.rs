//! Scratch folders under `target/eval/sessions/`, and what is left of those whose process was killed.
//!
//! Everything that a session mounts, attaches or writes outside the run's folder lives in
//! its scratch folder, and the folder itself is the record of it: its `owner` file is
//! locked for as long as the process lives. A folder whose lock is free is stale: what is
//! mounted below it is unmounted, loop devices whose file lies in it are detached, and it
//! is removed. Nothing that is not below such a folder is ever touched.

use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, umount2};

/// A session's own folder; removed with everything mounted in it on drop.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    _owner: File,
}

fn sessions(root: &Path) -> PathBuf {
    root.join("target/eval/sessions")
}

impl Scratch {
    /// Makes a new one.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new(root: &Path, label: &str) -> Result<Self> {
        let path = sessions(root).join(format!("{label}-{}", std::process::id()));
        let context = || format!("cannot make the scratch folder {}", path.display());
        if path.exists() {
            // A process with our number that is no more.
            remove(&path)?;
        }
        fs::create_dir_all(&path).with_context(context)?;
        let owner = File::create(path.join("owner")).with_context(context)?;
        owner.lock().with_context(context)?;
        Ok(Self {
            path,
            _owner: owner,
        })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(e) = remove(&self.path) {
            eprintln!("eval: {e:#}; `eval clean` tries again");
        }
    }
}

/// Stale scratch folders.
///
/// # Errors
/// If the folder of them exists and cannot be read.
pub fn stale(root: &Path) -> Result<Vec<PathBuf>> {
    let folder = sessions(root);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", folder.display())),
    };
    let mut out = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let held = File::open(path.join("owner")).is_ok_and(|f| f.try_lock().is_err());
        if path.is_dir() && !held {
            out.push(path);
        }
    }
    out.sort();
    Ok(out)
}

/// What a stale folder still holds: mount points, deepest first, and loop devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Mount points below it, in the order in which they must be unmounted.
    pub mounts: Vec<PathBuf>,
    /// Loop devices on files below it (`/dev/loop3`).
    pub loops: Vec<PathBuf>,
}

/// Looks what a folder holds.
///
/// # Errors
/// If the mount table cannot be read.
pub fn leftovers(folder: &Path) -> Result<Leftovers> {
    let folder = fs::canonicalize(folder)?;
    let table = fs::read("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    let table = String::from_utf8_lossy(&table);
    let mut mounts: Vec<PathBuf> = mount_points(&table)
        .filter(|p| p.starts_with(&folder) && *p != folder)
        .collect();
    // Later mounts lie on earlier ones.
    mounts.reverse();
    let mut loops = Vec::new();
    if let Ok(entries) = fs::read_dir("/sys/block") {
        for entry in entries.flatten() {
            let backing = entry.path().join("loop/backing_file");
            let Ok(text) = fs::read_to_string(backing) else {
                continue;
            };
            let file = text.trim_end().trim_end_matches(" (deleted)");
            if Path::new(file).starts_with(&folder) {
                loops.push(Path::new("/dev").join(entry.file_name()));
            }
        }
    }
    Ok(Leftovers { mounts, loops })
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

/// Unmounts, detaches and removes a scratch folder.
///
/// # Errors
/// If something stays mounted; then nothing is removed.
pub fn remove(folder: &Path) -> Result<()> {
    for mount in leftovers(folder)?.mounts {
        umount2(&mount, MntFlags::UMOUNT_NOFOLLOW)
            .or_else(|_| umount2(&mount, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW))
            .with_context(|| format!("cannot unmount {}", mount.display()))?;
    }
    for device in leftovers(folder)?.loops {
        detach(&device).with_context(|| format!("cannot detach {}", device.display()))?;
    }
    let left = leftovers(folder)?;
    anyhow::ensure!(
        left.mounts.is_empty(),
        "{} is still mounted, so {} is left as it is",
        left.mounts[0].display(),
        folder.display()
    );
    fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))
}

/// `LOOP_CLR_FD` of `<linux/loop.h>`.
const LOOP_CLR_FD: libc::c_ulong = 0x4C01;

fn detach(device: &Path) -> Result<()> {
    let file = File::open(device)?;
    // SAFETY: LOOP_CLR_FD takes no argument; the descriptor is open for the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), LOOP_CLR_FD as _, 0) };
    nix::errno::Errno::result(result)?;
    Ok(())
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
    fn a_folder_is_stale_when_its_owner_is_gone() {
        let root = tempfile::tempdir().unwrap();
        let scratch = Scratch::new(root.path(), "test").unwrap();
        let path = scratch.path().to_owned();
        assert_eq!(stale(root.path()).unwrap(), Vec::<PathBuf>::new());
        // As after kill -9: the folder stays, the lock does not.
        fs::create_dir_all(sessions(root.path()).join("test-1/work")).unwrap();
        File::create(sessions(root.path()).join("test-1/owner")).unwrap();
        let found = stale(root.path()).unwrap();
        assert_eq!(found, [sessions(root.path()).join("test-1")]);
        remove(&found[0]).unwrap();
        assert!(!found[0].exists());
        drop(scratch);
        assert!(!path.exists());
    }

    /// Needs root and mount rights.
    #[test]
    fn what_is_mounted_in_a_stale_folder_is_unmounted() {
        let root = tempfile::tempdir().unwrap();
        let folder = sessions(root.path()).join("test-2");
        let inner = folder.join("mnt");
        fs::create_dir_all(&inner).unwrap();
        let mount = |target: &Path| {
            nix::mount::mount(
                Some("none"),
                target,
                Some("tmpfs"),
                nix::mount::MsFlags::empty(),
                None::<&str>,
            )
        };
        if let Err(e) = mount(&inner) {
            eprintln!("SKIPPED: mounting a tmpfs needs root: {e}");
            return;
        }
        let nested = inner.join("nested");
        fs::create_dir(&nested).unwrap();
        mount(&nested).unwrap();
        fs::write(nested.join("file"), "x").unwrap();
        let canonical = fs::canonicalize(&folder).unwrap();
        assert_eq!(
            leftovers(&folder).unwrap().mounts,
            [canonical.join("mnt/nested"), canonical.join("mnt")]
        );
        remove(&folder).unwrap();
        assert!(!folder.exists());
    }
}
