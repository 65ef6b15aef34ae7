//! `eval run`, and a workload's name alone.

use anyhow::{Context as _, Result, bail};
use clap::Args;
use efuse_model::environment::Place;
use efuse_model::store::RunDir;

use super::plan::{choose, expand};
use super::{Context, Status};
use crate::cli::{LimitOptions, Selection};
use crate::execute::{Limits, early_console, life};
use crate::interrupt::{exit_status, signal_name};
use crate::measuring;
use crate::places::{self, GuestShape};
use crate::planning;
use crate::progress::Steps;
use crate::runs::{self, RunLock};
use crate::session::{Opening, Session, SessionError};

/// Measure a workload and render its report.
#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    pub(crate) selection: Selection,
    #[command(flatten)]
    limits: LimitOptions,
    /// Name of the run's folder [default: workload, date and time].
    #[arg(long, value_parser = name)]
    name: Option<String>,
}

impl Run {
    /// As from the command line.
    #[must_use]
    pub fn new(selection: Selection, limits: LimitOptions, name: String) -> Self {
        Self {
            selection,
            limits,
            name: Some(name),
        }
    }
}

fn name(text: &str) -> Result<String, String> {
    runs::valid_name(text).map(|()| text.to_owned())
}

/// Measures.
///
/// # Errors
/// If there is nothing to measure or the run cannot go on.
pub fn run(context: &Context, verb: &Run) -> Result<Status> {
    let workloads = expand(&verb.selection.workload);
    let mut status = 0;
    for workload in &workloads {
        let name = verb.name.as_ref().map(|name| match workloads.len() {
            1 => name.clone(),
            _ => format!("{name}-{workload}"),
        });
        match one(context, verb, workload, name) {
            Ok(one) if one >= 128 => return Ok(one),
            Ok(one) => status = status.max(one),
            // The next profile may well fit.
            Err(e) if workloads.len() > 1 => {
                eprintln!("eval: {workload}: {e:#}");
                status = 1;
            }
            Err(e) => return Err(e),
        }
    }
    Ok(status)
}

fn one(context: &Context, verb: &Run, workload: &str, name: Option<String>) -> Result<Status> {
    let selection = &verb.selection;
    let place = Place::from(selection.place.place);
    let catalogue = context.catalogue()?;
    let chosen = choose(&catalogue, selection, workload)?;
    let names: Vec<String> = chosen.systems.iter().map(|s| s.id.clone()).collect();
    let shape = GuestShape::new(&selection.place, &chosen.device)?;
    let name = name.unwrap_or_else(|| {
        let now = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S");
        format!("{}-{now}", chosen.workload.name)
    });
    runs::valid_name(&name).map_err(anyhow::Error::msg)?;
    let folder = runs::runs_folder(&context.root);
    let path = folder.join(&name);
    if path.exists() {
        bail!(
            "there is a run {name} already; choose another --name, go on with `eval resume {name}`, \
             or remove it with `eval clean {name}`"
        );
    }
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let mut opener = places::opener(
        context,
        &catalogue,
        place,
        &shape,
        &chosen.device,
        &names,
        &[],
    )?;

    // The first session says which systems can run: only then is there a plan.
    let steps = Steps::new();
    let limits = Limits {
        cell: verb.limits.time_limit,
        ..Limits::default()
    };
    let everything = planning::build(chosen.request(&name, chosen.systems.clone()))?;
    let opening = Opening {
        console: early_console(&folder, &name),
        time_limit: life(&everything, &limits),
    };
    let opened = opener
        .open(&opening, &mut |step| steps.step(step))
        .and_then(|mut session| {
            let probed = session.probe(&names)?;
            Ok((session, probed))
        });
    drop(steps);
    if opened.is_err() && std::fs::metadata(&opening.console).is_ok_and(|m| m.len() == 0) {
        // No guest came to the point of saying anything; a console with text is named by
        // the message.
        let _ = std::fs::remove_file(&opening.console);
    }
    let (mut session, probed) = match opened {
        Ok(opened) => opened,
        Err(SessionError::Interrupted(signal)) => {
            eprintln!("eval: {}: nothing was measured yet", signal_name(signal));
            return Ok(exit_status(signal));
        }
        Err(e) => bail!("{e}"),
    };
    let mut systems = chosen.systems.clone();
    for system in &mut systems {
        system.skipped = match probed.iter().find(|(id, _)| *id == system.id) {
            Some((_, reason)) => reason.clone(),
            None => Some("the agent does not know it".to_owned()),
        };
        if let Some(reason) = &system.skipped {
            eprintln!("eval: skipping {}: {reason}", system.id);
        }
    }
    let plan = planning::build(chosen.request(&name, systems))?;
    let dir = RunDir::create(&path, &plan)?;
    let _lock = RunLock::take(&dir)?;
    shape.store(dir.path())?;
    keep_console(&mut *session, &dir)?;
    let run = runs::Run { name, dir, plan };
    measuring::finish(context, &run, Some(session), &mut *opener, &verb.limits)
}

/// Moves the first guest's console into the run's folder.
fn keep_console(session: &mut dyn Session, dir: &RunDir) -> Result<()> {
    if session.console().is_none() {
        return Ok(());
    }
    let to = dir.next_console();
    session
        .move_console(to.clone())
        .with_context(|| format!("cannot move the guest's console to {}", to.display()))
}
