//! What `eval` computes and `report` draws: comparisons and histories. Their figures are
//! computed once, by `eval`; a page only shows them.

use std::path::PathBuf;

use efuse_stats::{Interval, Magnitude};
use serde::{Deserialize, Serialize};

use crate::device::Device;
use crate::environment::{Environment, Place};
use crate::plan::PlannedSystem;
use crate::test::Test;

/// Version of these documents; a page of another version is not drawn.
pub const VERSION: u32 = 1;

/// What a comparison says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Call {
    /// Worse, beyond chance and by more than the limit.
    Regression,
    /// Better, likewise.
    Improved,
    /// Certainly within the limit.
    Same,
    /// Neither can be said.
    Inconclusive,
    /// Too few repetitions, or no figure.
    Insufficient,
}

impl Call {
    /// Every call, the worst first.
    pub const ALL: [Self; 5] = [
        Self::Regression,
        Self::Insufficient,
        Self::Inconclusive,
        Self::Same,
        Self::Improved,
    ];

    /// In a word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Regression => "regression",
            Self::Improved => "improved",
            Self::Same => "same",
            Self::Inconclusive => "inconclusive",
            Self::Insufficient => "insufficient",
        }
    }
}

/// A comparison of one figure of one cell, new against old, with its call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// The test.
    pub test: String,
    /// The system.
    pub system: String,
    /// The figure.
    pub metric: String,
    /// Whether more of it is better.
    pub more_is_better: bool,
    /// What it says.
    pub call: Call,
    /// Median of the new and of the old side, of two runs: what the ratio is made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub medians: Option<(f64, f64)>,
    /// New over old, median.
    pub ratio: Option<f64>,
    /// 95 % interval of it.
    pub interval: Option<Interval>,
    /// Repetitions, new and old; pairs twice.
    pub n: (usize, usize),
    /// Two-sided p-value.
    pub p: Option<f64>,
    /// The same after Holm's correction.
    pub p_holm: Option<f64>,
    /// Cliff's delta of new against old.
    pub delta: Option<f64>,
    /// What that is called.
    pub magnitude: Option<Magnitude>,
    /// A/A floor as a share, if there was a twin.
    pub floor: Option<f64>,
    /// The larger of threshold and floor.
    pub limit: f64,
    /// Why it could not be judged.
    pub reason: Option<String>,
}

/// How a gate ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Everything was judged and nothing is a regression.
    Pass,
    /// Something is a regression.
    Regression,
    /// No regression was seen, and something could not be judged.
    CouldNotJudge,
}

impl Outcome {
    /// Of what was judged and what stood in the way.
    #[must_use]
    pub fn of(judged: &[Judged], problems: &[String]) -> Self {
        let any = |call| judged.iter().any(|j| j.call == call);
        if any(Call::Regression) {
            Self::Regression
        } else if judged.is_empty() || any(Call::Insufficient) || !problems.is_empty() {
            Self::CouldNotJudge
        } else {
            Self::Pass
        }
    }

    /// The exit status.
    #[must_use]
    pub const fn status(self) -> u8 {
        match self {
            Self::Pass => 0,
            Self::Regression => 1,
            Self::CouldNotJudge => 2,
        }
    }

    /// In words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Pass => "no regression",
            Self::Regression => "regression",
            Self::CouldNotJudge => "could not judge",
        }
    }
}

/// Everything that `verdict.json` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// What was judged, as in `run a against baseline b`.
    pub title: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Probability of a false alarm accepted for all comparisons together.
    pub alpha: f64,
    /// Smallest change that matters, as a share.
    pub threshold: f64,
    /// The comparisons.
    pub judged: Vec<Judged>,
    /// What could not be judged at all, or stands in the way of a whole judgement.
    pub problems: Vec<String>,
    /// What a reader has to know.
    pub notes: Vec<String>,
}

impl Verdict {
    /// How many comparisons have each call, the worst first.
    #[must_use]
    pub fn counts(&self) -> String {
        let count = |call| self.judged.iter().filter(|j| j.call == call).count();
        let parts: Vec<_> = Call::ALL
            .into_iter()
            .map(|call| (call, count(call)))
            .filter(|(_, n)| *n > 0)
            .map(|(call, n)| format!("{n} {}", call.word()))
            .collect();
        if parts.is_empty() {
            "nothing compared".to_owned()
        } else {
            parts.join(", ")
        }
    }
}

/// What `eval compare --json` prints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// [`VERSION`].
    pub version: u32,
    /// The judgement.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// What was compared, if both were found.
    pub sides: Option<Sides>,
}

/// A run or a baseline without its figures: what was measured, where, how and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// `run NAME` or `baseline NAME`.
    pub label: String,
    /// The run's own name.
    pub run: String,
    /// Its workload.
    pub workload: String,
    /// The command line that planned it.
    pub command: String,
    /// When.
    pub created: jiff::Timestamp,
    /// Seed of its order.
    pub seed: u64,
    /// Factor on sizes and times.
    pub scale: f64,
    /// Repetitions that were planned.
    pub repetitions: u32,
    /// Host or guest.
    pub place: Place,
    /// The block device.
    pub device: Device,
    /// Its systems, skipped ones too.
    pub systems: Vec<PlannedSystem>,
    /// Its tests.
    pub tests: Vec<Test>,
    /// The machine, if anything was measured.
    pub environment: Option<Environment>,
    /// The exact commands, distinct ones of each test.
    pub commands: Vec<MeasuredBy>,
}

/// A command that measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeasuredBy {
    /// The test.
    pub test: String,
    /// The command line.
    pub command: String,
}

/// Both sides of a comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sides {
    /// A, the old one.
    pub old: Side,
    /// B, the new one.
    pub new: Side,
    /// Everything in which their environments differ, as `field: new, was old`; revision
    /// and content hashes too.
    pub differences: Vec<String>,
    /// Those of them in which figures cannot be compared.
    pub forbidding: Vec<String>,
    /// Whether both are the same measurement.
    pub same: bool,
    /// The system that figures were related to inside each run; none where they were
    /// compared as they are.
    pub base: Option<String>,
    /// Where the page of this comparison belongs.
    pub page: PathBuf,
}

/// Ratios to a base over the baselines that are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// [`VERSION`].
    pub version: u32,
    /// The system that others are related to inside each run.
    pub base: String,
    /// The figures that were asked for.
    pub metrics: Vec<String>,
    /// One entry for each environment; figures of two never share a chart.
    pub environments: Vec<Panel>,
    /// What a reader has to know: baselines that could not be read, and the like.
    pub notes: Vec<String>,
    /// Where the page belongs.
    pub page: PathBuf,
}

/// The history in one environment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Panel {
    /// Baselines, the oldest first.
    pub points: Vec<Side>,
    /// The lines of all charts.
    pub series: Vec<Series>,
}

/// One figure of one system in one test over the baselines of an environment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// The test.
    pub test: Test,
    /// The system.
    pub system: String,
    /// The figure.
    pub metric: String,
    /// Whether more of it is better.
    pub more_is_better: bool,
    /// One entry for each baseline that has the test.
    pub values: Vec<Value>,
}

/// A ratio, or why there is none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Value {
    /// The baseline: its place among the panel's points.
    pub point: usize,
    /// Median of the ratios to the base, by pairs of repetitions.
    pub ratio: Option<f64>,
    /// Lower end of its 95 % interval.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// Pairs.
    pub n: usize,
    /// How far from 1 the ratio of a system to its twin was seen to lie, as a share.
    pub floor: Option<f64>,
    /// Why there is no ratio.
    pub reason: Option<String>,
}
