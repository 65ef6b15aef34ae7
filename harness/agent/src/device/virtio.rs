//! `virtio`: the disk that the VM was started with, found by its serial.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Backing, BlockDevice, discard_all, open_exclusive, refuse, refuse_mounted, size_of};
use crate::error::Result;
use crate::sys;

/// The serial that the VM's disk is given.
pub const SERIAL: &str = "efuse-disk";

struct Disk {
    path: PathBuf,
}

pub(super) fn acquire(size_bytes: u64) -> Result<BlockDevice> {
    let path = find().ok_or_else(|| {
        refuse(
            "virtio",
            format!("no virtio disk with serial {SERIAL:?} here; it exists in the VM only"),
        )
    })?;
    refuse_mounted(&path)?;
    let disk = open_exclusive(&path)?;
    let size = size_of(&disk, &path)?;
    if size < size_bytes {
        return Err(refuse(
            "virtio",
            format!(
                "{} has {size} bytes, the plan wants {size_bytes}",
                path.display()
            ),
        ));
    }
    discard_all(&disk, &path)?;
    // Discarded blocks need not read as zero, so mkfs writes its tables.
    Ok(BlockDevice::new(path.clone(), false, Disk { path }))
}

fn find() -> Option<PathBuf> {
    fs::read_dir("/sys/block")
        .ok()?
        .flatten()
        .find_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let ours = name.starts_with("vd") && sys::read(entry.path().join("serial"))? == SERIAL;
            ours.then(|| Path::new("/dev").join(name))
        })
}

impl Backing for Disk {
    fn release(&mut self) -> Result<()> {
        discard_all(&open_exclusive(&self.path)?, &self.path)
    }
}
