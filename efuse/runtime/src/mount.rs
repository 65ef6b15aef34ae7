use std::ffi::CString;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::device::c_path;

/// What to mount, where, with which options.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// The character device.
    pub device: PathBuf,
    /// File system type: `fuse` or `efuse`, or `fuse.NAME`.
    pub fstype: String,
    /// Where to mount.
    pub mountpoint: PathBuf,
    /// What `/proc/mounts` shows as source.
    pub source: String,
    /// Let other users than the mounting one in.
    pub allow_other: bool,
    /// Let the kernel check permissions by mode, owner and group.
    pub default_permissions: bool,
    /// Largest READ in bytes.
    pub max_read: u32,
}

impl MountOptions {
    /// The defaults: `/dev/fuse`, type `fuse`, 1 MiB reads, the mounting user only.
    pub fn new(mountpoint: &Path) -> MountOptions {
        MountOptions {
            device: "/dev/fuse".into(),
            fstype: "fuse".to_owned(),
            mountpoint: mountpoint.to_owned(),
            source: "efuse".to_owned(),
            allow_other: false,
            default_permissions: false,
            max_read: 1 << 20,
        }
    }
}

/// Mounting failed.
#[derive(Debug, Error)]
pub enum MountError {
    /// The character device does not open.
    #[error(
        "cannot open {} (is the kernel module loaded, and may this user open it?)",
        path.display()
    )]
    Device {
        /// The device.
        path: PathBuf,
        /// The error.
        #[source]
        source: io::Error,
    },
    /// The mount point cannot be examined.
    #[error("cannot use the mount point {}", path.display())]
    Mountpoint {
        /// The mount point.
        path: PathBuf,
        /// The error.
        #[source]
        source: io::Error,
    },
    /// Not allowed.
    #[error(
        "mounting on {} needs CAP_SYS_ADMIN: run as root, or in a namespace of your own \
         (`unshare --user --map-root-user --mount`)",
        path.display()
    )]
    Privilege {
        /// The mount point.
        path: PathBuf,
    },
    /// `mount(2)` failed.
    #[error("mount of type {fstype} on {} failed", path.display())]
    Mount {
        /// The file system type.
        fstype: String,
        /// The mount point.
        path: PathBuf,
        /// The error.
        #[source]
        source: io::Error,
    },
    /// Unmounting failed.
    #[error("cannot unmount {}", path.display())]
    Unmount {
        /// The mount point.
        path: PathBuf,
        /// The error.
        #[source]
        source: io::Error,
    },
}

/// A mount of ours; dropping it unmounts (lazily if it is in use).
#[derive(Debug)]
pub struct Mount {
    mountpoint: PathBuf,
    mounted: bool,
}

impl Mount {
    pub(crate) fn new(options: &MountOptions, device: RawFd) -> Result<Mount, MountError> {
        let path = options.mountpoint.clone();
        let examined = std::fs::canonicalize(&path).and_then(|real| {
            let metadata = std::fs::metadata(&real)?;
            Ok((real, metadata))
        });
        let (mountpoint, metadata) = examined.map_err(|source| MountError::Mountpoint {
            path: path.clone(),
            source,
        })?;
        // SAFETY: these two calls have no arguments and cannot fail.
        let (uid, gid) = unsafe { (libc::getuid(), libc::getgid()) };
        let mut data = format!(
            "fd={device},rootmode={:o},user_id={uid},group_id={gid},max_read={}",
            metadata.mode() & libc::S_IFMT,
            options.max_read
        );
        if options.allow_other {
            data.push_str(",allow_other");
        }
        if options.default_permissions {
            data.push_str(",default_permissions");
        }
        let mount = || -> io::Result<()> {
            let target = c_path(&mountpoint)?;
            let text = |s: &str| CString::new(s).map_err(|_| io::ErrorKind::InvalidInput);
            let (source, fstype, data) =
                (text(&options.source)?, text(&options.fstype)?, text(&data)?);
            // SAFETY: all pointers are NUL-terminated strings that outlive the call.
            let result = unsafe {
                libc::mount(
                    source.as_ptr(),
                    target.as_ptr(),
                    fstype.as_ptr(),
                    libc::MS_NOSUID | libc::MS_NODEV,
                    data.as_ptr().cast(),
                )
            };
            if result < 0 {
                Err(io::Error::last_os_error())
            } else {
                Ok(())
            }
        };
        mount().map_err(|source| match source.raw_os_error() {
            Some(libc::EPERM) => MountError::Privilege { path },
            _ => MountError::Mount {
                fstype: options.fstype.clone(),
                path,
                source,
            },
        })?;
        Ok(Mount {
            mountpoint,
            mounted: true,
        })
    }

    /// The mount point, made absolute.
    pub fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// Takes note that somebody else unmounted it, so that dropping does nothing.
    pub fn forget(&mut self) {
        self.mounted = false;
    }

    /// Unmounts; `lazy` detaches it even when it is in use.
    pub fn unmount(&mut self, lazy: bool) -> Result<(), MountError> {
        if !self.mounted {
            return Ok(());
        }
        let unmount = || -> io::Result<()> {
            let target = c_path(&self.mountpoint)?;
            let flags = libc::UMOUNT_NOFOLLOW | if lazy { libc::MNT_DETACH } else { 0 };
            // SAFETY: the pointer is a NUL-terminated string that outlives the call.
            let result = unsafe { libc::umount2(target.as_ptr(), flags) };
            if result < 0 {
                Err(io::Error::last_os_error())
            } else {
                Ok(())
            }
        };
        match unmount() {
            // EINVAL: not a mount point any more.
            Err(error) if error.raw_os_error() != Some(libc::EINVAL) => Err(MountError::Unmount {
                path: self.mountpoint.clone(),
                source: error,
            }),
            _ => {
                self.mounted = false;
                Ok(())
            }
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // A destructor has nobody to report to; the lazy unmount fails only if it is gone already.
        let _ = self.unmount(true);
    }
}
