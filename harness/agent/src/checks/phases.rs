//! Locality comes and goes: reads of a small part of a file, then of all of it, which is many times
//! the cache, then of the small part again. The policy that chooses has to notice, and is compared
//! with one that knows: in each phase the better of the two fixed paths.

use std::time::{Duration, Instant};

use efuse_bpf::{Attached, Dev, attached_to};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::direct::{self, BLOCK, Planted};
use super::{Site, Trouble, fail, plugin};
use crate::error::AgentError;
use crate::sys::{self, Drop as Caches};

const CACHE_MIB: u64 = 8;
const FILE_BYTES: u64 = 192 << 20;
/// The small part: a quarter of the cache, not at the file's beginning.
const HOT_BYTES: u64 = 2 << 20;
const HOT_FROM: u64 = 64 << 20;
/// Whether the reads of a phase are of the small part.
const PHASES: [bool; 5] = [true, false, true, false, true];
/// Eight rounds of the policy.
const READS: u32 = 8192;
/// Reads between two looks at what is chosen.
const LOOK: u32 = 32;
/// Rounds after a change in which the path may be the wrong one.
const ROUNDS: u64 = 2;
/// On the command line of a guest whose time counts instructions. Elsewhere other work on the
/// machine is in the times by which the policy chooses, and nothing is judged by them.
const CLOCK: &str = "guest.clock=icount";
const NAME: &str = "file";
const DEVICE: &str = "/dev/efuse";

/// What a phase took, and what was chosen in it.
#[derive(Clone, Copy, Debug, Default)]
struct Phase {
    time: Duration,
    /// Predictions until the path was the right one, if it ever was.
    recovered: Option<u64>,
    /// Looks at which it was the wrong one after that, and all.
    wrong: u32,
    looks: u32,
}

pub(super) fn run(site: &mut Site<'_>) -> Result<String, Trouble> {
    site.unmount()?;
    let path = site.lower.join(NAME);
    direct::plant(&path, 0, FILE_BYTES).map_err(AgentError::io(&path, "write"))?;
    let backing = phases(site, "passthrough", false)?;
    let cache = phases(site, "cache", false)?;
    let chosen = phases(site, "prelim", true)?;
    site.mount()?;

    let judged = sys::read("/proc/cmdline").is_some_and(|line| line.contains(CLOCK));
    if judged {
        judge(&chosen)?;
    }
    let rounds: Vec<_> = chosen
        .iter()
        .map(|p| p.recovered.map_or("never".to_owned(), |n| n.to_string()))
        .collect();
    let seconds = |phases: &[Phase]| phases.iter().map(|p| p.time.as_secs_f64()).sum::<f64>();
    let knows: f64 = backing
        .iter()
        .zip(&cache)
        .map(|(a, b)| a.time.min(b.time).as_secs_f64())
        .sum();
    let ms = |phases: &[Phase]| {
        let all: Vec<_> = phases
            .iter()
            .map(|p| p.time.as_millis().to_string())
            .collect();
        all.join("/")
    };
    Ok(format!(
        "rounds until the right path: {}{}; ms by phase: passthrough {}, cache {}, chosen {}; \
         {:.3} of the speed of a choice that knows, {:.3} of the better fixed path's",
        rounds.join("/"),
        if judged {
            ""
        } else {
            " (not judged in real time)"
        },
        ms(&backing),
        ms(&cache),
        ms(&chosen),
        knows / seconds(&chosen),
        seconds(&backing).min(seconds(&cache)) / seconds(&chosen)
    ))
}

/// Fails if the right path is not taken soon, or is left again.
fn judge(chosen: &[Phase]) -> Result<(), Trouble> {
    for (n, phase) in chosen.iter().enumerate() {
        let what = if PHASES[n] { "the small part" } else { "all" };
        match phase.recovered {
            Some(after) if after <= ROUNDS => {}
            Some(after) => {
                return fail(format!(
                    "phase {n} ({what}): the right path is taken after {after} rounds, more than {ROUNDS}"
                ));
            }
            None => return fail(format!("phase {n} ({what}): the right path is never taken")),
        }
        if phase.wrong * 4 > phase.looks {
            return fail(format!(
                "phase {n} ({what}): the right path is left again for {} of {} looks",
                phase.wrong, phase.looks
            ));
        }
    }
    Ok(())
}

/// Mounts `StackFS` with a policy, goes through all phases, and unmounts it.
fn phases(site: &Site<'_>, policy: &str, watch: bool) -> Result<Vec<Phase>, Trouble> {
    let text = format!(
        "id = \"phases\"\ntitle = \"StackFS\"\nfs_type = \"efuse\"\nbackground = false\n\
         command = [\"stackfs\", \"{{lower}}\", \"{{mountpoint}}\", \"--device\", \"{DEVICE}\", \
         \"--fstype\", \"efuse\", \"--passthrough\", \"--until-invalidated\", \
         \"--policy\", \"{policy}\"{}]\n\
         [ready]\nline = \"ready\"\n[needs]\ndevices = [\"{DEVICE}\"]\n",
        if policy == "passthrough" {
            String::new()
        } else {
            format!(", \"--cache-size\", \"{CACHE_MIB}\"")
        }
    );
    sys::drop_caches(Caches::All)?;
    let mounted = site.mount_with(&plugin("phases", text)?, &site.context("phases"))?;
    let set = match mounted.connection() {
        Some(minor) => attached_to(Dev::new(0, minor))?,
        None => return fail("the mount has no connection"),
    };
    let path = mounted.root().join(NAME);
    let mut file = Planted::open(&path, 0, BLOCK).map_err(AgentError::io(&path, "open"))?;
    // The same blocks under each policy.
    let mut random = ChaCha8Rng::seed_from_u64(0x0ef5);
    let mut done = Vec::new();
    for hot in PHASES {
        site.limit.check()?;
        let watched = watch.then_some(&set);
        done.push(phase(&mut file, &mut random, hot, watched).map_err(|t| t.of(policy))?);
    }
    drop(file);
    mounted.unmount()?;
    Ok(done)
}

fn phase(
    file: &mut Planted,
    random: &mut ChaCha8Rng,
    hot: bool,
    set: Option<&Attached>,
) -> Result<Phase, Trouble> {
    let (from, bytes) = if hot {
        (HOT_FROM, HOT_BYTES)
    } else {
        (0, FILE_BYTES)
    };
    let (from, blocks) = (from / BLOCK as u64, bytes / BLOCK as u64);
    let state = || -> Result<Option<(bool, u64)>, Trouble> {
        let Some(set) = set else { return Ok(None) };
        match set.adaptive()? {
            Some(now) => Ok(Some(((now.on_cache > 0) == hot, now.rounds))),
            None => fail("the policy does not tell how it chooses"),
        }
    };
    let before = state()?.map_or(0, |(_, rounds)| rounds);
    let mut out = Phase::default();
    for _ in 0..READS / LOOK {
        let start = Instant::now();
        for _ in 0..LOOK {
            file.read(from + random.random_range(0..blocks))
                .map_err(AgentError::io(NAME, "read"))?;
        }
        out.time += start.elapsed();
        let Some((right, rounds)) = state()? else {
            continue;
        };
        out.looks += 1;
        if right && out.recovered.is_none() {
            out.recovered = Some(rounds - before);
        } else if !right && out.recovered.is_some() {
            out.wrong += 1;
        }
    }
    Ok(out)
}
