//! Finding the project.

use std::path::{Path, PathBuf};

use crate::error::KernelError;

/// The project's root: `given` if there is one, else the environment's `EFUSE_ROOT`, else the
/// nearest folder from the current one upwards that has both `Cargo.toml` and `Justfile`.
///
/// # Errors
/// [`KernelError::NoRoot`] when none of these leads to a project.
pub fn find(given: Option<&Path>) -> Result<PathBuf, KernelError> {
    if let Some(root) = given {
        return absolute(root);
    }
    if let Some(root) = std::env::var_os("EFUSE_ROOT") {
        return absolute(Path::new(&root));
    }
    let here = std::env::current_dir().map_err(|_| KernelError::NoRoot)?;
    here.ancestors()
        .find(|folder| folder.join("Cargo.toml").is_file() && folder.join("Justfile").is_file())
        .map(Path::to_owned)
        .ok_or(KernelError::NoRoot)
}

fn absolute(root: &Path) -> Result<PathBuf, KernelError> {
    root.canonicalize()
        .map_err(KernelError::io("find the project's root", root))
}
