//! `eval`, the outside of the evaluation: it plans a run, opens a session (the running
//! kernel or a QEMU guest), has the agent inside measure cell after cell, and stores
//! every attempt as soon as it is there.
//!
//! | module | what |
//! |---|---|
//! | [`planning`] | from a request to a [`efuse_model::plan::Plan`] |
//! | [`schedule`] | the order |
//! | [`session`] | where cells run: one trait, a host and a VM behind it |
//! | [`mod@execute`] | the loop that measures, stores, retries, boots again |
//! | [`summary`] | tables and ratios of what is stored |

pub mod estimate;
pub mod execute;
pub mod interrupt;
pub mod metric;
pub mod planning;
pub mod runs;
pub mod schedule;
pub mod scratch;
pub mod session;
pub mod stats;
pub mod suggest;
pub mod summary;
pub mod table;
#[cfg(test)]
mod testing;
pub mod units;
