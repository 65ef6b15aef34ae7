//! `kernel host`

use std::path::Path;

use efuse_kernel::{cache, host};

/// Prints what was loaded.
pub fn run(root: Option<&Path>) -> anyhow::Result<()> {
    let layout = super::layout(root)?;
    let _lock = cache::lock(&layout, cache::Lock::Module, &mut super::progress)?;
    let loaded = host::load(&layout, &mut super::progress)?;
    if let Some(module) = loaded.module {
        println!(
            "efuse.ko {} is loaded into {} from {}",
            loaded.version,
            loaded.release,
            module.display()
        );
    }
    Ok(())
}
