//! Axes: where a value lies, and which values are named.

use super::{LEFT, RIGHT, WIDTH};

/// Beyond this ratio of largest to smallest, a linear axis hides the smallest.
const LOG_FROM: f64 = 20.0;

/// An axis from `min` to `max`.
#[derive(Clone, Debug, PartialEq)]
pub struct Scale {
    log: bool,
    min: f64,
    max: f64,
    pub(super) ticks: Vec<f64>,
}

impl Scale {
    /// Whether bars of these values need a logarithmic axis.
    pub fn needs_log(values: &[f64]) -> bool {
        let (min, max) = bounds(values);
        !values.is_empty() && min > 0.0 && max / min > LOG_FROM
    }

    /// For bars: from zero, or logarithmic where that is asked for and possible.
    pub fn bars(values: &[f64], log: bool) -> Self {
        let (min, max) = bounds(values);
        if log && !values.is_empty() && min > 0.0 {
            Self::logarithmic(min, max)
        } else {
            Self::linear(0.0, if max > 0.0 { max } else { 1.0 })
        }
    }

    /// For marks without bars, which need no zero: logarithmic above a factor of three.
    pub fn marks(values: impl IntoIterator<Item = f64>) -> Self {
        let v: Vec<f64> = values.into_iter().collect();
        let (min, max) = bounds(&v);
        if v.is_empty() {
            Self::linear(0.0, 1.0)
        } else if min > 0.0 && max / min > 3.0 {
            Self::logarithmic(min, max)
        } else {
            let room = ((max - min) * 0.1)
                .max(max.abs() * 0.02)
                .max(f64::MIN_POSITIVE);
            Self::linear(min - room, max + room)
        }
    }

    /// For distributions: logarithmic in any case.
    pub fn decades(values: impl IntoIterator<Item = f64>) -> Self {
        let v: Vec<f64> = values.into_iter().filter(|v| *v > 0.0).collect();
        if v.is_empty() {
            return Self::logarithmic(1.0, 10.0);
        }
        let (min, max) = bounds(&v);
        // Equal ends span nothing.
        Self::logarithmic(min, max.max(min * 2.0))
    }

    /// From the first of these to the last, logarithmic, with each of them named.
    pub fn steps(steps: &[f64]) -> Self {
        let (min, max) = bounds(steps);
        Self {
            log: true,
            min,
            max: max.max(min * 2.0),
            ticks: steps.to_vec(),
        }
    }

    /// Whether the axis is logarithmic.
    pub const fn is_log(&self) -> bool {
        self.log
    }

    fn linear(min: f64, max: f64) -> Self {
        let raw = (max - min) / 4.0;
        let power = 10f64.powf(raw.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0]
            .into_iter()
            .map(|m| m * power)
            .find(|s| *s >= raw)
            .unwrap_or(10.0 * power);
        // From zero the axis ends on a tick; elsewhere the ticks lie inside.
        let max = if min == 0.0 {
            (max / step).ceil() * step
        } else {
            max
        };
        let first = (min / step).ceil() as i64;
        let last = (max / step + 1e-9).floor() as i64;
        Self {
            log: false,
            min,
            max,
            ticks: (first..=last).map(|i| i as f64 * step).collect(),
        }
    }

    fn logarithmic(min: f64, max: f64) -> Self {
        // 1-2-5 steps around the values; both ends are ticks.
        let (low, high) = (step_below(min), step_above(max));
        let decades = (high / low).log10();
        let mantissas: &[f64] = if decades <= 2.1 {
            &[1.0, 2.0, 5.0]
        } else {
            &[1.0]
        };
        let every = if decades > 7.0 { 2 } else { 1 };
        let first = low.log10().floor() as i32;
        let last = high.log10().ceil() as i32;
        let ticks = (first..=last)
            .filter(|e| (e - first) % every == 0)
            .flat_map(|e| mantissas.iter().map(move |m| m * 10f64.powi(e)))
            .filter(|t| *t >= low * 0.999 && *t <= high * 1.001)
            .collect();
        Self {
            log: true,
            min: low,
            max: high,
            ticks,
        }
    }

    /// Where a value lies on the axis, from 0 to 1.
    pub(super) fn share(&self, value: f64) -> f64 {
        let share = if self.log {
            (value.max(self.min) / self.min).ln() / (self.max / self.min).ln()
        } else {
            (value - self.min) / (self.max - self.min)
        };
        share.clamp(0.0, 1.0)
    }

    /// Pixel of a value on a horizontal axis.
    pub(super) fn x(&self, value: f64) -> i32 {
        let span = f64::from(WIDTH - LEFT - RIGHT);
        LEFT + (self.share(value) * span).round() as i32
    }
}

pub(super) fn bounds(v: &[f64]) -> (f64, f64) {
    v.iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| {
            (a.min(*v), b.max(*v))
        })
}

fn step_below(v: f64) -> f64 {
    let p = 10f64.powf(v.log10().floor());
    [5.0, 2.0, 1.0]
        .into_iter()
        .map(|m| m * p)
        .find(|s| *s <= v * 1.0001)
        .unwrap_or(p)
}

fn step_above(v: f64) -> f64 {
    let p = 10f64.powf(v.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|m| m * p)
        .find(|s| *s >= v * 0.9999)
        .unwrap_or(10.0 * p)
}

/// A tick's value without needless digits.
pub(super) fn tick_text(v: f64) -> String {
    if v.abs() >= 1000.0 {
        return crate::format::number(v);
    }
    // Steps are 1, 2, 2.5 or 5 times a power of ten: six decimals hold them without noise.
    let text = format!("{v:.6}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" {
        "0".to_owned()
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_start_at_zero_until_the_spread_needs_a_logarithm() {
        let s = Scale::bars(&[100.0, 900.0], false);
        assert_eq!((s.log, s.min, s.max), (false, 0.0, 1000.0));
        assert_eq!(s.ticks, [0.0, 250.0, 500.0, 750.0, 1000.0]);
        let s = Scale::bars(&[9.79, 1104.0], Scale::needs_log(&[9.79, 1104.0]));
        assert_eq!((s.log, s.min, s.max), (true, 5.0, 2000.0));
        assert!(
            !Scale::bars(&[0.0, 1000.0], true).log && !Scale::needs_log(&[0.0, 1.0]),
            "a zero has no logarithm"
        );
        assert!(!Scale::bars(&[], true).log && !Scale::needs_log(&[]));
        let s = Scale::marks([0.97, 1.06]);
        assert!(!s.log && s.ticks.len() >= 3, "{s:?}");
    }

    #[test]
    fn positions_stay_inside() {
        for s in [
            Scale::bars(&[1.0, 2.0], false),
            Scale::bars(&[1.0, 1e6], true),
            Scale::marks([1.0, 1.0]),
        ] {
            for v in [-1.0, 0.0, 1.0, 2.0, 1e9] {
                assert!((LEFT..=WIDTH - RIGHT).contains(&s.x(v)), "{s:?} {v}");
            }
        }
        let s = Scale::bars(&[1.0, 1000.0], true);
        assert_eq!(s.x(1.0), LEFT);
        assert_eq!(s.x(1000.0), WIDTH - RIGHT);
    }

    #[test]
    fn ticks_read_well() {
        assert_eq!(tick_text(0.1 + 0.2), "0.3");
        assert_eq!(tick_text(250.0), "250");
        assert_eq!(tick_text(20_000.0), "20,000");
        assert_eq!(tick_text(0.0), "0");
    }
}
