//! `efuse detach`.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use efuse_bpf::{Dev, attached_to};

use super::pin_path;

/// Take the programs off a mount. Requests go to its daemon again, also those under way.
#[derive(Debug, Args)]
pub(crate) struct Detach {
    /// The mount point.
    mount: PathBuf,
}

pub(crate) fn run(verb: &Detach) -> Result<()> {
    let dev = Dev::of_mount(&verb.mount)?;
    let found = attached_to(dev)?;
    found.detach()?;
    let pin = pin_path(dev);
    match std::fs::remove_file(&pin) {
        // Attached by the daemon itself.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.with_context(|| format!("cannot remove {}", pin.display())),
    }
}
