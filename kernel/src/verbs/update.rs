//! `kernel update`

use std::path::Path;

use efuse_kernel::root;

/// Prints the path of the module.
pub fn run(root: Option<&Path>) -> anyhow::Result<()> {
    let artifacts = efuse_kernel::update(&root::find(root)?, &mut super::progress)?;
    println!("{}", artifacts.module.display());
    Ok(())
}
