//! A daemon that does nothing for a while.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Site, Trouble, fail, until};
use crate::error::AgentError;

/// The daemon, stopped by a signal; it goes on when this is dropped.
#[derive(Debug)]
pub(super) struct Stopped(Pid);

impl Stopped {
    /// Stops every thread of the daemon.
    pub fn new(site: &mut Site<'_>) -> Result<Self, Trouble> {
        let Some(daemon) = site.mounted()?.daemon_pid() else {
            return fail("there is no daemon");
        };
        let pid = Pid::from_raw(i32::try_from(daemon).expect("a process number"));
        kill(pid, Signal::SIGSTOP).map_err(AgentError::errno("daemon", "stop"))?;
        let stopped = Self(pid);
        until(site, "the daemon did not stop", &mut || all_stopped(daemon))?;
        Ok(stopped)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // It fails only if the daemon is gone, and then that is noticed elsewhere.
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

/// A thread that is inside the kernel stops only when it comes out.
fn all_stopped(daemon: u32) -> Result<bool, Trouble> {
    let folder = format!("/proc/{daemon}/task");
    let entries = fs::read_dir(&folder).map_err(AgentError::io(&folder, "list"))?;
    for entry in entries {
        let path = entry.map_err(AgentError::io(&folder, "list"))?.path();
        let path = path.join("stat");
        let stat = fs::read_to_string(&path).map_err(AgentError::io(&path, "read"))?;
        // The name before it may have anything in it.
        let state = stat.rsplit(") ").next().and_then(|s| s.chars().next());
        if state != Some('T') {
            return Ok(false);
        }
    }
    Ok(true)
}
