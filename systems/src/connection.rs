//! The control directory of a FUSE connection: `/sys/fs/fuse/connections/N`, and its
//! twin of the efuse module.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::SystemError;
use crate::mountinfo::{self, MountEntry, is_type};

/// Whether a mount is FUSE, stock or ours: the family its control files are in.
pub(crate) fn family(entry: &MountEntry) -> Option<&'static str> {
    ["fuse", "efuse"]
        .into_iter()
        .find(|family| is_type(&entry.fs_type, family))
}

/// Control over a mounted connection.
///
/// The file to abort it is kept open rather than looked up when it is needed: the
/// kernel gives a connection's number to the next mount as soon as this one is gone,
/// and a late abort by number would hit somebody else. Writing to the open file of a
/// connection that is gone does nothing.
#[derive(Debug)]
pub(crate) struct Control {
    abort: File,
    path: PathBuf,
}

impl Control {
    /// Takes control of a connection while it is mounted, and sets its background
    /// queue to `(maximum, congestion threshold)` if given. `None` if the mount is no
    /// FUSE.
    ///
    /// Works through the mounted control file system if there is one, else through one
    /// that is mounted for the purpose and detached at once.
    pub(crate) fn open(
        entry: &MountEntry,
        background: Option<(u32, u32)>,
    ) -> Result<Option<Self>, SystemError> {
        let Some(family) = family(entry) else {
            return Ok(None);
        };
        let fs_type = format!("{family}ctl");
        let mounted = mountinfo::all()?
            .into_iter()
            .find(|m| m.fs_type == fs_type)
            .map(|m| m.mountpoint);
        if let Some(root) = mounted {
            return Self::open_in(&root, entry.minor, background).map(Some);
        }
        let usual = Path::new("/sys/fs").join(family).join("connections");
        let private = tempfile::Builder::new()
            .prefix("efuse-control-")
            .tempdir()
            .map_err(SystemError::io(
                &usual,
                "make a directory to mount it elsewhere",
            ))?;
        let root = private.path();
        mount(
            Some(fs_type.as_str()),
            root,
            Some(fs_type.as_str()),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
            None::<&str>,
        )
        .map_err(|e| SystemError::io(root, format!("mount {fs_type}"))(e.into()))?;
        let control = Self::open_in(root, entry.minor, background);
        umount2(root, MntFlags::MNT_DETACH)
            .map_err(|e| SystemError::io(root, format!("unmount {fs_type}"))(e.into()))?;
        control.map(Some)
    }

    fn open_in(
        root: &Path,
        number: u32,
        background: Option<(u32, u32)>,
    ) -> Result<Self, SystemError> {
        let dir = root.join(number.to_string());
        if let Some((maximum, threshold)) = background {
            for (name, value) in [
                ("max_background", maximum),
                ("congestion_threshold", threshold),
            ] {
                let path = dir.join(name);
                fs::write(&path, value.to_string())
                    .map_err(SystemError::io(&path, format!("set it to {value}")))?;
            }
        }
        let path = dir.join("abort");
        let abort = fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .map_err(SystemError::io(&path, "open it"))?;
        Ok(Self { abort, path })
    }

    /// Ends every request with an error and refuses new ones. This is what frees the
    /// callers of a daemon that does not answer.
    pub(crate) fn abort(&mut self) -> Result<(), SystemError> {
        self.abort
            .write_all(b"1")
            .map_err(SystemError::io(&self.path, "abort the connection"))
    }
}
