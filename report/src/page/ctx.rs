//! The published context switches (table 5-1 of the document) beside the three kinds that
//! are counted here.

use efuse_model::counters::Probes;
use efuse_model::test::Test;
use maud::{Markup, PreEscaped, html};

use super::{Page, parts, published, scrolling, system_name, under};
use crate::chart::{Chart, Content, Line, Mark, Scale, Shape};
use crate::count::{Cell, Figure};
use crate::error::ReportError;
use crate::format;
use crate::metric::{Metric, Op};

/// Systems that the document's table 5-1 itself prints; the other published counts are
/// from the authors' fio logs.
const TABLE_5_1: [&str; 3] = ["fuse", "extfuse", "efuse-prelim"];

/// A published count.
struct Theirs {
    /// fio's own switches in all.
    ctx: f64,
    /// Divided by the operations of both directions: IOPS x length of the run.
    per_op: Option<f64>,
}

fn theirs(page: &Page<'_>, key: &(String, u32), system: &str) -> Option<Theirs> {
    let directions: Vec<_> = Op::ALL
        .into_iter()
        .filter_map(|op| page.reference.get(key, system, op))
        .collect();
    let first = directions.first()?;
    let ctx = first.fio_ctx as f64;
    let operations: f64 = directions
        .iter()
        .filter_map(|p| Some(p.value(Metric::Iops)? * p.run_ms as f64 / 1000.0))
        .sum();
    Some(Theirs {
        ctx,
        per_op: (operations > 0.0).then(|| ctx / operations),
    })
}

fn ours<'p>(page: &'p Page<'_>, test: &Test, system: &str) -> Option<&'p Cell> {
    page.cell(&test.id, system).filter(|c| c.n > 0)
}

/// The comparison of one test.
pub fn part(page: &Page<'_>, test: &Test, key: &(String, u32)) -> Result<Markup, ReportError> {
    let table_5_1 = key.0 == "vm" && key.1 == 1;
    Ok(html! {
        h4 { "Context switches" @if table_5_1 { " (the document's table 5-1)" } }
        p {
            strong { "The published counts are fio's own switches only" }
            " (" code { "ctx" } " of fio): what the daemon and the rest of the system switched is not in them. "
            "They are to be compared with fio's own count of this run; the switches of the daemon and of the whole system, counted here, "
            "have no published counterpart. "
            @if table_5_1 {
                "The table prints " (TABLE_5_1.join(", ")) "; the counts of other systems are from the authors' fio logs. "
            }
            "Runs of different lengths compare per operation; the published operations are IOPS times the length of the run."
        }
        (chart(page, test, key)?)
        (table(page, test, key))
    })
}

fn chart(page: &Page<'_>, test: &Test, key: &(String, u32)) -> Result<Markup, ReportError> {
    let mut longest = Vec::new();
    let mut read_out = Vec::new();
    let mut lines = Vec::new();
    for id in published::union(page, key) {
        let cell = ours(page, test, id);
        let published = theirs(page, key, id).and_then(|t| t.per_op);
        let own = cell.and_then(|c| c.fio.own.per_op.as_ref());
        let split = cell.and_then(|c| {
            let s = &c.switches;
            Some((
                s.fio.as_ref()?.median,
                s.daemon.as_ref().map(|d| d.median),
                s.rest.as_ref()?.median,
                s.all.as_ref()?.median,
            ))
        });
        let mut drawn = Vec::new();
        let mut said = Vec::new();
        if let Some((fio, daemon, rest, all)) = split {
            longest.push(all);
            let tip =
                |name: &str, v: f64| format!("{id}, {name}: {} per operation", format::number(v));
            drawn.push((0, fio, tip("fio", fio)));
            drawn.extend(daemon.map(|d| (1, d, tip("daemon", d))));
            drawn.push((3, rest, tip("rest of the system", rest)));
            said.push(format!("here {}", format::number(all)));
        }
        if let Some(f) = own {
            said.push(format!("fio's own {}", format::number(f.median)));
        }
        let mut marks = Vec::new();
        if let Some(value) = published {
            longest.push(value);
            said.push(format!("published {}", format::number(value)));
            marks.push(Mark {
                shape: Shape::Hollow,
                value,
                tip: format!(
                    "{id}, published, fio only: {} per operation",
                    format::number(value)
                ),
            });
        }
        let content = if drawn.is_empty() && marks.is_empty() {
            Content::Missing(parts::why(page, &test.id, id))
        } else {
            let words = said.join(", ");
            read_out.push(format!("{id}: {words}"));
            Content::Stack {
                words,
                parts: drawn,
                marks,
            }
        };
        lines.push(Line {
            name: id.to_owned(),
            slot: page.slot(id),
            content,
        });
    }
    if longest.iter().all(|v| *v <= 0.0) {
        return Ok(html! {});
    }
    let svg = Chart {
        label: format!(
            "{}, context switches per operation, here and as published. {}.{}",
            test.id,
            read_out.join("; "),
            page.mark_text()
        ),
        scale: Scale::bars(&longest, false),
        axis: "context switches per operation".to_owned(),
        divisor: 1.0,
        reference: None,
        bars: true,
        joined: false,
        bands: vec![],
        lines,
    }
    .svg()?;
    Ok(html! {
        figure {
            (parts::legend(&[(0, "fio"), (1, "daemon"), (3, "rest of the system")]))
            div.panels { div.panel { (PreEscaped(svg)) } }
            (under::caption(page, &html! {
                "Context switches per operation. Bar: this run, fio, daemon and the rest of the system, medians; open square: published, "
                "one run, measured elsewhere, fio's own switches only. Fewer is better."
            }, &[test], &[Probes::Off]))
        }
    })
}

