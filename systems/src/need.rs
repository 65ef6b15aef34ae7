//! What has to be there before a system can be mounted.

use std::fmt;
use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use efuse_model::environment::Place;

use crate::bins::BinDirs;
use crate::parameter::{ENABLE_URING, Raised};
use crate::{SystemError, init_probe};

/// An optional ability of the kernel's own FUSE, or of our module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelFeature {
    /// Reads and writes go to a backing file without the daemon.
    FusePassthrough,
    /// Requests travel in io_uring.
    FuseOverIoUring,
    /// Programs can be attached to an eFUSE mount.
    EfuseBpf,
    /// Requests of an eFUSE mount travel in memory shared with the daemon.
    EfuseRing,
}

impl KernelFeature {
    /// Every feature.
    pub const ALL: [Self; 4] = [
        Self::FusePassthrough,
        Self::FuseOverIoUring,
        Self::EfuseBpf,
        Self::EfuseRing,
    ];

    /// The name in files: `fuse-passthrough`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FusePassthrough => "fuse-passthrough",
            Self::FuseOverIoUring => "fuse-over-io-uring",
            Self::EfuseBpf => "efuse-bpf",
            Self::EfuseRing => "efuse-ring",
        }
    }

    const fn shown(self) -> Shown {
        match self {
            Self::FusePassthrough => Shown::InInit(1 << 37),
            Self::FuseOverIoUring => Shown::InInit(1 << 41),
            Self::EfuseBpf => Shown::InSysfs("bpf"),
            Self::EfuseRing => Shown::InSysfs("ring"),
        }
    }

    const fn requirement(self) -> &'static str {
        match self {
            Self::FusePassthrough => "Linux 6.9 or later with CONFIG_FUSE_PASSTHROUGH",
            Self::FuseOverIoUring => {
                "Linux 6.14 or later with CONFIG_FUSE_IO_URING, and Y in \
                 /sys/module/fuse/parameters/enable_uring (as root it is set to Y while the \
                 system is being mounted)"
            }
            Self::EfuseBpf | Self::EfuseRing => {
                "an efuse module of this version; build it with `just kernel build`"
            }
        }
    }
}

/// What a mount with these needs wants set while it is being made; dropping it sets it back.
///
/// # Errors
/// If it is not set and cannot be.
pub(crate) fn settings_for(needs: &[Need]) -> Result<Option<Raised>, SystemError> {
    if !needs.contains(&Need::Kernel(KernelFeature::FuseOverIoUring)) {
        return Ok(None);
    }
    let path = Path::new(ENABLE_URING);
    Raised::new(path)
        .map(Some)
        .map_err(SystemError::io(path, "set it to Y"))
}

/// Where a feature is to be seen.
enum Shown {
    /// Its bit among the flags of INIT.
    InInit(u64),
    /// Our own module's word for it.
    InSysfs(&'static str),
}

/// One condition and how to meet it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// The privilege to mount.
    Root,
    /// Only the host, or only the VM.
    Place(Place),
    /// A character device that can be opened.
    CharDevice {
        /// Its path.
        path: PathBuf,
        /// What makes it appear.
        remedy: String,
    },
    /// A program in the folders of programs.
    Program {
        /// Its name, or its path if it has a slash.
        name: String,
        /// What makes it appear.
        remedy: String,
    },
    /// A program that accepts `/dev/fd/N`, a device mounted already, as mount point.
    TakesDescriptor {
        /// Its name, or its path if it has a slash.
        program: String,
    },
    /// An ability of the running kernel's FUSE.
    Kernel(KernelFeature),
}

impl Need {
    /// The stock FUSE device.
    #[must_use]
    pub fn dev_fuse() -> Self {
        Self::device("/dev/fuse")
    }

    /// A FUSE device, with the remedy that fits it.
    #[must_use]
    pub fn device(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let remedy = match path.to_str() {
            Some("/dev/fuse") => "load the kernel's own module with `modprobe fuse`",
            Some("/dev/efuse") => {
                "load the efuse module with `just kernel host`, or measure in the VM, \
                 which loads it itself"
            }
            _ => "load the driver that provides it",
        };
        Self::CharDevice {
            path,
            remedy: remedy.to_owned(),
        }
    }

    /// A program of this project.
    #[must_use]
    pub fn own_program(name: &str) -> Self {
        Self::Program {
            name: name.to_owned(),
            remedy: format!("build it with `just build`, which puts it at target/release/{name}"),
        }
    }

    /// A program of somebody else.
    #[must_use]
    pub fn program(name: &str) -> Self {
        Self::Program {
            name: name.to_owned(),
            remedy: "install the package that has it, or give its full path".to_owned(),
        }
    }

