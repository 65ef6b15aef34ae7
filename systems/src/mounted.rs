//! A mounted system and how it goes away.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::Signal;

use crate::SystemError;
use crate::bounded::{bounded, poll};
use crate::connection::{self, Control};
use crate::daemon::Daemon;
use crate::guardian::Guardian;
use crate::mountinfo::{self, MountEntry};

/// A single system call that unmounts: writing back what is dirty is part of it.
const UNMOUNT_CALL: Duration = Duration::from_secs(30);
/// Somebody may be about to close the last file.
const BUSY: Duration = Duration::from_secs(5);
/// A daemon whose mount is gone has nothing left to do.
const EXIT: Duration = Duration::from_secs(10);
/// After a signal.
const SIGNALLED: Duration = Duration::from_secs(3);

/// A mounted system under test.
///
/// Dropping it unmounts and reaps as [`Mounted::unmount`] does, without a word.
#[derive(Debug)]
pub struct Mounted {
    pub(crate) system: String,
    pub(crate) root: PathBuf,
    /// The mount, once it has been seen.
    pub(crate) entry: Option<MountEntry>,
    /// Its connection's control, from the moment the mount has been seen.
    pub(crate) control: Option<Control>,
    pub(crate) daemon: Option<Daemon>,
    pub(crate) guardian: Option<Guardian>,
    /// A command that unmounts instead of the system call.
    pub(crate) unmount_with: Option<Vec<String>>,
    /// Whether a daemon that ends with a status other than 0 is an error.
    pub(crate) strict_exit: bool,
    pub(crate) finished: bool,
}

impl Mounted {
    /// The directory in which the files are seen.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The daemon's process; `None` for a system without one.
    #[must_use]
    pub fn daemon_pid(&self) -> Option<u32> {
        self.daemon.as_ref().and_then(Daemon::pid)
    }

    /// The FUSE connection's number, for its control directory; `None` where there is
    /// no connection.
    #[must_use]
    pub fn connection(&self) -> Option<u32> {
        let entry = self.entry.as_ref()?;
        connection::family(entry).map(|_| entry.minor)
    }

