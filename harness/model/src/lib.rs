//! The vocabulary that plan, run, agent, store and report share.
//!
//! A *test* is one fio job ([`test::Test`]); a *cell* is one test on one system on one
//! device in one environment ([`cell::Cell`]), named by a hash of its content; an
//! *attempt* is one measured repetition of a cell ([`attempt::Attempt`]). A *run* is a
//! folder with a plan, an append-only list of attempts and the raw fio output
//! ([`store::RunDir`]). The outside (`eval`) and the inside (`eval agent`) talk in the
//! JSON lines of [`protocol`].

/// Threads that serve requests in the daemon of every FUSE system (docs/decisions.md 5).
pub const DAEMON_WORKERS: u32 = 10;

pub mod attempt;
pub mod cell;
pub mod counters;
pub mod device;
pub mod document;
pub mod environment;
pub mod histogram;
pub mod metadata;
pub mod plan;
pub mod protocol;
pub mod store;
pub mod test;
