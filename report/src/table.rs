//! The aggregated table: one row per test, system, direction and figure, with its ratio to
//! the base system.
//!
//! Computed with polars from a long frame (one line per repetition and figure): rows by
//! grouping, paired ratios by a column that relates each line to the base's line of the
//! same test, direction, figure and repetition.

use std::collections::HashMap;

use polars::prelude::*;
use serde::Serialize;

use crate::error::ReportError;
use crate::input::{Measured, Run};
use crate::metric::{Metric, Op};
use crate::stats::{self, Interval, Verdict};

/// The system that ratios are related to unless another is chosen.
pub const DEFAULT_BASE: &str = "fuse";

/// One repetition's value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    /// Repetition, from 0.
    pub repetition: u32,
    /// The value.
    pub value: f64,
}

/// A system related to the base.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ratio {
    /// Median of the ratios inside the repetitions that both have.
    pub median: f64,
    /// 95 % bootstrap interval; none with one pair.
    pub interval: Option<Interval>,
    /// Number of pairs.
    pub n: usize,
    /// What it says.
    pub verdict: Verdict,
    /// Every pair.
    pub points: Vec<Point>,
    /// Pairs whose two sides were measured in different boots or sessions.
    pub across_sessions: usize,
}

/// One row of the table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Identifier of the test.
    pub test: String,
    /// Identifier of the system.
    pub system: String,
    /// Direction.
    pub op: Op,
    /// The figure.
    pub metric: Metric,
    /// Unit of every value in this row except the ratio.
    pub unit: &'static str,
    /// Number of repetitions.
    pub n: usize,
    /// Median of the repetitions.
    pub median: f64,
    /// 95 % bootstrap interval of the median; none with one repetition.
    pub interval: Option<Interval>,
    /// Every repetition.
    pub points: Vec<Point>,
    /// The ratio to the base; none where the base has no figure or a figure of zero.
    pub ratio: Option<Ratio>,
}

/// The whole table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Table {
    /// The base of the ratios; none where the run does not have it.
    pub base: Option<String>,
    /// Rows in the order of the plan: test, system, direction, figure.
    pub rows: Vec<Row>,
}

impl Table {
    /// Aggregates a run. `base` is the system that ratios are related to; without one it
    /// is [`DEFAULT_BASE`] if the run has it.
    ///
    /// # Errors
    /// If the chosen base is not in the plan, or polars refuses.
    pub fn new(run: &Run, base: Option<&str>) -> Result<Self, ReportError> {
        let planned = |id: &str| run.plan.systems.iter().any(|s| s.id == id);
        let base = match base {
            Some(id) if !planned(id) => {
                return Err(ReportError::UnknownBase {
                    base: id.to_owned(),
                    have: run.plan.systems.iter().map(|s| s.id.clone()).collect(),
                });
            }
            Some(id) => Some(id.to_owned()),
            None => planned(DEFAULT_BASE).then(|| DEFAULT_BASE.to_owned()),
        };
        let seed = run.plan.seed;
        let frame = long_frame(&run.measured)?;
        let ratios = match &base {
            Some(base) => groups(&paired(&frame, base)?, "ratio")?,
            None => Vec::new(),
        };
        let mut rows = Vec::new();
        for group in groups(&frame, "value")? {
            let values: Vec<f64> = group.points.iter().map(|p| p.value).collect();
            let Some(median) = stats::median(&values) else {
                continue;
            };
            let Some((op, metric)) = group.op_metric() else {
                continue;
            };
            let ratio = ratios
                .iter()
                .find(|r| r.key == group.key)
                .and_then(|r| r.ratio(run, base.as_deref()?));
            let [test, system, ..] = group.key;
            rows.push(Row {
                test,
                system,
                op,
                metric,
                unit: metric.unit(),
                n: values.len(),
                median,
                interval: stats::bootstrap_median(&values, seed),
                points: group.points,
                ratio,
            });
        }
        let place = |row: &Row| {
            (
                run.plan.tests.iter().position(|t| t.id == row.test),
                run.plan.systems.iter().position(|s| s.id == row.system),
                row.op,
                row.metric,
            )
        };
        rows.sort_by_key(place);
        Ok(Self { base, rows })
    }

    /// The row of one figure.
    #[must_use]
    pub fn get(&self, test: &str, system: &str, op: Op, metric: Metric) -> Option<&Row> {
        self.rows
            .iter()
            .find(|r| r.op == op && r.metric == metric && r.test == test && r.system == system)
    }

    /// The rows of one figure over all systems of a test.
    pub fn across<'a>(
        &'a self,
        test: &'a str,
        op: Op,
        metric: Metric,
    ) -> impl Iterator<Item = &'a Row> {
        self.rows
            .iter()
            .filter(move |r| r.op == op && r.metric == metric && r.test == test)
    }

    /// A system related to any other in a figure of a test, pair by pair as with the base;
    /// `None` where no repetition has both.
    #[must_use]
    pub fn related(
        &self,
        run: &Run,
        (test, op, metric): (&str, Op, Metric),
        system: &str,
        to: &str,
    ) -> Option<Ratio> {
        let of = |system| self.get(test, system, op, metric);
        let base = of(to)?;
        let pairs = of(system)?.points.iter().filter_map(|p| {
            let b = base.points.iter().find(|b| b.repetition == p.repetition)?;
            (b.value > 0.0).then(|| Point {
                repetition: p.repetition,
                value: p.value / b.value,
            })
        });
        Ratio::of(run, test, (system, to), pairs.collect())
    }
}

