//! What is drawn and tabulated: the figures of one direction of a job.

use efuse_model::attempt::{Metrics, OpMetrics};
use efuse_model::test::{Job, Test};
use serde::Serialize;

/// Direction of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// Reads.
    Read,
    /// Writes.
    Write,
    /// Operations of a metadata job.
    Operation,
}

impl Op {
    /// All, in the order of the page.
    pub const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Operation];

    /// The figures of this direction, where the job has it.
    #[must_use]
    pub fn of(self, metrics: &Metrics) -> Option<&OpMetrics> {
        match self {
            Self::Read => metrics.read.as_ref(),
            Self::Write => metrics.write.as_ref(),
            Self::Operation => metrics.operations.as_ref(),
        }
    }

    /// Whether the test's job has this direction.
    #[must_use]
    pub fn is_in(self, test: &Test) -> bool {
        match (self, &test.job) {
            (Self::Read, Job::Fio(job)) => job.pattern.reads(),
            (Self::Write, Job::Fio(job)) => job.pattern.writes(),
            (Self::Operation, Job::Metadata(_)) => true,
            (Self::Read | Self::Write, Job::Metadata(_)) | (Self::Operation, Job::Fio(_)) => false,
        }
    }

    /// Whether this direction can have such a figure: metadata moves no bytes, and an
    /// operation has no submission apart from its completion.
    #[must_use]
    pub const fn has(self, metric: Metric) -> bool {
        !matches!(
            (self, metric),
            (Self::Operation, Metric::Throughput | Metric::Slat)
        )
    }

    /// `read`, `write`, `operation`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Operation => "operation",
        }
    }
}

/// One figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// Completed requests per second.
    Iops,
    /// MiB per second.
    Throughput,
    /// Mean submission latency (slat), microseconds.
    Slat,
    /// Mean completion latency (clat), microseconds.
    Clat,
    /// Median completion latency, microseconds.
    ClatP50,
    /// 90th percentile of completion latency, microseconds.
    ClatP90,
    /// 99th percentile of completion latency, microseconds.
    ClatP99,
    /// 99.9th percentile of completion latency, microseconds.
    ClatP999,
}

/// Whether more or less of a figure is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Rates.
    Higher,
    /// Latencies.
    Lower,
}

impl Better {
    /// For chart captions.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Higher => "higher is better",
            Self::Lower => "lower is better",
        }
    }
}

impl Metric {
    /// Every figure.
    pub const ALL: [Self; 8] = [
        Self::Iops,
        Self::Throughput,
        Self::Slat,
        Self::Clat,
        Self::ClatP50,
        Self::ClatP90,
        Self::ClatP99,
        Self::ClatP999,
    ];

    /// The figures with a chart of their own, in the order of the document's figures.
    pub const CHARTS: [Self; 4] = [Self::Iops, Self::Throughput, Self::Slat, Self::Clat];

    /// The figures of the percentile chart.
    pub const PERCENTILES: [Self; 4] =
        [Self::ClatP50, Self::ClatP90, Self::ClatP99, Self::ClatP999];

    /// Stable name in `--json` and in element ids.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Iops => "iops",
            Self::Throughput => "throughput",
            Self::Slat => "slat",
            Self::Clat => "clat",
            Self::ClatP50 => "clat-p50",
            Self::ClatP90 => "clat-p90",
            Self::ClatP99 => "clat-p99",
            Self::ClatP999 => "clat-p999",
        }
    }

    /// Heading.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Iops => "IOPS",
            Self::Throughput => "Throughput",
            Self::Slat => "Queueing latency (slat)",
            Self::Clat => "Processing latency (clat)",
            Self::ClatP50 => "p50",
            Self::ClatP90 => "p90",
            Self::ClatP99 => "p99",
            Self::ClatP999 => "p99.9",
        }
    }

    /// Unit of the stored value.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Iops => "IOPS",
            Self::Throughput => "MiB/s",
            _ => "\u{b5}s",
        }
    }

    /// Which way is better.
    #[must_use]
    pub const fn better(self) -> Better {
        match self {
            Self::Iops | Self::Throughput => Better::Higher,
            _ => Better::Lower,
        }
    }

    /// The figure in one direction of a job; `None` where fio gave none.
    #[must_use]
    pub fn of(self, op: &OpMetrics) -> Option<f64> {
        let percentile = |percent: f64| {
            op.clat
                .percentiles
                .iter()
                .find(|(p, _)| (p - percent).abs() < 1e-6)
                .map(|(_, us)| *us)
        };
        match self {
            Self::Iops => Some(op.iops),
            Self::Throughput => Some(op.bytes_per_s / (1024.0 * 1024.0)),
            Self::Slat => Some(op.slat.mean_us),
            Self::Clat => Some(op.clat.mean_us),
            Self::ClatP50 => percentile(50.0),
            Self::ClatP90 => percentile(90.0),
            Self::ClatP99 => percentile(99.0),
            Self::ClatP999 => percentile(99.9),
        }
    }
}
