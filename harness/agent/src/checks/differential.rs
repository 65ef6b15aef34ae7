//! Random operations of four processes, each done through the mount and in a plain folder beside it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::coherence::{look, program};
use super::{Site, Trouble};
use crate::error::AgentError;

/// Operations of each process, which take some ten seconds under emulation.
const OPERATIONS: u32 = 400;
/// With everything that can be answered from maps, there is more to look for.
const OPERATIONS_META: u32 = 800;

pub(super) fn run(site: &mut Site<'_>) -> Result<String, Trouble> {
    let program = program(site)?;
    // Beside the exported folder on the same file system.
    let plain = site.lower.with_file_name("plain");
    let there = site.root.join("differential");
    for folder in [&plain, &there] {
        fs::create_dir(folder).map_err(AgentError::io(folder, "create the folder"))?;
    }
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(&plain, mode).map_err(AgentError::io(&plain, "set the mode of"))?;
    let operations = if site.system == "efuse-meta" {
        OPERATIONS_META
    } else {
        OPERATIONS
    };
    look(
        &program,
        site.limit,
        "differential",
        &[&there, &plain],
        format!("--operations={}", operations.saturating_mul(site.effort)),
    )
}