fn table(page: &Page<'_>, test: &Test, key: &(String, u32)) -> Markup {
    let base = page.base();
    let published_base = base.and_then(|b| theirs(page, key, b)?.per_op);
    let own_base = base.and_then(|b| Some(ours(page, test, b)?.fio.own.per_op.as_ref()?.median));
    let related = |v: Option<f64>, base: Option<f64>| match (v, base) {
        (Some(v), Some(b)) if b > 0.0 => html! { td.num { (format::factor(v / b)) "x" } },
        _ => dash(),
    };
    let table = html! {
        table {
            caption { "Context switches, published and counted here; medians of this run" (page.mark()) }
            thead {
                tr {
                    th rowspan="3" scope="col" { "System" }
                    th.group colspan="3" scope="colgroup" { "Published: fio only, measured elsewhere" }
                    th.group colspan="7" scope="colgroup" { "This run" }
                }
                tr {
                    th.num rowspan="2" scope="col" { "total" }
                    th.num rowspan="2" scope="col" { "per op" }
                    th.num rowspan="2" scope="col" { @match base { Some(b) => { "vs " (b) }, None => "ratio" } }
                    th.group colspan="3" scope="colgroup" { "fio's own count" }
                    th.group colspan="2" scope="colgroup" { "Daemon" }
                    th.group colspan="2" scope="colgroup" { "Whole system" }
                }
                tr {
                    th.num scope="col" { "total" } th.num scope="col" { "per op" }
                    th.num scope="col" { @match base { Some(b) => { "vs " (b) }, None => "ratio" } }
                    @for _ in 0..2 { th.num scope="col" { "total" } th.num scope="col" { "per op" } }
                }
            }
            tbody { @for id in published::union(page, key) {
                @let published = theirs(page, key, id);
                @let cell = ours(page, test, id);
                tr {
                    th scope="row" { (system_name(page, id)) }
                    @match &published {
                        Some(t) => {
                            td.num { (format::count(t.ctx as u64)) }
                            (optional(t.per_op))
                            (related(t.per_op, published_base))
                        }
                        None => { (dash()) (dash()) (dash()) }
                    }
                    @match cell {
                        None if page.everyone().iter().all(|s| s.id != id) => td.none colspan="7" { "not in this run" },
                        None => td.none colspan="7" { (parts::why(page, &test.id, id)) },
                        Some(c) => {
                            (parts::both(&c.fio.own))
                            (related(median(c.fio.own.per_op.as_ref()), own_base))
                            @if c.has_daemon { (parts::both(c.daemon.best())) } @else { td.none colspan="2" { "no daemon" } }
                            (parts::both(c.system_wide.best()))
                        }
                    }
                }
            } }
        }
    };
    scrolling(
        &format!("{}, context switches published and counted here", test.id),
        &table,
    )
}

fn median(figure: Option<&Figure>) -> Option<f64> {
    figure.map(|f| f.median)
}

fn optional(v: Option<f64>) -> Markup {
    v.map_or_else(dash, |v| html! { td.num { (format::number(v)) } })
}

fn dash() -> Markup {
    html! { td.num { span.none { "\u{2013}" } } }
}
