//! Published values beside ours.

use efuse_model::counters::Probes;
use efuse_model::test::Test;
use maud::{Markup, PreEscaped, html};

use super::{Page, ctx, floor, scrolling, system_name, under};
use crate::chart::{Band, Chart, Content, Line, Mark, Scale, Shape};
use crate::error::ReportError;
use crate::format::{self, Unit};
use crate::metric::{Metric, Op};
use crate::paper::Published;

/// Every test that repeats a published one.
pub fn section(page: &Page<'_>) -> Result<Markup, ReportError> {
    let mut parts = Vec::new();
    for test in &page.run.plan.tests {
        if let Some(key) = &test.published {
            parts.push(part(page, test, key)?);
        }
    }
    Ok(html! {
        section #published aria-labelledby="h-published" {
            h2 #h-published { "Published values beside ours" }
            @if parts.is_empty() {
                p { "No test of this run repeats a published one." }
            } @else {
                p {
                    "The published values are those of the eFUSE design document (2025), "
                    strong { "measured elsewhere, on another machine and kernel" }
                    ": absolute figures of the two columns do not compare. What compares, with the "
                    "limits below, is each side's ratio to its own " code { "fuse" } "."
                }
                h3 { "Known limits of the published runs" }
                ul { @for limit in &page.reference.limits { li { (limit) } } }
                @for p in &parts { (p) }
            }
        }
    })
}

/// The ratio of two published values.
fn published_ratio(
    page: &Page<'_>,
    key: &(String, u32),
    system: &str,
    op: Op,
    metric: Metric,
) -> Option<f64> {
    let value = |system| page.reference.get(key, system, op)?.value(metric);
    let (ours, base) = (value(system)?, value(page.base()?)?);
    (base > 0.0).then(|| ours / base)
}

/// Systems of the plan, then those that only the document has.
pub(super) fn union<'a>(page: &Page<'a>, key: &(String, u32)) -> Vec<&'a str> {
    let mut out: Vec<&str> = page.systems().map(|s| s.id.as_str()).collect();
    for s in page.reference.systems(key) {
        if !out.contains(&s) {
            out.push(s);
        }
    }
    out
}

fn part(page: &Page<'_>, test: &Test, key: &(String, u32)) -> Result<Markup, ReportError> {
    let known = !page.reference.systems(key).is_empty();
    if !known {
        return Ok(html! {
            h3 { (test.id) }
            p.note { "Nothing was published for profile " (key.0) ", test " (key.1) "." }
        });
    }
    let chart = chart(page, test, key)?;
    let [first, rest @ ..] = Metric::CHARTS;
    Ok(html! {
        h3 { (test.id) " and the document's profile " (key.0) ", test " (key.1) }
        (chart)
        (values(page, test, key, first))
        details {
            summary { "Throughput and latencies of " (test.id) }
            @for metric in rest { (values(page, test, key, metric)) }
        }
        (ctx::part(page, test, key)?)
        (jobs(page, test, key))
    })
}

fn chart(page: &Page<'_>, test: &Test, key: &(String, u32)) -> Result<Markup, ReportError> {
    let Some(base) = page.base() else {
        return Ok(html! {});
    };
    let mut panels = Vec::new();
    for op in page.ops(test) {
        let mut values = vec![1.0];
        let mut read_out = Vec::new();
        let mut lines = Vec::new();
        for id in union(page, key).into_iter().filter(|id| *id != base) {
            let ours = page
                .row(&test.id, id, op, Metric::Iops)
                .and_then(|r| r.ratio.as_ref());
            let theirs = published_ratio(page, key, id, op, Metric::Iops);
            if ours.is_none() && theirs.is_none() {
                continue;
            }
            values.extend(theirs);
            values.extend(ours.iter().flat_map(|r| r.points.iter().map(|p| p.value)));
            let side = |name: &str, v: Option<f64>| {
                v.map_or(format!("{name} \u{2013}"), |v| {
                    format!("{name} {}x", format::factor(v))
                })
            };
            let words = format!(
                "{}, {}",
                side("here", ours.map(|r| r.median)),
                side("published", theirs)
            );
            read_out.push(format!("{id}: {words}"));
            lines.push(Line {
                name: id.to_owned(),
                slot: page.slot(id),
                content: Content::Data {
                    words,
                    median: ours.map(|r| r.median),
                    interval: ours.and_then(|r| r.interval),
                    points: vec![],
                    marks: theirs
                        .map(|value| Mark {
                            shape: Shape::Hollow,
                            value,
                            tip: format!("{id}, published: {}x", format::factor(value)),
                        })
                        .into_iter()
                        .collect(),
                },
            });
        }
        if lines.is_empty() {
            continue;
        }
        let mut bands = Vec::new();
        if let Some(floor) = floor::largest(page, &test.id, op, Metric::Iops) {
            let band = floor.band();
            values.extend([band.low, band.high]);
            bands.push(Band {
                lines: 0..lines.len(),
                interval: band,
                tip: floor.words(),
            });
        }
        let chart = Chart {
            label: format!(
                "{}, {} IOPS related to {base}, here and as published. {}.{}",
                test.id,
                op.name(),
                read_out.join("; "),
                page.mark_text()
            ),
            scale: Scale::marks(values),
            axis: format!("{} IOPS, multiple of the same side's {base}", op.name()),
            divisor: 1.0,
            reference: Some(1.0),
            bars: false,
            joined: false,
            bands,
            lines,
        };
        panels.push((op, chart.svg()?));
    }
    Ok(html! {
        @if !panels.is_empty() {
            figure {
                div.panels {
                    @for (op, svg) in &panels {
                        div.panel { h4 { (op.name()) "s" } (PreEscaped(svg)) }
                    }
                }
                (under::caption(page, &html! {
                    "IOPS as a multiple of " (base) ". Filled diamond and whiskers: this run, median and "
                    "95 % interval; open square: published, one run, measured elsewhere. "
                    (floor::legend(page))
                }, &[test], &[Probes::Off]))
            }
        }
    })
}

