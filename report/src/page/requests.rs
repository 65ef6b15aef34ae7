//! Where a FUSE request spends its time: waiting for the daemon, or being processed.

use std::collections::BTreeMap;

use efuse_model::counters::Probes;
use efuse_model::histogram::Histogram;
use efuse_model::test::Test;
use maud::{Markup, PreEscaped, html};

use super::parts::{self, Bar, Row, Stack};
use super::{Page, latency, scrolling, system_name, under};
use crate::chart::{Curve, Curves};
use crate::count::{Cell, Opcode};
use crate::error::ReportError;
use crate::format;

/// Opcodes below this share of the requests of the system that has most are in the table
/// and not in the chart.
const CHART_SHARE: f64 = 0.01;

/// Queueing and processing together may miss the whole by this much: each of the three
/// is measured on its own.
const GAP_PERCENT: f64 = 1.0;

const PERCENTS: [f64; 3] = [50.0, 99.0, 99.9];

/// Queueing against processing, the distributions of both, and the queue's lock.
pub fn figures(page: &Page<'_>, index: usize, test: &Test) -> Result<Markup, ReportError> {
    let cells: Vec<&Cell> = page
        .systems()
        .filter_map(|s| page.cell(&test.id, &s.id))
        .filter(|c| !c.requests.is_empty())
        .collect();
    if cells.is_empty() {
        return Ok(html! {
            p.note {
                "No FUSE request was timed inside the kernel in this test: only repetitions with probes do that. "
                @for (i, s) in page.systems().filter(|s| page.cell(&test.id, &s.id).is_some_and(|c| c.has_daemon)).enumerate() {
                    @if i > 0 { "; " } (s.id) ": " (parts::why_unprobed(page, &test.id, &s.id))
                }
            }
        });
    }
    Ok(html! {
        (means(page, index, test, &cells)?)
        (distributions(page, test, &cells)?)
        (lock(page, test))
    })
}

/// The opcodes for the charts, the most frequent first. What a system seldom asks at all is
/// not frequent, whatever its part of that.
fn frequent<'a>(cells: &[&'a Cell]) -> Vec<&'a str> {
    let all = |c: &&Cell| c.requests.iter().map(|o| o.total.count()).sum::<u64>();
    let all = cells.iter().map(all).max().unwrap_or(0).max(1);
    let mut share: BTreeMap<&str, f64> = BTreeMap::new();
    for o in cells.iter().flat_map(|c| &c.requests) {
        let most = share.entry(&o.opcode).or_default();
        *most = most.max(o.total.count() as f64 / all as f64);
    }
    let mut out: Vec<_> = share
        .into_iter()
        .filter(|(_, s)| *s >= CHART_SHARE)
        .collect();
    out.sort_by(|a, b| b.1.total_cmp(&a.1));
    out.into_iter().map(|(opcode, _)| opcode).collect()
}

fn us(ns: f64) -> f64 {
    ns / 1e3
}

fn means(
    page: &Page<'_>,
    index: usize,
    test: &Test,
    cells: &[&Cell],
) -> Result<Markup, ReportError> {
    let mut rows = Vec::new();
    for opcode in frequent(cells) {
        rows.push(Row::Heading(opcode.to_owned()));
        for c in cells {
            let Some(o) = c.requests.iter().find(|o| o.opcode == opcode) else {
                continue;
            };
            let content = match (o.queueing.mean_ns(), o.processing.mean_ns()) {
                (Some(q), Some(p)) => Ok(Bar {
                    words: format!(
                        "{} + {} \u{b5}s",
                        format::number(us(q)),
                        format::number(us(p))
                    ),
                    parts: vec![(0, "queueing", us(q)), (2, "processing", us(p))],
                }),
                _ => Err("the exact sums of its times are not known".to_owned()),
            };
            rows.push(Row::Stack(Stack {
                system: c.system.clone(),
                name: c.system.clone(),
                content,
            }));
        }
    }
    let svg = parts::stacked(
        page,
        &format!(
            "{}, mean queueing and processing time of FUSE requests",
            test.id
        ),
        "mean time of a request, \u{b5}s",
        &rows,
    )?;
    Ok(html! {
        figure id=(format!("fig-{index}-requests")) {
            h3 { "FUSE requests: queueing against processing" }
            @if let Some(svg) = &svg {
                (parts::legend(&[(0, "queueing: given to FUSE until taken by the daemon"), (2, "processing: dequeue to reply")]))
                div.panels { div.panel { (PreEscaped(svg)) } }
            }
            (under::caption(page, &html! {
                (test.id) ", mean times of requests inside the kernel, by probes on FUSE's own functions, pooled over the repetitions with probes. "
                "Opcodes with less than " (CHART_SHARE * 100.0) " % of the requests of the system that has most are only in the table. Lower is better."
            }, &[test], &[Probes::On]))
            (table(page, test))
        }
    })
}

