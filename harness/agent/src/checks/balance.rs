//! Requests of one processor's callers go to the channels of others, under each policy, and come back.

use std::collections::BTreeMap;
use std::process::Command;
use std::thread::available_parallelism;

use efuse_bpf::{Dev, Policy, Tunables, ring_counts};

use super::{Site, Trouble, fail, stackfs};
use crate::error::AgentError;
use crate::process;

const MIB: u32 = 4;
/// Jobs and requests of each in flight: more than the daemon's congestion threshold.
const JOBS: u32 = 4;
const DEPTH: u32 = 32;
const POLICIES: [&str; 3] = ["balance", "balance-least", "balance-two"];
const UNBALANCED: &[&str] = &[
    "--workers",
    "{threads}",
    "--allow-other",
    "--transport",
    "ring",
    "--ring-unbalanced",
];

pub(super) fn run(site: &mut Site<'_>) -> Result<String, Trouble> {
    if available_parallelism().map_or(1, usize::from) < 2 {
        return Err(Trouble::Skip(
            "there is one processor, so there is one channel".into(),
        ));
    }
    let mut said = Vec::new();
    let dev = Dev::of_mount(&site.root)?;
    said.push(format!("the kernel {}", away(site, dev, true)?));
    for policy in POLICIES {
        let attached = Policy::load(policy, dev, &Tunables::default()).and_then(Policy::attach)?;
        let moved = away(site, dev, true).map_err(|e| e.of(policy))?;
        drop(attached);
        said.push(format!("{policy} {moved}"));
    }
    site.unmount()?;
    let unbalanced = stackfs("unbalanced", UNBALANCED)?;
    let mounted = site.mount_with(&unbalanced, &site.context("unbalanced"))?;
    site.root = mounted.root().to_owned();
    let dev = Dev::of_mount(&site.root)?;
    let moved = away(site, dev, false).map_err(|e| e.of("unbalanced"))?;
    mounted.unmount()?;
    said.push(format!("nobody {moved}"));
    Ok(format!("moved elsewhere by {}", said.join(", by ")))
}

/// Figures of all channels together.
fn totals(dev: Dev) -> Result<BTreeMap<String, u64>, Trouble> {
    let mut sum = BTreeMap::new();
    for channel in ring_counts(dev)? {
        for (name, value) in channel {
            *sum.entry(name).or_insert(0) += value;
        }
    }
    Ok(sum)
}

/// Loads the channel of one processor and checks what was written; what part of the requests
/// went to other channels, as text.
fn away(site: &Site<'_>, dev: Dev, wanted: bool) -> Result<String, Trouble> {
    let fio = site.agent.program("fio", "install it (apt install fio)")?;
    let before = totals(dev)?;
    let mut command = Command::new(fio);
    command
        .args(["--name=skewed", "--rw=randwrite", "--bs=4k", "--direct=1"])
        .args(["--ioengine=libaio", "--cpus_allowed=0", "--group_reporting"])
        .args(["--verify=crc32c", "--do_verify=1", "--verify_fatal=1"])
        .arg(format!("--directory={}", site.root.display()))
        .arg(format!("--size={MIB}M"))
        .arg(format!("--loops={}", site.effort))
        .arg(format!("--numjobs={JOBS}"))
        .arg(format!("--iodepth={DEPTH}"));
    process::run(&mut command, site.limit)?.success("fio")?;
    let after = totals(dev)?;
    let grown = |name: &str| {
        let of = |counts: &BTreeMap<String, u64>| counts.get(name).copied().unwrap_or(0);
        of(&after) - of(&before)
    };
    for (what, left) in [
        ("in flight", after.get("in_flight")),
        ("waiting", after.get("waiting")),
        ("with replies that made no sense", after.get("bad")),
    ] {
        if left != Some(&0) {
            return fail(format!("{left:?} requests {what} in the end"));
        }
    }
    let (requests, moved) = (grown("requests"), grown("redirected") + grown("migrated"));
    let least = u64::from(JOBS * MIB * site.effort) << 8;
    if requests < least {
        return fail(format!("{requests} requests for at least {least} writes"));
    }
    if (moved > 0) != wanted {
        return fail(format!("{moved} of {requests} requests moved elsewhere"));
    }
    for n in 0..JOBS {
        let path = site.root.join(format!("skewed.{n}.0"));
        std::fs::remove_file(&path).map_err(AgentError::io(&path, "remove"))?;
    }
    Ok(format!("{moved} of {requests}"))
}
