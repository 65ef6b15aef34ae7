//! What was counted beside fio, with and without gaps.

mod common;

use common::counted::{self, done_counted};
use common::{Fixture, done, system, test, twin};
use efuse_model::counters::{Probes, Served, Switches};
use efuse_model::test::Pattern;
use efuse_report::count::Cell;
use efuse_report::input::Run;
use efuse_report::scaling;
use efuse_report::table::Table;

fn two() -> Fixture {
    let systems = vec![system("ext4", None), system("fuse", None)];
    Fixture::new(
        systems,
        vec![test("T1", Pattern::RandRw, Some(("vm", 1)))],
        3,
    )
}

/// ext4 and fuse with counters in every repetition.
fn whole() -> Fixture {
    let mut f = two();
    for rep in 0..3 {
        let of = |fio, daemon| done_counted(Some(1000.0), Some(500.0), fio, daemon);
        f.attempt("T1", "ext4", rep, of(1.0, None));
        f.attempt("T1", "fuse", rep, of(1.5, Some(4.0)));
    }
    f
}

fn load(f: &Fixture) -> Run {
    let dir = tempfile::tempdir().unwrap();
    Run::load(&f.write(dir.path())).unwrap()
}

fn page(f: &Fixture) -> String {
    let dir = tempfile::tempdir().unwrap();
    efuse_report::html(&f.write(dir.path()), None).unwrap()
}

/// The markup of one figure.
fn figure<'a>(html: &'a str, id: &str) -> &'a str {
    let (_, rest) = html
        .split_once(&format!("<figure id=\"{id}\">"))
        .unwrap_or_else(|| panic!("no figure {id}"));
    rest.split_once("</figure>").unwrap().0
}

fn probed(f: &mut Fixture, system: &str, rep: u32, iops: f64, daemon: Option<f64>) {
    let mut outcome = done(Some(iops), Some(iops / 2.0));
    counted::fill(&mut outcome, 1.5, daemon, Probes::On);
    f.attempt_as("T1", system, rep, Probes::On, outcome);
}

#[test]
fn probed_repetitions_are_in_no_headline_figure() {
    let mut f = whole();
    f.plan_probes(&["T1"], 3);
    let before = Table::new(&load(&f), None).unwrap();
    for rep in 0..3 {
        probed(&mut f, "fuse", rep, 1.0, Some(4.0));
    }
    let run = load(&f);
    assert_eq!((run.measured.len(), run.probed.len()), (6, 3));
    assert_eq!((run.planned(Probes::Off), run.planned(Probes::On)), (6, 6));
    assert_eq!(Table::new(&run, None).unwrap(), before);
    let html = page(&f);
    assert!(html.contains("<strong>6 of 6</strong> planned repetitions"));
    assert!(html.contains("3 of 6 repetitions with probes"));
    // 1 of 1000 IOPS.
    let cost = figure(&html, "fig-0-probes");
    assert!(cost.contains("0.0010x"), "{cost}");
    assert!(
        cost.contains("no repetition with probes has counters"),
        "ext4: {cost}"
    );
    let dir = tempfile::tempdir().unwrap();
    let json = efuse_report::json(&f.write(dir.path()), None).unwrap();
    assert_eq!(json["coverage"][1]["measured"], 3);
    assert_eq!(json["coverage"][1]["probed"], 3);
}

#[test]
fn a_failed_repetition_with_probes_is_told_and_not_made_good_by_one_without() {
    let mut f = whole();
    f.plan_probes(&["T1"], 1);
    let failed = efuse_model::attempt::Outcome::Failed {
        phase: efuse_model::attempt::Phase::Measure,
        reason: "the probe cannot be attached".into(),
    };
    f.attempt_as("T1", "fuse", 0, Probes::On, failed);
    let run = load(&f);
    assert!(!run.left_out[0].made_good);
    assert_eq!(run.why_missing("T1", "fuse"), "not measured");
    let html = page(&f);
    assert!(html.contains("failed with probes in measure: the probe cannot be attached"));
    assert!(html.contains("<small>with probes</small>"));
}

