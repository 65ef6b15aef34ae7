//! Log-linear histograms of times: a power of two, cut into [`SUBS`] equal parts.
//!
//! The relative width of a bucket is at most 1 / [`SUBS`], the idea of HDR histograms
//! (Gil Tene, <https://hdrhistogram.github.io/HdrHistogram/>). The same layout is
//! computed inside the kernel by the probes.

use serde::{Deserialize, Serialize};

/// Binary logarithm of the parts that each power of two is cut into.
pub const SUB_BITS: u32 = 4;

/// Parts of a power of two.
pub const SUBS: u64 = 1 << SUB_BITS;

/// Buckets that cover every 64-bit value.
pub const BUCKETS: usize = ((64 - SUB_BITS + 1) as usize) << SUB_BITS;

/// A histogram of nanoseconds. fio's bins have the same shape: a value and its count.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// `(value, count)` of the buckets that are not empty, ascending by value, which is
    /// the bucket's lower bound (for fio's bins: the value that fio prints).
    pub bins: Vec<(u64, u64)>,
    /// Sum of all values where it is known exactly.
    pub sum_ns: Option<u64>,
    /// Largest value where it is known exactly.
    pub max_ns: Option<u64>,
}

/// Number of the bucket that holds a value.
#[must_use]
pub const fn bucket(ns: u64) -> usize {
    if ns < SUBS {
        return ns as usize;
    }
    let exponent = 63 - ns.leading_zeros();
    let sub = (ns >> (exponent - SUB_BITS)) & (SUBS - 1);
    (((exponent - SUB_BITS + 1) as usize) << SUB_BITS) + sub as usize
}

/// Lower bound of a bucket, the inverse of [`bucket`].
#[must_use]
pub const fn lower_bound(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < SUBS {
        return bucket;
    }
    let octave = (bucket >> SUB_BITS) - 1;
    (SUBS + (bucket & (SUBS - 1))) << octave
}

impl Histogram {
    /// Values counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.bins.iter().map(|(_, n)| n).sum()
    }

    /// Exact mean where the sum is known, nanoseconds; `None` of nothing.
    #[must_use]
    pub fn mean_ns(&self) -> Option<f64> {
        let n = self.count();
        let sum = self.sum_ns?;
        (n > 0).then(|| sum as f64 / n as f64)
    }

    /// The smallest bin value below or at which at least `percent` of the values lie
    /// (nearest rank); `None` of nothing or of a percent outside 0..=100.
    #[must_use]
    pub fn percentile_ns(&self, percent: f64) -> Option<u64> {
        let n = self.count();
        if n == 0 || !(0.0..=100.0).contains(&percent) {
            return None;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0..=n"
        )]
        let rank = ((percent / 100.0 * n as f64).ceil() as u64).max(1);
        let mut seen = 0;
        for (value, count) in &self.bins {
            seen += count;
            if seen >= rank {
                return Some(*value);
            }
        }
        self.bins.last().map(|(value, _)| *value)
    }

    /// Adds another histogram, as for all opcodes together.
    pub fn merge(&mut self, other: &Self) {
        let mut all: std::collections::BTreeMap<u64, u64> = self.bins.iter().copied().collect();
        for (value, count) in &other.bins {
            *all.entry(*value).or_default() += count;
        }
        let was_empty = self.bins.is_empty();
        self.sum_ns = match (self.sum_ns, other.sum_ns) {
            (Some(a), Some(b)) => a.checked_add(b),
            (None, b) if was_empty => b,
            (a, None) if other.bins.is_empty() => a,
            _ => None,
        };
        self.max_ns = match (self.max_ns, other.max_ns) {
            (Some(a), Some(b)) => Some(a.max(b)),
            (None, b) if was_empty => b,
            (a, None) if other.bins.is_empty() => a,
            _ => None,
        };
        self.bins = all.into_iter().collect();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn buckets_and_bounds_are_inverse_at_every_bucket() {
        for b in 0..BUCKETS {
            assert_eq!(bucket(lower_bound(b)), b);
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_by_nearest_rank() {
        let h = Histogram {
            bins: vec![(10, 98), (20, 1), (1000, 1)],
            sum_ns: Some(2000),
            max_ns: Some(1010),
        };
        assert_eq!(h.percentile_ns(50.0), Some(10));
        assert_eq!(h.percentile_ns(99.0), Some(20));
        assert_eq!(h.percentile_ns(99.9), Some(1000));
        assert_eq!(h.percentile_ns(101.0), None);
        assert_eq!(h.mean_ns(), Some(20.0));
        assert_eq!(Histogram::default().percentile_ns(50.0), None);
    }

    #[test]
    fn merging_keeps_what_is_known() {
        let a = Histogram {
            bins: vec![(1, 2)],
            sum_ns: Some(2),
            max_ns: Some(1),
        };
        let mut sum = Histogram::default();
        sum.merge(&a);
        assert_eq!(sum, a);
        sum.merge(&Histogram {
            bins: vec![(1, 1), (3, 1)],
            sum_ns: None,
            max_ns: None,
        });
        assert_eq!(sum.bins, [(1, 3), (3, 1)]);
        assert_eq!((sum.sum_ns, sum.max_ns), (None, None));
    }

    proptest! {
        #[test]
        fn a_bucket_is_narrow(ns: u64) {
            let low = lower_bound(bucket(ns));
            prop_assert!(low <= ns);
            prop_assert!((ns - low) as f64 <= ns as f64 / SUBS as f64);
        }
    }
}
