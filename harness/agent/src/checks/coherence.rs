//! The project's `efuse-coherence`: no answer may be older than a change that was complete.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use super::{Site, Trouble, fail};
use crate::error::AgentError;
use crate::process;

/// As many as take some ten seconds under emulation.
const OPERATIONS: u32 = 400;
const RACE_S: u32 = 8;
const DATA_S: u32 = 12;

pub(super) fn run(site: &mut Site<'_>) -> Result<String, Trouble> {
    let program = site
        .agent
        .program("efuse-coherence", "build it with `just build`")?;
    // Beside the exported folder on the same file system.
    let plain = site.lower.with_file_name("plain");
    let [there, race, data] = ["differential", "race", "data"].map(|name| site.root.join(name));
    for folder in [&plain, &there, &race, &data] {
        fs::create_dir(folder).map_err(AgentError::io(folder, "create the folder"))?;
    }
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(&plain, mode).map_err(AgentError::io(&plain, "set the mode of"))?;
    let mut said = Vec::new();
    let mut differential = Command::new(&program);
    differential
        .arg("differential")
        .args([&there, &plain])
        .arg(format!("--operations={OPERATIONS}"));
    let mut racing = Command::new(&program);
    racing
        .arg("race")
        .arg(&race)
        .arg(format!("--seconds={RACE_S}"));
    let mut reading = Command::new(&program);
    reading
        .arg("data")
        .arg(&data)
        .arg(format!("--seconds={DATA_S}"));
    for command in [&mut differential, &mut racing, &mut reading] {
        let done = process::run(command, site.limit)?;
        if !done.status.success() {
            return fail(format!("efuse-coherence {}: {}", done.how(), done.tail()));
        }
        let output = &done.stdout;
        said.extend(output.lines().last().map(str::to_owned));
    }
    Ok(said.join("; "))
}
