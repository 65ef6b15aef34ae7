//! Programs of the host.

use std::path::PathBuf;
use std::process::Command;

use crate::error::GuestError;

/// Finds a program in `PATH`, or where system programs are even if `PATH` lacks those folders
/// (that of an ordinary user does).
pub(crate) fn find(tool: &str, package: &'static str) -> Result<PathBuf, GuestError> {
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{path}:/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin");
    which::which_in_global(tool, Some(path))
        .ok()
        .and_then(|mut hits| hits.next())
        .ok_or_else(|| GuestError::MissingTool {
            tool: tool.to_owned(),
            package,
        })
}

/// Runs a command to its end and returns what it wrote.
pub(crate) fn output(command: &mut Command) -> Result<Vec<u8>, GuestError> {
    let shown = format!("{command:?}");
    let output = command
        .output()
        .map_err(GuestError::io("run", command.get_program().as_ref()))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(GuestError::Command {
        command: shown,
        status: output.status.to_string(),
        stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}
