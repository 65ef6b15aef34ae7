//! The adaptive choice of a path for data: what it chose, and what that was worth.

use efuse_model::counters::Probes;
use efuse_model::plan::PlannedSystem;
use efuse_model::test::Test;
use maud::{Markup, PreEscaped, html};

use super::parts::{self, Bar, Row, Stack};
use super::{Page, scrolling, system_name, under};
use crate::chart::{Chart, Content, Line, Mark, Scale, Shape};
use crate::choice::{self, Against, CHOOSES, Choice, FIXED, Paths};
use crate::error::ReportError;
use crate::format;
use crate::metric::Op;
use crate::table::Ratio;

/// Parts of a bar: the paths.
const PATHS: [(usize, &str); 4] = [
    (0, "cache"),
    (1, "cache, filled from the backing file"),
    (2, "backing file"),
    (3, "daemon"),
];

/// Directions that have paths.
const OPS: [Op; 2] = [Op::Read, Op::Write];

/// Whether any system chose.
pub fn any(page: &Page<'_>) -> bool {
    page.systems().any(|s| chooses(page, s))
}

fn choice<'a>(page: &'a Page<'_>, test: &Test, system: &PlannedSystem) -> Option<&'a Choice> {
    page.cell(&test.id, &system.id)?.choice.as_ref()
}

fn chooses(page: &Page<'_>, system: &PlannedSystem) -> bool {
    let mut tests = page.run.plan.tests.iter();
    tests.any(|t| choice(page, t, system).is_some())
}

/// Every test in which a system chose; nothing where none did.
pub fn section(page: &Page<'_>) -> Result<Option<Markup>, ReportError> {
    let systems: Vec<_> = page.systems().filter(|s| chooses(page, s)).collect();
    let tests: Vec<&Test> = page
        .run
        .plan
        .tests
        .iter()
        .filter(|t| systems.iter().any(|s| choice(page, t, s).is_some()))
        .collect();
    if systems.is_empty() {
        return Ok(None);
    }
    Ok(Some(html! {
        section #choice aria-labelledby="h-choice" {
            h2 #h-choice { "The adaptive choice of a path for data" }
            p {
                "These systems choose for each file whether direct reads go through the cache of blocks in the kernel or to the backing file. "
                "In every round of reads some take the other path (a probe), and the cheaper path is predicted for the rest of the round from what a byte cost on each path and from the share of hits: "
                "on the cache it is measured, off it a model tells what the cache would have had."
            }
            (shares(page, &tests, &systems)?)
            (worth(page, &tests)?)
        }
    }))
}

/// Directions in which a test has calls at all.
fn directions(page: &Page<'_>, test: &Test, systems: &[&PlannedSystem]) -> Vec<Op> {
    let has = |op: &Op| {
        let mut all = systems.iter().filter_map(|s| choice(page, test, s));
        all.any(|c| c.paths(*op).is_some())
    };
    OPS.into_iter().filter(has).collect()
}

fn shares(
    page: &Page<'_>,
    tests: &[&Test],
    systems: &[&PlannedSystem],
) -> Result<Markup, ReportError> {
    let mut panels = Vec::new();
    for test in tests {
        let mut rows = Vec::new();
        for s in systems {
            for op in directions(page, test, systems) {
                rows.push(Row::Stack(Stack {
                    system: s.id.clone(),
                    name: format!("{}, {}s", s.id, op.name()),
                    content: calls(page, test, s, op).map(|p| bar(p, op)),
                }));
            }
        }
        let svg = parts::stacked(
            page,
            &format!(
                "{}, direct reads and writes by the path that they took",
                test.id
            ),
            "calls, %",
            &rows,
        )?;
        panels.extend(svg.map(|svg| (&test.id, svg)));
    }
    Ok(html! {
        figure #fig-choice {
            h3 { "By which path data went" }
            (parts::legend(&PATHS))
            div.panels { @for (test, svg) in &panels {
                div.panel { h4 { (test) } (PreEscaped(svg)) }
            } }
            (under::caption(page, &html! {
                "Calls of direct I/O in the measured phase by the path that they took, sums over the repetitions. "
                "No path is better as such: that is what the choice is for."
            }, tests, &[Probes::Off]))
            (paths_table(page, tests, systems))
            (rounds_table(page, tests, systems))
        }
    })
}

/// The calls of a system in one direction, or why there are none.
fn calls<'a>(
    page: &'a Page<'_>,
    test: &Test,
    system: &PlannedSystem,
    op: Op,
) -> Result<&'a Paths, String> {
    match choice(page, test, system) {
        Some(c) => c
            .paths(op)
            .ok_or_else(|| "not one of them was seen".to_owned()),
        None => Err(why(page, test, system)),
    }
}

