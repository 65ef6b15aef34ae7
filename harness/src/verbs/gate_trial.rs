//! `eval gate-trial`: does the gate keep its promises on this machine?

use std::ops::Range;

use anyhow::{Result, bail};
use clap::Args;
use efuse_model::cell::{SLOW, TWIN};
use efuse_model::document::{Call, Judged, Outcome};
use serde::Serialize;

use super::{Context, Status};
use crate::cli::{LimitOptions, PlaceOptions, Selection};
use crate::judge::within::Within;
use crate::judge::{self, ALPHA};
use crate::metric::Metric;
use crate::stored::{self, Stored};
use crate::summary::Figures;
use crate::table::Table;
use crate::verbs::run as run_verb;

/// Try the gate: N times the same system against itself, and N times against itself with
/// slower handlers. Prints how often it raised an alarm in each, and stores that as
/// gate-trial.json in the run's folder.
///
/// All of it is one run, which `eval resume` goes on with if it is interrupted; `--run`
/// then judges it. Each gate has its own repetitions, as many as its comparisons need; its
/// A/A floor is that of the next gate's repetitions, so that it is not made of the figures
/// that are judged. Exits with 0 if no A/A gate raised an alarm and all slowed ones but one
/// in twenty did, with 1 if not, with 2 if a gate could not judge.
#[derive(Debug, Args)]
pub struct GateTrial {
    /// Gates of each kind.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(2..=1000))]
    gates: u32,
    /// The system.
    #[arg(long, default_value = "fuse")]
    system: String,
    /// How much longer the handlers of the slowed one take, percent.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    slow: u16,
    /// Smallest change that matters.
    #[arg(long, default_value = "1%", value_name = "1%", value_parser = share)]
    threshold: f64,
    /// Figures to judge.
    #[arg(long, value_delimiter = ',', value_parser = Metric::parse, value_name = "A,B",
          default_value = "read-iops,read-clat")]
    metrics: Vec<Metric>,
    /// The workload; one short test is enough.
    #[arg(long, default_value = "gate")]
    workload: String,
    /// Repetitions of each gate [default: as many as the comparisons need].
    #[arg(long)]
    repetitions: Option<u32>,
    /// Seed of the order [default: random, stored with the plan].
    #[arg(long)]
    seed: Option<u64>,
    /// Name of the run's folder.
    #[arg(long)]
    name: Option<String>,
    /// Judge this run of an earlier trial and measure nothing.
    #[arg(long, value_name = "RUN")]
    run: Option<String>,
    #[command(flatten)]
    place: PlaceOptions,
    #[command(flatten)]
    limits: LimitOptions,
}

fn share(text: &str) -> Result<f64, String> {
    efuse_workloads::parse_percent(text)
        .ok_or_else(|| format!("{text:?} is not a share from 0.1% to 100%, as in 1%"))
}

/// One gate of the trial.
#[derive(Debug, Serialize)]
struct Tried {
    gate: u32,
    system: String,
    repetitions: Range<u32>,
    outcome: Outcome,
    judged: Vec<Judged>,
}

#[derive(Debug, Serialize)]
struct Trial {
    run: String,
    base: String,
    slow_percent: u16,
    gates: u32,
    repetitions_per_gate: u32,
    threshold: f64,
    alpha: f64,
    /// Gates of the twin that called a regression.
    false_alarms: u32,
    /// Gates of the slowed system that did.
    caught: u32,
    /// Gates that could not judge.
    not_judged: u32,
    tried: Vec<Tried>,
}

/// Tries.
///
/// # Errors
/// If the run cannot be measured or is not complete.
pub fn run(context: &Context, verb: &GateTrial) -> Result<Status> {
    let twin = format!("{}{TWIN}", verb.system);
    let slowed = format!("{}{SLOW}{}", verb.system, verb.slow);
    let per_gate = per_gate(verb)?;
    let name = match &verb.run {
        Some(name) => name.clone(),
        None => {
            let name = verb.name.clone().unwrap_or_else(|| {
                let now = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S");
                format!("gate-trial-{now}")
            });
            let selection = Selection {
                workload: verb.workload.clone(),
                systems: Some(vec![verb.system.clone(), twin.clone(), slowed.clone()]),
                tests: None,
                scale: 1.0,
                repetitions: Some(per_gate * verb.gates),
                probed: Some(0),
                twin: Some(Vec::new()),
                precision: Some(crate::cli::Precision(None)),
                max_repetitions: None,
                device: None,
                destroy: None,
                seed: verb.seed,
                place: verb.place.clone(),
            };
            let limits = LimitOptions {
                no_report: true,
                ..verb.limits.clone()
            };
            let measure = run_verb::Run::new(selection, limits, name.clone());
            let status = run_verb::run(context, &measure)?;
            if status >= 128 {
                return Ok(status);
            }
            name
        }
    };
    let run = stored::run(&context.root, Some(&name))?;
    let trial = tally(&run, verb, [&twin, &slowed], per_gate)?;
    let path = run.dir.path().join("gate-trial.json");
    std::fs::write(&path, serde_json::to_string_pretty(&trial)? + "\n")?;
    context.print(&trial, || render(&trial, &path))?;
    let allowed = verb.gates / 20;
    Ok(
        // Those that could not be judged may have been caught.
        if trial.false_alarms > 0 || trial.caught + trial.not_judged + allowed < verb.gates {
            1
        } else if trial.not_judged > 0 {
            2
        } else {
            0
        },
    )
}

