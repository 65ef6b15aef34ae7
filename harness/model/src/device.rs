//! The block device below every system under test.

use serde::{Deserialize, Serialize};

/// What kind of block device carries the lower file system.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Device {
    /// RAM-backed `null_blk` that completes each request after `latency_ns` by a timer.
    NvmeModel {
        /// Capacity, bytes.
        size_bytes: u64,
        /// Completion latency of every request, nanoseconds.
        latency_ns: u64,
    },
    /// The kernel's RAM disk: no latency of its own.
    Brd {
        /// Capacity, bytes.
        size_bytes: u64,
    },
    /// A virtio-blk disk on a sparse file of the host (VM only).
    Virtio {
        /// Capacity, bytes.
        size_bytes: u64,
    },
    /// A loop device on a file that the harness makes and removes (host only).
    Loop {
        /// Capacity, bytes.
        size_bytes: u64,
    },
    /// A real disk or partition. **Its content is destroyed**; only with the user's
    /// explicit consent on the command line.
    Disk {
        /// Path of the block device.
        path: String,
    },
}

impl Device {
    /// The name used on the command line and in results.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::NvmeModel { .. } => "nvme-model",
            Self::Brd { .. } => "brd",
            Self::Virtio { .. } => "virtio",
            Self::Loop { .. } => "loop",
            Self::Disk { .. } => "disk",
        }
    }

    /// Capacity in bytes where the harness chooses it.
    #[must_use]
    pub const fn size_bytes(&self) -> Option<u64> {
        match self {
            Self::NvmeModel { size_bytes, .. }
            | Self::Brd { size_bytes }
            | Self::Virtio { size_bytes }
            | Self::Loop { size_bytes } => Some(*size_bytes),
            Self::Disk { .. } => None,
        }
    }
}
