//! `eval show`.

use std::fmt::Write as _;

use anyhow::Result;
use clap::Args;
use efuse_model::environment::Environment;
use efuse_model::plan::Plan;
use serde::Serialize;

use super::{Context, Status};
use crate::runs;
use crate::summary::{self, Figures, Row};
use crate::units::show_device;

/// Show what a run measured.
#[derive(Debug, Args)]
pub struct Show {
    /// Name of the run, or its folder [default: the newest].
    run: Option<String>,
    /// The system that the others are compared with.
    #[arg(long, default_value = "fuse", value_name = "SYSTEM")]
    base: String,
}

#[derive(Serialize)]
struct Shown<'a> {
    run: &'a str,
    path: std::path::PathBuf,
    plan: &'a Plan,
    environment: &'a Option<Environment>,
    done: usize,
    slots: usize,
    base: &'a str,
    rows: &'a [Row],
    damaged: &'a [String],
}

/// Shows.
///
/// # Errors
/// If there is no such run, or it cannot be read.
pub fn run(context: &Context, verb: &Show) -> Result<Status> {
    let run = runs::find(&context.root, verb.run.as_deref())?;
    let attempts = run.dir.attempts()?;
    let environment = run.dir.environment()?;
    let plan = &run.plan;
    let rows = Figures::new(plan, &attempts).rows(&verb.base);
    let shown = Shown {
        run: &run.name,
        path: run.dir.path().to_owned(),
        plan,
        environment: &environment,
        done: plan.order.iter().filter(|s| attempts.done(s)).count(),
        slots: plan.order.len(),
        base: &verb.base,
        rows: &rows,
        damaged: &attempts.damaged,
    };
    context.print(&shown, || render(&shown))?;
    Ok(0)
}

fn render(shown: &Shown<'_>) -> String {
    let plan = shown.plan;
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "{}: workload {}, scale {}, {}/{} measured, seed {}\n{}\ndevice      {}",
        shown.run,
        plan.workload,
        plan.scale,
        shown.done,
        shown.slots,
        plan.seed,
        shown.path.display(),
        show_device(&plan.device),
    );
    if let Some(e) = shown.environment {
        let _ = writeln!(
            out,
            "environment {}/{}, kernel {}, {} x {}, revision {}",
            e.place, e.accelerator, e.kernel, e.cpus, e.cpu, e.revision
        );
    }
    out.push('\n');
    let emulated = shown
        .environment
        .as_ref()
        .is_some_and(|e| e.accelerator.emulated());
    out.push_str(&summary::render(plan, shown.rows, shown.base, emulated));
    for damaged in shown.damaged {
        let _ = writeln!(out, "damaged  {damaged}");
    }
    out
}