fn why(page: &Page<'_>, test: &Test, system: &PlannedSystem) -> String {
    match page.cell(&test.id, &system.id) {
        Some(c) if c.n > 0 => "nothing to choose for was seen".to_owned(),
        _ => parts::why(page, &test.id, &system.id),
    }
}

fn bar(paths: &Paths, op: Op) -> Bar {
    let percent = |n| paths.percent(n).unwrap_or_default();
    let counts = [paths.cache, paths.filled, paths.backing, paths.by_daemon()];
    // The path of writes is no choice: the file has to have them.
    let (told, words) = match op {
        Op::Read => (paths.cache + paths.filled, "through the cache"),
        _ => (paths.by_daemon(), "by the daemon"),
    };
    let parts = PATHS.into_iter().zip(counts);
    Bar {
        words: format!("{} % {words}", format::number(percent(told))),
        parts: parts
            .map(|((n, name), count)| (n, name, percent(count)))
            .collect(),
    }
}

fn dash() -> String {
    "\u{2013}".to_owned()
}

fn paths_table(page: &Page<'_>, tests: &[&Test], systems: &[&PlannedSystem]) -> Markup {
    let percent = |p: &Paths, n| p.percent(n).map_or_else(dash, format::number);
    let table = html! {
        table {
            caption { "Direct reads and writes by path, percent of the calls" (page.mark()) }
            thead { tr {
                th scope="col" { "Test" }
                th scope="col" { "System" }
                th scope="col" { "Direction" }
                th.num scope="col" { "Calls" }
                @for (_, name) in PATHS { th.num scope="col" { (name) } }
                th.num scope="col" { "hits in the cache" }
                th scope="col" { "To the daemon because" }
            } }
            tbody { @for test in tests { @for s in systems { @for op in directions(page, test, systems) { tr {
                td { (test.id) }
                th scope="row" { (system_name(page, &s.id)) }
                td { (op.name()) "s" }
                @match calls(page, test, s, op) {
                    Ok(p) => {
                        td.num { (format::count(p.all())) }
                        @for n in [p.cache, p.filled, p.backing, p.by_daemon()] { td.num { (percent(p, n)) } }
                        td.num { (p.hit_percent().filter(|_| op == Op::Read).map_or_else(dash, format::number)) }
                        td { (super::served::words(&p.daemon)) }
                    },
                    Err(why) => td.none colspan="7" { (why) },
                }
            } } } } }
        }
    };
    html! {
        (scrolling("Direct reads and writes by path as a table", &table))
        p.job {
            "Filled: the cache lacked it, so it was read from the backing file and kept. Hits: of the reads that went through the cache, those that it had. "
            "A file that stays on one path still has reads on the other: each file begins on the cache, probes go on, and a read that cannot be kept (a write of the same blocks is under way, or memory is short) is the backing file's. "
            "Writes go to the backing file on either path; on the cache they leave its blocks true."
        }
    }
}

fn rounds_table(page: &Page<'_>, tests: &[&Test], systems: &[&PlannedSystem]) -> Markup {
    let of = |n: u64, all: u64| {
        if all == 0 {
            format::count(n)
        } else {
            let percent = n as f64 / all as f64 * 100.0;
            format!("{} ({} %)", format::count(n), format::number(percent))
        }
    };
    let table = html! {
        table {
            caption { "How it was chosen: sums over the repetitions" (page.mark()) }
            thead { tr {
                th scope="col" { "Test" }
                th scope="col" { "System" }
                th.num scope="col" { "Repetitions" }
                th.num scope="col" { "Rounds" }
                th.num scope="col" { "that changed the path" }
                th.num scope="col" { "in which processors were short" }
                th.num scope="col" { "Files on the cache at the end" }
                th.num scope="col" { "Files on the backing file at the end" }
            } }
            tbody { @for test in tests { @for s in systems { tr {
                td { (test.id) }
                th scope="row" { (system_name(page, &s.id)) }
                @match choice(page, test, s) {
                    Some(c) => {
                        @let r = &c.rounds;
                        td.num { (c.n) }
                        td.num { (format::count(r.rounds)) }
                        td.num { (of(r.changes, r.rounds)) }
                        td.num { (of(r.short_rounds, r.rounds)) }
                        td.num { (of(r.on_cache, r.on_cache + r.on_backing)) }
                        td.num { (of(r.on_backing, r.on_cache + r.on_backing)) }
                    },
                    None => td.none colspan="6" { (why(page, test, s)) },
                }
            } } } }
        }
    };
    html! {
        (scrolling("Rounds of the adaptive choice as a table", &table))
        p.job {
            "A round ends with a prediction of the cheaper path; without a round a file stays on the path that it began on. Where processors were short, work was compared and not time. "
            "Files at the end: what costs and the model of the cache had said last of each file, those read before the measured phase included."
        }
    }
}

/// What is fixed to a path, in words.
fn fixed() -> String {
    FIXED.map(|(id, _)| id).join(" and ")
}