#[test]
fn counters_by_hand() {
    let mut f = whole();
    f.plan_probes(&["T1"], 2);
    for rep in 0..2 {
        probed(&mut f, "fuse", rep, 900.0, Some(4.0));
    }
    let run = load(&f);
    let c = Cell::of(&run, "T1", "fuse").unwrap();
    assert_eq!((c.n, c.without, c.n_probed), (3, 0, 2));
    // 2000 operations in each repetition; switches as the fixture says.
    assert_eq!(c.fio.perf.total.as_ref().unwrap().median, 3000.0);
    assert_eq!(c.fio.proc.total.as_ref().unwrap().median, 3003.0);
    assert_eq!(c.fio.own.total.as_ref().unwrap().median, 3005.0);
    let spread = c.fio.disagreement_percent.unwrap();
    assert!((spread - 5.0 / 3005.0 * 100.0).abs() < 1e-9, "{spread}");
    let of = |f: &Option<efuse_report::count::Figure>| f.as_ref().unwrap().median;
    let s = &c.switches;
    let all = [of(&s.fio), of(&s.daemon), of(&s.rest), of(&s.all)];
    assert_eq!(all, [1.5, 4.0, 0.75, 6.25]);
    // fio 40, daemon 4 x 60, kernel threads 15, busy 70 + 4 x 60.
    let s = &c.cpu_us;
    for (figure, us) in [
        (&s.fio, 40.0),
        (&s.daemon, 240.0),
        (&s.kernel, 15.0),
        (&s.rest, 15.0),
        (&s.all, 310.0),
    ] {
        assert!((of(figure) - us).abs() < 1e-6, "{} {us}", of(figure));
    }
    assert_eq!(of(&c.fio_syscalls.per_op), 2.0);
    let read = c.requests.iter().find(|o| o.opcode == "READ").unwrap();
    assert_eq!(of(&read.crossings.total), 1400.0);
    assert_eq!(read.queueing.count(), 2 * 1400, "pooled over both");
    assert_eq!(read.taken, 2 * 1400);
    let held = read.held_percent().unwrap();
    assert!((held - 10.0).abs() < 0.01, "{held}");
    let forget = c.requests.iter().find(|o| o.opcode == "FORGET").unwrap();
    assert_eq!((forget.taken, forget.total.count()), (2 * 4, 0));
    assert_eq!(of(&c.forgotten.total), 4.0);
    let gap = read.gap_percent().unwrap();
    assert!((gap + 0.1).abs() < 0.01, "{gap}");
    // ext4 has no daemon, and nothing of a daemon is made up for it.
    let c = Cell::of(&run, "T1", "ext4").unwrap();
    assert!(!c.has_daemon && c.switches.daemon.is_none() && c.daemon_peak.is_none());
    assert_eq!(of(&c.switches.rest), 0.75);
}

/// As measured in an emulated guest on a busy host: /proc/stat lost half of its ticks.
#[test]
fn lost_clock_ticks_leave_no_sum_of_cpu_time() {
    let mut f = whole();
    assert!(!page(&f).contains("clock ticks were lost"));
    for a in &mut f.attempts {
        if a.system == "fuse" {
            let m = counted::metrics(&mut a.outcome).unwrap();
            let cpu = &mut m.counters.as_mut().unwrap().cpu;
            (cpu.busy_s, cpu.idle_s) = (cpu.busy_s / 2.0, cpu.idle_s / 2.0);
        }
    }
    let run = load(&f);
    let cell = |system| Cell::of(&run, "T1", system).unwrap();
    assert!(cell("ext4").cpu_sum_known() && !cell("fuse").cpu_sum_known());
    let html = page(&f);
    let cpu = figure(&html, "fig-0-cpu");
    assert_eq!(cpu.matches("not known: clock ticks were lost").count(), 1);
    assert!(cpu.contains("rest not known"), "{cpu}");
    assert!(
        cpu.contains("daemon 240"),
        "the scheduler's own times stay: {cpu}"
    );
    assert!(!cpu.contains(">-"), "no negative rest: {cpu}");
}

