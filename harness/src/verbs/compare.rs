//! `eval compare`.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;

use super::gate::{JudgeOptions, against, finish, refused};
use super::{Context, Status};
use crate::judge::Outcome;
use crate::stored;

/// Compare two runs, baselines, or revisions of which there is a baseline: A is the old
/// one, B the new.
///
/// The rules are the gate's. Exits with 0 if they could be compared, whatever came out, and
/// with 2 if not.
#[derive(Debug, Args)]
pub struct Compare {
    /// The old one: a run, a baseline, or a revision.
    a: String,
    /// The new one.
    b: String,
    #[command(flatten)]
    options: JudgeOptions,
    /// Also write a page of its own.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Compares.
///
/// # Errors
/// If the page or standard output cannot be written.
pub fn run(context: &Context, verb: &Compare) -> Result<Status> {
    let root = &context.root;
    let sides = stored::find(root, &verb.a).and_then(|a| Ok((a, stored::find(root, &verb.b)?)));
    let verdict = match sides {
        Ok((old, new)) => against(&new, &old, &verb.options),
        Err(e) => refused(
            format!("{} against {}", verb.b, verb.a),
            verb.options.threshold(),
            &format!("{e:#}"),
        ),
    };
    if let Some(path) = &verb.html {
        std::fs::write(path, verdict.html())
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    finish(context, &verdict)?;
    let status = match verdict.outcome {
        Outcome::CouldNotJudge => Outcome::CouldNotJudge.status(),
        Outcome::Pass | Outcome::Regression => 0,
    };
    Ok(status)
}
