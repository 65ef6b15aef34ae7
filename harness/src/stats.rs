//! The few statistics that the terminal needs. The report has its own.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

/// Resamples of [`bootstrap_median`].
pub const RESAMPLES: usize = 10_000;

/// The median; of an even number of values the mean of the middle two. `None` of nothing.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    median_of_sorted(&sorted)
}

fn median_of_sorted(sorted: &[f64]) -> Option<f64> {
    let n = sorted.len();
    let upper = *sorted.get(n / 2)?;
    Some(if n.is_multiple_of(2) {
        f64::midpoint(sorted[n / 2 - 1], upper)
    } else {
        upper
    })
}

/// A 95 % percentile-bootstrap interval of the median.
///
/// The plain percentile method of B. Efron and R. J. Tibshirani, *An Introduction to the
/// Bootstrap* (Chapman & Hall, 1993), section 13.3: draw [`RESAMPLES`] samples of the
/// same size with replacement and take the 2.5 % and 97.5 % points of their medians.
/// With the three to ten repetitions of a run it is little narrower than the range of
/// the values, which is what so few values can say. `None` below two values: one value
/// has no spread.
#[must_use]
pub fn bootstrap_median(values: &[f64], seed: u64) -> Option<(f64, f64)> {
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
        sample.sort_by(f64::total_cmp);
        medians.extend(median_of_sorted(&sample));
    }
    medians.sort_by(f64::total_cmp);
    Some((percentile(&medians, 0.025), percentile(&medians, 0.975)))
}

/// Nearest-rank percentile of sorted, non-empty values.
fn percentile(sorted: &[f64], p: f64) -> f64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rank within a vector of 10 000"
    )]
    let rank = (p * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 9.0]), Some(3.0));
    }

    #[test]
    fn one_value_has_no_interval() {
        assert_eq!(bootstrap_median(&[1.0], 7), None);
    }

    /// For three distinct values the median of a resample is the smallest with
    /// probability 7/27, so both ends of the interval are the extremes.
    #[test]
    fn three_values_give_their_range() {
        assert_eq!(bootstrap_median(&[2.0, 1.0, 4.0], 1), Some((1.0, 4.0)));
    }

    /// Coverage: of many samples from a known distribution about 95 % of the intervals
    /// hold the true median. The percentile method is known to fall a little short or
    /// over at n = 15; far off means a mistake in it.
    #[test]
    fn intervals_cover_the_true_median() {
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        let samples = 100;
        let covered = (0..samples)
            .filter(|i| {
                let values: Vec<f64> = (0..15)
                    .map(|_| f64::from(u32::try_from(below(&mut rng, 1_000_001)).unwrap()))
                    .collect();
                let (low, high) = bootstrap_median(&values, *i).unwrap();
                low <= 500_000.0 && 500_000.0 <= high
            })
            .count();
        assert!((88..=99).contains(&covered), "{covered} of {samples}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]

        #[test]
        fn intervals_hold_their_median_and_repeat(
            values in prop::collection::vec(0.1f64..1e6, 2..12), seed: u64,
        ) {
            let m = median(&values).unwrap();
            let (low, high) = bootstrap_median(&values, seed).unwrap();
            prop_assert!(low <= m && m <= high);
            prop_assert_eq!(bootstrap_median(&values, seed), Some((low, high)));
        }

        #[test]
        fn draws_are_in_range(seed: u64, n in 1usize..1000) {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            prop_assert!(below(&mut rng, n) < n);
        }
    }
}
