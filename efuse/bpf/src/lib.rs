//! Programs that answer FUSE requests inside the kernel, and their loader.
//!
//! A *policy* is a set of BPF programs of the type `efuse_ops` with their maps. It is loaded and
//! attached to one connection, either by the daemon or from outside to a mount of any daemon, and
//! is there until its link goes. See `docs/programming.md`.

mod adaptive;
mod attached;
mod data;
mod dev;
mod error;
pub mod hostile;
mod policy;
mod tables;

pub use adaptive::{Adaptive, adaptive_tunable};
pub use attached::{Attached, Counts, Map, Program, attached, attached_to, opcode_name};
pub use data::{ChannelCounts, KernelCounts, data_counts, kernel_counts, ring_counts};
pub use dev::{Dev, mounts};
pub use error::BpfError;
pub use policy::{Attachment, POLICIES, Policy, Tunables};
