//! What was counted beside fio, per cell: switches, system calls, CPU, memory, requests.
//!
//! The repetition is the unit here as everywhere: a figure is the median over
//! repetitions, with its interval. Histograms are pooled over repetitions, because a
//! percentile of a tail needs all of its values.

use std::collections::{BTreeMap, BTreeSet};

use efuse_model::counters::{BusyFrom, Counters, Requests, Switches};
use efuse_model::histogram::Histogram;
use serde::Serialize;

use crate::choice::{self, Choice};
use crate::input::{Measured, Run};
use crate::rings::{self, Load};
use crate::served::{self, Share};
use crate::stats::{self, Interval};
use crate::table::Point;

/// Where `/proc/stat` accounts for less of the processors' time than this, its sums are
/// not used. The rest of a tenth is room for fio's own start and end, which lie outside.
pub const ACCOUNTED_PERCENT: f64 = 90.0;

/// A figure over the repetitions that have it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// Repetitions that have it.
    pub n: usize,
    /// Their median.
    pub median: f64,
    /// 95 % bootstrap interval of the median; none with one repetition.
    pub interval: Option<Interval>,
    /// Every repetition.
    pub points: Vec<Point>,
}

impl Figure {
    /// `None` where no repetition has it.
    fn of(points: Vec<Point>, seed: u64) -> Option<Self> {
        let values: Vec<f64> = points.iter().map(|p| p.value).collect();
        Some(Self {
            n: values.len(),
            median: stats::median(&values)?,
            interval: stats::bootstrap_median(&values, seed),
            points,
        })
    }
}

/// A count: in all, and per operation of fio.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Count {
    /// In the measured phase.
    pub total: Option<Figure>,
    /// Divided by the operations that fio completed in it.
    pub per_op: Option<Figure>,
}

/// Context switches of one group of tasks by everyone who counted them.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Counted {
    /// By perf events.
    pub perf: Count,
    /// By `/proc`.
    pub proc: Count,
    /// By fio itself; of fio only.
    pub own: Count,
    /// The largest spread between the counters of one repetition, percent of the largest
    /// of them; `None` where fewer than two counted.
    pub disagreement_percent: Option<f64>,
}

impl Counted {
    /// The count that charts show: perf's, or where it is missing `/proc`'s.
    #[must_use]
    pub fn best(&self) -> &Count {
        if self.perf.total.is_some() {
            &self.perf
        } else {
            &self.proc
        }
    }
}

/// A sum with its parts, all of them per operation and of the same repetitions.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Split {
    /// fio's part.
    pub fio: Option<Figure>,
    /// The daemon's part; none for systems without one.
    pub daemon: Option<Figure>,
    /// Kernel threads' part; of CPU only.
    pub kernel: Option<Figure>,
    /// What is left of the sum.
    pub rest: Option<Figure>,
    /// The sum.
    pub all: Option<Figure>,
}

/// Requests of one opcode, pooled over the probed repetitions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Opcode {
    /// Its name.
    pub opcode: String,
    /// Requests that the daemon took, in all repetitions.
    pub taken: u64,
    /// Requests that the daemon took, per operation of fio.
    pub crossings: Count,
    /// From when the request is given to FUSE to its dequeue.
    pub queueing: Histogram,
    /// The part of queueing before the input queue, of all requests together, nanoseconds.
    pub held_ns: u64,
    /// Dequeue to reply.
    pub processing: Histogram,
    /// Enqueue to reply, measured on its own.
    pub total: Histogram,
}

impl Opcode {
    /// How far the means of queueing and processing together are from the mean of the
    /// whole, percent of the whole; `None` where one of the sums is not known.
    #[must_use]
    pub fn gap_percent(&self) -> Option<f64> {
        let whole = self.total.mean_ns().filter(|m| *m > 0.0)?;
        let parts = self.queueing.mean_ns()? + self.processing.mean_ns()?;
        Some((parts - whole) / whole * 100.0)
    }

    /// How much of the time of queueing was before the input queue, percent; `None` where
    /// that time is not known.
    #[must_use]
    pub fn held_percent(&self) -> Option<f64> {
        let queueing = self.queueing.sum_ns.filter(|ns| *ns > 0)?;
        Some(self.held_ns as f64 / queueing as f64 * 100.0)
    }

    /// Whether every request is in all three histograms.
    #[must_use]
    pub fn complete(&self) -> bool {
        let n = self.total.count();
        self.queueing.count() == n && self.processing.count() == n
    }
}

