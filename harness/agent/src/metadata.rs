//! The measured phase of a metadata job: `metaload` with every counter around it.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use efuse_metaload::snapshot::{self, Snapshot};
use efuse_metaload::tree::Tree;
use efuse_model::attempt::{Latency, Metrics, OpMetrics};
use efuse_model::counters::{Counters, Probes};
use efuse_model::metadata::{MetadataJob, MetadataReport};
use efuse_systems::Mounted;

use crate::agent::Agent;
use crate::error::{AgentError, Result};
use crate::fio::Barrier;
use crate::fio::barrier::Whose;
use crate::limit::Limit;
use crate::measure::Count;
use crate::process;

/// Name of the program.
pub const PROGRAM: &str = "metaload";

/// Percentiles of the stored latency, as those of fio.
const PERCENTILES: [f64; 4] = [50.0, 90.0, 99.0, 99.9];

fn load_error(error: &efuse_metaload::LoadError) -> AgentError {
    AgentError::Fio(format!("metaload: {error}"))
}

/// Makes the job's tree in the lower file system.
///
/// # Errors
/// If it cannot be written.
pub fn layout(job: &MetadataJob, root: &Path) -> Result<()> {
    let tree = Tree::new(root, job.dirs, job.files);
    tree.lay_out().map_err(|e| load_error(&e))
}

/// All that is known about every name in a directory.
///
/// # Errors
/// If something cannot be read.
pub fn snapshot(root: &Path) -> Result<Snapshot> {
    snapshot::snapshot(root).map_err(|e| load_error(&e))
}

/// # Errors
/// With the first difference.
pub fn same(system: &str, through: &Snapshot, below: &Snapshot) -> Result<()> {
    match snapshot::difference(through, below) {
        None => Ok(()),
        Some(difference) => Err(AgentError::Mismatch(format!(
            "{system} shows another tree than the lower file system: {difference}"
        ))),
    }
}

/// The arguments, for the file system mounted at `root`.
fn args(job: &MetadataJob, root: &Path) -> Vec<OsString> {
    let options = [
        ("--kind", job.kind.name().to_owned()),
        ("--dirs", job.dirs.to_string()),
        ("--files", job.files.to_string()),
        ("--threads", job.threads.to_string()),
        ("--runtime", job.runtime_ms.to_string()),
        ("--ramp", job.ramp_ms.to_string()),
    ];
    let mut args = vec![root.as_os_str().to_owned()];
    if job.warm {
        args.push("--warm".into());
    }
    for (option, value) in options {
        args.extend([option.into(), value.into()]);
    }
    args
}

/// The command line, for people.
#[must_use]
pub fn display(job: &MetadataJob, root: &Path) -> String {
    let args = args(job, root);
    let words = args.iter().map(|a| a.to_string_lossy().into_owned());
    let words: Vec<_> = [PROGRAM.to_owned()].into_iter().chain(words).collect();
    words.join(" ")
}

/// Runs the job.
///
/// # Errors
/// If an answer was wrong, or the program fails.
pub fn measure(
    agent: &Agent,
    job: &MetadataJob,
    mounted: &Mounted,
    probes: Probes,
    limit: &Limit,
) -> Result<(Metrics, MetadataReport)> {
    let daemon = mounted.daemon_pid();
    let mut count = Count::new(agent, mounted, Whose::Metaload, probes);
    // metaload ramps up by itself before it comes to the barrier.
    let mut barrier = Barrier::new(
        &agent.folder().join("barrier"),
        Whose::Metaload,
        job.threads,
        Duration::ZERO,
        &mut count,
    )?;
    let program = agent.program(
        PROGRAM,
        "build it (cargo build --release -p efuse-metaload)",
    )?;
    let mut command = Command::new(program);
    command
        .args(args(job, mounted.root()))
        .arg("--meeting")
        .arg(barrier.folder());
    let sensible = || daemon.is_none_or(process::runs);
    let done = process::run_with(&mut command, limit, &sensible, Some(&mut barrier))?;
    drop(barrier);
    if !done.status.success() {
        return Err(AgentError::Fio(format!(
            "metaload {}: {}",
            done.how(),
            done.tail()
        )));
    }
    let report: MetadataReport = serde_json::from_str(&done.stdout)
        .map_err(|e| AgentError::Fio(format!("metaload's report is not one: {e}")))?;
    let counters = count.finish();
    Ok((metrics(&report, counters), report))
}

fn metrics(report: &MetadataReport, counters: Counters) -> Metrics {
    let us = |ns: u64| ns as f64 / 1e3;
    let latency = Latency {
        mean_us: report.latency.mean_ns().unwrap_or_default() / 1e3,
        stddev_us: report.stddev_ns / 1e3,
        min_us: report.latency.bins.first().map_or(0.0, |(ns, _)| us(*ns)),
        max_us: report.latency.max_ns.map_or(0.0, us),
        percentiles: PERCENTILES
            .into_iter()
            .filter_map(|p| Some((p, us(report.latency.percentile_ns(p)?))))
            .collect(),
    };
    Metrics {
        operations: Some(OpMetrics {
            iops: report.ops as f64 / report.seconds,
            bytes_per_s: 0.0,
            ios: report.ops,
            bytes: 0,
            slat: Latency::default(),
            clat: latency.clone(),
            lat: latency,
            clat_bins: report.latency.clone(),
        }),
        runtime_ms: report.seconds * 1e3,
        fio_ctx: counters.fio_switches.proc.unwrap_or_default(),
        counters: Some(counters),
        ..Metrics::default()
    }
}
