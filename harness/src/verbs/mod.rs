//! The verbs of the command line, one a file.

use std::path::PathBuf;

use anyhow::Result;

use crate::catalogue::Catalogue;
use crate::cli::{Cli, Verb};
use crate::interrupt::Interrupt;
use crate::runs;

pub mod agent;
pub mod baseline;
pub mod check;
pub mod clean;
pub mod compare;
pub mod gate;
pub mod gate_trial;
pub mod history;
pub mod list;
pub mod plan;
pub mod ratio;
pub mod resume;
pub mod run;
pub mod show;
pub mod systems;

/// The exit status of a verb that did what it should; 0 and 1 as usual, 2 where `gate`
/// could not judge, 3 where `ratio` has none, 128 and more after a signal.
pub type Status = u8;

/// What every verb but `agent` works with.
#[derive(Debug)]
pub struct Context {
    /// The project's folder.
    pub root: PathBuf,
    /// Print JSON.
    pub json: bool,
    /// Ctrl-C and the like.
    pub interrupt: Interrupt,
    /// `--system-files`.
    pub system_files: Option<PathBuf>,
}

impl Context {
    /// The systems.
    ///
    /// # Errors
    /// If a description is wrong.
    pub fn catalogue(&self) -> Result<Catalogue> {
        Catalogue::load(&self.root, self.system_files.as_deref())
    }

    /// Prints a value as JSON or a text.
    ///
    /// # Errors
    /// If standard output is closed, or the value is no JSON.
    pub fn print<T: serde::Serialize>(
        &self,
        value: &T,
        text: impl FnOnce() -> String,
    ) -> Result<()> {
        use std::io::Write as _;
        let text = if self.json {
            serde_json::to_string_pretty(value)? + "\n"
        } else {
            text()
        };
        let mut out = std::io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            // `eval list | head` is no error.
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            other => Ok(other?),
        }
    }
}

/// Runs the verb of the command line.
///
/// # Errors
/// One message for the user.
pub fn dispatch(cli: Cli) -> Result<Status> {
    // Inside there is no project, and signals are the default's.
    if let Verb::Agent(verb) = &cli.verb {
        return agent::run(verb);
    }
    let context = Context {
        root: runs::project_root()?,
        json: cli.json,
        interrupt: Interrupt::listen()?,
        system_files: cli.system_files,
    };
    match cli.verb {
        Verb::Plan(verb) => plan::run(&context, &verb),
        Verb::Run(verb) => run::run(&context, &verb),
        Verb::Resume(verb) => resume::run(&context, &verb),
        Verb::List(verb) => list::run(&context, &verb),
        Verb::Show(verb) => show::run(&context, &verb),
        Verb::Ratio(verb) => ratio::run(&context, &verb),
        Verb::Compare(verb) => compare::run(&context, &verb),
        Verb::Baseline(verb) => baseline::run(&context, &verb),
        Verb::History(verb) => history::run(&context, &verb),
        Verb::Gate(verb) => gate::run(&context, &verb),
        Verb::GateTrial(verb) => gate_trial::run(&context, &verb),
        Verb::Systems(verb) => systems::run(&context, &verb),
        Verb::Check(verb) => check::run(&context, &verb),
        Verb::Clean(verb) => clean::run(&context, &verb),
        Verb::Agent(verb) => agent::run(&verb),
    }
}
