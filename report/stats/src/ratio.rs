//! Ratios between repetitions and between runs, with their intervals.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;

use crate::{CONFIDENCE, Interval, RESAMPLES, below, bootstrap_median, median, median_in_place};

/// 95 % percentile bootstrap interval of `median(a) / median(b)` of two separate samples,
/// each resampled on its own (Efron and Tibshirani, "An Introduction to the Bootstrap",
/// 1993, section 8.3); `None` below two values on a side.
#[must_use]
pub fn bootstrap_ratio(a: &[f64], b: &[f64], seed: u64) -> Option<Interval> {
    if a.len() < 2 || b.len() < 2 {
        return None;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut of_a, mut of_b) = (vec![0.0; a.len()], vec![0.0; b.len()]);
    let mut ratios = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        for (sample, values) in [(&mut of_a, a), (&mut of_b, b)] {
            for slot in sample.iter_mut() {
                *slot = values[below(&mut rng, values.len())];
            }
        }
        if let (Some(x), Some(y)) = (median_in_place(&mut of_a), median_in_place(&mut of_b)) {
            ratios.push(x / y);
        }
    }
    ratios.sort_unstable_by(f64::total_cmp);
    let cut = ((1.0 - CONFIDENCE) / 2.0 * RESAMPLES as f64) as usize;
    Some(Interval {
        low: ratios[cut],
        high: ratios[RESAMPLES - 1 - cut],
    })
}

/// Half of an interval's width as a share of its centre: 0.1 is "plus or minus 10 %".
/// What a precision is compared with.
#[must_use]
pub fn relative_half_width(center: f64, interval: Interval) -> f64 {
    (interval.high - interval.low) / 2.0 / center
}

/// The noise floor from an A/A pair: how far from 1 the ratio of a system to itself may
/// lie by chance on this machine, as a share.
///
/// `exp(max(|ln low|, |ln high|, |ln median|)) - 1` of the interval of the median ratio:
/// the farther end of the interval, on the scale on which twice as fast and half as fast
/// are equally far. 0.04 means that ratios within 1/1.04 to 1.04 are no news. `None` below
/// two pairs, or if a ratio is not positive and finite.
#[must_use]
pub fn aa_floor(ratios: &[f64], seed: u64) -> Option<f64> {
    if ratios.iter().any(|r| !(r.is_finite() && *r > 0.0)) {
        return None;
    }
    let interval = bootstrap_median(ratios, seed)?;
    let center = median(ratios)?;
    let far = [interval.low, interval.high, center]
        .into_iter()
        .map(|r| r.ln().abs())
        .fold(0.0, f64::max);
    Some(far.exp_m1())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_ratio_of_equal_samples_holds_one_and_of_distinct_ones_does_not() {
        let a = [10.0, 11.0, 9.0, 10.5, 9.5];
        let same = bootstrap_ratio(&a, &a, 1).unwrap();
        assert!(same.low < 1.0 && same.high > 1.0, "{same:?}");
        let b: Vec<f64> = a.iter().map(|x| x * 2.0).collect();
        let half = bootstrap_ratio(&a, &b, 1).unwrap();
        assert!(half.high < 0.7 && half.low > 0.35, "{half:?}");
        assert_eq!(bootstrap_ratio(&a, &[1.0], 1), None);
    }

    /// Medians of nine uniform values each: the interval has to hold the true ratio, 1,
    /// about as often as it says.
    #[test]
    fn coverage_of_a_ratio_between_runs() {
        let mut rng = ChaCha8Rng::seed_from_u64(17);
        let trials = 200;
        let mut draw = || -> Vec<f64> {
            (0..9)
                .map(|_| 100.0 + below(&mut rng, 1_000_000) as f64 / 1e5)
                .collect()
        };
        let covered = (0..trials)
            .filter(|_| {
                let i = bootstrap_ratio(&draw(), &draw(), 1).unwrap();
                i.low <= 1.0 && 1.0 <= i.high
            })
            .count();
        let share = covered as f64 / f64::from(trials);
        assert!(share > 0.9, "{share}");
    }

    #[test]
    fn the_floor_is_the_far_end() {
        // Three ratios give their range.
        let floor = aa_floor(&[0.98, 1.0, 1.04], 1).unwrap();
        assert!((floor - 0.04).abs() < 1e-12, "{floor}");
        let floor = aa_floor(&[0.9, 1.0, 1.04], 1).unwrap();
        assert!((floor - (1.0 / 0.9 - 1.0)).abs() < 1e-12, "{floor}");
        assert_eq!(aa_floor(&[1.0], 1), None);
        assert_eq!(aa_floor(&[1.0, 0.0], 1), None);
        assert_eq!(aa_floor(&[1.0, f64::NAN], 1), None);
    }

    #[test]
    fn half_widths() {
        let i = Interval {
            low: 1.8,
            high: 2.2,
        };
        assert!((relative_half_width(2.0, i) - 0.1).abs() < 1e-12);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn the_floor_does_not_depend_on_which_is_the_twin(
            ratios in prop::collection::vec(0.5f64..2.0, 3..9),
        ) {
            let turned: Vec<f64> = ratios.iter().map(|r| 1.0 / r).collect();
            // An odd number: the median of reciprocals is the reciprocal of the median.
            let n = ratios.len() - (1 - ratios.len() % 2);
            let a = aa_floor(&ratios[..n], 1).unwrap();
            let b = aa_floor(&turned[..n], 1).unwrap();
            prop_assert!((a - b).abs() < 1e-9, "{} {}", a, b);
        }
    }
}
