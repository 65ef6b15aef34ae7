//! `eval clean`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use serde::Serialize;

use super::{Context, Status};
use crate::leftovers;
use crate::runs::{self, RunLock};

/// Unmount and remove what killed runs left on this machine, and remove runs by name.
#[derive(Debug, Args)]
pub struct Clean {
    /// Runs to remove, with everything that was measured in them.
    runs: Vec<String>,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Default, Serialize)]
struct Cleaned {
    dry_run: bool,
    runs: Vec<PathBuf>,
    leftovers: Vec<leftovers::Leftover>,
    consoles: Vec<PathBuf>,
    problems: Vec<String>,
}

/// Cleans.
///
/// # Errors
/// If a run is unknown or in use; nothing is removed then. If something cannot be removed.
pub fn run(context: &Context, verb: &Clean) -> Result<Status> {
    let mut doomed = Vec::new();
    for name in &verb.runs {
        let run = runs::find(&context.root, Some(name))?;
        let lock = RunLock::take(&run.dir)?;
        doomed.push((run.dir.path().to_owned(), lock));
    }
    let state = leftovers::state_folder(&context.root);
    let mut cleaned = Cleaned {
        dry_run: verb.dry_run,
        runs: doomed.iter().map(|(path, _)| path.clone()).collect(),
        leftovers: leftovers::find(&state)?,
        consoles: orphans(context)?,
        problems: vec![],
    };
    if !verb.dry_run {
        cleaned.problems = efuse_agent::sweep(&state);
        for console in &cleaned.consoles {
            fs::remove_file(console)
                .with_context(|| format!("cannot remove {}", console.display()))?;
        }
        for (path, lock) in doomed {
            fs::remove_dir_all(&path)
                .with_context(|| format!("cannot remove {}", path.display()))?;
            drop(lock);
        }
    }
    context.print(&cleaned, || render(&cleaned))?;
    Ok(Status::from(!cleaned.problems.is_empty()))
}

/// Consoles of guests that were killed before their run was stored: an hour old at least.
fn orphans(context: &Context) -> Result<Vec<PathBuf>> {
    let folder = runs::runs_folder(&context.root);
    let Ok(entries) = fs::read_dir(&folder) else {
        return Ok(vec![]);
    };
    let mut out = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let old = entry
            .metadata()?
            .modified()?
            .elapsed()
            .is_ok_and(|age| age.as_secs() > 3600);
        if name.starts_with('.') && name.ends_with("-console.log") && old {
            out.push(entry.path());
        }
    }
    Ok(out)
}

fn render(cleaned: &Cleaned) -> String {
    let verb = if cleaned.dry_run {
        "would remove"
    } else {
        "removed"
    };
    let mut lines: Vec<String> = Vec::new();
    for run in cleaned.runs.iter().chain(&cleaned.consoles) {
        lines.push(format!("{verb} {}", run.display()));
    }
    for left in &cleaned.leftovers {
        lines.push(format!(
            "{verb} {} with {} mounts",
            left.folder.display(),
            left.mounts.len()
        ));
    }
    lines.extend(cleaned.problems.iter().map(|p| format!("problem: {p}")));
    if lines.is_empty() {
        lines.push("nothing to clean".to_owned());
    }
    lines.join("\n") + "\n"
}
