//! Every system there is.

use std::path::{Path, PathBuf};

use efuse_model::cell;
use efuse_model::environment::Place;

use crate::bins::BinDirs;
use crate::builtin::stackfs;
use crate::{Need, System, SystemError, builtin, plugin};

/// The built-in systems and those of the user, in the order of tables and charts.
pub struct Registry {
    systems: Vec<Box<dyn System>>,
    bins: BinDirs,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ids: Vec<&str> = self.iter().map(System::id).collect();
        f.debug_struct("Registry")
            .field("systems", &ids)
            .field("bins", &self.bins)
            .finish()
    }
}

impl Registry {
    /// The built-in systems, and one for each `*.toml` in `root`.
    ///
    /// # Errors
    /// If the folder cannot be read, or a file in it is wrong (file and line), or two
    /// systems have the same name.
    pub fn load(root: Option<&Path>) -> Result<Self, SystemError> {
        let mut systems = builtin::all();
        if let Some(folder) = root {
            for path in toml_files(folder)? {
                let system = plugin::Plugin::load(&path)?;
                if systems.iter().any(|s| s.id() == system.id()) {
                    return Err(system.duplicate().into());
                }
                systems.push(Box::new(system));
            }
        }
        Ok(Self {
            systems,
            bins: BinDirs::discover(),
        })
    }

    /// Looks for programs in these folders instead of those of [`BinDirs::discover`].
    #[must_use]
    pub fn with_bins(mut self, bins: BinDirs) -> Self {
        self.bins = bins;
        self
    }

    /// Where programs are looked for.
    #[must_use]
    pub fn bins(&self) -> &BinDirs {
        &self.bins
    }

    /// The system that is mounted for this name; that of `fuse` for `fuse@twin` too.
    ///
    /// # Errors
    /// If there is none; the message lists those that exist.
    pub fn get(&self, id: &str) -> Result<&dyn System, SystemError> {
        self.iter()
            .find(|s| s.id() == cell::mounted_system(id))
            .ok_or_else(|| SystemError::Unknown {
                id: id.to_owned(),
                known: self.iter().map(System::id).collect::<Vec<_>>().join(", "),
            })
    }

    /// Hash of what a name means: a twin's is its original's, a slowed system's is not.
    ///
    /// # Errors
    /// If there is no such system.
    pub fn digest(&self, id: &str) -> Result<String, SystemError> {
        let digest = self.get(id)?.digest();
        Ok(match cell::slow_percent(id) {
            0 => digest,
            percent => format!("{digest}+slow{percent}"),
        })
    }

    /// Why a name that asks for slower handlers cannot have them.
    #[must_use]
    pub fn not_slowed(&self, id: &str) -> Option<String> {
        if cell::slow_percent(id) == 0 {
            return None;
        }
        let needs = self.get(id).ok()?.needs();
        let ours = needs
            .iter()
            .any(|need| matches!(need, Need::Program { name, .. } if name == stackfs::PROGRAM));
        (!ours).then(|| stackfs::NOT_SLOWED.to_owned())
    }

    /// Every system.
    pub fn iter(&self) -> impl Iterator<Item = &dyn System> {
        self.systems.iter().map(AsRef::as_ref)
    }

    /// Why a system cannot be mounted on this machine, which is `place`; `None` if it
    /// can. For the VM, only the agent inside can say.
    #[must_use]
    pub fn availability(&self, id: &str, place: Place) -> Option<String> {
        match self.get(id) {
            Ok(system) => {
                let needs = system.needs();
                let failing = |need: &Need| need.check(place, &self.bins).err();
                self.not_slowed(id)
                    .or_else(|| needs.iter().find_map(failing))
            }
            Err(e) => Some(e.to_string()),
        }
    }

    /// The programs of these systems that are here, to be copied into the guest.
    /// Unknown names and missing programs are left out: the probe inside reports them.
    #[must_use]
    pub fn programs<'a>(&self, ids: impl IntoIterator<Item = &'a str>) -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> = ids
            .into_iter()
            .filter_map(|id| self.get(id).ok())
            .flat_map(System::needs)
            .filter_map(|need| match need {
                Need::Program { name, .. } => self.bins.find(&name),
                _ => None,
            })
            .collect();
        found.sort();
        found.dedup();
        found
    }
}

fn toml_files(folder: &Path) -> Result<Vec<PathBuf>, SystemError> {
    let failed = || SystemError::io(folder, "read the folder of systems");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed())? {
        let path = entry.map_err(failed())?.path();
        if path.extension().is_some_and(|e| e == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_an_unknown_one_lists_them() {
        let registry = Registry::load(None).unwrap();
        let mut ids: Vec<&str> = registry.iter().map(System::id).collect();
        assert_eq!(
            registry.get("nope").err().unwrap().to_string(),
            "unknown system \"nope\"; the systems are: ext4, libfuse, fuse, fuse-passthrough, fuse-uring, efuse-bare, extfuse, efuse-meta, efuse-meta-noopen, efuse-passthrough, efuse-cache, efuse-cache-backed, efuse-prelim, rfuse, rfuse-unbalanced, efuse"
        );
        let n = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), n);
    }

    #[test]
    fn variants_are_their_original_and_slower_ones_are_another_definition() {
        let registry = Registry::load(None).unwrap();
        assert_eq!(registry.get("fuse@twin").unwrap().id(), "fuse");
        assert_eq!(registry.get("fuse@slow10").unwrap().id(), "fuse");
        let digest = |id| registry.digest(id).unwrap();
        assert_eq!(digest("fuse@twin"), digest("fuse"));
        assert_ne!(digest("fuse@slow10"), digest("fuse"));
        assert_ne!(digest("fuse@slow10"), digest("fuse@slow20"));
        let message = registry.digest("fuse@fast").unwrap_err().to_string();
        assert!(
            message.contains("unknown system \"fuse@fast\""),
            "{message}"
        );
        let why = registry.availability("ext4@slow10", Place::Host).unwrap();
        assert!(why.contains("@slowN needs StackFS"), "{why}");
    }

    #[test]
    fn digests_tell_systems_apart_and_stay() {
        let digests = || -> Vec<String> {
            Registry::load(None)
                .unwrap()
                .iter()
                .map(System::digest)
                .collect()
        };
        let mut first = digests();
        assert_eq!(first, digests());
        let n = first.len();
        first.sort_unstable();
        first.dedup();
        assert_eq!(first.len(), n);
        assert!(first.iter().all(|d| d.len() == 16));
    }
}
