//! `eval baseline save` and `eval baseline list`.

use anyhow::Result;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::{Context, Status};
use crate::stored;
use crate::table::Table;

/// Keep a run as what later ones are compared with, or list what is kept.
///
/// A baseline holds the plan, the environment and the finished attempts of a run, without
/// raw output and histograms, in results/baselines/NAME: small enough for the repository.
#[derive(Debug, Args)]
pub struct Baseline {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Keep a run's figures under a name.
    Save {
        /// Name of the baseline.
        name: String,
        /// Name of the run, or its folder [default: the newest].
        run: Option<String>,
    },
    /// List the baselines, oldest first.
    List,
}

#[derive(Serialize)]
struct Entry {
    name: String,
    run: String,
    workload: String,
    created: jiff::Timestamp,
    environment: Option<String>,
    revision: Option<String>,
    attempts: usize,
}

/// Saves or lists.
///
/// # Errors
/// If the run is not there, empty or not complete, or the name is taken.
pub fn run(context: &Context, verb: &Baseline) -> Result<Status> {
    match &verb.action {
        Action::Save { name, run } => {
            let run = stored::run(&context.root, run.as_deref())?;
            let path = stored::save_baseline(&context.root, name, &run)?;
            let value = serde_json::json!({ "baseline": name, "of": run.label, "path": path });
            context.print(&value, || {
                format!("baseline {name}: {} in {}\n", run.label, path.display())
            })?;
        }
        Action::List => {
            let (all, unreadable) = stored::baselines(&context.root)?;
            for message in unreadable {
                eprintln!("eval: {message}");
            }
            let mut entries = Vec::new();
            for baseline in all {
                let read = baseline.dir.environment();
                let read = read.and_then(|e| Ok((e, baseline.dir.attempts()?.list.len())));
                let (environment, attempts) = match read {
                    Ok(read) => read,
                    Err(error) => {
                        eprintln!("eval: baseline {}: {error}", baseline.name);
                        continue;
                    }
                };
                entries.push(Entry {
                    attempts,
                    name: baseline.name,
                    run: baseline.plan.run,
                    workload: baseline.plan.workload,
                    created: baseline.plan.created,
                    environment: environment
                        .as_ref()
                        .map(|e| format!("{}/{}, {} x {}", e.place, e.accelerator, e.cpus, e.cpu)),
                    revision: environment.map(|e| e.revision),
                });
            }
            context.print(&entries, || render(&entries))?;
        }
    }
    Ok(0)
}

fn render(entries: &[Entry]) -> String {
    if entries.is_empty() {
        return "no baselines yet; keep a run with `eval baseline save NAME [RUN]`\n".to_owned();
    }
    let mut table = Table::new(&[
        "baseline",
        "run",
        "workload",
        "created",
        ">attempts",
        "revision",
        "environment",
    ]);
    for e in entries {
        table.row([
            e.name.clone(),
            e.run.clone(),
            e.workload.clone(),
            e.created.strftime("%Y-%m-%d %H:%M").to_string(),
            e.attempts.to_string(),
            e.revision.clone().unwrap_or_default(),
            e.environment.clone().unwrap_or_default(),
        ]);
    }
    table.render()
}