#[test]
fn counters_that_disagree_are_marked() {
    let mut f = whole();
    assert!(!page(&f).contains("above 2 %"));
    let m = counted::metrics(&mut f.attempts[1].outcome).unwrap();
    m.fio_ctx = m.fio_ctx * 97 / 100;
    let html = page(&f);
    assert!(
        html.contains("<strong>2.96 %</strong> <small>above 2 %</small>"),
        "{html}"
    );
}

#[test]
fn what_is_missing_is_said_and_no_zero_is_made_of_it() {
    let mut f = whole();
    let reason = "perf_event_open: not <permitted> here";
    for a in &mut f.attempts {
        if a.system == "fuse" {
            let m = counted::metrics(&mut a.outcome).unwrap();
            let c = m.counters.as_mut().unwrap();
            c.fio_switches.perf = None;
            c.daemon_switches = Some(Switches::default());
            c.memory.daemon_peak = None;
            c.missing = vec![reason.into()];
        }
    }
    let run = load(&f);
    let c = Cell::of(&run, "T1", "fuse").unwrap();
    assert_eq!(c.missing, [reason], "once, not once per repetition");
    assert!(c.fio.perf.total.is_none() && c.daemon.best().total.is_none());
    assert!(
        c.switches.rest.is_none(),
        "a rest without the daemon is none"
    );
    // /proc steps in for perf.
    assert_eq!(c.fio.best().total.as_ref().unwrap().median, 3003.0);
    let html = page(&f);
    assert!(html.contains("fuse: perf_event_open: not &lt;permitted&gt; here"));
    let switches = figure(&html, "fig-0-switches");
    assert!(switches.contains("not counted"), "{switches}");
    assert!(switches.contains("daemon not counted"), "{switches}");
    assert!(!switches.contains("<td class=\"num\">0</td>"), "{switches}");
}

#[test]
fn repetitions_stored_before_there_were_counters_are_told() {
    let mut f = two();
    for rep in 0..3 {
        f.done("T1", "ext4", rep, Some(2000.0), Some(900.0));
        f.done("T1", "fuse", rep, Some(1000.0), Some(500.0));
    }
    let html = page(&f);
    assert!(html.contains("No repetition of this test was stored with counters"));
    assert!(
        html.contains("stored with fio&#39;s latency bins")
            || html.contains("stored with fio's latency bins")
    );
    assert!(html.contains("No FUSE request was timed inside the kernel"));
    assert!(html.contains("its repetitions were stored without counters"));
    assert!(!html.contains("class=\"curve"));
    // One of three: the figures are those of the others, and it is said.
    let mut f = whole();
    counted::metrics(&mut f.attempts[1].outcome)
        .unwrap()
        .counters = None;
    let run = load(&f);
    let c = Cell::of(&run, "T1", "fuse").unwrap();
    assert_eq!((c.n, c.without), (2, 1));
    assert!(page(&f).contains("fuse: 1 repetition was stored without counters"));
}

#[test]
fn no_operations_give_no_figure_per_operation() {
    let mut f = whole();
    for a in &mut f.attempts {
        let m = counted::metrics(&mut a.outcome).unwrap();
        for op in [&mut m.read, &mut m.write].into_iter().flatten() {
            op.ios = 0;
        }
    }
    let c = Cell::of(&load(&f), "T1", "fuse").unwrap();
    assert!(c.fio.perf.total.is_some() && c.fio.perf.per_op.is_none());
    let html = page(&f);
    assert!(!html.contains("NaN") && !html.contains("inf"), "{html}");
}