fn table(page: &Page<'_>, test: &Test) -> Markup {
    let table = html! {
        table {
            thead {
                tr {
                    th rowspan="2" scope="col" { "System" }
                    th rowspan="2" scope="col" { "Opcode" }
                    th.num rowspan="2" scope="col" { "Requests" }
                    th.num rowspan="2" scope="col" { "per operation" }
                    th.group colspan="6" scope="colgroup" { "Queueing, \u{b5}s" }
                    th.group colspan="5" scope="colgroup" { "Processing, \u{b5}s" }
                    th.group colspan="2" scope="colgroup" { "Whole request" }
                }
                tr {
                    @for queueing in [true, false] {
                        th.num scope="col" { "mean" }
                        @for q in PERCENTS { th.num scope="col" { "p" (q) } }
                        th.num scope="col" { "max" }
                        @if queueing { th.num scope="col" { "held back" } }
                    }
                    th.num scope="col" { "mean, \u{b5}s" }
                    th.num scope="col" { "parts \u{2212} whole" }
                }
            }
            tbody { @for s in page.systems() {
                @match page.cell(&test.id, &s.id).filter(|c| !c.requests.is_empty()) {
                    Some(c) => { @for o in &c.requests { (line(page, &s.id, o, c)) } },
                    None => (parts::row(page, &s.id, 16, Err(none(page, test, &s.id)))),
                }
            } }
        }
    };
    html! {
        (scrolling(&format!("{}, times of FUSE requests as a table", test.id), &table))
        p.job {
            "Parts \u{2212} whole: the means of queueing and processing together, less the mean of the whole request that is measured on its own, in "
            "percent of it; set in bold above " (GAP_PERCENT) " %. Held back: the part of queueing before the input queue, where a request of the background "
            "waits if as many as may be (max_background) are under way; a few percent are the way there. Percentiles are lower bounds of log-linear buckets, at most 1/16 below the value."
        }
    }
}

/// Why a system has no requests.
fn none(page: &Page<'_>, test: &Test, system: &str) -> String {
    match page.cell(&test.id, system) {
        Some(c) if c.n_probed > 0 && !c.has_daemon => "no daemon, so no FUSE requests".to_owned(),
        _ => parts::why_unprobed(page, &test.id, system),
    }
}

/// Messages to which there is no reply: nothing of them is timed.
const WITHOUT_REPLY: [&str; 3] = ["FORGET", "BATCH_FORGET", "INTERRUPT"];

fn line(page: &Page<'_>, system: &str, o: &Opcode, cell: &Cell) -> Markup {
    let head = html! {
        th scope="row" { (system_name(page, system)) }
        td { (o.opcode) }
        td.num { (format::count(o.taken)) }
        (parts::cell(o.crossings.per_op.as_ref()))
    };
    if WITHOUT_REPLY.contains(&o.opcode.as_str()) {
        let nodes = cell.forgotten.total.as_ref();
        let nodes = nodes.filter(|_| o.opcode != "INTERRUPT");
        return html! {
            tr {
                (head)
                td.none colspan="13" {
                    "no reply, so no times"
                    @if let Some(nodes) = nodes {
                        "; FORGET and BATCH_FORGET together named " (format::count(nodes.median.round() as u64)) " nodes a repetition"
                    }
                }
            }
        };
    }
    html! {
        tr {
            (head)
            (times(&o.queueing))
            @match o.held_percent() {
                Some(held) => td.num { (format!("{held:.1} %")) },
                None => td.none { "\u{2013}" },
            }
            (times(&o.processing))
            @match o.total.mean_ns() {
                Some(ns) => td.num { (format::number(us(ns))) },
                None => td.none { "sum not known" },
            }
            @match o.gap_percent() {
                None => td.none { "sum not known" },
                Some(gap) => td.num {
                    @if gap.abs() > GAP_PERCENT { strong { (format!("{gap:+.2} %")) } } @else { (format!("{gap:+.2} %")) }
                    @if !o.complete() { " " small { "of " (o.queueing.count()) " queued, " (o.processing.count()) " processed" } }
                },
            }
        }
    }
}

