//! `eval ratio`: one ratio, for scripts.

use anyhow::Result;
use clap::Args;

use super::{Context, Status};
use crate::metric::Metric;
use crate::runs;
use crate::summary::Figures;

/// Exit status where there is no ratio.
pub const NONE: Status = 3;

/// Print the ratio of two systems: median over paired repetitions, its 95 % interval, n.
///
/// Exits with 3, and says why on standard error, when there is none.
#[derive(Debug, Args)]
pub struct Ratio {
    /// Numerator.
    a: String,
    /// Denominator.
    b: String,
    /// The test, as in T1.
    #[arg(long)]
    test: String,
    /// The figure: read-iops, write-iops, iops, read-bw, read-slat, read-clat, read-p99, ...
    #[arg(long, value_parser = Metric::parse)]
    metric: Metric,
    /// Name of the run, or its folder [default: the newest].
    #[arg(long)]
    run: Option<String>,
}

/// Prints it.
///
/// # Errors
/// If the run cannot be read or its output not be written.
pub fn run(context: &Context, verb: &Ratio) -> Result<Status> {
    let run = match runs::find(&context.root, verb.run.as_deref()) {
        Ok(run) => run,
        Err(e) => return none(context, &format!("{e:#}")),
    };
    let attempts = run.dir.attempts()?;
    match Figures::new(&run.plan, &attempts).ratio(&verb.a, &verb.b, &verb.test, verb.metric) {
        Ok(ratio) => {
            let value = serde_json::json!({ "run": run.name, "ratio": ratio });
            context.print(&value, || {
                format!(
                    "{}/{} {} {} {}\n",
                    ratio.a,
                    ratio.b,
                    ratio.test,
                    ratio.metric,
                    ratio.figures()
                )
            })?;
            Ok(0)
        }
        Err(reason) => none(context, &format!("{}: {reason}", run.name)),
    }
}

fn none(context: &Context, reason: &str) -> Result<Status> {
    eprintln!("eval: no ratio: {reason}");
    if context.json {
        let value = serde_json::json!({ "ratio": null, "reason": reason });
        context.print(&value, String::new)?;
    }
    Ok(NONE)
}
