//! The figures of an attempt by name, for `eval ratio` and the tables.

use std::fmt;

use efuse_model::attempt::{Latency, Metrics, OpMetrics};
use efuse_model::counters::BusyFrom;

/// One figure of a measured phase.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name on the command line.
    pub name: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// Whether more is better, where that can be said.
    pub more_is_better: bool,
    get: fn(&Metrics) -> Option<f64>,
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Metric {
    /// The figure, where the job has it.
    #[must_use]
    pub fn of(&self, metrics: &Metrics) -> Option<f64> {
        (self.get)(metrics).filter(|v| v.is_finite())
    }

    /// The metric with this name.
    ///
    /// # Errors
    /// One line with the names there are.
    pub fn parse(name: &str) -> Result<Self, String> {
        ALL.into_iter().find(|m| m.name == name).ok_or_else(|| {
            let names: Vec<_> = ALL.iter().map(|m| m.name).collect();
            let hint = crate::suggest::nearest(name, names.iter().copied())
                .map(|n| format!("; did you mean {n}?"))
                .unwrap_or_default();
            format!(
                "unknown metric {name:?}{hint} There are: {}",
                names.join(", ")
            )
        })
    }
}

fn both(m: &Metrics, get: fn(&OpMetrics) -> f64) -> Option<f64> {
    let all: Vec<f64> = [&m.read, &m.write, &m.operations]
        .into_iter()
        .flatten()
        .map(get)
        .collect();
    (!all.is_empty()).then(|| all.iter().sum())
}

fn percentile(latency: &Latency, percent: f64) -> Option<f64> {
    latency
        .percentiles
        .iter()
        .find(|(p, _)| (p - percent).abs() < 1e-6)
        .map(|(_, us)| *us)
}

/// A count per request of fio, or operation, that was completed while it was counted.
fn per_op(m: &Metrics, count: f64) -> Option<f64> {
    let completed = m.counted();
    (completed > 0.0).then(|| count / completed)
}

/// Processor time of the whole system, microseconds; none where the kernel counted clock ticks,
/// which a busy host makes an emulated guest lose, or nothing at all.
fn processor_us(m: &Metrics) -> Option<f64> {
    let cpu = &m.counters.as_ref()?.cpu;
    let counted = cpu.accounted_s() > 0.0;
    (counted && cpu.busy_from == BusyFrom::Idle).then_some(cpu.busy_s * 1e6)
}

/// Context switches of the whole system: the kernel's own count, else that of perf.
fn switches(m: &Metrics) -> Option<f64> {
    let system = m.counters.as_ref()?.system_switches;
    per_op(m, system.proc.or(system.perf)? as f64)
}

macro_rules! metrics {
    ($($name:literal, $unit:literal, $more:literal, $get:expr;)*) => {
        /// Every metric.
        pub const ALL: [Metric; [$($name),*].len()] = [
            $(Metric { name: $name, unit: $unit, more_is_better: $more, get: $get },)*
        ];
    };
}

