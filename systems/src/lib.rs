//! The file systems under test.
//!
//! A [`System`] says what it needs ([`Need`]), mounts itself over a *lower* directory
//! and hands back a [`Mounted`], which knows whether its daemon is alive and how to
//! make mount and daemon go away in bounded time. The built-in ones are in
//! [`builtin`], one file each; a user's own FUSE daemon comes from a TOML file
//! ([`plugin`]); the [`Registry`] holds them all.
//!
//! What must be the same on every arm is in [`settings`] and nowhere else.

pub mod bins;
pub mod builtin;
pub mod controls;
pub mod plugin;
pub mod settings;

mod bounded;
mod connection;
mod daemon;
mod error;
mod guardian;
mod init_probe;
mod mounted;
mod mountinfo;
mod need;
mod parameter;
mod recipe;
mod registry;

use std::path::PathBuf;

use efuse_model::metadata::KernelCache;

pub use bins::BinDirs;
pub use error::SystemError;
pub use mounted::Mounted;
pub use need::{KernelFeature, Need};
pub use registry::Registry;

/// Where a system is to be mounted and where it finds its programs.
#[derive(Clone, Debug)]
pub struct MountContext {
    /// The directory of the lower file system that is passed through.
    pub lower: PathBuf,
    /// An existing, empty directory that is not a mount point.
    pub mountpoint: PathBuf,
    /// File to which the daemon's output is appended.
    pub log: PathBuf,
    /// Where the daemons are.
    pub bin: BinDirs,
    /// How much longer the daemon's handlers are to take on purpose, percent: 0 but for
    /// tests of the measurement. Only StackFS can.
    pub slow_percent: u16,
    /// What the kernel may keep of names and attributes, where the test does not leave
    /// that to the shared settings.
    pub kernel_cache: Option<KernelCache>,
}

/// A file system under test.
pub trait System: Send + Sync {
    /// Short name on the command line and in results.
    fn id(&self) -> &str;

    /// One line for charts and tables.
    fn title(&self) -> &str;

    /// Hash of everything that defines the system (commands, options, shared
    /// settings), so that figures of an edited definition are not taken for the old
    /// one's. The programs' own versions are part of the environment instead.
    fn digest(&self) -> String;

    /// What has to be there before it can be mounted, in the order of checking.
    fn needs(&self) -> Vec<Need>;

    /// Mounts it and returns when it answers.
    ///
    /// # Errors
    /// If a daemon does not start, dies, or is not ready in time; nothing is left
    /// mounted or running then.
    fn mount(&self, ctx: &MountContext) -> Result<Mounted, SystemError>;
}

/// 16 hexadecimal digits over the parts that define a system.
fn digest_of<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        // The length keeps ["ab", "c"] and ["a", "bc"] apart.
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().to_hex()[..16].to_owned()
}
