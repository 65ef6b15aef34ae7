//! Systems of one run against a base system of the same run, paired by repetition.

use std::collections::BTreeMap;
use std::ops::Range;

use efuse_model::cell::TWIN;
use efuse_model::plan::Plan;

use super::{Data, Question, usable};
use crate::metric::Metric;
use crate::summary::Figures;

/// What is asked of a run.
#[derive(Clone, Debug)]
pub struct Within<'a> {
    /// The figures.
    pub figures: &'a Figures<'a>,
    /// Their plan.
    pub plan: &'a Plan,
    /// The base.
    pub base: &'a str,
    /// The systems that are judged.
    pub systems: Vec<String>,
    /// The figures that are compared.
    pub metrics: Vec<Metric>,
}

/// The ratio a / b of each repetition that both have.
fn ratios(a: &BTreeMap<u32, f64>, b: &BTreeMap<u32, f64>, of: &Range<u32>) -> Vec<f64> {
    a.range(of.clone())
        .filter_map(|(r, x)| b.get(r).map(|y| x / y))
        .collect()
}

/// The A/A floor of a figure in a test: the largest over the systems that were measured
/// twice; `None` if none was.
#[must_use]
pub fn floor(
    figures: &Figures<'_>,
    plan: &Plan,
    test: &str,
    metric: Metric,
    repetitions: &Range<u32>,
) -> Option<f64> {
    plan.systems
        .iter()
        .filter_map(|s| {
            let original = s.twin_of.as_ref()?;
            let twin = figures.values(&s.id, test, metric);
            let original = figures.values(original, test, metric);
            efuse_stats::aa_floor(&ratios(&twin, &original, repetitions), plan.seed)
        })
        .max_by(f64::total_cmp)
}

impl Within<'_> {
    /// One question per test, system and figure that one of both has. `floors` are taken of
    /// those repetitions, which for a judgement of the twin itself must be others.
    #[must_use]
    pub fn questions(&self, repetitions: &Range<u32>, floors: &Range<u32>) -> Vec<Question> {
        let mut out = Vec::new();
        for test in &self.plan.tests {
            for system in &self.systems {
                for metric in &self.metrics {
                    let new = self.figures.values(system, &test.id, *metric);
                    let old = self.figures.values(self.base, &test.id, *metric);
                    if new.is_empty() && old.is_empty() {
                        continue;
                    }
                    out.push(Question {
                        test: test.id.clone(),
                        system: system.clone(),
                        metric: *metric,
                        data: self.data(system, *metric, &new, &old, repetitions),
                        floor: floor(self.figures, self.plan, &test.id, *metric, floors),
                    });
                }
            }
        }
        out
    }

    fn data(
        &self,
        system: &str,
        metric: Metric,
        new: &BTreeMap<u32, f64>,
        old: &BTreeMap<u32, f64>,
        repetitions: &Range<u32>,
    ) -> Result<Data, String> {
        for (name, values) in [(system, new), (self.base, old)] {
            if values.is_empty() {
                return Err(format!("{name} has no {metric}"));
            }
            let values: Vec<f64> = values.values().copied().collect();
            usable(name, metric, &values)?;
        }
        let ratios = ratios(new, old, repetitions);
        if ratios.is_empty() {
            return Err(format!(
                "{system} and {} have no repetition in common with a {metric}",
                self.base
            ));
        }
        Ok(Data::Paired(ratios))
    }
}

/// The systems of a plan that a gate judges by itself: all that were measured but the base
/// and twins, which give the floor.
#[must_use]
pub fn default_systems(plan: &Plan, base: &str) -> Vec<String> {
    plan.systems
        .iter()
        .filter(|s| s.skipped.is_none() && s.id != base && !s.id.ends_with(TWIN))
        .map(|s| s.id.clone())
        .collect()
}
