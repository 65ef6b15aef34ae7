//! The time limit of a cell or check, and the watchdog that enforces it on system
//! calls that no one else can end.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::{AgentError, Result};

/// How often a waiting step looks whether the user wants to stop.
pub const POLL: Duration = Duration::from_millis(100);

/// Set by the user of the library (Ctrl-C) to make a running cell give up.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Makes every cell and check that has this handle give up soon.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether [`Cancel::cancel`] was called.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// When to give up.
#[derive(Clone, Debug)]
pub struct Limit {
    total: Duration,
    end: Instant,
    cancel: Cancel,
}

impl Limit {
    /// From now on for this long.
    #[must_use]
    pub fn new(total: Duration, cancel: Cancel) -> Self {
        Self {
            total,
            end: Instant::now() + total,
            cancel,
        }
    }

    /// Time that is left.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// # Errors
    /// If time is up or the user stopped the run.
    pub fn check(&self) -> Result<()> {
        if self.cancel.is_cancelled() {
            Err(AgentError::Interrupted)
        } else if self.left().is_zero() {
            Err(AgentError::Timeout {
                seconds: self.total.as_secs(),
            })
        } else {
            Ok(())
        }
    }
}

/// What the watchdog breaks when the time is up: a system call that waits for a
/// daemon returns once the daemon is dead and its connection aborted.
#[derive(Debug, Default)]
struct Target {
    daemon: Option<u32>,
    mountpoint: Option<PathBuf>,
    done: bool,
    fired: bool,
}

/// Breaks a hanging mount when the limit passes. Disarmed on drop.
#[derive(Debug)]
pub struct Watchdog {
    shared: Arc<(Mutex<Target>, Condvar)>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Watchdog {
    /// Starts watching.
    #[must_use]
    pub fn arm(limit: &Limit) -> Self {
        let shared = Arc::new((Mutex::new(Target::default()), Condvar::new()));
        let (inner, limit) = (Arc::clone(&shared), limit.clone());
        let thread = thread::spawn(move || {
            let (lock, wake) = &*inner;
            let mut target = lock.lock().unwrap_or_else(PoisonError::into_inner);
            while !target.done {
                if limit.check().is_err() {
                    break_mount(&mut target);
                }
                target = wake
                    .wait_timeout(target, POLL)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
            }
        });
        Self {
            shared,
            thread: Some(thread),
        }
    }

    /// Says what to break. `None` for both once it is unmounted.
    pub fn watch(&self, daemon: Option<u32>, mountpoint: Option<PathBuf>) {
        let mut target = self.shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        target.daemon = daemon;
        target.mountpoint = mountpoint;
        target.fired = false;
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.shared
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .done = true;
        self.shared.1.notify_all();
        if let Some(thread) = self.thread.take() {
            // It only sleeps on the condition variable; it cannot have panicked.
            let _ = thread.join();
        }
    }
}

fn break_mount(target: &mut Target) {
    if target.fired {
        return;
    }
    if let Some(pid) = target.daemon.and_then(|p| i32::try_from(p).ok()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    if let Some(mountpoint) = &target.mountpoint {
        // Aborts a FUSE connection even while the mount is busy; the unmount itself
        // may fail, the system's own teardown does it.
        let _ = umount2(mountpoint, MntFlags::MNT_FORCE | MntFlags::UMOUNT_NOFOLLOW);
    }
    target.fired = target.daemon.is_some() || target.mountpoint.is_some();
}
