//! `gate`, `compare` and `baseline` on stored runs and on bad input: messages, exit
//! statuses, files. The figures are made up here, to be judged and not to be believed.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use common::{Project, plan, system, test};
use efuse_model::attempt::{Latency, OpMetrics, Outcome};
use efuse_model::environment::{Accelerator, Clock, Environment, Place};

/// A run to be stored: each system's speed, with a wobble of half a percent.
struct Made<'a> {
    name: &'a str,
    speeds: &'a [(&'a str, f64)],
    repetitions: u32,
    kernel: &'a str,
    block_bytes: u64,
    test: &'a str,
}

impl Default for Made<'_> {
    fn default() -> Self {
        Self {
            name: "old",
            speeds: &[("fuse", 100.0), ("efuse", 300.0)],
            repetitions: 8,
            kernel: "6.12",
            block_bytes: 4096,
            test: "T1",
        }
    }
}

impl Project {
    fn fails(&self, line: &str, status: i32, part: &str) {
        let (code, out, err) = self.eval(line);
        assert_eq!(code, status, "{line}: {out}{err}");
        assert!(err.contains(part), "{line}: {err}");
    }

    fn store(&self, made: &Made<'_>) {
        let systems = made.speeds.iter().map(|(id, _)| system(id, None)).collect();
        let test = test(made.test, made.block_bytes);
        let plan = plan(made.name, made.repetitions, systems, test);
        let run = self.create(&plan);
        run.set_environment(&environment(made.kernel)).unwrap();
        for (n, slot) in plan.order.iter().enumerate() {
            let cell = plan.cell(&slot.cell).unwrap();
            let speed = made.speeds.iter().find(|(id, _)| *id == cell.system);
            let wobble = 1.0 + (n % 5) as f64 / 1000.0;
            let outcome = done(speed.unwrap().1 * wobble);
            run.append(&common::attempt(cell, slot.repetition, outcome))
                .unwrap();
        }
    }

    /// Changes the stored attempts' text.
    fn edit(&self, name: &str, change: impl Fn(&str) -> String) {
        let path = self.run_folder(name).join("attempts.jsonl");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, change(&text)).unwrap();
    }

    fn verdict(&self, name: &str) -> serde_json::Value {
        let text = fs::read_to_string(self.run_folder(name).join("verdict.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }
}

fn done(iops: f64) -> Outcome {
    common::done(OpMetrics {
        iops,
        ios: 1000,
        clat: Latency {
            mean_us: 1e6 / iops,
            percentiles: vec![(99.0, 2e6 / iops)],
            ..Latency::default()
        },
        ..OpMetrics::default()
    })
}

fn environment(kernel: &str) -> Environment {
    Environment {
        place: Place::Vm,
        accelerator: Accelerator::Tcg,
        clock: Clock::Real,
        kernel: kernel.into(),
        cpu: "cpu".into(),
        cpus: 2,
        memory_bytes: 1 << 30,
        cmdline: String::new(),
        governor: "none".into(),
        mitigations: BTreeMap::new(),
        config: BTreeMap::new(),
        versions: BTreeMap::new(),
        artifacts: BTreeMap::new(),
        revision: "abcdef123456".into(),
    }
}

fn calls(verdict: &serde_json::Value) -> Vec<(String, String)> {
    let text = |v: &serde_json::Value| v.as_str().unwrap().to_owned();
    let judged = verdict["judged"].as_array().unwrap();
    judged
        .iter()
        .map(|j| (text(&j["metric"]), text(&j["call"])))
        .collect()
}

#[test]
fn a_slower_run_is_a_regression_and_an_equal_one_passes() {
    let project = Project::new();
    project.store(&Made::default());
    let (code, out, err) = project.eval("baseline save first old");
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("run old"), "{out}");
    let folder = project.root().join("results/baselines/first");
    assert!(folder.join("environment.json").is_file());
    assert!(!folder.join("raw").exists());
    let (_, list, _) = project.eval("baseline list");
    assert!(
        list.contains("first") && list.contains("abcdef123456"),
        "{list}"
    );

    // Everything twice as slow: the machine. efuse 20 % slower beside fuse: the change.
    for (name, speeds, status, call) in [
        ("same", [("fuse", 50.0), ("efuse", 150.0)], 0, "same"),
        ("worse", [("fuse", 50.0), ("efuse", 120.0)], 1, "regression"),
        ("better", [("fuse", 50.0), ("efuse", 180.0)], 0, "improved"),
    ] {
        project.store(&Made {
            name,
            speeds: &speeds,
            ..Made::default()
        });
        let (code, out, err) = project.eval(&format!("gate {name} --baseline first"));
        assert_eq!(code, status, "{name}: {out}{err}");
        let verdict = project.verdict(name);
        let calls = calls(&verdict);
        assert_eq!(calls.len(), 3, "{calls:?}");
        assert!(calls.iter().all(|(_, c)| c == call), "{name}: {calls:?}");
        let markdown = fs::read_to_string(project.run_folder(name).join("verdict.md")).unwrap();
        assert!(
            markdown.contains("| T1 | efuse | read-iops |"),
            "{markdown}"
        );
    }
    // By revision, and a page.
    let page = project.root().join("compare.html");
    let line = format!("compare abcdef1 worse --html {}", page.display());
    let (code, out, err) = project.eval("compare abcdef1 worse --no-page");
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("run worse against baseline first"), "{out}");
    if report_is_built() {
        let (code, out, err) = project.eval(&line);
        assert_eq!(code, 0, "{out}{err}");
    }
    if let Some(html) = drawn(&page) {
        assert!(html.contains("class=\"regression\""));
        assert!(html.contains("run worse against baseline first"));
    }
}

