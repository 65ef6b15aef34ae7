//! Plans and attempts for unit tests.

use efuse_model::attempt::{Attempt, Metrics, OpMetrics, Outcome, Phase, SCHEMA, Verified};
use efuse_model::cell::Cell;
use efuse_model::device::Device;
use efuse_model::environment::{Accelerator, Clock, Environment, Place};
use efuse_model::plan::{Plan, PlannedSystem};
use efuse_model::test::{FioJob, Job, Pattern, Test, Verify};

use crate::planning::{self, Request};

/// A request with tests T1 and T2.
pub fn request(systems: &[&str], repetitions: u32, seed: u64) -> Request {
    Request {
        run: "run".into(),
        workload: "w".into(),
        command: "eval run w".into(),
        seed,
        scale: 1.0,
        repetitions,
        probed: 0,
        adaptive: None,
        place: Place::Vm,
        device: Device::Brd {
            size_bytes: 1 << 30,
        },
        systems: systems
            .iter()
            .map(|id| PlannedSystem {
                id: (*id).into(),
                title: format!("The {id}"),
                digest: "d".into(),
                twin_of: None,
                skipped: None,
            })
            .collect(),
        tests: vec![test("T1"), test("T2")],
    }
}

/// Its plan.
pub fn plan(systems: &[&str], repetitions: u32, seed: u64) -> Plan {
    planning::build(request(systems, repetitions, seed)).unwrap()
}

fn test(id: &str) -> Test {
    Test {
        id: id.into(),
        title: format!("Test {id}"),
        job: Job::Fio(FioJob {
            engine: "libaio".into(),
            pattern: Pattern::RandRw,
            read_percent: 70,
            block_bytes: 4096,
            iodepth: 8,
            jobs: 1,
            direct: true,
            files: 1,
            file_bytes: 64 << 20,
            io_bytes: None,
            runtime_ms: Some(1000),
            ramp_ms: 0,
            options: std::collections::BTreeMap::new(),
        }),
        verify: Verify {
            read_bytes: 1 << 20,
            write_bytes: 1 << 20,
            compare: true,
        },
        published: None,
    }
}

/// A finished outcome with these read and write IOPS.
pub fn done(read: f64, write: f64) -> Outcome {
    let op = |iops| {
        Some(OpMetrics {
            iops,
            ..OpMetrics::default()
        })
    };
    Outcome::Done {
        metrics: Box::new(Metrics {
            read: op(read),
            write: op(write),
            ..Metrics::default()
        }),
        verified: Verified {
            read_bytes: 100,
            write_bytes: 50,
            files_compared: 1,
            operations: 0,
            bytes_compared: 200,
        },
    }
}

/// A failed one.
pub fn failed(reason: &str) -> Outcome {
    Outcome::Failed {
        phase: Phase::Measure,
        reason: reason.into(),
    }
}

/// An attempt at a cell.
pub fn attempt(cell: &Cell, repetition: u32, attempt: u32, outcome: Outcome) -> Attempt {
    Attempt {
        schema: SCHEMA,
        cell: cell.key(),
        system: cell.system.clone(),
        test: cell.test.id.clone(),
        repetition,
        probes: efuse_model::counters::Probes::Off,
        attempt,
        started: jiff::Timestamp::UNIX_EPOCH,
        wall_ms: 1000,
        session: "s".into(),
        command: String::new(),
        raw: None,
        outcome,
    }
}

/// An environment.
pub fn environment() -> Environment {
    Environment {
        place: Place::Vm,
        accelerator: Accelerator::Tcg,
        clock: Clock::Real,
        kernel: "6.12".into(),
        cpu: "cpu".into(),
        cpus: 2,
        memory_bytes: 1 << 30,
        cmdline: String::new(),
        governor: "none".into(),
        mitigations: [].into(),
        config: [].into(),
        versions: [("fio".to_owned(), "3".to_owned())].into(),
        artifacts: [].into(),
        revision: "abc".into(),
    }
}
