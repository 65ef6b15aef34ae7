//! Watches a guest's QEMU and console.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout};

use crate::accel;
use crate::console::Console;
use crate::error::GuestError;
use crate::guest::{AFTERMATH, Shared};
use crate::qemu::Machine;

/// How long the console must be silent for a trace without a last line to be complete.
const TRACE_SILENCE: Duration = Duration::from_millis(1500);

/// Starts QEMU, keeps its console's log, and tells the inbox what becomes of it.
pub(crate) struct Watcher {
    pub shared: Arc<Shared>,
    pub socket: UnixStream,
    pub log: File,
    pub stderr: File,
    pub console: Console,
    pub limit: Duration,
    pub deadline: Option<Instant>,
    /// Why there is no KVM, should there be no TCG either.
    pub kvm: String,
}

impl Watcher {
    /// Until the console is closed.
    pub fn run(mut self, machine: Machine, report: &mpsc::SyncSender<Result<(), GuestError>>) {
        let stderr = self
            .stderr
            .try_clone()
            .map_err(GuestError::io("make a file for", Path::new("QEMU")));
        match stderr.and_then(|stderr| machine.spawn(stderr)) {
            Ok(child) => *self.shared.child() = Some(child),
            Err(error) => {
                let _ = report.send(Err(error));
                return;
            }
        }
        // QEMU's ends must be QEMU's alone, or they would not close when it ends.
        drop(machine);
        let _ = report.send(Ok(()));
        self.follow();
        self.conclude();
        self.shared.inbox.set_gone();
    }

    /// Reads the console to its end.
    fn follow(&mut self) {
        let mut buffer = vec![0; 1 << 16];
        let mut reported = false;
        let mut limited = false;
        let mut last = Instant::now();
        loop {
            let now = Instant::now();
            let left = match self.deadline {
                Some(deadline) if !limited => deadline.saturating_duration_since(now),
                _ => Duration::MAX,
            };
            if left.is_zero() {
                limited = true;
                self.shared.inbox.fail(GuestError::TimeLimit {
                    limit: self.limit,
                    tail: self.console.tail(),
                });
                self.shared.kill();
                continue;
            }
            let tracing = self.console.bad() && !reported;
            let patience = if tracing {
                left.min(TRACE_SILENCE)
            } else {
                left
            };
            match readable(&self.socket, patience) {
                Ok(true) => {}
                Ok(false) => {
                    if tracing && last.elapsed() >= TRACE_SILENCE {
                        self.report();
                        reported = true;
                    }
                    continue;
                }
                Err(_) => return,
            }
            match self.socket.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => {
                    last = Instant::now();
                    // A full disk must not stop the watch.
                    let _ = self.log.write_all(&buffer[..length]);
                    self.console.feed(&buffer[..length]);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
            if !reported && self.console.complete() {
                self.report();
                reported = true;
            }
        }
    }

    fn report(&self) {
        if let Some(failure) = self.console.failure() {
            // That init gave up says nothing against what the agent said before.
            match failure {
                GuestError::Init { .. } => self.shared.inbox.finish(failure),
                failure => self.shared.inbox.fail(failure),
            }
        }
    }

    /// The console is closed: QEMU is ending.
    fn conclude(&mut self) {
        self.console.end();
        self.report();
        let status = self.shared.reap(AFTERMATH);
        let orderly =
            self.shared.inbox.dismissed() && status.as_ref().is_ok_and(ExitStatus::success);
        if orderly {
            return;
        }
        let stderr = accel::written(&mut self.stderr);
        let end = if stderr.contains("invalid accelerator tcg") {
            GuestError::NoAccelerator {
                kvm: std::mem::take(&mut self.kvm),
            }
        } else {
            GuestError::Exited {
                status: status.map_or_else(|error| error.to_string(), |status| status.to_string()),
                stderr,
                tail: self.console.tail(),
            }
        };
        self.shared.inbox.finish(end);
    }
}

/// Waits for something to read, or the end; false if there was neither in time.
fn readable(socket: &UnixStream, patience: Duration) -> nix::Result<bool> {
    // Rounded up, so that a wait for a deadline does not end just before it again and again.
    let milliseconds = patience.as_nanos().div_ceil(1_000_000).min(60_000);
    let timeout = PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX);
    let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    match nix::poll::poll(&mut fds, timeout) {
        Ok(count) => Ok(count > 0),
        Err(nix::errno::Errno::EINTR) => Ok(false),
        Err(error) => Err(error),
    }
}