/// Everything that was counted of one system in one test.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cell {
    /// Identifier of the test.
    pub test: String,
    /// Identifier of the system.
    pub system: String,
    /// Repetitions without probes that have counters.
    pub n: usize,
    /// Repetitions without probes that have none.
    pub without: usize,
    /// Probed repetitions that have counters.
    pub n_probed: usize,
    /// Whether the counters know a daemon.
    pub has_daemon: bool,
    /// Switches of fio.
    pub fio: Counted,
    /// Switches of the daemon.
    pub daemon: Counted,
    /// Switches of the whole system.
    pub system_wide: Counted,
    /// Switches per operation by who made them.
    pub switches: Split,
    /// CPU time per operation by who used it, microseconds.
    pub cpu_us: Split,
    /// Share of all processors' time that was busy, percent.
    pub busy_percent: Option<Figure>,
    /// How much of the processors' time `/proc/stat` accounted for at all, percent. It
    /// counts clock ticks, and a busy host's emulated guest loses many of them: then busy,
    /// idle and what is left of them are too small.
    pub accounted_percent: Option<Figure>,
    /// Time that the host took from the processors, seconds.
    pub steal_s: Option<Figure>,
    /// Largest resident set of the daemon over the repetitions, bytes.
    pub daemon_peak: Option<u64>,
    /// Most memory of kernel-side maps over the repetitions, bytes.
    pub maps: Option<u64>,
    /// Most memory of rings and argument buffers over the repetitions, bytes.
    pub rings: Option<u64>,
    /// System calls of fio; from probed repetitions.
    pub fio_syscalls: Count,
    /// System calls of the daemon; from probed repetitions.
    pub daemon_syscalls: Count,
    /// Requests by opcode; from probed repetitions.
    pub requests: Vec<Opcode>,
    /// Nodes that FORGET and BATCH_FORGET named; from probed repetitions.
    pub forgotten: Count,
    /// Who served the requests that programs saw, by opcode.
    pub served: Vec<Share>,
    /// How a policy chose paths for data by file, where one did.
    pub choice: Option<Choice>,
    /// The load of ring channels, in the order of their numbers.
    pub channels: Vec<Load>,
    /// Times that the queue's lock was not free; from probed repetitions.
    pub lock_contended: Count,
    /// Time waited for the queue's lock, nanoseconds; from probed repetitions.
    pub lock_wait_ns: Count,
    /// What could not be counted, each reason once.
    pub missing: Vec<String>,
}

/// One value per repetition.
struct Collector<'a> {
    repetitions: Vec<(&'a Measured, &'a Counters)>,
    seed: u64,
}

impl<'a> Collector<'a> {
    fn new(repetitions: impl Iterator<Item = &'a Measured>, seed: u64) -> Self {
        let repetitions = repetitions
            .filter_map(|m| Some((m, m.metrics.counters.as_ref()?)))
            .collect();
        Self { repetitions, seed }
    }

    /// Values that are no finite number say nothing and are left out.
    fn figure(&self, of: impl Fn(&Measured, &Counters) -> Option<f64>) -> Option<Figure> {
        let points = self
            .repetitions
            .iter()
            .filter_map(|(m, c)| {
                // Zeros where counters never ran are no figures.
                let ran = c.cpu.accounted_s() > 0.0;
                Some(Point {
                    repetition: m.repetition,
                    value: of(m, c).filter(|v| ran && v.is_finite())?,
                })
            })
            .collect();
        Figure::of(points, self.seed)
    }

    fn per_op(&self, of: impl Fn(&Measured, &Counters) -> Option<f64>) -> Option<Figure> {
        self.figure(|m, c| Some(of(m, c)? / m.metrics.counted()))
    }

    fn count(&self, of: impl Fn(&Measured, &Counters) -> Option<u64>) -> Count {
        let of = |m: &Measured, c: &Counters| of(m, c).map(|n| n as f64);
        Count {
            total: self.figure(of),
            per_op: self.per_op(of),
        }
    }

    /// What fio counted itself, in all of the phase.
    fn of_fio(&self, of: impl Fn(&Measured) -> Option<u64>) -> Count {
        let of = |m: &Measured| of(m).map(|n| n as f64);
        Count {
            total: self.figure(|m, _| of(m)),
            per_op: self.figure(|m, _| Some(of(m)? / m.metrics.completed() as f64)),
        }
    }

    fn most(&self, of: impl Fn(&Counters) -> Option<u64>) -> Option<u64> {
        self.repetitions.iter().filter_map(|(_, c)| of(c)).max()
    }

