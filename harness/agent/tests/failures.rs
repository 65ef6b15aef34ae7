//! Everything that can go wrong in a cell ends in one clear reason, leaves nothing
//! behind, and the next cell is measured.
#![allow(missing_docs, reason = "tests")]

#[macro_use]
mod common;

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use common::{TIMEOUT, agent, cell, job, leftovers};
use efuse_agent::{Agent, AgentOptions, Cancel, CellResult};
use efuse_model::attempt::{Outcome, Phase};
use efuse_model::cell::Cell;
use efuse_model::counters::Probes;
use efuse_model::test::{Job, Pattern};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Agents of one process share their folder's name: one at a time.
static ONE: Mutex<()> = Mutex::new(());

fn one() -> MutexGuard<'static, ()> {
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failure(result: &CellResult) -> (Phase, &str) {
    match &result.outcome {
        Outcome::Failed { phase, reason } => (*phase, reason),
        Outcome::Done { .. } => panic!("it did not fail: {result:?}"),
    }
}

/// After a failure: nothing is left, no figure is kept, and the next cell works.
fn recovered(agent: &Agent, state: &Path, result: &CellResult) {
    assert_eq!(leftovers(state), Vec::<String>::new());
    assert!(result.raw.is_none());
    let (_, reason) = failure(result);
    assert!(!reason.contains('\n'), "{reason}");
    let next = agent.run_cell(&cell("ext4", job()), Probes::Off, TIMEOUT, &mut |_| ());
    assert!(
        matches!(next.outcome, Outcome::Done { .. }),
        "{:?}",
        next.outcome
    );
}

/// A daemon-backed system that is here, else the reason for skipping.
fn fuse_system(agent: &Agent) -> Option<&'static str> {
    let found = ["libfuse", "fuse"].into_iter().find(|id| {
        agent
            .registry()
            .availability(id, agent.options().place)
            .is_none()
    });
    if found.is_none() {
        eprintln!("skipped: neither libfuse nor fuse is available here");
    }
    found
}

/// The process whose command line has the mount point of this agent.
fn daemon(agent: &Agent) -> Option<Pid> {
    let mountpoint = agent.folder().join("mnt").display().to_string();
    fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let args = fs::read(entry.path().join("cmdline")).ok()?;
        let args = String::from_utf8_lossy(&args).replace('\0', " ");
        (args.contains("passthrough_ll") || args.contains("stackfs"))
            .then_some(args)
            .filter(|a| a.contains(&mountpoint))
            .map(|_| Pid::from_raw(pid))
    })
}

fn endless(system: &str) -> Cell {
    let mut job = job();
    (job.io_bytes, job.runtime_ms) = (None, Some(60_000));
    cell(system, job)
}

#[test]
fn a_daemon_killed_in_mid_cell_is_named() {
    need_host!();
    let _one = one();
    let dir = tempfile::tempdir().unwrap();
    let agent = agent(dir.path(), Cancel::default());
    let Some(system) = fuse_system(&agent) else {
        return;
    };
    let result = agent.run_cell(&endless(system), Probes::Off, TIMEOUT, &mut |phase| {
        if phase == Phase::Measure {
            let pid = daemon(&agent).expect("a running daemon");
            let file = agent.folder().join("lower/files/f0");
            let written = move || fs::metadata(&file).and_then(|m| m.modified()).unwrap();
            let laid_out = written();
            thread::spawn(move || {
                // The measured job is the first that writes.
                while written() == laid_out {
                    thread::sleep(Duration::from_millis(20));
                }
                kill(pid, Signal::SIGKILL).unwrap();
            });
        }
    });
    let (phase, reason) = failure(&result);
    assert_eq!(phase, Phase::Measure);
    assert!(
        reason.contains("daemon") && reason.contains("SIGKILL"),
        "{reason}"
    );
    eprintln!("{reason}");
    recovered(&agent, dir.path(), &result);
}

#[test]
fn a_hanging_daemon_ends_with_the_time_limit() {
    need_host!();
    let _one = one();
    let dir = tempfile::tempdir().unwrap();
    let agent = agent(dir.path(), Cancel::default());
    let Some(system) = fuse_system(&agent) else {
        return;
    };
    for at in [Phase::VerifyRead, Phase::Measure, Phase::Compare] {
        let mut cell = endless(system);
        let Job::Fio(job) = &mut cell.test.job else {
            panic!("a job of fio's");
        };
        (job.runtime_ms, job.io_bytes) = (None, Some(1 << 20));
        let result = agent.run_cell(&cell, Probes::Off, Duration::from_secs(8), &mut |phase| {
            if phase == at {
                kill(daemon(&agent).expect("a running daemon"), Signal::SIGSTOP).unwrap();
            }
        });
        let (phase, reason) = failure(&result);
        assert_eq!(phase, at, "{reason}");
        assert!(reason.contains("not finished after 8 s"), "{reason}");
        recovered(&agent, dir.path(), &result);
    }
}

