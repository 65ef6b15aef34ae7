//! `eval gate`: is it slower?

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;
use efuse_model::document::{Outcome, Verdict};
use efuse_model::environment::Clock;
use efuse_model::plan::{Plan, PlannedSystem};

use super::{Context, Status};
use crate::judge::between;
use crate::judge::render;
use crate::judge::within::{Within, default_systems};
use crate::judge::{self, ALPHA, METRICS, Question, THRESHOLD};
use crate::measuring::BASE;
use crate::metric::Metric;
use crate::stored::{self, Stored};
use crate::suggest;
use crate::summary::Figures;

/// Judge whether figures became worse: against a baseline, or against another system of
/// the same run.
///
/// Exits with 0 if nothing became worse, 1 on a regression, 2 if that could not be judged.
/// Writes verdict.json and verdict.md into the run's folder.
#[derive(Debug, Args)]
pub struct Gate {
    /// Name of the run, or its folder [default: the newest].
    run: Option<String>,
    /// The baseline to judge against [default: the base system of the same run].
    #[arg(long, value_name = "NAME")]
    baseline: Option<String>,
    #[command(flatten)]
    options: JudgeOptions,
    /// Systems to judge [default: all but the base and twins].
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "A,B",
        conflicts_with = "baseline"
    )]
    systems: Option<Vec<String>>,
    /// Folder for verdict.json and verdict.md [default: the run's].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// How it is judged.
#[derive(Clone, Debug, Args)]
pub struct JudgeOptions {
    /// The system that others are set in relation to, inside each run.
    #[arg(long, default_value = BASE, value_name = "SYSTEM")]
    pub base: String,
    /// Compare figures as they are instead of ratios to the base; what is done anyway with
    /// figures of --deterministic.
    #[arg(long)]
    pub absolute: bool,
    /// Smallest change that matters [default: 5%].
    #[arg(long, value_name = "5%", value_parser = threshold)]
    pub threshold: Option<f64>,
    /// Figures to judge.
    #[arg(long, value_delimiter = ',', value_parser = Metric::parse, value_name = "A,B")]
    pub metrics: Option<Vec<Metric>>,
}

impl JudgeOptions {
    /// The threshold.
    #[must_use]
    pub fn threshold(&self) -> f64 {
        self.threshold.unwrap_or(THRESHOLD)
    }

    /// The figures.
    ///
    /// # Panics
    /// Never: the default ones exist.
    #[must_use]
    pub fn metrics(&self) -> Vec<Metric> {
        self.metrics.clone().unwrap_or_else(|| {
            let parse = |name: &&str| Metric::parse(name).expect("a metric of the table");
            METRICS.iter().map(parse).collect()
        })
    }

    /// The base, or none where figures repeat as they are.
    #[must_use]
    pub fn base_of(&self, new: &Stored) -> Option<&str> {
        let counted = |c: Clock| matches!(c, Clock::Icount { .. });
        let repeats = new.environment.as_ref().is_some_and(|e| counted(e.clock));
        (!self.absolute && !repeats).then_some(&self.base)
    }
}

/// A share from 0.1 % to 100 %, as in `5%`.
fn threshold(text: &str) -> Result<f64, String> {
    efuse_workloads::parse_percent(text)
        .ok_or_else(|| format!("{text:?} is not a share from 0.1% to 100%, as in 5%"))
}

/// Judges.
///
/// # Errors
/// If standard output or the verdict's files cannot be written. Whatever keeps figures from
/// being judged is part of the verdict.
pub fn run(context: &Context, verb: &Gate) -> Result<Status> {
    let root = &context.root;
    let (verdict, folder) = match stored::run(root, verb.run.as_deref()) {
        Ok(run) => (judged(root, verb, &run), Some(run.dir.path().to_owned())),
        Err(e) => (
            refused(
                "gate".to_owned(),
                verb.options.threshold(),
                &format!("{e:#}"),
            ),
            None,
        ),
    };
    // First what was found: it may be all there is, if the disk is full.
    let status = finish(context, &verdict)?;
    if let Some(folder) = verb.out.as_ref().or(folder.as_ref()) {
        write(folder, &verdict)?;
    }
    Ok(status)
}

/// Prints a verdict and gives its exit status.
///
/// # Errors
/// If standard output is closed.
pub fn finish(context: &Context, verdict: &Verdict) -> Result<Status> {
    context.print(verdict, || render::text(verdict))?;
    explain(verdict);
    Ok(verdict.outcome.status())
}

/// Says on standard error what stood in the way of a judgement.
pub fn explain(verdict: &Verdict) {
    for problem in &verdict.problems {
        eprintln!("eval: {}: {problem}", verdict.outcome.words());
    }
    let insufficient = render::insufficient(verdict);
    if let (Outcome::CouldNotJudge, Some(first)) = (verdict.outcome, insufficient.first()) {
        eprintln!(
            "eval: could not judge {} of {} comparisons; the first: {first}",
            insufficient.len(),
            verdict.judged.len()
        );
    }
}

