//! From nothing to a loadable `efuse.ko` and a kernel to boot it on.
//!
//! [`ensure`] is the one call other crates need. It looks up, by apt, the newest 6.12 kernel of
//! which the distribution offers source, headers, build tools and image in the same version
//! ([`apt`]), downloads and unpacks what is needed of them ([`fetch`]), composes the module's
//! source from the distribution's `fs/fuse`, the patch series in `kernel/patches/` and our own
//! files in `kernel/efuse/` ([`series`]), and builds it out of tree ([`module`]). Everything is
//! cached under `<root>/target/kernel/`; a second call works offline and builds only what changed.
//!
//! The same composed source goes into any 6.12 tree ([`tree`]) or onto the running kernel
//! ([`host`]). [`debug`] builds a whole kernel with it that checks itself. [`edit`] turns the
//! patches into commits and back.

pub mod apt;
pub mod cache;
pub mod command;
pub mod debug;
pub mod diff;
pub mod edit;
pub mod error;
pub mod fetch;
pub mod host;
pub mod module;
pub mod root;
pub mod series;
pub mod tree;

use std::path::{Path, PathBuf};

use serde::Serialize;

use cache::Lock;
pub use error::KernelError;

/// The kernel series that the patches are written against.
pub const SERIES: &str = "6.12";

/// A kernel to boot and the module built for it.
#[derive(Debug, Clone, Serialize)]
pub struct Artifacts {
    /// What `uname -r` says on that kernel, such as `6.12.117+deb12-cloud-amd64`.
    pub release: String,
    /// The kernel image: compressed, or an ELF file with a PVH entry.
    pub vmlinuz: PathBuf,
    /// `.../lib/modules/<release>`, with the dependency lists that `modprobe` needs.
    pub modules_dir: PathBuf,
    /// The kernel's configuration.
    pub config: PathBuf,
    /// `efuse.ko`, without debug information, with BTF.
    pub module: PathBuf,
    /// Hash over everything that went into the module: the distribution's `fs/fuse`, the patch
    /// series, our files and the kernel's release.
    pub module_hash: String,
}

/// Makes sure that the kernel is there and the module is built and up to date.
///
/// `root` is the project's root folder; `progress` receives one line for each step that takes
/// time, and none when there is nothing to do.
///
/// # Errors
/// When the packages can be neither found nor downloaded, a patch does not apply, a build tool is
/// missing, or the compiler refuses the source.
pub fn ensure(root: &Path, progress: &mut dyn FnMut(&str)) -> Result<Artifacts, KernelError> {
    let layout = cache::Layout::new(root)?;
    let _lock = cache::lock(&layout, Lock::Module, progress)?;
    let packages = fetch::ensure(&layout, progress)?;
    module::ensure(&layout, &packages, progress)
}

/// Makes sure that the debug kernel ([`debug`]) is there and up to date. The first time that takes
/// tens of minutes, after a change of the module's source less than one.
///
/// # Errors
/// As [`ensure`]; also when `kernel/debug.config` cannot be brought into effect.
pub fn ensure_debug(root: &Path, progress: &mut dyn FnMut(&str)) -> Result<Artifacts, KernelError> {
    let layout = cache::Layout::new(root)?;
    let packages = {
        let _lock = cache::lock(&layout, Lock::Module, progress)?;
        fetch::ensure(&layout, progress)?
    };
    let _lock = cache::lock(&layout, Lock::Debug, progress)?;
    debug::ensure(&layout, &packages, progress)
}

/// Looks for a newer kernel than the one in use, and makes it the one in use.
///
/// # Errors
/// As [`ensure`]; the kernel in use stays the same when the newer one cannot be had.
pub fn update(root: &Path, progress: &mut dyn FnMut(&str)) -> Result<Artifacts, KernelError> {
    let layout = cache::Layout::new(root)?;
    let _lock = cache::lock(&layout, Lock::Module, progress)?;
    let packages = fetch::update(&layout, progress)?;
    module::ensure(&layout, &packages, progress)
}
