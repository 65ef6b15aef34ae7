//! fio's JSON report.

use std::fmt;

use efuse_model::attempt::{Latency, Metrics, OpMetrics};
use efuse_model::test::FioJob;
use serde_json::{Map, Value};
use thiserror::Error;

/// What is wrong with a report.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ReportError {
    /// Not JSON. fio prints `nan` where it divided by nothing.
    #[error("its report is not JSON ({0}); a figure may have been NaN")]
    NotJson(String),
    /// A figure is not there.
    #[error("its report has no {0}; this is not the fio that the harness knows (3.33)")]
    Missing(String),
    /// A figure is there but cannot be one.
    #[error("its report has {path} = {value}, which is no figure")]
    NotFinite {
        /// Where.
        path: String,
        /// What.
        value: String,
    },
    /// Less was done than was asked for.
    #[error("it ended early: {0}")]
    Short(String),
}

/// One report.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    json: Value,
}

/// Where the JSON begins in what fio wrote, or the end if there is none.
#[must_use]
pub fn start_of_json(text: &str) -> usize {
    if text.starts_with('{') {
        return 0;
    }
    text.find("\n{").map_or(text.len(), |at| at + 1)
}

/// A value and its path, for messages.
#[derive(Clone)]
struct At<'a> {
    value: &'a Map<String, Value>,
    path: String,
}

impl<'a> At<'a> {
    fn get(&self, key: &str) -> Result<&'a Value, ReportError> {
        self.value
            .get(key)
            .ok_or_else(|| ReportError::Missing(self.name(key)))
    }

    fn name(&self, key: impl fmt::Display) -> String {
        format!("{}.{key}", self.path)
    }

    fn object(&self, key: &str) -> Result<At<'a>, ReportError> {
        let value = self
            .get(key)?
            .as_object()
            .ok_or_else(|| ReportError::Missing(self.name(key)))?;
        Ok(At {
            value,
            path: self.name(key),
        })
    }

    fn number(&self, key: &str) -> Result<f64, ReportError> {
        let value = self.get(key)?;
        value
            .as_f64()
            .filter(|v| v.is_finite() && *v >= 0.0)
            .ok_or_else(|| ReportError::NotFinite {
                path: self.name(key),
                value: value.to_string(),
            })
    }

    fn count(&self, key: &str) -> Result<u64, ReportError> {
        let value = self.get(key)?;
        value.as_u64().ok_or_else(|| ReportError::NotFinite {
            path: self.name(key),
            value: value.to_string(),
        })
    }
}

impl Report {
    /// Reads the text from its first brace on.
    ///
    /// # Errors
    /// If it is not JSON or has no list of jobs.
    pub fn parse(text: &str) -> Result<Self, ReportError> {
        // fio may print a message after the report as well.
        let json = serde_json::Deserializer::from_str(text)
            .into_iter::<Value>()
            .next()
            .ok_or_else(|| ReportError::NotJson("it is empty".into()))?
            .map_err(|e| ReportError::NotJson(e.to_string()))?;
        let report = Self { json };
        if report.jobs().next().is_none() {
            return Err(ReportError::Missing("jobs".into()));
        }
        Ok(report)
    }

    /// fio's own JSON.
    #[must_use]
    pub fn into_json(self) -> Value {
        self.json
    }

