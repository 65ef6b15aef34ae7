//! How likely a difference is by chance alone, without assuming a distribution.
//!
//! * **Sign flips** for paired repetitions: if both systems are the same, a pair's log
//!   ratio is as likely to be `x` as `-x`, so every choice of signs was as likely as the one
//!   seen. The p-value is the share of choices whose sum is at least as far from 0 (Fisher,
//!   "The Design of Experiments", 1935, section 21; Good, "Permutation, Parametric and
//!   Bootstrap Tests of Hypotheses", 3rd ed. 2005, section 3.2).
//! * **Exchange** for two separate runs: if both are the same, every division of all values
//!   into two groups of these sizes was as likely (Pitman, "Significance tests which may be
//!   applied to samples from any populations", JRSS Supplement 4(1), 1937).
//!
//! Both count all possibilities up to [`EXACT`] of them. Beyond, [`DRAWS`] random ones
//! are drawn with a fixed seed, and the one that was seen counts as one of them: a p-value
//! is never 0 (Phipson and Smyth, "Permutation p-values should never be zero", Statistical
//! Applications in Genetics and Molecular Biology 9(1), 2010).

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use crate::below;

/// Most possibilities that are counted one by one.
pub const EXACT: u64 = 1 << 16;

/// Random possibilities where there are more.
pub const DRAWS: u32 = 50_000;

/// Sums that differ by less than this share of the larger terms are equal: another order
/// of adding must not decide.
const TIE: f64 = 1e-9;

