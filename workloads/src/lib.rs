//! Workloads: which tests run on which systems, over which device, how often.
//!
//! A workload is a TOML file: the built-in ones are in this crate's folder, a user's
//! own is given by its path. `[[test]]` names one test; `[[matrix]]` spans axes and
//! leaves out what its `exclude` says; `[defaults]` holds what they share. Everything
//! is resolved into [`Test`]s with absolute sizes and times when the file is read, and
//! whatever is wrong is reported with the file and the line.
//!
//! ```toml
//! name = "mine"
//! description = "What it shows, in one line"
//! repetitions = 3
//! systems = ["ext4", "fuse"]
//! probed = 1                 # further repetitions with probes inside the kernel, or none
//! twins = ["fuse"]           # measured a second time as fuse@twin: the noise floor
//! precision = "10%"          # wider intervals of a ratio are measured again ...
//! max_repetitions = 10       # ... up to so many repetitions
//!
//! [device]
//! kind = "nvme-model"        # or brd, virtio, loop (all with size), disk (with path)
//! size = "1GiB"
//! latency_us = 60            # nvme-model only
//!
//! [defaults]                 # any key of a test but id, title and published
//! engine = "libaio"          # fio's ioengine=
//! direct = true              # past the page cache
//! pattern = "randrw"         # fio's rw=
//! read_percent = 70
//! block = "4KiB"
//! depth = 32
//! jobs = 4
//! files = 1
//! file_size = "64MiB"
//! runtime = "5s"             # and/or io = "512MiB": whichever comes first
//! verify = { read = "4MiB", write = "1MiB", compare = true }
//! options = { cpus_allowed = "0" }   # more of fio's, for the measured phase, as they are
//!
//! [[test]]
//! id = "T1"
//! title = "one file"
//!
//! [[matrix]]
//! id = "{pattern}-{block}"
//! title = "{pattern} in blocks of {block}"
//! axes = { pattern = ["randread", "randwrite"], block = ["4KiB", "1MiB"] }
//! exclude = [{ pattern = "randwrite", block = "1MiB" }]
//!
//! [[metadata]]               # names and attributes: one test a kind and cache setting
//! id = "{kind}-{kernel_cache}"
//! title = "{kind}"
//! kind = ["stat", "missing"] # find, create-unlink, rename, xattr, open-close, unpack
//! kernel_cache = ["none", "1s", "unlimited"]
//! dirs = 20
//! files = 50                 # in each of them
//! threads = 2
//! runtime = "1s"
//! ramp = "200ms"
//! warm = true                # ask for every name once before measuring
//! ```

mod draft;
mod file;
mod matrix;
mod metadata;
mod scale;

use std::fs;
use std::io;
use std::path::PathBuf;

use efuse_model::device::Device;
use efuse_model::test::Test;
use efuse_reader::{ReadError, Source};
use thiserror::Error;

pub use file::device_for;

/// Tests, systems, device and repetitions.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Short name, part of a run's name.
    pub name: String,
    /// One line.
    pub description: String,
    /// Measured repetitions of each cell.
    pub repetitions: u32,
    /// Further repetitions of each cell in which probes run.
    pub probed: u32,
    /// Systems that are measured a second time under another name.
    pub twins: Vec<String>,
    /// Half width of a ratio's interval, as a share of the ratio, above which its cells are
    /// measured again.
    pub precision: Option<f64>,
    /// Repetitions at most where a precision is asked for.
    pub max_repetitions: Option<u32>,
    /// The block device below every system.
    pub device: Device,
    /// Systems under test, by name; whether they exist is for the harness to check.
    pub systems: Vec<String>,
    /// The tests, in the order of the file.
    pub tests: Vec<Test>,
}

/// Why a workload cannot be had.
#[derive(Debug, Error)]
pub enum WorkloadError {
    /// Neither a built-in one nor a file.
    #[error(
        "there is no workload \"{name}\"; the built-in ones are {known}; \
         or give the path of a .toml file"
    )]
    Unknown {
        /// What was asked for.
        name: String,
        /// Every built-in name, comma separated.
        known: String,
    },
    /// The file cannot be read.
    #[error("{}: cannot read the workload: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something in the file is wrong.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// The built-in workloads: name and text.
const BUILT_IN: [(&str, &str); 9] = [
    ("quick", include_str!("../quick.toml")),
    ("smoke", include_str!("../smoke.toml")),
    ("gate", include_str!("../gate.toml")),
    ("sweep", include_str!("../sweep.toml")),
    ("data", include_str!("../data.toml")),
    ("rings", include_str!("../rings.toml")),
    ("metadata", include_str!("../metadata.toml")),
    ("paper-vm", include_str!("../paper-vm.toml")),
    ("paper-physical", include_str!("../paper-physical.toml")),
];

/// The share that a text such as `10%` or `2.5%` means, from 0.1 % to 100 %.
#[must_use]
pub fn parse_percent(text: &str) -> Option<f64> {
    let percent: f64 = text.strip_suffix('%')?.trim_end().parse().ok()?;
    (0.1..=100.0).contains(&percent).then(|| percent / 100.0)
}

/// The names of the built-in workloads.
#[must_use]
pub fn names() -> Vec<&'static str> {
    BUILT_IN.iter().map(|(name, _)| *name).collect()
}

/// The text of a built-in workload, for whoever wants to start from it.
#[must_use]
pub fn text(name: &str) -> Option<&'static str> {
    BUILT_IN
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, text)| *text)
}

/// The workload of this name, or in this file: whatever has a slash or ends in `.toml`
/// is a path.
///
/// # Errors
/// If there is no such workload, or something in it is wrong (file and line).
pub fn load(name_or_path: &str) -> Result<Workload, WorkloadError> {
    if let Some(text) = text(name_or_path) {
        let source = Source::new(format!("workloads/{name_or_path}.toml"), text);
        return Ok(file::read(&source)?);
    }
    if !name_or_path.contains('/') && !name_or_path.ends_with(".toml") {
        return Err(WorkloadError::Unknown {
            name: name_or_path.to_owned(),
            known: names().join(", "),
        });
    }
    let text = fs::read_to_string(name_or_path).map_err(|source| WorkloadError::Io {
        path: name_or_path.into(),
        source,
    })?;
    Ok(parse(name_or_path, &text)?)
}

/// A workload from a text; `name` is that of the file, for messages.
///
/// # Errors
/// If something in it is wrong, with the line.
pub fn parse(name: &str, text: &str) -> Result<Workload, ReadError> {
    file::read(&Source::new(name, text))
}
