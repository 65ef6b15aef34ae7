//! `eval list`.

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use super::{Context, Status};
use crate::runs::{self, Run};
use crate::table::Table;

/// List the stored runs, oldest first.
#[derive(Debug, Args)]
pub struct List {}

#[derive(Serialize)]
struct Entry {
    name: String,
    workload: String,
    created: jiff::Timestamp,
    place: efuse_model::environment::Place,
    accelerator: Option<efuse_model::environment::Accelerator>,
    revision: Option<String>,
    done: usize,
    slots: usize,
    failed_attempts: usize,
}

/// Lists.
///
/// # Errors
/// If the folder of the runs cannot be read.
pub fn run(context: &Context, _verb: &List) -> Result<Status> {
    let (all, unreadable) = runs::all(&context.root)?;
    for message in unreadable {
        eprintln!("eval: {message}");
    }
    let entries = all.iter().map(entry).collect::<Result<Vec<_>>>()?;
    context.print(&entries, || render(&entries))?;
    Ok(0)
}

fn entry(run: &Run) -> Result<Entry> {
    let attempts = run.dir.attempts()?;
    let environment = run.dir.environment()?;
    let done = run.plan.order.iter().filter(|s| attempts.done(s)).count();
    Ok(Entry {
        name: run.name.clone(),
        workload: run.plan.workload.clone(),
        created: run.plan.created,
        place: run.plan.place,
        accelerator: environment.as_ref().map(|e| e.accelerator),
        revision: environment.map(|e| e.revision),
        done,
        slots: run.plan.order.len(),
        failed_attempts: attempts
            .list
            .iter()
            .filter(|a| matches!(a.outcome, efuse_model::attempt::Outcome::Failed { .. }))
            .count(),
    })
}

fn render(entries: &[Entry]) -> String {
    if entries.is_empty() {
        return "no runs yet; start one with `eval quick`\n".to_owned();
    }
    let mut table = Table::new(&[
        "run",
        "workload",
        "created",
        "place",
        ">measured",
        ">failures",
        "revision",
    ]);
    for e in entries {
        table.row([
            e.name.clone(),
            e.workload.clone(),
            e.created.strftime("%Y-%m-%d %H:%M").to_string(),
            match e.accelerator {
                Some(a) => format!("{}/{a}", e.place),
                None => e.place.to_string(),
            },
            format!("{}/{}", e.done, e.slots),
            e.failed_attempts.to_string(),
            e.revision.clone().unwrap_or_default(),
        ]);
    }
    table.render()
}
