//! The control directory of a FUSE connection: `/sys/fs/fuse/connections/N`, and its
//! twin of the efuse module.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::SystemError;
use crate::mountinfo::{self, MountEntry, is_type};

/// A mounted FUSE connection.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    /// `fuse` or `efuse`: whose control file system it is in.
    family: &'static str,
    /// The number of its directory.
    number: u32,
}

impl Connection {
    /// The connection behind a mount; `None` if it is no FUSE at all.
    pub(crate) fn of(entry: &MountEntry) -> Option<Self> {
        let family = ["fuse", "efuse"]
            .into_iter()
            .find(|family| is_type(&entry.fs_type, family))?;
        Some(Self {
            family,
            number: entry.minor,
        })
    }

    /// Ends every request with an error and refuses new ones. This is what frees
    /// callers of a daemon that does not answer.
    pub(crate) fn abort(&self) -> Result<(), SystemError> {
        self.write(&[("abort", 1)])
    }

    /// Sets the queue of background requests.
    pub(crate) fn set_background(&self, maximum: u32, threshold: u32) -> Result<(), SystemError> {
        self.write(&[
            ("max_background", maximum),
            ("congestion_threshold", threshold),
        ])
    }

    /// Writes control files, through the mounted control file system if there is one,
    /// else through one that is mounted for the purpose and unmounted at once.
    fn write(&self, values: &[(&str, u32)]) -> Result<(), SystemError> {
        let fs_type = format!("{}ctl", self.family);
        let usual = Path::new("/sys/fs").join(self.family).join("connections");
        let mounted = mountinfo::all()?
            .into_iter()
            .find(|m| m.fs_type == fs_type)
            .map(|m| m.mountpoint);
        if let Some(root) = mounted {
            return self.write_in(&root, values);
        }
        let private = tempfile::Builder::new()
            .prefix("efuse-control-")
            .tempdir()
            .map_err(SystemError::io(
                &usual,
                "make a directory for the control file system",
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
        let result = self.write_in(root, values);
        // Nobody else knows the directory, so that this cannot be busy.
        umount2(root, MntFlags::MNT_DETACH)
            .map_err(|e| SystemError::io(root, format!("unmount {fs_type}"))(e.into()))?;
        result
    }

    fn write_in(&self, root: &Path, values: &[(&str, u32)]) -> Result<(), SystemError> {
        for (name, value) in values {
            let path: PathBuf = root.join(self.number.to_string()).join(name);
            match fs::write(&path, value.to_string()) {
                Ok(()) => {}
                // The connection ended while it was being aborted.
                Err(e) if e.kind() == io::ErrorKind::NotFound && *name == "abort" => {}
                Err(e) => return Err(SystemError::io(path, format!("set {name}"))(e)),
            }
        }
        Ok(())
    }
}
