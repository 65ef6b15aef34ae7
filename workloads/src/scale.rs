//! A workload made larger or smaller.

use efuse_model::device::Device;
use efuse_model::test::{Job, Test};

use crate::Workload;
use crate::file::device_for;

/// Shorter, and the start of fio's threads is what is measured.
const LEAST_RUNTIME_MS: u64 = 250;

impl Workload {
    /// The same workload with sizes and run times multiplied by `factor`; block sizes,
    /// depths, jobs, numbers of files and the device's latency stay.
    ///
    /// Files stay whole numbers of blocks and hold at least one; an amount of I/O is at
    /// least one block for each request that can be in flight; a run time is at least
    /// 250 ms, unless it was less to begin with. The device grows if the files need it
    /// and never shrinks.
    ///
    /// # Panics
    /// If `factor` is not a positive number; the command line checks that.
    #[must_use]
    pub fn scaled(&self, factor: f64) -> Self {
        assert!(
            factor.is_finite() && factor > 0.0,
            "a scale must be a positive number, not {factor}"
        );
        let mut scaled = self.clone();
        if (factor - 1.0).abs() < f64::EPSILON {
            return scaled;
        }
        for test in &mut scaled.tests {
            scale_test(test, factor);
        }
        let files = scaled
            .tests
            .iter()
            .map(|t| t.job.bytes())
            .max()
            .unwrap_or(0);
        let needed = device_for(files);
        match &mut scaled.device {
            Device::NvmeModel { size_bytes, .. }
            | Device::Brd { size_bytes }
            | Device::Virtio { size_bytes }
            | Device::Loop { size_bytes } => *size_bytes = needed.max(*size_bytes),
            Device::Disk { .. } => {}
        }
        scaled
    }
}

fn scale_test(test: &mut Test, factor: f64) {
    let job = match &mut test.job {
        Job::Fio(job) => job,
        Job::Metadata(job) => {
            // The tree stays: its size is what the test is about.
            job.runtime_ms =
                times(job.runtime_ms, factor).max(LEAST_RUNTIME_MS.min(job.runtime_ms));
            job.ramp_ms = times(job.ramp_ms, factor);
            return;
        }
    };
    let block = job.block_bytes;
    let in_flight = block * u64::from(job.iodepth) * u64::from(job.jobs);
    job.file_bytes = blocks(job.file_bytes, factor, block);
    job.io_bytes = job
        .io_bytes
        .map(|io| blocks(io, factor, block).max(in_flight.min(io)));
    job.runtime_ms = job
        .runtime_ms
        .map(|ms| times(ms, factor).max(LEAST_RUNTIME_MS.min(ms)));
    job.ramp_ms = times(job.ramp_ms, factor);
    let total = job.file_bytes.saturating_mul(job.files.into());
    for bytes in [&mut test.verify.read_bytes, &mut test.verify.write_bytes] {
        if *bytes > 0 {
            *bytes = blocks(*bytes, factor, block).min(total);
        }
    }
}

/// `bytes x factor` in whole blocks, at least one.
fn blocks(bytes: u64, factor: f64, block: u64) -> u64 {
    (times(bytes, factor) / block).max(1) * block
}

/// `n x factor`, rounded; limited to what a file or a timer could ever have.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "sizes and times are far below 2^52, and the product is clamped"
)]
fn times(n: u64, factor: f64) -> u64 {
    (n as f64 * factor).round().clamp(0.0, (1u64 << 52) as f64) as u64
}
