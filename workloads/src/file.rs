//! A workload's file.

use std::collections::BTreeMap;

use efuse_model::device::Device;
use efuse_model::test::{Job, Test};
use efuse_reader::{Item, ReadError, Source, Table, human_size};

use crate::Workload;
use crate::draft::{Draft, Names};
use crate::matrix::Matrix;
use crate::metadata;

/// Room that EXT4 takes for itself at most: its journal and fixed structures, and a
/// share of the device for inode tables and reserved blocks.
const FIXED_OVERHEAD: u64 = 32 << 20;
const OVERHEAD_PERCENT: u64 = 8;
/// Less does not hold a journal.
const SMALLEST_DEVICE: u64 = 64 << 20;

const MAX_REPETITIONS: u32 = 1000;
const MAX_LATENCY_US: u64 = 1_000_000;

pub(crate) fn read(source: &Source) -> Result<Workload, ReadError> {
    let mut top = source.parse()?;
    let name = identifier(&top.need("name")?)?;
    let description = top.need("description")?.text()?;
    let repetitions = top.need("repetitions")?.integer_u32(1, MAX_REPETITIONS)?;
    let probed = match top.take("probed") {
        Some(item) => item.integer_u32(0, MAX_REPETITIONS)?,
        None => 0,
    };
    let systems = names(top.need("systems")?)?;
    let twins = match top.take("twins") {
        Some(item) => twins(item, &systems)?,
        None => Vec::new(),
    };
    let precision = top.take("precision").map(|i| precision(&i)).transpose()?;
    let max_repetitions = match top.take("max_repetitions") {
        Some(item) if precision.is_none() => {
            return Err(item.error("means nothing without `precision`"));
        }
        Some(item) => Some(item.integer_u32(repetitions, MAX_REPETITIONS)?),
        None => None,
    };
    let device = device(top.need("device")?.table()?)?;
    let mut defaults = Draft::default();
    if let Some(item) = top.take("defaults") {
        let mut table = item.table()?;
        defaults.read(&mut table)?;
        table.finish()?;
    }
    let mut drafts: Vec<(Draft, Names)> = Vec::new();
    if let Some(item) = top.take("test") {
        for item in item.list()? {
            drafts.push(test(item.table()?, &defaults)?);
        }
    }
    if let Some(item) = top.take("matrix") {
        for item in item.list()? {
            drafts.extend(Matrix::read(item.table()?, &defaults)?.expand(source)?);
        }
    }
    let mut found: Vec<(usize, Test)> = Vec::new();
    if let Some(item) = top.take("metadata") {
        for item in item.list()? {
            found.extend(metadata::read(item.table()?)?);
        }
    }
    top.finish()?;
    if drafts.is_empty() && found.is_empty() {
        return Err(source.error(
            1,
            "the file has no [[test]], [[matrix]] or [[metadata]]; there is nothing to measure",
        ));
    }
    for (draft, names) in drafts {
        let line = names.line;
        found.push((line, draft.resolve(source, names)?));
    }
    // In the order of the file.
    found.sort_by_key(|(line, _)| *line);
    let mut lines: BTreeMap<String, usize> = BTreeMap::new();
    let mut tests = Vec::with_capacity(found.len());
    for (line, test) in found {
        if let Some(first) = lines.insert(test.id.clone(), line) {
            return Err(source.error(
                line,
                format!(
                    "there are two tests \"{}\" (see line {first}); in a matrix, the id has to \
                     name every axis",
                    test.id
                ),
            ));
        }
        fits(source, line, &test, &device)?;
        tests.push(test);
    }
    Ok(Workload {
        name,
        description,
        repetitions,
        probed,
        twins,
        precision,
        max_repetitions,
        device,
        systems,
        tests,
    })
}

/// Bytes that a device must have for these files, in whole MiB.
#[must_use]
pub fn device_for(files: u64) -> u64 {
    let with_share = files.div_ceil(100 - OVERHEAD_PERCENT).saturating_mul(100);
    with_share
        .saturating_add(FIXED_OVERHEAD)
        .checked_next_multiple_of(1 << 20)
        .unwrap_or(u64::MAX)
        .max(SMALLEST_DEVICE)
}

