//! A project with made-up runs, and the program on it.
#![allow(dead_code, reason = "each test uses a part")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use efuse_eval::planning::{self, Request};
use efuse_model::attempt::{Attempt, Metrics, OpMetrics, Outcome, SCHEMA, Verified};
use efuse_model::cell::Cell;
use efuse_model::counters::Probes;
use efuse_model::device::Device;
use efuse_model::environment::Place;
use efuse_model::plan::{Plan, PlannedSystem};
use efuse_model::store::RunDir;
use efuse_model::test::{FioJob, Job, Pattern, Test, Verify};

/// An empty project.
pub struct Project {
    dir: tempfile::TempDir,
}

/// How a command line ended: status, standard output, standard error.
pub type Ended = (i32, String, String);

impl Project {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("Cargo.toml"), "").unwrap();
        fs::write(dir.path().join("Justfile"), "").unwrap();
        Self { dir }
    }

    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    pub fn run_folder(&self, name: &str) -> PathBuf {
        self.root().join("results/runs").join(name)
    }

    /// Runs a command line.
    pub fn eval(&self, line: &str) -> Ended {
        let mut command = Command::new(env!("CARGO_BIN_EXE_eval"));
        command
            .args(line.split_whitespace())
            .env("EFUSE_ROOT", self.root());
        ended(&mut command, line)
    }

    /// A run with the environment and attempts to be added.
    pub fn create(&self, plan: &Plan) -> RunDir {
        RunDir::create(&self.run_folder(&plan.run), plan).unwrap()
    }
}

/// Runs `eval`, which never panics.
pub fn ended(command: &mut Command, line: &str) -> Ended {
    let output = command.env_remove("EFUSE_SYSTEMS").output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let err = text(output.stderr);
    assert!(!err.contains("panicked"), "{line}: {err}");
    (output.status.code().unwrap(), text(output.stdout), err)
}

pub fn system(id: &str, skipped: Option<&str>) -> PlannedSystem {
    PlannedSystem {
        id: id.into(),
        title: id.into(),
        digest: "d".into(),
        twin_of: id.strip_suffix("@twin").map(str::to_owned),
        skipped: skipped.map(str::to_owned),
    }
}

pub fn plan(name: &str, repetitions: u32, systems: Vec<PlannedSystem>, test: Test) -> Plan {
    planning::build(Request {
        run: name.into(),
        workload: "w".into(),
        command: "eval run w".into(),
        seed: 1,
        scale: 1.0,
        repetitions,
        probed: 0,
        adaptive: None,
        place: Place::Vm,
        device: Device::Brd {
            size_bytes: 1 << 30,
        },
        systems,
        tests: vec![test],
    })
    .unwrap()
}

/// Random reads.
pub fn test(id: &str, block_bytes: u64) -> Test {
    Test {
        id: id.into(),
        title: "reads".into(),
        job: Job::Fio(FioJob {
            engine: "libaio".into(),
            pattern: Pattern::RandRead,
            read_percent: 100,
            block_bytes,
            iodepth: 1,
            jobs: 1,
            direct: true,
            files: 1,
            file_bytes: 1 << 20,
            io_bytes: None,
            runtime_ms: Some(1000),
            ramp_ms: 0,
            options: BTreeMap::new(),
        }),
        verify: Verify {
            read_bytes: 0,
            write_bytes: 0,
            compare: true,
        },
        published: None,
    }
}

pub fn attempt(cell: &Cell, repetition: u32, outcome: Outcome) -> Attempt {
    Attempt {
        schema: SCHEMA,
        cell: cell.key(),
        system: cell.system.clone(),
        test: cell.test.id.clone(),
        repetition,
        probes: Probes::Off,
        attempt: 0,
        started: jiff::Timestamp::UNIX_EPOCH,
        wall_ms: 10,
        session: "s".into(),
        command: "fio".into(),
        raw: None,
        outcome,
    }
}

/// What reads measured.
pub fn done(read: OpMetrics) -> Outcome {
    Outcome::Done {
        metrics: Box::new(Metrics {
            read: Some(read),
            ..Metrics::default()
        }),
        verified: Verified::default(),
    }
}
