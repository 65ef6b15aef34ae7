//! The program itself on stored runs and on bad input: output, messages, exit statuses.

mod common;

use std::fs;
use std::process::Command;

use common::{Ended, Project, attempt, plan, system, test};
use efuse_model::attempt::{OpMetrics, Outcome, Phase};

impl Project {
    /// `fuse` half as fast as `ext4` in T1, in repetition 1 a quarter; `gone` skipped;
    /// repetition 2 of `ext4` failed.
    fn store(&self, name: &str) {
        let systems = vec![
            system("ext4", None),
            system("fuse", None),
            system("gone", Some("no module")),
        ];
        let plan = plan(name, 3, systems, test("T1", 4096));
        let run = self.create(&plan);
        for (system, repetition, outcome) in [
            ("fuse", 0, done(50.0)),
            ("ext4", 0, done(100.0)),
            ("fuse", 1, done(50.0)),
            ("ext4", 1, done(200.0)),
            ("fuse", 2, done(50.0)),
            ("ext4", 2, failed()),
        ] {
            let cell = plan.cells.iter().find(|c| c.system == system).unwrap();
            run.append(&attempt(cell, repetition, outcome)).unwrap();
        }
    }
}

fn done(iops: f64) -> Outcome {
    common::done(OpMetrics {
        iops,
        ..OpMetrics::default()
    })
}

fn failed() -> Outcome {
    Outcome::Failed {
        phase: Phase::Measure,
        reason: "the daemon died".into(),
    }
}

fn code(ended: &Ended) -> i32 {
    ended.0
}

fn out(ended: &Ended) -> &str {
    &ended.1
}

fn err(ended: &Ended) -> &str {
    &ended.2
}

#[test]
fn a_ratio_is_one_line_and_one_document() {
    let project = Project::new();
    project.store("one");
    let output = project.eval("ratio fuse ext4 --test T1 --metric read-iops");
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert_eq!(
        out(&output),
        "fuse/ext4 T1 read-iops 0.375 [0.250, 0.500] n=2\n"
    );
    let output = project.eval("--json ratio fuse ext4 --test T1 --metric read-iops --run one");
    let value: serde_json::Value = serde_json::from_str(out(&output)).unwrap();
    assert_eq!(value["ratio"]["n"], 2);
    assert_eq!(value["ratio"]["median"], 0.375);
    assert_eq!(value["run"], "one");
}

#[test]
fn where_there_is_no_ratio_the_status_is_3_and_the_reason_is_said() {
    let project = Project::new();
    let line = "ratio fuse ext4 --test T1 --metric read-iops";
    let output = project.eval(line);
    assert_eq!(code(&output), 3);
    assert!(err(&output).contains("there is no run"), "{}", err(&output));
    project.store("one");
    for (line, reason) in [
        ("ratio gone ext4 --test T1 --metric read-iops", "no module"),
        (
            "ratio fsue ext4 --test T1 --metric read-iops",
            "did you mean fuse?",
        ),
        (
            "ratio fuse ext4 --test T9 --metric read-iops",
            "unknown test",
        ),
        (
            "ratio fuse ext4 --test T1 --metric write-iops",
            "no write-iops",
        ),
        (
            "ratio fuse ext4 --test T1 --metric iops --run two",
            "unknown run",
        ),
    ] {
        let output = project.eval(line);
        assert_eq!(code(&output), 3, "{line}: {}", err(&output));
        assert!(err(&output).contains(reason), "{line}: {}", err(&output));
        assert_eq!(out(&output), "", "{line}");
    }
    let output = project.eval("ratio fuse ext4 --test T1 --metric speed");
    assert_eq!(code(&output), 2);
    assert!(err(&output).contains("read-iops"), "{}", err(&output));
}

