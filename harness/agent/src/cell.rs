//! One attempt at a cell, from an empty block device to a compared file system.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use efuse_metaload::snapshot::Snapshot;
use efuse_model::attempt::{Metrics, Outcome, Phase, Verified};
use efuse_model::cell::{self, Cell};
use efuse_model::counters::Probes;
use efuse_model::metadata::MetadataJob;
use efuse_model::test::{FioJob, Job, Test};
use efuse_systems::{MountContext, Mounted, System};
use serde_json::Value;

use crate::agent::Agent;
use crate::compare::{self, Digest};
use crate::device::BlockDevice;
use crate::error::{AgentError, Result};
use crate::fio::{self, Invocation, Report, command};
use crate::layout;
use crate::limit::{Limit, Watchdog};
use crate::lowerfs::{Atime, LowerFs};
use crate::measure::Measure;
use crate::metadata;
use crate::sys::{self, Drop as Caches};

/// Blocks that ext4 needs for itself: extents, directories, a margin.
const FS_OVERHEAD: u64 = 4 << 20;
/// A daemon that dies breaks I/O a little before it can be reaped.
const DEATH_NOTICE: Duration = Duration::from_millis(500);

/// How an attempt ended.
#[derive(Clone, Debug)]
pub struct CellResult {
    /// Figures, or why there are none.
    pub outcome: Outcome,
    /// Wall time of everything, milliseconds.
    pub wall_ms: u64,
    /// fio's command line of the measured phase, empty if it never came to that.
    pub command: String,
    /// fio's raw JSON of the measured phase. Only of an attempt that was verified:
    /// others have no figures.
    pub raw: Option<Value>,
}

/// What an attempt has so far.
struct Trial<'a> {
    agent: &'a Agent,
    cell: &'a Cell,
    probes: Probes,
    limit: Limit,
    watchdog: Watchdog,
    phase: Phase,
    on_phase: &'a mut dyn FnMut(Phase),
    fio: PathBuf,
    command: String,
    raw: Option<Value>,
}

/// What a mounted system gave.
struct Measured {
    metrics: Metrics,
    verified: Verified,
    through: Option<Seen>,
}

/// What was seen through the system, to be compared with what is below.
enum Seen {
    Files(Vec<String>, Vec<Digest>),
    Tree(Snapshot),
}

impl Agent {
    /// Measures one attempt. Whatever happens, nothing is left mounted or running and
    /// the next cell can be measured.
    pub fn run_cell(
        &self,
        cell: &Cell,
        probes: Probes,
        timeout: Duration,
        on_phase: &mut dyn FnMut(Phase),
    ) -> CellResult {
        let started = Instant::now();
        let limit = self.limit(timeout);
        let mut trial = Trial {
            agent: self,
            cell,
            probes,
            watchdog: Watchdog::arm(&limit),
            limit,
            phase: Phase::Prepare,
            on_phase,
            fio: PathBuf::new(),
            command: String::new(),
            raw: None,
        };
        let outcome = match trial.attempt() {
            Ok((metrics, verified)) => Outcome::Done {
                metrics: Box::new(metrics),
                verified,
            },
            Err(e) => {
                trial.raw = None;
                Outcome::Failed {
                    phase: trial.phase,
                    reason: one_line(&e.to_string()),
                }
            }
        };
        CellResult {
            outcome,
            wall_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            command: trial.command,
            raw: trial.raw,
        }
    }
}

fn one_line(text: &str) -> String {
    let lines: Vec<_> = text
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect();
    lines.join(" | ")
}