/// The choice against the systems that are fixed to one path.
fn worth(page: &Page<'_>, tests: &[&Test]) -> Result<Markup, ReportError> {
    let mut found: Vec<(&Test, Op, Against)> = Vec::new();
    for test in &page.run.plan.tests {
        for op in page.ops(test) {
            found
                .extend(choice::against(page.run, page.table, &test.id, op).map(|a| (test, op, a)));
        }
    }
    found.retain(|(test, ..)| tests.iter().any(|t| t.id == test.id));
    if found.is_empty() {
        return Ok(html! {
            p.job {
                "What the choice is worth is told by runs that have " (CHOOSES) " beside " (fixed())
                ", which are the same but for a path that is fixed."
            }
        });
    }
    let mut panels = Vec::new();
    for op in OPS {
        let of: Vec<_> = found.iter().filter(|(_, o, _)| *o == op).collect();
        if !of.is_empty() {
            panels.push((op, svg(page, op, &of)?));
        }
    }
    let shown: Vec<&Test> = tests
        .iter()
        .copied()
        .filter(|t| found.iter().any(|(test, ..)| test.id == t.id))
        .collect();
    Ok(html! {
        figure #fig-choice-worth {
            h3 { "What the choice was worth: against the better of two fixed paths" }
            div.panels { @for (op, svg) in &panels {
                div.panel { h4 { (op.name()) "s" } (PreEscaped(svg)) }
            } }
            (under::caption(page, &html! {
                "IOPS of " (CHOOSES) " over those of the better of " (fixed()) ", which differ from it in nothing but a path that is fixed for all files: "
                "median of the ratios inside each repetition with its 95 % bootstrap interval; points: each repetition. "
                "Which one is better is told by the same kind of ratio between the two, so it is known only afterwards; 1 is a choice that was right all along and cost nothing. "
                "Open square: the other fixed path, what a wrong choice costs. Further right is better."
            }, &shown, &[Probes::Off]))
            (worth_table(page, &found))
        }
    })
}

fn svg(page: &Page<'_>, op: Op, found: &[&(&Test, Op, Against)]) -> Result<String, ReportError> {
    let mut values = vec![1.0];
    let mut read_out = Vec::new();
    let mut lines = Vec::new();
    for (test, _, against) in found {
        let r = &against.chosen;
        values.extend(r.points.iter().map(|p| p.value));
        read_out.push(format!(
            "{}: {} of {}",
            test.id,
            format::ratio(r),
            against.better
        ));
        let other = &against.other;
        values.push(other.median);
        let other = Mark {
            shape: Shape::Hollow,
            value: other.median,
            tip: format!(
                "{}, the other fixed path: {}",
                test.id,
                format::ratio(other)
            ),
        };
        lines.push(Line {
            name: test.id.clone(),
            slot: page.slot(CHOOSES),
            content: Content::Data {
                words: format::ratio(r),
                median: Some(r.median),
                interval: r.interval,
                points: r
                    .points
                    .iter()
                    .map(|p| {
                        let tip = format!(
                            "{}, repetition {}: {}x",
                            test.id,
                            p.repetition + 1,
                            format::factor(p.value)
                        );
                        (p.value, tip)
                    })
                    .collect(),
                marks: vec![other],
            },
        });
    }
    let chart = Chart {
        label: format!(
            "{} IOPS of {CHOOSES} over the better fixed path. {}.{}",
            op.name(),
            read_out.join("; "),
            page.mark_text()
        ),
        scale: Scale::marks(values),
        axis: format!("{} IOPS, multiple of the better fixed path", op.name()),
        divisor: 1.0,
        reference: Some(1.0),
        bars: false,
        joined: false,
        bands: vec![],
        lines,
    };
    chart.svg()
}

fn worth_table(page: &Page<'_>, found: &[(&Test, Op, Against)]) -> Markup {
    let ratio = |r: &Ratio| {
        html! { td.num {
            (format::ratio(r))
            @if r.interval.is_some() { " " small.verdict { (format::verdict(r)) } }
        } }
    };
    let table = html! {
        table {
            caption { "IOPS related to the better fixed path" (page.mark()) }
            thead { tr {
                th scope="col" { "Test" }
                th scope="col" { "Direction" }
                th scope="col" { "Better fixed path" }
                th.num scope="col" { (CHOOSES) " over it" }
                th.num scope="col" { "The other fixed path over it" }
            } }
            tbody { @for (test, op, against) in found { tr {
                th scope="row" { (test.id) }
                td { (op.name()) "s" }
                td { (against.path()) " " small { "(" (against.better) ")" } }
                (ratio(&against.chosen))
                (ratio(&against.other))
            } } }
        }
    };
    html! { (scrolling("The choice against the better fixed path as a table", &table)) }
}
