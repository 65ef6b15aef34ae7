//! `kernel debug`

use std::path::Path;

use efuse_kernel::root;

/// Prints the paths of the kernel and the module.
pub fn run(root: Option<&Path>) -> anyhow::Result<()> {
    let artifacts = efuse_kernel::ensure_debug(&root::find(root)?, &mut super::progress)?;
    println!("{}", artifacts.vmlinuz.display());
    println!("{}", artifacts.module.display());
    Ok(())
}
