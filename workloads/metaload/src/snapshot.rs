//! All that stat(2) and the extended attribute tell of a tree, to be compared with what
//! the file system below says.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::lgetxattr;
use rustix::io::Errno;

use crate::LoadError;
use crate::tree::XATTR;

/// Longest value that a snapshot keeps; longer ones show in their length only.
const VALUE: usize = 256;

/// Path relative to the root, and a line that says everything about it but its inode
/// number and change time, which a stacked file system may give differently.
pub type Snapshot = BTreeMap<Vec<u8>, String>;

/// Walks a directory.
///
/// # Errors
/// If something in it cannot be read.
pub fn snapshot(root: &Path) -> Result<Snapshot, LoadError> {
    let mut out = Snapshot::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).map_err(LoadError::io("list", &folder))?;
        for entry in entries {
            let path = entry.map_err(LoadError::io("list", &folder))?.path();
            let m = fs::symlink_metadata(&path).map_err(LoadError::io("stat", &path))?;
            let mut value = vec![0; VALUE];
            let xattr = match lgetxattr(&path, XATTR, &mut value) {
                Ok(n) => String::from_utf8_lossy(&value[..n]).into_owned(),
                Err(Errno::NODATA | Errno::NOTSUP) => "none".to_owned(),
                Err(Errno::RANGE) => "long".to_owned(),
                Err(e) => return Err(LoadError::errno("read the extended attribute of", &path)(e)),
            };
            let line = format!(
                "mode {:o}, links {}, owner {}:{}, size {}, modified {}.{:09}, {XATTR} {xattr}",
                m.mode(),
                m.nlink(),
                m.uid(),
                m.gid(),
                m.size(),
                m.mtime(),
                m.mtime_nsec(),
            );
            let name = path.strip_prefix(root).unwrap_or(&path);
            out.insert(name.as_os_str().as_bytes().to_vec(), line);
            if m.is_dir() {
                folders.push(path);
            }
        }
    }
    Ok(out)
}

/// The first difference, in words.
#[must_use]
pub fn difference(through: &Snapshot, below: &Snapshot) -> Option<String> {
    let name = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
    for (path, line) in through {
        match below.get(path) {
            None => return Some(format!("{} is seen but is not below", name(path))),
            Some(other) if other != line => {
                return Some(format!("{}: {line}; below: {other}", name(path)));
            }
            Some(_) => {}
        }
    }
    let gone = below.keys().find(|path| !through.contains_key(*path))?;
    Some(format!("{} is below but is not seen", name(gone)))
}
