//! What a guest is to be.

use std::path::{Path, PathBuf};
use std::time::Duration;

use efuse_kernel::Artifacts;

/// Which accelerator to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AccelRequest {
    /// KVM if a probe boot works under it, else TCG.
    #[default]
    Auto,
    /// KVM; it is an error if that does not work.
    Kvm,
    /// QEMU's multi-threaded emulation.
    Tcg,
}

/// The largest shift that QEMU takes.
pub const MAX_ICOUNT_SHIFT: u8 = 10;

/// Everything that [`crate::Guest::start`] needs to know.
#[derive(Debug, Clone)]
pub struct GuestSpec {
    /// The kernel, its modules and `efuse.ko`.
    pub artifacts: Artifacts,
    /// The program that is the agent inside. It becomes `/bin/eval` and is started as
    /// `eval agent --port /dev/virtio-ports/efuse.agent`.
    pub init_binary: PathBuf,
    /// More files: `(path on the host, absolute path in the guest)`. The libraries that
    /// programs among them need come along. A folder comes with all that is in it.
    pub files: Vec<(PathBuf, PathBuf)>,
    /// Virtual processors.
    pub vcpus: u32,
    /// Memory of the guest, MiB. The initramfs, about 100 MiB, lives in it.
    pub memory_mib: u32,
    /// What executes it.
    pub accel: AccelRequest,
    /// Makes the guest's time count instructions: each takes 2^shift nanoseconds (QEMU's
    /// `-icount shift=N,sleep=off`). Needs [`AccelRequest::Tcg`] and one processor; QEMU then
    /// runs in one thread, the random numbers start from a fixed seed and no addresses are
    /// randomised, so that two boots do the same as far as nothing outside disturbs them.
    pub icount_shift: Option<u8>,
    /// More for the kernel's command line.
    pub kernel_arguments: Option<&'static str>,
    /// Capacity in bytes of a virtio-blk disk (serial number [`crate::DISK_SERIAL`]) on a sparse
    /// file, if one is wanted.
    pub virtio_disk_bytes: Option<u64>,
    /// Where the guest's console goes. An existing file is overwritten.
    pub console_log: PathBuf,
    /// Folder for what is kept from boot to boot (base of the initramfs, unpacked kernel, result
    /// of the probe boot) and for the disk's file, which has no name and vanishes with the guest.
    pub work_dir: PathBuf,
    /// The guest is ended after this long, whatever it does.
    pub time_limit: Duration,
}

impl GuestSpec {
    /// A guest with two processors, 2 GiB, whichever accelerator works, no disk, one hour.
    #[must_use]
    pub fn new(
        artifacts: Artifacts,
        init_binary: impl Into<PathBuf>,
        console_log: impl Into<PathBuf>,
        work_dir: impl Into<PathBuf>,
    ) -> Self {
        Self {
            artifacts,
            init_binary: init_binary.into(),
            files: Vec::new(),
            vcpus: 2,
            memory_mib: 2048,
            accel: AccelRequest::Auto,
            icount_shift: None,
            kernel_arguments: None,
            virtio_disk_bytes: None,
            console_log: console_log.into(),
            work_dir: work_dir.into(),
            time_limit: Duration::from_secs(3600),
        }
    }

    /// Adds a program under `/bin`, by its own name.
    #[must_use]
    pub fn program(mut self, host: impl AsRef<Path>) -> Self {
        let host = host.as_ref();
        let name = host.file_name().unwrap_or(host.as_os_str());
        self.files
            .push((host.to_owned(), Path::new("/bin").join(name)));
        self
    }

    /// Adds a file or folder at an absolute path of the guest.
    #[must_use]
    pub fn file(mut self, host: impl Into<PathBuf>, in_guest: impl Into<PathBuf>) -> Self {
        self.files.push((host.into(), in_guest.into()));
        self
    }

    /// Sets the number of virtual processors.
    #[must_use]
    pub const fn vcpus(mut self, vcpus: u32) -> Self {
        self.vcpus = vcpus;
        self
    }

    /// Sets the memory, MiB.
    #[must_use]
    pub const fn memory_mib(mut self, mib: u32) -> Self {
        self.memory_mib = mib;
        self
    }

    /// Sets the accelerator.
    #[must_use]
    pub const fn accel(mut self, accel: AccelRequest) -> Self {
        self.accel = accel;
        self
    }

    /// Makes the guest's time count instructions, on one emulated processor.
    #[must_use]
    pub const fn icount(mut self, shift: u8) -> Self {
        self.accel = AccelRequest::Tcg;
        self.vcpus = 1;
        self.icount_shift = Some(shift);
        self
    }

    /// Adds a virtio-blk disk of so many bytes.
    #[must_use]
    pub const fn virtio_disk(mut self, bytes: u64) -> Self {
        self.virtio_disk_bytes = Some(bytes);
        self
    }

    /// Sets the time limit.
    #[must_use]
    pub const fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = limit;
        self
    }
}
