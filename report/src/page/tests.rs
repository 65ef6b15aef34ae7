//! One section per test: what was run, its charts and their tables.

use efuse_model::counters::Probes;
use efuse_model::metadata::MetadataJob;
use efuse_model::test::{FioJob, Job, Test};
use maud::{Markup, PreEscaped, html};

use super::{
    Page, cpu, latency, probes, ratio_cell, requests, scaling, scrolling, served, switches,
    system_name, under,
};
use crate::chart::{Chart, Content, Line, Mark, Scale, Shape};
use crate::error::ReportError;
use crate::format::{self, Unit};
use crate::metric::{Metric, Op};

/// A test.
pub fn section(page: &Page<'_>, index: usize, test: &Test) -> Result<Markup, ReportError> {
    let heading = format!("h-test-{index}");
    let mut figures = Vec::new();
    let ops = page.ops(test);
    for metric in Metric::CHARTS {
        if !ops.iter().any(|op| op.has(metric)) {
            continue;
        }
        figures.push(figure(page, index, test, metric)?);
    }
    figures.push(percentiles(page, index, test)?);
    figures.push(latency::figure(page, index, test)?);
    figures.push(switches::figures(page, index, test)?);
    figures.push(cpu::figures(page, index, test)?);
    figures.push(served::figure(page, index, test)?);
    figures.push(requests::figures(page, index, test)?);
    figures.push(scaling::figure(page, index, test)?);
    figures.push(probes::figure(page, index, test)?);
    let any = page.run.measured.iter().any(|m| m.test == test.id);
    Ok(html! {
        section id=(format!("test-{index}")) aria-labelledby=(heading) {
            h2 id=(heading) { (test.id) ": " (test.title) }
            (job(test))
            @if any {
                @for f in &figures { (f) }
            } @else {
                p.note { "No system has figures in this test." }
                ul.plain {
                    @for s in page.systems() {
                        li { (system_name(page, &s.id)) ": " (page.run.why_missing(&test.id, &s.id)) }
                    }
                }
            }
            (commands(page, test))
        }
    })
}

fn job(test: &Test) -> Markup {
    match &test.job {
        Job::Fio(job) => fio_job(job),
        Job::Metadata(job) => metadata_job(job),
    }
}

fn metadata_job(j: &MetadataJob) -> Markup {
    html! {
        p.job {
            (j.kind.name()) " in " (j.dirs) " folders of " (j.files) " files, "
            (j.threads) @if j.threads == 1 { " thread" } @else { " threads" }
            " for " (format::duration_ms(j.runtime_ms as f64))
            @if j.ramp_ms > 0 { ", after " (format::duration_ms(j.ramp_ms as f64)) " of unmeasured lead-in" }
            @if j.warm && !j.kind.writes() { "; every name was asked for once before" }
            "; the daemon lets the kernel keep names and attributes: " (j.kernel_cache.name())
            ". Every answer is checked. The same job on every system."
        }
    }
}

fn fio_job(j: &FioJob) -> Markup {
    let pattern = if j.pattern.reads() && j.pattern.writes() {
        format!("{} ({} % reads)", j.pattern.as_fio(), j.read_percent)
    } else {
        j.pattern.as_fio().to_owned()
    };
    let mut stop = Vec::new();
    stop.extend(j.io_bytes.map(|b| format!("{} moved", format::bytes(b))));
    stop.extend(j.runtime_ms.map(|ms| format::duration_ms(ms as f64)));
    let stop = if stop.is_empty() {
        "one pass over the files".to_owned()
    } else {
        stop.join(" or ")
    };
    html! {
        p.job {
            (pattern) ", " (format::bytes(j.block_bytes)) " blocks, " (j.engine) ", "
            (j.jobs) @if j.jobs == 1 { " job" } @else { " jobs" } " x queue depth " (j.iodepth)
            @if j.direct { ", direct" } @else { ", buffered" } "; "
            (j.files) @if j.files == 1 { " file" } @else { " files" } " of " (format::bytes(j.file_bytes))
            "; ends after " (stop)
            @if j.ramp_ms > 0 { ", after " (format::duration_ms(j.ramp_ms as f64)) " of unmeasured lead-in" }
            ". The same job on every system."
        }
    }
}

