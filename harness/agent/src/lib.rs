//! The inside of an evaluation: it runs where the file systems run, in the guest
//! (`eval agent`) or in `eval`'s own process on the host.
//!
//! [`Agent::run_cell`] takes a [`Cell`](efuse_model::cell::Cell) through the phases of
//! [`Phase`](efuse_model::attempt::Phase): a fresh block device ([`device`]) and ext4 on
//! it ([`lowerfs`]), files with crc32c headers laid out below ([`layout`]), the system under test
//! mounted over them, verified reads, the measured fio job ([`fio`]), verified writes,
//! and a comparison of every file with the lower directory ([`compare`]). A cell that
//! fails any of the checks has no figure. [`Agent::serve`] does this at the request of
//! the outside; [`checks`] are the integration checks.

pub mod agent;
pub mod cell;
pub mod checks;
pub mod compare;
pub mod device;
pub mod environment;
pub mod error;
pub mod fio;
pub mod layout;
pub mod limit;
pub mod lockdep;
pub mod lowerfs;
mod measure;
mod metadata;
pub mod process;
pub mod serve;
mod served;
pub mod slabs;
pub mod sys;

pub use agent::{Agent, AgentOptions, sweep};
pub use cell::CellResult;
pub use error::AgentError;
pub use limit::Cancel;
pub use serve::open_port;
