//! `kernel show`

use std::path::{Path, PathBuf};

use anyhow::bail;
use efuse_kernel::apt::Selection;
use efuse_kernel::fetch;
use efuse_kernel::module;
use efuse_kernel::series::{Series, Summary};
use serde::Serialize;

#[derive(clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    kernel: Selection,
    vmlinuz: PathBuf,
    config: PathBuf,
    modules_dir: PathBuf,
    headers: PathBuf,
    fuse_source: PathBuf,
    module: PathBuf,
    module_hash: String,
    /// Whether the module is there and built from the tree as it is now.
    module_current: bool,
    /// What the module says of itself in /sys/fs/efuse/version.
    series_version: String,
    patches: Vec<Summary>,
}

/// Prints; fetches and builds nothing.
pub fn run(root: Option<&Path>, args: &Args) -> anyhow::Result<()> {
    let layout = super::layout(root)?;
    let Some(packages) = fetch::current(&layout) else {
        bail!("no kernel was fetched yet: `kernel build` does it");
    };
    let series = Series::load(&layout.patches(), &layout.ours())?;
    let (module, module_hash, module_current) = module::state(&layout, &packages)?;
    let shown = Shown {
        vmlinuz: packages.vmlinuz(),
        config: packages.config(),
        modules_dir: packages.modules(),
        headers: packages.headers(),
        fuse_source: packages.fuse_source(),
        module,
        module_hash,
        module_current,
        series_version: series.version(),
        patches: series.summaries(),
        kernel: packages.selection,
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&shown)?);
    } else {
        print!("{shown}");
    }
    Ok(())
}

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = if self.module_current {
            "up to date"
        } else {
            "not built from the tree as it is: `kernel build`"
        };
        writeln!(
            f,
            "kernel    {} ({})",
            self.kernel.release, self.kernel.version
        )?;
        writeln!(f, "image     {}", self.vmlinuz.display())?;
        writeln!(f, "config    {}", self.config.display())?;
        writeln!(f, "modules   {}", self.modules_dir.display())?;
        writeln!(f, "headers   {}", self.headers.display())?;
        writeln!(f, "source    {}", self.fuse_source.display())?;
        writeln!(f, "module    {}", self.module.display())?;
        writeln!(f, "          {} ({state})", self.module_hash)?;
        writeln!(f, "series    {}", self.series_version)?;
        for patch in &self.patches {
            let number = patch.name.get(..4).unwrap_or_default();
            writeln!(f, "  {number}    {}", patch.subject)?;
        }
        Ok(())
    }
}