    fn counted(
        &self,
        of: impl Fn(&Counters) -> Option<Switches>,
        own: impl Fn(&Measured) -> Option<u64>,
    ) -> Counted {
        let spread = self
            .repetitions
            .iter()
            .filter_map(|(m, c)| {
                let s = of(c).unwrap_or_default();
                spread_percent(&[s.perf, s.proc, own(m)])
            })
            .fold(None, |worst: Option<f64>, s| {
                Some(worst.map_or(s, |w| w.max(s)))
            });
        Counted {
            perf: self.count(|_, c| of(c)?.perf),
            proc: self.count(|_, c| of(c)?.proc),
            own: self.of_fio(own),
            disagreement_percent: spread,
        }
    }

    fn switches(&self) -> Split {
        let has_daemon = self
            .repetitions
            .iter()
            .any(|(_, c)| c.daemon_switches.is_some());
        let fio = |c: &Counters| best(c.fio_switches);
        // A daemon whose switches nobody counted leaves no rest to be told.
        let daemon = |c: &Counters| match c.daemon_switches {
            Some(s) => best(s),
            None => Some(0.0),
        };
        let all = |c: &Counters| best(c.system_switches);
        Split {
            fio: self.per_op(|_, c| fio(c)),
            daemon: has_daemon
                .then(|| self.per_op(|_, c| best(c.daemon_switches?)))
                .flatten(),
            kernel: None,
            rest: self.per_op(|_, c| Some(all(c)? - fio(c)? - daemon(c)?)),
            all: self.per_op(|_, c| all(c)),
        }
    }

    fn cpu(&self) -> Split {
        let us = |s: f64| s * 1e6;
        Split {
            fio: self.per_op(|_, c| c.cpu.fio_s.map(us)),
            daemon: self.per_op(|_, c| c.cpu.daemon_s.map(us)),
            kernel: self.per_op(|_, c| Some(us(c.cpu.kernel_threads_s))),
            rest: self.per_op(|_, c| {
                let daemon = match c.daemon_switches {
                    Some(_) => c.cpu.daemon_s?,
                    None => c.cpu.daemon_s.unwrap_or(0.0),
                };
                let known = c.cpu.fio_s? + daemon + c.cpu.kernel_threads_s;
                Some(us(c.cpu.busy_s - known))
            }),
            all: self.per_op(|_, c| Some(us(c.cpu.busy_s))),
        }
    }

    fn requests(&self) -> Vec<Opcode> {
        let mut pooled: BTreeMap<&str, Requests> = BTreeMap::new();
        for (_, c) in &self.repetitions {
            for r in &c.requests {
                let all = pooled.entry(&r.opcode).or_default();
                all.crossings += r.crossings;
                all.held_ns += r.held_ns;
                all.queueing.merge(&r.queueing);
                all.processing.merge(&r.processing);
                all.total.merge(&r.total);
            }
        }
        pooled
            .into_iter()
            .map(|(opcode, all)| Opcode {
                opcode: opcode.to_owned(),
                taken: all.crossings,
                held_ns: all.held_ns,
                // Where requests were counted, an opcode that did not occur occurred 0 times.
                crossings: self.count(|_, c| {
                    (!c.requests.is_empty()).then(|| {
                        c.requests
                            .iter()
                            .filter(|r| r.opcode == opcode)
                            .map(|r| r.crossings)
                            .sum()
                    })
                }),
                queueing: all.queueing,
                processing: all.processing,
                total: all.total,
            })
            .collect()
    }
}

fn best(s: Switches) -> Option<f64> {
    s.perf.or(s.proc).map(|n| n as f64)
}

/// Largest less smallest of what was counted, percent of the largest.
fn spread_percent(counts: &[Option<u64>]) -> Option<f64> {
    let known: Vec<f64> = counts.iter().flatten().map(|n| *n as f64).collect();
    let largest = known.iter().copied().fold(0.0, f64::max);
    let smallest = known.iter().copied().fold(f64::INFINITY, f64::min);
    match known.len() {
        0 | 1 => None,
        _ if largest == 0.0 => Some(0.0),
        _ => Some((largest - smallest) / largest * 100.0),
    }
}

