//! By which path a cell's data went, and how a policy chose it for each file: pooled over its
//! repetitions without probes.

use std::collections::BTreeMap;

use efuse_model::counters::{Adaptive, BY_BACKING, BY_CACHE, FILLED, Served};
use serde::Serialize;

use crate::input::Run;
use crate::metric::{Metric, Op};
use crate::table::{Ratio, Table};

/// The system that chooses between the paths, and has nothing else beside those that are
/// fixed to one: what it is to be compared with.
pub const CHOOSES: &str = "efuse-prelim";

/// The systems that are fixed to a path, with the path in words.
pub const FIXED: [(&str, &str); 2] = [
    ("efuse-passthrough", "backing file"),
    ("efuse-cache-backed", "cache"),
];

/// Calls of direct I/O in one direction, by the path that they took.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Paths {
    /// The cache had it.
    pub cache: u64,
    /// The cache lacked it and was filled from the backing file.
    pub filled: u64,
    /// The backing file alone.
    pub backing: u64,
    /// The daemon, by the reason.
    pub daemon: BTreeMap<String, u64>,
}

impl Paths {
    fn add(&mut self, served: &Served) {
        let kernel = |word| served.kernel.get(word).copied().unwrap_or_default();
        self.cache += kernel(BY_CACHE);
        self.filled += kernel(FILLED);
        self.backing += kernel(BY_BACKING);
        for (word, n) in &served.passed {
            *self.daemon.entry(word.clone()).or_default() += n;
        }
    }

    /// Those that went to the daemon.
    #[must_use]
    pub fn by_daemon(&self) -> u64 {
        self.daemon.values().sum()
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.cache + self.filled + self.backing + self.by_daemon()
    }

    /// `n` of them in percent; `None` without any.
    #[must_use]
    pub fn percent(&self, n: u64) -> Option<f64> {
        let all = self.all();
        (all > 0).then(|| n as f64 / all as f64 * 100.0)
    }

    /// Of what was looked for in the cache, what it had; percent.
    #[must_use]
    pub fn hit_percent(&self) -> Option<f64> {
        let looked = self.cache + self.filled;
        (looked > 0).then(|| self.cache as f64 / looked as f64 * 100.0)
    }
}

/// How a policy chose in a cell.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Choice {
    /// Repetitions that have it.
    pub n: usize,
    /// Reads.
    pub read: Paths,
    /// Writes.
    pub write: Paths,
    /// Its rounds, the sums over the repetitions.
    pub rounds: Adaptive,
}

impl Choice {
    /// The calls of a direction.
    #[must_use]
    pub fn paths(&self, op: Op) -> Option<&Paths> {
        let paths = match op {
            Op::Read => &self.read,
            Op::Write => &self.write,
            Op::Operation => return None,
        };
        (paths.all() > 0).then_some(paths)
    }
}

/// `None` where no policy chose, or had nothing to choose for.
#[must_use]
pub fn of(run: &Run, test: &str, system: &str) -> Option<Choice> {
    let mut choice = Choice {
        n: 0,
        read: Paths::default(),
        write: Paths::default(),
        rounds: Adaptive::default(),
    };
    for m in run.of(test, system) {
        let counters = m.metrics.counters.as_ref();
        let Some((counters, rounds)) = counters.and_then(|c| Some((c, c.adaptive?))) else {
            continue;
        };
        choice.n += 1;
        let sum = &mut choice.rounds;
        sum.on_cache += rounds.on_cache;
        sum.on_backing += rounds.on_backing;
        sum.rounds += rounds.rounds;
        sum.changes += rounds.changes;
        sum.short_rounds += rounds.short_rounds;
        for served in &counters.served {
            match served.opcode.as_str() {
                "READ" => choice.read.add(served),
                "WRITE" => choice.write.add(served),
                _ => {}
            }
        }
    }
    (choice.read.all() + choice.write.all() > 0).then_some(choice)
}

/// [`CHOOSES`] against the systems that are fixed to a path, in one direction of a test.
#[derive(Clone, Debug, PartialEq)]
pub struct Against {
    /// The better of the fixed ones, by the median of their paired ratios of IOPS.
    pub better: &'static str,
    /// IOPS of [`CHOOSES`] over those of the better one.
    pub chosen: Ratio,
    /// IOPS of the other one over those of the better one.
    pub other: Ratio,
}

impl Against {
    /// The path of the better one in words.
    #[must_use]
    pub fn path(&self) -> &'static str {
        let mut fixed = FIXED.iter();
        fixed
            .find(|(id, _)| *id == self.better)
            .map_or("", |(_, path)| path)
    }
}

/// `None` unless all three have figures of the same repetitions.
#[must_use]
pub fn against(run: &Run, table: &Table, test: &str, op: Op) -> Option<Against> {
    let related = |system, to| table.related(run, (test, op, Metric::Iops), system, to);
    let [(a, _), (b, _)] = FIXED;
    let (better, other) = if related(a, b)?.median >= 1.0 {
        (a, b)
    } else {
        (b, a)
    };
    Some(Against {
        better,
        chosen: related(CHOOSES, better)?,
        other: related(other, better)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_all_calls_and_hits_of_what_was_looked_for() {
        let count = |all: &[(&str, u64)]| -> BTreeMap<String, u64> {
            all.iter().map(|(k, n)| ((*k).to_owned(), *n)).collect()
        };
        let mut paths = Paths::default();
        assert_eq!((paths.percent(0), paths.hit_percent()), (None, None));
        for _ in 0..2 {
            paths.add(&Served {
                opcode: "READ".into(),
                kernel: count(&[(BY_CACHE, 60), (FILLED, 20), (BY_BACKING, 15)]),
                passed: count(&[("chosen", 4), ("error", 1)]),
            });
        }
        assert_eq!((paths.all(), paths.by_daemon()), (200, 10));
        assert_eq!(paths.percent(paths.filled), Some(20.0));
        assert_eq!(paths.hit_percent(), Some(75.0));
        assert_eq!(paths.daemon, count(&[("chosen", 8), ("error", 2)]));
    }
}