fn times(h: &Histogram) -> Markup {
    html! {
        @if h.count() == 0 {
            td.none colspan=(PERCENTS.len() + 2) { "none timed" }
        } @else {
            @match h.mean_ns() {
                Some(ns) => td.num { (format::number(us(ns))) },
                None => td.none { "sum not known" },
            }
            @for q in PERCENTS {
                td.num { (h.percentile_ns(q).map_or_else(|| "\u{2013}".to_owned(), |ns| format::number(us(ns as f64)))) }
            }
            @match h.max_ns {
                Some(ns) => td.num { (format::number(us(ns as f64))) },
                None => td.none { "not known" },
            }
        }
    }
}

/// A panel for queueing and one for processing of each of the two most frequent opcodes.
fn distributions(page: &Page<'_>, test: &Test, cells: &[&Cell]) -> Result<Markup, ReportError> {
    let mut panels = Vec::new();
    for opcode in frequent(cells).into_iter().take(2) {
        for (what, of) in [
            (
                "queueing",
                (|o: &Opcode| &o.queueing) as fn(&Opcode) -> &Histogram,
            ),
            ("processing", |o: &Opcode| &o.processing),
        ] {
            let mut curves = Vec::new();
            let mut read_out = Vec::new();
            for c in cells {
                let Some(o) = c.requests.iter().find(|o| o.opcode == opcode) else {
                    continue;
                };
                let h = of(o);
                let (Some(p50), Some(p99)) = (h.percentile_ns(50.0), h.percentile_ns(99.0)) else {
                    continue;
                };
                let words = format!(
                    "p50 {} \u{b5}s, p99 {} \u{b5}s",
                    format::number(us(p50 as f64)),
                    format::number(us(p99 as f64))
                );
                read_out.push(format!("{} {words}", c.system));
                curves.push(Curve {
                    slot: page.slot(&c.system),
                    tip: format!("{}: {words}", c.system),
                    bins: h.bins.clone(),
                });
            }
            if curves.is_empty() {
                continue;
            }
            let svg = Curves {
                label: format!(
                    "{}, {opcode}, {what} time, cumulative: {}.{}",
                    test.id,
                    read_out.join("; "),
                    page.mark_text()
                ),
                axis: format!("{opcode}, {what} time, \u{b5}s"),
                divisor: 1000.0,
                curves,
            }
            .svg()?;
            panels.push((format!("{opcode}, {what}"), svg));
        }
    }
    Ok(html! {
        @if !panels.is_empty() {
            figure {
                p.legend { @for c in cells { (latency::key(page, &c.system)) } }
                div.panels { @for (name, svg) in &panels {
                    div.panel { h4 { (name) } (PreEscaped(svg)) }
                } }
                (under::caption(page, &html! {
                    (test.id) ", share of requests whose queueing or processing ended within a time, of the two most frequent opcodes, pooled over the repetitions "
                    "with probes. Further left is better."
                }, &[test], &[Probes::On]))
            }
        }
    })
}

fn lock(page: &Page<'_>, test: &Test) -> Markup {
    let table = html! {
        table {
            caption { "Waiting for the lock of FUSE's input queue, in repetitions with probes; medians" (page.mark()) }
            thead { tr {
                th scope="col" { "System" }
                th.num scope="col" { "Times contended" }
                th.num scope="col" { "per operation" }
                th.num scope="col" { "Waited in all, ns" }
                th.num scope="col" { "ns per operation" }
            } }
            tbody { @for s in page.systems() {
                @let cell = page.cell(&test.id, &s.id);
                (parts::row(page, &s.id, 4, cell
                    .filter(|c| c.lock_contended.total.is_some())
                    .ok_or_else(|| none(page, test, &s.id))
                    .map(|c| html! { (parts::both(&c.lock_contended)) (parts::both(&c.lock_wait_ns)) })))
            } }
        }
    };
    html! {
        h4 { "Contention on the queue's lock" }
        (scrolling(&format!("{}, contention on the queue's lock", test.id), &table))
    }
}
