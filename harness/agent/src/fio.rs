//! fio: the commands of every phase and the reading of their results.

pub mod barrier;
pub mod command;
pub mod output;
mod regions;

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::error::{AgentError, Result};
use crate::limit::Limit;
use crate::process::{self, tail};

pub use barrier::Barrier;
pub use command::Invocation;
pub use output::Report;

/// Runs one fio and reads its report. `daemon` is the process that serves the files, if
/// there is one: fio is killed if it hangs after that process has ended. With a
/// `barrier`, the jobs start together and stop together, and it tells when.
///
/// # Errors
/// If fio cannot be started, fails, is killed, or reports an error of a job. The
/// reason has what fio said.
pub fn run(
    fio: &Path,
    invocation: &Invocation,
    scratch: &Path,
    daemon: Option<u32>,
    barrier: Option<&mut Barrier<'_>>,
    limit: &Limit,
) -> Result<Report> {
    let json = scratch.join(format!("fio-{}.json", invocation.name()));
    let mut command = Command::new(fio);
    command
        .current_dir(scratch)
        .arg(format!("--output={}", json.display()))
        .args(invocation.args());
    if let Some(barrier) = &barrier {
        command.args(barrier.args()).current_dir(barrier.folder());
    }
    let attend = barrier.map(|b| b as &mut dyn process::Attend);
    let sensible = || daemon.is_none_or(process::runs);
    let done = process::run_with(&mut command, limit, &sensible, attend)?;
    let text = fs::read_to_string(&json);
    let _ = fs::remove_file(&json);
    // fio writes messages of its jobs into the same file, before the JSON.
    let (messages, body) = match &text {
        Ok(text) => text.split_at(output::start_of_json(text)),
        Err(_) => ("", ""),
    };
    let messages: Vec<_> = messages
        .lines()
        .filter(|line| !barrier::is_notice(line))
        .collect();
    let messages = messages.join("\n");
    let said = |why: &str| {
        AgentError::Fio(format!(
            "fio ({}) {why}: {}",
            invocation.name(),
            tail(&format!("{messages}\n{}\n{}", done.stdout, done.stderr))
        ))
    };
    if !done.status.success() {
        return Err(said(&done.how()));
    }
    if body.is_empty() {
        return Err(said("ended without a report"));
    }
    let report = Report::parse(body)
        .map_err(|e| AgentError::Fio(format!("fio ({}): {e}", invocation.name())))?;
    match report.first_error() {
        Some(error) => Err(said(&format!("reports error {error}"))),
        None => Ok(report),
    }
}