#[test]
fn what_a_system_seldom_asks_is_not_frequent() {
    let mut f = whole();
    f.plan_probes(&["T1"], 1);
    probed(&mut f, "fuse", 0, 900.0, Some(4.0));
    // As with passthrough: seven requests in all, six of them OPEN.
    probed(&mut f, "ext4", 0, 900.0, Some(1.0));
    let m = counted::metrics(&mut f.attempts.last_mut().unwrap().outcome).unwrap();
    let requests = &mut m.counters.as_mut().unwrap().requests;
    requests.truncate(1);
    requests[0].opcode = "OPEN".into();
    requests[0].total = counted::spread(6, 1e6);
    requests[0].queueing = counted::spread(6, 5e5);
    requests[0].processing = counted::spread(6, 5e5);
    let html = page(&f);
    assert!(html.contains("<td>OPEN</td>"), "it is in the table");
    assert!(html.contains("READ, queueing") && !html.contains("OPEN, queueing"));
}

#[test]
fn messages_without_a_reply_are_counted_and_have_no_times() {
    let mut f = whole();
    f.plan_probes(&["T1"], 1);
    probed(&mut f, "fuse", 0, 900.0, Some(4.0));
    let html = page(&f);
    let requests = figure(&html, "fig-0-requests");
    let (_, forget) = requests.split_once("<td>FORGET</td>").unwrap();
    let (forget, _) = forget.split_once("</tr>").unwrap();
    assert!(forget.starts_with("<td class=\"num\">4</td>"), "{forget}");
    assert!(
        forget.contains("no reply, so no times; FORGET and BATCH_FORGET together named 4 nodes"),
        "{forget}"
    );
    // Of requests that have times, the part that waited in the background.
    assert!(
        requests.contains("<td class=\"num\">10.0 %</td>"),
        "{requests}"
    );
}

#[test]
fn sums_that_are_not_known_are_told() {
    let mut f = whole();
    f.plan_probes(&["T1"], 1);
    probed(&mut f, "fuse", 0, 900.0, Some(4.0));
    let m = counted::metrics(&mut f.attempts.last_mut().unwrap().outcome).unwrap();
    for r in &mut m.counters.as_mut().unwrap().requests {
        if r.opcode == "READ" {
            r.queueing.sum_ns = None;
        }
        if r.opcode == "WRITE" {
            r.total.sum_ns = r.total.sum_ns.map(|n| n * 2);
        }
    }
    let html = page(&f);
    let requests = figure(&html, "fig-0-requests");
    assert!(requests.contains("the exact sums of its times are not known"));
    assert!(requests.contains("sum not known"));
    assert!(requests.contains("<strong>-50."), "{requests}");
}

#[test]
fn who_served_the_requests_is_told_by_opcode() {
    let mut f = whole();
    for attempt in f.attempts.iter_mut().filter(|a| a.system == "fuse") {
        let counters = counted::metrics(&mut attempt.outcome)
            .and_then(|m| m.counters.as_mut())
            .unwrap();
        // Of 2000 operations in each of three repetitions.
        counters.served = vec![Served {
            opcode: "LOOKUP".into(),
            kernel: [("maps".to_owned(), 5400)].into(),
            passed: [("miss".to_owned(), 590), ("gone".to_owned(), 10)].into(),
        }];
    }
    let html = page(&f);
    let served = figure(&html, "fig-0-served");
    assert!(served.contains("90.0 % in the kernel"), "{served}");
    assert!(served.contains("no programs attached"), "{served}");
    assert!(served.contains("maps 16,200"), "{served}");
    assert!(served.contains("gone 30, miss 1,770"), "{served}");
    assert!(served.contains("<td class=\"num\">2.70</td>"), "{served}");
    let cell = Cell::of(&load(&f), "T1", "fuse").unwrap();
    assert_eq!(cell.served[0].kernel_percent(), Some(90.0));
    assert_eq!(cell.served[0].operations, 6000);
    assert!(!page(&whole()).contains("fig-0-served"));
}

