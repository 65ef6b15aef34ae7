//! The project's `efuse-coherence`: no answer may be older than a change that was complete.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Site, Trouble, fail, stackfs};
use crate::error::AgentError;
use crate::limit::Limit;
use crate::process;

/// A system that is also tried with a daemon that waits.
struct Late {
    system: &'static str,
    options: &'static [&'static str],
    /// How long the kernel may keep names and attributes, seconds: not at all, so that every look meets
    /// the programs, or shortly, so that what it took over from a program is met as well.
    kept: &'static str,
    /// What to look at.
    verb: &'static str,
}

const LATE: &[Late] = &[
    Late {
        system: "efuse-meta",
        options: &["--policy", "metadata"],
        kept: "0",
        verb: "race",
    },
    Late {
        system: "efuse-cache",
        options: &["--policy", "cache", "--cache-size", "8"],
        kept: "0",
        verb: "data",
    },
    Late {
        system: "efuse-cache-backed",
        options: &["--passthrough", "--policy", "cache", "--cache-size", "8"],
        kept: "0.004",
        verb: "race",
    },
];
const RACE_S: u32 = 8;
const DATA_S: u32 = 12;
/// Of the race with a daemon that waits.
const DELAYED_S: u32 = 12;
/// A daemon whose replies are late and overtake each other, behind programs that learn from all of
/// them, or a cache that fills from them.
const DELAYED: &[&str] = &[
    "--workers",
    "{threads}",
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
    let late = LATE.iter().find(|late| late.system == site.system);
    // Where there is a daemon that waits, it finds more in the same time.
    let plain = |amount: u32| match late {
        None => more(amount),
        Some(_) => format!("--seconds={amount}"),
    };
    let mut said = vec![
        look("race", &race, plain(RACE_S))?,
        look("data", &data, plain(DATA_S))?,
    ];
    if let Some(late) = late {
        let seed: u32 = rand::random();
        let options = [
            DELAYED,
            late.options,
            &["--entry-timeout", late.kept, "--attr-timeout", late.kept],
            &["--delay-seed", &seed.to_string()],
        ];
        let delayed = stackfs("delayed", &options.concat())?;
        let mut mounted = site.mount_with(&delayed, &site.context("delayed"))?;
        let folder = mounted.root().join("delayed");
        fs::create_dir(&folder).map_err(AgentError::io(&folder, "create the folder"))?;
        let looked = look(late.verb, &folder, more(DELAYED_S));
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
