//! A session on the running kernel: the agent in a thread of this process.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use efuse_agent::{Agent, AgentOptions, Cancel, checks};
use efuse_model::attempt::Phase;
use efuse_model::cell::Cell;
use efuse_model::counters::Probes;
use efuse_model::environment::{Accelerator, Clock, Environment, Place};
use efuse_systems::BinDirs;

use super::{Checked, Measured, Opener, Opening, Session, SessionError};
use crate::interrupt::Interrupt;
use crate::leftovers;
use crate::outside::Outside;

/// How often a wait looks for Ctrl-C.
const POLL: Duration = Duration::from_millis(100);
/// The agent keeps its own limit; this much later it is taken for stuck.
const GRACE: Duration = Duration::from_secs(60);
/// How long a cancelled agent may take to kill and unmount.
const CANCEL_LIMIT: Duration = Duration::from_secs(30);

/// What a host session needs to know.
#[derive(Clone, Debug)]
pub struct HostOptions {
    /// The project.
    pub root: PathBuf,
    /// Where programs are.
    pub bins: BinDirs,
    /// The folder of the user's own systems.
    pub own: Option<PathBuf>,
}

/// Opens host sessions.
#[derive(Debug)]
pub struct HostOpener {
    options: HostOptions,
    outside: Outside,
    interrupt: Interrupt,
    opened: u32,
}

impl HostOpener {
    /// Nothing is started yet.
    #[must_use]
    pub fn new(options: HostOptions, interrupt: Interrupt) -> Self {
        Self {
            outside: Outside::look(&options.root, Place::Host),
            options,
            interrupt,
            opened: 0,
        }
    }
}

enum Job {
    Probe(Vec<String>),
    Measure(Box<Cell>, Probes, Duration),
    Check(String, String, u32, Duration),
}

enum News {
    Availability(Vec<(String, Option<String>)>),
    Phase(Phase),
    Measured(Box<Measured>),
    Checked(Checked),
}

impl Opener for HostOpener {
    fn open(
        &mut self,
        _opening: &Opening,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Box<dyn Session>, SessionError> {
        progress("preparing the session on this kernel");
        self.opened += 1;
        let cancel = Cancel::default();
        let options = AgentOptions {
            state: leftovers::state_folder(&self.options.root),
            backing: None,
            place: Place::Host,
            accelerator: Accelerator::Native,
            bin: self.options.bins.clone(),
            systems: self.options.own.clone(),
            cancel: cancel.clone(),
        };
        let agent = Agent::new(options).map_err(|e| SessionError::Open(e.to_string()))?;
        let mut environment = agent.environment();
        self.outside
            .complete(&mut environment, Accelerator::Native, Clock::Real);
        let (jobs, inbox) = channel::<Job>();
        let (outbox, news) = channel::<News>();
        // One thread for the whole session: the daemons ask to die with it.
        let thread = std::thread::Builder::new()
            .name("agent".to_owned())
            .spawn(move || work(&agent, &inbox, &outbox))
            .map_err(|e| SessionError::Open(format!("cannot start the agent's thread: {e}")))?;
        Ok(Box::new(Host {
            id: format!(
                "host-{}-{}",
                jiff::Timestamp::now().as_second(),
                self.opened
            ),
            environment,
            jobs: Some(jobs),
            news,
            thread: Some(thread),
            cancel,
            interrupt: self.interrupt.clone(),
            stuck: false,
        }))
    }
}

/// Does jobs until there are no more; a send that fails means nobody waits any more.
fn work(agent: &Agent, inbox: &Receiver<Job>, outbox: &Sender<News>) {
    for job in inbox {
        let news = match job {
            Job::Probe(systems) => News::Availability(agent.probe(&systems)),
            Job::Measure(cell, probes, limit) => {
                let result = agent.run_cell(&cell, probes, limit, &mut |phase| {
                    let _ = outbox.send(News::Phase(phase));
                });
                News::Measured(Box::new(Measured {
                    outcome: result.outcome,
                    wall_ms: result.wall_ms,
                    command: result.command,
                    raw: result.raw,
                }))
            }
            Job::Check(check, system, effort, limit) => {
                let result = checks::run(agent, &check, &system, effort, limit);
                News::Checked(Checked {
                    failure: result.failure,
                    detail: result.detail,
                    skipped: result.skipped,
                })
            }
        };
        if outbox.send(news).is_err() {
            return;
        }
    }
}

struct Host {
    id: String,
    environment: Environment,
    jobs: Option<Sender<Job>>,
    news: Receiver<News>,
    thread: Option<JoinHandle<()>>,
    cancel: Cancel,
    interrupt: Interrupt,
    /// The agent did not come back: it cannot be waited for.
    stuck: bool,
}

impl Host {
    fn ask(&self, job: Job) -> Result<(), SessionError> {
        self.jobs
            .as_ref()
            .and_then(|jobs| jobs.send(job).ok())
            .ok_or_else(|| SessionError::Lost("the agent's thread has ended".to_owned()))
    }

