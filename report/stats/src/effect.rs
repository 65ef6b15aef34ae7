//! Size of an effect, apart from whether it is there by chance.
//!
//! Cliff's delta: the share of pairs in which a value of the first sample is larger, less
//! the share in which it is smaller (Cliff, "Dominance statistics: Ordinal analyses to
//! answer ordinal questions", Psychological Bulletin 114(3), 1993). It needs no
//! distribution and no unit; 1 and -1 mean that the samples do not overlap at all.

use serde::{Deserialize, Serialize};

/// `P(a > b) - P(a < b)` over all pairs, -1 to 1; `None` of an empty sample.
#[must_use]
pub fn cliffs_delta(a: &[f64], b: &[f64]) -> Option<f64> {
    if a.is_empty() || b.is_empty() {
        return None;
    }
    let mut sum = 0i64;
    for x in a {
        for y in b {
            sum += i64::from(x > y) - i64::from(x < y);
        }
    }
    Some(sum as f64 / (a.len() as f64 * b.len() as f64))
}

/// Words for a delta.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Magnitude {
    /// Below 0.147.
    Negligible,
    /// Below 0.33.
    Small,
    /// Below 0.474.
    Medium,
    /// The rest.
    Large,
}

impl Magnitude {
    /// By the thresholds of Romano, Kromrey, Coraggio and Skowronek, "Appropriate
    /// statistics for ordinal level data", Florida Association of Institutional Research,
    /// 2006: the deltas of two normal samples whose Cohen's d is 0.2, 0.5 and 0.8.
    #[must_use]
    pub fn of(delta: f64) -> Self {
        match delta.abs() {
            d if d < 0.147 => Self::Negligible,
            d if d < 0.33 => Self::Small,
            d if d < 0.474 => Self::Medium,
            _ => Self::Large,
        }
    }

    /// In a word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Negligible => "negligible",
            Self::Small => "small",
            Self::Medium => "medium",
            Self::Large => "large",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_deltas() {
        assert_eq!(cliffs_delta(&[], &[1.0]), None);
        assert_eq!(cliffs_delta(&[2.0, 3.0], &[0.0, 1.0]), Some(1.0));
        assert_eq!(cliffs_delta(&[1.0], &[1.0]), Some(0.0));
        // Of nine pairs five are larger, two smaller and two equal.
        let d = cliffs_delta(&[1.0, 3.0, 5.0], &[1.0, 2.0, 3.0]).unwrap();
        assert!((d - (5.0 - 2.0) / 9.0).abs() < 1e-12, "{d}");
    }

    #[test]
    fn words() {
        assert_eq!(Magnitude::of(-0.1), Magnitude::Negligible);
        assert_eq!(Magnitude::of(0.3), Magnitude::Small);
        assert_eq!(Magnitude::of(-0.4), Magnitude::Medium);
        assert_eq!(Magnitude::of(-1.0).word(), "large");
    }

    proptest! {
        #[test]
        fn exchanging_the_samples_changes_the_sign(
            a in prop::collection::vec(-5i32..5, 1..8), b in prop::collection::vec(-5i32..5, 1..8),
        ) {
            let f = |v: &[i32]| -> Vec<f64> { v.iter().map(|x| f64::from(*x)).collect() };
            let (a, b) = (f(&a), f(&b));
            let d = cliffs_delta(&a, &b).unwrap();
            prop_assert!((-1.0..=1.0).contains(&d));
            prop_assert_eq!(cliffs_delta(&b, &a).unwrap(), -d);
        }
    }
}
