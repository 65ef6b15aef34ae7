//! Threads that operate for a given time.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use efuse_model::histogram::{BUCKETS, Histogram, bucket, lower_bound};
use efuse_model::metadata::{MetadataJob, MetadataReport};

use crate::LoadError;
use crate::operation::Worker;
use crate::tree::Tree;

/// What one thread has counted.
struct Tally {
    buckets: Vec<u64>,
    ops: u64,
    ramp_ops: u64,
    sum_ns: u64,
    /// Squares are of microseconds, so that a day of them fits.
    sum_us2: f64,
    max_ns: u64,
}

impl Tally {
    fn new() -> Self {
        Self {
            buckets: vec![0; BUCKETS],
            ops: 0,
            ramp_ops: 0,
            sum_ns: 0,
            sum_us2: 0.0,
            max_ns: 0,
        }
    }

    fn add(&mut self, ns: u64) {
        self.buckets[bucket(ns)] += 1;
        self.ops += 1;
        self.sum_ns += ns;
        self.sum_us2 += (ns as f64 / 1e3).powi(2);
        self.max_ns = self.max_ns.max(ns);
    }

    fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.ops += other.ops;
        self.ramp_ops += other.ramp_ops;
        self.sum_ns += other.sum_ns;
        self.sum_us2 += other.sum_us2;
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    fn report(&self, seconds: f64) -> MetadataReport {
        let bins = self
            .buckets
            .iter()
            .enumerate()
            .filter(|(_, n)| **n > 0)
            .map(|(b, n)| (lower_bound(b), *n))
            .collect();
        let n = self.ops.max(1) as f64;
        let mean_us = self.sum_ns as f64 / 1e3 / n;
        MetadataReport {
            ops: self.ops,
            seconds,
            latency: Histogram {
                bins,
                sum_ns: Some(self.sum_ns),
                max_ns: Some(self.max_ns),
            },
            stddev_ns: (self.sum_us2 / n - mean_us * mean_us).max(0.0).sqrt() * 1e3,
            ramp_ops: self.ramp_ops,
        }
    }
}

/// Two points, at both ends of the measured phase, at which each thread tells a harness
/// that it has arrived and waits until it is let go, so that counters can be read while
/// all of them sleep: FIFOs `arrived`, `start` and `end` in a folder.
#[derive(Clone, Debug)]
pub struct Meeting {
    /// The folder.
    pub folder: PathBuf,
}

impl Meeting {
    fn meet(&self, letter: &[u8], fifo: &str) -> Result<(), LoadError> {
        let arrived = self.folder.join("arrived");
        OpenOptions::new()
            .write(true)
            .open(&arrived)
            .and_then(|mut file| file.write_all(letter))
            .map_err(LoadError::io("write to", &arrived))?;
        let fifo = self.folder.join(fifo);
        let mut line = [0];
        File::open(&fifo)
            .and_then(|mut file| file.read_exact(&mut line))
            .map_err(LoadError::io("read", &fifo))
    }
}

/// Does the job in a tree that is laid out, and leaves the tree as it was.
///
/// # Errors
/// At the first system call that fails or answers wrongly, in any thread.
pub fn run(
    tree: &Tree,
    job: &MetadataJob,
    meeting: Option<&Meeting>,
) -> Result<MetadataReport, LoadError> {
    if job.threads == 0 || job.runtime_ms == 0 {
        return Err(LoadError::Job(
            "at least one thread and one millisecond are needed".into(),
        ));
    }
    let workers = (0..job.threads)
        .map(|thread| Worker::new(tree, job.kind, thread))
        .collect::<Result<Vec<_>, _>>()?;
    let together = Barrier::new(workers.len());
    let failed = AtomicBool::new(false);
    let results: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = workers
            .into_iter()
            .map(|worker| {
                let (together, failed) = (&together, &failed);
                scope.spawn(move || {
                    together.wait();
                    let result = work(worker, job, failed, meeting);
                    if result.is_err() {
                        failed.store(true, Ordering::Relaxed);
                    }
                    result
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(LoadError::Job("a thread panicked".into())))
            })
            .collect()
    });
    let mut all = Tally::new();
    let mut longest = 0.0f64;
    for result in results {
        let (tally, seconds) = result?;
        all.merge(&tally);
        longest = longest.max(seconds);
    }
    if all.ops == 0 {
        return Err(LoadError::Job(format!(
            "not one operation ended within {} ms",
            job.runtime_ms
        )));
    }
    Ok(all.report(longest))
}

