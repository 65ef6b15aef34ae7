//! The block device below every system: made for one cell, gone after it.

mod brd;
mod disk;
mod loopback;
mod null_blk;
mod virtio;

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use efuse_model::device::Device;

use crate::error::{AgentError, Result};
use crate::limit::Limit;
use crate::sys;

pub(crate) use loopback::detach_all_under;
pub(crate) use null_blk::remove_all as remove_null_blk;

/// What a kind of device has to undo.
trait Backing: Send {
    /// Takes away exactly what was made. Called once, with nothing mounted.
    fn release(&mut self) -> Result<()>;
}

/// A block device for one cell. Dropping it releases it as well, without a message.
pub struct BlockDevice {
    path: PathBuf,
    prezeroed: bool,
    backing: Option<Box<dyn Backing>>,
}

impl std::fmt::Debug for BlockDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlockDevice")
            .field("path", &self.path)
            .field("prezeroed", &self.prezeroed)
            .finish_non_exhaustive()
    }
}

impl BlockDevice {
    /// Makes or takes the device.
    ///
    /// # Errors
    /// If it is not to be had here; nothing is left behind then.
    pub fn acquire(device: &Device, backing: &Path, limit: &Limit) -> Result<Self> {
        match device {
            Device::NvmeModel {
                size_bytes,
                latency_ns,
            } => null_blk::acquire(*size_bytes, *latency_ns),
            Device::Brd { size_bytes } => brd::acquire(*size_bytes, limit),
            Device::Virtio { size_bytes } => virtio::acquire(*size_bytes),
            Device::Loop { size_bytes } => loopback::acquire(*size_bytes, backing),
            Device::Disk { path } => disk::acquire(Path::new(path)),
        }
    }

    fn new(path: PathBuf, prezeroed: bool, backing: impl Backing + 'static) -> Self {
        Self {
            path,
            prezeroed,
            backing: Some(Box::new(backing)),
        }
    }

    /// The device node.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether every block of it reads as zero, so that mkfs need not write zeros.
    #[must_use]
    pub const fn prezeroed(&self) -> bool {
        self.prezeroed
    }

    /// Gives it back.
    ///
    /// # Errors
    /// If the kernel refuses, which means that something still uses it.
    pub fn release(mut self) -> Result<()> {
        self.backing.take().map_or(Ok(()), |mut b| b.release())
    }
}

impl Drop for BlockDevice {
    fn drop(&mut self) {
        if let Some(mut backing) = self.backing.take() {
            // Reached only while another error is on its way to the user.
            let _ = backing.release();
        }
    }
}

fn refuse(device: impl Into<String>, reason: impl Into<String>) -> AgentError {
    AgentError::Device {
        device: device.into(),
        reason: reason.into(),
    }
}

/// Opens a block device exclusively: the kernel refuses while it is mounted, swapped
/// on, or part of another device.
fn open_exclusive(path: &Path) -> Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_EXCL)
        .open(path)
        .map_err(AgentError::io(
            path,
            "open exclusively (is it mounted or in use?)",
        ))?;
    let meta = file.metadata().map_err(AgentError::io(path, "stat"))?;
    if meta.file_type().is_block_device() {
        Ok(file)
    } else {
        Err(refuse(path.display().to_string(), "is not a block device"))
    }
}

/// Refuses a device that carries a mounted file system, itself or on a partition.
fn refuse_mounted(path: &Path) -> Result<()> {
    let rdev = |p: &Path| {
        std::fs::metadata(p)
            .ok()
            .filter(|m| m.file_type().is_block_device())
    };
    let Some(own) = rdev(path).map(|m| m.rdev()) else {
        return Ok(());
    };
    let disk = whole_disk(own);
    for mount in sys::mounts()? {
        let Some(other) = rdev(Path::new(&mount.source)).map(|m| m.rdev()) else {
            continue;
        };
        if other == own || (disk.is_some() && whole_disk(other) == disk && is_whole(own)) {
            return Err(refuse(
                path.display().to_string(),
                format!(
                    "{} is mounted on {}; unmount it first, its content would be destroyed",
                    mount.source,
                    mount.point.display()
                ),
            ));
        }
    }
    Ok(())
}

fn sysfs(rdev: u64) -> Option<PathBuf> {
    let (major, minor) = (nix::sys::stat::major(rdev), nix::sys::stat::minor(rdev));
    std::fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()
}

fn is_whole(rdev: u64) -> bool {
    sysfs(rdev).is_some_and(|p| !p.join("partition").exists())
}

/// The folder of the disk in sysfs, also for a partition of it.
fn whole_disk(rdev: u64) -> Option<PathBuf> {
    let path = sysfs(rdev)?;
    if path.join("partition").exists() {
        path.parent().map(Path::to_owned)
    } else {
        Some(path)
    }
}

mod request {
    #![allow(
        missing_docs,
        reason = "the macros make functions without a place for text"
    )]
    nix::ioctl_read!(blkgetsize64, 0x12, 114, u64);
    nix::ioctl_write_ptr_bad!(blkdiscard, nix::request_code_none!(0x12, 119), [u64; 2]);
}

/// Capacity in bytes.
fn size_of(file: &File, path: &Path) -> Result<u64> {
    let mut bytes = 0u64;
    // SAFETY: BLKGETSIZE64 writes one u64 through the pointer, which is valid.
    unsafe { request::blkgetsize64(file.as_raw_fd(), &raw mut bytes) }
        .map_err(AgentError::errno(path, "read its capacity"))?;
    Ok(bytes)
}

/// Gives the device's memory back. Devices without discard keep it: no error.
fn discard_all(file: &File, path: &Path) -> Result<()> {
    let range = [0, size_of(file, path)?];
    // SAFETY: BLKDISCARD reads two u64 through the pointer, which is valid.
    match unsafe { request::blkdiscard(file.as_raw_fd(), &raw const range) } {
        Ok(_) | Err(nix::errno::Errno::EOPNOTSUPP) => Ok(()),
        Err(e) => Err(AgentError::errno(path, "discard its content")(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_of_the_root_is_refused() {
        let source = sys::mounts()
            .unwrap()
            .into_iter()
            .find(|m| m.point == Path::new("/"))
            .map(|m| m.source)
            .unwrap();
        if !source.starts_with("/dev/") || !Path::new(&source).exists() {
            eprintln!("skipped: the root is {source}, not a block device");
            return;
        }
        let error = refuse_mounted(Path::new(&source)).unwrap_err().to_string();
        assert!(error.contains("is mounted on"), "{error}");
    }

    #[test]
    fn a_file_is_no_disk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "x").unwrap();
        let error = disk::acquire(&path).unwrap_err().to_string();
        assert!(error.contains("not a block device"), "{error}");
    }
}
