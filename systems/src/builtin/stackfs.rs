//! The systems that run the project's own daemon, `StackFS`, a stackable pass-through: one
//! program, so that they differ in nothing but the mechanism.

use crate::recipe::Recipe;
use crate::{KernelFeature, MountContext, Mounted, Need, System, SystemError, digest_of, need};

/// Name of the program.
pub(crate) const PROGRAM: &str = "stackfs";

/// Why another system has no variant with slower handlers.
pub(crate) const NOT_SLOWED: &str =
    "it has no daemon of ours whose handlers could be slowed (@slowN needs StackFS)";

/// A system that runs `StackFS`.
#[derive(Clone, Copy, Debug)]
pub struct StackFs {
    id: &'static str,
    title: &'static str,
    device: &'static str,
    fs_type: &'static str,
    /// Options beside those that all share.
    options: &'static [&'static str],
    /// What the kernel must offer beside the device.
    features: &'static [KernelFeature],
}

/// The baseline: the kernel's own FUSE.
pub const FUSE: StackFs = StackFs {
    id: "fuse",
    title: "StackFS on stock FUSE",
    device: "/dev/fuse",
    fs_type: "fuse",
    options: &[],
    features: &[],
};

/// What a user of today would pick. Reads and writes go to a backing file inside the mainline
/// kernel; names and attributes still go to the daemon.
pub const FUSE_PASSTHROUGH: StackFs = StackFs {
    id: "fuse-passthrough",
    title: "StackFS on stock FUSE with passthrough",
    device: "/dev/fuse",
    fs_type: "fuse",
    options: &["--passthrough"],
    features: &[KernelFeature::FusePassthrough],
};

/// What else a user of today would pick: requests travel over io_uring, in a queue for each CPU.
pub const FUSE_URING: StackFs = StackFs {
    id: "fuse-uring",
    title: "StackFS on stock FUSE over io_uring",
    device: "/dev/fuse",
    fs_type: "fuse",
    options: &["--transport", "uring"],
    features: &[KernelFeature::FuseOverIoUring],
};

/// The efuse module with no program attached. It must behave and perform like stock FUSE; a
/// difference here would be in every other efuse figure too.
pub const EFUSE_BARE: StackFs = StackFs {
    id: "efuse-bare",
    title: "StackFS on eFUSE without a program",
    device: "/dev/efuse",
    fs_type: "efuse",
    options: &[],
    features: &[],
};

/// What ExtFUSE answered in the kernel. `StackFS` is the only one who changes the lower
/// directory, and says so.
pub const EXTFUSE: StackFs = StackFs {
    id: "extfuse",
    title: "StackFS on eFUSE with the programs of ExtFUSE",
    device: "/dev/efuse",
    fs_type: "efuse",
    options: &["--policy", "extfuse", "--until-invalidated"],
    features: &[KernelFeature::EfuseBpf],
};

/// Module 2 alone: all metadata that programs can answer.
pub const EFUSE_META: StackFs = StackFs {
    id: "efuse-meta",
    title: "StackFS on eFUSE, metadata answered in the kernel",
    device: "/dev/efuse",
    fs_type: "efuse",
    options: &["--policy", "metadata", "--until-invalidated"],
    features: &[KernelFeature::EfuseBpf],
};

/// The same, and files and directories are opened and closed without a request.
pub const EFUSE_META_NOOPEN: StackFs = StackFs {
    id: "efuse-meta-noopen",
    title: "StackFS on eFUSE, metadata answered in the kernel, opening without the daemon",
    device: "/dev/efuse",
    fs_type: "efuse",
    options: &["--policy", "metadata", "--until-invalidated", "--no-open"],
    features: &[KernelFeature::EfuseBpf],
};

/// Modules 2 and 3 with data always from and to the backing file.
pub const EFUSE_PASSTHROUGH: StackFs = StackFs {
    id: "efuse-passthrough",
    title: "StackFS on eFUSE, metadata answered in the kernel, data by passthrough",
    device: "/dev/efuse",
    fs_type: "efuse",
    options: &[
        "--passthrough",
        "--policy",
        "passthrough",
        "--until-invalidated",
    ],
    features: &[KernelFeature::EfuseBpf],
};

/// Memory of each system that caches data; working sets in `workloads/data.toml` are made for it.
const CACHE_MIB: &str = "32";

/// Modules 2 and 3 with data from the cache wherever that can be, filled from the daemon's replies;
/// there are no backing files.
pub const EFUSE_CACHE: StackFs = StackFs {
    id: "efuse-cache",
    title: "StackFS on eFUSE, metadata answered in the kernel, data cached there",
    device: "/dev/efuse",
    fs_type: "efuse",
    options: &[
        "--policy",
        "cache",
        "--until-invalidated",
        "--cache-size",
        CACHE_MIB,
    ],
    features: &[KernelFeature::EfuseBpf],
};