fn work(
    mut worker: Worker<'_>,
    job: &MetadataJob,
    failed: &AtomicBool,
    meeting: Option<&Meeting>,
) -> Result<(Tally, f64), LoadError> {
    let mut tally = Tally::new();
    if job.warm {
        worker.warm(job.threads)?;
    }
    let ramp_end = Instant::now() + Duration::from_millis(job.ramp_ms);
    while Instant::now() < ramp_end && !failed.load(Ordering::Relaxed) {
        worker.operate()?;
        tally.ramp_ops += 1;
    }
    if let Some(meeting) = meeting {
        meeting.meet(b"s", "start")?;
    }
    let begin = Instant::now();
    let end = begin + Duration::from_millis(job.runtime_ms);
    let mut last = begin;
    // One reading of the clock an operation: the end of one is the start of the next.
    while last < end && !failed.load(Ordering::Relaxed) {
        worker.operate()?;
        let now = Instant::now();
        let ns = now.duration_since(last).as_nanos();
        tally.add(u64::try_from(ns).unwrap_or(u64::MAX));
        last = now;
    }
    let seconds = last.duration_since(begin).as_secs_f64();
    if let Some(meeting) = meeting {
        meeting.meet(b"e", "end")?;
    }
    worker.finish()?;
    Ok((tally, seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{difference, snapshot};
    use efuse_model::metadata::{KernelCache, MetadataKind};

    fn job(kind: MetadataKind) -> MetadataJob {
        MetadataJob {
            kind,
            dirs: 3,
            files: 7,
            threads: 2,
            runtime_ms: 30,
            ramp_ms: 5,
            warm: true,
            kernel_cache: KernelCache::None,
        }
    }

    #[test]
    fn every_kind_runs_and_leaves_the_tree_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::new(dir.path(), 3, 7);
        tree.lay_out().unwrap();
        let before = snapshot(dir.path()).unwrap();
        assert_eq!(before.len(), 3 + 21);
        for kind in MetadataKind::ALL {
            let report = run(&tree, &job(kind), None).unwrap();
            assert!(report.ops > 0, "{kind:?}");
            assert_eq!(report.latency.count(), report.ops, "{kind:?}");
            let after = snapshot(dir.path()).unwrap();
            assert_eq!(difference(&after, &before), None, "{kind:?}");
        }
    }

    #[test]
    fn wrong_answers_end_it() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::new(dir.path(), 1, 1);
        tree.lay_out().unwrap();
        let fails = |kind, part: &str| {
            let message = run(&tree, &job(kind), None).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        };
        std::fs::write(tree.missing(0), "").unwrap();
        fails(MetadataKind::Missing, "must not be");
        fails(MetadataKind::Find, "met 3 entries, not 2");
        std::fs::remove_file(tree.missing(0)).unwrap();
        std::fs::write(tree.file(0), "five!").unwrap();
        fails(MetadataKind::Stat, "its size is 5, not 0");
        std::fs::remove_file(tree.file(0)).unwrap();
        fails(MetadataKind::OpenClose, "cannot open");
        fails(MetadataKind::Xattr, "cannot read the extended attribute");
    }

    #[test]
    fn mean_and_spread_are_exact() {
        let mut tally = Tally::new();
        for ns in [1000, 3000] {
            tally.add(ns);
        }
        let report = tally.report(1.0);
        assert_eq!(report.latency.mean_ns(), Some(2000.0));
        assert!((report.stddev_ns - 1000.0).abs() < 1e-6);
    }
}
