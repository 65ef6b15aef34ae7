//! Runs that are empty, broken or odd.

mod common;

use common::{Fixture, done, environment, system, test};
use efuse_model::attempt::{Outcome, Verified};
use efuse_model::environment::Accelerator;
use efuse_model::store::{Attempts, RunDir};
use efuse_model::test::Pattern;
use efuse_report::input::Run;
use efuse_report::metric::{Metric, Op};
use efuse_report::stats::Verdict;
use efuse_report::table::Table;

fn two() -> Fixture {
    let systems = vec![system("ext4", None), system("fuse", None)];
    Fixture::new(systems, vec![test("T1", Pattern::RandRw, None)], 3)
}

fn page(f: &Fixture) -> String {
    let dir = tempfile::tempdir().unwrap();
    efuse_report::html(&f.write(dir.path()), None).unwrap()
}

fn load(f: &Fixture) -> (Run, Table) {
    let dir = tempfile::tempdir().unwrap();
    let run = Run::load(&f.write(dir.path())).unwrap();
    let table = Table::new(&run, None).unwrap();
    (run, table)
}

fn charts(html: &str) -> usize {
    html.matches("<svg class=\"chart\"").count()
}

#[test]
fn no_attempts() {
    let mut f = two();
    f.environment = None;
    let html = page(&f);
    assert!(html.contains("<strong>0 of 6</strong> planned repetitions have figures"));
    assert!(html.contains("The run is not complete."));
    assert!(html.contains("No environment was recorded."));
    assert!(html.contains("not measured"));
    assert!(html.contains("there is nothing to relate"));
    assert_eq!(charts(&html), 0);
    assert!(!html.contains("verified. "), "nothing was verified");
}

#[test]
fn every_attempt_failed() {
    let mut f = two();
    for rep in 0..3 {
        f.failed("T1", "ext4", rep, "mkfs.ext4: no space left");
        f.failed("T1", "fuse", rep, "mkfs.ext4: no space left");
    }
    let html = page(&f);
    assert_eq!(charts(&html), 0);
    assert!(html.contains("6 attempts without figures"));
    assert!(html.contains("failed in verify-read: mkfs.ext4: no space left"));
    assert!(html.contains("No system has figures in this test."));
    assert!(!html.contains("yes, by another try"));
}

#[test]
fn one_repetition_has_no_interval_and_says_so() {
    let mut f = two();
    f.plan.repetitions = 1;
    f.plan.order.retain(|s| s.repetition == 0);
    f.done("T1", "ext4", 0, Some(300.0), Some(30.0));
    f.done("T1", "fuse", 0, Some(100.0), Some(10.0));
    let (_, table) = load(&f);
    let row = table.get("T1", "ext4", Op::Read, Metric::Iops).unwrap();
    assert_eq!((row.interval, row.n), (None, 1));
    let ratio = row.ratio.as_ref().unwrap();
    assert_eq!(
        (ratio.interval, ratio.median, ratio.verdict),
        (None, 3.0, Verdict::Single)
    );
    let html = page(&f);
    assert!(html.contains("3.00x (n=1, no interval)"));
    assert!(html.contains("no difference is established"));
    assert_eq!(html.matches("class=\"whisker").count(), 0);
    assert!(charts(&html) > 0);
}

#[test]
fn a_direction_that_fio_did_not_report() {
    let mut f = two();
    for rep in 0..3 {
        f.done("T1", "ext4", rep, Some(300.0), None);
        f.done("T1", "fuse", rep, Some(100.0), Some(10.0));
    }
    let (_, table) = load(&f);
    assert!(table.get("T1", "ext4", Op::Write, Metric::Iops).is_none());
    assert!(table.get("T1", "ext4", Op::Read, Metric::Iops).is_some());
    assert!(page(&f).contains("fio gave no such write figure"));
}

