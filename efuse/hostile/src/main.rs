//! `efuse-hostile`: mounts `/dev/efuse` with rings and breaks every rule of them, while callers use
//! the mount and are killed. Whatever it does must harm nobody but itself and its callers. For tests.

mod answer;
mod daemon;
mod load;
mod memory;
mod storm;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

/// A daemon that breaks the rules of the rings, and callers that meet it.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Rounds of a hostile daemon and callers, each ended by killing one of them.
    Storm {
        /// An empty folder to mount on.
        mountpoint: PathBuf,
        /// How long, seconds.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Chosen at random and printed unless given.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// The daemon of one round; runs until it is killed.
    #[command(hide = true)]
    Daemon {
        /// Where to mount.
        mountpoint: PathBuf,
        /// Of all that it does.
        #[arg(long)]
        seed: u64,
    },
    /// The callers of one round; run until they are killed.
    #[command(hide = true)]
    Load {
        /// Where it is mounted.
        mountpoint: PathBuf,
        /// Of all that they do.
        #[arg(long)]
        seed: u64,
    },
}

/// Random numbers of one thread.
fn random(seed: u64, thread: u64) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(thread);
    random
}

fn main() -> ExitCode {
    let result = match Cli::parse().verb {
        Verb::Storm {
            mountpoint,
            seconds,
            seed,
        } => storm::run(&mountpoint, seconds, seed.unwrap_or_else(rand::random)),
        Verb::Daemon { mountpoint, seed } => daemon::run(&mountpoint, seed),
        Verb::Load { mountpoint, seed } => load::run(&mountpoint, seed),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("efuse-hostile: {error:#}");
            ExitCode::FAILURE
        }
    }
}
