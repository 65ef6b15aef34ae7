//! `fsx` of the crate of the same name, if its program is here.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

use super::{Site, Trouble, fail};
use crate::error::AgentError;
use crate::limit::Limit;
use crate::process;
use crate::sys::{self, Drop as Caches};

/// As many as take some ten seconds under emulation.
const STEPS: u32 = 1500;
/// As many as one process of it does: fsx 0.3 never unmaps what it read by a mapping, so that truncations take longer
/// and longer, and the kernel refuses further mappings after some 300 000 steps.
const PIECE: u32 = 15_000;
/// Of the first pieces; each piece has a seed of its own.
const SEEDS: [u32; 2] = [1, 20_261];

const CONFIG: &str = "\
flen = 524288

[opsize]
max = 65536
min = 0

[weights]
close_open = 2
read = 10
write = 10
mapread = 5
mapwrite = 5
invalidate = 1
truncate = 5
fsync = 1
fdatasync = 1
punch_hole = 2
copy_file_range = 3
sendfile = 3
posix_fadvise = 1
";

pub(super) fn run(site: &mut Site<'_>) -> Result<String, Trouble> {
    let Some(program) = site.agent.options().bin.find("fsx") else {
        return Err(Trouble::Skip(
            "the program fsx is not here (cargo install fsx)".into(),
        ));
    };
    let folder = site.agent.folder().to_owned();
    let config = folder.join("fsx.toml");
    fs::write(&config, CONFIG).map_err(AgentError::io(&config, "write"))?;
    let steps = STEPS.saturating_mul(site.effort);
    let (root, limit) = (site.root.as_path(), site.limit);
    let run = Fsx {
        program: &program,
        config: &config,
        folder: &folder,
        steps,
    };
    // Beside each other: files of one mount, and half the time on two processors.
    thread::scope(|scope| {
        let runs = SEEDS.map(|seed| {
            let run = &run;
            scope.spawn(move || run.pieces(&root.join(name(seed)), seed, limit))
        });
        runs.into_iter()
            .try_for_each(|run| run.join().expect("no panic in it"))
    })?;
    let names = SEEDS.map(name);
    let through = crate::compare::digests(&site.root, &names, site.limit)?;
    site.unmount()?;
    sys::drop_caches(Caches::Pages)?;
    let below = crate::compare::digests(&site.lower, &names, site.limit)?;
    crate::compare::same(site.system, &names, &through, &below)?;
    let pieces = match steps.div_ceil(PIECE) {
        1 => String::new(),
        pieces => format!(" and {} after each", pieces - 1),
    };
    Ok(format!(
        "{} x {steps} steps, seeds {SEEDS:?}{pieces}",
        SEEDS.len()
    ))
}

fn name(seed: u32) -> String {
    format!("fsx{seed}")
}

/// What all runs of fsx have in common.
struct Fsx<'a> {
    program: &'a Path,
    config: &'a Path,
    /// For the expected content.
    folder: &'a Path,
    steps: u32,
}

impl Fsx<'_> {
    /// Runs it on a file, piece by piece.
    fn pieces(&self, file: &Path, seed: u32, limit: &Limit) -> Result<(), Trouble> {
        let mut left = self.steps;
        for seed in seed.. {
            let steps = left.min(PIECE);
            self.on(file, steps, seed, limit).map_err(|e| {
                e.of(&format!(
                    "after {} steps of {}",
                    self.steps - left,
                    self.steps
                ))
            })?;
            left -= steps;
            if left == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Runs it on a file.
    fn on(&self, file: &Path, steps: u32, seed: u32, limit: &Limit) -> Result<(), Trouble> {
        let done = process::run(
            Command::new(self.program)
                .arg("-f")
                .arg(self.config)
                .arg("-P")
                .arg(self.folder)
                .args(["-N", &steps.to_string(), "-S", &seed.to_string()])
                .arg(file),
            limit,
        )?;
        // fsx keeps the expected content; the failure says what differs.
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let _ = fs::remove_file(self.folder.join(format!("{name}.fsxgood")));
        if done.status.success() {
            return Ok(());
        }
        fail(format!(
            "fsx {} with seed {seed}: {}",
            done.how(),
            done.tail()
        ))
    }
}