impl Cell {
    /// `None` where no repetition of the cell has figures.
    #[must_use]
    pub fn of(run: &Run, test: &str, system: &str) -> Option<Self> {
        let seed = run.plan.seed;
        let plain = Collector::new(run.of(test, system), seed);
        let probed = Collector::new(run.probed_of(test, system), seed);
        let figures = run.of(test, system).count();
        if figures == 0 && probed.repetitions.is_empty() {
            return None;
        }
        let missing: BTreeSet<&str> = [&plain, &probed]
            .into_iter()
            .flat_map(|c| &c.repetitions)
            .flat_map(|(_, c)| c.missing.iter().map(String::as_str))
            .collect();
        Some(Self {
            test: test.to_owned(),
            system: system.to_owned(),
            n: plain.repetitions.len(),
            without: figures - plain.repetitions.len(),
            n_probed: probed.repetitions.len(),
            has_daemon: plain
                .repetitions
                .iter()
                .chain(&probed.repetitions)
                .any(|(_, c)| c.daemon_switches.is_some()),
            fio: plain.counted(
                |c| Some(c.fio_switches),
                |m| {
                    // metaload counts none itself.
                    m.metrics.operations.is_none().then_some(m.metrics.fio_ctx)
                },
            ),
            daemon: plain.counted(|c| c.daemon_switches, |_| None),
            system_wide: plain.counted(|c| Some(c.system_switches), |_| None),
            switches: plain.switches(),
            cpu_us: plain.cpu(),
            busy_percent: plain.figure(|_, c| Some(c.cpu.busy_s / c.cpu.accounted_s() * 100.0)),
            accounted_percent: plain.figure(|m, c| {
                if c.cpu.busy_from == BusyFrom::Idle {
                    return None;
                }
                let processors = f64::from(run.environment.as_ref()?.cpus);
                Some(c.cpu.accounted_s() / (processors * m.metrics.runtime_ms / 1e3) * 100.0)
            }),
            steal_s: plain.figure(|_, c| Some(c.cpu.steal_s)),
            daemon_peak: plain.most(|c| c.memory.daemon_peak),
            maps: plain.most(|c| c.memory.maps),
            rings: plain.most(|c| c.memory.rings),
            fio_syscalls: probed.count(|_, c| c.fio_syscalls),
            daemon_syscalls: probed.count(|_, c| c.daemon_syscalls),
            requests: probed.requests(),
            forgotten: probed.count(|_, c| c.forgotten),
            served: served::of(run, test, system),
            choice: choice::of(run, test, system),
            channels: rings::of(run, test, system),
            lock_contended: probed.count(|_, c| c.queue_lock.map(|l| l.contended)),
            lock_wait_ns: probed.count(|_, c| c.queue_lock.map(|l| l.wait_ns)),
            missing: missing.into_iter().map(str::to_owned).collect(),
        })
    }

    /// Whether the sum of all CPU time is known: not where `/proc/stat` lost clock ticks,
    /// or counted less than the scheduler did of the parts.
    #[must_use]
    pub fn cpu_sum_known(&self) -> bool {
        let lost = self
            .accounted_percent
            .as_ref()
            .is_some_and(|f| f.median < ACCOUNTED_PERCENT);
        let negative = self.cpu_us.rest.as_ref().is_some_and(|f| f.median < 0.0);
        !(lost || negative)
    }

    /// Every cell of a run that has figures, in the order of the plan.
    #[must_use]
    pub fn all(run: &Run) -> Vec<Self> {
        let tests = run.plan.tests.iter();
        tests
            .flat_map(|t| run.plan.systems.iter().map(move |s| (t, s)))
            .filter_map(|(t, s)| Self::of(run, &t.id, &s.id))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_needs_two_counters() {
        assert_eq!(spread_percent(&[Some(100), None, None]), None);
        assert_eq!(spread_percent(&[Some(100), Some(98), None]), Some(2.0));
        assert_eq!(spread_percent(&[Some(100), Some(98), Some(50)]), Some(50.0));
        assert_eq!(spread_percent(&[Some(0), Some(0), None]), Some(0.0));
        assert_eq!(spread_percent(&[]), None);
    }

    #[test]
    fn the_gap_needs_exact_sums() {
        let h = |sum_ns| Histogram {
            bins: vec![(10, 2)],
            sum_ns,
            max_ns: None,
        };
        let mut o = Opcode {
            opcode: "READ".into(),
            taken: 2,
            held_ns: 10,
            crossings: Count::default(),
            queueing: h(Some(40)),
            processing: h(Some(58)),
            total: h(Some(100)),
        };
        assert_eq!(o.gap_percent(), Some(-2.0));
        assert_eq!(o.held_percent(), Some(25.0));
        assert!(o.complete());
        o.queueing.bins = vec![(10, 1)];
        assert!(!o.complete());
        o.processing.sum_ns = None;
        assert_eq!(o.gap_percent(), None);
    }
}