fn report_is_built() -> bool {
    Path::new(env!("CARGO_BIN_EXE_eval"))
        .with_file_name("report")
        .is_file()
}

/// A page, if the program that draws it is built; a build of the whole project has it.
fn drawn(page: &Path) -> Option<String> {
    if !report_is_built() {
        assert!(
            std::env::var_os("EFUSE_CI").is_none_or(|v| v != "1"),
            "report is missing and EFUSE_CI=1: cargo build --release -p efuse-report"
        );
        eprintln!("skipped the page: report is not built (cargo build --release -p efuse-report)");
        return None;
    }
    Some(fs::read_to_string(page).unwrap())
}

#[test]
fn a_history_never_mixes_environments_or_jobs() {
    let project = Project::new();
    project.fails("history --no-page", 1, "there is no baseline");
    let keep = |made: &Made<'_>| {
        project.store(made);
        let line = format!("baseline save {} {}", made.name, made.name);
        assert_eq!(project.eval(&line).0, 0);
    };
    let made = Made::default;
    keep(&made());
    keep(&Made {
        name: "later",
        speeds: &[("fuse", 100.0), ("efuse", 400.0)],
        ..made()
    });
    keep(&Made {
        name: "kernel",
        kernel: "6.13",
        ..made()
    });
    keep(&Made {
        name: "block",
        block_bytes: 8192,
        ..made()
    });
    project.fails("history --no-page --base fues", 1, "did you mean fuse?");
    project.fails("history --metric iopz", 2, "did you mean iops?");
    let (code, out, err) = project.eval("--json history --no-page --metric read-iops");
    assert_eq!(code, 0, "{err}");
    let document: efuse_model::document::History = serde_json::from_str(&out).unwrap();
    let panels: Vec<_> = document
        .environments
        .iter()
        .map(|p| p.points.len())
        .collect();
    assert_eq!(panels, [3, 1]);
    // T1 of 4 KiB is a line of two points, T1 of 8 KiB one of its own.
    let lines: Vec<Vec<_>> = document.environments[0]
        .series
        .iter()
        .map(|s| {
            s.values
                .iter()
                .map(|v| (v.point, v.ratio.unwrap().round()))
                .collect()
        })
        .collect();
    assert_eq!(lines, [vec![(0, 3.0), (1, 4.0)], vec![(2, 3.0)]]);
    // The page, if it can be drawn here, from what `eval` itself hands over.
    let page = project.root().join("history.html");
    if report_is_built() {
        let (code, out, err) = project.eval(&format!("history --html {}", page.display()));
        assert_eq!(code, 0, "{out}{err}");
    }
    if let Some(html) = drawn(&page) {
        assert!(html.contains("kernel 6.13") && html.contains("<svg class=\"chart\""));
    }
}

