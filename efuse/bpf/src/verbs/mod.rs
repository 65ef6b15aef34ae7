//! One file a verb.

pub(crate) mod attach;
pub(crate) mod detach;
pub(crate) mod mount;
pub(crate) mod selftest;
pub(crate) mod show;

use std::path::PathBuf;

use efuse_bpf::Dev;

/// Where the link of a connection is pinned, so that it outlives this program.
fn pin_path(dev: Dev) -> PathBuf {
    PathBuf::from("/sys/fs/bpf/efuse").join(dev.to_string())
}
