//! A session in a QEMU guest.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use efuse_guest::{AccelRequest, Guest, GuestError, GuestSpec};
use efuse_kernel::Artifacts;
use efuse_model::attempt::Phase;
use efuse_model::cell::Cell;
use efuse_model::counters::Probes;
use efuse_model::environment::{Clock, Environment, Place};
use efuse_model::protocol::{FromAgent, PROTOCOL, ToAgent};

use super::{Checked, EMULATORS_OOPS, Measured, Opener, Opening, Session, SessionError};
use crate::cli::KernelName;
use crate::interrupt::Interrupt;
use crate::outside::Outside;

/// How often a wait looks for Ctrl-C.
const POLL: Duration = Duration::from_millis(200);
/// From the kernel's start to the agent's first line, under emulation on a loaded host.
const BOOT_LIMIT: Duration = Duration::from_secs(180);
/// The agent keeps its own limit; this much later the guest is taken for dead. This, the limits
/// and the boot's are longer by [`KernelName::patience`].
const GRACE: Duration = Duration::from_secs(60);
/// How much more wall time than guest time an attempt may take where time counts
/// instructions: the agent's limits are of the guest's time then, the outside's are not.
const ICOUNT_PATIENCE: u32 = 10;
/// Lines of a trace in a stored reason; the console log has all of it.
const TRACE_LINES: usize = 20;

/// What every boot of a run has in common.
#[derive(Clone, Debug)]
pub struct VmOptions {
    /// The project.
    pub root: PathBuf,
    /// Programs and files for the guest: here, there.
    pub files: Vec<(PathBuf, PathBuf)>,
    /// Processors.
    pub vcpus: u32,
    /// Memory, MiB.
    pub memory_mib: u32,
    /// KVM, TCG, or whichever works.
    pub accel: AccelRequest,
    /// Time counts instructions, with this shift.
    pub icount_shift: Option<u8>,
    /// Which kernel is booted.
    pub kernel: KernelName,
    /// Size of a virtio-blk disk, if the device is one.
    pub disk_bytes: Option<u64>,
}

/// Boots guests.
#[derive(Debug)]
pub struct VmOpener {
    options: VmOptions,
    outside: Outside,
    interrupt: Interrupt,
    artifacts: Option<Artifacts>,
    boots: u32,
}

impl VmOpener {
    /// Nothing is started yet.
    #[must_use]
    pub fn new(options: VmOptions, interrupt: Interrupt) -> Self {
        Self {
            outside: Outside::look(&options.root, Place::Vm),
            options,
            interrupt,
            artifacts: None,
            boots: 0,
        }
    }

    /// The kernel and the module: built once, so that all boots of a run are of the same.
    fn artifacts(&mut self, progress: &mut dyn FnMut(&str)) -> Result<Artifacts, SessionError> {
        if let Some(artifacts) = &self.artifacts {
            return Ok(artifacts.clone());
        }
        let root = &self.options.root;
        let ensure = match self.options.kernel {
            KernelName::Distribution => efuse_kernel::ensure,
            KernelName::Debug | KernelName::DebugObjects => efuse_kernel::ensure_debug,
        };
        let artifacts = self
            .interrupt
            .exit_directly(|| ensure(root, progress))
            .map_err(SessionError::Interrupted)?
            .map_err(|e| self.open_error(&e))?;
        self.artifacts = Some(artifacts.clone());
        Ok(artifacts)
    }

    /// An error while opening; Ctrl-C also ends the children, whose failure is then no news.
    fn open_error(&self, error: &dyn std::fmt::Display) -> SessionError {
        match self.interrupt.signal() {
            Some(signal) => SessionError::Interrupted(signal),
            None => SessionError::Open(error.to_string()),
        }
    }
}

