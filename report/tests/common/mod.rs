//! Synthetic runs. Every figure in here is invented, every run is named so, and none is
//! ever written outside a test's own temporary folder.
#![allow(dead_code, reason = "each test file uses its own part")]

pub mod choosing;
pub mod counted;
pub mod several;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use efuse_model::attempt::{
    Attempt, Latency, Metrics, OpMetrics, Outcome, Phase, SCHEMA, Verified,
};
use efuse_model::cell::Cell;
use efuse_model::counters::Probes;
use efuse_model::device::Device;
use efuse_model::environment::{Accelerator, Environment, Place};
use efuse_model::plan::{Plan, PlannedSystem, Slot};
use efuse_model::store::RunDir;
use efuse_model::test::{FioJob, Job, Pattern, Test, Verify};

/// A run to be written.
pub struct Fixture {
    pub plan: Plan,
    pub environment: Option<Environment>,
    pub attempts: Vec<Attempt>,
}

/// A system that is measured, with its invented speed relative to `fuse`.
pub fn system(id: &str, skipped: Option<&str>) -> PlannedSystem {
    PlannedSystem {
        id: id.into(),
        title: format!("{id}, as the fixture names it"),
        digest: "0000000000000000".into(),
        twin_of: None,
        skipped: skipped.map(Into::into),
    }
}

/// The second measurement of a system under another name.
pub fn twin(of: &str) -> PlannedSystem {
    PlannedSystem {
        twin_of: Some(of.into()),
        ..system(&format!("{of}@twin"), None)
    }
}

pub fn test(id: &str, pattern: Pattern, published: Option<(&str, u32)>) -> Test {
    Test {
        id: id.into(),
        title: format!("fixture: {}", pattern.as_fio()),
        job: Job::Fio(FioJob {
            engine: "libaio".into(),
            pattern,
            read_percent: 70,
            block_bytes: 4096,
            iodepth: 32,
            jobs: 4,
            direct: true,
            files: 1,
            file_bytes: 64 << 20,
            io_bytes: Some(16 << 20),
            runtime_ms: Some(5000),
            ramp_ms: 500,
            options: BTreeMap::new(),
        }),
        verify: Verify {
            read_bytes: 8 << 20,
            write_bytes: 4 << 20,
            compare: true,
        },
        published: published.map(|(p, n)| (p.to_owned(), n)),
    }
}

pub fn environment(accelerator: Accelerator) -> Environment {
    let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    };
    Environment {
        place: if accelerator == Accelerator::Native {
            Place::Host
        } else {
            Place::Vm
        },
        accelerator,
        clock: efuse_model::environment::Clock::Real,
        kernel: "6.12.0-fixture".into(),
        cpu: "Fixture processor with a name that is as long as they come @ 2.00GHz".into(),
        cpus: 2,
        memory_bytes: 2 << 30,
        cmdline: "console=ttyS0 panic=-1 fixture=yes".into(),
        governor: "none".into(),
        mitigations: map(&[(
            "spectre_v2",
            "Mitigation: fixture; and a long list of further words",
        )]),
        config: map(&[("CONFIG_FUSE_FS", "y"), ("CONFIG_PREEMPT_NONE", "y")]),
        versions: map(&[("fio", "fio-3.33"), ("qemu", "7.2.0")]),
        artifacts: map(&[(
            "efuse.ko",
            "5c1f0000000000000000000000000000000000000000000000000000deadbeef",
        )]),
        revision: "0000000-fixture".into(),
    }
}

impl Fixture {
    /// A plan without attempts.
    pub fn new(systems: Vec<PlannedSystem>, tests: Vec<Test>, repetitions: u32) -> Self {
        let device = Device::NvmeModel {
            size_bytes: 1 << 30,
            latency_ns: 20_000,
        };
        let cells: Vec<Cell> = tests
            .iter()
            .flat_map(|t| {
                systems
                    .iter()
                    .filter(|s| s.skipped.is_none())
                    .map(move |s| (t, s))
            })
            .map(|(t, s)| Cell {
                place: Place::Vm,
                device: device.clone(),
                system: s.id.clone(),
                system_digest: s.digest.clone(),
                test: t.clone(),
            })
            .collect();
        let order = (0..repetitions)
            .flat_map(|repetition| {
                cells.iter().map(move |c| Slot {
                    cell: c.key(),
                    repetition,
                    probes: Probes::Off,
                })
            })
            .collect();
        Self {
            plan: Plan {
                schema: SCHEMA,
                run: "fixture-not-a-measurement".into(),
                workload: "fixture".into(),
                command: "fixture".into(),
                created: "2026-01-02T03:04:05.678Z".parse().unwrap(),
                seed: 42,
                scale: 1.0,
                repetitions,
                probed: 0,
                adaptive: None,
                place: Place::Vm,
                device,
                systems,
                tests,
                cells,
                order,
            },
            environment: Some(environment(Accelerator::Tcg)),
            attempts: vec![],
        }
    }

