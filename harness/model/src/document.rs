//! What `eval` computes and `report` draws: comparisons and histories. Their figures are
//! computed once, by `eval`; a page only shows them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::device::Device;
use crate::environment::{Environment, Place};
use crate::plan::PlannedSystem;
use crate::test::Test;

/// Version of these documents; a page of another version is not drawn.
pub const VERSION: u32 = 1;

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
