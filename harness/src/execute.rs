//! The loop that measures a plan.
//!
//! Invariants, whatever dies and whenever:
//! * an attempt is either on disk, complete, or never was: it is appended and fsynced
//!   before the next one starts;
//! * a slot with a finished attempt is never measured again;
//! * a slot beyond the plan's is on disk before it is measured, and whether there are more
//!   follows from what is stored alone;
//! * a slot is left without a figure only after a failed attempt that says why.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use efuse_model::attempt::{Attempt, Outcome, Phase, SCHEMA};
use efuse_model::cell::Cell;
use efuse_model::plan::{Plan, Slot};
use efuse_model::store::{RunDir, StoreError};
use thiserror::Error;

use crate::adaptive;
use crate::estimate::{self, Clock};
use crate::interrupt::Interrupt;
use crate::session::{Measured, Opener, Opening, Session, SessionError};

/// Sessions that may be lost before the run is given up.
pub const MAX_LOST: u32 = 8;

/// Attempts that may fail in a row while the device and its files are made.
const UNPREPARED: u32 = 3;

/// Why a run stopped before its end. What was finished is stored in every case.
#[derive(Debug, Error)]
pub enum RunError {
    /// The run's folder cannot be written or read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No session.
    #[error("{0}")]
    Open(String),
    /// The user wants out.
    #[error("interrupted by {}", crate::interrupt::signal_name(*.0))]
    Interrupted(i32),
    /// The machine is not the one on which the run was begun.
    #[error(
        "the environment is not the one this run was begun in, so its figures could not be compared:\n  {}\n\
         start a new run, or restore what changed",
        .0.join("\n  ")
    )]
    Changed(Vec<String>),
    /// Attempts fail before the system under test is touched: it is the machine.
    #[error("{UNPREPARED} attempts in a row failed before any system was mounted; the last: {0}")]
    Unprepared(String),
    /// The guest's kernel was found broken when it was over.
    #[error("every cell is measured, but the guest's kernel was found broken after that: {0}")]
    Broken(String),
    /// Too many sessions were lost.
    #[error("{lost} guests were lost one after another; the last one: {last}")]
    TooManyLost {
        /// How many.
        lost: u32,
        /// How the last one ended.
        last: String,
    },
}

/// How far the run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Slots with a figure.
    pub done: usize,
    /// All slots.
    pub total: usize,
    /// Expected time for what is left.
    pub left: Duration,
}

/// Is told what happens.
pub trait Watch {
    /// A session is being opened; called again with each step that takes time.
    fn opening(&mut self, step: &str);
    /// Something the user should know.
    fn note(&mut self, text: &str);
    /// An attempt begins.
    fn started(&mut self, position: Position, cell: &Cell, slot: &Slot, attempt: u32);
    /// A step of it begins.
    fn phase(&mut self, phase: Phase);
    /// It ended and is stored.
    fn finished(&mut self, position: Position, attempt: &Attempt);
}

/// What may be set for the loop.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest attempt, if not the estimate's own limit.
    pub cell: Option<Duration>,
    /// Sessions that may be lost.
    pub max_lost: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cell: None,
            max_lost: MAX_LOST,
        }
    }
}

impl Limits {
    /// Longest attempt at this cell.
    #[must_use]
    pub fn of(&self, cell: &Cell) -> Duration {
        self.cell.unwrap_or_else(|| estimate::limit(cell))
    }
}

/// How a run ended that went to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// Slots with a figure.
    pub done: usize,
    /// Slots without one.
    pub failed: Vec<Slot>,
}

/// A run in progress.
pub struct Execution<'a> {
    run: &'a RunDir,
    plan: &'a Plan,
    opener: &'a mut dyn Opener,
    watch: &'a mut dyn Watch,
    interrupt: &'a Interrupt,
    limits: Limits,
    session: Option<Box<dyn Session>>,
    lost: u32,
    unprepared: u32,
    clock: Clock,
    tries: HashMap<Slot, u32>,
    done: usize,
    total: usize,
}

