//! `eval`, the outside of the evaluation: it plans a run, opens a session (the running
//! kernel or a QEMU guest), has the agent inside measure cell after cell, and stores
//! every attempt as soon as it is there.
//!
//! | module | what |
//! |---|---|
//! | [`cli`], [`verbs`] | the command line; one verb a file |
//! | [`catalogue`] | systems and workloads by name |
//! | [`planning`], [`schedule`] | from a request to a [`efuse_model::plan::Plan`] and its order |
//! | [`places`], [`session`] | where cells run: one trait, a host and a guest behind it |
//! | [`mod@execute`] | the loop that measures, stores, retries, boots again |
//! | [`measuring`] | what `run` and `resume` do around it |
//! | [`summary`], [`metric`] | tables and ratios of what is stored |
//! | [`adaptive`] | which cells are measured again |
//! | [`stored`], [`judge`] | runs and baselines by name, and whether one is slower |
//! | [`reporter`] | pages, which the program `report` draws |

pub mod adaptive;
pub mod catalogue;
pub mod cli;
pub mod estimate;
pub mod execute;
pub mod interrupt;
pub mod judge;
pub mod leftovers;
pub mod measuring;
pub mod metric;
pub mod outside;
pub mod places;
pub mod planning;
pub mod progress;
pub mod reporter;
pub mod runs;
pub mod schedule;
pub mod session;
pub mod stored;
pub mod suggest;
pub mod summary;
pub mod table;
#[cfg(test)]
mod testing;
pub mod units;
pub mod verbs;
