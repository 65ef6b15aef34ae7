//! `kernel save FOLDER`

use std::path::{Path, PathBuf};

use efuse_kernel::{cache, edit, fetch};

#[derive(clap::Args)]
pub struct Args {
    /// A repository made by `kernel edit`
    folder: PathBuf,
}

/// Prints the names of the patches.
pub fn run(root: Option<&Path>, args: &Args) -> anyhow::Result<()> {
    let layout = super::layout(root)?;
    let _lock = cache::lock(&layout, cache::Lock::Module, &mut super::progress)?;
    let packages = fetch::ensure(&layout, &mut super::progress)?;
    for name in edit::pack(&layout, &packages.fuse_source(), &args.folder)? {
        println!("{name}");
    }
    Ok(())
}
