//! What the agent sees of its machine.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use efuse_model::environment::{Accelerator, Clock, Environment, Place};
use efuse_systems::BinDirs;

use crate::limit::{Cancel, Limit};
use crate::process;
use crate::sys;

/// Configuration bits that change what is measured.
const CONFIG_BITS: &[&str] = &[
    "CONFIG_BPF_JIT",
    "CONFIG_DEBUG_INFO_BTF",
    "CONFIG_EXT4_FS",
    "CONFIG_FUSE_FS",
    "CONFIG_FUSE_IO_URING",
    "CONFIG_FUSE_PASSTHROUGH",
    "CONFIG_HZ",
    "CONFIG_KASAN",
    "CONFIG_LOCKDEP",
    "CONFIG_PREEMPT",
    "CONFIG_PREEMPT_DYNAMIC",
    "CONFIG_PREEMPT_NONE",
    "CONFIG_PREEMPT_RT",
    "CONFIG_PREEMPT_VOLUNTARY",
    "CONFIG_SLUB_DEBUG_ON",
    "CONFIG_TRANSPARENT_HUGEPAGE",
];

/// Where the module lies in the guest.
const GUEST_MODULE: &str = "/lib/efuse.ko";

/// Looks at the machine. What only the outside knows (revision, QEMU, compiler, the
/// guest's clock) is left empty.
#[must_use]
pub fn capture(place: Place, accelerator: Accelerator, bin: &BinDirs) -> Environment {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let kernel = sys::read("/proc/sys/kernel/osrelease").unwrap_or_default();
    Environment {
        place,
        accelerator,
        clock: Clock::Real,
        cpu: field(&cpuinfo, "model name").unwrap_or_else(|| "unknown".into()),
        cpus: sys::cpus(),
        memory_bytes: memory(),
        cmdline: sys::read("/proc/cmdline").unwrap_or_default(),
        governor: sys::read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
            .unwrap_or_else(|| "none".into()),
        mitigations: mitigations(),
        config: config(&kernel),
        versions: versions(bin),
        artifacts: artifacts(bin),
        revision: String::new(),
        kernel,
    }
}

fn field(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

fn memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    field(&text, "MemTotal")
        .and_then(|v| v.strip_suffix(" kB")?.trim().parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024)
}

fn mitigations() -> BTreeMap<String, String> {
    let Ok(entries) = fs::read_dir("/sys/devices/system/cpu/vulnerabilities") else {
        return BTreeMap::new();
    };
    entries
        .flatten()
        .filter_map(|e| {
            let name = e.file_name().into_string().ok()?;
            Some((name, sys::read(e.path())?))
        })
        .collect()
}

/// From the first of the places where distributions put it; empty if there is none.
fn config(release: &str) -> BTreeMap<String, String> {
    let gz = || {
        let mut text = String::new();
        flate2::read::GzDecoder::new(File::open("/proc/config.gz").ok()?)
            .read_to_string(&mut text)
            .ok()?;
        Some(text)
    };
    let plain = [
        format!("/lib/modules/{release}/config"),
        format!("/boot/config-{release}"),
    ];
    let text = gz().or_else(|| plain.iter().find_map(|p| fs::read_to_string(p).ok()));
    text.map(|t| config_bits(&t)).unwrap_or_default()
}

fn config_bits(text: &str) -> BTreeMap<String, String> {
    let set: BTreeMap<_, _> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .collect();
    CONFIG_BITS
        .iter()
        .map(|bit| {
            (
                (*bit).to_owned(),
                (*set.get(bit).unwrap_or(&"n")).to_owned(),
            )
        })
        .collect()
}

fn versions(bin: &BinDirs) -> BTreeMap<String, String> {
    let limit = Limit::new(Duration::from_secs(30), Cancel::default());
    let first_line = |name: &str, flag: &str| {
        let path = find(bin, name)?;
        let done = process::run(Command::new(path).arg(flag), &limit).ok()?;
        // mkfs prints its version as an error message.
        let text = if done.stdout.trim().is_empty() {
            done.stderr
        } else {
            done.stdout
        };
        Some(text.lines().next()?.trim().to_owned())
    };
    [("fio", "--version"), ("mkfs.ext4", "-V")]
        .into_iter()
        .map(|(name, flag)| {
            let version = first_line(name, flag).unwrap_or_else(|| "not installed".into());
            (name.to_owned(), version)
        })
        .collect()
}

fn artifacts(bin: &BinDirs) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let stackfs = bin.find("stackfs");
    for (name, path) in [
        ("efuse.ko", Some(PathBuf::from(GUEST_MODULE))),
        ("stackfs", stackfs),
    ] {
        if let Some(hash) = path.and_then(|p| hash_file(&p)) {
            out.insert(name.to_owned(), hash);
        }
    }
    out
}

fn hash_file(path: &Path) -> Option<String> {
    let mut hasher = blake3::Hasher::new();
    std::io::copy(&mut File::open(path).ok()?, &mut hasher).ok()?;
    Some(hasher.finalize().to_hex()[..16].to_owned())
}

/// A program in the given folders, else in the usual ones.
#[must_use]
pub fn find(bin: &BinDirs, name: &str) -> Option<PathBuf> {
    let usual = [
        "/usr/local/sbin",
        "/usr/local/bin",
        "/usr/sbin",
        "/usr/bin",
        "/sbin",
        "/bin",
    ];
    bin.find(name)
        .or_else(|| BinDirs::new(usual.map(PathBuf::from)).find(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unset_bits_are_n_and_others_are_not_taken() {
        let bits =
            config_bits("CONFIG_FUSE_FS=y\n# CONFIG_KASAN is not set\nCONFIG_X=m\nCONFIG_HZ=250\n");
        assert_eq!(bits["CONFIG_FUSE_FS"], "y");
        assert_eq!(bits["CONFIG_KASAN"], "n");
        assert_eq!(bits["CONFIG_HZ"], "250");
        assert!(!bits.contains_key("CONFIG_X"));
    }

    #[test]
    fn this_machine_is_described() {
        let env = capture(Place::Host, Accelerator::Native, &BinDirs::new([]));
        assert!(env.cpus >= 1 && env.memory_bytes > 1 << 20);
        assert_eq!(
            env.kernel,
            fs::read_to_string("/proc/sys/kernel/osrelease")
                .unwrap()
                .trim()
        );
        assert!(env.versions.contains_key("fio") && env.versions.contains_key("mkfs.ext4"));
    }
}
