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
use crate::stats::{self, Interval};

/// IOPS with probes over IOPS without.
struct Cost {
    /// Ratio of the medians.
    ratio: f64,
    /// Its 95 % bootstrap interval; none below two repetitions of a kind.
    interval: Option<Interval>,
    /// Each repetition with probes, over the median of those without.
    points: Vec<(u32, f64)>,
    /// Repetitions with probes and without.
    n: (usize, usize),
}

impl Cost {
    fn words(&self) -> String {
        let (with, without) = self.n;
        match self.interval {
            Some(i) => format!(
                "{}x ({}\u{2013}{}, n={with} and {without})",
                format::factor(self.ratio),
                format::factor(i.low),
                format::factor(i.high),
            ),
            None => format!(
                "{}x (n={with} and {without}, no interval)",
                format::factor(self.ratio)
            ),
        }
    }
}

/// Repetitions with probes are blocks of their own, so there are no pairs: each kind is
/// summarised on its own.
fn cost(page: &Page<'_>, test: &str, system: &str, op: Op) -> Option<Cost> {
    let iops = |m: &Measured| Some((m.repetition, Metric::Iops.of(op.of(&m.metrics)?)?));
    let with: Vec<(u32, f64)> = page.run.probed_of(test, system).filter_map(iops).collect();
    let values = |v: &[(u32, f64)]| v.iter().map(|(_, x)| *x).collect::<Vec<_>>();
    let without: Vec<_> = page.run.of(test, system).filter_map(iops).collect();
    let (with_values, without_values) = (values(&with), values(&without));
    let base = stats::median(&without_values).filter(|m| *m > 0.0)?;
    // A repetition without a single request leaves nothing to divide by in a resample.
    let interval = without_values
        .iter()
        .all(|v| *v > 0.0)
        .then(|| stats::bootstrap_ratio(&with_values, &without_values, page.run.plan.seed))
        .flatten();
    Some(Cost {
        ratio: stats::median(&with_values)? / base,
        interval,
        n: (with.len(), without.len()),
        points: with.into_iter().map(|(rep, v)| (rep, v / base)).collect(),
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
                            Some(c) => td.num { (c.words()) },
                            None => td.none { "not measured without probes" },
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
                (test.id) ", IOPS with probes inside the kernel over IOPS without: ratio of the medians with its 95 % bootstrap interval, each kind resampled on its own; "
                "points: each repetition with probes. Below six repetitions of a kind the interval is the spread that was seen and promises no 95 %. Below 1 the probes slow the system down. Only times of requests, system calls and lock contention come from repetitions with probes; every other figure "
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
            Some(c) => {
                values.extend(c.points.iter().map(|(_, v)| *v));
                values.extend(c.interval.iter().flat_map(|i| [i.low, i.high]));
                let words = c.words();
                read_out.push(format!("{} {words}", s.id));
                Content::Data {
                    words,
                    median: Some(c.ratio),
                    interval: c.interval,
                    points: c
                        .points
                        .iter()
                        .map(|(repetition, v)| {
                            let tip = format!(
                                "{}, repetition {} with probes: {}x",
                                s.id,
                                repetition + 1,
                                format::factor(*v)
                            );
                            (*v, tip)
                        })
                        .collect(),
                    marks: vec![],
                }
            }
            None => Content::Missing(parts::why_unprobed(page, &test.id, &s.id)),
        };
        if let Some(f) = floor::of(page, &s.id, &test.id, op, Metric::Iops) {
            let band = f.band();
            values.extend([band.low, band.high]);
            bands.push(Band {
                lines: lines.len()..lines.len() + 1,
                interval: band,
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
