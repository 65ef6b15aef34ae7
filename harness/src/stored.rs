//! Stored figures by name: runs, baselines, and revisions that a baseline was saved of.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use efuse_model::attempt::Outcome;
use efuse_model::document::{MeasuredBy, Side};
use efuse_model::environment::Environment;
use efuse_model::plan::Plan;
use efuse_model::store::{Attempts, RunDir};

use crate::runs::{self, Run};
use crate::suggest;

/// Where the baselines are.
#[must_use]
pub fn baselines_folder(root: &Path) -> PathBuf {
    root.join("results/baselines")
}

/// A run or a baseline with everything that a comparison needs.
#[derive(Clone, Debug)]
pub struct Stored {
    /// `run NAME` or `baseline NAME`.
    pub label: String,
    /// Its folder.
    pub dir: RunDir,
    /// Its plan, with added slots.
    pub plan: Plan,
    /// Where it was measured, if anything was.
    pub environment: Option<Environment>,
    /// What was measured.
    pub attempts: Attempts,
}

impl Stored {
    fn open(kind: &str, run: Run) -> Result<Self> {
        Ok(Self {
            label: format!("{kind} {}", run.name),
            environment: run.dir.environment()?,
            attempts: run.dir.attempts()?,
            dir: run.dir,
            plan: run.plan,
        })
    }

    /// Slots of the headline's repetitions without a figure.
    #[must_use]
    pub fn open_slots(&self) -> usize {
        let headline = self.plan.order.iter().filter(|s| s.probes.is_off());
        headline.filter(|s| !self.attempts.done(s)).count()
    }

    /// What was measured, where, how and when, without figures.
    #[must_use]
    pub fn side(&self) -> Side {
        let plan = &self.plan;
        let mut commands: Vec<MeasuredBy> = Vec::new();
        let headline = self.attempts.list.iter().filter(|a| a.probes.is_off());
        for attempt in headline.filter(|a| matches!(a.outcome, Outcome::Done { .. })) {
            let by = MeasuredBy {
                test: attempt.test.clone(),
                command: attempt.command.clone(),
            };
            if !commands.contains(&by) {
                commands.push(by);
            }
        }
        Side {
            label: self.label.clone(),
            run: plan.run.clone(),
            workload: plan.workload.clone(),
            command: plan.command.clone(),
            created: plan.created,
            seed: plan.seed,
            scale: plan.scale,
            repetitions: plan.repetitions,
            place: plan.place,
            device: plan.device.clone(),
            systems: plan.systems.clone(),
            tests: plan.tests.clone(),
            environment: self.environment.clone(),
            commands,
        }
    }

    /// Whether anything was measured.
    #[must_use]
    pub fn has_figures(&self) -> bool {
        let done = |o: &Outcome| matches!(o, Outcome::Done { .. });
        self.attempts.list.iter().any(|a| done(&a.outcome))
    }
}

/// Every baseline, oldest first, and one message per folder that is none.
///
/// # Errors
/// If the folder exists and cannot be read.
pub fn baselines(root: &Path) -> Result<(Vec<Run>, Vec<String>)> {
    runs::all_in(&baselines_folder(root))
}

/// The run of this name or in this folder, the newest if none is named.
///
/// # Errors
/// If there is none, or it cannot be read.
pub fn run(root: &Path, name: Option<&str>) -> Result<Stored> {
    Stored::open("run", runs::find(root, name)?)
}

/// Every baseline with its figures, oldest first, and one message per folder that cannot be
/// read.
///
/// # Errors
/// If the folder exists and cannot be read.
pub fn all_baselines(root: &Path) -> Result<(Vec<Stored>, Vec<String>)> {
    let (all, mut unreadable) = baselines(root)?;
    let mut stored = Vec::new();
    for run in all {
        let name = run.name.clone();
        match Stored::open("baseline", run) {
            Ok(baseline) => stored.push(baseline),
            Err(e) => unreadable.push(format!("baseline {name}: {e:#}")),
        }
    }
    Ok((stored, unreadable))
}

/// The baseline of this name.
///
/// # Errors
/// If there is none, with those that there are, or it cannot be read.
pub fn baseline(root: &Path, name: &str) -> Result<Stored> {
    let path = baselines_folder(root).join(name);
    if runs::valid_name(name).is_ok() && path.is_dir() {
        return Stored::open("baseline", Run::open(&path)?);
    }
    let (all, _) = baselines(root)?;
    let names: Vec<&str> = all.iter().map(|b| b.name.as_str()).collect();
    if names.is_empty() {
        bail!("no baseline is named {name:?}; there are none yet: `eval baseline save NAME [RUN]`");
    }
    bail!(suggest::unknown("baseline", name, &names));
}