#[test]
fn operations_on_names_are_figures_as_reads_and_writes_are() {
    let mut f = two();
    for (system, iops) in [("ext4", 4000.0), ("fuse", 1000.0)] {
        for rep in 0..3 {
            let mut outcome = done(None, None);
            counted::metrics(&mut outcome).unwrap().operations = Some(common::op(iops, 0.0));
            f.attempt("T1", system, rep, outcome);
        }
    }
    let run = load(&f);
    assert_eq!(run.of("T1", "fuse").count(), 3);
    let html = page(&f);
    assert!(!html.contains("failed in report"), "{html}");
}

#[test]
fn the_distribution_is_fios_own_bins_summed_over_repetitions() {
    let html = page(&whole());
    let cdf = figure(&html, "fig-0-cdf");
    // 1000 requests in each of three repetitions.
    assert!(cdf.contains("<td class=\"num\">3,000</td>"), "{cdf}");
    assert_eq!(cdf.matches("class=\"curve").count(), 2 + 4, "{cdf}");
}

#[test]
fn a_twin_is_a_floor_and_no_system() {
    let systems = vec![system("ext4", None), system("fuse", None), twin("fuse")];
    let mut f = Fixture::new(
        systems,
        vec![test("T1", Pattern::RandRw, Some(("vm", 1)))],
        3,
    );
    for (rep, noise) in [0.97, 1.0, 1.04].into_iter().enumerate() {
        let rep = u32::try_from(rep).unwrap();
        f.done("T1", "ext4", rep, Some(2000.0), Some(900.0));
        f.done("T1", "fuse", rep, Some(1000.0), Some(500.0));
        f.done("T1", "fuse@twin", rep, Some(1000.0 * noise), Some(500.0));
    }
    let html = page(&f);
    assert!(html.contains(
        "A/A: fuse@twin over fuse, the same system: 1.00x (0.97\u{2013}1.04, n=3), floor 4.0 %"
    ));
    assert_eq!(
        html.matches("class=\"band").count(),
        4,
        "summary and published, both directions"
    );
    assert!(!figure(&html, "fig-0-iops").contains("fuse@twin"));
    assert!(html.contains("Shaded band: A/A floor"));
    // Still verified like the others, and named among the systems.
    let verification = html.split_once("id=\"verification\"").unwrap().1;
    assert!(verification.contains("fuse@twin"));
    assert!(page(&whole()).contains("No A/A floor: this run measures no system twice."));
}

#[test]
fn a_ratio_that_is_not_certain_enough_is_marked_and_kept() {
    let mut f = two();
    f.plan.adaptive = Some(efuse_model::plan::Adaptive {
        base: "fuse".into(),
        precision: 0.1,
        max_repetitions: 3,
    });
    for (rep, ext4) in [2000.0, 3000.0, 1000.0].into_iter().enumerate() {
        let rep = u32::try_from(rep).unwrap();
        f.done("T1", "ext4", rep, Some(ext4), Some(900.0));
        f.done("T1", "fuse", rep, Some(1000.0), Some(500.0));
    }
    let html = page(&f);
    let marks = html.matches("unstable: \u{b1}50.0 %").count();
    assert_eq!(marks, 2, "read IOPS, in the summary and in the test");
    assert!(html.contains("2.00x (1.00\u{2013}3.00, n=3)"));
    assert!(html.contains("wider than \u{b1}10 % of it"));
    f.plan.adaptive = None;
    assert!(!page(&f).contains("unstable"));
}

#[test]
fn the_published_switches_are_fios_own_and_the_page_says_so() {
    let html = page(&whole());
    assert!(
        html.contains("The published counts are fio's own switches only")
            || html.contains("The published counts are fio&#39;s own switches only")
    );
    let from = html.split_once("(the document").unwrap().1;
    let table = from.split_once("</table>").unwrap().0;
    for published in ["169,664", "105,581", "78,476"] {
        assert!(table.contains(published), "{published}: {table}");
    }
    // fio's own count, the daemon's and the whole system's.
    for ours in ["3,005", "8,000", "12,500"] {
        assert!(table.contains(ours), "{ours}: {table}");
    }
    assert!(table.contains("not in this run"), "{table}");
}