fn values(page: &Page<'_>, test: &Test, key: &(String, u32), metric: Metric) -> Markup {
    let ops = page.ops(test);
    let systems = union(page, key);
    let theirs = |id: &str, op| {
        page.reference
            .get(key, id, op)
            .and_then(|p| p.value(metric))
    };
    let all = systems.iter().flat_map(|id| {
        let ops = ops.clone();
        ops.into_iter().flat_map(move |op| {
            let ours = page.row(&test.id, id, op, metric).map(|r| r.median);
            [ours, theirs(id, op)].into_iter().flatten()
        })
    });
    let unit = Unit::of(metric, all);
    let label = format!(
        "{}, {}: published and measured here",
        test.id,
        metric.title()
    );
    let base = page.base();
    let table = html! {
        table {
            caption { (metric.title()) ", " (metric.better().words()) (page.mark()) }
            thead {
                tr {
                    th rowspan="2" scope="col" { "System" }
                    th rowspan="2" scope="col" { "Op" }
                    th.group colspan="2" scope="colgroup" { "Published, measured elsewhere" }
                    th.group colspan="2" scope="colgroup" { "This run" }
                }
                tr {
                    @for _ in 0..2 {
                        th.num scope="col" { (unit.name) }
                        th.num scope="col" { @match base { Some(b) => { "vs " (b) }, None => "ratio" } }
                    }
                }
            }
            tbody {
                @for id in &systems { @for op in &ops {
                    @let row = page.row(&test.id, id, *op, metric);
                    @let published = theirs(id, *op);
                    @if row.is_some() || published.is_some() { tr {
                        th scope="row" { (system_name(page, id)) }
                        td { (op.name()) }
                        (optional(published.map(|v| unit.bare(v)).as_deref()))
                        (optional(published_ratio(page, key, id, *op, metric).map(|v| {
                            if base == Some(*id) { "1".to_owned() } else { format!("{}x", format::factor(v)) }
                        }).as_deref()))
                        (optional(row.map(|r| unit.bare(r.median)).as_deref()))
                        (optional(row.and_then(|r| r.ratio.as_ref()).map(|r| {
                            if base == Some(*id) { "1".to_owned() } else { format::ratio(r) }
                        }).as_deref()))
                    } }
                } }
            }
        }
    };
    scrolling(&label, &table)
}

fn optional(text: Option<&str>) -> Markup {
    match text {
        Some(text) => html! { td.num { (text) } },
        None => html! { td.num { span.none { "\u{2013}" } } },
    }
}

/// The job of each published run beside this run's.
fn jobs(page: &Page<'_>, test: &Test, key: &(String, u32)) -> Markup {
    // What was published is data; a metadata test is compared with nothing.
    let Some(j) = test.job.fio() else {
        return html! {};
    };
    let here = (j.engine.as_str(), j.block_bytes, j.jobs, j.iodepth);
    let published: Vec<&Published> = page
        .reference
        .systems(key)
        .into_iter()
        .filter_map(|s| page.reference.get(key, s, Op::Read))
        .collect();
    let label = format!("{}: jobs of the published runs and of this run", test.id);
    let table = html! {
        table {
            caption { "The jobs. A published job that is not this run's is set in bold." }
            thead { tr {
                th scope="col" { "Run" }
                th scope="col" { "Engine" }
                th.num scope="col" { "Block" }
                th.num scope="col" { "Jobs" }
                th.num scope="col" { "Depth" }
                th.num scope="col" { "Ran for" }
            } }
            tbody {
                tr {
                    th scope="row" { "this run, every system" }
                    td { (j.engine) }
                    td.num { (format::bytes(j.block_bytes)) }
                    td.num { (j.jobs) }
                    td.num { (j.iodepth) }
                    td.num { (ran(page, test)) }
                }
                @for p in published {
                    tr {
                        th scope="row" { "published " (p.system) }
                        td { (differing(&p.ioengine, p.ioengine == here.0)) }
                        td.num { (differing(&format::bytes(p.block_bytes), p.block_bytes == here.1)) }
                        td.num { (differing(&p.jobs.to_string(), p.jobs == here.2)) }
                        td.num { (differing(&p.iodepth.to_string(), p.iodepth == here.3)) }
                        td.num { (format::duration_ms(p.run_ms as f64)) }
                    }
                }
            }
        }
    };
    scrolling(&label, &table)
}

fn differing(text: &str, same: bool) -> Markup {
    html! { @if same { (text) } @else { strong { (text) } } }
}

fn ran(page: &Page<'_>, test: &Test) -> String {
    let times: Vec<f64> = page
        .run
        .measured
        .iter()
        .filter(|m| m.test == test.id)
        .map(|m| m.metrics.runtime_ms)
        .collect();
    crate::stats::median(&times).map_or("\u{2013}".to_owned(), |ms| {
        format!("{} (median)", format::duration_ms(ms))
    })
}
