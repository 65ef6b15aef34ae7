//! `efuse attach`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use efuse_bpf::{Dev, Policy, Tunables, adaptive_tunable, attached_to};

use super::pin_path;

/// Attach programs to a mount.
///
/// They stay until `efuse detach` or until the mount is gone, and take effect at once.
#[derive(Debug, Args)]
pub(crate) struct Attach {
    /// The mount point.
    mount: PathBuf,
    /// A built-in policy (metadata, extfuse, passthrough, cache, prelim; with rings balance, balance-least,
    /// balance-two), or the path of a compiled one.
    #[arg(long, value_name = "NAME", default_value = "metadata")]
    policy: String,
    /// Nobody but the daemon changes the tree, and all changes come through this mount or are
    /// announced by the daemon: believe what was learnt until then, whatever its timeouts.
    #[arg(long)]
    until_invalidated: bool,
    /// Believe extended attributes and targets of links for this long; the protocol has no timeout
    /// for them, and without this or --until-invalidated they are always asked for.
    #[arg(long, value_name = "SECS", value_parser = seconds)]
    xattr_timeout: Option<Duration>,
    /// The daemon decides by who asks, although the kernel checks permissions (bindfs --mirror):
    /// keep what each user and group was told apart.
    #[arg(long)]
    per_caller: bool,
    /// Memory for cached data, MiB, where the policy has a cache.
    #[arg(long, value_name = "MIB")]
    cache_size: Option<u32>,
    /// A constant of the adaptive choice between cache and backing file, where the policy makes one:
    /// probe, spread, round, take, keep, warm, largest, idle (docs/programming.md); may be given more
    /// than once.
    #[arg(long, value_name = "NAME=NUMBER", value_parser = adaptive_tunable)]
    adaptive: Vec<(String, u32)>,
    /// Entries that a map has room for; may be given more than once.
    #[arg(long, value_name = "MAP=ENTRIES", value_parser = map_entries)]
    map_size: Vec<(String, u32)>,
    /// Put it in the place of what is attached, without a moment between.
    #[arg(long)]
    replace: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn map_entries(text: &str) -> Result<(String, u32), String> {
    let (name, entries) = text
        .split_once('=')
        .ok_or_else(|| "not of the form MAP=ENTRIES".to_owned())?;
    match entries.parse() {
        Ok(entries) if entries > 0 => Ok((name.to_owned(), entries)),
        _ => Err(format!("{entries} is no number of entries above 0")),
    }
}

pub(crate) fn run(verb: &Attach) -> Result<()> {
    let dev = Dev::of_mount(&verb.mount)?;
    let tunables = Tunables {
        until_invalidated: verb.until_invalidated,
        xattr_ttl_ns: verb.xattr_timeout.map_or(0, |time| {
            u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 2)
        }),
        per_caller: verb.per_caller,
        cache_bytes: verb.cache_size.map(|mib| u64::from(mib) << 20),
        adaptive: verb.adaptive.clone(),
        map_entries: verb.map_size.clone(),
    };
    let policy = Policy::load(&verb.policy, dev, &tunables)?;
    let pin = pin_path(dev);
    if verb.replace {
        policy.replace(&pin).with_context(|| {
            format!(
                "cannot replace what is attached to {}",
                verb.mount.display()
            )
        })?;
        return Ok(());
    }
    // A pin of an earlier mount that had the same number would be in the way.
    if pin.exists() && attached_to(dev).is_err() {
        std::fs::remove_file(&pin).with_context(|| format!("cannot remove {}", pin.display()))?;
    }
    policy.attach()?.pin(&pin)?;
    Ok(())
}
