//! Tables and ratios of what a run has stored.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use efuse_model::attempt::{Attempt, Metrics, Outcome, Verified};
use efuse_model::cell::Cell;
use efuse_model::counters::Probes;
use efuse_model::plan::Plan;
use efuse_model::store::Attempts;
use efuse_stats::Interval;
use serde::Serialize;

use crate::adaptive::{self, Wide};
use crate::metric::Metric;
use crate::planning::{self, JUDGED_FROM};
use crate::table::Table;
use crate::units::{show_bytes, show_figure, show_slot};

/// The figures of a run, by system, test and repetition. Of several finished attempts
/// at a slot (there should be one) the first counts. Repetitions with probes are kept apart:
/// no headline is made of them.
#[derive(Debug)]
pub struct Figures<'a> {
    plan: &'a Plan,
    attempts: &'a Attempts,
    done: BTreeMap<Key<'a>, (&'a Metrics, &'a Verified)>,
    failed: BTreeMap<Key<'a>, &'a Attempt>,
}

/// System, test, probes, repetition.
type Key<'a> = (&'a str, &'a str, Probes, u32);

/// A ratio of two systems.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ratio {
    /// Numerator.
    pub a: String,
    /// Denominator.
    pub b: String,
    /// The test.
    pub test: String,
    /// The metric.
    pub metric: &'static str,
    /// Median of the ratios of paired repetitions.
    pub median: f64,
    /// 95 % interval of the median; none for a single pair.
    pub interval: Option<Interval>,
    /// Pairs.
    pub n: usize,
    /// The ratio of each pair, in order of repetition.
    pub ratios: Vec<f64>,
}

impl Ratio {
    /// `0.145 [0.140, 0.151] n=3`.
    #[must_use]
    pub fn figures(&self) -> String {
        let interval = match self.interval {
            Some(Interval { low, high }) => format!("[{low:.3}, {high:.3}]"),
            None => "[-, -]".to_owned(),
        };
        format!("{:.3} {interval} n={}", self.median, self.n)
    }
}

/// One row of the summary.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The test.
    pub test: String,
    /// The system.
    pub system: String,
    /// Why it was not measured at all.
    pub skipped: Option<String>,
    /// Repetitions with a figure.
    pub n: usize,
    /// Repetitions planned.
    pub planned: u32,
    /// Median of read IOPS.
    pub read_iops: Option<f64>,
    /// Median of write IOPS.
    pub write_iops: Option<f64>,
    /// Read IOPS against the base system.
    pub read_ratio: Option<Ratio>,
    /// Median of metadata operations per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation_rate: Option<f64>,
    /// Metadata operations per second against the base system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation_ratio: Option<Ratio>,
    /// Metadata operations whose answers were checked.
    pub verified_operations: u64,
    /// Write IOPS against the base system.
    pub write_ratio: Option<Ratio>,
    /// Bytes whose content was checked, over the repetitions.
    pub verified_bytes: u64,
    /// Why repetitions have no figure: `rN phase: reason`, the newest attempt of each.
    pub failures: Vec<String>,
    /// Repetitions with probes that have a figure.
    pub probed: usize,
    /// IOPS with probes against those without, of the same repetition: what probes cost.
    pub probe_cost: Option<Ratio>,
    /// Why its ratio to the base is less certain than was asked for, if it is.
    pub unstable: Option<String>,
}

impl<'a> Figures<'a> {
    /// Sorts the attempts.
    #[must_use]
    pub fn new(plan: &'a Plan, attempts: &'a Attempts) -> Self {
        let mut done = BTreeMap::new();
        let mut failed = BTreeMap::new();
        for attempt in &attempts.list {
            let key = (
                attempt.system.as_str(),
                attempt.test.as_str(),
                attempt.probes,
                attempt.repetition,
            );
            match &attempt.outcome {
                Outcome::Done { metrics, verified } => {
                    done.entry(key).or_insert((&**metrics, verified));
                }
                Outcome::Failed { .. } => {
                    failed.insert(key, attempt);
                }
            }
        }
        failed.retain(|key, _| !done.contains_key(key));
        Self {
            plan,
            attempts,
            done,
            failed,
        }
    }