    fn next(&mut self, deadline: Instant) -> Result<News, SessionError> {
        loop {
            if let Some(signal) = self.interrupt.signal() {
                self.cancel();
                return Err(SessionError::Interrupted(signal));
            }
            match self.news.recv_timeout(POLL) {
                Ok(news) => return Ok(news),
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {}
                Err(RecvTimeoutError::Timeout) => {
                    self.cancel();
                    return Err(SessionError::Lost(
                        "the agent did not come back within its time limit; it was cancelled"
                            .to_owned(),
                    ));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(SessionError::Lost(
                        "the agent's thread panicked; its message is above".to_owned(),
                    ));
                }
            }
        }
    }

    /// Makes the agent kill and unmount, and waits for that for a while.
    fn cancel(&mut self) {
        self.cancel.cancel();
        let deadline = Instant::now() + CANCEL_LIMIT;
        loop {
            match self.news.recv_timeout(POLL) {
                Ok(News::Phase(_)) => {}
                Ok(_) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {}
                Err(RecvTimeoutError::Timeout) => {
                    self.stuck = true;
                    return;
                }
            }
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && !self.stuck
        {
            // A panic in it has been reported by `next`.
            let _ = thread.join();
        }
    }
}

impl Session for Host {
    fn id(&self) -> &str {
        &self.id
    }

    fn environment(&self) -> &Environment {
        &self.environment
    }

    fn probe(&mut self, systems: &[String]) -> Result<Vec<(String, Option<String>)>, SessionError> {
        self.ask(Job::Probe(systems.to_vec()))?;
        match self.next(Instant::now() + GRACE)? {
            News::Availability(list) => Ok(list),
            _ => Err(out_of_turn()),
        }
    }

    fn measure(
        &mut self,
        cell: &Cell,
        probes: Probes,
        limit: Duration,
        phase: &mut dyn FnMut(Phase),
    ) -> Result<Measured, SessionError> {
        self.ask(Job::Measure(Box::new(cell.clone()), probes, limit))?;
        let deadline = Instant::now() + limit + GRACE;
        loop {
            match self.next(deadline)? {
                News::Phase(p) => phase(p),
                News::Measured(measured) => {
                    // fio gets the terminal's Ctrl-C as well: what it then reports is
                    // no failure of the system.
                    return match self.interrupt.signal() {
                        Some(signal) => Err(SessionError::Interrupted(signal)),
                        None => Ok(*measured),
                    };
                }
                _ => return Err(out_of_turn()),
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
        self.ask(Job::Check(
            check.to_owned(),
            system.to_owned(),
            effort,
            limit,
        ))?;
        match self.next(Instant::now() + limit + GRACE)? {
            News::Checked(checked) => Ok(checked),
            _ => Err(out_of_turn()),
        }
    }

    fn shutdown(self: Box<Self>) -> Result<(), SessionError> {
        Ok(())
    }
}

fn out_of_turn() -> SessionError {
    SessionError::Lost("the agent answered out of turn".to_owned())
}
