//! fio's JSON report.

use std::fmt;

use efuse_model::attempt::{Latency, Metrics, OpMetrics};
use efuse_model::histogram::Histogram;
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
            operations: None,
            runtime_ms,
            fio_ctx: group.count("ctx")?,
            fio_usr_percent: group.number("usr_cpu")?,
            fio_sys_percent: group.number("sys_cpu")?,
            counters: None,
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
        clat_bins: bins(&op.object("clat_ns")?)?,
    })
}

/// The bins of `json+`, which hold every request that was measured.
fn bins(ns: &At<'_>) -> Result<Histogram, ReportError> {
    let list = ns.object("bins")?;
    let mut bins = Vec::with_capacity(list.value.len());
    for key in list.value.keys() {
        let value = key
            .parse()
            .map_err(|_| ReportError::Missing(format!("{} as a number", list.name(key))))?;
        bins.push((value, list.count(key)?));
    }
    bins.sort_unstable();
    let histogram = Histogram {
        bins,
        // fio has a mean and no sum.
        sum_ns: None,
        max_ns: Some(ns.count("max")?),
    };
    let wanted = ns.count("N")?;
    if histogram.count() == wanted {
        return Ok(histogram);
    }
    Err(ReportError::Missing(format!(
        "{} for all requests ({} of {wanted})",
        ns.name("bins"),
        histogram.count()
    )))
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

#[cfg(test)]
mod tests {
    use efuse_model::test::Pattern;

    use super::*;

    const MIXED: &str = include_str!("../../tests/golden/randrw.json");
    const READ: &str = include_str!("../../tests/golden/read.json");
    const FAILED: &str = include_str!("../../tests/golden/verify-failed.json");

    fn job(pattern: Pattern) -> FioJob {
        FioJob {
            engine: "libaio".into(),
            pattern,
            read_percent: 70,
            block_bytes: 4096,
            iodepth: 16,
            jobs: 3,
            direct: true,
            files: 2,
            file_bytes: 4 << 20,
            io_bytes: Some(3 << 20),
            runtime_ms: None,
            ramp_ms: 0,
            options: [].into(),
        }
    }

    #[test]
    fn a_mixed_report_of_fio_3_33_is_read() {
        let metrics = Report::parse(MIXED)
            .unwrap()
            .metrics(&job(Pattern::RandRw))
            .unwrap();
        let (read, write) = (metrics.read.unwrap(), metrics.write.unwrap());
        assert_eq!((read.ios, read.bytes, write.ios), (541, 2_215_936, 227));
        assert!((read.iops - 24_590.909_091).abs() < 1e-6, "{}", read.iops);
        assert!((read.bytes_per_s - 100_724_363.0).abs() < 0.5);
        assert!(
            (read.slat.mean_us - 30.890_756_007).abs() < 1e-9,
            "nanoseconds to us"
        );
        assert!((read.lat.max_us - 11_495.9).abs() < 1e-9);
        let wanted = [
            (50.0, 264.192),
            (90.0, 391.168),
            (99.0, 8454.144),
            (99.9, 10_158.08),
        ];
        assert_eq!(read.clat.percentiles, wanted);
        assert_eq!(
            (read.clat_bins.count(), write.clat_bins.count()),
            (541, 227)
        );
        assert_eq!(read.clat_bins.bins[..2], [(19072, 1), (23680, 2)]);
        assert_eq!(read.clat_bins.max_ns, Some(10_205_520));
        for (percent, us) in wanted {
            let ns = read.clat_bins.percentile_ns(percent).unwrap();
            assert!((ns as f64 / 1000.0 - us).abs() < 1e-9, "p{percent}: {ns}");
        }
        assert!((metrics.runtime_ms - 22.0).abs() < f64::EPSILON);
        assert_eq!(metrics.fio_ctx, 151);
        assert!((metrics.fio_usr_percent - 7.936_508).abs() < 1e-9);
        assert!((metrics.fio_sys_percent - 1.587_302).abs() < 1e-9);
    }

    #[test]
    fn a_side_that_the_job_does_not_have_is_none() {
        let mut job = job(Pattern::Read);
        (job.io_bytes, job.runtime_ms) = (None, Some(200));
        let metrics = Report::parse(READ).unwrap().metrics(&job).unwrap();
        assert!(metrics.write.is_none());
        assert!(metrics.read.unwrap().iops > 1000.0);
    }

    #[test]
    fn a_job_that_ended_early_has_no_figures() {
        let mut job = job(Pattern::Read);
        (job.io_bytes, job.runtime_ms) = (None, Some(5000));
        let error = Report::parse(READ).unwrap().metrics(&job).unwrap_err();
        assert!(error.to_string().contains("asked for 5000 ms"), "{error}");
        job.io_bytes = Some(1 << 40);
        let error = Report::parse(READ).unwrap().metrics(&job).unwrap_err();
        assert!(matches!(error, ReportError::Short(_)), "{error}");
        let reads = Report::parse(READ).unwrap();
        // A job that should write and did not.
        (job.pattern, job.io_bytes, job.runtime_ms) = (Pattern::RandRw, None, Some(200));
        assert!(matches!(reads.metrics(&job), Err(ReportError::Short(_))));
    }

    #[test]
    fn messages_before_the_report_are_split_off_and_the_error_is_named() {
        let at = start_of_json(FAILED);
        assert!(FAILED[..at].contains("bad magic header") && FAILED[at..].starts_with('{'));
        let error = Report::parse(&FAILED[at..]).unwrap().first_error().unwrap();
        assert!(error.starts_with("84 (EILSEQ"), "{error}");
        assert_eq!(Report::parse(MIXED).unwrap().first_error(), None);
        assert_eq!(start_of_json("no report at all"), 16);
    }

    #[test]
    fn what_is_missing_or_no_number_is_named() {
        let without = |from: &str, to: &str| {
            let text = MIXED.replace(from, to);
            assert_ne!(text, MIXED, "{from} is in the file");
            let report = Report::parse(&text)?;
            report.metrics(&job(Pattern::RandRw)).map(drop)
        };
        let error = without("\"total_ios\"", "\"renamed\"").unwrap_err();
        assert!(
            error.to_string().contains("jobs[0].read.total_ios"),
            "{error}"
        );
        let error = without("\"clat_ns\"", "\"clat_us\"").unwrap_err();
        assert!(error.to_string().contains("clat_ns"), "{error}");
        let error = without("\"19072\" : 1", "\"19072\" : 2").unwrap_err();
        assert!(
            error
                .to_string()
                .contains("clat_ns.bins for all requests (542 of 541)"),
            "{error}"
        );
        let error = without("\"19072\" : 1", "\"x\" : 1").unwrap_err();
        assert!(error.to_string().contains("bins.x as a number"), "{error}");
        let error = without("\"mean\" : 30890.756007", "\"mean\" : nan").unwrap_err();
        assert!(matches!(error, ReportError::NotJson(_)), "{error}");
        let error = without("\"mean\" : 30890.756007", "\"mean\" : null").unwrap_err();
        assert!(
            error.to_string().contains("read.slat_ns.mean = null"),
            "{error}"
        );
        let error = without("\"iops\" : 24590.909091", "\"iops\" : -1.0").unwrap_err();
        assert!(error.to_string().contains("read.iops = -1.0"), "{error}");
        assert!(matches!(Report::parse("{}"), Err(ReportError::Missing(_))));
        assert!(matches!(
            Report::parse("{\"jobs\" : ["),
            Err(ReportError::NotJson(_))
        ));
        assert!(matches!(Report::parse(""), Err(ReportError::NotJson(_))));
    }
}