    /// The figures of a cell by repetition.
    fn of(
        &self,
        system: &str,
        test: &str,
        probes: Probes,
    ) -> Vec<(u32, &'a Metrics, &'a Verified)> {
        self.done
            .range((system, test, probes, 0)..=(system, test, probes, u32::MAX))
            .map(|((.., r), (m, v))| (*r, *m, *v))
            .collect()
    }

    /// Values of a metric by repetition, without probes.
    #[must_use]
    pub fn values(&self, system: &str, test: &str, metric: Metric) -> BTreeMap<u32, f64> {
        self.values_of(system, test, Probes::Off, metric)
    }

    fn values_of(
        &self,
        system: &str,
        test: &str,
        probes: Probes,
        metric: Metric,
    ) -> BTreeMap<u32, f64> {
        self.of(system, test, probes)
            .into_iter()
            .filter_map(|(r, m, _)| metric.of(m).map(|v| (r, v)))
            .collect()
    }

    /// The ratio `a / b` over the repetitions in which both have the figure.
    ///
    /// # Errors
    /// One line that says why there is none.
    pub fn ratio(&self, a: &str, b: &str, test: &str, metric: Metric) -> Result<Ratio, String> {
        let tests: Vec<_> = self.plan.tests.iter().map(|t| t.id.as_str()).collect();
        if !tests.contains(&test) {
            return Err(crate::suggest::unknown("test", test, &tests));
        }
        let systems: Vec<_> = self.plan.systems.iter().map(|s| s.id.as_str()).collect();
        for system in [a, b] {
            let Some(planned) = self.plan.systems.iter().find(|s| s.id == system) else {
                return Err(crate::suggest::unknown("system", system, &systems));
            };
            if let Some(reason) = &planned.skipped {
                return Err(format!("{system} was skipped: {reason}"));
            }
            if self.of(system, test, Probes::Off).is_empty() {
                return Err(match self.failures(system, test).pop() {
                    Some(failure) => format!("{system} has no figure in {test}: {failure}"),
                    None => format!("{system} has no figure in {test} yet"),
                });
            }
        }
        let of_b = self.values(b, test, metric);
        let of_a = self.values(a, test, metric);
        if of_a.is_empty() || of_b.is_empty() {
            return Err(format!("test {test} has no {metric}"));
        }
        self.paired(a, b, test, metric, &of_a, &of_b)
            .ok_or_else(|| {
                format!(
                    "{a} and {b} have no repetition of {test} in common with a {metric} to compare"
                )
            })
    }

    fn paired(
        &self,
        a: &str,
        b: &str,
        test: &str,
        metric: Metric,
        of_a: &BTreeMap<u32, f64>,
        of_b: &BTreeMap<u32, f64>,
    ) -> Option<Ratio> {
        let ratios: Vec<f64> = of_a
            .iter()
            .filter_map(|(r, x)| of_b.get(r).filter(|y| **y != 0.0).map(|y| x / y))
            .collect();
        Some(Ratio {
            a: a.to_owned(),
            b: b.to_owned(),
            test: test.to_owned(),
            metric: metric.name,
            median: efuse_stats::median(&ratios)?,
            interval: efuse_stats::bootstrap_median(&ratios, self.plan.seed),
            n: ratios.len(),
            ratios,
        })
    }

    /// IOPS with probes over those without, by pairs of the same number.
    fn probe_cost(&self, system: &str, test: &str) -> Option<Ratio> {
        let iops = Metric::parse("iops").expect("a metric of the table");
        let [on, off] =
            [Probes::On, Probes::Off].map(|probes| self.values_of(system, test, probes, iops));
        self.paired(
            &format!("{system} with probes"),
            system,
            test,
            iops,
            &on,
            &off,
        )
    }

    fn failures(&self, system: &str, test: &str) -> Vec<String> {
        let of_cell = |probes| (system, test, probes, 0)..=(system, test, probes, u32::MAX);
        [Probes::On, Probes::Off]
            .into_iter()
            .flat_map(|probes| self.failed.range(of_cell(probes)))
            .filter_map(|(_, attempt)| match &attempt.outcome {
                Outcome::Failed { phase, reason } => Some(format!(
                    "{} {}: {}",
                    show_slot(attempt.probes, attempt.repetition),
                    phase.name(),
                    reason.lines().next().unwrap_or("no reason given")
                )),
                Outcome::Done { .. } => None,
            })
            .collect()
    }

