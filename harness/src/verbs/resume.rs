//! `eval resume`.

use anyhow::Result;
use clap::Args;

use super::{Context, Status};
use crate::catalogue::Catalogue;
use crate::cli::LimitOptions;
use crate::execute::RunError;
use crate::measuring;
use crate::places::{self, GuestShape};
use crate::runs::{self, Run, RunLock};

/// Go on with a run: measure what has no figure yet, in the same order.
///
/// Refuses if the environment is not the one in which the run was begun.
#[derive(Debug, Args)]
pub struct Resume {
    /// Name of the run, or its folder [default: the newest].
    run: Option<String>,
    #[command(flatten)]
    limits: LimitOptions,
}

/// Resumes.
///
/// # Errors
/// If there is no such run, another `eval` has it, or something changed since.
pub fn run(context: &Context, verb: &Resume) -> Result<Status> {
    let run = runs::find(&context.root, verb.run.as_deref())?;
    let _lock = RunLock::take(&run.dir)?;
    let attempts = run.dir.attempts()?;
    let left = run.plan.order.iter().filter(|s| !attempts.done(s)).count();
    eprintln!(
        "eval: resuming {}: {left} of {} to measure",
        run.name,
        run.plan.order.len()
    );
    let catalogue = context.catalogue()?;
    if left > 0 {
        let changed = changed(context, &catalogue, &run)?;
        if !changed.is_empty() {
            return Err(RunError::Changed(changed).into());
        }
    }
    let shape = GuestShape::read(run.dir.path())?;
    let systems: Vec<String> = run.plan.systems.iter().map(|s| s.id.clone()).collect();
    let mut opener = places::opener(
        context,
        &catalogue,
        run.plan.place,
        &shape,
        &run.plan.device,
        &systems,
        &[],
    )?;
    measuring::finish(context, &run, None, &mut *opener, &verb.limits)
}

/// What changed since the run was begun, as far as it can be seen before anything is
/// booted.
fn changed(context: &Context, catalogue: &Catalogue, run: &Run) -> Result<Vec<String>> {
    let mut changed = catalogue.redefined(&run.plan.systems);
    if let Some(first) = run.dir.environment()? {
        let revision = crate::outside::revision(&context.root);
        if revision != first.revision {
            changed.push(format!("revision: {revision:?}, was {:?}", first.revision));
        }
    }
    Ok(changed)
}