metrics! {
    "iops", "1/s", true, |m| both(m, |o| o.iops);
    "read-iops", "1/s", true, |m| m.read.as_ref().map(|o| o.iops);
    "write-iops", "1/s", true, |m| m.write.as_ref().map(|o| o.iops);
    "bw", "B/s", true, |m| both(m, |o| o.bytes_per_s);
    "read-bw", "B/s", true, |m| m.read.as_ref().map(|o| o.bytes_per_s);
    "write-bw", "B/s", true, |m| m.write.as_ref().map(|o| o.bytes_per_s);
    "read-slat", "us", false, |m| m.read.as_ref().map(|o| o.slat.mean_us);
    "write-slat", "us", false, |m| m.write.as_ref().map(|o| o.slat.mean_us);
    "read-clat", "us", false, |m| m.read.as_ref().map(|o| o.clat.mean_us);
    "write-clat", "us", false, |m| m.write.as_ref().map(|o| o.clat.mean_us);
    "read-lat", "us", false, |m| m.read.as_ref().map(|o| o.lat.mean_us);
    "write-lat", "us", false, |m| m.write.as_ref().map(|o| o.lat.mean_us);
    "read-p50", "us", false, |m| m.read.as_ref().and_then(|o| percentile(&o.clat, 50.0));
    "write-p50", "us", false, |m| m.write.as_ref().and_then(|o| percentile(&o.clat, 50.0));
    "read-p99", "us", false, |m| m.read.as_ref().and_then(|o| percentile(&o.clat, 99.0));
    "write-p99", "us", false, |m| m.write.as_ref().and_then(|o| percentile(&o.clat, 99.0));
    "switches-per-op", "switches", false, switches;
    "cpu-per-op", "us", false, |m| per_op(m, processor_us(m)?);
    "op-rate", "1/s", true, |m| m.operations.as_ref().map(|o| o.iops);
    "op-lat", "us", false, |m| m.operations.as_ref().map(|o| o.lat.mean_us);
    "op-p50", "us", false, |m| m.operations.as_ref().and_then(|o| percentile(&o.lat, 50.0));
    "op-p99", "us", false, |m| m.operations.as_ref().and_then(|o| percentile(&o.lat, 99.0));
    "fio-ctx", "switches", false, |m| Some(m.fio_ctx as f64);
    "fio-usr", "%", false, |m| Some(m.fio_usr_percent);
    "fio-sys", "%", false, |m| Some(m.fio_sys_percent);
}

#[cfg(test)]
mod tests {
    use efuse_model::counters::{Counters, Switches};

    use super::*;

    #[test]
    fn a_direction_that_the_job_lacks_has_no_figure() {
        let metrics = Metrics {
            read: Some(OpMetrics {
                iops: 10.0,
                clat: Latency {
                    percentiles: vec![(50.0, 4.0), (99.0, 9.0)],
                    ..Latency::default()
                },
                ..OpMetrics::default()
            }),
            ..Metrics::default()
        };
        let get = |name: &str| Metric::parse(name).unwrap().of(&metrics);
        assert_eq!(get("read-iops"), Some(10.0));
        assert_eq!(get("iops"), Some(10.0));
        assert_eq!(get("write-iops"), None);
        assert_eq!(get("read-p99"), Some(9.0));
        assert_eq!(Metric::parse("iops").unwrap().of(&Metrics::default()), None);
    }

    #[test]
    fn what_was_counted_is_divided_by_what_was_done_meanwhile() {
        let mut metrics = Metrics {
            read: Some(OpMetrics {
                ios: 1000,
                ..OpMetrics::default()
            }),
            runtime_ms: 2000.0,
            counters: Some(Counters {
                system_switches: Switches {
                    perf: None,
                    proc: Some(450),
                },
                ..Counters::default()
            }),
            ..Metrics::default()
        };
        let of = |metrics: &Metrics, name: &str| Metric::parse(name).unwrap().of(metrics);
        // As in attempts from before the window was stored.
        assert_eq!(of(&metrics, "switches-per-op"), Some(0.45));
        // No processor time was counted.
        assert_eq!(of(&metrics, "cpu-per-op"), None);
        let counters = metrics.counters.as_mut().unwrap();
        counters.window_s = Some(1.8);
        counters.cpu.idle_s = 1.0;
        counters.cpu.busy_s = 0.9;
        // By clock ticks, as by default.
        assert_eq!(of(&metrics, "cpu-per-op"), None);
        metrics.counters.as_mut().unwrap().cpu.busy_from = BusyFrom::Idle;
        assert_eq!(of(&metrics, "switches-per-op"), Some(0.5));
        assert_eq!(of(&metrics, "cpu-per-op"), Some(1000.0));
        // Jobs that start and end are in a longer one.
        metrics.counters.as_mut().unwrap().window_s = Some(2.1);
        assert_eq!(of(&metrics, "switches-per-op"), Some(0.45));
    }

    #[test]
    fn a_misspelt_name_is_answered_with_the_nearest() {
        let message = Metric::parse("read-iop").unwrap_err();
        assert!(message.contains("did you mean read-iops?"), "{message}");
        assert!(message.contains("write-slat"), "{message}");
    }
}
