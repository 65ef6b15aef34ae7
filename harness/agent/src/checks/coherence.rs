//! The project's `efuse-coherence`: no answer may be older than a change that was complete.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use super::{Site, Trouble, fail, plugin};
use crate::error::AgentError;
use crate::process;

/// Operations of each of four processes, which take some ten seconds under emulation.
const OPERATIONS: u32 = 400;
/// With everything that can be answered from maps, there is more to look for.
const OPERATIONS_META: u32 = 800;
const META: &str = "efuse-meta";
const RACE_S: u32 = 8;
const DATA_S: u32 = 12;
/// Of the race with a daemon that waits.
const DELAYED_S: u32 = 12;
/// A daemon whose replies are late and overtake each other, behind programs that learn from all of
/// them; the kernel's own caches are off, so that every look meets the programs.
const DELAYED: &str = r#"
id = "delayed"
title = "StackFS that waits, with programs"
fs_type = "efuse"
command = [
    "stackfs", "{lower}", "{mountpoint}",
    "--device", "/dev/efuse", "--fstype", "efuse", "--workers", "{threads}",
    "--entry-timeout", "0", "--attr-timeout", "0", "--allow-other",
    "--policy", "metadata", "--until-invalidated",
    "--delay-replies-us", "2000", "--delay-seed", "@SEED@",
]
[ready]
line = "ready"
[needs]
devices = ["/dev/efuse"]
"#;

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
    let look = |verb: &str, folders: &[&Path], bound: String| -> Result<String, Trouble> {
        let mut command = Command::new(&program);
        command.arg(verb).args(folders).arg(bound);
        let done = process::run(&mut command, site.limit)?;
        if !done.status.success() {
            return fail(format!("efuse-coherence {}: {}", done.how(), done.tail()));
        }
        Ok(done.stdout.lines().last().unwrap_or_default().to_owned())
    };
    let effort = site.effort;
    let more = |amount: u32| amount.saturating_mul(effort);
    let meta = site.system == META;
    let operations = if meta { OPERATIONS_META } else { OPERATIONS };
    let mut said = vec![
        look(
            "differential",
            &[&there, &plain],
            format!("--operations={}", more(operations)),
        )?,
        look("race", &[&race], format!("--seconds={RACE_S}"))?,
        look("data", &[&data], format!("--seconds={}", more(DATA_S)))?,
    ];
    if meta {
        let seed: u32 = rand::random();
        let delayed = plugin("delayed", DELAYED.replace("@SEED@", &seed.to_string()))?;
        let mut mounted = site.mount_with(&delayed, &site.context("delayed"))?;
        let race = mounted.root().join("delayed");
        fs::create_dir(&race).map_err(AgentError::io(&race, "create the folder"))?;
        let raced = look("race", &[&race], format!("--seconds={}", more(DELAYED_S)));
        mounted.alive()?;
        mounted.unmount()?;
        said.push(format!("delayed by seed {seed}: {}", raced?));
    }
    Ok(said.join("; "))
}
