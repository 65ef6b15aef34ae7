//! `efuse-coherence`: looks for stale answers of a mount. For tests, and for whoever writes a policy.

mod data;
mod differential;
mod race;
mod see;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use race::Until;

/// Looks for stale answers of a mounted file system.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Do the same random operations on the mount and on a plain directory, and compare each result
    /// and the trees in the end.
    Differential {
        /// An empty folder on the mount.
        mount: PathBuf,
        /// An empty folder on a plain file system of the kind that is below the mount.
        plain: PathBuf,
        /// Operations of each process.
        #[arg(long, default_value_t = 5000)]
        operations: u32,
        /// Processes, each in a tree of its own.
        #[arg(long, default_value_t = 4)]
        processes: u32,
        /// Chosen at random and printed unless given.
        #[arg(long)]
        seed: Option<u64>,
        /// Which of the processes this one is.
        #[arg(long, hide = true)]
        worker: Option<u32>,
    },
    /// Change files in one thread and look at them in others, each of which must never see a state
    /// from before a change that was complete when it began to look.
    Race {
        /// An empty folder on the mount.
        mount: PathBuf,
        /// How long, seconds.
        #[arg(long, default_value_t = 20, conflicts_with = "tries")]
        seconds: u64,
        /// Instead: until something steady was looked at so many times.
        #[arg(long)]
        tries: Option<u64>,
        /// Threads that look.
        #[arg(long, default_value_t = 3)]
        readers: u32,
        /// Of the pauses between changes. Chosen at random and printed unless given.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Write, cut and map files in some threads and read them in others, directly and not, none of
    /// which may see bytes from before a change that was complete when it began to read.
    Data {
        /// An empty folder on the mount.
        mount: PathBuf,
        /// How long, seconds.
        #[arg(long, default_value_t = 20)]
        seconds: u64,
        /// Threads that read the file that is written all the time.
        #[arg(long, default_value_t = 3)]
        readers: u32,
    },
    See(see::See),
}

fn main() -> ExitCode {
    let result = match Cli::parse().verb {
        Verb::Differential {
            mount,
            plain,
            operations,
            processes,
            seed,
            worker,
        } => {
            let seed = seed.unwrap_or_else(random);
            match worker {
                Some(worker) => differential::work(&mount, &plain, operations, seed, worker),
                None => differential::run(&mount, &plain, operations, processes, seed),
            }
        }
        Verb::Race {
            mount,
            seconds,
            tries,
            readers,
            seed,
        } => {
            let until = tries.map_or(Until::Seconds(seconds), Until::Tries);
            race::run(&mount, until, readers, seed.unwrap_or_else(random))
        }
        Verb::Data {
            mount,
            seconds,
            readers,
        } => data::run(&mount, seconds, readers),
        Verb::See(verb) => see::run(&verb),
    };
    match result {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("efuse-coherence: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn random() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _, RandomState};
    RandomState::new().build_hasher().finish()
}

/// `SplitMix64` (Steele, Lea and Flood, 2014): small, and the same on every machine.
#[derive(Debug)]
pub(crate) struct Random(pub u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}
