//! Who served the requests of a cell: pooled over its repetitions without probes.

use std::collections::BTreeMap;

use efuse_model::counters::Served;
use serde::Serialize;

use crate::input::Run;

/// One opcode of a cell.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Share {
    /// Its counts, the sum over the repetitions.
    #[serde(flatten)]
    pub counts: Served,
    /// Operations that the load completed in those repetitions.
    pub operations: u64,
}

impl Share {
    /// Requests for each operation of the load.
    #[must_use]
    pub fn per_operation(&self, requests: u64) -> Option<f64> {
        (self.operations > 0).then(|| requests as f64 / self.operations as f64)
    }

    /// Those that were answered in the kernel, percent of all; `None` without any.
    #[must_use]
    pub fn kernel_percent(&self) -> Option<f64> {
        percent(self.counts.in_kernel(), self.counts.by_daemon())
    }
}

/// `kernel` of `kernel` and `daemon` together, percent.
#[must_use]
pub fn percent(kernel: u64, daemon: u64) -> Option<f64> {
    let all = kernel + daemon;
    (all > 0).then(|| kernel as f64 / all as f64 * 100.0)
}

/// Every opcode that programs of a cell saw, by name; empty where there were none.
#[must_use]
pub fn of(run: &Run, test: &str, system: &str) -> Vec<Share> {
    let mut pooled: BTreeMap<&str, Served> = BTreeMap::new();
    let mut operations = 0;
    for m in run.of(test, system) {
        let Some(counters) = m.metrics.counters.as_ref() else {
            continue;
        };
        if counters.served.is_empty() {
            continue;
        }
        operations += m.metrics.counted().round() as u64;
        for s in &counters.served {
            let sum = pooled.entry(&s.opcode).or_insert_with(|| Served {
                opcode: s.opcode.clone(),
                ..Served::default()
            });
            for (mine, theirs) in [(&mut sum.kernel, &s.kernel), (&mut sum.passed, &s.passed)] {
                for (word, n) in theirs {
                    *mine.entry(word.clone()).or_default() += n;
                }
            }
        }
    }
    pooled
        .into_values()
        .map(|counts| Share { counts, operations })
        .collect()
}