/// One figure of a test: a panel per direction and the table.
fn figure(
    page: &Page<'_>,
    index: usize,
    test: &Test,
    metric: Metric,
) -> Result<Markup, ReportError> {
    let ops = page.ops(test);
    // One kind of axis for both directions, each with its own range.
    let values: Vec<Vec<f64>> = ops
        .iter()
        .map(|op| {
            page.table
                .across(&test.id, *op, metric)
                .flat_map(|r| r.points.iter().map(|p| p.value))
                .collect()
        })
        .collect();
    let unit = Unit::of(metric, values.iter().flatten().copied());
    let log = values.iter().any(|v| Scale::needs_log(v));
    let mut panels = Vec::new();
    for (op, values) in ops.iter().zip(&values) {
        let scale = Scale::bars(values, log);
        panels.push((op, panel(page, test, *op, metric, &scale, unit)?));
    }
    let id = format!("fig-{index}-{}", metric.key());
    Ok(html! {
        figure id=(id) {
            h3 { (metric.title()) }
            div.panels {
                @for (op, svg) in &panels {
                    div.panel { h4 { (op.name()) "s" } (PreEscaped(svg)) }
                }
            }
            (under::caption(page, &html! {
                (test.id) ", " (what(metric, unit)) ". "
                @if log { "Diamond (the logarithmic axis has no zero for a bar): median; " }
                @else { "Bar: median; " }
                "points: each repetition; whiskers: 95 % bootstrap interval of the median. "
                (sentence(metric))
            }, &[test], &[Probes::Off]))
            (figure_table(page, test, metric, &ops, unit))
        }
    })
}

fn what(metric: Metric, unit: Unit) -> String {
    match metric {
        Metric::Iops => "requests completed per second".to_owned(),
        Metric::Throughput => format!("bytes moved per second, in {}", unit.name),
        _ => format!("mean {}, in {}", lower_first(metric.title()), unit.name),
    }
}

fn sentence(metric: Metric) -> String {
    let words = metric.better().words();
    let (first, rest) = words.split_at(1);
    format!("{}{rest}.", first.to_uppercase())
}

fn panel(
    page: &Page<'_>,
    test: &Test,
    op: Op,
    metric: Metric,
    scale: &Scale,
    unit: Unit,
) -> Result<String, ReportError> {
    let mut read_out = Vec::new();
    let lines = page
        .systems()
        .map(|s| {
            let content = match page.row(&test.id, &s.id, op, metric) {
                None => Content::Missing(page.why_missing(&test.id, &s.id, op)),
                Some(row) => {
                    read_out.push(format!("{} {}", s.id, unit.row(row)));
                    Content::Data {
                        words: match row.interval {
                            Some(i) => {
                                format!(
                                    "{} {} ({})",
                                    unit.bare(row.median),
                                    unit.name,
                                    unit.range(i)
                                )
                            }
                            None => format!("{} {} (n=1)", unit.bare(row.median), unit.name),
                        },
                        median: Some(row.median),
                        interval: row.interval,
                        points: row
                            .points
                            .iter()
                            .map(|p| {
                                let tip = format!(
                                    "{}, repetition {}: {}",
                                    s.id,
                                    p.repetition + 1,
                                    unit.with(p.value)
                                );
                                (p.value, tip)
                            })
                            .collect(),
                        marks: vec![],
                    }
                }
            };
            Line {
                name: s.id.clone(),
                slot: page.slot(&s.id),
                content,
            }
        })
        .collect();
    let chart = Chart {
        label: format!(
            "{}, {} {} in {}: {}.{}",
            test.id,
            op.name(),
            metric.title(),
            unit.name,
            if read_out.is_empty() {
                "no figures".to_owned()
            } else {
                read_out.join("; ")
            },
            page.mark_text()
        ),
        scale: scale.clone(),
        axis: axis_title(op, metric, unit),
        divisor: unit.divisor,
        reference: None,
        bars: true,
        joined: false,
        bands: vec![],
        lines,
    };
    chart.svg()
}

