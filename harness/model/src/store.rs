//! A run on disk: `results/runs/<run>/`.
//!
//! | file | content |
//! |---|---|
//! | `plan.json` | [`Plan`], written once |
//! | `environment.json` | [`Environment`], written at the first boot |
//! | `attempts.jsonl` | [`Attempt`]s, append-only, fsynced line by line |
//! | `extra.jsonl` | [`Extra`] slots beyond the plan's, append-only; a line is on disk before its first slot is measured |
//! | `raw/<cell>-r<rep>-a<attempt>.json` | fio's output of the measured phase |
//! | `console-<n>.log` | the guest's console, one per boot |
//!
//! A process killed in the middle of an append leaves one incomplete last line; readers
//! report and skip it, and the next writer starts on a line of its own, so nothing that
//! was finished is ever lost.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::attempt::{Attempt, Outcome};
use crate::counters::Probes;
use crate::environment::Environment;
use crate::plan::{Extra, Plan, Slot};

/// What can go wrong with a run's folder.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The operating system refused.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{}: {problem}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the line where there is one.
        problem: String,
    },
}

/// A run's folder.
#[derive(Clone, Debug)]
pub struct RunDir {
    path: PathBuf,
}

/// The attempts of a run, and what could not be read of them.
#[derive(Clone, Debug, Default)]
pub struct Attempts {
    /// In the order in which they were written.
    pub list: Vec<Attempt>,
    /// One message per unreadable line.
    pub damaged: Vec<String>,
}

impl Attempts {
    /// Whether this slot has a finished attempt.
    #[must_use]
    pub fn done(&self, slot: &Slot) -> bool {
        self.of(slot)
            .any(|a| matches!(a.outcome, Outcome::Done { .. }))
    }

    /// How many attempts this slot has had.
    #[must_use]
    pub fn tries(&self, slot: &Slot) -> u32 {
        u32::try_from(self.of(slot).count()).unwrap_or(u32::MAX)
    }

    fn of<'a>(&'a self, slot: &'a Slot) -> impl Iterator<Item = &'a Attempt> {
        self.list.iter().filter(|a| {
            a.cell == slot.cell && a.repetition == slot.repetition && a.probes == slot.probes
        })
    }
}

fn io_error(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io {
        path,
        action,
        source,
    }
}