    /// One row per test and system, skipped systems too.
    ///
    /// # Panics
    /// Never: the metrics named here exist.
    #[must_use]
    pub fn rows(&self, base: &str) -> Vec<Row> {
        let metric = |name| Metric::parse(name).expect("a metric of the table");
        let (read, write) = (metric("read-iops"), metric("write-iops"));
        let operation = metric("op-rate");
        let wide = adaptive::wide(self.plan, self.attempts);
        let mut rows = Vec::new();
        for test in &self.plan.tests {
            for system in &self.plan.systems {
                let values = |m| -> Vec<f64> {
                    self.values(&system.id, &test.id, m).into_values().collect()
                };
                let ratio = |m| self.ratio(&system.id, base, &test.id, m).ok();
                let cell = |c: &&Cell| c.system == system.id && c.test.id == test.id;
                let planned = self
                    .plan
                    .cells
                    .iter()
                    .find(cell)
                    .map_or(0, |cell| self.plan.slots_of(&cell.key(), Probes::Off));
                let of_row = |w: &&Wide| w.system == system.id && w.test == test.id && !w.again;
                rows.push(Row {
                    test: test.id.clone(),
                    system: system.id.clone(),
                    skipped: system.skipped.clone(),
                    n: self.of(&system.id, &test.id, Probes::Off).len(),
                    planned,
                    read_iops: efuse_stats::median(&values(read)),
                    write_iops: efuse_stats::median(&values(write)),
                    read_ratio: ratio(read),
                    write_ratio: ratio(write),
                    operation_rate: efuse_stats::median(&values(operation)),
                    operation_ratio: ratio(operation),
                    verified_operations: self
                        .of(&system.id, &test.id, Probes::Off)
                        .iter()
                        .map(|(_, _, v)| v.operations)
                        .sum(),
                    verified_bytes: self
                        .of(&system.id, &test.id, Probes::Off)
                        .iter()
                        .map(|(_, _, v)| v.read_bytes + v.write_bytes + v.bytes_compared)
                        .sum(),
                    failures: self.failures(&system.id, &test.id),
                    probed: self.of(&system.id, &test.id, Probes::On).len(),
                    probe_cost: self.probe_cost(&system.id, &test.id),
                    unstable: wide.iter().find(of_row).map(Wide::line),
                });
            }
        }
        rows
    }
}

