//! The aggregated table and the page's skeleton of one small invented run.

mod common;

use common::counted::{self, done_counted};
use common::{Fixture, skeleton, system, test, twin};
use efuse_model::counters::Probes;
use efuse_model::test::Pattern;
use efuse_report::input::Run;
use efuse_report::metric::{Metric, Op};
use efuse_report::stats::{Interval, Verdict};
use efuse_report::table::Table;

/// Figures that can be checked in the head: ext4 reads 2.0, 1.9 and 2.1 times fuse.
fn fixture() -> Fixture {
    let systems = vec![
        system("ext4", None),
        system("fuse", None),
        system("efuse", Some("this kernel has no <efuse>")),
    ];
    let mut f = Fixture::new(
        systems,
        vec![test("T1", Pattern::RandRw, Some(("vm", 1)))],
        3,
    );
    for (rep, (ext4, fuse)) in [(2000.0, 1000.0), (2090.0, 1100.0), (1890.0, 900.0)]
        .into_iter()
        .enumerate()
    {
        let rep = u32::try_from(rep).unwrap();
        f.done("T1", "ext4", rep, Some(ext4), Some(500.0));
        if rep == 2 {
            f.failed("T1", "fuse", rep, "the daemon died & was \"restarted\"");
        }
        f.done("T1", "fuse", rep, Some(fuse), Some(500.0));
    }
    f
}

#[test]
fn figures_by_hand() {
    let dir = tempfile::tempdir().unwrap();
    let run = Run::load(&fixture().write(dir.path())).unwrap();
    let table = Table::new(&run, None).unwrap();
    let row = table.get("T1", "ext4", Op::Read, Metric::Iops).unwrap();
    assert_eq!((row.n, row.median), (3, 2000.0));
    assert_eq!(
        row.interval,
        Some(Interval {
            low: 1890.0,
            high: 2090.0
        })
    );
    let ratio = row.ratio.as_ref().unwrap();
    let pairs: Vec<_> = ratio
        .points
        .iter()
        .map(|p| (p.repetition, p.value))
        .collect();
    assert_eq!(pairs, [(0, 2.0), (1, 2090.0 / 1100.0), (2, 1890.0 / 900.0)]);
    assert_eq!(ratio.median, 2.0);
    assert_eq!(
        ratio.interval,
        Some(Interval {
            low: 2090.0 / 1100.0,
            high: 2.1
        })
    );
    assert_eq!(ratio.verdict, Verdict::Higher);
    assert_eq!(ratio.across_sessions, 0);
    // 4 KiB blocks: 2000 requests are 7.8125 MiB.
    let row = table
        .get("T1", "ext4", Op::Read, Metric::Throughput)
        .unwrap();
    assert_eq!(row.median, 7.8125);
    // Equal writes: the interval is 1 to 1, which says nothing.
    let row = table.get("T1", "ext4", Op::Write, Metric::Iops).unwrap();
    assert_eq!(row.ratio.as_ref().unwrap().verdict, Verdict::Unclear);
    // Two systems, two directions, eight figures.
    assert_eq!(table.rows.len(), 2 * 2 * 8);

    // Related to the other side.
    let table = Table::new(&run, Some("ext4")).unwrap();
    let row = table.get("T1", "fuse", Op::Read, Metric::Iops).unwrap();
    assert_eq!(row.ratio.as_ref().unwrap().median, 0.5);
}

#[test]
fn the_aggregated_table() {
    let dir = tempfile::tempdir().unwrap();
    let run = fixture().write(dir.path());
    let mut json = efuse_report::json(&run, None).unwrap();
    // The rest of the rows follow the same pattern.
    json["rows"].as_array_mut().unwrap().truncate(3);
    insta::assert_snapshot!(serde_json::to_string_pretty(&json).unwrap());
}

#[test]
fn the_same_run_gives_the_same_page() {
    let dir = tempfile::tempdir().unwrap();
    let run = fixture().write(dir.path());
    let once = efuse_report::html(&run, None).unwrap();
    assert_eq!(once, efuse_report::html(&run, None).unwrap());
}

#[test]
fn the_pages_skeleton() {
    let dir = tempfile::tempdir().unwrap();
    let run = fixture().write(dir.path());
    let html = efuse_report::html(&run, None).unwrap();
    assert!(html.starts_with("<!DOCTYPE html><html lang=\"en\">"));
    let version = concat!("efuse-report ", env!("CARGO_PKG_VERSION"));
    insta::assert_snapshot!(skeleton(&html).replace(version, "efuse-report VERSION"));
}