/// The same with backing files: what is not in the cache is read from them, and writes keep it.
pub const EFUSE_CACHE_BACKED: StackFs = StackFs {
    id: "efuse-cache-backed",
    title: "StackFS on eFUSE, metadata answered in the kernel, data always through the cache",
    device: "/dev/efuse",
    fs_type: "efuse",
    options: &[
        "--passthrough",
        "--policy",
        "cache",
        "--until-invalidated",
        "--cache-size",
        CACHE_MIB,
    ],
    features: &[KernelFeature::EfuseBpf],
};

/// Modules 1 to 3, the document's preliminary stage: the path of data is chosen by measuring both.
pub const EFUSE_PRELIM: StackFs = StackFs {
    id: "efuse-prelim",
    title: "StackFS on eFUSE, metadata and data answered in the kernel, path chosen by file",
    device: "/dev/efuse",
    fs_type: "efuse",
    options: &[
        "--passthrough",
        "--policy",
        "prelim",
        "--until-invalidated",
        "--cache-size",
        CACHE_MIB,
    ],
    features: &[KernelFeature::EfuseBpf],
};

/// What goes with [`KernelFeature::EfuseRing`]: requests come by rings, to as many threads as on every
/// other system.
const RINGS: &[&str] = &["--transport", "ring", "--max-workers", "{threads}"];

/// Module 4 alone: the daemon answers everything, and requests come by rings, as in RFUSE.
pub const RFUSE: StackFs = StackFs {
    id: "rfuse",
    title: "StackFS on eFUSE, requests in rings shared with the daemon",
    device: "/dev/efuse",
    fs_type: "efuse",
    options: &[],
    features: &[KernelFeature::EfuseRing],
};

/// `rfuse` without balancing between channels: what balancing is worth.
pub const RFUSE_UNBALANCED: StackFs = StackFs {
    id: "rfuse-unbalanced",
    title: "StackFS on eFUSE, requests in rings, each in the channel of its caller's processor",
    device: "/dev/efuse",
    fs_type: "efuse",
    options: &["--ring-unbalanced"],
    features: &[KernelFeature::EfuseRing],
};

/// `efuse-prelim` with rings for what still reaches the daemon.
pub const EFUSE: StackFs = StackFs {
    id: "efuse",
    title: "StackFS on eFUSE, all of it: answered in the kernel, the rest by rings",
    device: "/dev/efuse",
    fs_type: "efuse",
    options: &[
        "--passthrough",
        "--policy",
        "prelim",
        "--until-invalidated",
        "--cache-size",
        CACHE_MIB,
    ],
    features: &[KernelFeature::EfuseBpf, KernelFeature::EfuseRing],
};

impl StackFs {
    /// The same with these options instead of its own, not counting what comes with its features.
    #[must_use]
    pub const fn with_options(self, options: &'static [&'static str]) -> Self {
        Self { options, ..self }
    }

    fn recipe(&self) -> Recipe {
        let rings = self.features.contains(&KernelFeature::EfuseRing);
        let more = [if rings { RINGS } else { &[] }, self.options].concat();
        recipe(self.device, self.fs_type, &more)
    }
}

impl System for StackFs {
    fn id(&self) -> &str {
        self.id
    }

    fn title(&self) -> &str {
        self.title
    }

    fn digest(&self) -> String {
        digest_of([self.id, &self.recipe().fingerprint()])
    }

    fn needs(&self) -> Vec<Need> {
        let mut needs = vec![
            Need::Root,
            Need::device(self.device),
            Need::own_program(PROGRAM),
        ];
        needs.extend(self.features.iter().copied().map(Need::Kernel));
        needs
    }

    fn mount(&self, ctx: &MountContext) -> Result<Mounted, SystemError> {
        let _raised = need::settings_for(&self.needs())?;
        self.recipe().mount(self.id, ctx)
    }
}

/// `StackFS` on `device`, mounted as `fs_type`, with further options.
fn recipe(device: &str, fs_type: &str, more: &[&str]) -> Recipe {
    let mut args = vec![
        "{lower}",
        "{mountpoint}",
        "--device",
        device,
        "--fstype",
        fs_type,
        "--workers",
        "{threads}",
        "--entry-timeout",
        "{timeout}",
        "--attr-timeout",
        "{timeout}",
        "--allow-other",
        "--default-permissions",
    ];
    args.extend(more);
    Recipe {
        // Printed once INIT has been answered.
        ready_line: Some("ready".to_owned()),
        ..Recipe::new(PROGRAM, &args, fs_type)
    }
}