    /// Plans repetitions with probes for the cells of these tests.
    pub fn plan_probes(&mut self, tests: &[&str], repetitions: u32) {
        let cells = self.plan.cells.iter();
        let cells = cells.filter(|c| tests.contains(&c.test.id.as_str()));
        let slots = cells.flat_map(|c| {
            (0..repetitions).map(|repetition| Slot {
                cell: c.key(),
                repetition,
                probes: Probes::On,
            })
        });
        self.plan.order.extend(slots);
    }

    /// An attempt at a repetition with this outcome.
    pub fn attempt(&mut self, test: &str, system: &str, repetition: u32, outcome: Outcome) {
        self.attempt_as(test, system, repetition, Probes::Off, outcome);
    }

    /// Likewise, with or without probes.
    pub fn attempt_as(
        &mut self,
        test: &str,
        system: &str,
        repetition: u32,
        probes: Probes,
        outcome: Outcome,
    ) {
        let cell = self
            .plan
            .cells
            .iter()
            .find(|c| c.test.id == test && c.system == system)
            .unwrap()
            .key();
        let attempt = self
            .attempts
            .iter()
            .filter(|a| a.cell == cell && a.repetition == repetition && a.probes == probes)
            .count();
        self.attempts.push(Attempt {
            schema: SCHEMA,
            cell,
            system: system.into(),
            test: test.into(),
            repetition,
            probes,
            attempt: u32::try_from(attempt).unwrap(),
            started: "2026-01-02T03:10:00Z".parse().unwrap(),
            wall_ms: 9000,
            session: "fixture-boot".into(),
            command: format!("fio --name={test} --rw=fixture --bs=4k --iodepth=32 --numjobs=4"),
            raw: None,
            outcome,
        });
    }

    /// A finished attempt. A rate of `None` leaves the direction out.
    pub fn done(
        &mut self,
        test: &str,
        system: &str,
        rep: u32,
        read: Option<f64>,
        write: Option<f64>,
    ) {
        self.attempt(test, system, rep, done(read, write));
    }

    pub fn failed(&mut self, test: &str, system: &str, rep: u32, reason: &str) {
        let phase = Phase::VerifyRead;
        let reason = reason.to_owned();
        self.attempt(test, system, rep, Outcome::Failed { phase, reason });
    }

    /// Writes the run as the harness does.
    pub fn write(&self, parent: &Path) -> RunDir {
        let run = RunDir::create(&parent.join(&self.plan.run), &self.plan).unwrap();
        if let Some(e) = &self.environment {
            run.set_environment(e).unwrap();
        }
        for a in &self.attempts {
            run.append(a).unwrap();
        }
        run
    }
}