fn axis_title(op: Op, metric: Metric, unit: Unit) -> String {
    match metric {
        Metric::Iops => format!("{} requests per second", op.name()),
        _ => format!(
            "{} {}, {}",
            op.name(),
            lower_first(metric.title()),
            unit.name
        ),
    }
}

fn lower_first(text: &str) -> String {
    let (first, rest) = text.split_at(1);
    format!("{}{rest}", first.to_lowercase())
}

fn figure_table(page: &Page<'_>, test: &Test, metric: Metric, ops: &[Op], unit: Unit) -> Markup {
    let label = format!("{}, {} as a table", test.id, metric.title());
    let columns = if page.base().is_some() { 2 } else { 1 };
    let table = html! {
        table {
            thead { tr {
                th scope="col" { "System" }
                @for op in ops {
                    th.num scope="col" { (op.name()) ", " (unit.name) }
                    @if let Some(base) = page.base() {
                        th.num scope="col" { (op.name()) " vs " (base) }
                    }
                }
            } }
            tbody { @for s in page.systems() { tr {
                th scope="row" { (system_name(page, &s.id)) }
                @if page.run.of(&test.id, &s.id).next().is_none() {
                    td.none colspan=(ops.len() * columns) { (page.run.why_missing(&test.id, &s.id)) }
                } @else {
                    @for op in ops {
                        @if let Some(row) = page.row(&test.id, &s.id, *op, metric) {
                            td.num { (unit.row(row)) }
                            @if columns == 2 { (ratio_cell(page, &s.id, row.ratio.as_ref(), metric == Metric::Iops)) }
                        } @else {
                            td.none colspan=(columns) { (page.why_missing(&test.id, &s.id, *op)) }
                        }
                    }
                }
            } } }
        }
    };
    scrolling(&label, &table)
}

/// Percentiles of completion latency.
fn percentiles(page: &Page<'_>, index: usize, test: &Test) -> Result<Markup, ReportError> {
    let ops: Vec<Op> = page
        .ops(test)
        .into_iter()
        .filter(|op| {
            Metric::PERCENTILES
                .iter()
                .any(|m| page.table.across(&test.id, *op, *m).next().is_some())
        })
        .collect();
    if ops.is_empty() {
        return Ok(html! {
            p.note { "fio gave no percentiles of completion latency in this test." }
        });
    }
    let values: Vec<f64> = ops
        .iter()
        .flat_map(|op| {
            Metric::PERCENTILES
                .iter()
                .flat_map(|m| page.table.across(&test.id, *op, *m))
        })
        .map(|r| r.median)
        .collect();
    let unit = Unit::of(Metric::Clat, values.iter().copied());
    let scale = Scale::marks(values);
    let mut panels = Vec::new();
    for op in &ops {
        panels.push((*op, percentile_panel(page, test, *op, &scale, unit)?));
    }
    let label = format!("{}, percentiles of processing latency as a table", test.id);
    let table = html! {
        table {
            thead {
                tr {
                    th rowspan="2" scope="col" { "System" }
                    @for op in &ops { th.group colspan="4" scope="colgroup" { (op.name()) ", " (unit.name) } }
                }
                tr { @for _ in &ops { @for m in Metric::PERCENTILES { th.num scope="col" { (m.title()) } } } }
            }
            tbody { @for s in page.systems() { tr {
                th scope="row" { (system_name(page, &s.id)) }
                @if page.run.of(&test.id, &s.id).next().is_none() {
                    td.none colspan=(4 * ops.len()) { (page.run.why_missing(&test.id, &s.id)) }
                } @else {
                    @for op in &ops { @for m in Metric::PERCENTILES {
                        @match page.row(&test.id, &s.id, *op, m) {
                            Some(row) => td.num { (unit.bare(row.median)) },
                            None => td.none { "none" },
                        }
                    } }
                }
            } } }
        }
    };
    Ok(html! {
        figure id=(format!("fig-{index}-percentiles")) {
            h3 { "Percentiles of processing latency (clat)" }
            p.legend aria-hidden="true" { span { "\u{25cf} p50" } span { "\u{25b2} p90" } span { "\u{25a0} p99" } span { "\u{25c6} p99.9" } }
            div.panels {
                @for (op, svg) in &panels {
                    div.panel { h4 { (op.name()) "s" } (PreEscaped(svg)) }
                }
            }
            (under::caption(page, &html! {
                (test.id) ", completion latency that 50, 90, 99 and 99.9 % of requests stayed within, in "
                (unit.name) "; each mark is the median over the repetitions. Lower is better."
            }, &[test], &[Probes::Off]))
            (scrolling(&label, &table))
        }
    })
}