    /// Checks the condition on this machine, which is `place`.
    ///
    /// # Errors
    /// Why it is not met and what to do, as one sentence.
    pub fn check(&self, place: Place, bin: &BinDirs) -> Result<(), String> {
        match self {
            Self::Root if nix::unistd::geteuid().is_root() => Ok(()),
            Self::Root => Err("mounting needs root; run it as root or with sudo".to_owned()),
            Self::Place(wanted) if *wanted == place => Ok(()),
            Self::Place(wanted) => Err(format!(
                "it is defined for the {wanted} only; run with `--place {wanted}`"
            )),
            Self::CharDevice { path, remedy } => device(path, remedy),
            Self::Program { name, remedy } => match bin.find(name) {
                Some(_) => Ok(()),
                None => Err(bin.note(name).map_or_else(
                    || format!("the program {name} is not here; {remedy}"),
                    |note| format!("the program {name} could not be built: {note}"),
                )),
            },
            Self::TakesDescriptor { program } => takes_descriptor(program, bin),
            Self::Kernel(feature) => kernel(*feature),
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("root"),
            Self::Place(place) => write!(f, "{place} only"),
            Self::CharDevice { path, .. } => write!(f, "{}", path.display()),
            Self::Program { name, .. } => f.write_str(name),
            Self::TakesDescriptor { program } => {
                write!(f, "{program} built with libfuse 3 or equal to it")
            }
            Self::Kernel(feature) => write!(f, "kernel with {}", feature.name()),
        }
    }
}

fn device(path: &Path, remedy: &str) -> Result<(), String> {
    let shown = path.display();
    match fs::metadata(path) {
        Ok(m) if m.file_type().is_char_device() => Ok(()),
        Ok(_) => Err(format!("{shown} is no character device; {remedy}")),
        Err(e) => Err(format!("there is no {shown} ({e}); {remedy}")),
    }?;
    // A node can exist without its driver.
    fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map(drop)
        .map_err(|e| format!("{shown} cannot be opened ({e}); {remedy}"))
}

/// libfuse 2 resolves `/dev/fd/N` to the device node and mounts itself over that: for
/// as long as it runs nobody on the machine can open the device.
fn takes_descriptor(program: &str, bin: &BinDirs) -> Result<(), String> {
    const OLD: &[u8] = b"libfuse.so.2\0";
    let Some(path) = bin.find(program) else {
        // Another need says so.
        return Ok(());
    };
    let image = fs::read(&path)
        .map_err(|e| format!("the program {} cannot be read: {e}", path.display()))?;
    if image.windows(OLD.len()).any(|w| w == OLD) {
        return Err(format!(
            "{} uses libfuse 2, which cannot be handed a mounted device; use a build with \
             libfuse 3",
            path.display()
        ));
    }
    Ok(())
}

fn kernel(feature: KernelFeature) -> Result<(), String> {
    // Where it cannot be set, the kernel's offer tells.
    let _raised = settings_for(&[Need::Kernel(feature)]);
    let offered = match feature.shown() {
        Shown::InInit(flag) => init_probe::offered(Path::new("/dev/fuse"), "fuse")? & flag != 0,
        Shown::InSysfs(word) => fs::read_to_string("/sys/fs/efuse/features")
            .is_ok_and(|features| features.split_whitespace().any(|name| name == word)),
    };
    if offered {
        return Ok(());
    }
    let release = nix::sys::utsname::uname()
        .map(|u| u.release().to_string_lossy().into_owned())
        .unwrap_or_else(|_| "of unknown release".to_owned());
    Err(format!(
        "the running kernel {release} does not offer {}; it needs {}",
        feature.name(),
        feature.requirement()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none() -> BinDirs {
        BinDirs::new([])
    }

    #[test]
    fn reasons_say_what_to_do() {
        let reason = |need: Need| need.check(Place::Host, &none()).unwrap_err();
        assert_eq!(
            reason(Need::own_program("stackfs")),
            "the program stackfs is not here; build it with `just build`, which puts it at target/release/stackfs"
        );
        assert_eq!(
            reason(Need::Place(Place::Vm)),
            "it is defined for the vm only; run with `--place vm`"
        );
        assert_eq!(
            reason(Need::device("/dev/no-such-device")),
            "there is no /dev/no-such-device (No such file or directory (os error 2)); load the driver that provides it"
        );
        assert_eq!(
            reason(Need::device("/proc/self/mountinfo")),
            "/proc/self/mountinfo is no character device; load the driver that provides it"
        );
        assert_eq!(Need::Place(Place::Host).check(Place::Host, &none()), Ok(()));
        assert_eq!(
            Need::device("/dev/null").check(Place::Host, &none()),
            Ok(())
        );
    }

    #[test]
    fn a_program_of_libfuse_2_is_not_handed_a_device() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let bins = BinDirs::new([dir.path().to_owned()]);
        let need = |program: &str, links: &str| {
            let path = dir.path().join(program);
            fs::write(&path, format!("\x7fELF ..\0{links}\0libc.so.6\0")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            let need = Need::TakesDescriptor {
                program: program.to_owned(),
            };
            need.check(Place::Host, &bins)
        };
        assert_eq!(need("new", "libfuse3.so.3"), Ok(()));
        let reason = need("old", "libfuse.so.2").unwrap_err();
        assert!(reason.contains("uses libfuse 2"), "{reason}");
    }

    #[test]
    fn a_failed_build_is_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("x.missing"), "cc: not found").unwrap();
        let bins = BinDirs::new([dir.path().to_owned()]);
        assert_eq!(
            Need::program("x").check(Place::Vm, &bins),
            Err("the program x could not be built: cc: not found".into())
        );
    }
}
