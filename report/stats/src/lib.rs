//! The statistics of the terminal and of the report, each with its source.
//!
//! * **Median** of the repetitions, not the mean: one disturbed repetition out of a few
//!   moves a mean and not a median. Even counts take the mean of the middle two
//!   (definition 7 of Hyndman and Fan, "Sample Quantiles in Statistical Packages",
//!   The American Statistician 50(4), 1996, at p = 1/2).
//! * **Paired ratios**: two systems are compared inside one repetition, where they were
//!   measured minutes apart in random order, and the ratios are summarised; slow drift of
//!   the machine cancels. Blocking by repetition and reporting a ratio with its interval
//!   follows Kalibera and Jones, "Rigorous Benchmarking in Reasonable Time", ISMM 2013.
//! * **Interval**: percentile bootstrap of the median (Efron and Tibshirani, "An
//!   Introduction to the Bootstrap", 1993, section 13.3), 10 000 resamples, 95 %, with a
//!   fixed seed, so that one run always gives one report.
//! * **What few repetitions can tell**: the range of n values of any continuous
//!   distribution covers its median with probability 1 - 2^(1-n) (order statistics; David
//!   and Nagaraja, "Order Statistics", 3rd ed. 2003, section 7.1). No interval made of
//!   resampled values can be wider than the range, so below six repetitions none reaches
//!   95 %; [`range_coverage`] gives the bound and the report prints it.
//!
//! Size of an effect, p-values, their correction over many cells, and noise floors are in
//! modules of their own, each with its source.

mod effect;
mod holm;
mod permutation;
mod ratio;

pub use effect::{Magnitude, cliffs_delta};
pub use holm::holm;
pub use permutation::{exchange_p, least_exchange_p, least_paired_p, pairs_needed, sign_flip_p};
pub use ratio::{aa_floor, bootstrap_ratio, relative_half_width};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

/// Resamples of one bootstrap.
pub const RESAMPLES: usize = 10_000;

/// Nominal confidence of every interval.
pub const CONFIDENCE: f64 = 0.95;

/// Both ends of an interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Median of finite values; `None` of none.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    median_in_place(&mut sorted)
}

fn median_in_place(values: &mut [f64]) -> Option<f64> {
    let n = values.len();
    if n == 0 {
        return None;
    }
    let (below, upper, _) = values.select_nth_unstable_by(n / 2, f64::total_cmp);
    let upper = *upper;
    if n % 2 == 1 {
        return Some(upper);
    }
    let lower = below.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    Some(f64::midpoint(lower, upper))
}

/// 95 % percentile bootstrap interval of the median; `None` below two values, where
/// there is no spread to resample.
///
/// The generator starts afresh from `seed` for each call, so an interval does not depend
/// on what else was computed before it.
#[must_use]
pub fn bootstrap_median(values: &[f64], seed: u64) -> Option<Interval> {
    let n = values.len();
    if n < 2 {
        return None;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut sample = vec![0.0; n];
    let mut medians = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        for slot in &mut sample {
            *slot = values[below(&mut rng, n)];
        }
        medians.extend(median_in_place(&mut sample));
    }
    medians.sort_unstable_by(f64::total_cmp);
    // Indices that leave (1 - CONFIDENCE) / 2 of the resamples outside on each side.
    let outside = (1.0 - CONFIDENCE) / 2.0 * RESAMPLES as f64;
    let cut = outside as usize;
    Some(Interval {
        low: medians[cut],
        high: medians[RESAMPLES - 1 - cut],
    })
}

/// A uniform number below `n`, the same for the same stream in every version of every
/// library: Lemire's multiplication with rejection (ACM TOMACS 29(1), 2019).
///
/// # Panics
/// If `n` is 0.
pub fn below(rng: &mut ChaCha8Rng, n: usize) -> usize {
    let n = n as u64;
    assert!(n > 0, "no number is below 0");
    let threshold = n.wrapping_neg() % n;
    loop {
        let wide = u128::from(rng.next_u64()) * u128::from(n);
        #[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
        let low = wide as u64;
        if low >= threshold {
            #[expect(clippy::cast_possible_truncation, reason = "the high half is below n")]
            return (wide >> 64) as usize;
        }
    }
}

