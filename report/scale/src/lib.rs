//! What requests would wait on more cores than this machine has: a discrete-event model, and
//! never a measurement.
//!
//! A caller takes a queue's lock and puts its request into the queue; a worker takes the lock
//! and the oldest request out of it, works on it, and the caller has its reply. With
//! [`Design::OneQueue`] all cores share one queue and its lock, as in FUSE; with
//! [`Design::PerCore`] each core has its own, and its requests are worked on by its own
//! workers, as in rings without balancing.
//!
//! Each core has one processor, which callers and workers need for their part of a request.
//!
//! What goes in is measured ([`Measured`]): what a request costs processors, its time at the disk, what
//! the lock costs, callers, workers. Requests per second and times of waiting come out, so that they
//! can be compared with what was measured. What the model leaves out favours the one queue: a lock
//! and a cache line cost more the more cores want them, and waking a sleeper on another core costs
//! more than on the same. Work grows with the cores: callers and workers per core stay the same.
//!
//! Closed forms that the model must agree with are in its tests: M/M/1, M/M/c, M/G/1, the
//! machine repairman, and Little's law.

mod engine;
mod measured;
mod times;

pub use engine::{Design, Load, Model, Outcome, Work, simulate};
pub use measured::Measured;
pub use times::Times;
