//! A QEMU guest with the distribution's kernel, a file system in memory made of the host's own
//! programs, and a line to the agent inside.
//!
//! [`Guest::start`] packs the initramfs, picks an accelerator and boots. Messages of
//! [`efuse_model::protocol`] go both ways over a virtio-serial port; the console goes to a log
//! and is watched: a panic, an oops, a warning or a hung task of the guest's kernel ends every
//! later call with its trace. A guest never outlives its [`Guest`], nor the process that has it,
//! however that ends, and leaves no file but the console's log and the caches in the work folder.
//!
//! The guest's processes are not in the terminal's foreground group: Ctrl-C reaches the program
//! that owns the [`Guest`] only, which then ends it in order ([`Guest::shutdown`]) or at once
//! ([`Canceller`], drop).

mod accel;
mod console;
mod error;
mod guest;
mod image;
mod inbox;
mod kernel_image;
mod libraries;
mod modules;
mod qemu;
mod spec;
mod stubs;
mod tool;
mod tree;
mod watcher;

pub use accel::{KvmProbe, probe_kvm};
pub use error::GuestError;
pub use guest::{Canceller, Guest};
pub use qemu::qemu_version;
pub use spec::{AccelRequest, GuestSpec, MAX_ICOUNT_SHIFT};

/// Name of the virtio-serial port; the guest's `/dev/virtio-ports/` has it.
pub const PORT: &str = "efuse.agent";

/// Serial number of the virtio-blk disk: `/sys/block/vd*/serial` in the guest.
pub const DISK_SERIAL: &str = "efuse-disk";