/// Probability that the range of `n` independent repetitions covers the median: the most
/// that an interval from `n` repetitions can promise.
#[must_use]
pub fn range_coverage(n: usize) -> f64 {
    match n {
        0 | 1 => 0.0,
        _ => 1.0 - 2f64.powi(1 - i32::try_from(n).unwrap_or(i32::MAX)),
    }
}

/// What a ratio with its interval says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The whole interval is above 1.
    Higher,
    /// The whole interval is below 1.
    Lower,
    /// The interval holds 1.
    Unclear,
    /// One repetition: nothing can be said about spread.
    Single,
}

impl Verdict {
    /// Judges a ratio.
    #[must_use]
    pub fn of(interval: Option<Interval>) -> Self {
        match interval {
            None => Self::Single,
            Some(i) if i.low > 1.0 => Self::Higher,
            Some(i) if i.high < 1.0 => Self::Lower,
            Some(_) => Self::Unclear,
        }
    }

    /// In words, for the cell beside the ratio.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Higher => "higher",
            Self::Lower => "lower",
            Self::Unclear => "no clear difference",
            Self::Single => "one repetition, no interval",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0]), Some(5.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
    }

    #[test]
    fn one_value_has_no_interval_and_three_give_their_range() {
        assert_eq!(bootstrap_median(&[1.0], 7), None);
        // P(median of a resample of three is the smallest) = 7/27, far above 2.5 %.
        let i = bootstrap_median(&[1.5, 1.4, 1.6], 7).unwrap();
        assert_eq!((i.low, i.high), (1.4, 1.6));
    }

    #[test]
    fn the_interval_is_reproducible_and_narrower_than_the_range_for_many_values() {
        let values: Vec<f64> = (0..41).map(f64::from).collect();
        let a = bootstrap_median(&values, 1).unwrap();
        assert_eq!(Some(a), bootstrap_median(&values, 1));
        // Binomial interval of the median for n = 41: order statistics 14 and 28 (of 1..41),
        // values 13 and 27; the bootstrap must land on them give or take one.
        assert!((12.0..=14.0).contains(&a.low), "{a:?}");
        assert!((26.0..=28.0).contains(&a.high), "{a:?}");
    }

    /// The promise itself: over many samples of a known distribution the interval covers
    /// the true median about as often as [`range_coverage`] says for n = 3.
    #[test]
    fn coverage_of_three_repetitions_is_three_quarters() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let trials = 400;
        let covered = (0..trials)
            .filter(|_| {
                let v: Vec<f64> = (0..3)
                    .map(|_| below(&mut rng, 1_000_000) as f64 / 1e6)
                    .collect();
                bootstrap_median(&v, 1).is_some_and(|i| i.low <= 0.5 && 0.5 <= i.high)
            })
            .count();
        let share = covered as f64 / f64::from(trials);
        assert!((share - range_coverage(3)).abs() < 0.07, "{share}");
        assert_eq!(range_coverage(3), 0.75);
        assert_eq!(range_coverage(1), 0.0);
        assert!(range_coverage(6) > 0.95 && range_coverage(5) < 0.95);
    }

    #[test]
    fn verdicts() {
        let i = |low, high| Some(Interval { low, high });
        assert_eq!(Verdict::of(i(1.01, 1.2)), Verdict::Higher);
        assert_eq!(Verdict::of(i(0.5, 0.99)), Verdict::Lower);
        assert_eq!(Verdict::of(i(0.99, 1.01)), Verdict::Unclear);
        assert_eq!(Verdict::of(i(1.0, 1.2)), Verdict::Unclear);
        assert_eq!(Verdict::of(None), Verdict::Single);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]

        #[test]
        fn intervals_hold_their_median_and_repeat(
            values in prop::collection::vec(0.1f64..1e6, 2..12), seed: u64,
        ) {
            let m = median(&values).unwrap();
            let i = bootstrap_median(&values, seed).unwrap();
            prop_assert!(i.low <= m && m <= i.high);
            prop_assert_eq!(bootstrap_median(&values, seed), Some(i));
        }

        #[test]
        fn draws_are_in_range(seed: u64, n in 1usize..1000) {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            prop_assert!(below(&mut rng, n) < n);
        }
    }
}
