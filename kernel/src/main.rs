//! `kernel`: fetches the distribution's kernel and builds, shows, applies and loads `efuse.ko`.

mod verbs;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Builds efuse.ko from the distribution's kernel source and the patch series in kernel/.
#[derive(Parser)]
#[command(name = "kernel", version)]
struct Cli {
    /// The project's root [default: EFUSE_ROOT, else found from the current folder upwards]
    #[arg(long, global = true, value_name = "FOLDER")]
    root: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Fetch the kernel if need be and build the module if something changed
    Build,
    /// Look for a newer kernel, fetch it and build the module for it
    Update,
    /// Show versions, paths, hashes and the patch series
    Show(verbs::show::Args),
    /// Put the module into a 6.12 kernel source tree, as fs/efuse
    Apply(verbs::apply::Args),
    /// Unpack the series as commits of a git repository, to work on it
    Edit(verbs::edit::Args),
    /// Make the series anew from the commits of such a repository
    Save(verbs::save::Args),
    /// Build for the running kernel and load the module into it
    Host,
    /// Build the kernel that checks itself (KASAN, lockdep ...) with the series in its tree
    Debug,
    /// Remove what was built
    Clean(verbs::clean::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let root = cli.root.as_deref();
    let result = match cli.verb {
        Verb::Build => verbs::build::run(root),
        Verb::Update => verbs::update::run(root),
        Verb::Show(args) => verbs::show::run(root, &args),
        Verb::Apply(args) => verbs::apply::run(root, &args),
        Verb::Edit(args) => verbs::edit::run(root, &args),
        Verb::Save(args) => verbs::save::run(root, &args),
        Verb::Host => verbs::host::run(root),
        Verb::Debug => verbs::debug::run(root),
        Verb::Clean(args) => verbs::clean::run(root, &args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kernel: {error:#}");
            ExitCode::FAILURE
        }
    }
}
