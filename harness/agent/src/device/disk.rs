//! `disk`: a real disk or partition that the user has given up.

use std::path::Path;

use super::{Backing, BlockDevice, discard_all, open_exclusive, refuse_mounted};
use crate::error::Result;

struct Disk;

pub(super) fn acquire(path: &Path) -> Result<BlockDevice> {
    refuse_mounted(path)?;
    let disk = open_exclusive(path)?;
    // The same start for every cell: an SSD that was written before is slower.
    discard_all(&disk, path)?;
    Ok(BlockDevice::new(path.to_owned(), false, Disk))
}

impl Backing for Disk {
    fn release(&mut self) -> Result<()> {
        Ok(())
    }
}
