//! Whole cells on the host: real devices, real fio, real mounts.
#![allow(missing_docs, reason = "tests")]

#[macro_use]
mod common;

use common::{TIMEOUT, agent, cell, job, leftovers};
use efuse_agent::Cancel;
use efuse_model::attempt::{Outcome, Phase};
use efuse_model::counters::{Counters, Probes, Switches};
use efuse_model::test::Pattern;

/// Agents of one process share loop files' names: one at a time.
static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn one() -> std::sync::MutexGuard<'static, ()> {
    ONE.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[test]
fn every_available_system_gives_verified_figures() {
    need_host!();
    let _one = one();
    let dir = tempfile::tempdir().unwrap();
    let agent = agent(dir.path(), Cancel::default());
    let ids: Vec<String> = agent.registry().iter().map(|s| s.id().to_owned()).collect();
    let mut measured = 0;
    for (id, why_not) in agent.probe(&ids) {
        if let Some(reason) = why_not {
            eprintln!("skipped: {id}: {reason}");
            continue;
        }
        let mut phases = Vec::new();
        let result = agent.run_cell(&cell(&id, job()), Probes::Off, TIMEOUT, &mut |p| {
            phases.push(p);
        });
        let Outcome::Done { metrics, verified } = result.outcome else {
            panic!("{id}: {:?}", result.outcome);
        };
        assert_eq!(phases, Phase::ALL, "{id}");
        assert_eq!(verified.files_compared, 2, "{id}");
        assert_eq!(verified.bytes_compared, 8 << 20, "{id}");
        assert!(
            verified.read_bytes >= (2 << 20) - 3 * 4096,
            "{id}: {verified:?}"
        );
        assert!(
            verified.write_bytes >= (2 << 20) - 3 * 4096,
            "{id}: {verified:?}"
        );
        let counters = metrics.counters.unwrap();
        assert_eq!(counters.missing, Vec::<String>::new(), "{id}");
        same_switches(&id, metrics.fio_ctx, &counters);
        assert_eq!(counters.daemon_switches.is_some(), id != "ext4", "{id}");
        assert!(
            counters.cpu.busy_s >= 0.0 && counters.cpu.fio_s.unwrap() > 0.0,
            "{id}"
        );
        let (read, write) = (metrics.read.unwrap(), metrics.write.unwrap());
        assert!(read.bytes + write.bytes >= (6 << 20) - 3 * 4096, "{id}");
        assert!(read.ios > write.ios, "{id}: 70 % reads");
        assert_eq!(read.clat.percentiles.len(), 4, "{id}");
        assert!(
            result.command.contains("--rwmixread=70"),
            "{}",
            result.command
        );
        assert!(result.raw.is_some());
        eprintln!(
            "{id}: {:.0}/{:.0} IOPS, {} ms in all, verified {verified:?}",
            read.iops, write.iops, result.wall_ms
        );
        measured += 1;
    }
    assert!(measured >= 1);
    assert_eq!(leftovers(dir.path()), Vec::<String>::new());
    drop(agent);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// With probes a cell has the same figures and checks; what the kernel here does not let
/// them count is said.
#[test]
fn probes_count_or_say_why_not() {
    need_host!();
    let _one = one();
    let dir = tempfile::tempdir().unwrap();
    let agent = agent(dir.path(), Cancel::default());
    for id in ["ext4", "fuse"] {
        if let (_, Some(reason)) = &agent.probe(&[id.to_owned()])[0] {
            eprintln!("skipped: {id}: {reason}");
            continue;
        }
        let result = agent.run_cell(&cell(id, job()), Probes::On, TIMEOUT, &mut |_| ());
        let Outcome::Done { metrics, .. } = result.outcome else {
            panic!("{id}: {:?}", result.outcome);
        };
        let counters = metrics.counters.unwrap();
        same_switches(id, metrics.fio_ctx, &counters);
        let said = |what: &str| counters.missing.iter().any(|m| m.contains(what));
        eprintln!("{id}: {:?} {:?}", counters.fio_syscalls, counters.missing);
        assert!(
            counters.fio_syscalls.is_some() || said("system calls"),
            "{id}"
        );
        let requests = !counters.requests.is_empty() || said("FUSE requests");
        assert_eq!(requests, id == "fuse", "{id}");
    }
    assert_eq!(leftovers(dir.path()), Vec::<String>::new());
}

/// fio's own count of its switches, perf's and `/proc`'s are the same within 2 %, or
/// within the few that each job makes on its way to the end of the phase.
fn same_switches(id: &str, ctx: u64, counters: &Counters) {
    let Switches { perf, proc } = counters.fio_switches;
    let (perf, proc) = (perf.unwrap(), proc.unwrap());
    eprintln!("{id}: fio's switches: its own count {ctx}, perf {perf}, /proc {proc}");
    let slack = (ctx / 50).max(2 * u64::from(job().jobs));
    assert!(
        perf.abs_diff(ctx) <= slack && proc.abs_diff(ctx) <= slack,
        "{id}"
    );
    let system = counters.system_switches;
    assert!(
        system.perf.unwrap() >= perf && system.proc.unwrap() >= proc,
        "{id}"
    );
}

#[test]
fn every_pattern_and_engine_runs_on_ext4() {
    need_host!();
    let _one = one();
    let dir = tempfile::tempdir().unwrap();
    let agent = agent(dir.path(), Cancel::default());
    let mut small_files = job();
    (small_files.files, small_files.file_bytes, small_files.jobs) = (20, 512 << 10, 16);
    let mut big_blocks = job();
    (
        big_blocks.block_bytes,
        big_blocks.iodepth,
        big_blocks.files,
        big_blocks.file_bytes,
    ) = (1 << 20, 4, 1, 16 << 20);
    let mut timed = job();
    (timed.io_bytes, timed.runtime_ms, timed.ramp_ms) = (None, Some(300), 50);
    let mut buffered = job();
    (
        buffered.engine,
        buffered.direct,
        buffered.pattern,
        buffered.iodepth,
    ) = ("psync".into(), false, Pattern::Write, 1);
    let mut reads = job();
    (reads.pattern, reads.block_bytes, reads.files) = (Pattern::Read, 65536, 1);
    let mut sectors = job();
    (sectors.pattern, sectors.block_bytes) = (Pattern::RandRead, 512);
    for (name, job) in [
        ("small files", small_files),
        ("big blocks", big_blocks),
        ("timed", timed),
        ("buffered", buffered),
        ("sequential reads", reads),
        ("sectors", sectors),
    ] {
        let result = agent.run_cell(&cell("ext4", job), Probes::Off, TIMEOUT, &mut |_| ());
        assert!(
            matches!(result.outcome, Outcome::Done { .. }),
            "{name}: {:?}",
            result.outcome
        );
        eprintln!("{name}: {} ms", result.wall_ms);
    }
    assert_eq!(leftovers(dir.path()), Vec::<String>::new());
}
