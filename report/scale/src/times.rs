//! How long something takes, each time anew.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng as _;

/// A distribution of times, nanoseconds.
#[derive(Clone, Debug, PartialEq)]
pub enum Times {
    /// Always the same.
    Fixed(f64),
    /// Without memory, of this mean.
    Exponential(f64),
    /// As measured.
    Histogram(Histogram),
}

/// Bins of a measured distribution.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// Lower bound, width, and the count up to and with this bin.
    bins: Vec<(f64, f64, u64)>,
    mean: f64,
}

impl Times {
    /// Of bins `(lower bound, count)`, ascending; values lie evenly between a bin's bound and the
    /// next bin's that could be, `width` of the bound. `None` of nothing.
    #[must_use]
    pub fn histogram(bins: &[(u64, u64)], width: impl Fn(u64) -> u64) -> Option<Self> {
        let mut seen = 0;
        let mut sum = 0.0;
        let bins: Vec<_> = bins
            .iter()
            .filter(|(_, n)| *n > 0)
            .map(|(low, n)| {
                seen += n;
                let (low, width) = (*low as f64, width(*low) as f64);
                sum += (low + width / 2.0) * *n as f64;
                (low, width, seen)
            })
            .collect();
        (seen > 0).then(|| {
            Self::Histogram(Histogram {
                bins,
                mean: sum / seen as f64,
            })
        })
    }

    /// The mean, nanoseconds.
    #[must_use]
    pub const fn mean(&self) -> f64 {
        match self {
            Self::Fixed(ns) | Self::Exponential(ns) => *ns,
            Self::Histogram(h) => h.mean,
        }
    }

    /// Mean of the squares, which decides how long a queue in front of such a server is.
    #[must_use]
    pub fn second_moment(&self) -> f64 {
        match self {
            Self::Fixed(ns) => ns * ns,
            Self::Exponential(ns) => 2.0 * ns * ns,
            Self::Histogram(h) => {
                let mut before = 0;
                let mut sum = 0.0;
                for (low, width, seen) in &h.bins {
                    let middle = low + width / 2.0;
                    sum += (middle * middle + width * width / 12.0) * (seen - before) as f64;
                    before = *seen;
                }
                sum / before as f64
            }
        }
    }

    /// One of them.
    pub(crate) fn draw(&self, rng: &mut ChaCha8Rng) -> f64 {
        match self {
            Self::Fixed(ns) => *ns,
            Self::Exponential(ns) => -unit(rng).ln() * ns,
            Self::Histogram(h) => {
                let all = h.bins.last().map_or(0, |(_, _, n)| *n);
                let wanted = unit(rng) * all as f64;
                let at = h.bins.partition_point(|(_, _, n)| (*n as f64) < wanted);
                let (low, width, _) = h.bins[at.min(h.bins.len() - 1)];
                low + unit(rng) * width
            }
        }
    }
}

/// Above 0, at most 1.
pub(crate) fn unit(rng: &mut ChaCha8Rng) -> f64 {
    ((rng.next_u64() >> 11) + 1) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::rand_core::SeedableRng as _;

    #[test]
    fn drawn_times_have_the_moments_that_are_said() {
        let bins = [(1000, 70), (2000, 25), (64_000, 5)];
        for times in [
            Times::Fixed(7.0),
            Times::Exponential(500.0),
            Times::histogram(&bins, |low| low / 16).unwrap(),
        ] {
            let mut rng = ChaCha8Rng::seed_from_u64(1);
            let n = 400_000;
            let (mut sum, mut squares) = (0.0, 0.0);
            for _ in 0..n {
                let ns = times.draw(&mut rng);
                assert!(ns >= 0.0);
                sum += ns;
                squares += ns * ns;
            }
            let close = |got: f64, want: f64| (got / want - 1.0).abs() < 0.02;
            assert!(close(sum / f64::from(n), times.mean()), "{times:?}");
            assert!(
                close(squares / f64::from(n), times.second_moment()),
                "{times:?}"
            );
        }
        assert_eq!(Times::histogram(&[(5, 0)], |_| 1), None);
    }
}