fn judged(root: &Path, verb: &Gate, run: &Stored) -> Verdict {
    let threshold = verb.options.threshold();
    match &verb.baseline {
        Some(name) => match stored::baseline(root, name) {
            Ok(baseline) => against(run, &baseline, &verb.options),
            Err(e) => refused(run.label.clone(), threshold, &format!("{e:#}")),
        },
        None => within(run, verb),
    }
}

/// One run against another.
#[must_use]
pub fn against(new: &Stored, old: &Stored, options: &JudgeOptions) -> Verdict {
    let title = format!("{} against {}", new.label, old.label);
    let base = options.base_of(new);
    match between::compare(new, old, base, &options.metrics()) {
        Ok(compared) => verdict(
            title,
            options.threshold(),
            &compared.questions,
            compared.problems,
            compared.notes,
            new.plan.seed,
        ),
        Err(problem) => refused(title, options.threshold(), &problem),
    }
}

fn within(run: &Stored, verb: &Gate) -> Verdict {
    let base = &verb.options.base;
    let title = format!("{}: systems against {base}", run.label);
    let refuse = |problem: &str| refused(title.clone(), verb.options.threshold(), problem);
    if !run.has_figures() {
        return refuse(&format!("{} is empty: it has no figure", run.label));
    }
    let known: Vec<&str> = run.plan.systems.iter().map(|s| s.id.as_str()).collect();
    let asked = verb.systems.clone().unwrap_or_default();
    for name in asked.iter().chain([base]) {
        if !known.contains(&name.as_str()) {
            return refuse(&suggest::unknown("system of this run", name, &known));
        }
    }
    if asked.contains(base) {
        return refuse(&format!(
            "{base} is the base: it cannot be compared with itself"
        ));
    }
    let systems = match &verb.systems {
        Some(systems) => systems.clone(),
        None => default_systems(&run.plan, base),
    };
    if systems.is_empty() {
        return refuse(&format!(
            "{} has no system to compare with {base}; to compare with another run: --baseline NAME",
            run.label
        ));
    }
    let figures = Figures::new(&run.plan, &run.attempts);
    let within = Within {
        figures: &figures,
        plan: &run.plan,
        base,
        systems,
        metrics: verb.options.metrics(),
    };
    let all = 0..u32::MAX;
    let mut questions = within.questions(&all, &all);
    // A twin that is judged itself cannot be its own floor.
    for question in &mut questions {
        let planned = run.plan.systems.iter().find(|s| s.id == question.system);
        if planned.is_some_and(|s| s.twin_of.is_some()) {
            question.floor = None;
        }
    }
    let (mut problems, mut notes) = (skipped(&run.plan, &verb.systems), Vec::new());
    let open = run.open_slots();
    if open > 0 {
        problems.push(format!(
            "{open} slots have no figure; go on with `eval resume {}`",
            run.plan.run
        ));
        problems.extend(run.attempts.damaged.iter().cloned());
    } else {
        notes.extend(run.attempts.damaged.iter().cloned());
    }
    if questions.iter().all(|q| q.floor.is_none()) {
        notes.push(
            "no system was measured twice (--twin), so the A/A floor of this machine is not known"
                .to_owned(),
        );
    }
    verdict(
        title,
        verb.options.threshold(),
        &questions,
        problems,
        notes,
        run.plan.seed,
    )
}

/// Systems that were to be judged, or to give the floor, and could not be measured.
fn skipped(plan: &Plan, asked: &Option<Vec<String>>) -> Vec<String> {
    let wanted = |system: &PlannedSystem| {
        asked.as_ref().is_none_or(|asked| {
            let original = system.twin_of.as_ref().unwrap_or(&system.id);
            asked.contains(&system.id) || asked.contains(original)
        })
    };
    let reason = |system: &PlannedSystem| {
        let reason = system.skipped.as_ref()?;
        Some(format!("{} was not measured: {reason}", system.id))
    };
    let systems = plan.systems.iter();
    systems.filter(|s| wanted(s)).filter_map(reason).collect()
}

fn verdict(
    title: String,
    threshold: f64,
    questions: &[Question],
    problems: Vec<String>,
    notes: Vec<String>,
    seed: u64,
) -> Verdict {
    let judged = judge::judge(questions, threshold, seed);
    Verdict {
        title,
        outcome: Outcome::of(&judged, &problems),
        alpha: ALPHA,
        threshold,
        judged,
        problems,
        notes,
    }
}

/// A verdict that there is none.
#[must_use]
pub fn refused(title: String, threshold: f64, problem: &str) -> Verdict {
    verdict(title, threshold, &[], vec![problem.to_owned()], vec![], 0)
}

/// Writes `verdict.json` and `verdict.md`.
///
/// # Errors
/// If the folder cannot be written.
pub fn write(folder: &Path, verdict: &Verdict) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for (name, text) in [
        (
            "verdict.json",
            serde_json::to_string_pretty(verdict)? + "\n",
        ),
        ("verdict.md", render::markdown(verdict)),
    ] {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