/// A run, a baseline, or the newest baseline of a revision; `run:NAME` and `baseline:NAME`
/// say which where a name is both.
///
/// # Errors
/// If it is none of these, or both of the first two.
pub fn find(root: &Path, name: &str) -> Result<Stored> {
    if let Some(name) = name.strip_prefix("run:") {
        return run(root, Some(name));
    }
    if let Some(name) = name.strip_prefix("baseline:") {
        return baseline(root, name);
    }
    if name.contains('/') {
        return run(root, Some(name));
    }
    let valid = runs::valid_name(name).is_ok();
    let is_run = valid && runs::runs_folder(root).join(name).is_dir();
    let is_baseline = valid && baselines_folder(root).join(name).is_dir();
    match (is_run, is_baseline) {
        (true, true) => {
            bail!("{name} is both a run and a baseline; say run:{name} or baseline:{name}")
        }
        (true, false) => return run(root, Some(name)),
        (false, true) => return baseline(root, name),
        (false, false) => {}
    }
    let (all, _) = baselines(root)?;
    let of_revision = |b: &&Run| {
        let environment = b.dir.environment().ok().flatten();
        name.len() >= 7 && environment.is_some_and(|e| e.revision.starts_with(name))
    };
    if let Some(found) = all.iter().rev().find(of_revision) {
        return Stored::open("baseline", found.clone());
    }
    let (stored, _) = runs::all(root)?;
    let names: Vec<&str> = stored.iter().chain(&all).map(|r| r.name.as_str()).collect();
    if names.is_empty() {
        bail!("nothing is stored as {name:?}: there is neither a run nor a baseline yet");
    }
    bail!(suggest::unknown(
        "run, baseline or revision of a baseline",
        name,
        &names
    ));
}

/// Copies what a comparison needs of a run: its plan, its environment and its finished
/// attempts, without raw output, histograms and consoles.
///
/// # Errors
/// If the run is not complete, the name is taken or no name, or the disk refuses.
pub fn save_baseline(root: &Path, name: &str, run: &Stored) -> Result<PathBuf> {
    runs::valid_name(name).map_err(anyhow::Error::msg)?;
    let Some(environment) = &run.environment else {
        bail!("{} is empty: nothing was measured in it", run.label);
    };
    if !run.has_figures() {
        bail!("{} is empty: it has no figure", run.label);
    }
    let open = run.open_slots();
    if open > 0 {
        bail!(
            "{} is not complete: {open} of its slots have no figure; go on with `eval resume` first",
            run.label
        );
    }
    let folder = baselines_folder(root);
    let path = folder.join(name);
    if path.exists() {
        bail!(
            "there is a baseline {name} already; choose another name, or remove {} first",
            path.display()
        );
    }
    // Beside first: a baseline is there as a whole or not at all.
    let temporary = folder.join(format!(".{name}.{}", std::process::id()));
    let result = write_baseline(&temporary, run, environment).and_then(|()| {
        fs::rename(&temporary, &path)
            .with_context(|| format!("cannot rename {}", temporary.display()))
    });
    if result.is_err() {
        // The error is what counts; what is left is hidden from every list.
        let _ = fs::remove_dir_all(&temporary);
    }
    result.map(|()| path)
}

fn write_baseline(path: &Path, run: &Stored, environment: &Environment) -> Result<()> {
    let dir = RunDir::create(path, &run.plan)?;
    // Empty in a baseline, and git keeps no empty folders.
    fs::remove_dir(path.join("raw")).context("cannot remove the folder for raw output")?;
    dir.set_environment(environment)?;
    for attempt in &run.attempts.list {
        let mut attempt = attempt.clone();
        attempt.raw = None;
        let Outcome::Done { metrics, .. } = &mut attempt.outcome else {
            continue;
        };
        let reads_and_writes = metrics.read.iter_mut().chain(&mut metrics.write);
        for op in reads_and_writes.chain(&mut metrics.operations) {
            op.clat_bins.bins.clear();
        }
        if let Some(counters) = &mut metrics.counters {
            counters.requests.clear();
        }
        dir.append(&attempt)?;
    }
    Ok(())
}
