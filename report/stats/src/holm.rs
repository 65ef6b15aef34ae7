//! Many comparisons at once.
//!
//! Holm's step-down correction: the probability that any of the comparisons is called
//! different although none of those called so is, stays below the level, however the
//! comparisons depend on each other (Holm, "A simple sequentially rejective multiple test
//! procedure", Scandinavian Journal of Statistics 6(2), 1979).

/// Adjusted p-values, in the order of the input: the i-th smallest (from 0) of m times
/// `m - i`, never smaller than the one before and never above 1.
#[must_use]
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let m = p_values.len();
    let mut order: Vec<usize> = (0..m).collect();
    order.sort_by(|a, b| p_values[*a].total_cmp(&p_values[*b]));
    let mut adjusted = vec![1.0; m];
    let mut largest = 0f64;
    for (rank, index) in order.into_iter().enumerate() {
        largest = largest.max((p_values[index] * (m - rank) as f64).min(1.0));
        adjusted[index] = largest;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{below, sign_flip_p};
    use proptest::prelude::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng as _;

    #[test]
    fn a_known_example() {
        // R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
        let adjusted = holm(&[0.01, 0.04, 0.03, 0.005]);
        for (got, want) in adjusted.iter().zip([0.03, 0.06, 0.06, 0.02]) {
            assert!((got - want).abs() < 1e-12, "{adjusted:?}");
        }
        assert!(holm(&[]).is_empty());
        assert_eq!(holm(&[0.4, 0.9]), [0.8, 0.9]);
    }

    /// The promise: with no difference anywhere, a family of 12 comparisons gives an alarm
    /// in 5 % of the cases at most; uncorrected it would be 46 %.
    #[test]
    fn false_alarms_of_a_family_stay_below_the_level() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let (trials, family, n) = (300, 12, 12);
        let (mut corrected, mut raw) = (0, 0);
        for _ in 0..trials {
            let p: Vec<f64> = (0..family)
                .map(|_| {
                    let values: Vec<f64> = (0..n)
                        .map(|_| below(&mut rng, 2_000_001) as f64 / 1e6 - 1.0)
                        .collect();
                    sign_flip_p(&values, 1).unwrap()
                })
                .collect();
            raw += u32::from(p.iter().any(|p| *p <= 0.05));
            corrected += u32::from(holm(&p).iter().any(|p| *p <= 0.05));
        }
        // Binomial(300, 0.05): mean 15, sd 3.8.
        assert!(corrected <= 28, "{corrected}");
        assert!(raw > 90, "{raw}");
    }

    proptest! {
        #[test]
        fn order_is_kept_and_nothing_gets_smaller(p in prop::collection::vec(0f64..=1.0, 0..20)) {
            let adjusted = holm(&p);
            for (i, a) in adjusted.iter().enumerate() {
                prop_assert!(*a >= p[i] && *a <= 1.0);
                for (j, b) in adjusted.iter().enumerate() {
                    prop_assert!(p[i] > p[j] || a <= b);
                }
            }
        }
    }
}