/// The sections of counters, distributions, probes and published switches, of a run with
/// a twin.
#[test]
fn the_counters_skeleton() {
    let systems = vec![system("ext4", None), system("fuse", None), twin("fuse")];
    let mut f = Fixture::new(
        systems,
        vec![test("T1", Pattern::RandRw, Some(("vm", 1)))],
        3,
    );
    f.plan_probes(&["T1"], 2);
    for rep in 0..3u32 {
        let noise = 1.0 + 0.01 * f64::from(rep);
        for (id, iops, fio, daemon) in [
            ("ext4", 2000.0, 1.0, None),
            ("fuse", 1000.0, 1.5, Some(4.0)),
            ("fuse@twin", 1000.0 * noise, 1.5, Some(4.0)),
        ] {
            let rate = |v: f64| Some(v * noise);
            let outcome = done_counted(rate(iops), rate(iops / 2.0), fio * noise, daemon);
            f.attempt("T1", id, rep, outcome);
            if rep < 2 {
                let mut outcome = common::done(rate(iops * 0.9), rate(iops * 0.45));
                counted::fill(&mut outcome, fio, daemon, Probes::On);
                f.attempt_as("T1", id, rep, Probes::On, outcome);
            }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let html = efuse_report::html(&f.write(dir.path()), None).unwrap();
    let text = skeleton(&html);
    let counters = text.split_once("\nDistribution of").unwrap().1;
    let counters = counters.split_once("\nfio command").unwrap().0;
    let published = text
        .split_once("\nContext switches (the document")
        .unwrap()
        .1;
    let published = published.split_once("\nThe jobs.").unwrap().0;
    insta::assert_snapshot!(format!(
        "Distribution of{counters}\n\nContext switches (the document{published}"
    ));
}

/// The sections of the adaptive choice and of ring channels.
#[test]
fn the_skeleton_of_choice_and_rings() {
    let dir = tempfile::tempdir().unwrap();
    let html = efuse_report::html(&common::choosing::fixture().write(dir.path()), None).unwrap();
    let text = skeleton(&html);
    let (_, sections) = text.rsplit_once("\nThe adaptive choice").unwrap();
    let (sections, _) = sections.split_once("\nPublished values").unwrap();
    insta::assert_snapshot!(format!("The adaptive choice{sections}"));
}

#[test]
fn the_page_refers_to_nothing_outside() {
    let dir = tempfile::tempdir().unwrap();
    let run = common::everything(dir.path());
    let html = efuse_report::html(&run, None).unwrap();
    for outside in ["http:", "https:", "//", "url(", "@import", "file:"] {
        let script = html.split_once("<script>").unwrap();
        assert!(!script.0.contains(outside), "{outside}");
    }
    assert!(html.contains("default-src &#39;none&#39;") || html.contains("default-src 'none'"));
    let folder = dir.path().display().to_string();
    assert!(!html.contains(&folder), "the page tells where the run lay");
}

fn versionless(html: &str) -> String {
    let version = concat!("efuse-report ", env!("CARGO_PKG_VERSION"));
    skeleton(html).replace(version, "efuse-report VERSION")
}

#[test]
fn the_comparisons_skeleton() {
    let (html, place) =
        efuse_report::comparison(&common::several::comparison().to_string()).unwrap();
    assert_eq!(place, std::path::Path::new("results/pages/compare.html"));
    insta::assert_snapshot!(versionless(&html));
}

#[test]
fn the_historys_skeleton() {
    let text = serde_json::to_string(&common::several::history()).unwrap();
    let (html, _) = efuse_report::history(&text).unwrap();
    insta::assert_snapshot!(versionless(&html));
}

#[test]
fn a_comparison_without_two_sides_is_no_page() {
    let mut document = common::several::comparison();
    let refused = |document: &serde_json::Value| {
        let error = efuse_report::comparison(&document.to_string()).unwrap_err();
        error.to_string()
    };
    document["problems"] = serde_json::json!(["a and b are the same run"]);
    document["sides"]["same"] = true.into();
    assert_eq!(refused(&document), "a and b are the same run");
    document["problems"] = serde_json::json!(["unknown run \"x\""]);
    document["sides"] = serde_json::Value::Null;
    assert_eq!(refused(&document), "unknown run \"x\"");
    document["version"] = 99.into();
    assert!(refused(&document).contains("version 99"));
    assert!(refused(&serde_json::json!({})).contains("not what `eval --json compare` prints"));
    let error = efuse_report::history("[").unwrap_err().to_string();
    assert!(
        error.contains("not what `eval --json history` prints"),
        "{error}"
    );
}

#[test]
fn other_environments_are_said_first_and_nothing_is_drawn() {
    let mut document = common::several::comparison();
    let difference = "kernel: \"6.13\", was \"6.12\"";
    document["judged"] = serde_json::json!([]);
    document["outcome"] = "could-not-judge".into();
    for list in ["differences", "forbidding"] {
        document["sides"][list] = serde_json::json!([difference]);
    }
    let (html, _) = efuse_report::comparison(&document.to_string()).unwrap();
    let text = skeleton(&html);
    let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part}: {text}"));
    assert!(at("kernel: &quot;6.13&quot;") < at("nothing could be compared"));
    assert!(!html.contains("<svg class=\"chart\""));
}