    /// Whose connection that is: `fuse` for the kernel's own FUSE, `efuse` for the
    /// module's.
    #[must_use]
    pub fn family(&self) -> Option<&'static str> {
        self.entry.as_ref().and_then(connection::family)
    }

    /// Sets how many background requests the connection lets under way, which is
    /// [`settings::MAX_BACKGROUND`](crate::settings::MAX_BACKGROUND) after mounting.
    ///
    /// # Errors
    /// If the connection's control refuses it, or there is none.
    pub fn set_background(&self, maximum: u32) -> Result<(), SystemError> {
        let control = match &self.entry {
            Some(entry) => Control::open(entry, Some((maximum, maximum)))?,
            None => None,
        };
        control
            .map(drop)
            .ok_or_else(|| SystemError::io(&self.root, "find its control")(Errno::ENOENT.into()))
    }

    /// Checks that the daemon runs.
    ///
    /// # Errors
    /// If it has ended: how, with the end of its log.
    pub fn alive(&mut self) -> Result<(), SystemError> {
        self.daemon
            .as_mut()
            .map_or(Ok(()), |d| d.check("while it was mounted"))
    }

    /// Unmounts and waits for the daemon to end, by force where it must; returns in
    /// bounded time, and afterwards nothing is mounted or running.
    ///
    /// # Errors
    /// If force was needed, or if the daemon had died or ended with an error of its own.
    pub fn unmount(mut self) -> Result<(), SystemError> {
        self.take_down()
    }

    fn log(&self) -> String {
        self.daemon
            .as_ref()
            .map_or_else(|| "it has no daemon".to_owned(), |d| d.log().tail())
    }

    /// The mount is still there. An unreadable list of mounts counts as "yes": then
    /// the unmount call itself will tell.
    fn is_mounted(&self) -> bool {
        match (mountinfo::at(&self.root), &self.entry) {
            (Ok(None), _) => false,
            (Ok(Some(now)), Some(then)) => now.minor == then.minor,
            (Ok(Some(_)), None) | (Err(_), _) => true,
        }
    }

    fn take_down(&mut self) -> Result<(), SystemError> {
        if self.finished {
            return Ok(());
        }
        self.finished = true;
        // The daemon may have died before the mount was first seen.
        if self.entry.is_none() {
            self.entry = mountinfo::at(&self.root).ok().flatten();
            self.control = self
                .entry
                .as_ref()
                .and_then(|entry| Control::open(entry, None).ok().flatten());
        }
        let mut problems = Vec::new();
        // A daemon that is dead already did not die of the unmount.
        let early = self.alive().err();
        if self.is_mounted()
            && let Err(problem) = self.unmount_politely()
        {
            problems.push(problem);
            self.unmount_by_force(&mut problems);
        }
        self.end_daemon(&mut problems);
        if let Some(guardian) = self.guardian.take() {
            guardian.dismiss();
        }
        if let Some(error) = early {
            return Err(error);
        }
        if !problems.is_empty() {
            return Err(SystemError::Unmount {
                system: self.system.clone(),
                mountpoint: self.root.clone(),
                problem: problems.join(", "),
                log: self.log(),
            });
        }
        let strict = self.strict_exit;
        match self.daemon.as_mut().and_then(|d| d.complaint(strict)) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn unmount_politely(&self) -> Result<(), String> {
        if let Some(command) = &self.unmount_with {
            return run(command);
        }
        poll(BUSY, || {
            match self.unmount_call(MntFlags::UMOUNT_NOFOLLOW) {
                None => Some(Err(format!(
                    "umount(2) did not return within {} s",
                    UNMOUNT_CALL.as_secs()
                ))),
                Some(Ok(())) => Some(Ok(())),
                Some(Err(Errno::EBUSY)) => None,
                // Somebody else, such as the daemon itself, was faster.
                Some(Err(_)) if !self.is_mounted() => Some(Ok(())),
                Some(Err(e)) => Some(Err(format!("umount(2) failed: {}", e.desc()))),
            }
        })
        .unwrap_or_else(|| {
            Err(format!(
                "a file in it was still in use after {} s",
                BUSY.as_secs()
            ))
        })
    }

    fn unmount_by_force(&mut self, problems: &mut Vec<String>) {
        if let Some(daemon) = &mut self.daemon {
            // A good daemon unmounts when it is asked to end.
            daemon.signal(Signal::SIGTERM);
            if poll(SIGNALLED, || (!self.is_mounted()).then_some(())).is_some() {
                return;
            }
        }
        // Whoever waits for an answer, a stuck umount(2) among them, goes on.
        self.abort(problems);
        if self.is_mounted() {
            match self.unmount_call(MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
                Some(Ok(())) => {}
                Some(Err(_)) if !self.is_mounted() => {}
                Some(Err(e)) => problems.push(format!("detaching it failed: {}", e.desc())),
                None => problems.push("detaching it did not return".to_owned()),
            }
        }
    }

    fn unmount_call(&self, flags: MntFlags) -> Option<nix::Result<()>> {
        let root = self.root.clone();
        bounded(UNMOUNT_CALL, move || umount2(&root, flags))
    }

    fn abort(&mut self, problems: &mut Vec<String>) {
        if let Some(control) = &mut self.control
            && let Err(e) = control.abort()
        {
            problems.push(format!("aborting the connection failed: {e}"));
        }
    }

    fn end_daemon(&mut self, problems: &mut Vec<String>) {
        let Some(mut daemon) = self.daemon.take() else {
            return;
        };
        // If it was never mounted the daemon has no reason to end by itself.
        let patience = if self.entry.is_some() {
            EXIT
        } else {
            Duration::ZERO
        };
        if !daemon.wait_gone(patience) {
            if self.entry.is_some() {
                problems.push(format!(
                    "the daemon was still running {} s after the unmount",
                    patience.as_secs()
                ));
            }
            daemon.signal(Signal::SIGTERM);
            if !daemon.wait_gone(SIGNALLED) {
                self.abort(problems);
                daemon.signal(Signal::SIGKILL);
                if !daemon.wait_gone(SIGNALLED) {
                    problems.push("the daemon did not end after SIGKILL".to_owned());
                }
            }
        }
        // Helpers that the daemon started and left behind.
        daemon.signal(Signal::SIGKILL);
        self.daemon = Some(daemon);
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Nobody is left to tell; the log has what the daemon said.
        let _ = self.take_down();
    }
}

/// Runs the unmount command of a user's system.
fn run(command: &[String]) -> Result<(), String> {
    let shown = command.join(" ");
    let (program, args) = command
        .split_first()
        .ok_or_else(|| "the unmount command is empty".to_owned())?;
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| format!("cannot start `{shown}`: {e}"))?;
    match poll(UNMOUNT_CALL, || child.try_wait().ok().flatten()) {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(format!("`{shown}` failed: {status}")),
        None => {
            let _ = child.kill();
            let _ = child.wait();
            Err(format!(
                "`{shown}` did not end within {} s",
                UNMOUNT_CALL.as_secs()
            ))
        }
    }
}
