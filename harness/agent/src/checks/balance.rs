//! Requests of one processor's callers go to the channels of others, under each policy, and come back.
//!
//! fio finds what was lost: each of its loops writes other bytes and verifies them. What the daemon did twice it
//! cannot see, so the system calls of the daemon are counted: one for each request, and each byte once.

use std::collections::BTreeMap;
use std::process::Command;
use std::thread::available_parallelism;

use efuse_bpf::{Dev, Policy, Tunables, ring_counts};
use efuse_probes::proc::{self, Transfers};
use efuse_systems::Mounted;
use efuse_systems::builtin::{RFUSE, RFUSE_UNBALANCED, StackFs};

use super::{Site, Trouble, fail, grown};
use crate::error::AgentError;
use crate::process;

const MIB: u32 = 4;
/// Jobs and writes of each in flight: each is eight requests, together more than the daemon's congestion threshold.
/// The processor that all submitters share limits what they submit, and so makes requests by the handful.
const JOBS: u32 = 4;
const DEPTH: u32 = 4;
const BALANCED: StackFs = RFUSE.with_options(&["--max-write", "4"]);
const UNBALANCED: StackFs =
    RFUSE_UNBALANCED.with_options(&["--ring-unbalanced", "--max-write", "4"]);
const POLICIES: [&str; 3] = ["balance", "balance-least", "balance-two"];

pub(super) fn run(site: &mut Site<'_>) -> Result<String, Trouble> {
    if available_parallelism().map_or(1, usize::from) < 2 {
        return Err(Trouble::Skip(
            "there is one processor, so there is one channel".into(),
        ));
    }
    site.unmount()?;
    let mut said = Vec::new();
    let mounted = site.mount_with(&BALANCED, &site.context("balanced"))?;
    site.root = mounted.root().to_owned();
    let here = daemon(&mounted)?;
    said.push(format!("the kernel {}", away(site, &here, true)?));
    for policy in POLICIES {
        let attached =
            Policy::load(policy, here.dev, &Tunables::default()).and_then(Policy::attach)?;
        let moved = away(site, &here, true).map_err(|e| e.of(policy))?;
        drop(attached);
        said.push(format!("{policy} {moved}"));
    }
    mounted.unmount()?;
    let mounted = site.mount_with(&UNBALANCED, &site.context("unbalanced"))?;
    site.root = mounted.root().to_owned();
    let moved = away(site, &daemon(&mounted)?, false).map_err(|e| e.of("unbalanced"))?;
    mounted.unmount()?;
    said.push(format!("nobody {moved}"));
    Ok(format!("moved elsewhere by {}", said.join(", by ")))
}

/// Who serves a mount.
struct Daemon {
    dev: Dev,
    pid: u32,
}

fn daemon(mounted: &Mounted) -> Result<Daemon, Trouble> {
    Ok(Daemon {
        dev: Dev::of_mount(mounted.root())?,
        pid: mounted.daemon_pid().expect("it has a daemon"),
    })
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
fn away(site: &Site<'_>, daemon: &Daemon, wanted: bool) -> Result<String, Trouble> {
    let fio = site.agent.program("fio", "install it (apt install fio)")?;
    let dev = daemon.dev;
    let before = (totals(dev)?, proc::transfers(daemon.pid)?);
    let mut command = Command::new(fio);
    command
        .args(["--name=skewed", "--rw=randwrite", "--bs=32k", "--direct=1"])
        .args(["--ioengine=libaio", "--cpus_allowed=0", "--group_reporting"])
        .args(["--verify=crc32c", "--do_verify=1", "--verify_fatal=1"])
        .arg("--verify_state_save=0")
        .arg(format!("--directory={}", site.root.display()))
        .arg(format!("--size={MIB}M"))
        .arg(format!("--loops={}", site.effort))
        .arg(format!("--numjobs={JOBS}"))
        .arg(format!("--iodepth={DEPTH}"));
    process::run(&mut command, site.limit)?.success("fio")?;
    let (after, done) = (totals(dev)?, proc::transfers(daemon.pid)?);
    let (before, done) = (before.0, done.since(before.1));
    let grown = |name| grown(&before, &after, name);
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
    let least = (u64::from(JOBS * MIB) * u64::from(site.effort)) << 8;
    if requests < least {
        return fail(format!("{requests} requests for at least {least} writes"));
    }
    let bytes = least << 12;
    let once = Transfers {
        reads: least,
        read_bytes: bytes,
        writes: least,
        written_bytes: bytes,
    };
    if done != once {
        return fail(format!("the daemon did {done:?} for {once:?}"));
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