/// Two-sided p-value of the paired log ratios against "no difference".
///
/// `None` without values, or if one is not finite. All zeros give 1.
#[must_use]
pub fn sign_flip_p(log_ratios: &[f64], seed: u64) -> Option<f64> {
    if log_ratios.is_empty() || log_ratios.iter().any(|x| !x.is_finite()) {
        return None;
    }
    let n = log_ratios.len();
    let scale: f64 = log_ratios.iter().map(|x| x.abs()).sum();
    let limit = log_ratios.iter().sum::<f64>().abs() - TIE * scale;
    let flipped = |bits: u64| -> f64 {
        log_ratios
            .iter()
            .enumerate()
            .map(|(i, x)| if bits >> i & 1 == 1 { -x } else { *x })
            .sum()
    };
    if n <= EXACT.ilog2() as usize {
        let all = 1u64 << n;
        let extreme = (0..all)
            .filter(|bits| flipped(*bits).abs() >= limit)
            .count();
        return Some(extreme as f64 / all as f64);
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut extreme = 1u32;
    for _ in 0..DRAWS {
        let mut sum = 0.0;
        for chunk in log_ratios.chunks(64) {
            let bits = rng.next_u64();
            for (i, x) in chunk.iter().enumerate() {
                sum += if bits >> i & 1 == 1 { -x } else { *x };
            }
        }
        extreme += u32::from(sum.abs() >= limit);
    }
    Some(f64::from(extreme) / f64::from(DRAWS + 1))
}

/// Two-sided p-value of the difference between the means of two separate samples (of log
/// ratios) against "no difference".
///
/// `None` if a sample is empty or a value is not finite.
#[must_use]
pub fn exchange_p(a: &[f64], b: &[f64], seed: u64) -> Option<f64> {
    if a.is_empty() || b.is_empty() || a.iter().chain(b).any(|x| !x.is_finite()) {
        return None;
    }
    let mut all: Vec<f64> = a.iter().chain(b).copied().collect();
    // Shifted to the mean, the difference is a function of the first group's sum alone.
    let mean = all.iter().sum::<f64>() / all.len() as f64;
    all.iter_mut().for_each(|x| *x -= mean);
    let scale: f64 = all.iter().map(|x| x.abs()).sum();
    let limit = all[..a.len()].iter().sum::<f64>().abs() - TIE * scale;
    let groups = choose(all.len(), a.len());
    if groups.is_some_and(|n| n <= EXACT) {
        let (mut extreme, mut total) = (0u64, 0u64);
        sums(&all, a.len(), 0.0, &mut |sum| {
            total += 1;
            extreme += u64::from(sum.abs() >= limit);
        });
        return Some(extreme as f64 / total as f64);
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut extreme = 1u32;
    for _ in 0..DRAWS {
        // The first places of a Fisher-Yates shuffle are a random group.
        for i in 0..a.len() {
            let j = i + below(&mut rng, all.len() - i);
            all.swap(i, j);
        }
        let sum: f64 = all[..a.len()].iter().sum();
        extreme += u32::from(sum.abs() >= limit);
    }
    Some(f64::from(extreme) / f64::from(DRAWS + 1))
}

/// Calls `each` with the sum of every choice of `k` of the values.
fn sums(values: &[f64], k: usize, sum: f64, each: &mut dyn FnMut(f64)) {
    if k == 0 {
        each(sum);
    } else if values.len() >= k {
        sums(&values[1..], k - 1, sum + values[0], each);
        sums(&values[1..], k, sum, each);
    }
}

/// Binomial coefficient; `None` if it exceeds 64 bits.
fn choose(n: usize, k: usize) -> Option<u64> {
    let k = k.min(n - k) as u64;
    let n = n as u64;
    (0..k).try_fold(1u64, |acc, i| acc.checked_mul(n - i).map(|x| x / (i + 1)))
}

/// The smallest p-value that [`sign_flip_p`] can give with `n` pairs: 2^(1-n), both
/// directions of all signs alike.
#[must_use]
pub fn least_paired_p(n: usize) -> f64 {
    match n {
        0 => 1.0,
        _ => 2f64.powi(1 - i32::try_from(n).unwrap_or(i32::MAX)),
    }
}

/// The smallest p-value that [`exchange_p`] can give with samples of these sizes: both
/// groupings of the most extreme kind where the sizes are equal, one of them where not.
#[must_use]
pub fn least_exchange_p(a: usize, b: usize) -> f64 {
    if a == 0 || b == 0 {
        return 1.0;
    }
    let ways = if a == b { 2.0 } else { 1.0 };
    choose(a + b, a).map_or(0.0, |n| (ways / n as f64).min(1.0))
}

/// Pairs that are needed before one of `family` comparisons can be significant at `alpha`
/// after Holm's correction: the least n with 2^(1-n) <= alpha / family.
///
/// # Panics
/// If `alpha` is not positive.
#[must_use]
pub fn pairs_needed(family: usize, alpha: f64) -> usize {
    assert!(alpha > 0.0, "a level of {alpha}");
    (1..)
        .find(|n| least_paired_p(*n) * family.max(1) as f64 <= alpha)
        .expect("2^(1-n) goes to 0")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn p(values: &[f64]) -> f64 {
        sign_flip_p(values, 1).unwrap()
    }

    #[test]
    fn known_p_values() {
        // All in one direction: only both extreme choices are as far.
        assert_eq!(p(&[0.1; 5]), 2.0 / 32.0);
        assert_eq!(p(&[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]), 2.0 / 64.0);
        assert_eq!(p(&[1.0, -1.0]), 1.0);
        assert_eq!(p(&[0.0; 4]), 1.0);
        // By hand: sums of +-1 +-2 +-3 with |sum| >= |1 + 2 - 3| = 0 are all eight.
        assert_eq!(p(&[1.0, 2.0, -3.0]), 1.0);
        // |1 - 2 - 3| = 4: +-6 and +-4.
        assert_eq!(p(&[1.0, -2.0, -3.0]), 0.5);
        assert_eq!(sign_flip_p(&[], 1), None);
        assert_eq!(sign_flip_p(&[1.0, f64::NAN], 1), None);
        assert_eq!(sign_flip_p(&[f64::INFINITY], 1), None);
    }

    #[test]
    fn known_p_values_of_two_samples() {
        let p = |a: &[f64], b: &[f64]| exchange_p(a, b, 1).unwrap();
        assert!((p(&[1.0, 2.0, 3.0], &[4.0, 5.0, 6.0]) - 0.1).abs() < 1e-12);
        assert_eq!(p(&[1.0, 1.0], &[1.0, 1.0]), 1.0);
        // One of four values in the smaller group, the most extreme one: 1/4.
        assert!((p(&[9.0], &[1.0, 1.5, 2.0]) - 0.25).abs() < 1e-12);
        assert_eq!(exchange_p(&[], &[1.0], 1), None);
        assert_eq!(exchange_p(&[f64::NAN], &[1.0], 1), None);
    }

    #[test]
    fn what_few_repetitions_can_show_at_all() {
        assert_eq!(least_paired_p(5), p(&[0.1; 5]));
        assert_eq!(least_paired_p(1), 1.0);
        assert_eq!(pairs_needed(1, 0.05), 6);
        assert_eq!(pairs_needed(6, 0.05), 8);
        assert!((least_exchange_p(3, 3) - 0.1).abs() < 1e-12);
        assert!((least_exchange_p(1, 3) - 0.25).abs() < 1e-12);
        assert_eq!(least_exchange_p(0, 3), 1.0);
    }

    #[test]
    fn many_pairs_are_drawn_and_never_give_zero() {
        let drawn = p(&[0.1; 40]);
        assert!(drawn > 0.0 && drawn < 1e-4, "{drawn}");
        assert_eq!(p(&[0.1; 40]), drawn);
        let alternating: Vec<f64> = (0..40)
            .map(|i| if i % 2 == 0 { 0.1 } else { -0.1 })
            .collect();
        assert!(p(&alternating) > 0.9);
        let a: Vec<f64> = (0..30).map(f64::from).collect();
        let b: Vec<f64> = (0..30).map(|i| f64::from(i) + 100.0).collect();
        assert!(exchange_p(&a, &b, 1).unwrap() < 1e-4);
        assert!(exchange_p(&a, &a, 1).unwrap() > 0.9);
    }

    /// Drawn and counted p-values must agree where both can be had.
    #[test]
    fn a_p_value_is_uniform_under_the_null() {
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        let trials = 2000;
        let mut low = 0;
        for _ in 0..trials {
            let values: Vec<f64> = (0..8)
                .map(|_| below(&mut rng, 2_000_001) as f64 / 1e6 - 1.0)
                .collect();
            low += u32::from(p(&values) <= 0.05);
        }
        // Binomial with 2000 trials at 0.05 (at most, by discreteness): sd 9.7.
        assert!((60..=140).contains(&low), "{low}");
    }

    proptest! {
        #[test]
        fn signs_and_units_do_not_matter(values in prop::collection::vec(-3f64..3.0, 1..10)) {
            let first = p(&values);
            let turned: Vec<f64> = values.iter().map(|x| -x).collect();
            prop_assert_eq!(p(&turned), first);
            let scaled: Vec<f64> = values.iter().map(|x| 8.0 * x).collect();
            prop_assert_eq!(p(&scaled), first);
            prop_assert!(first >= least_paired_p(values.len()) && first <= 1.0);
        }

        #[test]
        fn exchanging_the_samples_does_not_matter(
            a in prop::collection::vec(-3f64..3.0, 1..6), b in prop::collection::vec(-3f64..3.0, 1..6),
        ) {
            let p = exchange_p(&a, &b, 1).unwrap();
            prop_assert!((exchange_p(&b, &a, 1).unwrap() - p).abs() < 1e-12);
            prop_assert!(p >= least_exchange_p(a.len(), b.len()) - 1e-12 && p <= 1.0);
        }
    }
}
