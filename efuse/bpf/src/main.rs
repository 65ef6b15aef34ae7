//! `efuse`: programs that answer for eFUSE mounts, from outside.

mod verbs;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Attaches programs to eFUSE mounts, whose daemons need not know, and shows what they do; mounts
/// such daemons.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Attach(verbs::attach::Attach),
    Detach(verbs::detach::Detach),
    Mount(verbs::mount::Mount),
    Selftest(verbs::selftest::Selftest),
    Show(verbs::show::Show),
}

fn main() -> ExitCode {
    let result = match Cli::parse().verb {
        Verb::Attach(verb) => verbs::attach::run(&verb),
        Verb::Detach(verb) => verbs::detach::run(&verb),
        Verb::Mount(verb) => verbs::mount::run(&verb),
        Verb::Selftest(verb) => verbs::selftest::run(&verb),
        Verb::Show(verb) => verbs::show::run(&verb),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("efuse: {error:#}");
            ExitCode::FAILURE
        }
    }
}