#[test]
fn runs_are_listed_shown_and_removed() {
    let project = Project::new();
    assert!(out(&project.eval("list")).contains("no runs yet"));
    project.store("one");
    project.store("two");
    let list: serde_json::Value = serde_json::from_str(out(&project.eval("list --json"))).unwrap();
    assert_eq!(list[0]["name"], "one");
    assert_eq!(
        (&list[1]["done"], &list[1]["slots"]),
        (&5.into(), &6.into())
    );
    let shown = project.eval("show one");
    let shown = out(&shown);
    for part in [
        "5/6 measured",
        "skipped  gone: no module",
        "r2 measure: the daemon died",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let output = project.eval("clean one --dry-run");
    assert!(out(&output).contains("would remove"), "{}", out(&output));
    assert!(project.root().join("results/runs/one").exists());
    assert_eq!(code(&project.eval("clean one")), 0);
    assert!(!project.root().join("results/runs/one").exists());
    assert!(project.root().join("results/runs/two").exists());
    let output = project.eval("clean ../two");
    assert_eq!(code(&output), 1);
    assert!(project.root().join("results/runs/two").exists());
}

#[test]
fn a_run_in_use_is_neither_resumed_nor_removed() {
    let project = Project::new();
    project.store("one");
    let lock = fs::File::create(project.root().join("results/runs/one/run.lock")).unwrap();
    lock.lock().unwrap();
    for line in ["clean one", "resume one"] {
        let output = project.eval(line);
        assert_eq!(code(&output), 1, "{line}");
        assert!(
            err(&output).contains("another eval"),
            "{line}: {}",
            err(&output)
        );
    }
}

#[test]
fn bad_input_is_answered_in_one_message() {
    let project = Project::new();
    fs::write(project.root().join("bad.toml"), "nme = \"x\"\n").unwrap();
    let bad = project.root().join("bad.toml");
    let bad = bad.to_str().unwrap();
    for (line, status, part) in [
        ("quikc", 2, "did you mean quick?"),
        ("plan quikc", 1, "did you mean quick?"),
        (&*format!("plan {bad}"), 1, "bad.toml:1"),
        ("plan quick --systems ext4,fsue", 1, "did you mean fuse?"),
        ("plan quick --systems ext4,ext4", 1, "named twice"),
        ("plan quick --tests T1,S2", 1, "test of workload quick"),
        ("plan quick --device brd:1M", 1, "--device brd:"),
        ("plan quick --device loop", 1, "place vm"),
        (
            "plan quick --device disk:/dev/sdz --place host",
            1,
            "--destroy /dev/sdz",
        ),
        ("run quick --name a/b", 2, "cannot name a run"),
        ("check --checks byts", 1, "did you mean bytes?"),
        ("list --system-files /nonexistent", 0, ""),
        ("systems --system-files /nonexistent", 1, "not a folder"),
    ] {
        let output = project.eval(line);
        assert_eq!(code(&output), status, "{line}: {}", err(&output));
        assert!(err(&output).contains(part), "{line}: {}", err(&output));
    }
}

#[test]
fn a_plan_is_shown_with_its_order() {
    let project = Project::new();
    let shown = |seed: u32| {
        let output = project.eval(&format!(
            "plan quick --systems ext4 --repetitions 2 --seed {seed} --order"
        ));
        assert_eq!(code(&output), 0, "{}", err(&output));
        out(&output).to_owned()
    };
    let first = shown(7);
    assert!(first.contains("attempts, about"), "{first}");
    assert_eq!(first, shown(7), "the same seed gives the same plan");
    let lengths = |more: &str| {
        let json = project.eval(&format!(
            "plan quick --systems ext4 --repetitions 2 --json{more}"
        ));
        let value: serde_json::Value = serde_json::from_str(out(&json)).unwrap();
        ["tests", "order"].map(|list| value["plan"][list].as_array().unwrap().len())
    };
    let [tests, order] = lengths("");
    assert_eq!(order, 2 * tests);
    assert_eq!(lengths(" --tests T3,T1"), [2, 4]);
}

#[test]
fn outside_the_project_the_way_back_is_said() {
    let elsewhere = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_eval"));
    command
        .arg("list")
        .current_dir(elsewhere.path())
        .env_remove("EFUSE_ROOT");
    let output = common::ended(&mut command, "list");
    assert_eq!(code(&output), 1);
    assert!(err(&output).contains("EFUSE_ROOT"), "{}", err(&output));
}