impl Opener for VmOpener {
    fn open(
        &mut self,
        opening: &Opening,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Box<dyn Session>, SessionError> {
        let artifacts = self.artifacts(progress)?;
        self.boots += 1;
        let init_binary = std::env::current_exe()
            .map_err(|e| SessionError::Open(format!("cannot tell this program's path: {e}")))?;
        let (clock, patience) = match self.options.icount_shift {
            Some(shift) => (Clock::Icount { shift }, ICOUNT_PATIENCE),
            None => (Clock::Real, 1),
        };
        let slow = self.options.kernel.patience();
        let module_hash = artifacts.module_hash.clone();
        let spec = GuestSpec {
            artifacts,
            init_binary,
            files: self.options.files.clone(),
            vcpus: self.options.vcpus,
            memory_mib: self.options.memory_mib,
            accel: self.options.accel,
            icount_shift: self.options.icount_shift,
            kernel_arguments: self.options.kernel.arguments(),
            virtio_disk_bytes: self.options.disk_bytes,
            console_log: opening.console.clone(),
            work_dir: self.options.root.join("target/guest"),
            time_limit: opening.time_limit * patience * slow,
        };
        // A guest dies with this process, so its boot may be left at once.
        let (guest, first) = self
            .interrupt
            .exit_directly(|| Guest::boot(&spec, BOOT_LIMIT * patience * slow, progress))
            .map_err(SessionError::Interrupted)?
            .map_err(|e| self.open_error(&reason(&e.to_string(), &name(&opening.console))))?;
        let mut environment = ready(first)?;
        let mut vm = Vm {
            guest,
            interrupt: self.interrupt.clone(),
            console: opening.console.clone(),
            id: format!("boot-{}-{}", jiff::Timestamp::now().as_second(), self.boots),
            environment: None,
            seq: 0,
            patience,
            slow,
        };
        let accelerator = vm.guest.accelerator();
        self.outside.complete(&mut environment, accelerator, clock);
        environment
            .artifacts
            .insert("efuse.ko source".to_owned(), module_hash);
        vm.environment = Some(environment);
        Ok(Box::new(vm))
    }
}

/// What the guest says of itself in its first message.
fn ready(first: FromAgent) -> Result<Environment, SessionError> {
    match first {
        FromAgent::Ready {
            protocol: PROTOCOL,
            environment,
        } => Ok(*environment),
        FromAgent::Ready { protocol, .. } => Err(SessionError::Open(format!(
            "the agent in the guest speaks protocol {protocol}, this program {PROTOCOL}: \
             they are not the same build"
        ))),
        other => Err(SessionError::Open(format!(
            "the agent in the guest did not say that it is ready but {other:?}"
        ))),
    }
}

/// A console's log as messages call it: its place is the run's folder.
fn name(console: &Path) -> String {
    let name = console.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// A booted guest; killed on drop.
struct Vm {
    guest: Guest,
    interrupt: Interrupt,
    console: PathBuf,
    id: String,
    /// Set once it has said it is ready.
    environment: Option<Environment>,
    seq: u64,
    /// Factor on every deadline.
    patience: u32,
    /// Factor on the limits themselves, for a kernel that takes longer.
    slow: u32,
}

impl Vm {
    fn deadline(&self, limit: Duration) -> Instant {
        Instant::now() + limit * self.patience
    }

    /// The next message that is not a log line.
    fn next(&mut self, deadline: Instant) -> Result<FromAgent, SessionError> {
        loop {
            if let Some(signal) = self.interrupt.signal() {
                return Err(SessionError::Interrupted(signal));
            }
            match self.guest.recv(POLL) {
                Ok(FromAgent::Log { text }) => eprintln!("guest: {text}"),
                Ok(message) => return Ok(message),
                Err(GuestError::Timeout { .. }) if Instant::now() < deadline => {}
                Err(GuestError::Timeout { .. }) => {
                    return Err(SessionError::Lost(format!(
                        "the agent in the guest said nothing for too long; console: {}",
                        self.console_name()
                    )));
                }
                Err(e) => return Err(self.lost(&e)),
            }
        }
    }

    fn console_name(&self) -> String {
        name(&self.console)
    }

    /// First line: what and where; then the first lines of the trace.
    fn lost(&self, error: &GuestError) -> SessionError {
        match self.interrupt.signal() {
            Some(signal) => SessionError::Interrupted(signal),
            None => SessionError::Lost(reason(&error.to_string(), &self.console_name())),
        }
    }

    fn send(&mut self, message: &ToAgent) -> Result<(), SessionError> {
        self.guest.send(message).map_err(|e| self.lost(&e))
    }

    fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    fn unexpected(&self, message: &FromAgent) -> SessionError {
        SessionError::Lost(format!(
            "the agent in the guest answered out of turn: {message:?}; console: {}",
            self.console_name()
        ))
    }
}

/// What the line of a trace contains that says what happened; the lines before it only
/// lead up to it.
const HEADLINES: [&str; 13] = [
    "Kernel panic",
    "BUG:",
    "kernel BUG",
    "Oops",
    "WARNING:",
    "UBSAN:",
    "INFO: task",
    "INFO: trying",
    "BUG ",
    "rcu:",
    "watchdog:",
    "general protection",
    "Out of memory",
];

/// A guest's error (what, then lines of a trace or of the console) as a stored reason:
/// one line that says what happened and where all of it is, then the first lines.
fn reason(error: &str, console: &str) -> String {
    let mut lines = error.lines().filter(|l| !l.trim().is_empty());
    let what = lines.next().unwrap_or("the guest was lost");
    let what = what.trim_end_matches(':');
    let trace: Vec<&str> = lines.collect();
    let Some(first) = trace.first() else {
        return format!("{what}; console: {console}");
    };
    let at = trace
        .iter()
        .position(|line| HEADLINES.iter().any(|h| line.contains(h)));
    let headline = at.map_or(*first, |at| trace[at]);
    let mut reason = format!("{what}: {}; all of it: {console}", headline.trim());
    for line in trace.iter().skip(at.unwrap_or(0)).take(TRACE_LINES) {
        reason.push('\n');
        reason.push_str(line);
    }
    reason
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Session for Vm {
    fn id(&self) -> &str {
        &self.id
    }

    fn environment(&self) -> &Environment {
        self.environment
            .as_ref()
            .expect("a guest is handed out after it said it is ready")
    }

    fn console(&self) -> Option<&Path> {
        Some(&self.console)
    }

    fn move_console(&mut self, to: PathBuf) -> io::Result<()> {
        // QEMU and the watcher hold the file open: they follow it.
        std::fs::rename(&self.console, &to)?;
        self.console = to;
        Ok(())
    }

    fn probe(&mut self, systems: &[String]) -> Result<Vec<(String, Option<String>)>, SessionError> {
        let seq = self.next_seq();
        self.send(&ToAgent::Probe {
            seq,
            systems: systems.to_vec(),
        })?;
        match self.next(self.deadline(GRACE * self.slow))? {
            FromAgent::Availability { seq: s, systems } if s == seq => Ok(systems),
            other => Err(self.unexpected(&other)),
        }
    }

    fn measure(
        &mut self,
        cell: &Cell,
        probes: Probes,
        limit: Duration,
        phase: &mut dyn FnMut(Phase),
    ) -> Result<Measured, SessionError> {
        let seq = self.next_seq();
        let limit = limit * self.slow;
        self.send(&ToAgent::Run {
            seq,
            cell: Box::new(cell.clone()),
            probes,
            timeout_ms: millis(limit),
        })?;
        let deadline = self.deadline(limit + GRACE * self.slow);
        let started = Instant::now();
        loop {
            match self.next(deadline)? {
                FromAgent::Phase { seq: s, phase: p } if s == seq => phase(p),
                FromAgent::Finished {
                    seq: s,
                    outcome,
                    command,
                    raw,
                } if s == seq => {
                    return Ok(Measured {
                        outcome,
                        // The guest's clock may count instructions.
                        wall_ms: millis(started.elapsed()),
                        command,
                        raw,
                    });
                }
                other => return Err(self.unexpected(&other)),
            }
        }
    }

    fn check(
        &mut self,
        check: &str,
        system: &str,
        effort: u32,
        limit: Duration,
    ) -> Result<Checked, SessionError> {
        let seq = self.next_seq();
        let limit = limit * self.slow;
        self.send(&ToAgent::Check {
            seq,
            check: check.to_owned(),
            system: system.to_owned(),
            effort,
            timeout_ms: millis(limit),
        })?;
        match self.next(self.deadline(limit + GRACE * self.slow))? {
            FromAgent::Checked {
                seq: s,
                failure,
                detail,
                skipped,
            } if s == seq => Ok(Checked {
                failure,
                detail,
                skipped,
            }),
            other => Err(self.unexpected(&other)),
        }
    }

    fn shutdown(self: Box<Self>) -> Result<(), SessionError> {
        let console = self.console_name();
        let Self {
            guest,
            console: log,
            ..
        } = *self;
        let Err(error) = guest.shutdown() else {
            return Ok(());
        };
        let said = error.to_string();
        if !said.contains(EMULATORS_OOPS)
            && matches!(
                error,
                GuestError::Panic { .. }
                    | GuestError::Oops { .. }
                    | GuestError::Warning { .. }
                    | GuestError::HungTask { .. }
            )
        {
            return Err(SessionError::Lost(reason(&said, &console)));
        }
        // What was measured is stored; a guest that does not power off is killed.
        eprintln!(
            "eval: the guest did not power off in good order ({said}); console: {}",
            log.display()
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_leads_with_what_happened() {
        let mut trace = vec![
            "[ 1.0] drop_caches: 3",
            "[ 2.0] Kernel panic - not syncing: x",
        ];
        trace.extend([" panic+0x1/0x2"; 50]);
        let text = format!("the guest's kernel panicked:\n\n{}", trace.join("\n"));
        let reason = reason(&text, "console-3.log");
        let mut lines = reason.lines();
        assert_eq!(
            lines.next().unwrap(),
            "the guest's kernel panicked: [ 2.0] Kernel panic - not syncing: x; all of it: console-3.log"
        );
        assert_eq!(lines.next().unwrap(), trace[1]);
        assert_eq!(reason.lines().count(), 1 + TRACE_LINES);
    }

    #[test]
    fn an_error_without_trace_is_one_line() {
        assert_eq!(
            reason("QEMU ended (signal: 9)", "c.log"),
            "QEMU ended (signal: 9); console: c.log"
        );
    }
}