#[test]
fn a_base_without_figures_leaves_no_ratio() {
    let mut f = two();
    for rep in 0..3 {
        f.done("T1", "ext4", rep, Some(300.0), Some(30.0));
        f.failed("T1", "fuse", rep, "no");
    }
    let (_, table) = load(&f);
    assert!(table.rows.iter().all(|r| r.ratio.is_none()));
    let html = page(&f);
    assert!(html.contains("no ratio"));
    assert!(charts(&html) > 0, "the absolute figures are still there");
}

#[test]
fn ratios_pair_only_repetitions_that_both_have() {
    let mut f = two();
    f.done("T1", "ext4", 0, Some(300.0), None);
    f.done("T1", "ext4", 2, Some(500.0), None);
    f.done("T1", "fuse", 1, Some(100.0), None);
    f.done("T1", "fuse", 2, Some(100.0), None);
    let (_, table) = load(&f);
    let row = table.get("T1", "ext4", Op::Read, Metric::Iops).unwrap();
    let ratio = row.ratio.as_ref().unwrap();
    assert_eq!((row.n, ratio.n, ratio.median), (2, 1, 5.0));
    assert_eq!(ratio.points[0].repetition, 2);
}

#[test]
fn a_zero_of_the_base_relates_nothing() {
    let mut f = two();
    for rep in 0..3 {
        f.done("T1", "ext4", rep, Some(300.0), None);
        let mut zero = done(Some(100.0), None);
        if let Outcome::Done { metrics, .. } = &mut zero {
            metrics.read.as_mut().unwrap().slat.mean_us = 0.0;
        }
        f.attempt("T1", "fuse", rep, zero);
    }
    let (_, table) = load(&f);
    let row = table.get("T1", "ext4", Op::Read, Metric::Slat).unwrap();
    assert!(row.ratio.is_none());
    assert!(page(&f).contains("no ratio"));
}

#[test]
fn a_run_without_fuse_has_no_ratios_unless_a_base_is_chosen() {
    let systems = vec![system("ext4", None), system("libfuse", None)];
    let mut f = Fixture::new(systems, vec![test("T1", Pattern::RandRead, None)], 3);
    f.environment = Some(environment(Accelerator::Native));
    for rep in 0..3 {
        f.done("T1", "ext4", rep, Some(300.0), None);
        f.done("T1", "libfuse", rep, Some(100.0), None);
    }
    let html = page(&f);
    assert!(html.contains("so there are no ratios"));
    // Natively measured: no mark anywhere.
    assert!(!html.contains("Emulated (TCG)"), "{html}");
    assert!(!html.contains("<p class=\"banner\""));
    let dir = tempfile::tempdir().unwrap();
    let run = f.write(dir.path());
    let html = efuse_report::html(&run, Some("libfuse")).unwrap();
    assert!(html.contains("3.00x (3.00\u{2013}3.00, n=3)"));
    let error = efuse_report::html(&run, Some("efuse"))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("\"efuse\"") && error.contains("ext4, libfuse"),
        "{error}"
    );
}

#[test]
fn figures_that_are_no_measurement_are_refused_with_a_reason() {
    for bad in [f64::NAN, f64::INFINITY, -1.0] {
        let mut f = two();
        f.done("T1", "fuse", 0, Some(100.0), Some(10.0));
        let mut outcome = done(Some(100.0), Some(10.0));
        if let Outcome::Done { metrics, .. } = &mut outcome {
            metrics.write.as_mut().unwrap().clat.mean_us = bad;
        }
        f.attempt("T1", "fuse", 1, outcome);
        let attempts = Attempts {
            list: f.attempts.clone(),
            damaged: vec![],
        };
        let run = Run::new(f.plan.clone(), f.environment.clone(), attempts);
        assert_eq!(run.measured.len(), 1, "{bad}");
        let reason = &run.left_out[0].reason;
        assert!(
            reason.contains("write clat") && reason.contains("no measurement"),
            "{reason}"
        );
        assert!(!run.left_out[0].made_good);
        // On disk JSON has no NaN: the line is damaged, not a zero.
        if bad.is_nan() {
            let (run, _) = load(&f);
            assert_eq!((run.measured.len(), run.damaged.len()), (1, 1));
        }
    }
}

