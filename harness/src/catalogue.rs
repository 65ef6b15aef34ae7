//! Systems and workloads by name, and which systems can run where.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use efuse_model::cell::{self, Variant};
use efuse_model::environment::Place;
use efuse_model::plan::PlannedSystem;
use efuse_systems::{BinDirs, Need, Registry, System};
use efuse_workloads::Workload;

use crate::suggest;

/// Where a guest finds the user's descriptions of systems.
pub const GUEST_SYSTEMS: &str = "/etc/efuse/systems";

/// The systems under test and where their programs are.
#[derive(Debug)]
pub struct Catalogue {
    /// The systems.
    pub registry: Registry,
    /// The folder of the user's own descriptions, if there is one.
    pub own: Option<PathBuf>,
}

/// Folders of programs on the host: those built here, the tools, then `PATH`.
#[must_use]
pub fn host_bins(root: &Path) -> BinDirs {
    BinDirs::discover()
        .with_first(root.join("target/tools/bin"))
        .with_first(root.join("target/tools"))
        .with_first(root.join("target/release"))
}

impl Catalogue {
    /// Reads the built-in systems and the user's.
    ///
    /// # Errors
    /// If a description is wrong (file and line), or the folder named does not exist.
    pub fn load(root: &Path, own: Option<&Path>) -> Result<Self> {
        let own = match own {
            Some(dir) if !dir.is_dir() => bail!("{} is not a folder", dir.display()),
            Some(dir) => Some(dir.to_owned()),
            None => Some(root.join("systems/local")).filter(|d| d.is_dir()),
        };
        Ok(Self {
            registry: Registry::load(own.as_deref())?.with_bins(host_bins(root)),
            own,
        })
    }

    /// Every name.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        self.registry.iter().map(System::id).collect()
    }

    /// The systems with these names, not yet known to run anywhere.
    ///
    /// # Errors
    /// If one is unknown, with the known ones and the nearest; if one is named twice.
    pub fn planned(&self, names: &[String]) -> Result<Vec<PlannedSystem>> {
        let known = self.names();
        let mut out: Vec<PlannedSystem> = Vec::new();
        for name in names {
            let (original, variant) = cell::variant(name);
            if !known.contains(&original) {
                bail!(suggest::unknown("system", name, &known));
            }
            if out.iter().any(|s| s.id == *name) {
                bail!("system {name:?} is named twice");
            }
            let system = self.registry.get(name)?;
            let title = system.title();
            out.push(PlannedSystem {
                id: name.clone(),
                title: match variant {
                    None => title.to_owned(),
                    Some(Variant::Twin) => format!("{title}, measured a second time (A/A)"),
                    Some(Variant::Slow(percent)) => {
                        format!("{title}, handlers {percent} % slower on purpose")
                    }
                },
                digest: self.registry.digest(name)?,
                twin_of: (variant == Some(Variant::Twin)).then(|| original.to_owned()),
                skipped: None,
            });
        }
        Ok(out)
    }

    /// Why a system cannot run in a place, as far as that can be told from here: on the
    /// host all of it, for the guest whether its programs exist.
    #[must_use]
    pub fn known_obstacle(&self, name: &str, place: Place) -> Option<String> {
        match place {
            Place::Host => self.registry.availability(name, Place::Host),
            Place::Vm => {
                let system = self.registry.get(name).ok()?;
                let program = system
                    .needs()
                    .iter()
                    .filter(|n| matches!(n, Need::Program { .. } | Need::Place(_)))
                    .find_map(|n| n.check(Place::Vm, self.registry.bins()).err());
                self.registry.not_slowed(name).or(program)
            }
        }
    }

    /// What changed of the plan's systems since it was made.
    #[must_use]
    pub fn redefined(&self, systems: &[PlannedSystem]) -> Vec<String> {
        systems
            .iter()
            .filter(|s| s.skipped.is_none())
            .filter_map(|s| match self.registry.digest(&s.id) {
                Ok(now) if now == s.digest => None,
                Ok(now) => Some(format!(
                    "system {}: definition {now:?}, was {:?}",
                    s.id, s.digest
                )),
                Err(_) => Some(format!("system {}: not there any more", s.id)),
            })
            .collect()
    }
}

/// The workload with this name or in this file.
///
/// # Errors
/// If there is none, with the nearest name, or its file is wrong (file and line).
pub fn workload(name: &str) -> Result<Workload> {
    let names = workload_names();
    if !is_path(name) && !names.contains(&name) {
        bail!(
            "{}; or give the path of a .toml file",
            suggest::unknown("workload", name, &names)
        );
    }
    Ok(efuse_workloads::load(name)?)
}

/// Names of the built-in workloads.
#[must_use]
pub fn workload_names() -> Vec<&'static str> {
    efuse_workloads::names().into_iter().collect()
}

/// Whether a word on the command line means a file.
#[must_use]
pub fn is_path(word: &str) -> bool {
    word.contains('/')
        || Path::new(word)
            .extension()
            .is_some_and(|e| e.eq_ignore_ascii_case("toml"))
}