/// fuse and a system with rings, both with probes.
fn with_rings() -> Fixture {
    let mut f = Fixture::new(
        vec![system("fuse", None), system("rfuse", None)],
        vec![test("T1", Pattern::RandRw, None)],
        2,
    );
    f.environment = Some(common::environment(
        efuse_model::environment::Accelerator::Tcg,
    ));
    f.plan_probes(&["T1"], 2);
    for rep in 0..2 {
        for (id, iops) in [("fuse", 1000.0), ("rfuse", 2000.0)] {
            let outcome = done_counted(Some(iops), Some(iops / 2.0), 1.0, Some(1.0));
            f.attempt("T1", id, rep, outcome);
            probed(&mut f, id, rep, iops, Some(1.0));
        }
    }
    for a in &mut f.attempts {
        let c = counted::metrics(&mut a.outcome).and_then(|m| m.counters.as_mut());
        c.unwrap().memory.rings = Some(if a.system == "rfuse" { 1 << 20 } else { 0 });
    }
    f
}

#[test]
fn rings_are_modelled_on_more_cores_and_every_part_says_so() {
    let f = with_rings();
    let run = load(&f);
    let cells = Cell::all(&run);
    let modelled = scaling::of(&run, &cells, &run.plan.tests[0]).unwrap();
    let (queue, rings) = (&modelled.queue, &modelled.rings);
    assert_eq!((queue.id.as_str(), rings.id.as_str()), ("fuse", "rfuse"));
    // By hand: contended / takings, over the takings a second of the other of two processors.
    let share = modelled.lock.contended as f64 / modelled.lock.all as f64;
    let held = share / (modelled.lock.per_second / 2.0) * 1e9;
    assert!((queue.input.lock_ns / held - 1.0).abs() < 1e-9);
    for curve in &modelled.curves {
        let per_second: Vec<f64> = curve.outcomes.iter().map(|o| o.per_second).collect();
        assert_eq!(per_second.len(), scaling::CORES.len());
        assert!(per_second[1] > per_second[0], "{per_second:?}");
    }
    let html = page(&f);
    let figure = figure(&html, "fig-0-scaling");
    assert!(figure.contains("Modelled, not measured"));
    let charts: Vec<&str> = figure.split("<svg class=\"chart\"").skip(1).collect();
    assert_eq!(charts.len(), 2);
    for chart in charts {
        let chart = chart.split_once("</svg>").unwrap().0;
        assert!(chart.contains("modelled: modelled, one queue"), "{chart}");
        assert!(chart.lines().any(|l| l == "modelled"), "{chart}");
        assert_eq!(chart.matches("class=\"hollow").count(), 2, "{chart}");
    }
}

#[test]
fn nothing_is_modelled_without_rings_or_without_a_contended_lock() {
    let mut f = with_rings();
    let counters = |f: &mut Fixture, change: &dyn Fn(&mut efuse_model::counters::Counters)| {
        for a in &mut f.attempts {
            if let Some(c) = counted::metrics(&mut a.outcome).and_then(|m| m.counters.as_mut()) {
                change(c);
            }
        }
    };
    counters(&mut f, &|c| {
        if let Some(lock) = &mut c.queue_lock {
            lock.contended = 0;
        }
    });
    let html = page(&f);
    assert!(!html.contains("fig-0-scaling"));
    assert!(html.contains("T1 is not modelled on more cores: nobody found the lock"));
    counters(&mut f, &|c| c.memory.rings = Some(0));
    let html = page(&f);
    assert!(!html.contains("fig-0-scaling") && !html.contains("modelled"));
}