    fn jobs(&self) -> impl Iterator<Item = At<'_>> {
        let list = self.json.get("jobs").and_then(Value::as_array);
        list.into_iter()
            .flatten()
            .enumerate()
            .filter_map(|(n, job)| {
                Some(At {
                    value: job.as_object()?,
                    path: format!("jobs[{n}]"),
                })
            })
    }

    /// The first job error, as `5 (EIO: I/O error)`. A job without the field counts as
    /// one with an error.
    #[must_use]
    pub fn first_error(&self) -> Option<String> {
        self.jobs().find_map(|job| match job.count("error") {
            Ok(0) => None,
            Ok(code) => {
                let errno = nix::errno::Errno::from_raw(i32::try_from(code).unwrap_or(0));
                Some(format!("{code} ({errno:?}: {})", errno.desc()))
            }
            Err(e) => Some(e.to_string()),
        })
    }

    /// Bytes read and written, over all jobs.
    ///
    /// # Errors
    /// If the figures are not there.
    pub fn bytes(&self) -> Result<(u64, u64), ReportError> {
        let mut sum = (0, 0);
        for job in self.jobs() {
            sum.0 += job.object("read")?.count("io_bytes")?;
            sum.1 += job.object("write")?.count("io_bytes")?;
        }
        Ok(sum)
    }

    /// The figures of the measured job.
    ///
    /// # Errors
    /// If one is missing or is no figure, or the job ended before its time and volume.
    pub fn metrics(&self, job: &FioJob) -> Result<Metrics, ReportError> {
        let mut jobs = self.jobs();
        let group = jobs
            .next()
            .ok_or_else(|| ReportError::Missing("jobs[0]".into()))?;
        if jobs.next().is_some() {
            return Err(ReportError::Missing(
                "single group (group_reporting)".into(),
            ));
        }
        let side = |name: &str, wanted: bool| -> Result<Option<OpMetrics>, ReportError> {
            if wanted {
                operation(&group.object(name)?).map(Some)
            } else {
                Ok(None)
            }
        };
        let read = side("read", job.pattern.reads() && !only_writes(job))?;
        let write = side("write", job.pattern.writes() && !only_reads(job))?;
        let runtime_ms = group
            .object("read")?
            .number("runtime")?
            .max(group.object("write")?.number("runtime")?);
        let metrics = Metrics {
            read,
            write,
            runtime_ms,
            fio_ctx: group.count("ctx")?,
            fio_usr_percent: group.number("usr_cpu")?,
            fio_sys_percent: group.number("sys_cpu")?,
        };
        refuse_short(&metrics, job)?;
        Ok(metrics)
    }
}

fn mixed(job: &FioJob) -> bool {
    job.pattern.reads() && job.pattern.writes()
}

fn only_reads(job: &FioJob) -> bool {
    mixed(job) && job.read_percent == 100
}

fn only_writes(job: &FioJob) -> bool {
    mixed(job) && job.read_percent == 0
}

fn operation(op: &At<'_>) -> Result<OpMetrics, ReportError> {
    let ios = op.count("total_ios")?;
    if ios == 0 {
        return Err(ReportError::Short(format!("{} is 0", op.name("total_ios"))));
    }
    Ok(OpMetrics {
        iops: op.number("iops")?,
        bytes_per_s: op.number("bw_bytes")?,
        ios,
        bytes: op.count("io_bytes")?,
        slat: latency(&op.object("slat_ns")?)?,
        clat: latency(&op.object("clat_ns")?)?,
        lat: latency(&op.object("lat_ns")?)?,
    })
}

/// Nanoseconds to microseconds.
fn latency(ns: &At<'_>) -> Result<Latency, ReportError> {
    let us = |key: &str| ns.number(key).map(|v| v / 1000.0);
    let mut percentiles = Vec::new();
    if let Ok(list) = ns.object("percentile") {
        for key in list.value.keys() {
            let percent = key
                .parse()
                .map_err(|_| ReportError::Missing(format!("{} as a number", list.name(key))))?;
            percentiles.push((percent, list.number(key)? / 1000.0));
        }
        percentiles.sort_by(|a: &(f64, f64), b| a.0.total_cmp(&b.0));
    }
    Ok(Latency {
        mean_us: us("mean")?,
        stddev_us: us("stddev")?,
        min_us: us("min")?,
        max_us: us("max")?,
        percentiles,
    })
}

/// A job ends at its volume or at its time; fio that was told to stop, or whose job
/// gave up, has neither.
fn refuse_short(metrics: &Metrics, job: &FioJob) -> Result<(), ReportError> {
    let bytes = [&metrics.read, &metrics.write]
        .into_iter()
        .flatten()
        .map(|op| op.bytes)
        .sum::<u64>();
    let volume = job.io_bytes.is_some_and(|wanted| {
        // Each job does whole blocks and at least one.
        let share = wanted / u64::from(job.jobs.max(1)) / job.block_bytes * job.block_bytes;
        bytes >= share * u64::from(job.jobs)
    });
    #[expect(
        clippy::cast_precision_loss,
        reason = "milliseconds of a job are far below 2^52"
    )]
    let time = job
        .runtime_ms
        .is_some_and(|wanted| metrics.runtime_ms >= wanted as f64 * 0.98 - 5.0);
    if volume || time {
        return Ok(());
    }
    let mut wanted = Vec::new();
    if let Some(b) = job.io_bytes {
        wanted.push(format!("{b} bytes"));
    }
    if let Some(ms) = job.runtime_ms {
        wanted.push(format!("{ms} ms"));
    }
    Err(ReportError::Short(format!(
        "{bytes} bytes in {} ms, asked for {}",
        metrics.runtime_ms,
        wanted.join(" or ")
    )))
}