/// Leaves half a line behind, as a killed writer does.
pub fn tear(run: &RunDir) {
    let path = run.path().join("attempts.jsonl");
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .unwrap();
    file.write_all(br#"{"schema":1,"cell":"01"#).unwrap();
}

pub fn done(read: Option<f64>, write: Option<f64>) -> Outcome {
    Outcome::Done {
        metrics: Box::new(Metrics {
            read: read.map(|iops| op(iops, 0.02)),
            write: write.map(|iops| op(iops, 0.6)),
            operations: None,
            runtime_ms: 5000.0,
            fio_ctx: 1,
            fio_usr_percent: 1.0,
            fio_sys_percent: 1.0,
            counters: None,
        }),
        verified: Verified {
            read_bytes: 8 << 20,
            write_bytes: 4 << 20,
            files_compared: 1,
            bytes_compared: 64 << 20,
            operations: 0,
        },
    }
}

/// Figures that hang together: 128 requests in flight, a share of the wait in submission.
pub fn op(iops: f64, slat_share: f64) -> OpMetrics {
    let lat = 128e6 / iops;
    let latency = |mean: f64| Latency {
        mean_us: mean,
        stddev_us: mean / 3.0,
        min_us: mean / 10.0,
        max_us: mean * 20.0,
        percentiles: vec![],
    };
    let clat = lat * (1.0 - slat_share);
    OpMetrics {
        iops,
        bytes_per_s: iops * 4096.0,
        ios: 1000,
        bytes: 4_096_000,
        slat: latency(lat * slat_share),
        clat: Latency {
            percentiles: vec![
                (50.0, clat * 0.9),
                (90.0, clat * 1.6),
                (99.0, clat * 4.0),
                (99.9, clat * 15.0),
            ],
            ..latency(clat)
        },
        lat: latency(lat),
        clat_bins: Default::default(),
    }
}

/// Every kind of thing that a report can hold: eight systems, three tests, failures,
/// a skipped system, long names, a direction that is missing, a torn line, a twin,
/// repetitions with probes, counters and reasons for missing ones.
pub fn everything(parent: &Path) -> RunDir {
    const LONG: &str = "my-team-s-experimental-daemon-with-a-long-name";
    let speeds = [
        ("ext4", 6.8),
        ("fuse", 1.0),
        ("fuse-passthrough", 4.9),
        ("efuse-bare", 0.99),
        ("libfuse", 0.82),
        ("efuse", 3.4),
        (LONG, 0.61),
    ];
    let mut systems: Vec<_> = speeds.iter().map(|(id, _)| system(id, None)).collect();
    systems.insert(5, system("fuse-uring", Some(
        "needs a kernel with FUSE_IO_URING switched on (/sys/module/fuse/parameters/enable_uring); this one has 6.12",
    )));
    systems.push(twin("fuse"));
    let tests = vec![
        test("T1", Pattern::RandRw, Some(("vm", 1))),
        test("T2", Pattern::RandRw, Some(("physical", 3))),
        test("M1", Pattern::RandRead, None),
    ];
    let mut f = Fixture::new(systems, tests, 3);
    f.plan_probes(&["T1", "T2"], 2);
    for (t, (test, base)) in [("T1", 3712.0), ("T2", 211.0), ("M1", 52_000.0)]
        .into_iter()
        .enumerate()
    {
        for (s, (id, speed)) in speeds.into_iter().enumerate() {
            for rep in 0..3u32 {
                // A fixed pattern of a few per cent, different for each cell.
                let wobble = f64::from((rep * 7 + t as u32 * 5 + s as u32 * 3) % 11) / 100.0 - 0.05;
                // One test whose spread needs a logarithmic axis.
                let slow = if test == "T2" && id == LONG { 0.2 } else { 1.0 };
                let read = base * speed * slow * (1.0 + wobble);
                if test == "T2" && id == "libfuse" {
                    f.failed(test, id, rep, "T2/file.0: crc32c mismatch at offset 1048576 (expected 1a2b3c4d, read 00000000): the system returned other data than was written; see daemon.log");
                    continue;
                }
                if test == "T1" && id == "efuse" && rep == 1 {
                    f.failed(test, id, rep, "the daemon ended with signal 9 <in mid-cell>; its log ends with: \"ready\"");
                }
                let write = (test != "M1" && !(test == "T2" && id == LONG))
                    .then_some(read * 0.43 * (1.0 - wobble));
                f.done(test, id, rep, Some(read), write);
            }
        }
    }
    counted::everything(&mut f);
    let run = f.write(parent);
    tear(&run);
    run
}

/// Sections, headings, captions and tables, with their text but without the charts.
pub fn skeleton(html: &str) -> String {
    let body = html.split_once("<body>").unwrap().1;
    let body = body.split_once("<script>").unwrap().0;
    let mut out = String::new();
    let mut rest = body;
    while let Some(from) = rest.find("<svg") {
        out.push_str(&rest[..from]);
        out.push_str("[chart]");
        rest = rest[from..].split_once("</svg>").unwrap().1;
    }
    out.push_str(rest);
    // One line per row, heading, paragraph and so on; then the markup goes.
    for tag in [
        "tr",
        "h1",
        "h2",
        "h3",
        "h4",
        "p",
        "li",
        "figcaption",
        "caption",
        "dt",
        "pre",
        "summary",
    ] {
        out = out.replace(&format!("<{tag}"), &format!("\n<{tag}"));
    }
    for tag in ["td", "th", "dd"] {
        out = out.replace(&format!("<{tag}"), &format!(" | <{tag}"));
    }
    let mut text = String::new();
    let mut inside = false;
    for c in out.chars() {
        match c {
            '<' => inside = true,
            '>' => inside = false,
            c if !inside => text.push(c),
            _ => {}
        }
    }
    let lines = text.lines().map(str::trim).filter(|l| !l.is_empty());
    lines.collect::<Vec<_>>().join("\n")
}
