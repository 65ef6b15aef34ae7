//! The project's `efuse-coherence`: no answer may be older than a change that was complete.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Site, Trouble, fail, stackfs};
use crate::error::AgentError;
use crate::limit::Limit;
use crate::process;

/// Which system is also tried with a daemon that waits: policy, and what to look at.
const WITH_DELAYS: &[(&str, &[&str], &str)] = &[
    ("efuse-meta", &["--policy", "metadata"], "race"),
    (
        "efuse-cache",
        &["--policy", "cache", "--cache-size", "8"],
        "data",
    ),
    (
        "efuse-cache-backed",
        &["--passthrough", "--policy", "cache", "--cache-size", "8"],
        "race",
    ),
];
const RACE_S: u32 = 8;
const DATA_S: u32 = 12;
/// Of the race with a daemon that waits.
const DELAYED_S: u32 = 12;
/// A daemon whose replies are late and overtake each other, behind programs that learn from all of
/// them, or a cache that fills from them; the kernel's own caches are off, so that every look
/// meets the programs.
const DELAYED: &[&str] = &[
    "--workers",
    "{threads}",
    "--entry-timeout",
    "0",
    "--attr-timeout",
    "0",
    "--allow-other",
    "--until-invalidated",
    "--delay-replies-us",
    "2000",
];

pub(super) fn run(site: &mut Site<'_>) -> Result<String, Trouble> {
    let program = program(site)?;
    let [race, data] = ["race", "data"].map(|name| site.root.join(name));
    for folder in [&race, &data] {
        fs::create_dir(folder).map_err(AgentError::io(folder, "create the folder"))?;
    }
    let (limit, effort) = (site.limit, site.effort);
    let look =
        |verb: &str, folder: &Path, bound: String| look(&program, limit, verb, &[folder], bound);
    let more = |amount: u32| format!("--seconds={}", amount.saturating_mul(effort));
    let mut said = vec![
        look("race", &race, more(RACE_S))?,
        look("data", &data, more(DATA_S))?,
    ];
    if let Some((_, policy, verb)) = WITH_DELAYS.iter().find(|(id, ..)| *id == site.system) {
        let seed: u32 = rand::random();
        let seeded = ["--delay-seed", &seed.to_string()];
        let delayed = stackfs("delayed", &[DELAYED, policy, &seeded].concat())?;
        let mut mounted = site.mount_with(&delayed, &site.context("delayed"))?;
        let folder = mounted.root().join("delayed");
        fs::create_dir(&folder).map_err(AgentError::io(&folder, "create the folder"))?;
        let looked = look(verb, &folder, more(DELAYED_S));
        mounted.alive()?;
        mounted.unmount()?;
        said.push(format!("delayed by seed {seed}: {}", looked?));
    }
    Ok(said.join("; "))
}

/// Where `efuse-coherence` is.
pub(super) fn program(site: &Site<'_>) -> Result<PathBuf, AgentError> {
    site.agent
        .program("efuse-coherence", "build it with `just build`")
}

/// What `efuse-coherence VERB FOLDERS BOUND` says last, if it found nothing.
pub(super) fn look(
    program: &Path,
    limit: &Limit,
    verb: &str,
    folders: &[&Path],
    bound: String,
) -> Result<String, Trouble> {
    let mut command = Command::new(program);
    command.arg(verb).args(folders).arg(bound);
    let done = process::run(&mut command, limit)?;
    if !done.status.success() {
        return fail(format!("efuse-coherence {}: {}", done.how(), done.tail()));
    }
    Ok(done.stdout.lines().last().unwrap_or_default().to_owned())
}
