//! Numbers for readers: three or four significant digits, thousands separated, units chosen once
//! per table so that its cells compare at a glance.

use crate::metric::Metric;
use crate::stats::{self, Interval, Verdict};
use crate::table::{Ratio, Row};

/// Three significant digits below 1000, four above, thousands separated by commas.
#[must_use]
pub fn number(value: f64) -> String {
    significant(value, if value.abs() < 1000.0 { 3 } else { 4 })
}

/// `digits` significant digits; integer digits are rounded, never dropped.
#[must_use]
pub fn significant(value: f64, digits: i32) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let exponent = value.abs().log10().floor() as i32;
    let decimals = digits - 1 - exponent;
    if decimals > 0 {
        let text = format!("{value:.*}", decimals as usize);
        // Rounding can carry into one more integer digit: 9.9996 -> 10.000.
        let carried = text
            .parse::<f64>()
            .is_ok_and(|v| v.abs().log10().floor() as i32 > exponent);
        return if carried {
            format!("{value:.*}", decimals as usize - 1)
        } else {
            text
        };
    }
    let step = 10f64.powi(-decimals);
    thousands((value / step).round() * step)
}

fn thousands(value: f64) -> String {
    let plain = format!("{value:.0}");
    let (sign, digits) = plain
        .strip_prefix('-')
        .map_or(("", plain.as_str()), |d| ("-", d));
    let mut out = String::from(sign);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A whole count with separated thousands.
#[must_use]
pub fn count(n: u64) -> String {
    thousands(n as f64)
}

/// `1 CPU`, `2 CPUs`.
#[must_use]
pub fn cpus(n: u32) -> String {
    format!("{n} CPU{}", if n == 1 { "" } else { "s" })
}

/// Bytes in the largest binary unit that leaves at least 1.
#[must_use]
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = if value >= 100.0 { 4 } else { 3 };
    let text = if value.fract() == 0.0 {
        thousands(value)
    } else {
        significant(value, digits)
    };
    format!("{text} {}", UNITS[unit])
}

/// Milliseconds as `850 ms`, `12.5 s` or `3 min 20 s`.
#[must_use]
pub fn duration_ms(ms: f64) -> String {
    if ms < 1000.0 {
        format!("{} ms", significant(ms, 3))
    } else if ms < 120_000.0 {
        let s = ms / 1000.0;
        if s.fract() == 0.0 {
            format!("{s:.0} s")
        } else {
            format!("{} s", significant(s, 3))
        }
    } else {
        let s = (ms / 1000.0).round() as u64;
        format!("{} min {} s", s / 60, s % 60)
    }
}

/// A unit that divides stored values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unit {
    /// What a stored value is divided by.
    pub divisor: f64,
    /// Name behind the value.
    pub name: &'static str,
}

impl Unit {
    /// The unit for these values of one figure. Latencies turn to milliseconds when even
    /// the smallest stays legible there.
    #[must_use]
    pub fn of(metric: Metric, values: impl IntoIterator<Item = f64>) -> Self {
        let name = metric.unit();
        let (mut min, mut max) = (f64::INFINITY, 0f64);
        for v in values.into_iter().filter(|v| *v > 0.0) {
            (min, max) = (min.min(v), max.max(v));
        }
        if name == Metric::Clat.unit() && max >= 10_000.0 && min >= 50.0 {
            Self {
                divisor: 1000.0,
                name: "ms",
            }
        } else {
            Self { divisor: 1.0, name }
        }
    }

    /// `6,711`.
    #[must_use]
    pub fn bare(self, value: f64) -> String {
        number(value / self.divisor)
    }

    /// `6,711 IOPS`.
    #[must_use]
    pub fn with(self, value: f64) -> String {
        format!("{} {}", self.bare(value), self.name)
    }

    /// `6,600–6,800`.
    #[must_use]
    pub fn range(self, i: Interval) -> String {
        format!("{}\u{2013}{}", self.bare(i.low), self.bare(i.high))
    }

