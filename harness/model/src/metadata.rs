//! Tests of metadata: what fio has no job for.

use serde::{Deserialize, Serialize};

use crate::histogram::Histogram;

/// What one operation of a metadata job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MetadataKind {
    /// stat(2) of a random file; its size is checked.
    Stat,
    /// stat(2) of a random one of as many names that do not exist; checked for ENOENT.
    Missing,
    /// One entry of a walk over the whole tree, readdir and lstat; every walk has to
    /// meet every entry.
    Find,
    /// A file is created, found, unlinked, and not found.
    CreateUnlink,
    /// A file is renamed, found under its new name and not under its old.
    Rename,
    /// getxattr(2) of a random file; the value is checked.
    Xattr,
    /// A random file is opened and closed.
    OpenClose,
    /// One file of a small tree that is written, walked, read back and removed, as by
    /// unpacking and compiling.
    Unpack,
}

impl MetadataKind {
    /// Every kind, in the order of messages.
    pub const ALL: [Self; 8] = [
        Self::Stat,
        Self::Missing,
        Self::Find,
        Self::CreateUnlink,
        Self::Rename,
        Self::Xattr,
        Self::OpenClose,
        Self::Unpack,
    ];

    /// The name in workloads and on command lines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stat => "stat",
            Self::Missing => "missing",
            Self::Find => "find",
            Self::CreateUnlink => "create-unlink",
            Self::Rename => "rename",
            Self::Xattr => "xattr",
            Self::OpenClose => "open-close",
            Self::Unpack => "unpack",
        }
    }

    /// The kind with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.name() == name)
    }

    /// Whether the kind changes the tree that was laid out.
    #[must_use]
    pub const fn writes(self) -> bool {
        matches!(self, Self::CreateUnlink | Self::Rename | Self::Unpack)
    }
}

/// How long the kernel may answer from its own dentry and inode caches: the timeouts that
/// a daemon gives for entries and attributes. EXT4, whose caches need none, ignores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KernelCache {
    /// Timeouts of 0: each operation asks again.
    None,
    /// One second, the default of libfuse.
    OneSecond,
    /// For ever.
    Unlimited,
}

impl KernelCache {
    /// Every setting, in the order of messages.
    pub const ALL: [Self; 3] = [Self::None, Self::OneSecond, Self::Unlimited];

    /// The name in workloads.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::OneSecond => "1s",
            Self::Unlimited => "unlimited",
        }
    }

    /// Entry and attribute timeout, seconds; unlimited is more than a run ever lasts.
    #[must_use]
    pub const fn seconds(self) -> u64 {
        match self {
            Self::None => 0,
            Self::OneSecond => 1,
            Self::Unlimited => 100_000_000,
        }
    }
}

/// A metadata job with absolute sizes and times.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetadataJob {
    /// What is done.
    pub kind: MetadataKind,
    /// Folders of the tree.
    pub dirs: u32,
    /// Files in each folder.
    pub files: u32,
    /// Threads that do it at the same time.
    pub threads: u32,
    /// Length of the measured phase, milliseconds.
    pub runtime_ms: u64,
    /// Unmeasured lead-in, milliseconds.
    pub ramp_ms: u64,
    /// Whether every name that is asked for is asked for once before the lead-in, so that
    /// caches of all kinds are as full as they get. Kinds that write ask for new names.
    #[serde(default)]
    pub warm: bool,
    /// What the kernel may keep by itself.
    pub kernel_cache: KernelCache,
}

/// What `metaload` prints: one JSON object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MetadataReport {
    /// Operations in the measured phase, every one of them checked.
    pub ops: u64,
    /// Length of the measured phase, seconds.
    pub seconds: f64,
    /// Time of an operation, nanoseconds; as log-linear buckets.
    pub latency: Histogram,
    /// Square root of the mean squared distance from the mean, nanoseconds.
    pub stddev_ns: f64,
    /// Operations of the lead-in, checked as well.
    pub ramp_ops: u64,
}
