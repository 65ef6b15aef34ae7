//! Is it slower than before? The rules of the gate, apart from where figures come from.
//!
//! A comparison of one figure of one cell is
//! * **insufficient** if so few repetitions could not be significant whatever they said
//!   (the least p-value of the test times the number of comparisons exceeds [`ALPHA`]), or
//!   the figure is missing on a side;
//! * a **regression** (or **improved**) if the 95 % interval of the ratio excludes 1, the
//!   p-value after Holm's correction over all comparisons is at most [`ALPHA`], and the
//!   ratio is farther from 1 than the limit: the larger of the threshold and the A/A floor;
//! * the **same** if the interval lies inside the limit;
//! * **inconclusive** otherwise.
//!
//! Distances from 1 are those of logarithms: twice and half are equally far.

pub mod between;
pub mod render;
pub mod within;

use efuse_model::document::{Call, Judged};
use efuse_stats::{Interval, Magnitude, cliffs_delta, holm, least_exchange_p, least_paired_p};

use crate::metric::Metric;

/// Probability of a false alarm that is accepted for all comparisons of a gate together.
pub const ALPHA: f64 = 0.05;

/// Smallest change that matters, where the user says nothing.
pub const THRESHOLD: f64 = 0.05;

/// The figures that are judged, where the user says nothing.
pub const METRICS: [&str; 11] = [
    "read-iops",
    "write-iops",
    "read-clat",
    "write-clat",
    "read-p99",
    "write-p99",
    "op-rate",
    "op-lat",
    "op-p99",
    "switches-per-op",
    "cpu-per-op",
];

/// What is compared: one figure of one cell, new against old.
#[derive(Clone, Debug)]
pub struct Question {
    /// The test.
    pub test: String,
    /// The system.
    pub system: String,
    /// The figure.
    pub metric: Metric,
    /// The figures, or why there are none.
    pub data: Result<Data, String>,
    /// How far from 1 the ratio of a system to itself was seen to lie, as a share.
    pub floor: Option<f64>,
}

/// The figures of a comparison, all finite and positive.
#[derive(Clone, Debug)]
pub enum Data {
    /// The ratio new / old of each repetition that both have.
    Paired(Vec<f64>),
    /// Two separate runs.
    Separate {
        /// New.
        new: Vec<f64>,
        /// Old.
        old: Vec<f64>,
    },
}

impl Data {
    fn ratio(&self, seed: u64) -> (Option<f64>, Option<Interval>) {
        match self {
            Self::Paired(ratios) => (
                efuse_stats::median(ratios),
                efuse_stats::bootstrap_median(ratios, seed),
            ),
            Self::Separate { new, old } => (
                self.medians().map(|(n, o)| n / o),
                efuse_stats::bootstrap_ratio(new, old, seed),
            ),
        }
    }

    /// Medians, new and old, where the sides are separate.
    fn medians(&self) -> Option<(f64, f64)> {
        match self {
            Self::Paired(_) => None,
            Self::Separate { new, old } => efuse_stats::median(new).zip(efuse_stats::median(old)),
        }
    }

    fn p(&self, seed: u64) -> Option<f64> {
        let logs = |v: &[f64]| v.iter().map(|x| x.ln()).collect::<Vec<_>>();
        match self {
            Self::Paired(ratios) => efuse_stats::sign_flip_p(&logs(ratios), seed),
            Self::Separate { new, old } => efuse_stats::exchange_p(&logs(new), &logs(old), seed),
        }
    }

    fn least_p(&self) -> f64 {
        match self {
            Self::Paired(ratios) => least_paired_p(ratios.len()),
            Self::Separate { new, old } => least_exchange_p(new.len(), old.len()),
        }
    }

    /// Of pairs, how far their ratios dominate 1.
    fn delta(&self) -> Option<f64> {
        match self {
            Self::Paired(ratios) => cliffs_delta(ratios, &[1.0]),
            Self::Separate { new, old } => cliffs_delta(new, old),
        }
    }

    fn n(&self) -> (usize, usize) {
        match self {
            Self::Paired(ratios) => (ratios.len(), ratios.len()),
            Self::Separate { new, old } => (new.len(), old.len()),
        }
    }
}

/// Judges all comparisons of a gate together.
#[must_use]
pub fn judge(questions: &[Question], threshold: f64, seed: u64) -> Vec<Judged> {
    let p_values: Vec<Option<f64>> = questions
        .iter()
        .map(|q| q.data.as_ref().ok().and_then(|d| d.p(seed)))
        .collect();
    let family: Vec<f64> = p_values.iter().flatten().copied().collect();
    let mut adjusted = holm(&family).into_iter();
    questions
        .iter()
        .zip(p_values)
        .map(|(question, p)| {
            let p_holm = p.and_then(|_| adjusted.next());
            one(question, p, p_holm, family.len(), threshold, seed)
        })
        .collect()
}

fn one(
    question: &Question,
    p: Option<f64>,
    p_holm: Option<f64>,
    family: usize,
    threshold: f64,
    seed: u64,
) -> Judged {
    let limit = threshold.max(question.floor.unwrap_or(0.0));
    let mut judged = Judged {
        test: question.test.clone(),
        system: question.system.clone(),
        metric: question.metric.name.to_owned(),
        more_is_better: question.metric.more_is_better,
        call: Call::Insufficient,
        medians: None,
        ratio: None,
        interval: None,
        n: (0, 0),
        p,
        p_holm,
        delta: None,
        magnitude: None,
        floor: question.floor,
        limit,
        reason: None,
    };
    let data = match &question.data {
        Ok(data) => data,
        Err(reason) => {
            judged.reason = Some(reason.clone());
            return judged;
        }
    };
    (judged.ratio, judged.interval) = data.ratio(seed);
    judged.medians = data.medians();
    judged.n = data.n();
    judged.delta = data.delta();
    judged.magnitude = judged.delta.map(Magnitude::of);
    let (Some(ratio), Some(interval), Some(p_holm)) = (judged.ratio, judged.interval, p_holm)
    else {
        judged.reason = Some(match data.n() {
            (1, 1) => "one repetition says nothing about chance".to_owned(),
            (new, old) => format!("{new} and {old} repetitions say nothing about chance"),
        });
        return judged;
    };
    if data.least_p() * family as f64 > ALPHA {
        judged.reason = Some(format!(
            "{} repetitions cannot be significant among {family} comparisons; {}",
            judged.n.0.min(judged.n.1),
            match data {
                Data::Paired(_) =>
                    format!("{} are needed", efuse_stats::pairs_needed(family, ALPHA)),
                Data::Separate { .. } => "more are needed on both sides".to_owned(),
            }
        ));
        return judged;
    }
    let far = limit.ln_1p();
    let excludes_one = interval.low > 1.0 || interval.high < 1.0;
    judged.call = if excludes_one && p_holm <= ALPHA && ratio.ln().abs() > far {
        if (ratio > 1.0) == question.metric.more_is_better {
            Call::Improved
        } else {
            Call::Regression
        }
    } else if interval.low.ln() >= -far && interval.high.ln() <= far {
        Call::Same
    } else {
        Call::Inconclusive
    };
    judged
}

/// Values as they can be compared: all of them finite and above 0.
///
/// # Errors
/// One line that names the first that is not.
pub fn usable(what: &str, metric: Metric, values: &[f64]) -> Result<(), String> {
    match values.iter().find(|v| !(v.is_finite() && **v > 0.0)) {
        Some(value) => Err(format!(
            "{what}: {metric} is {value}, which is no figure to compare"
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
