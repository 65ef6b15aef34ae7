//! One file for each verb of the command line.

pub mod apply;
pub mod build;
pub mod clean;
pub mod debug;
pub mod edit;
pub mod host;
pub mod save;
pub mod show;
pub mod update;

use std::path::Path;

use efuse_kernel::cache::Layout;
use efuse_kernel::root;

/// Progress goes to standard error, so that results can be piped.
fn progress(line: &str) {
    eprintln!("{line}");
}

fn layout(root: Option<&Path>) -> anyhow::Result<Layout> {
    Ok(Layout::new(&root::find(root)?)?)
}