/// The summary as text, with skipped systems and failures below it.
#[must_use]
pub fn render(plan: &Plan, rows: &[Row], base: &str, emulated: bool) -> String {
    let probes = rows.iter().any(|r| r.probed > 0);
    let vs = format!("read vs {base}");
    let ws = format!("write vs {base}");
    let os = format!("operations vs {base}");
    let data = |test: &str| {
        plan.tests
            .iter()
            .any(|t| t.id == test && t.job.fio().is_some())
    };
    let any_data = plan.tests.iter().any(|t| t.job.fio().is_some());
    let any_metadata = plan.tests.iter().any(|t| t.job.fio().is_none());
    let mut head = vec!["test", "system", ">n"];
    if any_data {
        head.extend([">read IOPS", ">write IOPS", &vs, &ws]);
    }
    if any_metadata {
        head.extend([">operations/s", &os]);
    }
    head.push(">verified");
    if probes {
        head.push("with probes");
    }
    let mut table = Table::new(&head);
    let mut notes = String::new();
    let mut skipped = BTreeMap::new();
    for row in rows {
        if let Some(reason) = &row.skipped {
            skipped.insert(&row.system, reason);
            continue;
        }
        let figure = |v: Option<f64>| v.map_or_else(|| "-".to_owned(), show_figure);
        let ratio = |r: &Option<Ratio>| match r {
            Some(_) if row.system == base => "1".to_owned(),
            Some(r) => match r.interval {
                Some(Interval { low, high }) => format!("{:.2} [{low:.2}, {high:.2}]", r.median),
                None => format!("{:.2}", r.median),
            },
            None => "-".to_owned(),
        };
        let mut line = vec![
            row.test.clone(),
            row.system.clone(),
            format!("{}/{}", row.n, row.planned),
        ];
        if any_data {
            line.extend([
                figure(row.read_iops),
                figure(row.write_iops),
                ratio(&row.read_ratio),
                ratio(&row.write_ratio),
            ]);
        }
        if any_metadata {
            line.extend([figure(row.operation_rate), ratio(&row.operation_ratio)]);
        }
        line.push(if data(&row.test) {
            show_bytes(row.verified_bytes)
        } else {
            format!("{} answers", show_figure(row.verified_operations as f64))
        });
        if probes {
            line.push(
                row.probe_cost
                    .as_ref()
                    .map_or_else(|| "-".to_owned(), |r| format!("{:.2} n={}", r.median, r.n)),
            );
        }
        table.row(line);
        if let Some(why) = &row.unstable {
            let _ = writeln!(notes, "unstable {why}");
        }
        for failure in &row.failures {
            let _ = writeln!(notes, "failed   {} {} {failure}", row.test, row.system);
        }
    }
    let mut out = table.render();
    for (system, reason) in skipped {
        let _ = writeln!(out, "skipped  {system}: {reason}");
    }
    out.push_str(&notes);
    if probes {
        out.push_str(
            "IOPS and ratios are of repetitions without probes; \"with probes\" is what is left of the IOPS with them.\n",
        );
    }
    if plan.repetitions < JUDGED_FROM {
        let _ = writeln!(out, "{}.", planning::repetitions(plan));
    }
    if emulated {
        out.push_str("Emulated (TCG): ratios within this run count, absolute figures do not.\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn attempts(plan: &Plan, values: &[(&str, &str, u32, Outcome)]) -> Attempts {
        let list = values.iter().map(|(system, test, r, outcome)| {
            let cell = plan
                .cells
                .iter()
                .find(|c| c.system == *system && c.test.id == *test)
                .unwrap();
            testing::attempt(cell, *r, 0, outcome.clone())
        });
        Attempts {
            list: list.collect(),
            damaged: vec![],
        }
    }

    fn metric(name: &str) -> Metric {
        Metric::parse(name).unwrap()
    }

    #[test]
    fn repetitions_are_paired() {
        let plan = testing::plan(&["fuse", "ext4"], 4, 1);
        let attempts = attempts(
            &plan,
            &[
                ("fuse", "T1", 0, testing::done(10.0, 1.0)),
                ("ext4", "T1", 0, testing::done(20.0, 1.0)),
                ("fuse", "T1", 1, testing::done(100.0, 1.0)),
                ("ext4", "T1", 1, testing::done(400.0, 1.0)),
                ("fuse", "T1", 2, testing::done(7.0, 1.0)),
                ("ext4", "T1", 2, testing::failed("x")),
                ("ext4", "T1", 3, testing::done(5.0, 1.0)),
            ],
        );
        let figures = Figures::new(&plan, &attempts);
        let ratio = figures
            .ratio("fuse", "ext4", "T1", metric("read-iops"))
            .unwrap();
        assert_eq!(ratio.ratios, [0.5, 0.25]);
        assert_eq!((ratio.median, ratio.n), (0.375, 2));
        assert_eq!(
            ratio.interval,
            Some(Interval {
                low: 0.25,
                high: 0.5
            })
        );
        assert_eq!(ratio.figures(), "0.375 [0.250, 0.500] n=2");
    }

    #[test]
    fn where_there_is_no_ratio_the_reason_is_said() {
        let mut plan = testing::plan(&["fuse", "ext4", "late"], 2, 1);
        plan.systems.push(efuse_model::plan::PlannedSystem {
            id: "gone".into(),
            title: String::new(),
            digest: String::new(),
            twin_of: None,
            skipped: Some("no module".into()),
        });
        let attempts = attempts(
            &plan,
            &[
                ("fuse", "T1", 0, testing::done(10.0, 0.0)),
                ("ext4", "T1", 0, testing::failed("fio died\ntrace")),
                ("late", "T1", 1, testing::done(10.0, 0.0)),
            ],
        );
        let figures = Figures::new(&plan, &attempts);
        let why = |a, b, t, m| figures.ratio(a, b, t, metric(m)).unwrap_err();
        assert!(why("fuse", "gone", "T1", "iops").contains("skipped: no module"));
        let failed = why("ext4", "fuse", "T1", "iops");
        assert!(failed.ends_with("r0 measure: fio died"), "{failed}");
        assert!(why("fuse", "late", "T1", "iops").contains("no repetition"));
        assert!(why("fuse", "fuse", "T1", "write-iops").contains("to compare"));
        assert!(why("fuse", "fuse", "T1", "read-p99").contains("no read-p99"));
        assert!(why("fuse", "fuse", "T2", "iops").contains("yet"));
        assert!(why("fuse", "fsue", "T1", "iops").contains("did you mean fuse?"));
        assert!(why("fuse", "fuse", "T9", "iops").contains("unknown test"));
    }

    #[test]
    fn a_retried_failure_is_forgotten_and_one_left_is_shown() {
        let mut plan = testing::plan(&["fuse", "ext4"], 2, 1);
        plan.systems.push(efuse_model::plan::PlannedSystem {
            id: "gone".into(),
            title: String::new(),
            digest: String::new(),
            twin_of: None,
            skipped: Some("no module".into()),
        });
        let attempts = attempts(
            &plan,
            &[
                ("fuse", "T1", 0, testing::failed("first")),
                ("fuse", "T1", 0, testing::done(30.0, 3.0)),
                ("ext4", "T1", 0, testing::done(60.0, 6.0)),
                ("ext4", "T1", 1, testing::failed("broken")),
            ],
        );
        let text = render(
            &plan,
            &Figures::new(&plan, &attempts).rows("fuse"),
            "fuse",
            true,
        );
        assert!(!text.contains("first"), "{text}");
        assert!(
            text.contains("failed   T1 ext4 r1 measure: broken"),
            "{text}"
        );
        assert!(text.contains("skipped  gone: no module"), "{text}");
        assert!(text.contains("Emulated"), "{text}");
        let ext4 = text.lines().find(|l| l.contains("ext4")).unwrap();
        assert!(ext4.contains("1/2") && ext4.contains("2.00"), "{text}");
    }

    #[test]
    fn headlines_are_of_repetitions_without_probes_and_their_cost_is_shown() {
        let mut request = testing::request(&["fuse", "ext4"], 2, 1);
        request.probed = 1;
        let plan = planning::build(request).unwrap();
        let mut attempts = attempts(
            &plan,
            &[
                ("fuse", "T1", 0, testing::done(100.0, 0.0)),
                ("fuse", "T1", 1, testing::done(100.0, 0.0)),
                ("ext4", "T1", 0, testing::done(200.0, 0.0)),
                ("ext4", "T1", 1, testing::done(200.0, 0.0)),
                ("fuse", "T1", 0, testing::done(80.0, 0.0)),
            ],
        );
        attempts.list[4].probes = Probes::On;
        let figures = Figures::new(&plan, &attempts);
        let ratio = figures
            .ratio("fuse", "ext4", "T1", metric("read-iops"))
            .unwrap();
        assert_eq!(ratio.ratios, [0.5, 0.5]);
        let rows = figures.rows("fuse");
        let fuse = rows.iter().find(|r| r.system == "fuse").unwrap();
        assert_eq!((fuse.n, fuse.planned, fuse.probed), (2, 2, 1));
        assert_eq!(fuse.read_iops, Some(100.0));
        assert!((fuse.probe_cost.as_ref().unwrap().median - 0.8).abs() < 1e-9);
        let text = render(&plan, &rows, "fuse", false);
        assert!(text.contains("0.80 n=1"), "{text}");
        assert!(text.contains("an impression, not a judgement"), "{text}");
    }

    #[test]
    fn what_stays_uncertain_is_called_unstable() {
        let mut plan = testing::plan(&["fuse", "ext4"], 2, 1);
        plan.adaptive = Some(efuse_model::plan::Adaptive {
            base: "fuse".into(),
            precision: 0.1,
            max_repetitions: 2,
        });
        let attempts = attempts(
            &plan,
            &[
                ("fuse", "T1", 0, testing::done(100.0, 1.0)),
                ("fuse", "T1", 1, testing::done(100.0, 1.0)),
                ("ext4", "T1", 0, testing::done(200.0, 1.0)),
                ("ext4", "T1", 1, testing::done(400.0, 1.0)),
            ],
        );
        let rows = Figures::new(&plan, &attempts).rows("fuse");
        let text = render(&plan, &rows, "fuse", false);
        assert!(
            text.contains("unstable T1 ext4: read-iops is certain to +-33.3 % only"),
            "{text}"
        );
    }
}
