//! What every host test of the agent needs.
#![allow(dead_code, missing_docs, reason = "each test binary uses a part of it")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use efuse_agent::{Agent, AgentOptions, Cancel};
use efuse_model::cell::Cell;
use efuse_model::device::Device;
use efuse_model::environment::{Accelerator, Place};
use efuse_model::test::{FioJob, Job, Pattern, Test, Verify};
use efuse_systems::BinDirs;

pub const TIMEOUT: Duration = Duration::from_secs(300);

/// Why host tests cannot run here.
pub fn missing() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("not root".into());
    }
    let bins = BinDirs::new(["/usr/bin", "/usr/sbin", "/bin", "/sbin"].map(PathBuf::from));
    if let Some(tool) = ["fio", "mkfs.ext4"].iter().find(|t| bins.find(t).is_none()) {
        return Some(format!("{tool} is not installed"));
    }
    ["/dev/loop-control", "/dev/fuse"]
        .iter()
        .find(|p| !Path::new(p).exists())
        .map(|p| format!("{p} is not there"))
}

/// Prints why a test does not run.
#[macro_export]
macro_rules! need_host {
    () => {
        if let Some(reason) = common::missing() {
            eprintln!("skipped: {reason}");
            return;
        }
    };
}

/// Where the daemons are: what the project's own build has made, and the control,
/// which is built here. `EFUSE_TEST_BIN` names further folders.
pub fn bins() -> BinDirs {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    for control in efuse_systems::controls::build_controls(scratch).unwrap() {
        if let Err(problem) = control.outcome {
            eprintln!("no control {}: {problem}", control.name);
        }
    }
    let mut dirs: Vec<PathBuf> = std::env::var_os("EFUSE_TEST_BIN")
        .map(|own| std::env::split_paths(&own).collect())
        .unwrap_or_default();
    dirs.extend([
        scratch.join("target/tools"),
        root.join("target/release"),
        root.join("target/tools/bin"),
    ]);
    BinDirs::new(dirs)
}

pub fn agent(state: &Path, cancel: Cancel) -> Agent {
    Agent::new(AgentOptions {
        state: state.to_owned(),
        backing: None,
        place: Place::Host,
        accelerator: Accelerator::Native,
        bin: bins(),
        systems: None,
        cancel,
    })
    .unwrap()
}

pub fn job() -> FioJob {
    FioJob {
        engine: "libaio".into(),
        pattern: Pattern::RandRw,
        read_percent: 70,
        block_bytes: 4096,
        iodepth: 16,
        jobs: 3,
        direct: true,
        files: 2,
        file_bytes: 4 << 20,
        io_bytes: Some(6 << 20),
        runtime_ms: None,
        ramp_ms: 0,
        options: [].into(),
    }
}

pub fn cell(system: &str, job: FioJob) -> Cell {
    Cell {
        place: Place::Host,
        device: Device::Loop {
            size_bytes: 64 << 20,
        },
        system: system.into(),
        system_digest: "test".into(),
        test: Test {
            id: "T".into(),
            title: "host test".into(),
            job: Job::Fio(job),
            verify: Verify {
                read_bytes: 2 << 20,
                write_bytes: 2 << 20,
                compare: true,
            },
            published: None,
        },
    }
}

/// What of ours is mounted or attached under a folder.
pub fn leftovers(state: &Path) -> Vec<String> {
    let state = state.canonicalize().unwrap();
    let mut all: Vec<String> = efuse_agent::sys::mounts()
        .unwrap()
        .into_iter()
        .filter(|m| m.point.starts_with(&state))
        .map(|m| format!("mount {}", m.point.display()))
        .collect();
    let own = format!("efuse-agent-{}", std::process::id());
    for entry in std::fs::read_dir("/sys/block").unwrap().flatten() {
        let file =
            efuse_agent::sys::read(entry.path().join("loop/backing_file")).unwrap_or_default();
        if file.contains(&own) || Path::new(&file).starts_with(&state) {
            all.push(format!("loop {file}"));
        }
    }
    all
}
