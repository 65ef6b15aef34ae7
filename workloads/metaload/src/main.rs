//! `metaload`: measures one kind of metadata operation and prints one JSON object.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use clap::Parser;
use efuse_metaload::run::{self, Meeting};
use efuse_metaload::tree::Tree;
use efuse_model::metadata::{KernelCache, MetadataJob, MetadataKind};

/// Does one kind of metadata operation in DIR for some time and prints how fast it was.
///
/// DIR has to hold the tree that `--lay-out` makes. Every answer is checked; the first
/// wrong one ends the program with status 1.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    /// The folder with the tree.
    dir: PathBuf,

    /// What to do: stat, missing, find, create-unlink, rename, xattr, open-close, unpack.
    #[arg(long, value_parser = kind, required_unless_present = "lay_out")]
    kind: Option<MetadataKind>,

    /// Make the tree instead.
    #[arg(long, conflicts_with = "kind")]
    lay_out: bool,

    /// Folders of the tree.
    #[arg(long, default_value_t = 100)]
    dirs: u32,

    /// Files in each folder.
    #[arg(long, default_value_t = 100)]
    files: u32,

    /// Threads.
    #[arg(long, default_value_t = 1)]
    threads: u32,

    /// Length of the measured phase, milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 2000)]
    runtime: u64,

    /// Unmeasured lead-in, milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    ramp: u64,

    /// Ask once for every name before the lead-in.
    #[arg(long)]
    warm: bool,

    /// Folder with the FIFOs arrived, start and end, by which a harness holds the threads
    /// at both ends of the measured phase.
    #[arg(long, value_name = "FOLDER")]
    meeting: Option<PathBuf>,
}

fn kind(name: &str) -> Result<MetadataKind> {
    MetadataKind::named(name).ok_or_else(|| {
        let known = MetadataKind::ALL.map(MetadataKind::name).join(", ");
        anyhow!("there are {known}")
    })
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("metaload: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    let tree = Tree::new(&cli.dir, cli.dirs, cli.files);
    let Some(kind) = cli.kind else {
        return Ok(tree.lay_out()?);
    };
    let report = run::run(
        &tree,
        &MetadataJob {
            kind,
            dirs: cli.dirs,
            files: cli.files,
            threads: cli.threads,
            runtime_ms: cli.runtime,
            ramp_ms: cli.ramp,
            warm: cli.warm,
            kernel_cache: KernelCache::OneSecond,
        },
        cli.meeting
            .clone()
            .map(|folder| Meeting { folder })
            .as_ref(),
    )?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}