#[test]
fn an_interrupted_cell_ends_soon() {
    need_host!();
    let _one = one();
    let dir = tempfile::tempdir().unwrap();
    let cancel = Cancel::default();
    let agent = agent(dir.path(), cancel.clone());
    let result = agent.run_cell(&endless("ext4"), Probes::Off, TIMEOUT, &mut |phase| {
        if phase == Phase::Measure {
            let cancel = cancel.clone();
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(300));
                cancel.cancel();
            });
        }
    });
    let (phase, reason) = failure(&result);
    assert_eq!(phase, Phase::Measure);
    assert!(reason.contains("interrupted"), "{reason}");
    assert_eq!(leftovers(dir.path()), Vec::<String>::new());
}

#[test]
fn files_that_do_not_fit_are_refused_with_sizes() {
    need_host!();
    let _one = one();
    let dir = tempfile::tempdir().unwrap();
    let agent = agent(dir.path(), Cancel::default());
    let mut job = job();
    job.file_bytes = 40 << 20;
    let result = agent.run_cell(&cell("ext4", job), Probes::Off, TIMEOUT, &mut |_| ());
    let (phase, reason) = failure(&result);
    assert_eq!(phase, Phase::Layout);
    assert!(reason.contains("2 files of 40 MiB do not fit"), "{reason}");
    recovered(&agent, dir.path(), &result);
}

#[test]
fn changed_bytes_below_fail_the_verified_reads() {
    need_host!();
    let _one = one();
    let dir = tempfile::tempdir().unwrap();
    let agent = agent(dir.path(), Cancel::default());
    let mut cell = cell("ext4", job());
    cell.test.verify.read_bytes = 8 << 20;
    let file = agent.folder().join("lower/files/f1");
    let result = agent.run_cell(&cell, Probes::Off, TIMEOUT, &mut |phase| {
        if phase == Phase::VerifyRead {
            let file = fs::OpenOptions::new().write(true).open(&file).unwrap();
            file.write_all_at(&[b'X'; 2 << 20], 0).unwrap();
            file.sync_all().unwrap();
        }
    });
    let (phase, reason) = failure(&result);
    assert_eq!(phase, Phase::VerifyRead);
    assert!(reason.contains("/mnt/f1"), "{reason}");
    eprintln!("{reason}");
    recovered(&agent, dir.path(), &result);
}

/// A system that shows a copy with one wrong byte: only the comparison can notice.
#[test]
fn a_system_that_shows_other_bytes_has_no_figure() {
    need_host!();
    let _one = one();
    if efuse_agent::environment::find(&common::bins(), "bindfs").is_none() {
        eprintln!("skipped: bindfs is not installed");
        return;
    }
    let (dir, systems) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let script = r#"cp -a "$0" "$0.copy" && printf XX | dd of="$0.copy/f1" bs=1 seek=5000 conv=notrunc status=none && exec bindfs -f -o allow_other --forward-odirect=4096 "$0.copy" "$1""#;
    let toml = format!(
        "id = \"liar\"\ntitle = \"shows other bytes\"\ncommand = [\"sh\", \"-c\", '''{script}''', \"{{lower}}\", \"{{mountpoint}}\"]\n[needs]\ndevices = [\"/dev/fuse\"]\n"
    );
    fs::write(systems.path().join("liar.toml"), toml).unwrap();
    let agent = Agent::new(AgentOptions {
        systems: Some(systems.path().to_owned()),
        bin: efuse_systems::BinDirs::new(["/usr/bin", "/bin"].map(Into::into)),
        ..agent(dir.path(), Cancel::default()).options().clone()
    })
    .unwrap();
    let mut job = job();
    job.pattern = Pattern::RandRead;
    let mut cell = cell("liar", job);
    (cell.test.verify.read_bytes, cell.test.verify.write_bytes) = (0, 0);
    let result = agent.run_cell(&cell, Probes::Off, TIMEOUT, &mut |_| ());
    let (phase, reason) = failure(&result);
    assert_eq!(phase, Phase::Compare, "{reason}");
    assert!(
        reason.contains("f1 differs between liar and the lower"),
        "{reason}"
    );
    assert!(reason.contains("first at offset 4096 "), "{reason}");
    eprintln!("{reason}");
    recovered(&agent, dir.path(), &result);
}

#[test]
fn an_unknown_system_and_a_wrong_job_are_refused() {
    need_host!();
    let _one = one();
    let dir = tempfile::tempdir().unwrap();
    let agent = agent(dir.path(), Cancel::default());
    let result = agent.run_cell(&cell("nope", job()), Probes::Off, TIMEOUT, &mut |_| ());
    assert!(failure(&result).1.contains("unknown system"), "{result:?}");
    let mut wrong = job();
    wrong.engine = "no-such-engine".into();
    let result = agent.run_cell(&cell("ext4", wrong), Probes::Off, TIMEOUT, &mut |_| ());
    let (phase, reason) = failure(&result);
    assert_eq!(phase, Phase::VerifyRead);
    assert!(reason.contains("no-such-engine"), "{reason}");
    let mut wrong = job();
    wrong.options.insert("filename".into(), "/dev/sda".into());
    let result = agent.run_cell(&cell("ext4", wrong), Probes::Off, TIMEOUT, &mut |_| ());
    assert!(
        failure(&result).1.contains("options.filename"),
        "{result:?}"
    );
    recovered(&agent, dir.path(), &result);
}