    /// `6,711 (6,600–6,800, n=3)`, without the unit.
    #[must_use]
    pub fn row(self, row: &Row) -> String {
        match row.interval {
            Some(i) => format!("{} ({}, n={})", self.bare(row.median), self.range(i), row.n),
            None => format!("{} (n={}, no interval)", self.bare(row.median), row.n),
        }
    }
}

/// `1.43` below 100, three digits above.
#[must_use]
pub fn factor(value: f64) -> String {
    if value == 0.0 {
        "0".to_owned()
    } else if value.abs() < 0.1 {
        significant(value, 2)
    } else if value.abs() < 99.995 {
        format!("{value:.2}")
    } else {
        significant(value, 3)
    }
}

/// `1.43x (1.38–1.49, n=3)`.
#[must_use]
pub fn ratio(r: &Ratio) -> String {
    match r.interval {
        Some(i) => format!(
            "{}x ({}\u{2013}{}, n={})",
            factor(r.median),
            factor(i.low),
            factor(i.high),
            r.n
        ),
        None => format!("{}x (n={}, no interval)", factor(r.median), r.n),
    }
}

/// What a ratio says, in words that promise no more than its repetitions can: below six,
/// where no interval reaches 95 %, only what was seen is said.
#[must_use]
pub fn verdict(r: &Ratio) -> String {
    let words = r.verdict.words();
    let one_sided = matches!(r.verdict, Verdict::Higher | Verdict::Lower);
    if one_sided && stats::range_coverage(r.n) < stats::CONFIDENCE {
        format!("{words} in all {}", r.n)
    } else {
        words.to_owned()
    }
}

/// Whole seconds in UTC: `2026-11-24 18:30:24 UTC`.
#[must_use]
pub fn time(t: jiff::Timestamp) -> String {
    t.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_and_separators() {
        assert_eq!(number(6711.0), "6,711");
        assert_eq!(number(130_802.62), "130,800");
        assert_eq!(number(12.825_3), "12.8");
        assert_eq!(number(0.012_345), "0.0123");
        assert_eq!(number(9.999_96), "10.0");
        assert_eq!(number(0.0), "0");
        assert_eq!(number(999.6), "1,000");
        assert_eq!(number(99.96), "100");
        assert_eq!(number(999_999.0), "1,000,000");
        assert_eq!(count(2_024_629), "2,024,629");
        assert_eq!(bytes(512 << 20), "512 MiB");
        assert_eq!(bytes(1_500_000), "1.43 MiB");
        assert_eq!(bytes(0), "0 B");
        assert_eq!(duration_ms(2000.0), "2 s");
        assert_eq!(duration_ms(200_000.0), "3 min 20 s");
    }

    #[test]
    fn latencies_share_one_unit() {
        let ms = Unit::of(Metric::Clat, [238.0, 130_802.0]);
        assert_eq!(ms.with(238.0), "0.238 ms");
        let us = Unit::of(Metric::Slat, [9.79, 130_802.0]);
        assert_eq!(us.with(9.79), "9.79 \u{b5}s");
        assert_eq!(Unit::of(Metric::Iops, [1e6]).with(1e6), "1,000,000 IOPS");
    }

    #[test]
    fn few_repetitions_promise_nothing() {
        let mut r = Ratio {
            median: 2.0,
            interval: Some(Interval {
                low: 1.5,
                high: 2.5,
            }),
            n: 3,
            verdict: Verdict::Higher,
            points: vec![],
            across_sessions: 0,
        };
        assert_eq!(verdict(&r), "higher in all 3");
        r.n = 6;
        assert_eq!(verdict(&r), "higher");
        (r.n, r.verdict) = (2, Verdict::Unclear);
        assert_eq!(verdict(&r), "no clear difference");
    }

    #[test]
    fn factors() {
        assert_eq!(factor(1.434), "1.43");
        assert_eq!(factor(0.0123), "0.012");
        assert_eq!(factor(123.4), "123");
    }
}
