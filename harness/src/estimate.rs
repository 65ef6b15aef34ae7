//! How long a cell takes: guessed from its job, corrected by what was seen.

use std::collections::HashMap;
use std::time::Duration;

use efuse_model::attempt::{Attempt, Outcome};
use efuse_model::cell::{Cell, CellKey};
use efuse_model::plan::{Plan, Slot};
use efuse_model::test::Job;

/// Assumed rates, of the slowest place there is (emulation on two cores). They only feed
/// the first estimate and the time limits; measured cells replace them.
mod assumed {
    /// Laying out and comparing files, bytes per second.
    pub const LAYOUT: f64 = 120e6;
    /// Verified I/O, bytes per second.
    pub const VERIFY: f64 = 20e6;
    /// Requests per second of a job that ends by volume.
    pub const IOPS: f64 = 2_500.0;
    /// Bytes per second of the same, with large blocks.
    pub const STREAM: f64 = 300e6;
    /// Making small files and comparing them, files per second.
    pub const FILES: f64 = 1_000.0;
    /// Device, mkfs, mounts, processes, seconds.
    pub const FIXED: f64 = 4.0;
}

/// A first guess of one attempt's wall time.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "a guess")]
pub fn guess(cell: &Cell) -> Duration {
    let job = match &cell.test.job {
        Job::Fio(job) => job,
        Job::Metadata(job) => {
            let files = f64::from(job.dirs) * f64::from(job.files);
            let seconds = assumed::FIXED
                + files / assumed::FILES * if job.warm { 2.0 } else { 1.0 }
                + (job.ramp_ms + job.runtime_ms) as f64 / 1e3;
            return Duration::from_secs_f64(seconds);
        }
    };
    let verify = &cell.test.verify;
    let laid_out = job.file_bytes as f64 * f64::from(job.files);
    let by_volume = job.io_bytes.map(|bytes| {
        let bytes = bytes as f64;
        (bytes / job.block_bytes.max(1) as f64 / assumed::IOPS).max(bytes / assumed::STREAM)
    });
    let by_time = job.runtime_ms.map(|ms| ms as f64 / 1e3);
    let measured = match (by_volume, by_time) {
        (Some(a), Some(b)) => a.min(b),
        (Some(a), None) | (None, Some(a)) => a,
        (None, None) => laid_out / job.block_bytes.max(1) as f64 / assumed::IOPS,
    };
    let compared = if verify.compare { 2.0 * laid_out } else { 0.0 };
    let seconds = assumed::FIXED
        + (laid_out + compared) / assumed::LAYOUT
        + (verify.read_bytes + 2 * verify.write_bytes) as f64 / assumed::VERIFY
        + job.ramp_ms as f64 / 1e3
        + measured;
    Duration::from_secs_f64(seconds)
}

/// After how long an attempt is given up, where the user says nothing: far beyond what
/// the slowest system needs, so that only what hangs is cut.
#[must_use]
pub fn limit(cell: &Cell) -> Duration {
    guess(cell) * 6 + Duration::from_secs(120)
}

/// Expected wall times, learning while cells end.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    guessed: HashMap<CellKey, Duration>,
    seen: HashMap<CellKey, (u32, Duration)>,
}

impl Clock {
    /// Starts from the guesses for the plan's cells.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        Self {
            guessed: plan.cells.iter().map(|c| (c.key(), guess(c))).collect(),
            seen: HashMap::new(),
        }
    }

    /// Learns from an attempt, of this run or of an earlier one with the same cells.
    pub fn learn(&mut self, attempt: &Attempt) {
        if matches!(attempt.outcome, Outcome::Done { .. })
            && self.guessed.contains_key(&attempt.cell)
        {
            let (n, sum) = self.seen.entry(attempt.cell.clone()).or_default();
            *n += 1;
            *sum += Duration::from_millis(attempt.wall_ms);
        }
    }

    /// Expected time of one attempt: the mean of those seen; else the guess, corrected
    /// by how far the guesses of the cells seen were off.
    #[must_use]
    pub fn expect(&self, cell: &CellKey) -> Duration {
        if let Some((n, sum)) = self.seen.get(cell) {
            return *sum / *n;
        }
        let Some(guess) = self.guessed.get(cell) else {
            return Duration::ZERO;
        };
        let (seen, guessed) = self
            .seen
            .iter()
            .fold((0.0, 0.0), |(s, g), (key, (n, sum))| {
                (
                    s + sum.as_secs_f64() / f64::from(*n),
                    g + self.guessed[key].as_secs_f64(),
                )
            });
        if guessed > 0.0 {
            guess.mul_f64(seen / guessed)
        } else {
            *guess
        }
    }

    /// Expected time of all of these.
    #[must_use]
    pub fn total<'a>(&self, slots: impl IntoIterator<Item = &'a Slot>) -> Duration {
        slots.into_iter().map(|s| self.expect(&s.cell)).sum()
    }
}
