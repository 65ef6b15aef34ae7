//! `kernel edit FOLDER`

use std::path::{Path, PathBuf};

use efuse_kernel::{cache, edit, fetch};

#[derive(clap::Args)]
pub struct Args {
    /// A new folder for the repository
    folder: PathBuf,
}

/// Says how to go on.
pub fn run(root: Option<&Path>, args: &Args) -> anyhow::Result<()> {
    let layout = super::layout(root)?;
    let _lock = cache::lock(&layout, cache::Lock::Module, &mut super::progress)?;
    let packages = fetch::ensure(&layout, &mut super::progress)?;
    edit::unpack(&layout, &packages.fuse_source(), &args.folder)?;
    let folder = args.folder.display();
    super::progress(&format!(
        "the series is in {folder}, a commit for each patch: change them, commit, then \
         `kernel save {folder}`"
    ));
    Ok(())
}
