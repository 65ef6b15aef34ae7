//! From the command line's place to an opener of sessions.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use efuse_model::device::Device;
use efuse_model::environment::Place;
use serde::{Deserialize, Serialize};

use crate::catalogue::{self, Catalogue};
use crate::cli::{AccelName, KernelName, PlaceOptions};
use crate::outside;
use crate::session::Opener;
use crate::session::host::{HostOpener, HostOptions};
use crate::session::vm::{VmOpener, VmOptions};
use crate::verbs::Context;

/// Memory of the guest beside what its device takes: system, initramfs, page cache.
const BASE_MEMORY_MIB: u64 = 1024;

/// How the guest was sized, kept with the run (`guest.json`) so that `resume` boots the
/// same one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestShape {
    /// Processors.
    pub vcpus: u32,
    /// Memory, MiB.
    pub memory_mib: u32,
    /// `auto`, `kvm`, `tcg`.
    pub accel: String,
    /// Time counts instructions, with this shift.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icount_shift: Option<u8>,
    /// Which kernel it boots.
    #[serde(default, skip_serializing_if = "KernelName::is_default")]
    pub kernel: KernelName,
}

/// Processors of a guest where nothing else is said.
const VCPUS: u32 = 2;

impl GuestShape {
    /// From the command line and the device.
    ///
    /// # Errors
    /// If the deterministic mode or the debug kernel is asked for with what it cannot have.
    pub fn new(options: &PlaceOptions, device: &Device) -> Result<Self> {
        let guest = &options.guest;
        if !guest.kernel.is_default() && Place::from(options.place) != Place::Vm {
            bail!("the debug kernel runs in a guest only: leave --place at vm");
        }
        if guest.deterministic.is_some() {
            let refuse = |what: &str| -> Result<Self> {
                bail!("--deterministic counts the instructions of one emulated processor; {what}")
            };
            if Place::from(options.place) != Place::Vm {
                return refuse("leave --place at vm");
            }
            if guest.accel == AccelName::Kvm {
                return refuse("leave out --accel kvm");
            }
            if guest.vcpus.is_some_and(|n| n != 1) {
                return refuse("leave out --vcpus, or set it to 1");
            }
            if matches!(device, Device::Virtio { .. }) {
                return refuse(
                    "time stands still for it while a virtio disk works outside: choose nvme-model or brd",
                );
            }
        }
        let in_ram = match device {
            Device::NvmeModel { size_bytes, .. } | Device::Brd { size_bytes } => {
                size_bytes.div_ceil(1 << 20)
            }
            _ => 0,
        };
        let plain = in_ram + BASE_MEMORY_MIB;
        let derived = match guest.kernel {
            KernelName::Distribution => plain,
            // KASAN keeps a byte for every eight, and freed objects for a while.
            KernelName::Debug | KernelName::DebugObjects => plain + plain / 2,
        };
        let derived = u32::try_from(derived).unwrap_or(u32::MAX);
        Ok(Self {
            vcpus: match (guest.vcpus, guest.deterministic) {
                (Some(n), _) => n,
                (None, Some(_)) => 1,
                (None, None) => VCPUS,
            },
            memory_mib: guest.memory.unwrap_or(derived),
            accel: match guest.accel {
                AccelName::Auto if guest.deterministic.is_some() => "tcg",
                AccelName::Auto => "auto",
                AccelName::Kvm => "kvm",
                AccelName::Tcg => "tcg",
            }
            .to_owned(),
            icount_shift: guest.deterministic,
            kernel: guest.kernel,
        })
    }

    fn accel(&self) -> Result<efuse_guest::AccelRequest> {
        use clap::ValueEnum as _;
        AccelName::from_str(&self.accel, false)
            .map(Into::into)
            .map_err(|e| anyhow::anyhow!("accelerator {:?}: {e}", self.accel))
    }

    fn file(run: &Path) -> PathBuf {
        run.join("guest.json")
    }

    /// Keeps it in the run's folder.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn store(&self, run: &Path) -> Result<()> {
        let path = Self::file(run);
        std::fs::write(&path, serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Reads it back.
    ///
    /// # Errors
    /// If it is not there or damaged.
    pub fn read(run: &Path) -> Result<Self> {
        let path = Self::file(run);
        let bytes =
            std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&bytes)
            .with_context(|| format!("{}: not a guest's shape", path.display()))
    }
}

/// An opener for a place, after everything that can be checked from here was checked, and
/// the third-party controls were built.
///
/// # Errors
/// If a tool, a right or memory is missing.
pub fn opener(
    context: &Context,
    catalogue: &Catalogue,
    place: Place,
    shape: &GuestShape,
    device: &Device,
    systems: &[String],
    extra_programs: &[&str],
) -> Result<Box<dyn Opener>> {
    outside::preflight(place)?;
    build_controls(context)?;
    Ok(match place {
        Place::Host => Box::new(HostOpener::new(
            HostOptions {
                root: context.root.clone(),
                bins: catalogue::host_bins(&context.root),
                own: catalogue.own.clone(),
            },
            context.interrupt.clone(),
        )),
        Place::Vm => {
            outside::check_memory(shape.memory_mib)?;
            Box::new(VmOpener::new(
                VmOptions {
                    root: context.root.clone(),
                    files: guest_files(catalogue, systems, extra_programs),
                    vcpus: shape.vcpus,
                    memory_mib: shape.memory_mib,
                    accel: shape.accel()?,
                    icount_shift: shape.icount_shift,
                    kernel: shape.kernel,
                    disk_bytes: match device {
                        Device::Virtio { size_bytes } => Some(*size_bytes),
                        _ => None,
                    },
                },
                context.interrupt.clone(),
            ))
        }
    })
}