fn percentile_panel(
    page: &Page<'_>,
    test: &Test,
    op: Op,
    scale: &Scale,
    unit: Unit,
) -> Result<String, ReportError> {
    const SHAPES: [Shape; 4] = [
        Shape::Circle,
        Shape::Triangle,
        Shape::Square,
        Shape::Diamond,
    ];
    let mut read_out = Vec::new();
    let lines = page
        .systems()
        .map(|s| {
            let rows: Vec<_> = Metric::PERCENTILES
                .into_iter()
                .zip(SHAPES)
                .filter_map(|(m, shape)| Some((m, shape, page.row(&test.id, &s.id, op, m)?)))
                .collect();
            let content = match (rows.first(), rows.last()) {
                (Some((first, _, low)), Some((last, _, high))) => {
                    let words = format!(
                        "{} {}, {} {} {}",
                        first.title(),
                        unit.bare(low.median),
                        last.title(),
                        unit.bare(high.median),
                        unit.name
                    );
                    read_out.push(format!("{} {words}", s.id));
                    let marks = rows
                        .iter()
                        .map(|(m, shape, row)| Mark {
                            shape: *shape,
                            value: row.median,
                            tip: format!(
                                "{}, {}: {} {}",
                                s.id,
                                m.title(),
                                unit.row(row),
                                unit.name
                            ),
                        })
                        .collect();
                    Content::Data {
                        words,
                        median: None,
                        interval: None,
                        points: vec![],
                        marks,
                    }
                }
                _ => Content::Missing(page.why_missing(&test.id, &s.id, op)),
            };
            Line {
                name: s.id.clone(),
                slot: page.slot(&s.id),
                content,
            }
        })
        .collect();
    let chart = Chart {
        label: format!(
            "{}, {} completion latency percentiles: {}.{}",
            test.id,
            op.name(),
            read_out.join("; "),
            page.mark_text()
        ),
        scale: scale.clone(),
        axis: format!("{} completion latency, {}", op.name(), unit.name),
        divisor: unit.divisor,
        reference: None,
        bars: false,
        joined: true,
        bands: vec![],
        lines,
    };
    chart.svg()
}

/// The exact command lines, grouped where they are the same.
fn commands(page: &Page<'_>, test: &Test) -> Markup {
    let distinct = under::commands(page, test, &[Probes::Off, Probes::On]);
    html! {
        @match distinct.as_slice() {
            [] => {},
            [(command, users)] => {
                h3 { "fio command" }
                p { "The same in all " (users.len()) " measured repetitions:" }
                pre tabindex="0" { code { (command) } }
            },
            [(command, users), rest @ ..] => {
                h3 { "fio command" }
                p { (users.join(", ")) ":" }
                pre tabindex="0" { code { (command) } }
                details {
                    summary { (rest.len()) " other command lines" }
                    @for (command, users) in rest {
                        p { (users.join(", ")) ":" }
                        pre tabindex="0" { code { (command) } }
                    }
                }
            },
        }
    }
}
