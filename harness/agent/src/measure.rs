//! The measured phase: fio's job with every counter around it.

use std::path::Path;
use std::time::Duration;

use efuse_model::counters::{Counters, Probes};
use efuse_model::test::{FioJob, Test};
use efuse_probes::kernel::{self, Connection};
use efuse_probes::{Prepared, Subjects, Window};
use efuse_systems::Mounted;

use crate::agent::Agent;
use crate::error::{AgentError, Result};
use crate::fio::barrier::{Phase, Whose};
use crate::fio::{self, Barrier, Invocation, Report, command};
use crate::limit::Limit;
use crate::served::OwnCounts;

/// The FUSE connection of a mount, if it is one.
pub(crate) fn connection(mounted: &Mounted) -> Option<Connection<'_>> {
    let (family, number) = mounted.family().zip(mounted.connection())?;
    Some(Connection { family, number })
}

/// What is measured, and with what.
pub(crate) struct Measure<'a> {
    pub agent: &'a Agent,
    pub fio: &'a Path,
    pub test: &'a Test,
    pub job: &'a FioJob,
    pub probes: Probes,
    pub limit: &'a Limit,
}

/// Counts between the edges of the phase.
pub(crate) struct Count<'a> {
    whose: Whose,
    perf: std::result::Result<(), &'a str>,
    daemon: Option<u32>,
    kernel_only: bool,
    kernel: Option<kernel::Probes>,
    own: Option<OwnCounts>,
    prepared: Option<(u32, Prepared)>,
    window: Option<Window>,
    counters: Option<Counters>,
    problems: Vec<String>,
}

impl<'a> Count<'a> {
    /// For the jobs of one program and the daemon that serves them. Probes inside the
    /// kernel are attached here, before anything runs.
    pub fn new(agent: &'a Agent, mounted: &Mounted, whose: Whose, probes: Probes) -> Self {
        let mut count = Self {
            whose,
            perf: agent.perf(),
            daemon: mounted.daemon_pid(),
            kernel_only: mounted.family().is_none() && mounted.daemon_pid().is_none(),
            kernel: None,
            own: None,
            prepared: None,
            window: None,
            counters: None,
            problems: Vec::new(),
        };
        match OwnCounts::of(mounted) {
            Ok(own) => count.own = own,
            Err(e) => count.problems.push(e.to_string()),
        }
        if probes == Probes::On {
            match kernel::Probes::attach(connection(mounted)) {
                Ok(probes) => count.kernel = Some(probes),
                Err(e) => count.problems.push(e.to_string()),
            }
        }
        count
    }

    /// What was counted, with what could not be and why.
    pub fn finish(mut self) -> Counters {
        let mut counters = self.counters.take().unwrap_or_default();
        counters.missing.append(&mut self.problems);
        counters
    }
}

impl Phase for Count<'_> {
    fn gathered(&mut self, fio: u32, jobs: Vec<u32>) {
        let subjects = Subjects {
            fio,
            own_switches: self.whose.switches() * jobs.len() as u64,
            jobs,
            daemon: self.daemon,
            kernel_only: self.kernel_only,
        };
        self.prepared = Some((fio, Prepared::new(subjects, self.perf)));
    }

    fn starts(&mut self) {
        let Some((fio, prepared)) = self.prepared.take() else {
            return;
        };
        if let Some(Err(e)) = self.own.as_mut().map(OwnCounts::start) {
            self.problems.push(e.to_string());
            self.own = None;
        }
        self.window = Some(prepared.start());
        if let Some(Err(e)) = self.kernel.as_ref().map(|k| k.start(fio, self.daemon)) {
            self.problems.push(e.to_string());
            self.kernel = None;
        }
    }

    fn ended(&mut self) {
        let Some(window) = self.window.take() else {
            return;
        };
        let probes = self.kernel.take();
        // First, so that the slower looks of the others are not counted.
        let stopped = probes.as_ref().map(kernel::Probes::pause);
        let mut counters = window.close();
        if let Some(Err(e)) = self.own.take().map(|own| own.read(&mut counters)) {
            self.problems.push(e.to_string());
        }
        let read = probes.map(|p| p.read(&mut counters));
        for result in [stopped, read].into_iter().flatten() {
            if let Err(e) = result {
                self.problems.push(e.to_string());
            }
        }
        self.counters = Some(counters);
    }

    fn failed(&mut self, reason: String) {
        self.problems.push(reason);
    }
}

impl Measure<'_> {
    /// The job's command.
    pub fn invocation(&self, mounted: &Mounted) -> Invocation {
        command::measure(self.test, self.job, mounted.root())
    }

    /// Runs the job. Counters never make it fail: what could not be counted is said in
    /// [`Counters::missing`].
    ///
    /// # Errors
    /// If fio fails.
    pub fn run(&self, invocation: &Invocation, mounted: &Mounted) -> Result<(Report, Counters)> {
        let daemon = mounted.daemon_pid();
        let mut count = Count::new(self.agent, mounted, Whose::Fio, self.probes);
        let job = self.job;
        let mut barrier = Barrier::new(
            &self.agent.folder().join("barrier"),
            Whose::Fio,
            job.jobs,
            Duration::from_millis(job.ramp_ms),
            &mut count,
        )?;
        let report = fio::run(
            self.fio,
            invocation,
            self.agent.folder(),
            daemon,
            Some(&mut barrier),
            self.limit,
        )?;
        drop(barrier);
        Ok((report, count.finish()))
    }

    /// Runs the job and reads its figures.
    ///
    /// # Errors
    /// If fio fails, or a figure is missing.
    pub fn metrics(
        &self,
        invocation: &Invocation,
        mounted: &Mounted,
    ) -> Result<(efuse_model::attempt::Metrics, Report)> {
        let (report, counters) = self.run(invocation, mounted)?;
        let mut metrics = report
            .metrics(self.job)
            .map_err(|e| AgentError::Fio(format!("fio (measure): {e}")))?;
        metrics.counters = Some(counters);
        Ok((metrics, report))
    }
}
