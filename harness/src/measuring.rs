//! The last stretch that `run` and `resume` share: execute, sum up, render.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use crate::cli::LimitOptions;
use crate::estimate::Clock;
use crate::execute::{self, Limits, RunError};
use crate::interrupt::{exit_status, signal_name};
use crate::places::GuestShape;
use crate::progress;
use crate::reporter;
use crate::runs::Run;
use crate::session::{Opener, Session};
use crate::summary::{self, Figures, Row};
use crate::verbs::plan::learn;
use crate::verbs::{Context, Status};

/// The system with which the summary compares.
pub const BASE: &str = "fuse";

#[derive(Serialize)]
struct Finished<'a> {
    run: &'a str,
    path: &'a Path,
    done: usize,
    slots: usize,
    report: Option<PathBuf>,
    base: &'a str,
    rows: &'a [Row],
}

/// Measures what the run has not measured yet, prints the summary and renders the report.
///
/// # Errors
/// If the run cannot go on; the message says how to resume. The exit status is 1 if slots
/// were left without a figure, and that of the signal if the user interrupted.
pub fn finish(
    context: &Context,
    run: &Run,
    session: Option<Box<dyn Session>>,
    opener: &mut dyn Opener,
    options: &LimitOptions,
) -> Result<Status> {
    let limits = Limits {
        cell: options.time_limit,
        ..Limits::default()
    };
    let mut clock = Clock::new(&run.plan);
    learn(context, &mut clock, &GuestShape::read(run.dir.path())?);
    let mut watch = progress::watch();
    let result = execute::execute(
        &run.dir,
        &run.plan,
        session,
        opener,
        &mut *watch,
        &context.interrupt,
        limits,
        clock,
    );
    drop(watch);
    let resume = format!("eval resume {}", run.name);
    let completion = match result {
        Ok(completion) => completion,
        Err(RunError::Interrupted(signal)) => {
            let attempts = run.dir.attempts()?;
            let plan = run.dir.plan()?;
            let done = plan.order.iter().filter(|s| attempts.done(s)).count();
            eprintln!(
                "eval: {}: {done} of {} measured and stored; go on with: {resume}",
                signal_name(signal),
                plan.order.len()
            );
            return Ok(exit_status(signal));
        }
        Err(e @ RunError::Changed(_)) => return Err(e.into()),
        Err(RunError::Store(e)) => {
            bail!(
                "{e}\nwhat was measured before is stored; free space or mend that, then: {resume}"
            )
        }
        Err(e) => bail!("{e}\nwhat was measured is stored; go on with: {resume}"),
    };
    // With the slots that were added.
    let plan = run.dir.plan()?;
    let attempts = run.dir.attempts()?;
    let rows = Figures::new(&plan, &attempts).rows(BASE);
    let emulated = run
        .dir
        .environment()?
        .is_some_and(|e| e.accelerator.emulated());
    let report = if options.no_report {
        Ok(None)
    } else {
        reporter::run_page(&context.root, run.dir.path()).map(Some)
    };
    let finished = Finished {
        run: &run.name,
        path: run.dir.path(),
        done: completion.done,
        slots: plan.order.len(),
        report: report.as_ref().ok().cloned().flatten(),
        base: BASE,
        rows: &rows,
    };
    context.print(&finished, || {
        let mut text = summary::render(&plan, &rows, BASE, emulated);
        text.push_str(&format!("run     {}\n", run.dir.path().display()));
        if let Ok(Some(path)) = &report {
            text.push_str(&format!("report  {}\n", path.display()));
        }
        text
    })?;
    if !completion.failed.is_empty() {
        eprintln!(
            "eval: {} of {} slots have no figure (reasons above); `{resume}` tries them again",
            completion.failed.len(),
            plan.order.len()
        );
    }
    report.context("what was measured is stored, but its report is missing")?;
    Ok(Status::from(!completion.failed.is_empty()))
}