fn per_gate(verb: &GateTrial) -> Result<u32> {
    let workload = crate::catalogue::workload(&verb.workload)?;
    let family = workload.tests.len() * verb.metrics.len();
    let needed = u32::try_from(efuse_stats::pairs_needed(family, ALPHA))?;
    match verb.repetitions {
        Some(n) if n < needed => bail!(
            "{n} repetitions cannot be significant among {family} comparisons; --repetitions {needed} at least"
        ),
        Some(n) => Ok(n),
        None => Ok(needed),
    }
}

fn tally(run: &Stored, verb: &GateTrial, kinds: [&String; 2], per_gate: u32) -> Result<Trial> {
    for system in kinds.into_iter().chain([&verb.system]) {
        match run.plan.systems.iter().find(|s| s.id == *system) {
            Some(planned) => {
                if let Some(reason) = &planned.skipped {
                    bail!("{system} was not measured in {}: {reason}", run.label);
                }
            }
            None => bail!("{} is no trial of this kind: it has no {system}", run.label),
        }
    }
    if run.plan.repetitions < per_gate * verb.gates {
        bail!(
            "{} has {} repetitions, and {} gates of {per_gate} are asked for",
            run.label,
            run.plan.repetitions,
            verb.gates
        );
    }
    let figures = Figures::new(&run.plan, &run.attempts);
    let mut tried = Vec::new();
    for system in kinds {
        let within = Within {
            figures: &figures,
            plan: &run.plan,
            base: &verb.system,
            systems: vec![system.clone()],
            metrics: verb.metrics.clone(),
        };
        for gate in 0..verb.gates {
            let of = |gate: u32| gate * per_gate..(gate + 1) * per_gate;
            let questions = within.questions(&of(gate), &of((gate + 1) % verb.gates));
            let judged = judge::judge(&questions, verb.threshold, run.plan.seed);
            tried.push(Tried {
                gate,
                system: system.clone(),
                repetitions: of(gate),
                outcome: Outcome::of(&judged, &[]),
                judged,
            });
        }
    }
    let count = |system: &str, outcome: Outcome| -> u32 {
        let those = tried
            .iter()
            .filter(|t| t.system == system && t.outcome == outcome);
        u32::try_from(those.count()).unwrap_or(u32::MAX)
    };
    Ok(Trial {
        run: run.plan.run.clone(),
        base: verb.system.clone(),
        slow_percent: verb.slow,
        gates: verb.gates,
        repetitions_per_gate: per_gate,
        threshold: verb.threshold,
        alpha: ALPHA,
        false_alarms: count(kinds[0], Outcome::Regression),
        caught: count(kinds[1], Outcome::Regression),
        not_judged: kinds.iter().map(|k| count(k, Outcome::CouldNotJudge)).sum(),
        tried,
    })
}

fn render(trial: &Trial, path: &std::path::Path) -> String {
    let mut table = Table::new(&[
        ">gate",
        "system",
        "outcome",
        "figure",
        "verdict",
        ">ratio",
        "95 % interval",
        ">limit",
    ]);
    for t in &trial.tried {
        for j in &t.judged {
            table.row([
                (t.gate + 1).to_string(),
                t.system.clone(),
                t.outcome.words().to_owned(),
                j.metric.clone(),
                j.call.word().to_owned(),
                j.ratio
                    .map_or_else(|| "-".to_owned(), |r| format!("{r:.4}")),
                j.interval.map_or_else(
                    || {
                        j.reason
                            .clone()
                            .filter(|_| j.call == Call::Insufficient)
                            .unwrap_or_default()
                    },
                    |i| format!("[{:.4}, {:.4}]", i.low, i.high),
                ),
                format!("{:.2} %", j.limit * 100.0),
            ]);
        }
    }
    format!(
        "{}\n{} gates of {} repetitions each, threshold {:.1} %\nA/A: {} false alarms of {}\nhandlers {} % slower: {} of {} caught\nnot judged: {}\nstored in {}\n",
        table.render(),
        trial.gates * 2,
        trial.repetitions_per_gate,
        trial.threshold * 100.0,
        trial.false_alarms,
        trial.gates,
        trial.slow_percent,
        trial.caught,
        trial.gates,
        trial.not_judged,
        path.display()
    )
}