impl RunDir {
    /// Makes the folder and writes the plan into it.
    ///
    /// # Errors
    /// If the folder exists already or cannot be written.
    pub fn create(path: &Path, plan: &Plan) -> Result<Self, StoreError> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(io_error(parent, "create the folder"))?;
        }
        fs::create_dir(path).map_err(io_error(path, "create the folder"))?;
        let raw = path.join("raw");
        fs::create_dir(&raw).map_err(io_error(&raw, "create the folder"))?;
        let run = Self {
            path: path.to_owned(),
        };
        run.write_json("plan.json", plan)?;
        Ok(run)
    }

    /// Opens an existing run.
    ///
    /// # Errors
    /// If there is no plan in it.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let plan = path.join("plan.json");
        fs::metadata(&plan).map_err(io_error(&plan, "find the run's plan"))?;
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The plan, with the slots that were added since at the end of its order.
    ///
    /// A line of `extra.jsonl` that is not whole is left out: none of its slots was begun,
    /// and what it added is found out again.
    ///
    /// # Errors
    /// If it cannot be read or is not a plan of this version.
    pub fn plan(&self) -> Result<Plan, StoreError> {
        let mut plan: Plan = self.read_json("plan.json")?;
        let (extra, _) = self.lines::<Extra>("extra.jsonl")?;
        plan.order.extend(extra.into_iter().flat_map(|e| e.slots));
        Ok(plan)
    }

    /// Adds slots to the plan and waits until they are on disk.
    ///
    /// # Errors
    /// If the disk is full or refuses.
    pub fn append_extra(&self, extra: &Extra) -> Result<(), StoreError> {
        self.append_line("extra.jsonl", extra)
    }

    /// The environment, if a first boot has recorded one.
    ///
    /// # Errors
    /// If the file exists and is damaged.
    pub fn environment(&self) -> Result<Option<Environment>, StoreError> {
        if self.path.join("environment.json").exists() {
            self.read_json("environment.json").map(Some)
        } else {
            Ok(None)
        }
    }

    /// Records the environment.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn set_environment(&self, environment: &Environment) -> Result<(), StoreError> {
        self.write_json("environment.json", environment)
    }

    /// Reads every attempt; damaged lines are reported, not fatal.
    ///
    /// # Errors
    /// If the file exists and cannot be read.
    pub fn attempts(&self) -> Result<Attempts, StoreError> {
        let (list, mut damaged) = self.lines("attempts.jsonl")?;
        damaged.extend(self.lines::<Extra>("extra.jsonl")?.1);
        Ok(Attempts { list, damaged })
    }

    /// The lines of a file that may not exist, and one message per line that is damaged.
    fn lines<T: DeserializeOwned>(&self, name: &str) -> Result<(Vec<T>, Vec<String>), StoreError> {
        let path = self.path.join(name);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((vec![], vec![])),
            Err(e) => return Err(io_error(&path, "read")(e)),
        };
        let (mut list, mut damaged) = (Vec::new(), Vec::new());
        for (n, line) in bytes.split(|b| *b == b'\n').enumerate() {
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            match serde_json::from_slice(line) {
                Ok(value) => list.push(value),
                Err(e) => damaged.push(format!("{}:{}: skipped: {e}", path.display(), n + 1)),
            }
        }
        Ok((list, damaged))
    }

    /// Appends one attempt and waits until it is on disk.
    ///
    /// # Errors
    /// If the disk is full or refuses; the attempts before stay readable.
    pub fn append(&self, attempt: &Attempt) -> Result<(), StoreError> {
        self.append_line("attempts.jsonl", attempt)
    }

    fn append_line<T: serde::Serialize>(&self, name: &str, value: &T) -> Result<(), StoreError> {
        let path = self.path.join(name);
        let mut line = serde_json::to_vec(value).map_err(|e| StoreError::Corrupt {
            path: path.clone(),
            problem: format!("a line that is not JSON: {e}"),
        })?;
        line.push(b'\n');
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .open(&path)
            .map_err(io_error(&path, "open for append"))?;
        if !ends_with_newline(&mut file).map_err(io_error(&path, "read"))? {
            line.insert(0, b'\n');
        }
        file.write_all(&line).map_err(io_error(&path, "append"))?;
        file.sync_all().map_err(io_error(&path, "fsync"))
    }

    /// Stores fio's raw output and returns its name relative to the folder.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_raw(
        &self,
        slot: &Slot,
        attempt: u32,
        value: &serde_json::Value,
    ) -> Result<String, StoreError> {
        let kind = match slot.probes {
            Probes::Off => 'r',
            Probes::On => 'p',
        };
        let (cell, repetition) = (&slot.cell, slot.repetition);
        let name = format!("raw/{cell}-{kind}{repetition}-a{attempt}.json");
        self.write_json(&name, value)?;
        Ok(name)
    }

    /// A path for the next boot's console.
    #[must_use]
    pub fn next_console(&self) -> PathBuf {
        (0..)
            .map(|n| self.path.join(format!("console-{n}.log")))
            .find(|p| !p.exists())
            .unwrap_or_else(|| self.path.join("console.log"))
    }

    fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<T, StoreError> {
        let path = self.path.join(name);
        let bytes = fs::read(&path).map_err(io_error(&path, "read"))?;
        serde_json::from_slice(&bytes).map_err(|e| StoreError::Corrupt {
            path,
            problem: e.to_string(),
        })
    }

    /// Writes beside and renames, so that a reader sees the old file or the new one.
    fn write_json<T: serde::Serialize>(&self, name: &str, value: &T) -> Result<(), StoreError> {
        let path = self.path.join(name);
        let tmp = path.with_extension("tmp");
        let mut bytes = serde_json::to_vec_pretty(value).map_err(|e| StoreError::Corrupt {
            path: path.clone(),
            problem: format!("cannot be written as JSON: {e}"),
        })?;
        bytes.push(b'\n');
        let mut file = File::create(&tmp).map_err(io_error(&tmp, "create"))?;
        file.write_all(&bytes).map_err(io_error(&tmp, "write"))?;
        file.sync_all().map_err(io_error(&tmp, "fsync"))?;
        fs::rename(&tmp, &path).map_err(io_error(&path, "rename into place"))
    }
}

fn ends_with_newline(file: &mut File) -> io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(true);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0u8];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attempt::{Phase, SCHEMA};
    use crate::cell::CellKey;

    fn attempt(repetition: u32) -> Attempt {
        Attempt {
            schema: SCHEMA,
            cell: CellKey("0123456789abcdef".into()),
            system: "fuse".into(),
            test: "T1".into(),
            repetition,
            probes: Probes::Off,
            attempt: 0,
            started: jiff::Timestamp::UNIX_EPOCH,
            wall_ms: 1,
            session: "boot".into(),
            command: String::new(),
            raw: None,
            outcome: Outcome::Failed {
                phase: Phase::Mount,
                reason: "no".into(),
            },
        }
    }

    fn run(dir: &Path) -> RunDir {
        RunDir {
            path: dir.to_owned(),
        }
    }

    #[test]
    fn a_torn_last_line_is_reported_and_costs_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let run = run(dir.path());
        run.append(&attempt(0)).unwrap();
        let path = dir.path().join("attempts.jsonl");
        let mut text = fs::read(&path).unwrap();
        text.extend_from_slice(br#"{"schema":1,"cell":"01"#);
        fs::write(&path, &text).unwrap();
        run.append(&attempt(1)).unwrap();
        let read = run.attempts().unwrap();
        assert_eq!(read.list, [attempt(0), attempt(1)]);
        assert_eq!(read.damaged.len(), 1);
        assert!(read.damaged[0].contains("attempts.jsonl:2"), "{read:?}");
    }

    #[test]
    fn a_failed_attempt_leaves_its_slot_open() {
        let all = Attempts {
            list: vec![attempt(0)],
            damaged: vec![],
        };
        let slot = Slot {
            cell: CellKey("0123456789abcdef".into()),
            repetition: 0,
            probes: Probes::Off,
        };
        assert!(!all.done(&slot));
        assert_eq!(all.tries(&slot), 1);
    }
}