#[test]
fn unverified_figures_are_refused() {
    let mut f = two();
    let mut outcome = done(Some(100.0), Some(10.0));
    if let Outcome::Done { verified, .. } = &mut outcome {
        *verified = Verified::default();
    }
    f.attempt("T1", "fuse", 0, outcome);
    let (run, table) = load(&f);
    assert!(run.measured.is_empty() && table.rows.is_empty());
    assert!(run.left_out[0].reason.contains("nothing was verified"));
}

#[test]
fn a_second_result_of_a_slot_and_a_stranger_are_left_out() {
    let mut f = two();
    f.done("T1", "fuse", 0, Some(100.0), Some(10.0));
    f.done("T1", "fuse", 0, Some(900.0), Some(90.0));
    f.done("T1", "ext4", 0, Some(300.0), Some(30.0));
    f.attempts.last_mut().unwrap().cell.0 = "ffffffffffffffff".into();
    let (run, table) = load(&f);
    assert_eq!(run.measured.len(), 1);
    let row = table.get("T1", "fuse", Op::Read, Metric::Iops).unwrap();
    assert_eq!(row.median, 100.0);
    assert!(run.left_out[0].reason.contains("the first result counts"));
    assert!(run.left_out[1].reason.contains("not in the plan"));
}

#[test]
fn markup_in_names_and_reasons_stays_text() {
    let evil = "<script>alert(1)</script>";
    let mut f = Fixture::new(
        vec![system("fuse", None), system(evil, Some(evil))],
        vec![test("T1", Pattern::RandRead, None)],
        3,
    );
    f.plan.command = evil.into();
    f.done("T1", "fuse", 0, Some(100.0), None);
    f.failed("T1", "fuse", 1, evil);
    assert!(!page(&f).contains(evil));
}

#[test]
fn a_folder_without_a_plan_is_refused_with_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let error = RunDir::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("plan.json"), "{error}");
}

#[test]
fn the_program() {
    let dir = tempfile::tempdir().unwrap();
    let run = common::everything(dir.path());
    let report = || std::process::Command::new(env!("CARGO_BIN_EXE_report"));

    let out = report().arg(run.path()).output().unwrap();
    assert!(out.status.success(), "{out:?}");
    let page = std::fs::read_to_string(run.path().join("report.html")).unwrap();
    assert!(page.trim_end().ends_with("</html>"));

    let elsewhere = dir.path().join("elsewhere.html");
    let out = report()
        .arg(run.path())
        .arg("-o")
        .arg(&elsewhere)
        .output()
        .unwrap();
    assert!(out.status.success(), "{out:?}");
    assert_eq!(std::fs::read_to_string(&elsewhere).unwrap(), page);
    assert!(!dir.path().join("elsewhere.html.tmp").exists());

    let out = report().arg(run.path()).arg("--json").output().unwrap();
    assert!(out.status.success(), "{out:?}");
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(json["base"], "fuse");
    assert_eq!(json["emulated"], true);
    assert!(json["rows"].as_array().unwrap().len() > 100);

    let out = report()
        .arg(run.path())
        .args(["--base", "nothing"])
        .output()
        .unwrap();
    assert!(!out.status.success());
    let said = String::from_utf8(out.stderr).unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.contains("\"nothing\"") && said.contains("fuse-passthrough"),
        "{said}"
    );

    let out = report().arg(dir.path().join("missing")).output().unwrap();
    assert!(!out.status.success());
    assert!(
        String::from_utf8(out.stderr)
            .unwrap()
            .contains("missing/plan.json")
    );

    let nowhere = dir.path().join("no/such/folder.html");
    let out = report()
        .arg(run.path())
        .arg("-o")
        .arg(&nowhere)
        .output()
        .unwrap();
    assert!(!out.status.success());
    assert!(
        String::from_utf8(out.stderr)
            .unwrap()
            .contains("folder.html: cannot write")
    );
}
