//! `kernel apply TREE`

use std::path::{Path, PathBuf};

use efuse_kernel::series::Series;
use efuse_kernel::tree;

#[derive(clap::Args)]
pub struct Args {
    /// The top folder of a 6.12 kernel source tree
    tree: PathBuf,
}

/// Prints the files that changed.
pub fn run(root: Option<&Path>, args: &Args) -> anyhow::Result<()> {
    let layout = super::layout(root)?;
    let series = Series::load(&layout.patches(), &layout.ours())?;
    let changed = tree::apply(&series, &args.tree)?;
    for file in &changed {
        println!("{file}");
    }
    let tree = args.tree.display();
    if changed.is_empty() {
        super::progress(&format!("{tree} has eFUSE {} already", series.version()));
    } else {
        super::progress(&format!(
            "eFUSE {} is in {tree}: set CONFIG_EFUSE_FS=m and build fs/efuse/efuse.ko there",
            series.version()
        ));
    }
    Ok(())
}
