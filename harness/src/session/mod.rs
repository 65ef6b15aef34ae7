//! Where cells are measured: a session is one boot of the guest, or the running kernel
//! for as long as `eval` lives.

pub mod host;
pub mod vm;

use std::path::{Path, PathBuf};
use std::time::Duration;

use efuse_model::attempt::{Outcome, Phase};
use efuse_model::cell::Cell;
use efuse_model::counters::Probes;
use efuse_model::environment::Environment;
use thiserror::Error;

/// Why a session cannot go on.
#[derive(Debug, Error)]
pub enum SessionError {
    /// It could not be opened.
    #[error("{0}")]
    Open(String),
    /// It died or hangs, and with it what it was doing. The first line says how, the
    /// lines after it are the first of a trace where there is one.
    #[error("{0}")]
    Lost(String),
    /// The user wants out (the signal's number).
    #[error("interrupted by {}", crate::interrupt::signal_name(*.0))]
    Interrupted(i32),
}

/// How an emulated kernel ends that is no fault of what is checked: see docs/decisions.md 17.
pub(crate) const EMULATORS_OOPS: &str = "Oops: int3";

/// What the agent says of an attempt.
#[derive(Clone, Debug)]
pub struct Measured {
    /// How it ended.
    pub outcome: Outcome,
    /// Wall time of the whole cell outside, milliseconds.
    pub wall_ms: u64,
    /// The fio command line of the measured phase, empty if it never came to that.
    pub command: String,
    /// fio's raw JSON.
    pub raw: Option<serde_json::Value>,
}

/// What the agent says of an integration check.
#[derive(Clone, Debug)]
pub struct Checked {
    /// Why it failed.
    pub failure: Option<String>,
    /// What it did.
    pub detail: String,
    /// Why it did not run.
    pub skipped: Option<String>,
}

/// An open session. Dropping it ends it: the guest is killed, mounts are undone.
pub trait Session {
    /// Names this boot in the stored attempts.
    fn id(&self) -> &str;

    /// The environment, complete with what only the outside knows.
    fn environment(&self) -> &Environment;

    /// The guest's console log.
    fn console(&self) -> Option<&Path> {
        None
    }

    /// Moves the console log; the guest goes on writing to it.
    ///
    /// # Errors
    /// If it cannot be moved.
    fn move_console(&mut self, _to: PathBuf) -> std::io::Result<()> {
        Ok(())
    }

    /// For each system, why it cannot run here, or `None` if it can.
    ///
    /// # Errors
    /// If the session is lost or the user interrupts.
    fn probe(&mut self, systems: &[String]) -> Result<Vec<(String, Option<String>)>, SessionError>;

    /// Measures one attempt, with or without probes inside the kernel.
    ///
    /// # Errors
    /// If the session is lost or the user interrupts. An attempt that fails inside is
    /// not an error here.
    fn measure(
        &mut self,
        cell: &Cell,
        probes: Probes,
        limit: Duration,
        phase: &mut dyn FnMut(Phase),
    ) -> Result<Measured, SessionError>;

    /// Runs one integration check against one system.
    ///
    /// # Errors
    /// If the session is lost or the user interrupts.
    fn check(
        &mut self,
        check: &str,
        system: &str,
        effort: u32,
        limit: Duration,
    ) -> Result<Checked, SessionError>;

    /// Ends it in good order.
    ///
    /// # Errors
    /// [`SessionError::Lost`] if the guest's kernel was found broken after the last thing that it did.
    fn shutdown(self: Box<Self>) -> Result<(), SessionError>;
}

/// What a session is to be opened with.
#[derive(Clone, Debug)]
pub struct Opening {
    /// Where the guest's console goes.
    pub console: PathBuf,
    /// Longest life of a guest: the sum of the limits of what it is to do.
    pub time_limit: Duration,
}

/// Opens sessions, one after another.
pub trait Opener {
    /// Opens one; `progress` is told what takes time.
    ///
    /// # Errors
    /// [`SessionError::Open`] with one clear message, or the user's interrupt.
    fn open(
        &mut self,
        opening: &Opening,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Box<dyn Session>, SessionError>;
}
