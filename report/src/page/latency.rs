//! Distributions of completion latency: all systems in one chart.

use efuse_model::counters::Probes;
use efuse_model::histogram::Histogram;
use efuse_model::test::Test;
use maud::{Markup, PreEscaped, html};

use super::{Page, scrolling, system_name, under};
use crate::chart::{Curve, Curves};
use crate::error::ReportError;
use crate::format::{self, Unit};
use crate::metric::{Metric, Op};

const PERCENTS: [f64; 4] = [50.0, 90.0, 99.0, 99.9];

/// The bins of one system, summed over its repetitions.
struct Pooled {
    system: String,
    bins: Histogram,
    /// Repetitions with bins, and repetitions in this direction.
    n: (usize, usize),
    max_us: f64,
}

impl Pooled {
    fn of(page: &Page<'_>, test: &str, system: &str, op: Op) -> Option<Self> {
        let mut pooled = Self {
            system: system.to_owned(),
            bins: Histogram::default(),
            n: (0, 0),
            max_us: 0.0,
        };
        for m in page.run.of(test, system) {
            let figures = op.of(&m.metrics);
            let Some(figures) = figures else { continue };
            pooled.n.1 += 1;
            if figures.clat_bins.count() > 0 {
                pooled.n.0 += 1;
                pooled.bins.merge(&figures.clat_bins);
                pooled.max_us = pooled.max_us.max(figures.clat.max_us);
            }
        }
        (pooled.n.1 > 0).then_some(pooled)
    }

    fn us(&self, percent: f64) -> Option<f64> {
        self.bins.percentile_ns(percent).map(|ns| ns as f64 / 1e3)
    }
}

/// The distributions of a test, a panel per direction.
pub fn figure(page: &Page<'_>, index: usize, test: &Test) -> Result<Markup, ReportError> {
    let ops = page.ops(test);
    let all: Vec<(Op, Vec<Pooled>)> = ops
        .iter()
        .map(|op| {
            let systems = page.systems();
            let pooled = systems.filter_map(|s| Pooled::of(page, &test.id, &s.id, *op));
            (*op, pooled.collect())
        })
        .collect();
    let with_bins = |p: &&Pooled| p.n.0 > 0;
    if !all.iter().any(|(_, p)| p.iter().any(|p| p.n.0 > 0)) {
        return Ok(html! {
            p.note { "No repetition of this test was stored with fio's latency bins: there is no distribution to draw." }
        });
    }
    let values = all
        .iter()
        .flat_map(|(_, p)| p)
        .flat_map(|p| PERCENTS.iter().filter_map(|q| p.us(*q)).chain([p.max_us]));
    let unit = Unit::of(Metric::Clat, values.collect::<Vec<_>>());
    let mut panels = Vec::new();
    for (op, pooled) in &all {
        if pooled.iter().any(|p| p.n.0 > 0) {
            panels.push((*op, panel(page, test, *op, pooled, unit)?));
        }
    }
    let drawn: Vec<&str> = page
        .systems()
        .map(|s| s.id.as_str())
        .filter(|id| {
            all.iter()
                .flat_map(|(_, p)| p.iter().filter(with_bins))
                .any(|p| p.system == *id)
        })
        .collect();
    Ok(html! {
        figure id=(format!("fig-{index}-cdf")) {
            h3 { "Distribution of processing latency (clat)" }
            p.legend { @for id in &drawn { (key(page, id)) } }
            div.panels {
                @for (op, svg) in &panels {
                    div.panel { h4 { (op.name()) "s" } (PreEscaped(svg)) }
                }
            }
            (under::caption(page, &html! {
                (test.id) ", share of requests completed within a time: fio's own bins, summed over the repetitions. "
                "Further left is better."
            }, &[test], &[Probes::Off]))
            (table(page, test, &all, unit))
        }
    })
}

/// A piece of a system's curve, with its name.
pub fn key(page: &Page<'_>, system: &str) -> Markup {
    html! {
        span {
            (PreEscaped(format!(
                "<svg class=\"key\" viewBox=\"0 0 30 10\" aria-hidden=\"true\"><polyline class=\"curve s{}\" points=\"0,5 30,5\"/></svg>",
                page.slot(system)
            )))
            (system)
        }
    }
}

fn panel(
    page: &Page<'_>,
    test: &Test,
    op: Op,
    pooled: &[Pooled],
    unit: Unit,
) -> Result<String, ReportError> {
    let mut curves = Vec::new();
    let mut read_out = Vec::new();
    for p in pooled.iter().filter(|p| p.n.0 > 0) {
        let words = PERCENTS
            .iter()
            .filter_map(|q| Some(format!("p{q} {}", unit.with(p.us(*q)?))))
            .collect::<Vec<_>>()
            .join(", ");
        read_out.push(format!("{} {words}", p.system));
        curves.push(Curve {
            slot: page.slot(&p.system),
            tip: format!("{}: {words}", p.system),
            bins: p.bins.bins.clone(),
        });
    }
    Curves {
        label: format!(
            "{}, {} completion latency, cumulative: {}.{}",
            test.id,
            op.name(),
            read_out.join("; "),
            page.mark_text()
        ),
        axis: format!("{} completion latency, {}", op.name(), unit.name),
        divisor: 1000.0 * unit.divisor,
        curves,
    }
    .svg()
}

fn table(page: &Page<'_>, test: &Test, all: &[(Op, Vec<Pooled>)], unit: Unit) -> Markup {
    let columns = PERCENTS.len() + 2;
    let table = html! {
        table {
            thead {
                tr {
                    th rowspan="2" scope="col" { "System" }
                    @for (op, _) in all {
                        th.group colspan=(columns) scope="colgroup" { (op.name()) ", " (unit.name) }
                    }
                }
                tr { @for _ in all {
                    th.num scope="col" { "Requests" }
                    @for q in PERCENTS { th.num scope="col" { "p" (q) } }
                    th.num scope="col" { "max" }
                } }
            }
            tbody { @for s in page.systems() { tr {
                th scope="row" { (system_name(page, &s.id)) }
                @for (op, pooled) in all {
                    @match pooled.iter().find(|p| p.system == s.id) {
                        None => td.none colspan=(columns) { (page.why_missing(&test.id, &s.id, *op)) },
                        Some(p) if p.n.0 == 0 => td.none colspan=(columns) { "stored without fio's latency bins" },
                        Some(p) => {
                            td.num {
                                (format::count(p.bins.count()))
                                @if p.n.0 < p.n.1 { " " small { "of " (p.n.0) " in " (p.n.1) " repetitions" } }
                            }
                            @for q in PERCENTS { td.num { (p.us(q).map_or_else(|| "\u{2013}".to_owned(), |us| unit.bare(us))) } }
                            td.num { (unit.bare(p.max_us)) }
                        }
                    }
                }
            } } }
        }
    };
    scrolling(
        &format!("{}, distribution of processing latency as a table", test.id),
        &table,
    )
}
