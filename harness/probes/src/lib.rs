//! What is counted beside fio while it measures.
//!
//! [`Window`] has the counters that cost nothing measurable: perf's software event of
//! context switches, and `/proc`. It is opened and closed while fio's jobs stand at a
//! barrier, so it covers what fio itself counts and nothing of fio's start and end.
//! [`kernel::Probes`] are BPF programs inside the kernel: FUSE requests, system calls, the
//! queue's lock. They cost time, so they run in repetitions of their own.

mod btf;
mod cpus;
mod error;
pub mod kernel;
pub mod perf;
pub mod proc;
mod window;

pub use error::{ProbeError, Result};
pub use window::{Prepared, Subjects, Window};
