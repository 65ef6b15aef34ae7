//! One run against another: how a system stood to its run's base then, and how now.
//!
//! Absolute figures do not carry from one boot or day to another, so what is compared is
//! the ratio to the base inside each run. Only where time counts instructions figures
//! repeat and are compared as they are.

use std::collections::BTreeMap;

use efuse_model::cell::TWIN;
use efuse_model::test::Test;

use super::within::floor;
use super::{Data, Question, usable};
use crate::metric::Metric;
use crate::stored::Stored;
use crate::summary::Figures;

/// What can be compared of two runs, and what stands in the way.
#[derive(Debug, Default)]
pub struct Compared {
    /// The comparisons.
    pub questions: Vec<Question>,
    /// Why the comparison is not whole.
    pub problems: Vec<String>,
    /// What a reader has to know.
    pub notes: Vec<String>,
}

/// Differences of two environments in which figures cannot be compared. What is measured
/// (revision, module, daemon) is meant to differ.
#[must_use]
pub fn environment_differences(new: &Stored, old: &Stored) -> Vec<String> {
    match (&new.environment, &old.environment) {
        (Some(new), Some(old)) => new
            .differences(old)
            .into_iter()
            .filter(|d| !d.starts_with("revision:") && !d.starts_with("artifact "))
            .collect(),
        _ => Vec::new(),
    }
}

/// Whether both are the same measurement: a run, itself, or a baseline that was kept of it.
#[must_use]
pub fn same(a: &Stored, b: &Stored) -> bool {
    a.dir.path() == b.dir.path() || (a.plan.run == b.plan.run && a.plan.created == b.plan.created)
}

/// Whether both were measured in the same kind of place on the same kind of device.
#[must_use]
pub fn same_device(a: &Stored, b: &Stored) -> bool {
    a.plan.device == b.plan.device && a.plan.place == b.plan.place
}

/// Lays two runs side by side. `base` of `None` compares figures as they are.
///
/// # Errors
/// If they cannot be compared at all: one is empty, they are the same, or of different
/// environments, devices or workloads.
pub fn compare(
    new: &Stored,
    old: &Stored,
    base: Option<&str>,
    metrics: &[Metric],
) -> Result<Compared, String> {
    for side in [new, old] {
        if !side.has_figures() || side.environment.is_none() {
            return Err(format!("{} is empty: it has no figure", side.label));
        }
    }
    if same(new, old) {
        return Err(format!(
            "{} and {} are the same run: a run cannot be compared with itself",
            new.label, old.label
        ));
    }
    let differences = environment_differences(new, old);
    if !differences.is_empty() {
        return Err(format!(
            "{} is of another environment than {}, so their figures cannot be compared:\n  {}\n\
             measure a baseline in this environment: `eval baseline save NAME`",
            old.label,
            new.label,
            differences.join("\n  ")
        ));
    }
    if !same_device(new, old) {
        return Err(format!(
            "{} was measured on another device than {}",
            old.label, new.label
        ));
    }
    let mut out = Compared::default();
    let tests = common_tests(new, old, &mut out);
    if tests.is_empty() {
        return Err(format!(
            "{} and {} have no test in common, their workloads are {} and {}:\n  {}",
            new.label,
            old.label,
            new.plan.workload,
            old.plan.workload,
            out.problems.join("\n  ")
        ));
    }
    let figures = [new, old].map(|s| Figures::new(&s.plan, &s.attempts));
    let systems: Vec<&String> = new
        .plan
        .systems
        .iter()
        .filter(|s| s.skipped.is_none())
        .map(|s| &s.id)
        .filter(|id| Some(id.as_str()) != base && !id.ends_with(TWIN))
        .collect();
    for (side, other) in [(new, old), (old, new)] {
        let there = |id: &str| {
            let systems = &other.plan.systems;
            systems.iter().any(|s| s.id == id && s.skipped.is_none())
        };
        for system in side.plan.systems.iter().filter(|s| s.skipped.is_none()) {
            if !there(&system.id) && !system.id.ends_with(TWIN) {
                out.problems.push(format!(
                    "{} was measured in {} and not in {}",
                    system.id, side.label, other.label
                ));
            }
        }
    }
    for test in tests {
        for system in &systems {
            for metric in metrics {
                let values = [0, 1].map(|i| relative(&figures[i], system, base, &test.id, *metric));
                if values.iter().all(BTreeMap::is_empty) {
                    continue;
                }
                let floors = [(&figures[0], new), (&figures[1], old)];
                let floor = floors
                    .into_iter()
                    .filter_map(|(f, s)| floor(f, &s.plan, &test.id, *metric, &(0..u32::MAX)))
                    .max_by(f64::total_cmp);
                out.questions.push(Question {
                    test: test.id.clone(),
                    system: (*system).clone(),
                    metric: *metric,
                    data: data([new, old], system, *metric, &values),
                    floor,
                });
            }
        }
    }
    for side in [new, old] {
        let open = side.open_slots();
        if open > 0 {
            out.problems
                .push(format!("{}: {open} slots have no figure", side.label));
            out.problems.extend(side.attempts.damaged.iter().cloned());
        } else {
            out.notes.extend(side.attempts.damaged.iter().cloned());
        }
    }
    if let Some(base) = base {
        out.notes.push(format!(
            "figures are compared as ratios to {base} inside each run"
        ));
    }
    Ok(out)
}

/// The tests that are the same job in both.
fn common_tests<'a>(new: &'a Stored, old: &Stored, out: &mut Compared) -> Vec<&'a Test> {
    let mut common = Vec::new();
    for test in &new.plan.tests {
        match old.plan.tests.iter().find(|t| t.id == test.id) {
            Some(other) if other.job == test.job => common.push(test),
            Some(_) => out.problems.push(format!(
                "test {} is another job in {} than in {}",
                test.id, old.label, new.label
            )),
            None => out
                .problems
                .push(format!("{} has no test {}", old.label, test.id)),
        }
    }
    for test in &old.plan.tests {
        if !new.plan.tests.iter().any(|t| t.id == test.id) {
            out.problems
                .push(format!("{} has no test {}", new.label, test.id));
        }
    }
    common
}

/// The figure of each repetition, or its ratio to the base's in the same repetition.
fn relative(
    figures: &Figures<'_>,
    system: &str,
    base: Option<&str>,
    test: &str,
    metric: Metric,
) -> BTreeMap<u32, f64> {
    let values = figures.values(system, test, metric);
    let Some(base) = base else {
        return values;
    };
    let of_base = figures.values(base, test, metric);
    values
        .into_iter()
        .filter_map(|(r, x)| of_base.get(&r).map(|y| (r, x / y)))
        .collect()
}

fn data(
    sides: [&Stored; 2],
    system: &str,
    metric: Metric,
    values: &[BTreeMap<u32, f64>; 2],
) -> Result<Data, String> {
    let mut samples = Vec::new();
    for (side, values) in sides.into_iter().zip(values) {
        let values: Vec<f64> = values.values().copied().collect();
        let what = format!("{system} in {}", side.label);
        if values.is_empty() {
            return Err(format!("{what} has no {metric} to compare"));
        }
        usable(&what, metric, &values)?;
        samples.push(values);
    }
    let old = samples.pop().unwrap_or_default();
    let new = samples.pop().unwrap_or_default();
    Ok(Data::Separate { new, old })
}