#[test]
fn systems_of_one_run_are_judged_against_its_base_and_its_floor() {
    let project = Project::new();
    let speeds = [("fuse", 100.0), ("fuse@twin", 100.0), ("efuse", 80.0)];
    project.store(&Made {
        speeds: &speeds,
        ..Made::default()
    });
    let (code, out, err) = project.eval("gate old");
    assert_eq!(code, 1, "{out}{err}");
    let verdict = project.verdict("old");
    assert!(
        verdict["judged"]
            .as_array()
            .unwrap()
            .iter()
            .all(|j| j["system"] == "efuse")
    );
    assert!(
        verdict["judged"][0]["floor"].as_f64().unwrap() < 0.01,
        "{verdict}"
    );
    let (code, out, err) = project.eval("gate old --systems fuse@twin");
    assert_eq!(code, 0, "{out}{err}");
    // A twin as far off as the system: that is noise.
    let speeds = [("fuse", 100.0), ("fuse@twin", 79.0), ("efuse", 80.0)];
    project.store(&Made {
        name: "noisy",
        speeds: &speeds,
        ..Made::default()
    });
    let (code, out, err) = project.eval("gate noisy");
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("(A/A)"), "{out}");
}

#[test]
fn a_system_that_could_not_be_measured_is_not_judged_equal() {
    let project = Project::new();
    let speeds = [("fuse", 100.0), ("efuse", 100.0)];
    project.store(&Made {
        speeds: &speeds,
        ..Made::default()
    });
    assert_eq!(project.eval("gate old").0, 0);
    let path = project.run_folder("old").join("plan.json");
    let mut plan: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let mut absent = plan["systems"][1].clone();
    absent["id"] = "rfuse".into();
    absent["skipped"] = "there is no module".into();
    plan["systems"].as_array_mut().unwrap().push(absent);
    fs::write(&path, plan.to_string()).unwrap();
    project.fails("gate old", 2, "rfuse was not measured: there is no module");
    assert_eq!(project.eval("gate old --systems efuse").0, 0);
}

#[test]
fn what_cannot_be_judged_is_said_and_exits_with_2() {
    let project = Project::new();
    project.fails("gate", 2, "there is no run");
    project.store(&Made::default());
    project.fails("gate old --baseline first", 2, "there are none yet");
    assert_eq!(project.eval("baseline save first old").0, 0);
    project.fails("gate old --baseline frist", 2, "did you mean first?");
    project.fails("gate odl --baseline first", 2, "did you mean old?");
    project.fails(
        "gate old --baseline first",
        2,
        "cannot be compared with itself",
    );
    project.fails("compare old old", 2, "cannot be compared with itself");
    project.fails(
        "compare old nothing",
        2,
        "unknown run, baseline or revision",
    );
    project.fails(
        "gate old --systems fuse",
        2,
        "cannot be compared with itself",
    );
    project.fails("gate old --systems efsue", 2, "did you mean efuse?");
    project.fails("gate old --base ext4", 2, "unknown system of this run");
    assert_eq!(project.verdict("old")["outcome"], "could-not-judge");

    let other = |made: &Made<'_>, part: &str| {
        project.store(made);
        project.fails(&format!("gate {} --baseline first", made.name), 2, part);
        assert_eq!(project.verdict(made.name)["outcome"], "could-not-judge");
    };
    let made = Made::default;
    other(
        &Made {
            name: "kernel",
            kernel: "6.13",
            ..made()
        },
        "kernel: \"6.13\", was \"6.12\"",
    );
    other(
        &Made {
            name: "once",
            repetitions: 1,
            ..made()
        },
        "could not judge 3 of 3 comparisons",
    );
    other(
        &Made {
            name: "block",
            block_bytes: 8192,
            ..made()
        },
        "another job",
    );
    other(
        &Made {
            name: "workload",
            test: "T9",
            ..made()
        },
        "no test in common",
    );
    let alone = [("fuse", 100.0)];
    other(
        &Made {
            name: "alone",
            speeds: &alone,
            ..made()
        },
        "efuse was measured in baseline first",
    );
    let (_, out, _) = project.eval("gate once --baseline first");
    assert!(out.contains("insufficient"), "{out}");
    project.fails("gate once", 2, "one repetition says nothing about chance");
    // A baseline that was cut off.
    assert_eq!(project.eval("baseline save cut old").0, 0);
    let plan = project.root().join("results/baselines/cut/plan.json");
    let text = fs::read_to_string(&plan).unwrap();
    fs::write(&plan, &text[..text.len() / 2]).unwrap();
    project.fails("gate workload --baseline cut", 2, "plan.json: EOF");
    let (code, out, err) = project.eval("history --no-page");
    assert_eq!(code, 0, "{err}");
    assert!(
        out.contains("note") && out.contains("cut/plan.json"),
        "{out}"
    );
}

