//! A comparison and a history as `eval` prints them, with figures made up here.

use efuse_model::document::{History, MeasuredBy, Panel, Series, Side, Sides, VERSION, Value};
use efuse_model::environment::{Accelerator, Environment};
use efuse_model::test::{Pattern, Test};
use serde_json::json;

use super::{Fixture, environment, system, test, twin};

pub fn side(label: &str, revision: &str, accelerator: Accelerator, tests: &[Test]) -> Side {
    let systems = vec![
        system("fuse", None),
        system("efuse", None),
        system("ext4", None),
        twin("fuse"),
    ];
    let plan = Fixture::new(systems, tests.to_vec(), 8).plan;
    Side {
        label: label.into(),
        run: format!("run-of-{revision}"),
        workload: plan.workload,
        command: format!("eval run fixture --name {revision}"),
        created: plan.created,
        seed: plan.seed,
        scale: plan.scale,
        repetitions: plan.repetitions,
        place: plan.place,
        device: plan.device,
        systems: plan.systems,
        tests: plan.tests,
        environment: Some(Environment {
            revision: revision.into(),
            ..environment(accelerator)
        }),
        commands: tests
            .iter()
            .map(|t| MeasuredBy {
                test: t.id.clone(),
                command: format!("fio --name={} --rw={}", t.id, "randrw"),
            })
            .collect(),
    }
}

fn tests() -> Vec<Test> {
    vec![
        test("T1", Pattern::RandRw, None),
        test("T2", Pattern::Read, None),
    ]
}

/// Every call, with and without a floor, a figure missing.
pub fn comparison() -> serde_json::Value {
    let judged = |test: &str,
                  metric: &str,
                  more: bool,
                  call: &str,
                  ratio: f64,
                  floor: Option<f64>| {
        json!({
            "test": test, "system": "efuse", "metric": metric, "more_is_better": more, "call": call,
            "medians": [3.0 * ratio, 3.0], "ratio": ratio,
            "interval": {"low": ratio * 0.99, "high": ratio * 1.01}, "n": [8, 8],
            "p": 0.001, "p_holm": 0.004, "delta": -1.0, "magnitude": "large",
            "floor": floor, "limit": floor.unwrap_or(0.0).max(0.05), "reason": null,
        })
    };
    let mut few = judged("T2", "read-iops", true, "insufficient", 0.5, None);
    few["reason"] = json!("8 repetitions cannot be significant among 900 comparisons");
    let mut none = judged("T2", "read-p99", false, "insufficient", 1.0, None);
    for key in [
        "medians",
        "ratio",
        "interval",
        "p",
        "p_holm",
        "delta",
        "magnitude",
    ] {
        none[key] = json!(null);
    }
    none["n"] = json!([0, 0]);
    none["reason"] = json!("efuse in run <b> has no read-p99 to compare");
    let tests = tests();
    let old = side("baseline a", "aaaaaaa111", Accelerator::Tcg, &tests);
    let new = side("run <b>", "bbbbbbb222-dirty", Accelerator::Tcg, &tests);
    let differences = new
        .environment
        .as_ref()
        .unwrap()
        .differences(old.environment.as_ref().unwrap());
    json!({
        "version": VERSION, "title": "run <b> against baseline a", "outcome": "regression",
        "alpha": 0.05, "threshold": 0.05,
        "judged": [
            judged("T1", "read-iops", true, "regression", 0.8, Some(0.02)),
            judged("T1", "write-iops", true, "improved", 1.3, Some(0.08)),
            judged("T1", "read-clat", false, "same", 1.01, Some(0.01)),
            judged("T1", "read-p99", false, "inconclusive", 1.05, Some(0.2)),
            few, none,
        ],
        "problems": ["ext4 was measured in baseline a and not in run <b>"],
        "notes": ["figures are compared as ratios to fuse inside each run"],
        "sides": Sides {
            old, new, differences, forbidding: vec![], same: false, base: Some("fuse".into()),
            page: "results/pages/compare.html".into(),
        },
    })
}

/// Five baselines of one environment, of which the third has another T2, and two of another.
pub fn history() -> History {
    let value = |point: usize, ratio: f64, floor: Option<f64>| Value {
        point,
        ratio: Some(ratio),
        low: Some(ratio * 0.95),
        high: Some(ratio * 1.06),
        n: 8,
        floor,
        reason: None,
    };
    let missing = |point: usize| Value {
        ratio: None,
        low: None,
        high: None,
        n: 0,
        reason: Some("efuse was skipped: no <module>".into()),
        ..value(point, 1.0, None)
    };
    let series = |test: &Test, metric: &str, system: &str, values: Vec<Value>| Series {
        test: test.clone(),
        system: system.into(),
        metric: metric.into(),
        more_is_better: !metric.contains("lat"),
        values,
    };
    let [t1, t2]: [Test; 2] = tests().try_into().unwrap();
    let point = |n: usize, accelerator| {
        let revision = format!("{n}{n}{n}{n}{n}{n}{n}890");
        side(&format!("baseline b{n}"), &revision, accelerator, &tests())
    };
    let floors = |points: &[(usize, f64)]| -> Vec<Value> {
        let each = points.iter();
        each.map(|(p, r)| value(*p, *r, (*p != 1).then_some(0.05)))
            .collect()
    };
    let mut gap = floors(&[(0, 1.2), (1, 1.25), (3, 2.1), (4, 2.3)]);
    gap.insert(2, missing(2));
    History {
        version: VERSION,
        base: "fuse".into(),
        metrics: vec!["read-iops".into(), "read-clat".into()],
        environments: vec![
            Panel {
                points: (0..5).map(|n| point(n, Accelerator::Tcg)).collect(),
                series: vec![
                    series(&t1, "read-iops", "efuse", gap),
                    series(
                        &t1,
                        "read-iops",
                        "ext4",
                        floors(&[(0, 2.0), (1, 2.1), (2, 2.05), (3, 2.2), (4, 2.1)]),
                    ),
                    series(&t1, "read-clat", "efuse", floors(&[(0, 0.9), (4, 0.4)])),
                    series(&t2, "read-iops", "efuse", floors(&[(2, 1.5)])),
                ],
            },
            Panel {
                points: (5..7).map(|n| point(n, Accelerator::Kvm)).collect(),
                series: vec![series(
                    &t1,
                    "read-iops",
                    "efuse",
                    floors(&[(0, 3.0), (1, 3.1)]),
                )],
            },
        ],
        notes: vec!["baseline broken: plan.json: truncated".into()],
        page: "results/pages/history.html".into(),
    }
}
