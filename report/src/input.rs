//! Reads a run and decides which attempts give figures.
//!
//! An attempt gives figures when it is done, belongs to a cell of the plan, is the first
//! such of its slot, checked at least something where its test asks for checks, and
//! carries only finite, non-negative figures. Everything else is kept with its reason:
//! the report shows what it left out.
//!
//! Repetitions with probes inside the kernel are kept apart: they are slower, so no
//! headline figure comes from them.

use efuse_model::attempt::{Attempt, Metrics, OpMetrics, Outcome, Verified};
use efuse_model::counters::Probes;
use efuse_model::environment::Environment;
use efuse_model::plan::{Plan, PlannedSystem};
use efuse_model::store::{Attempts, RunDir};
use efuse_model::test::Test;

use crate::error::ReportError;
use crate::stats;
use crate::table::Ratio;

/// A repetition whose figures count.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Identifier of the test.
    pub test: String,
    /// Identifier of the system.
    pub system: String,
    /// Repetition, from 0.
    pub repetition: u32,
    /// Boot or session it was measured in.
    pub session: String,
    /// The exact fio command line.
    pub command: String,
    /// The figures.
    pub metrics: Metrics,
    /// What was checked.
    pub verified: Verified,
}

/// An attempt without figures.
#[derive(Clone, Debug)]
pub struct LeftOut {
    /// Identifier of the test.
    pub test: String,
    /// Identifier of the system.
    pub system: String,
    /// Repetition, from 0.
    pub repetition: u32,
    /// Whether it was a repetition with probes.
    pub probes: Probes,
    /// Which try at it, from 0.
    pub attempt: u32,
    /// The step that failed, or `report` where the report refused the figures.
    pub step: String,
    /// Why.
    pub reason: String,
    /// Whether the same slot has figures from another attempt.
    pub made_good: bool,
}

/// A run, sorted out.
#[derive(Clone, Debug)]
pub struct Run {
    /// The plan.
    pub plan: Plan,
    /// The environment, if one was recorded.
    pub environment: Option<Environment>,
    /// What counts: repetitions without probes.
    pub measured: Vec<Measured>,
    /// Repetitions with probes, for what only probes can count and for their cost.
    pub probed: Vec<Measured>,
    /// What does not, with reasons.
    pub left_out: Vec<LeftOut>,
    /// Lines of `attempts.jsonl` that cannot be read.
    pub damaged: Vec<String>,
}

impl Run {
    /// Reads a run's folder.
    ///
    /// # Errors
    /// If the plan, the environment or the attempts cannot be read. Single damaged lines
    /// of attempts are listed in [`Run::damaged`] instead.
    pub fn load(dir: &RunDir) -> Result<Self, ReportError> {
        let mut attempts = dir.attempts()?;
        // The page may be handed on: where the run lay is nobody's business.
        let folder = format!("{}/", dir.path().display());
        for line in &mut attempts.damaged {
            *line = line.replace(&folder, "");
        }
        Ok(Self::new(dir.plan()?, dir.environment()?, attempts))
    }

    /// Sorts out attempts that were read already.
    #[must_use]
    pub fn new(plan: Plan, environment: Option<Environment>, attempts: Attempts) -> Self {
        // Hashing a cell is dear enough not to do it once per attempt and cell.
        let cells: Vec<_> = plan.cells.iter().map(|c| (c.key(), c)).collect();
        let (mut measured, mut probed): (Vec<Measured>, Vec<Measured>) = (Vec::new(), Vec::new());
        let mut left_out = Vec::new();
        for attempt in attempts.list {
            let cell = cells
                .iter()
                .find(|(k, _)| *k == attempt.cell)
                .map(|(_, c)| *c);
            let test = cell
                .map_or(attempt.test.as_str(), |c| &c.test.id)
                .to_owned();
            let system = cell
                .map_or(attempt.system.as_str(), |c| &c.system)
                .to_owned();
            let into = match attempt.probes {
                Probes::Off => &mut measured,
                Probes::On => &mut probed,
            };
            let refusal = match (&attempt.outcome, cell) {
                (Outcome::Failed { phase, reason }, _) => Some((phase.name(), reason.clone())),
                (Outcome::Done { .. }, None) => Some((
                    "report",
                    format!("cell {} is not in the plan: not used", attempt.cell),
                )),
                (Outcome::Done { metrics, verified }, Some(cell)) => {
                    let earlier = into.iter().any(|m| {
                        m.test == test && m.system == system && m.repetition == attempt.repetition
                    });
                    refuse(&cell.test, metrics, verified)
                        .or_else(|| {
                            earlier.then(|| {
                                "the repetition was finished before: the first result counts".into()
                            })
                        })
                        .map(|reason| ("report", reason))
                }
            };
            let Attempt {
                repetition,
                probes,
                attempt: try_number,
                session,
                command,
                outcome,
                ..
            } = attempt;
            match (refusal, outcome) {
                (None, Outcome::Done { metrics, verified }) => into.push(Measured {
                    test,
                    system,
                    repetition,
                    session,
                    command,
                    metrics: *metrics,
                    verified,
                }),
                (Some((step, reason)), _) => left_out.push(LeftOut {
                    test,
                    system,
                    repetition,
                    probes,
                    attempt: try_number,
                    step: step.to_owned(),
                    reason,
                    made_good: false,
                }),
                (None, Outcome::Failed { .. }) => unreachable!("a failure always has a reason"),
            }
        }
        for l in &mut left_out {
            let of_its_kind = match l.probes {
                Probes::Off => &measured,
                Probes::On => &probed,
            };
            l.made_good = of_its_kind
                .iter()
                .any(|m| m.test == l.test && m.system == l.system && m.repetition == l.repetition);
        }
        Self {
            plan,
            environment,
            measured,
            probed,
            left_out,
            damaged: attempts.damaged,
        }
    }