#[test]
fn empty_and_incomplete_runs_are_neither_judged_nor_kept() {
    let project = Project::new();
    project.store(&Made::default());
    assert_eq!(project.eval("baseline save first old").0, 0);
    project.fails("baseline save first old", 1, "a baseline first already");
    project.fails("baseline save ../x old", 1, "cannot name");
    project.store(&Made {
        name: "empty",
        ..Made::default()
    });
    project.edit("empty", |_| String::new());
    project.fails("gate empty --baseline first", 2, "empty: it has no figure");
    project.fails("gate empty", 2, "empty: it has no figure");
    project.fails("baseline save second empty", 1, "is empty");
    project.store(&Made {
        name: "half",
        ..Made::default()
    });
    project.edit("half", |text| {
        text.lines().take(14).map(|l| format!("{l}\n")).collect()
    });
    project.fails("baseline save second half", 1, "is not complete");
    project.fails("gate half --baseline first", 2, "2 slots have no figure");
}

/// A figure that is NaN is `null` in JSON, which is no attempt.
#[test]
fn damaged_lines_and_missing_figures_are_named_and_nothing_else_is_lost() {
    let project = Project::new();
    project.store(&Made::default());
    assert_eq!(project.eval("baseline save first old").0, 0);
    let slower = [("fuse", 100.0), ("efuse", 240.0)];

    project.store(&Made {
        name: "nan",
        ..Made::default()
    });
    project.edit("nan", |text| {
        let (first, rest) = text.split_once('\n').unwrap();
        let at = first.find("\"iops\":").unwrap() + 7;
        let end = at + first[at..].find(',').unwrap();
        format!("{}null{}\n{rest}", &first[..at], &first[end..])
    });
    project.fails(
        "gate nan --baseline first",
        2,
        "attempts.jsonl:1: skipped: invalid type: null",
    );

    project.store(&Made {
        name: "torn",
        ..Made::default()
    });
    project.edit("torn", |text| text[..text.len() - 40].to_owned());
    project.fails(
        "gate torn --baseline first",
        2,
        "attempts.jsonl:16: skipped",
    );
    assert_eq!(
        calls(&project.verdict("torn")).len(),
        3,
        "the other lines are judged"
    );

    // A torn line whose slot was measured again costs nothing but a note.
    project.store(&Made {
        name: "mended",
        ..Made::default()
    });
    let path = project.run_folder("mended").join("attempts.jsonl");
    append(&path, "{\"schema\":1,\"cell\":\"01");
    let (code, out, err) = project.eval("gate mended --baseline first");
    assert_eq!(code, 0, "{out}{err}");
    assert!(
        out.contains("note") && out.contains("attempts.jsonl:17"),
        "{out}"
    );

    // What is slower is a regression, whatever else is missing.
    project.store(&Made {
        name: "both",
        speeds: &slower,
        ..Made::default()
    });
    project.edit("both", |text| text[..text.len() - 40].to_owned());
    let (code, out, err) = project.eval("gate both --baseline first");
    assert_eq!(code, 1, "{out}{err}");
    assert!(err.contains("attempts.jsonl:16"), "{err}");

    // A figure that the baseline has and the run has not.
    project.store(&Made {
        name: "missing",
        ..Made::default()
    });
    project.edit("missing", |text| text.replace("[99.0,", "[98.0,"));
    let (code, out, err) = project.eval("gate missing --baseline first");
    assert_eq!(code, 2, "{out}{err}");
    assert!(
        out.contains("efuse in run missing has no read-p99"),
        "{out}"
    );
    // And one that is there and is no figure.
    project.store(&Made {
        name: "zero",
        speeds: &[("fuse", 100.0), ("efuse", 300.0)],
        ..Made::default()
    });
    project.edit("zero", |text| text.replace("[99.0,", "[99.0,-"));
    let (code, out, err) = project.eval("gate zero --baseline first --absolute");
    assert_eq!(code, 2, "{out}{err}");
    assert!(out.contains("which is no figure to compare"), "{out}");
}

fn append(path: &Path, text: &str) {
    let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}
