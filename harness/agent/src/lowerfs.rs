//! The lower file system: a fresh ext4 for every cell.
//!
//! Made so that nothing happens in the background while a job is measured: on a device
//! that reads as zeros the inode tables and the journal are declared zeroed, elsewhere
//! they are zeroed by mkfs; lazy initialisation, which a kernel thread does after the
//! first mount, is off in both cases. The feature list is our own, so that the host's
//! `/etc/mke2fs.conf` and a guest without one give the same file system. It is mounted
//! `noatime`: otherwise the first read of a file is a write of its inode.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::device::BlockDevice;
use crate::error::{AgentError, Result};
use crate::limit::Limit;
use crate::process;

const CONFIG: &str = "\
[defaults]
\tbase_features = sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr
\tdefault_mntopts = acl,user_xattr
\tenable_periodic_fsck = 0
\tblocksize = 4096
\tinode_size = 256
\tinode_ratio = 16384

[fs_types]
\text4 = {
\t\tfeatures = has_journal,extent,huge_file,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize
\t}
";

/// A mounted lower file system. Dropping it unmounts it as well, without a message.
#[derive(Debug)]
pub struct LowerFs {
    point: PathBuf,
    mounted: bool,
}

/// How access times are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Atime {
    /// Not at all: for measuring.
    No,
    /// As the kernel's default does: for checks.
    Relative,
}

impl LowerFs {
    /// Makes the file system and mounts it on `point`, a folder that is created.
    ///
    /// # Errors
    /// If mkfs or the mount fails.
    pub fn create(
        device: &BlockDevice,
        mkfs: &Path,
        point: &Path,
        atime: Atime,
        limit: &Limit,
    ) -> Result<Self> {
        make(device, mkfs, point, limit)?;
        fs::create_dir_all(point).map_err(AgentError::io(point, "create the folder"))?;
        let mut flags = MsFlags::empty();
        if atime == Atime::No {
            flags |= MsFlags::MS_NOATIME;
        }
        mount(
            Some(device.path()),
            point,
            Some("ext4"),
            flags,
            Some("noinit_itable"),
        )
        .map_err(AgentError::errno(
            point,
            format!("mount {} as ext4", device.path().display()),
        ))?;
        Ok(Self {
            point: point.to_owned(),
            mounted: true,
        })
    }

    /// Its root.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.point
    }

    /// Bytes that root may still write.
    ///
    /// # Errors
    /// If the file system does not answer.
    pub fn free_bytes(&self) -> Result<u64> {
        let space = nix::sys::statvfs::statvfs(&self.point)
            .map_err(AgentError::errno(&self.point, "read its free space"))?;
        Ok(space.blocks_free() * space.fragment_size())
    }

    /// Unmounts it.
    ///
    /// # Errors
    /// If something still uses it; it is detached lazily then.
    pub fn unmount(mut self) -> Result<()> {
        self.mounted = false;
        let result = unmount(&self.point);
        let _ = fs::remove_dir(&self.point);
        result
    }
}

impl Drop for LowerFs {
    fn drop(&mut self) {
        if self.mounted {
            // Reached only while another error is on its way to the user.
            let _ = unmount(&self.point);
            let _ = fs::remove_dir(&self.point);
        }
    }
}

fn make(device: &BlockDevice, mkfs: &Path, point: &Path, limit: &Limit) -> Result<()> {
    let config = point.with_extension("mke2fs.conf");
    fs::write(&config, CONFIG).map_err(AgentError::io(&config, "write"))?;
    let extended = if device.prezeroed() {
        "nodiscard,lazy_itable_init=0,assume_storage_prezeroed=1"
    } else {
        "nodiscard,lazy_itable_init=0,lazy_journal_init=0"
    };
    let done = process::run(
        Command::new(mkfs)
            .env("MKE2FS_CONFIG", &config)
            .args([
                "-q",
                "-F",
                "-t",
                "ext4",
                "-m",
                "0",
                "-L",
                "efuse-lower",
                "-E",
                extended,
            ])
            .arg(device.path()),
        limit,
    );
    let _ = fs::remove_file(&config);
    done?.success("mkfs.ext4").map(|_| ())
}

fn unmount(point: &Path) -> Result<()> {
    match umount2(point, MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(Errno::EBUSY) => {
            // A process that was killed may need a moment to let go of its files.
            for _ in 0..100 {
                std::thread::sleep(std::time::Duration::from_millis(20));
                if umount2(point, MntFlags::UMOUNT_NOFOLLOW).is_ok() {
                    return Ok(());
                }
            }
            let _ = umount2(point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
            Err(AgentError::errno(
                point,
                "unmount the lower file system (detached; find who uses it with fuser -m)",
            )(Errno::EBUSY))
        }
        Err(e) => Err(AgentError::errno(point, "unmount the lower file system")(e)),
    }
}
