//! `report RUN_DIR`: one self-contained HTML file, or the aggregated table as JSON;
//! `report compare` and `report history`: pages of what `eval` computes over several runs.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use efuse_model::store::RunDir;

mod ask;

/// Turn a run's folder into one self-contained HTML report.
#[derive(Parser)]
#[command(
    name = "report",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// The run's folder (it holds plan.json).
    #[arg(required = true)]
    run_dir: Option<PathBuf>,
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

#[derive(Subcommand)]
enum Verb {
    /// Draw two runs, baselines or revisions beside each other, judged as `eval compare` does.
    Compare {
        /// The old one.
        #[arg(required_unless_present = "from")]
        a: Option<String>,
        /// The new one.
        #[arg(required_unless_present = "from")]
        b: Option<String>,
        /// The system that others are related to inside each run.
        #[arg(long, value_name = "SYSTEM")]
        base: Option<String>,
        /// Compare figures as they are.
        #[arg(long)]
        absolute: bool,
        /// Smallest change that matters.
        #[arg(long, value_name = "5%")]
        threshold: Option<String>,
        /// Figures to compare.
        #[arg(long, alias = "metric", value_name = "A,B")]
        metrics: Option<String>,
        /// Draw what `eval --json compare` printed into this file; `-` for standard input.
        #[arg(long, value_name = "FILE",
              conflicts_with_all = ["a", "b", "base", "absolute", "threshold", "metrics"])]
        from: Option<PathBuf>,
        /// Where to write the page; results/pages/compare-A-B.html unless given.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Draw how systems stood to a base over the baselines that are kept.
    History {
        /// The system that others are related to inside each run.
        #[arg(long, value_name = "SYSTEM")]
        base: Option<String>,
        /// Figures to show.
        #[arg(long, alias = "metric", value_name = "A,B")]
        metrics: Option<String>,
        /// Draw what `eval --json history` printed into this file; `-` for standard input.
        #[arg(long, value_name = "FILE", conflicts_with_all = ["base", "metrics"])]
        from: Option<PathBuf>,
        /// Where to write the page; results/pages/history.html unless given.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
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
    match (&args.verb, &args.run_dir) {
        (Some(verb), _) => several(verb),
        (None, Some(run_dir)) => one(args, run_dir),
        (None, None) => anyhow::bail!("say which run: report RUN_DIR"),
    }
}

/// A page of several runs.
fn several(verb: &Verb) -> anyhow::Result<()> {
    let mut asked: Vec<String> = Vec::new();
    let mut option = |name: &str, value: &Option<String>| {
        if let Some(value) = value {
            asked.push(format!("{name}={value}"));
        }
    };
    let (kind, from, output) = match verb {
        Verb::Compare {
            a,
            b,
            base,
            absolute,
            threshold,
            metrics,
            from,
            output,
        } => {
            option("--base", base);
            option("--threshold", threshold);
            option("--metrics", metrics);
            if *absolute {
                asked.push("--absolute".to_owned());
            }
            // A name that starts with a dash is a name all the same.
            asked.push("--".to_owned());
            asked.extend([a, b].into_iter().flatten().cloned());
            ("compare", from, output)
        }
        Verb::History {
            base,
            metrics,
            from,
            output,
        } => {
            option("--base", base);
            option("--metrics", metrics);
            ("history", from, output)
        }
    };
    let text = match from {
        Some(path) => ask::read(path)?,
        None => {
            let mut line = vec![kind.to_owned(), "--no-page".to_owned()];
            line.extend(asked);
            ask::eval(&line)?
        }
    };
    let (html, place) = match verb {
        Verb::Compare { .. } => efuse_report::comparison(&text)?,
        Verb::History { .. } => efuse_report::history(&text)?,
    };
    let output = match output {
        Some(output) => output.clone(),
        None => {
            if let Some(folder) = place.parent() {
                fs::create_dir_all(folder)
                    .with_context(|| format!("{}: cannot make the folder", folder.display()))?;
            }
            place
        }
    };
    written(&output, &html)
}

fn one(args: &Args, run_dir: &Path) -> anyhow::Result<()> {
    let run = RunDir::open(run_dir)?;
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
    written(&output, &html)
}

/// Writes a page and says where it is.
fn written(output: &Path, html: &str) -> anyhow::Result<()> {
    write_whole(output, html.as_bytes())
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
