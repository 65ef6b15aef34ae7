//! What the programs counted.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::thread;
use std::time::{Duration, Instant};

use efuse_abi::Opcode;
use efuse_model::counters::{Counters, LockContention, Requests};
use efuse_model::histogram::{BUCKETS, Histogram, lower_bound};
use libbpf_rs::query::ProgInfoIter;
use libbpf_rs::{MapCore as _, MapFlags, Program};

use super::Probes;
use super::load::failed;
use crate::error::{ProbeError, Result};

/// Slots of the map of opcodes, `OPCODES` of `requests.h`.
const OPCODES: u32 = 64;
/// 64-bit words of one opcode there: crossings, time held back and three histograms.
const HISTOGRAM_WORDS: usize = 2 + BUCKETS;
const OPCODE_WORDS: usize = 2 + 3 * HISTOGRAM_WORDS;

/// Words of `struct request`.
const DEQUEUED: usize = 2;
const OPCODE: usize = 4;

/// How long requests that are under way at the end may take to end.
const DRAIN: Duration = Duration::from_millis(200);

/// Requests that have not ended, by where they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnderWay {
    /// Given, and not in the input queue yet: they wait for `max_background`.
    pub held: usize,
    /// In the input queue: their opcodes.
    pub queued: Vec<String>,
    /// Taken by the daemon: their opcodes.
    pub taken: Vec<String>,
}

/// Numbers of `counts.h`.
#[derive(Clone, Copy)]
enum Count {
    FioCalls,
    DaemonCalls,
    Contended,
    WaitNs,
    LostEnqueue,
    LostEnd,
    LostReply,
    LostMax,
    Forgotten,
}

impl Probes {
    /// Detaches, and puts what was counted into `counters`.
    ///
    /// # Errors
    /// If the figures cannot be read. Whatever was lost on the way is said in `missing`.
    pub fn read(mut self, counters: &mut Counters) -> Result<()> {
        counters.missing.append(&mut self.missing);
        let sums = self.counts()?;
        let sum = |which: Count| sums[which as usize];
        if self.calls {
            counters.fio_syscalls = Some(sum(Count::FioCalls));
            counters.daemon_syscalls = self.daemon.then(|| sum(Count::DaemonCalls));
        }
        if self.lock {
            counters.queue_lock = Some(LockContention {
                contended: sum(Count::Contended),
                wait_ns: sum(Count::WaitNs),
            });
        }
        if self.requests {
            let under_way = self.drain()?;
            counters.requests = self.requests()?;
            counters.forgotten = self.forgets.then(|| sum(Count::Forgotten));
            let mut lost = |n: u64, what: &str| {
                if n > 0 {
                    counters.missing.push(format!("FUSE requests: {n} {what}"));
                }
            };
            lost(
                under_way,
                "were still under way at the end and are not counted",
            );
            lost(
                sum(Count::LostEnqueue),
                "found no room among those under way and are not counted",
            );
            lost(sum(Count::LostEnd), "ended unseen and are not counted");
            lost(
                sum(Count::LostReply),
                "were answered unseen and are in no histogram",
            );
            lost(
                sum(Count::LostMax),
                "times a largest value may not have been kept",
            );
            lost(
                self.skipped()?,
                "events were skipped because a probe ran already on that processor",
            );
        }
        Ok(())
    }

    /// Nodes that FORGET and BATCH_FORGET named so far.
    ///
    /// # Errors
    /// If the figure cannot be read.
    pub fn forgotten(&self) -> Result<u64> {
        Ok(self.counts()?[Count::Forgotten as usize])
    }

    /// Where the requests are now that have not ended.
    ///
    /// # Errors
    /// If the figures cannot be read.
    pub fn under_way(&self) -> Result<UnderWay> {
        let mut now = UnderWay {
            held: self.map("given")?.keys().count(),
            ..UnderWay::default()
        };
        let map = self.map("requests")?;
        for key in map.keys() {
            let value = map
                .lookup(&key, MapFlags::ANY)
                .map_err(failed("read requests".into()))?;
            // One that has ended meanwhile is nowhere.
            let request: Vec<u64> = value.iter().flat_map(|v| words(v)).collect();
            let (Some(dequeued), Some(opcode)) = (request.get(DEQUEUED), request.get(OPCODE))
            else {
                continue;
            };
            let place = match dequeued {
                0 => &mut now.queued,
                _ => &mut now.taken,
            };
            // The other half of the word is padding.
            place.push(name(*opcode as u32));
        }
        Ok(now)
    }

