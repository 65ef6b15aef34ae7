//! More repetitions for cells whose ratios are not certain enough.
//!
//! A pure function of the plan and of what is stored: whoever resumes a run comes to the
//! same decisions. A round is one more block: of each test in which a system's ratio to
//! the base is too uncertain, that system and the base, in random order. It ends when every
//! ratio is certain enough or has had the most repetitions that are allowed; what is
//! uncertain then is called unstable, and its figures stay.

use std::collections::BTreeSet;

use efuse_model::cell::CellKey;
use efuse_model::counters::Probes;
use efuse_model::plan::{Extra, Plan};
use efuse_model::store::Attempts;
use efuse_stats::relative_half_width;
use serde::Serialize;

use crate::metric::Metric;
use crate::schedule;
use crate::summary::Figures;

/// The figures whose ratios have to be certain.
pub const METRICS: [&str; 3] = ["read-iops", "write-iops", "op-rate"];

/// A cell whose ratio to the base is not certain enough.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Wide {
    /// The test.
    pub test: String,
    /// The system.
    pub system: String,
    /// The figure that is least certain.
    pub metric: &'static str,
    /// Half width of its interval as a share of the ratio.
    pub half_width: f64,
    /// What is allowed.
    pub precision: f64,
    /// Repetitions that were scheduled.
    pub repetitions: u32,
    /// Whether it gets more of them.
    pub again: bool,
}

impl Wide {
    /// One line.
    #[must_use]
    pub fn line(&self) -> String {
        if self.half_width.is_infinite() {
            return format!(
                "{} {}: {} has one pair of repetitions, and no interval",
                self.test, self.system, self.metric
            );
        }
        format!(
            "{} {}: {} is certain to +-{:.1} % only (asked for: {:.1} %) after {} repetitions",
            self.test,
            self.system,
            self.metric,
            self.half_width * 100.0,
            self.precision * 100.0,
            self.repetitions
        )
    }
}

/// Every cell whose ratio to the base is not certain enough, by test and system; none if
/// the plan asks for no precision.
///
/// # Panics
/// Never: the metrics named here exist.
#[must_use]
pub fn wide(plan: &Plan, attempts: &Attempts) -> Vec<Wide> {
    let Some(adaptive) = &plan.adaptive else {
        return Vec::new();
    };
    let figures = Figures::new(plan, attempts);
    let mut out = Vec::new();
    for cell in plan.cells.iter().filter(|c| c.system != adaptive.base) {
        let widest = METRICS
            .into_iter()
            .filter_map(|name| {
                let metric = Metric::parse(name).expect("a metric of the table");
                let ratio = figures
                    .ratio(&cell.system, &adaptive.base, &cell.test.id, metric)
                    .ok()?;
                // One pair says nothing of how far off it may be.
                let width = ratio.interval.map_or(f64::INFINITY, |interval| {
                    relative_half_width(ratio.median, interval)
                });
                Some((name, width))
            })
            .max_by(|a, b| a.1.total_cmp(&b.1));
        let Some((metric, half_width)) = widest else {
            continue;
        };
        if half_width > adaptive.precision {
            let repetitions = plan.slots_of(&cell.key(), Probes::Off);
            out.push(Wide {
                test: cell.test.id.clone(),
                system: cell.system.clone(),
                metric,
                half_width,
                precision: adaptive.precision,
                repetitions,
                again: repetitions < adaptive.max_repetitions,
            });
        }
    }
    out
}

/// The next round of a run whose slots are all through, if there is one.
#[must_use]
pub fn next(plan: &Plan, attempts: &Attempts) -> Option<Extra> {
    let base = &plan.adaptive.as_ref()?.base;
    let again: Vec<_> = wide(plan, attempts)
        .into_iter()
        .filter(|w| w.again)
        .collect();
    let wanted: BTreeSet<(&str, &str)> = again
        .iter()
        .flat_map(|w| [(w.test.as_str(), w.system.as_str()), (&w.test, base)])
        .collect();
    let cells: Vec<CellKey> = plan
        .cells
        .iter()
        .filter(|c| wanted.contains(&(c.test.id.as_str(), c.system.as_str())))
        .map(efuse_model::cell::Cell::key)
        .collect();
    let last = plan.order.iter().filter(|s| s.probes.is_off());
    let repetition = last.map(|s| s.repetition).max()? + 1;
    (!cells.is_empty()).then(|| Extra {
        why: again.iter().map(Wide::line).collect(),
        slots: schedule::block(&cells, repetition, Probes::Off, plan.seed),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use efuse_model::plan::Adaptive;

    /// `fuse` is steady, `noisy` is 1, 2 and 4 times as fast, `ext4` is twice as fast.
    fn measured(max_repetitions: u32) -> (Plan, Attempts) {
        let mut plan = testing::plan(&["fuse", "ext4", "noisy"], 3, 1);
        plan.adaptive = Some(Adaptive {
            base: "fuse".into(),
            precision: 0.1,
            max_repetitions,
        });
        let attempts = Attempts {
            list: plan
                .order
                .iter()
                .map(|slot| {
                    let cell = plan.cell(&slot.cell).unwrap();
                    let read = match cell.system.as_str() {
                        "fuse" => 100.0,
                        "ext4" => 200.0,
                        _ if cell.test.id == "T2" => 100.0,
                        _ => 100.0 * f64::from(1 << slot.repetition),
                    };
                    testing::attempt(cell, slot.repetition, 0, testing::done(read, 10.0))
                })
                .collect(),
            damaged: vec![],
        };
        (plan, attempts)
    }

    #[test]
    fn only_what_is_uncertain_is_measured_again_beside_its_base() {
        let (plan, attempts) = measured(4);
        let extra = next(&plan, &attempts).unwrap();
        let mut cells: Vec<_> = extra
            .slots
            .iter()
            .map(|s| {
                let cell = plan.cell(&s.cell).unwrap();
                (cell.test.id.as_str(), cell.system.as_str(), s.repetition)
            })
            .collect();
        cells.sort_unstable();
        assert_eq!(cells, [("T1", "fuse", 3), ("T1", "noisy", 3)]);
        assert_eq!(extra.why.len(), 1);
        assert!(extra.why[0].starts_with("T1 noisy: read-iops"), "{extra:?}");
    }

    #[test]
    fn at_the_most_repetitions_it_is_unstable_and_nothing_is_added() {
        let (plan, attempts) = measured(3);
        assert_eq!(next(&plan, &attempts), None);
        let wide = wide(&plan, &attempts);
        assert_eq!(wide.len(), 1);
        assert!(!wide[0].again);
        assert!((wide[0].half_width - 0.75).abs() < 1e-9, "{wide:?}");
    }

    #[test]
    fn without_a_precision_nothing_is_added() {
        let (mut plan, attempts) = measured(9);
        plan.adaptive = None;
        assert_eq!(next(&plan, &attempts), None);
        assert!(wide(&plan, &attempts).is_empty());
    }
}
