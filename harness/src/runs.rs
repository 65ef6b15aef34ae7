//! The project's folders: root, runs, scratch.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use efuse_model::plan::Plan;
use efuse_model::store::RunDir;

use crate::suggest;

/// The project's root: `EFUSE_ROOT`, else the nearest folder upwards that has both
/// `Cargo.toml` and `Justfile`.
///
/// # Errors
/// If there is none.
pub fn project_root() -> Result<PathBuf> {
    if let Some(root) = std::env::var_os("EFUSE_ROOT") {
        let root = PathBuf::from(root);
        if !root.join("Cargo.toml").is_file() {
            bail!(
                "EFUSE_ROOT is {}, which is not the project (no Cargo.toml in it)",
                root.display()
            );
        }
        return Ok(fs::canonicalize(root)?);
    }
    let here = std::env::current_dir().context("cannot tell the current folder")?;
    here.ancestors()
        .find(|d| d.join("Cargo.toml").is_file() && d.join("Justfile").is_file())
        .map(Path::to_owned)
        .with_context(|| {
            format!(
                "{} is not inside the project; go there or set EFUSE_ROOT to its folder",
                here.display()
            )
        })
}

/// Where the runs are.
#[must_use]
pub fn runs_folder(root: &Path) -> PathBuf {
    root.join("results/runs")
}

/// A stored run.
#[derive(Clone, Debug)]
pub struct Run {
    /// Name of its folder.
    pub name: String,
    /// The folder.
    pub dir: RunDir,
    /// Its plan.
    pub plan: Plan,
}

impl Run {
    /// Opens the run in this folder.
    ///
    /// # Errors
    /// If there is no readable plan in it.
    pub fn open(path: &Path) -> Result<Self> {
        let dir = RunDir::open(path)?;
        let plan = dir.plan()?;
        let name = path
            .file_name()
            .map_or_else(|| plan.run.clone(), |n| n.to_string_lossy().into_owned());
        Ok(Self { name, dir, plan })
    }
}

/// Every readable run, oldest first, and one message per folder that is none.
///
/// # Errors
/// If the folder exists and cannot be read.
pub fn all(root: &Path) -> Result<(Vec<Run>, Vec<String>)> {
    all_in(&runs_folder(root))
}

/// Every readable run in a folder, likewise.
///
/// # Errors
/// If the folder exists and cannot be read.
pub fn all_in(folder: &Path) -> Result<(Vec<Run>, Vec<String>)> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok((vec![], vec![])),
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", folder.display())),
    };
    let mut runs = Vec::new();
    let mut unreadable = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let hidden = path
            .file_name()
            .is_some_and(|n| n.to_string_lossy().starts_with('.'));
        if hidden || !path.is_dir() {
            continue;
        }
        match Run::open(&path) {
            Ok(run) => runs.push(run),
            Err(e) => unreadable.push(format!("{e:#}")),
        }
    }
    runs.sort_by(|a, b| (a.plan.created, &a.name).cmp(&(b.plan.created, &b.name)));
    Ok((runs, unreadable))
}

/// The run with this name or in this folder; the newest one if none is named.
///
/// # Errors
/// If there is none, with the nearest name.
pub fn find(root: &Path, name: Option<&str>) -> Result<Run> {
    let Some(name) = name else {
        let (mut runs, unreadable) = all(root)?;
        return runs.pop().with_context(|| {
            format!(
                "there is no run in {} yet; start one with `eval quick`{}",
                runs_folder(root).display(),
                unreadable
                    .iter()
                    .map(|m| format!("\n{m}"))
                    .collect::<String>()
            )
        });
    };
    let in_store = runs_folder(root).join(name);
    if valid_name(name).is_ok() && in_store.is_dir() {
        return Run::open(&in_store);
    }
    if name.contains('/') {
        return Run::open(Path::new(name));
    }
    let (runs, _) = all(root)?;
    let names: Vec<_> = runs
        .iter()
        .rev()
        .map(|r| r.name.as_str())
        .take(20)
        .collect();
    if names.is_empty() {
        bail!("no run is named {name:?}; there are none yet");
    }
    bail!(suggest::unknown("run", name, &names));
}

/// Whether a run may have this name.
///
/// # Errors
/// One line that says what a name is made of.
pub fn valid_name(name: &str) -> Result<(), String> {
    let fine = !name.is_empty()
        && name.len() <= 100
        && !name.starts_with(['.', '-'])
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if fine {
        Ok(())
    } else {
        Err(format!(
            "{name:?} cannot name a run: letters, digits, '.', '_' and '-', not first '.' or '-', at most 100"
        ))
    }
}

/// Holds a run for one `eval`: `run.lock` in its folder, locked for as long as this lives,
/// however the process ends.
#[derive(Debug)]
pub struct RunLock {
    _file: File,
}

impl RunLock {
    /// Locks the run.
    ///
    /// # Errors
    /// If another process has it.
    pub fn take(run: &RunDir) -> Result<Self> {
        let path = run.path().join("run.lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => bail!(
                "another eval is measuring {}; wait until it ends",
                run.path().display()
            ),
            Err(TryLockError::Error(e)) => {
                Err(e).with_context(|| format!("cannot lock {}", path.display()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["quick-20261124-183000", "a", "T1.x_y"] {
            assert_eq!(valid_name(good), Ok(()), "{good}");
        }
        for bad in ["", ".", "..", "../x", "a/b", "-x", ".hidden", "ü"] {
            assert!(valid_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_run_is_held_once() {
        let dir = tempfile::tempdir().unwrap();
        let plan = crate::testing::plan(&["fuse"], 1, 0);
        let run = RunDir::create(&dir.path().join("r"), &plan).unwrap();
        let held = RunLock::take(&run).unwrap();
        let refused = RunLock::take(&run).unwrap_err().to_string();
        assert!(refused.contains("another eval"), "{refused}");
        drop(held);
        RunLock::take(&run).unwrap();
    }
}