/// The systems' programs, fio, metaload, mkfs.ext4, whatever more is asked for and is here, and
/// the user's own descriptions. Programs asked for by path keep it.
fn guest_files(
    catalogue: &Catalogue,
    systems: &[String],
    extra_programs: &[&str],
) -> Vec<(PathBuf, PathBuf)> {
    let bins = catalogue.registry.bins();
    let mut programs = catalogue
        .registry
        .programs(systems.iter().map(String::as_str));
    for name in ["fio", "mkfs.ext4", "metaload"]
        .iter()
        .chain(extra_programs)
    {
        let found = bins
            .find(name)
            .or_else(|| Some(Path::new("/usr/sbin").join(name)).filter(|p| p.exists()));
        programs.extend(found);
    }
    programs.sort();
    programs.dedup();
    let mut files: Vec<_> = programs
        .into_iter()
        .filter_map(|host| {
            let kept = extra_programs.iter().any(|name| Path::new(name) == host);
            let there = if kept {
                host.clone()
            } else {
                Path::new("/bin").join(host.file_name()?)
            };
            Some((host, there))
        })
        .collect();
    if let Some(own) = &catalogue.own {
        files.push((own.clone(), PathBuf::from(catalogue::GUEST_SYSTEMS)));
    }
    files
}

/// Builds the third-party controls that the systems need, once.
///
/// # Errors
/// If they cannot be stored; one that does not build only leaves its system skipped.
pub fn build_controls(context: &Context) -> Result<()> {
    for control in efuse_systems::controls::build_controls(&context.root)? {
        if let Err(problem) = control.outcome {
            eprintln!("eval: {}: {problem}", control.name);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{GuestOptions, PlaceName};

    fn shape(device: &Device, memory: Option<u32>) -> GuestShape {
        let options = PlaceOptions {
            place: PlaceName::Vm,
            guest: GuestOptions {
                accel: AccelName::Tcg,
                kernel: KernelName::Distribution,
                vcpus: None,
                memory,
                deterministic: None,
            },
        };
        GuestShape::new(&options, device).unwrap()
    }

    #[test]
    fn memory_follows_a_device_in_ram() {
        let brd = Device::Brd {
            size_bytes: 2 << 30,
        };
        let virtio = Device::Virtio {
            size_bytes: 2 << 30,
        };
        assert_eq!(shape(&brd, None).memory_mib, 3072);
        assert_eq!(shape(&virtio, None).memory_mib, 1024);
        assert_eq!(shape(&brd, Some(4096)).memory_mib, 4096);
    }

    #[test]
    fn instructions_are_counted_on_one_emulated_processor_and_a_device_in_ram() {
        let brd = Device::Brd {
            size_bytes: 1 << 30,
        };
        let new = |device: &Device, change: fn(&mut PlaceOptions)| {
            let mut options = PlaceOptions {
                place: PlaceName::Vm,
                guest: GuestOptions {
                    accel: AccelName::Auto,
                    kernel: KernelName::Distribution,
                    vcpus: None,
                    memory: None,
                    deterministic: Some(2),
                },
            };
            change(&mut options);
            GuestShape::new(&options, device)
        };
        let shape = new(&brd, |_| {}).unwrap();
        assert_eq!((shape.vcpus, shape.accel.as_str()), (1, "tcg"));
        assert_eq!(shape.icount_shift, Some(2));
        let why = |device: &Device, change: fn(&mut PlaceOptions)| {
            new(device, change).unwrap_err().to_string()
        };
        assert!(why(&brd, |o| o.guest.vcpus = Some(2)).contains("--vcpus"));
        assert!(why(&brd, |o| o.guest.accel = AccelName::Kvm).contains("--accel kvm"));
        assert!(why(&brd, |o| o.place = PlaceName::Host).contains("--place"));
        let virtio = Device::Virtio {
            size_bytes: 1 << 30,
        };
        assert!(why(&virtio, |_| {}).contains("nvme-model or brd"));
    }

    #[test]
    fn a_shape_is_kept_with_the_run() {
        let dir = tempfile::tempdir().unwrap();
        let mut shape = shape(
            &Device::Brd {
                size_bytes: 1 << 30,
            },
            None,
        );
        for kernel in [
            KernelName::Distribution,
            KernelName::Debug,
            KernelName::DebugObjects,
        ] {
            shape.kernel = kernel;
            shape.store(dir.path()).unwrap();
            assert_eq!(GuestShape::read(dir.path()).unwrap(), shape);
        }
    }

    #[test]
    fn the_debug_kernel_gets_more_memory_and_runs_in_a_guest_only() {
        let brd = Device::Brd {
            size_bytes: 1 << 30,
        };
        let mut options = PlaceOptions {
            place: PlaceName::Vm,
            guest: GuestOptions {
                accel: AccelName::Tcg,
                kernel: KernelName::Debug,
                vcpus: None,
                memory: None,
                deterministic: None,
            },
        };
        assert_eq!(GuestShape::new(&options, &brd).unwrap().memory_mib, 3072);
        options.place = PlaceName::Host;
        let why = GuestShape::new(&options, &brd).unwrap_err().to_string();
        assert!(why.contains("--place"), "{why}");
    }
}