    /// The test with this identifier.
    #[must_use]
    pub fn test(&self, id: &str) -> Option<&Test> {
        self.plan.tests.iter().find(|t| t.id == id)
    }

    /// The repetitions of one system in one test that count.
    pub fn of<'a>(&'a self, test: &'a str, system: &'a str) -> impl Iterator<Item = &'a Measured> {
        self.measured
            .iter()
            .filter(move |m| m.test == test && m.system == system)
    }

    /// The probed repetitions of one system in one test.
    pub fn probed_of<'a>(
        &'a self,
        test: &'a str,
        system: &'a str,
    ) -> impl Iterator<Item = &'a Measured> {
        self.probed
            .iter()
            .filter(move |m| m.test == test && m.system == system)
    }

    /// Slots of the plan of this kind.
    #[must_use]
    pub fn planned(&self, probes: Probes) -> usize {
        self.plan
            .order
            .iter()
            .filter(|s| s.probes == probes)
            .count()
    }

    /// Repetitions without probes that are planned of a system in a test.
    #[must_use]
    pub fn planned_of(&self, test: &str, system: &str) -> u32 {
        let mut cells = self.plan.cells.iter();
        cells
            .find(|c| c.test.id == test && c.system == system)
            .map_or(0, |c| self.plan.slots_of(&c.key(), Probes::Off))
    }

    /// How far the interval of a ratio reaches on each side, as a share of it, where that
    /// is more than the plan allows.
    #[must_use]
    pub fn unstable(&self, base: &str, ratio: &Ratio) -> Option<f64> {
        let adaptive = self.plan.adaptive.as_ref().filter(|a| a.base == base)?;
        let width = stats::relative_half_width(ratio.median, ratio.interval?);
        (width > adaptive.precision).then_some(width)
    }

    /// The second measurement of a system under another name, if the run has one (A/A).
    #[must_use]
    pub fn twin(&self, system: &str) -> Option<&PlannedSystem> {
        self.plan
            .systems
            .iter()
            .find(|s| s.twin_of.as_deref() == Some(system))
    }

    /// Whether every figure is emulated; `None` where no environment was recorded.
    #[must_use]
    pub fn emulated(&self) -> Option<bool> {
        self.environment.as_ref().map(|e| e.accelerator.emulated())
    }

    /// Why a system has no figure in a test: its reason for being skipped, its last
    /// failure, or that it was not measured yet.
    #[must_use]
    pub fn why_missing(&self, test: &str, system: &str) -> String {
        let planned = self.plan.systems.iter().find(|s| s.id == system);
        if let Some(reason) = planned.and_then(|s| s.skipped.as_deref()) {
            return format!("skipped: {reason}");
        }
        match self
            .left_out
            .iter()
            .rev()
            .find(|l| l.probes.is_off() && l.test == test && l.system == system)
        {
            Some(l) => format!("failed in {}: {}", l.step, l.reason),
            None => "not measured".to_owned(),
        }
    }
}

/// Why the figures of a finished attempt are not used.
fn refuse(test: &Test, metrics: &Metrics, verified: &Verified) -> Option<String> {
    if [&metrics.read, &metrics.write, &metrics.operations]
        .iter()
        .all(|op| op.is_none())
    {
        return Some("it has no figures of reads, writes or operations".into());
    }
    let asks = test.verify.read_bytes > 0 || test.verify.write_bytes > 0 || test.verify.compare;
    if asks && *verified == Verified::default() {
        return Some("nothing was verified although the test asks for it".into());
    }
    for (name, op) in [
        ("read", &metrics.read),
        ("write", &metrics.write),
        ("operation", &metrics.operations),
    ] {
        if let Some(problem) = op.as_ref().and_then(bad_figure) {
            return Some(format!("{name} {problem}"));
        }
    }
    None
}

fn bad_figure(op: &OpMetrics) -> Option<String> {
    let mut figures = vec![("iops", op.iops), ("bytes_per_s", op.bytes_per_s)];
    for (name, l) in [("slat", &op.slat), ("clat", &op.clat), ("lat", &op.lat)] {
        figures.extend([(name, l.mean_us), (name, l.stddev_us)]);
        figures.extend(l.percentiles.iter().map(|(_, us)| (name, *us)));
    }
    figures
        .into_iter()
        .find(|(_, v)| !v.is_finite() || *v < 0.0)
        .map(|(name, v)| format!("{name} is {v}, which is no measurement: not used"))
}