impl Trial<'_> {
    fn enter(&mut self, phase: Phase) -> Result<()> {
        self.phase = phase;
        (self.on_phase)(phase);
        self.limit.check()
    }

    fn attempt(&mut self) -> Result<(Metrics, Verified)> {
        self.enter(Phase::Prepare)?;
        let (agent, cell) = (self.agent, self.cell);
        if let Job::Fio(job) = &cell.test.job {
            command::check(&cell.test, job)?;
        }
        let system = agent.registry().get(&cell.system)?;
        if let Some(reason) = agent
            .registry()
            .availability(&cell.system, agent.options().place)
        {
            return Err(AgentError::Job {
                test: cell.test.id.clone(),
                reason: format!("{} cannot run here: {reason}", cell.system),
            });
        }
        self.fio = agent.program("fio", "install it (apt install fio)")?;
        let mkfs = agent.program("mkfs.ext4", "install it (apt install e2fsprogs)")?;
        let device = BlockDevice::acquire(&cell.device, agent.backing(), &self.limit)?;
        let point = agent.folder().join("lower");
        let lower = LowerFs::create(&device, &mkfs, &point, Atime::No, &self.limit)?;
        let measured = self.on_lower(system, &lower);
        if measured.is_ok() {
            self.enter(Phase::Unmount)?;
        }
        let (unmounted, released) = (lower.unmount(), device.release());
        let measured = measured?;
        unmounted?;
        released?;
        Ok((measured.metrics, measured.verified))
    }

    fn on_lower(&mut self, system: &dyn System, lower: &LowerFs) -> Result<Measured> {
        self.enter(Phase::Layout)?;
        let files = lower.root().join("files");
        fs::create_dir(&files).map_err(AgentError::io(&files, "create the folder"))?;
        self.layout(lower, &files)?;
        sys::drop_caches(Caches::All)?;

        self.enter(Phase::Mount)?;
        let mountpoint = self.agent.folder().join("mnt");
        fs::create_dir_all(&mountpoint)
            .map_err(AgentError::io(&mountpoint, "create the folder"))?;
        let log = self.agent.folder().join("daemon.log");
        // The log of this cell's daemon, not of the last one's.
        let _ = fs::remove_file(&log);
        let mut mounted = system.mount(&MountContext {
            lower: files.clone(),
            mountpoint: mountpoint.clone(),
            log,
            bin: self.agent.options().bin.clone(),
            slow_percent: cell::slow_percent(&self.cell.system),
            kernel_cache: self.cell.test.job.metadata().map(|job| job.kernel_cache),
        })?;
        self.watchdog.watch(mounted.daemon_pid(), Some(mountpoint));
        let measured = self.on_mount(&mut mounted);
        let measured = measured.and_then(|m| {
            mounted.alive()?;
            Ok(m)
        });
        let mut measured = match measured {
            Ok(measured) => measured,
            Err(e) => {
                // What breaks once the watchdog has struck is its doing.
                let e = match self.limit.check() {
                    Err(gave_up) => gave_up,
                    Ok(()) => diagnose(e, &mut mounted),
                };
                drop(mounted);
                self.watchdog.watch(None, None);
                return Err(e);
            }
        };
        let unmounted = mounted.unmount();
        self.watchdog.watch(None, None);
        unmounted?;
        match measured.through.take() {
            Some(Seen::Files(names, through)) => {
                sys::drop_caches(Caches::Pages)?;
                let below = compare::digests(&files, &names, &self.limit)?;
                compare::same(&self.cell.system, &names, &through, &below)?;
                measured.verified.files_compared = u32::try_from(names.len()).unwrap_or(u32::MAX);
                measured.verified.bytes_compared = below.iter().map(|d| d.len).sum();
            }
            Some(Seen::Tree(through)) => {
                let below = metadata::snapshot(&files)?;
                metadata::same(&self.cell.system, &through, &below)?;
                measured.verified.files_compared = u32::try_from(below.len()).unwrap_or(u32::MAX);
            }
            None => {}
        }
        Ok(measured)
    }

    fn layout(&self, lower: &LowerFs, files: &Path) -> Result<()> {
        let free = lower.free_bytes()?;
        let job = match &self.cell.test.job {
            Job::Fio(job) => job,
            Job::Metadata(job) => {
                let need = self.cell.test.job.bytes();
                if free >= need + FS_OVERHEAD {
                    return metadata::layout(job, files);
                }
                return Err(AgentError::Job {
                    test: self.cell.test.id.clone(),
                    reason: format!(
                        "its {} files do not fit: {} MiB are free on the {} device; use a larger device",
                        u64::from(job.dirs) * u64::from(job.files),
                        free >> 20,
                        self.cell.device.name()
                    ),
                });
            }
        };
        let need = layout::total(job);
        let full = || AgentError::Job {
            test: self.cell.test.id.clone(),
            reason: format!(
                "its {} files of {} MiB do not fit: {} MiB are free on the {} device; use a larger device or a smaller scale",
                job.files,
                job.file_bytes.div_ceil(1 << 20),
                free >> 20,
                self.cell.device.name()
            ),
        };
        if free < need + FS_OVERHEAD {
            return Err(full());
        }
        let fio = |invocation: &Invocation| self.fio(invocation, None);
        match layout::write(job, files, self.agent.backing(), &self.limit, &fio) {
            Err(AgentError::Fio(e)) if e.contains("No space left") => Err(full()),
            Err(AgentError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::StorageFull =>
            {
                Err(full())
            }
            other => other,
        }
    }

    fn fio(&self, invocation: &Invocation, daemon: Option<u32>) -> Result<Report> {
        fio::run(
            &self.fio,
            invocation,
            self.agent.folder(),
            daemon,
            None,
            &self.limit,
        )
    }

    fn on_mount(&mut self, mounted: &mut Mounted) -> Result<Measured> {
        match &self.cell.test.job {
            Job::Fio(job) => self.data(mounted, job),
            Job::Metadata(job) => self.metadata(mounted, job),
        }
    }

    fn metadata(&mut self, mounted: &mut Mounted, job: &MetadataJob) -> Result<Measured> {
        self.enter(Phase::Measure)?;
        self.command = metadata::display(job, mounted.root());
        let (metrics, report) =
            metadata::measure(self.agent, job, mounted, self.probes, &self.limit)?;
        let operations = report.ops + report.ramp_ops;
        self.raw = Some(serde_json::to_value(report).map_err(|e| AgentError::Fio(e.to_string()))?);
        mounted.alive()?;
        self.enter(Phase::Compare)?;
        let through = self
            .cell
            .test
            .verify
            .compare
            .then(|| metadata::snapshot(mounted.root()));
        Ok(Measured {
            metrics,
            verified: Verified {
                operations,
                ..Verified::default()
            },
            through: through.transpose()?.map(Seen::Tree),
        })
    }

    fn data(&mut self, mounted: &mut Mounted, job: &FioJob) -> Result<Measured> {
        let root = mounted.root().to_owned();
        let daemon = mounted.daemon_pid();
        let test: &Test = &self.cell.test;
        let mut verified = Verified::default();
        let bad = |e: fio::output::ReportError| AgentError::Fio(format!("fio: {e}"));

        self.enter(Phase::VerifyRead)?;
        if let Some(invocation) = command::verify_read(test, job, &root) {
            verified.read_bytes = self.fio(&invocation, daemon)?.bytes().map_err(bad)?.0;
            if verified.read_bytes == 0 {
                return Err(AgentError::Fio("fio (verify-read) read nothing".into()));
            }
        }
        mounted.alive()?;

        self.enter(Phase::Measure)?;
        // The mount stays warm, every arm starts with no data cached.
        sys::drop_caches(Caches::Pages)?;
        let measure = Measure {
            agent: self.agent,
            fio: &self.fio,
            test,
            job,
            probes: self.probes,
            limit: &self.limit,
        };
        let invocation = measure.invocation(mounted);
        self.command = invocation.display();
        let (metrics, report) = measure.metrics(&invocation, mounted)?;
        self.raw = Some(report.into_json());
        mounted.alive()?;

        self.enter(Phase::VerifyWrite)?;
        if let Some(invocation) = command::verify_write(test, job, &root) {
            let (read, written) = self.fio(&invocation, daemon)?.bytes().map_err(bad)?;
            if read < written || written == 0 {
                return Err(AgentError::Fio(format!(
                    "fio (verify-write) wrote {written} bytes and read {read} back"
                )));
            }
            verified.write_bytes = written;
        }
        mounted.alive()?;

        self.enter(Phase::Compare)?;
        let through = if test.verify.compare {
            let lower = self.agent.folder().join("lower/files");
            let names = compare::same_names(&self.cell.system, &root, &lower)?;
            let digests = compare::digests(&root, &names, &self.limit)?;
            Some(Seen::Files(names, digests))
        } else {
            None
        };
        Ok(Measured {
            metrics,
            verified,
            through,
        })
    }
}

/// An I/O error of a system whose daemon is dead is the daemon's.
fn diagnose(error: AgentError, mounted: &mut Mounted) -> AgentError {
    if matches!(error, AgentError::System(_)) {
        return error;
    }
    let end = Instant::now() + DEATH_NOTICE;
    loop {
        match mounted.alive() {
            Err(death) => return AgentError::Fio(format!("{death} (seen as: {error})")),
            Ok(()) if mounted.daemon_pid().is_none() || Instant::now() > end => return error,
            Ok(()) => thread::sleep(Duration::from_millis(10)),
        }
    }
}
