//! `report RUN_DIR`: one self-contained HTML file, or the aggregated table as JSON.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use efuse_model::store::RunDir;

/// Turn a run's folder into one self-contained HTML report.
#[derive(Parser)]
#[command(name = "report", version)]
struct Args {
    /// The run's folder (it holds plan.json).
    run_dir: PathBuf,
    /// Where to write the page; RUN_DIR/report.html unless given.
    #[arg(short, long, value_name = "FILE", conflicts_with = "json")]
    output: Option<PathBuf>,
    /// The system that ratios are related to; `fuse` unless given.
    #[arg(long, value_name = "SYSTEM")]
    base: Option<String>,
    /// Print the aggregated table as JSON instead of writing a page.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("report: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    let run = RunDir::open(&args.run_dir)?;
    let base = args.base.as_deref();
    if args.json {
        let table = efuse_report::json(&run, base)?;
        let mut text = serde_json::to_string_pretty(&table)?;
        text.push('\n');
        return match std::io::stdout().lock().write_all(text.as_bytes()) {
            // `report --json | head` is no failure.
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            other => other.context("cannot print the table"),
        };
    }
    let html = efuse_report::html(&run, base)?;
    let output = args
        .output
        .clone()
        .unwrap_or_else(|| run.path().join("report.html"));
    write_whole(&output, html.as_bytes())
        .with_context(|| format!("{}: cannot write the report", output.display()))?;
    println!("{}", output.display());
    Ok(())
}

/// Writes beside and renames, so that a browser never loads half a page.
fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    // A device or a pipe is written to, not replaced.
    if fs::metadata(path).is_ok_and(|m| !m.is_file()) {
        return fs::write(path, bytes);
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let tmp = path.with_file_name(name);
    let written = File::create(&tmp)
        .and_then(|mut f| f.write_all(bytes))
        .and_then(|()| fs::rename(&tmp, path));
    if written.is_err() {
        // Best effort: the error that is reported is the first one.
        let _ = fs::remove_file(&tmp);
    }
    written
}
