//! `kernel clean`

use std::fs;
use std::path::Path;

use anyhow::Context;
use efuse_kernel::{cache, fetch};

#[derive(clap::Args)]
pub struct Args {
    /// Also remove the fetched kernels and their packages (about 400 MB to fetch again)
    #[arg(long)]
    all: bool,
}

/// Waits for builds that run.
pub fn run(root: Option<&Path>, args: &Args) -> anyhow::Result<()> {
    let layout = super::layout(root)?;
    let locks = [cache::Lock::Module, cache::Lock::Debug];
    let _held = locks
        .into_iter()
        .map(|lock| cache::lock(&layout, lock, &mut super::progress))
        .collect::<Result<Vec<_>, _>>()?;
    if !args.all
        && let Some(packages) = fetch::current(&layout)
    {
        cache::remove_tree(&packages.build())?;
        cache::remove_tree(&packages.debug())?;
    }
    for entry in fs::read_dir(layout.base()).context("cannot read the cache")? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let all = args.all && !locks.iter().any(|lock| name == lock.name());
        if all || name.starts_with("host-") || name.ends_with(".partial") {
            if path.is_dir() {
                cache::remove_tree(&path)?;
            } else {
                fs::remove_file(&path)
                    .with_context(|| format!("cannot remove {}", path.display()))?;
            }
        }
    }
    Ok(())
}