    fn counts(&self) -> Result<Vec<u64>> {
        let map = self.map("counts")?;
        (0..=Count::Forgotten as u32)
            .map(|n| {
                let each = map
                    .lookup_percpu(&n.to_ne_bytes(), MapFlags::ANY)
                    .map_err(failed("read counts".into()))?
                    .unwrap_or_default();
                Ok(each.iter().flat_map(|v| words(v)).sum())
            })
            .collect()
    }

    /// Waits for requests under way, for a while. How many are left.
    fn drain(&self) -> Result<u64> {
        let map = self.map("requests")?;
        let end = Instant::now() + DRAIN;
        loop {
            let left = map.keys().count() as u64;
            if left == 0 || Instant::now() > end {
                return Ok(left);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Requests that ended so far, and messages without a reply that were read, by opcode.
    ///
    /// # Errors
    /// If the figures cannot be read.
    pub fn requests(&self) -> Result<Vec<Requests>> {
        let map = self.map("opcodes")?;
        let mut all = BTreeMap::new();
        for opcode in 0..OPCODES {
            let Some(bytes) = map
                .lookup(&opcode.to_ne_bytes(), MapFlags::ANY)
                .map_err(failed("read opcodes".into()))?
            else {
                continue;
            };
            let words: Vec<u64> = words(&bytes).collect();
            if words.len() != OPCODE_WORDS {
                return Err(ProbeError::Bpf {
                    action: "read opcodes".into(),
                    reason: format!("{} words, not {OPCODE_WORDS}", words.len()),
                });
            }
            if words[0] == 0 {
                continue;
            }
            let part = |n: usize| histogram(&words[2 + n * HISTOGRAM_WORDS..][..HISTOGRAM_WORDS]);
            let name = name(opcode);
            all.insert(
                name.clone(),
                Requests {
                    opcode: name,
                    crossings: words[0],
                    held_ns: words[1],
                    queueing: part(0),
                    processing: part(1),
                    total: part(2),
                },
            );
        }
        Ok(all.into_values().collect())
    }

    /// Events that the kernel did not run a program for, because it was running one of
    /// the same on that processor.
    fn skipped(&self) -> Result<u64> {
        let mut own = Vec::new();
        for program in self.object.progs() {
            // Those that were not loaded have no descriptor.
            if let Ok(id) = Program::id_from_fd(program.as_fd()) {
                own.push(id);
            }
        }
        Ok(ProgInfoIter::default()
            .filter(|info| own.contains(&info.id))
            .map(|info| info.recursion_misses)
            .sum())
    }
}
fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes
        .chunks_exact(8)
        .map(|c| u64::from_ne_bytes(c.try_into().unwrap_or_default()))
}

/// Sum, largest, buckets.
fn histogram(words: &[u64]) -> Histogram {
    let bins: Vec<_> = words[2..]
        .iter()
        .enumerate()
        .filter(|(_, n)| **n > 0)
        .map(|(bucket, n)| (lower_bound(bucket), *n))
        .collect();
    if bins.is_empty() {
        return Histogram::default();
    }
    Histogram {
        bins,
        sum_ns: Some(words[0]),
        max_ns: Some(words[1]),
    }
}

/// `COPY_FILE_RANGE`, as the kernel's header has it without its prefix.
fn name(opcode: u32) -> String {
    if opcode == 0 {
        return format!("OPCODE_{OPCODES}_OR_MORE");
    }
    let Some(known) = Opcode::from_raw(opcode) else {
        return format!("OPCODE_{opcode}");
    };
    let mut out = String::new();
    for (n, c) in format!("{known:?}").chars().enumerate() {
        if n > 0 && c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_uppercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opcodes_have_the_kernels_names() {
        assert_eq!(name(15), "READ");
        assert_eq!(name(42), "BATCH_FORGET");
        assert_eq!(name(44), "READDIRPLUS");
        assert_eq!(name(47), "COPY_FILE_RANGE");
        assert_eq!(name(63), "OPCODE_63");
        assert_eq!(name(0), "OPCODE_64_OR_MORE");
    }

    #[test]
    fn a_histogram_has_its_bounds() {
        let mut words = vec![0; HISTOGRAM_WORDS];
        assert_eq!(histogram(&words), Histogram::default());
        (words[0], words[1]) = (2001, 1000);
        words[2 + efuse_model::histogram::bucket(1000)] = 2;
        words[2 + 1] = 1;
        let h = histogram(&words);
        assert_eq!(h.bins, [(1, 1), (992, 2)]);
        assert_eq!((h.sum_ns, h.max_ns), (Some(2001), Some(1000)));
    }
}