/// Measures every slot of the plan that has no figure yet: first those never tried, in
/// the plan's order, then each that failed once more. Then the slots that are added where
/// the plan asks for more certainty ([`adaptive`]), round by round.
///
/// `session`, if given, is used first.
///
/// # Errors
/// See [`RunError`].
#[expect(
    clippy::too_many_arguments,
    reason = "the loop's seams, each of them replaced in tests"
)]
pub fn execute(
    run: &RunDir,
    plan: &Plan,
    session: Option<Box<dyn Session>>,
    opener: &mut dyn Opener,
    watch: &mut dyn Watch,
    interrupt: &Interrupt,
    limits: Limits,
    clock: Clock,
) -> Result<Completion, RunError> {
    let attempts = run.attempts()?;
    for message in &attempts.damaged {
        watch.note(message);
    }
    let mut execution = Execution {
        run,
        plan,
        opener,
        watch,
        interrupt,
        limits,
        session: None,
        lost: 0,
        unprepared: 0,
        clock,
        tries: HashMap::new(),
        done: 0,
        total: plan.order.len(),
    };
    let mut fresh = VecDeque::new();
    let mut again = VecDeque::new();
    for slot in &plan.order {
        let tries = attempts.tries(slot);
        execution.tries.insert(slot.clone(), tries);
        if attempts.done(slot) {
            execution.done += 1;
        } else if tries == 0 {
            fresh.push_back(slot.clone());
        } else {
            again.push_back(slot.clone());
        }
    }
    for attempt in &attempts.list {
        execution.clock.learn(attempt);
    }
    if let Some(session) = session {
        execution.recognise(&*session)?;
        execution.session = Some(session);
    }
    let mut failed = execution.work(fresh, again)?;
    let mut grown = plan.clone();
    while let Some(extra) = adaptive::next(&grown, &run.attempts()?) {
        run.append_extra(&extra)?;
        for why in &extra.why {
            execution.watch.note(&format!("measuring again: {why}"));
        }
        execution.total += extra.slots.len();
        grown.order.extend(extra.slots.iter().cloned());
        failed.extend(execution.work(extra.slots.into(), VecDeque::new())?);
    }
    if let Some(session) = execution.session.take() {
        session
            .shutdown()
            .map_err(|e| RunError::Broken(e.to_string()))?;
    }
    Ok(Completion {
        done: execution.done,
        failed,
    })
}

