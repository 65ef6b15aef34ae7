//! From what was measured to a model of any number of cores.

use crate::engine::{Design, Load, Model, Work};
use crate::times::Times;

/// What a run says of one system in one test: means, nanoseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// Processors of the machine.
    pub cores: u32,
    /// Requests that callers keep under way.
    pub callers: u32,
    /// Threads that do the callers' work.
    pub threads: u32,
    /// Threads of the daemon.
    pub workers: u32,
    /// What processors do for a request, the daemon's part left out.
    pub caller_ns: f64,
    /// What processors do for a request in the daemon.
    pub worker_ns: f64,
    /// What a request takes in the daemon beside that: its time at the disk.
    pub service: Times,
    /// How long the lock is held for one request's way in or out.
    pub lock_ns: f64,
}

impl Measured {
    /// The same load for each core, and the same workers, on `cores`. Times of processors and of the
    /// lock have no memory: their distribution is not measured.
    #[must_use]
    pub fn on(&self, cores: u32, design: Design) -> Model {
        let scaled = |n: u32| {
            let n = f64::from(n) * f64::from(cores) / f64::from(self.cores);
            n.round() as u32
        };
        Model {
            cores,
            design,
            // A core without a worker would never answer.
            workers: scaled(self.workers).max(cores),
            load: Load::Closed {
                callers: scaled(self.callers).max(1),
                threads: scaled(self.threads).max(1),
                think: Times::Fixed(0.0),
            },
            service: self.service.clone(),
            work: Some(Work {
                // What is done under the lock is in what was measured.
                caller: Times::Exponential((self.caller_ns - self.lock_ns).max(0.0)),
                worker: Times::Exponential((self.worker_ns - self.lock_ns).max(0.0)),
            }),
            lock: Times::Exponential(self.lock_ns),
        }
    }
}