impl Ratio {
    /// Of these pairs; `None` without any.
    fn of(run: &Run, test: &str, (system, base): (&str, &str), points: Vec<Point>) -> Option<Self> {
        let values: Vec<f64> = points.iter().map(|p| p.value).collect();
        let interval = stats::bootstrap_median(&values, run.plan.seed);
        let session = |of, repetition| session(run, test, of, repetition);
        let across_sessions = points
            .iter()
            .filter(|p| session(system, p.repetition) != session(base, p.repetition))
            .count();
        Some(Self {
            median: stats::median(&values)?,
            interval,
            n: values.len(),
            verdict: Verdict::of(interval),
            points,
            across_sessions,
        })
    }
}

const KEYS: [&str; 4] = ["test", "system", "op", "metric"];

/// One line per repetition, direction and figure.
fn long_frame(measured: &[Measured]) -> PolarsResult<DataFrame> {
    let (mut test, mut system) = (Vec::new(), Vec::new());
    let (mut op, mut metric) = (Vec::new(), Vec::new());
    let (mut repetition, mut value) = (Vec::new(), Vec::new());
    for m in measured {
        for direction in Op::ALL {
            let Some(figures) = direction.of(&m.metrics) else {
                continue;
            };
            for figure in Metric::ALL.into_iter().filter(|f| direction.has(*f)) {
                let Some(v) = figure.of(figures) else {
                    continue;
                };
                test.push(m.test.as_str());
                system.push(m.system.as_str());
                op.push(direction.name());
                metric.push(figure.key());
                repetition.push(m.repetition);
                value.push(v);
            }
        }
    }
    df!(
        "test" => test,
        "system" => system,
        "op" => op,
        "metric" => metric,
        "repetition" => repetition,
        "value" => value,
    )
}

/// Every line with a `ratio` to the base's line of the same test, direction, figure and
/// repetition. Lines without a counterpart, or whose counterpart is zero, fall out.
///
/// The join is a map, because polars keeps joins in a crate that would double its share
/// of the build.
fn paired(frame: &DataFrame, base: &str) -> PolarsResult<DataFrame> {
    let column = |name| frame.column(name).and_then(Column::str);
    let (test, system, op, metric) = (
        column("test")?,
        column("system")?,
        column("op")?,
        column("metric")?,
    );
    let repetition = frame.column("repetition")?.u32()?;
    let value = frame.column("value")?.f64()?;
    let key = |i: usize| (test.get(i), op.get(i), metric.get(i), repetition.get(i));
    let of_base: HashMap<_, f64> = (0..frame.height())
        .filter(|&i| system.get(i) == Some(base))
        .filter_map(|i| Some((key(i), value.get(i)?)))
        .filter(|(_, v)| *v > 0.0)
        .collect();
    let ratio: Float64Chunked = (0..frame.height())
        .map(|i| Some(value.get(i)? / of_base.get(&key(i))?))
        .collect();
    let has = ratio.is_not_null();
    let mut out = frame.clone();
    out.with_column(ratio.with_name("ratio".into()).into_column())?;
    out.filter(&has)
}

/// The lines of one test, system, direction and figure.
struct Group {
    /// In the order of [`KEYS`].
    key: [String; 4],
    points: Vec<Point>,
}

impl Group {
    fn op_metric(&self) -> Option<(Op, Metric)> {
        let op = Op::ALL.into_iter().find(|o| o.name() == self.key[2])?;
        let metric = Metric::ALL.into_iter().find(|m| m.key() == self.key[3])?;
        Some((op, metric))
    }

    fn ratio(&self, run: &Run, base: &str) -> Option<Ratio> {
        let [test, system, ..] = &self.key;
        Ratio::of(run, test, (system, base), self.points.clone())
    }
}

/// The boot or session that a repetition was measured in.
fn session<'a>(run: &'a Run, test: &str, system: &str, repetition: u32) -> Option<&'a str> {
    run.measured
        .iter()
        .find(|m| m.repetition == repetition && m.test == test && m.system == system)
        .map(|m| m.session.as_str())
}

/// Groups by [`KEYS`] and collects `column`, ordered by repetition.
fn groups(frame: &DataFrame, column: &str) -> PolarsResult<Vec<Group>> {
    if frame.height() == 0 {
        return Ok(Vec::new());
    }
    let frame = frame.sort(["repetition"], SortMultipleOptions::default())?;
    let keys = KEYS.map(|k| frame.column(k).and_then(Column::str));
    let [test, system, op, metric] = keys;
    let keys = [test?, system?, op?, metric?];
    let repetition = frame.column("repetition")?.u32()?;
    let values = frame.column(column)?.f64()?;
    let grouped = frame.group_by_stable(KEYS)?;
    let mut out = Vec::new();
    for group in grouped.get_groups().iter() {
        let indices: Vec<usize> = match group {
            GroupsIndicator::Idx((_, all)) => all.iter().map(|i| *i as usize).collect(),
            GroupsIndicator::Slice([first, len]) => {
                (first as usize..(first + len) as usize).collect()
            }
        };
        let Some(&first) = indices.first() else {
            continue;
        };
        let points = indices
            .iter()
            .filter_map(|&i| {
                Some(Point {
                    repetition: repetition.get(i)?,
                    value: values.get(i)?,
                })
            })
            .collect();
        out.push(Group {
            key: keys.map(|k| k.get(first).unwrap_or_default().to_owned()),
            points,
        });
    }
    Ok(out)
}