impl Execution<'_> {
    fn work(
        &mut self,
        mut fresh: VecDeque<Slot>,
        mut again: VecDeque<Slot>,
    ) -> Result<Vec<Slot>, RunError> {
        while let Some(slot) = fresh.pop_front() {
            let left = self.clock.total(fresh.iter().chain(&again));
            if !self.attempt(&slot, left, true)? {
                again.push_back(slot);
            }
        }
        let mut failed = Vec::new();
        while let Some(slot) = again.pop_front() {
            let left = self.clock.total(&again);
            if !self.attempt(&slot, left, false)? {
                failed.push(slot);
            }
        }
        Ok(failed)
    }

    fn position(&self, left: Duration) -> Position {
        Position {
            done: self.done,
            total: self.total,
            left,
        }
    }

    /// One attempt at one slot; whether it has a figure now. `again` says that a failure
    /// will be retried, which the time left then has to count.
    fn attempt(
        &mut self,
        slot: &Slot,
        left_after: Duration,
        again: bool,
    ) -> Result<bool, RunError> {
        let cell = self
            .plan
            .cell(&slot.cell)
            .ok_or_else(|| StoreError::Corrupt {
                path: self.run.path().join("plan.json"),
                problem: format!(
                    "its order names cell {}, which it does not define",
                    slot.cell
                ),
            })?;
        let mut session = self.open()?;
        let number = self.tries.get(slot).copied().unwrap_or(0);
        let left = left_after + self.clock.expect(&slot.cell);
        let position = self.position(left);
        self.watch.started(position, cell, slot, number);

        let mut last_phase = Phase::Prepare;
        let started = jiff::Timestamp::now();
        let clock = std::time::Instant::now();
        let watch = &mut *self.watch;
        let result = session.measure(cell, slot.probes, self.limits.of(cell), &mut |phase| {
            last_phase = phase;
            watch.phase(phase);
        });
        let session_id = session.id().to_owned();
        let (measured, lost) = match result {
            Ok(measured) => {
                self.session = Some(session);
                (measured, None)
            }
            Err(SessionError::Interrupted(signal)) => return Err(RunError::Interrupted(signal)),
            Err(SessionError::Open(reason) | SessionError::Lost(reason)) => {
                // Drop it before anything is stored: a full disk must not keep a guest.
                drop(session);
                let measured = Measured {
                    outcome: Outcome::Failed {
                        phase: last_phase,
                        reason: reason.clone(),
                    },
                    wall_ms: u64::try_from(clock.elapsed().as_millis()).unwrap_or(u64::MAX),
                    command: String::new(),
                    raw: None,
                };
                (measured, Some(reason))
            }
        };
        let raw = measured
            .raw
            .as_ref()
            .map(|value| self.run.write_raw(slot, number, value))
            .transpose()?;
        let attempt = Attempt {
            schema: SCHEMA,
            cell: slot.cell.clone(),
            system: cell.system.clone(),
            test: cell.test.id.clone(),
            repetition: slot.repetition,
            probes: slot.probes,
            attempt: number,
            started,
            wall_ms: measured.wall_ms,
            session: session_id,
            command: measured.command,
            raw,
            outcome: measured.outcome,
        };
        self.run.append(&attempt)?;
        self.tries.insert(slot.clone(), number + 1);
        self.clock.learn(&attempt);
        let done = matches!(attempt.outcome, Outcome::Done { .. });
        self.done += usize::from(done);
        let mut left = left_after;
        if again && !done {
            left += self.clock.expect(&slot.cell);
        }
        let position = self.position(left);
        self.watch.finished(position, &attempt);
        match &attempt.outcome {
            Outcome::Failed {
                phase: Phase::Prepare | Phase::Layout,
                reason,
            } if lost.is_none() => {
                self.unprepared += 1;
                if self.unprepared >= UNPREPARED {
                    return Err(RunError::Unprepared(reason.clone()));
                }
            }
            _ => self.unprepared = 0,
        }
        let Some(last) = lost else {
            self.lost = 0;
            return Ok(done);
        };
        self.lost += 1;
        if self.lost >= self.limits.max_lost {
            return Err(RunError::TooManyLost {
                lost: self.lost,
                last,
            });
        }
        Ok(done)
    }

    /// The open session, or a new one.
    fn open(&mut self) -> Result<Box<dyn Session>, RunError> {
        if let Some(signal) = self.interrupt.signal() {
            return Err(RunError::Interrupted(signal));
        }
        if let Some(session) = self.session.take() {
            return Ok(session);
        }
        let opening = Opening {
            console: self.run.next_console(),
            time_limit: life(self.plan, &self.limits),
        };
        let watch = &mut *self.watch;
        let opened = self.opener.open(&opening, &mut |step| watch.opening(step));
        match opened {
            Ok(session) => {
                self.recognise(&*session)?;
                Ok(session)
            }
            Err(SessionError::Interrupted(signal)) => Err(RunError::Interrupted(signal)),
            Err(SessionError::Open(reason) | SessionError::Lost(reason)) => {
                Err(RunError::Open(reason))
            }
        }
    }

    /// Makes sure that the session's environment is the run's, or records the first.
    fn recognise(&self, session: &dyn Session) -> Result<(), RunError> {
        match self.run.environment()? {
            None => Ok(self.run.set_environment(session.environment())?),
            Some(first) => {
                let differences = session.environment().differences(&first);
                if differences.is_empty() {
                    Ok(())
                } else {
                    Err(RunError::Changed(differences))
                }
            }
        }
    }
}

/// The longest that a guest may live: every slot once more than the retry allows, and
/// what boot and shutdown take.
#[must_use]
pub fn life(plan: &Plan, limits: &Limits) -> Duration {
    let once: Duration = plan
        .order
        .iter()
        .filter_map(|slot| plan.cell(&slot.cell))
        .map(|cell| limits.of(cell))
        .sum();
    // Added slots: as if each cell had as many as it may have at most.
    let most = plan.adaptive.as_ref().map_or(0, |a| a.max_repetitions);
    let added: Duration = plan
        .cells
        .iter()
        .map(|cell| limits.of(cell) * most.saturating_sub(plan.repetitions))
        .sum();
    (once + added) * 2 + Duration::from_secs(300)
}

/// Where the console of a boot goes that comes before the run's folder exists.
#[must_use]
pub fn early_console(runs: &std::path::Path, run: &str) -> PathBuf {
    runs.join(format!(".{run}-console.log"))
}

#[cfg(test)]
mod tests;