fn fits(source: &Source, line: usize, test: &Test, device: &Device) -> Result<(), ReadError> {
    let Some(size) = device.size_bytes() else {
        // A real disk's size is for the harness to look up.
        return Ok(());
    };
    let needed = device_for(test.job.bytes());
    if needed > size {
        let what = match &test.job {
            Job::Fio(job) => format!("{} files of {}", job.files, human_size(job.file_bytes)),
            Job::Metadata(job) => format!("{} folders of {} files", job.dirs, job.files),
        };
        return Err(source.error(
            line,
            format!(
                "test \"{}\": {what} need a device of at least {}, but it has {}",
                test.id,
                human_size(needed),
                human_size(size)
            ),
        ));
    }
    Ok(())
}

fn test(mut table: Table<'_>, defaults: &Draft) -> Result<(Draft, Names), ReadError> {
    let line = table.line();
    let id = identifier(&table.need("id")?)?;
    let title = table.need("title")?.text()?;
    let published = match table.take("published") {
        Some(item) => {
            let mut published = item.table()?;
            let profile = published.need("profile")?.text()?;
            let number = published.need("test")?.integer_u32(1, u32::MAX)?;
            published.finish()?;
            Some((profile, number))
        }
        None => None,
    };
    let mut draft = defaults.clone();
    draft.read(&mut table)?;
    table.finish()?;
    let names = Names {
        id,
        title,
        published,
        line,
    };
    Ok((draft, names))
}

fn twins(item: Item<'_>, systems: &[String]) -> Result<Vec<String>, ReadError> {
    let mut twins: Vec<String> = Vec::new();
    for item in item.list()? {
        let name = item.text()?;
        if !systems.contains(&name) {
            return Err(item.error(format_args!("names \"{name}\", which is not in `systems`")));
        }
        if twins.contains(&name) {
            return Err(item.error(format_args!("names \"{name}\" twice")));
        }
        twins.push(name);
    }
    Ok(twins)
}

/// `"10%"` as 0.1.
fn precision(item: &Item<'_>) -> Result<f64, ReadError> {
    let text = item.text()?;
    crate::parse_percent(&text).ok_or_else(|| {
        item.error(format_args!(
            "must be a share such as \"10%\", between 0.1% and 100%, but is \"{text}\""
        ))
    })
}

fn names(item: Item<'_>) -> Result<Vec<String>, ReadError> {
    let empty = item.error("must name at least one system");
    let mut names: Vec<String> = Vec::new();
    for item in item.list()? {
        let name = item.text()?;
        if names.contains(&name) {
            return Err(item.error(format_args!("names \"{name}\" twice")));
        }
        names.push(name);
    }
    if names.is_empty() {
        return Err(empty);
    }
    Ok(names)
}

fn device(mut table: Table<'_>) -> Result<Device, ReadError> {
    let kind = table.need("kind")?;
    let device = match kind.text()?.as_str() {
        "nvme-model" => Device::NvmeModel {
            size_bytes: capacity(&table.need("size")?)?,
            latency_ns: table.need("latency_us")?.integer(0, MAX_LATENCY_US)? * 1000,
        },
        "brd" => Device::Brd {
            size_bytes: capacity(&table.need("size")?)?,
        },
        "virtio" => Device::Virtio {
            size_bytes: capacity(&table.need("size")?)?,
        },
        "loop" => Device::Loop {
            size_bytes: capacity(&table.need("size")?)?,
        },
        "disk" => Device::Disk {
            path: table.need("path")?.text()?,
        },
        other => {
            return Err(kind.error(format_args!(
                "is the unknown device \"{other}\"; there are nvme-model, brd, virtio, loop, disk"
            )));
        }
    };
    table.finish()?;
    Ok(device)
}

fn capacity(item: &Item<'_>) -> Result<u64, ReadError> {
    let bytes = item.size()?;
    if bytes < SMALLEST_DEVICE || !bytes.is_multiple_of(1 << 20) {
        return Err(item.error(format_args!(
            "must be whole MiB and at least {}, but is {}",
            human_size(SMALLEST_DEVICE),
            human_size(bytes)
        )));
    }
    Ok(bytes)
}

/// A name that can be part of a file's name.
fn identifier(item: &Item<'_>) -> Result<String, ReadError> {
    let text = item.text()?;
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !text.chars().all(good) || text.starts_with(['-', '.']) {
        return Err(item.error(format_args!(
            "must consist of letters, digits, - _ and ., but is \"{text}\""
        )));
    }
    Ok(text)
}
