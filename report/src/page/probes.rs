//! What the probes inside the kernel cost: the same cell with and without them.

use efuse_model::counters::Probes;
use efuse_model::test::Test;
use maud::{Markup, PreEscaped, html};

use super::{Page, floor, parts, scrolling, under};
use crate::chart::{Band, Chart, Content, Line, Scale};
use crate::error::ReportError;
use crate::format;
use crate::input::Measured;
use crate::metric::{Metric, Op};
use crate::stats::{self, Verdict};
use crate::table::{Point, Ratio};

/// IOPS with probes over IOPS without, of repetitions with the same number.
fn cost(page: &Page<'_>, test: &str, system: &str, op: Op) -> Option<Ratio> {
    let iops = |m: &Measured| {
        let figures = match op {
            Op::Read => m.metrics.read.as_ref(),
            Op::Write => m.metrics.write.as_ref(),
        };
        figures.and_then(|f| Metric::Iops.of(f))
    };
    let mut points = Vec::new();
    let mut across_sessions = 0;
    for with in page.run.probed_of(test, system) {
        let without = page
            .run
            .of(test, system)
            .find(|m| m.repetition == with.repetition);
        let Some(without) = without else { continue };
        let (Some(a), Some(b)) = (iops(with), iops(without)) else {
            continue;
        };
        if b > 0.0 {
            points.push(Point {
                repetition: with.repetition,
                value: a / b,
            });
            across_sessions += usize::from(with.session != without.session);
        }
    }
    points.sort_by_key(|p| p.repetition);
    let values: Vec<f64> = points.iter().map(|p| p.value).collect();
    let interval = stats::bootstrap_median(&values, page.run.plan.seed);
    Some(Ratio {
        median: stats::median(&values)?,
        interval,
        n: values.len(),
        verdict: Verdict::of(interval),
        points,
        across_sessions,
    })
}

/// The cost of a test; nothing where the plan has no probes.
pub fn figure(page: &Page<'_>, index: usize, test: &Test) -> Result<Markup, ReportError> {
    if page.run.planned(Probes::On) == 0 && page.run.probed.is_empty() {
        return Ok(html! {});
    }
    let ops = page.ops(test);
    let mut panels = Vec::new();
    for op in &ops {
        if let Some(svg) = panel(page, test, *op)? {
            panels.push((*op, svg));
        }
    }
    let table = html! {
        table {
            thead { tr {
                th scope="col" { "System" }
                @for op in &ops { th.num scope="col" { (op.name()) " IOPS with probes over without" } }
            } }
            tbody { @for s in page.systems() {
                (parts::row(page, &s.id, ops.len(), if page.run.probed_of(&test.id, &s.id).next().is_none() {
                    Err(parts::why_unprobed(page, &test.id, &s.id))
                } else {
                    Ok(html! { @for op in &ops {
                        @match cost(page, &test.id, &s.id, *op) {
                            Some(r) => td.num {
                                (format::ratio(&r))
                                @if r.interval.is_some() { " " small.verdict { (format::verdict(&r)) } }
                            },
                            None => td.none { "no pair" },
                        }
                    } })
                }))
            } }
        }
    };
    Ok(html! {
        figure id=(format!("fig-{index}-probes")) {
            h3 { "What the probes cost" }
            @if !panels.is_empty() {
                div.panels { @for (op, svg) in &panels {
                    div.panel { h4 { (op.name()) "s" } (PreEscaped(svg)) }
                } }
            }
            (under::caption(page, &html! {
                (test.id) ", IOPS with probes inside the kernel over IOPS without, repetition by repetition of the same number; below 1 the "
                "probes slow the system down. Only times of requests, system calls and lock contention come from repetitions with probes; every other figure "
                "comes from repetitions without."
            }, &[test], &[Probes::On, Probes::Off]))
            (scrolling(&format!("{}, cost of the probes as a table", test.id), &table))
        }
    })
}

fn panel(page: &Page<'_>, test: &Test, op: Op) -> Result<Option<String>, ReportError> {
    let mut values = vec![1.0];
    let mut read_out = Vec::new();
    let mut bands = Vec::new();
    let mut lines = Vec::new();
    for s in page.systems() {
        let content = match cost(page, &test.id, &s.id, op) {
            Some(r) => {
                values.extend(r.points.iter().map(|p| p.value));
                let words = format::ratio(&r);
                read_out.push(format!("{} {words}", s.id));
                Content::Data {
                    words,
                    median: Some(r.median),
                    interval: r.interval,
                    points: r
                        .points
                        .iter()
                        .map(|p| {
                            let tip = format!(
                                "{}, repetition {}: {}x",
                                s.id,
                                p.repetition + 1,
                                format::factor(p.value)
                            );
                            (p.value, tip)
                        })
                        .collect(),
                    marks: vec![],
                }
            }
            None => Content::Missing(parts::why_unprobed(page, &test.id, &s.id)),
        };
        if let Some(f) = floor::of(page, &s.id, &test.id, op, Metric::Iops) {
            values.extend([f.interval.low, f.interval.high]);
            bands.push(Band {
                lines: lines.len()..lines.len() + 1,
                interval: f.interval,
                tip: f.words(),
            });
        }
        lines.push(Line {
            name: s.id.clone(),
            slot: page.slot(&s.id),
            content,
        });
    }
    if read_out.is_empty() {
        return Ok(None);
    }
    let chart = Chart {
        label: format!(
            "{}, {} IOPS with probes over without: {}.{}",
            test.id,
            op.name(),
            read_out.join("; "),
            page.mark_text()
        ),
        scale: Scale::marks(values),
        axis: format!("{} IOPS with probes, multiple of without", op.name()),
        divisor: 1.0,
        reference: Some(1.0),
        bars: false,
        joined: false,
        bands,
        lines,
    };
    chart.svg().map(Some)
}
