//! Where a run took place; never mixed in a report.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Where the systems under test run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// The running kernel.
    Host,
    /// A QEMU guest with the distribution's cloud kernel.
    Vm,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "host",
            Self::Vm => "vm",
        })
    }
}

/// What executes the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// No guest: the host's own processor.
    Native,
    /// Hardware virtualisation.
    Kvm,
    /// QEMU's emulation. Ratios inside one run count, absolute figures do not.
    Tcg,
}

impl Accelerator {
    /// Whether figures are to be marked "emulated".
    #[must_use]
    pub const fn emulated(self) -> bool {
        matches!(self, Self::Tcg)
    }
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        })
    }
}

/// What the time of the guest is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Clock {
    /// Time as it passes outside.
    #[default]
    Real,
    /// Executed instructions, each of which takes 2^shift nanoseconds (QEMU's `-icount`);
    /// idle time is skipped. One processor. What happens at the same time, such as
    /// contention and polling, cannot be seen in it.
    Icount {
        /// Binary logarithm of an instruction's nanoseconds.
        shift: u8,
    },
}

impl Clock {
    /// For leaving the field out of the JSON where it is the default.
    #[must_use]
    pub fn is_real(&self) -> bool {
        *self == Self::Real
    }
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Real => f.write_str("real"),
            Self::Icount { shift } => write!(f, "icount shift={shift}"),
        }
    }
}

/// Everything about the machine that a reader needs to judge a figure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// Host or VM.
    pub place: Place,
    /// What executes it.
    pub accelerator: Accelerator,
    /// What the guest's time is; real in environments stored before there was a choice.
    #[serde(default, skip_serializing_if = "Clock::is_real")]
    pub clock: Clock,
    /// `uname -r` where the systems run.
    pub kernel: String,
    /// Processor model as `/proc/cpuinfo` names it there.
    pub cpu: String,
    /// Processors online there.
    pub cpus: u32,
    /// Memory there, bytes.
    pub memory_bytes: u64,
    /// Kernel command line there.
    pub cmdline: String,
    /// Frequency governor, `none` where there is no cpufreq.
    pub governor: String,
    /// `/sys/devices/system/cpu/vulnerabilities/*`.
    pub mitigations: BTreeMap<String, String>,
    /// Kernel configuration bits that matter (`CONFIG_FUSE_FS`, `CONFIG_PREEMPT*` ...).
    pub config: BTreeMap<String, String>,
    /// Versions of fio, qemu, clang, mkfs.ext4, rustc and of the host kernel.
    pub versions: BTreeMap<String, String>,
    /// Content hashes of what was measured: `efuse.ko`, `stackfs`.
    pub artifacts: BTreeMap<String, String>,
    /// Revision of this repository, with `-dirty` where the tree was changed.
    pub revision: String,
}

impl Environment {
    /// What differs from `other` in a way that makes figures incomparable, as
    /// `field: ours, theirs` lines. The memory size may vary by 1 %.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut out = Vec::new();
        let mut field = |name: &str, a: &str, b: &str| {
            if a != b {
                out.push(format!("{name}: {a:?}, was {b:?}"));
            }
        };
        field("place", &self.place.to_string(), &other.place.to_string());
        field(
            "accelerator",
            &self.accelerator.to_string(),
            &other.accelerator.to_string(),
        );
        field("clock", &self.clock.to_string(), &other.clock.to_string());
        field("kernel", &self.kernel, &other.kernel);
        field("cpu", &self.cpu, &other.cpu);
        field("cpus", &self.cpus.to_string(), &other.cpus.to_string());
        field("governor", &self.governor, &other.governor);
        field("revision", &self.revision, &other.revision);
        let maps = [
            ("config", &self.config, &other.config),
            ("mitigation", &self.mitigations, &other.mitigations),
            ("version", &self.versions, &other.versions),
            ("artifact", &self.artifacts, &other.artifacts),
        ];
        for (what, ours, theirs) in maps {
            let keys: std::collections::BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
            for key in keys {
                let get = |m: &BTreeMap<String, String>| {
                    m.get(key).cloned().unwrap_or_else(|| "absent".to_owned())
                };
                field(&format!("{what} {key}"), &get(ours), &get(theirs));
            }
        }
        if self.memory_bytes.abs_diff(other.memory_bytes) > other.memory_bytes / 100 {
            out.push(format!(
                "memory: {} bytes, was {} bytes",
                self.memory_bytes, other.memory_bytes
            ));
        }
        out
    }
}
