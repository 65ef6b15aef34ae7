//! Header and summary.

use efuse_model::counters::Probes;
use efuse_model::plan::PlannedSystem;
use maud::{Markup, PreEscaped, html};

use super::{Page, floor, ratio_cell, scrolling, system_name, under};
use crate::chart::{Band, Chart, Content, Line, Scale};
use crate::error::ReportError;
use crate::format;
use crate::metric::Metric;
use crate::stats;

/// What was run, when and where.
pub fn header(page: &Page<'_>) -> Markup {
    let plan = &page.run.plan;
    let env = page.run.environment.as_ref();
    html! {
        header {
            div.title {
                h1 { "eFUSE evaluation: " (plan.workload) }
                button #theme type="button" hidden { "Dark theme" }
            }
            @match page.run.emulated() {
                Some(true) => p.banner role="note" {
                    strong { "Emulated (TCG): ratios within this run count, absolute figures do not." }
                    " QEMU emulated the guest's processor: everything is slower than on hardware, and not "
                    "by one factor, so ratios are to be read with that as well."
                },
                None => p.banner role="note" {
                    strong { "No environment was recorded." }
                    " The run ended before its first boot, so nothing says where it took place."
                },
                Some(false) => {},
            }
            dl.facts {
                div { dt { "Run" } dd { (plan.run) } }
                div { dt { "Planned" } dd { (format::time(plan.created)) } }
                div { dt { "Where" } dd {
                    (plan.place)
                    @if let Some(e) = env { ", " (e.accelerator) ", " (format::cpus(e.cpus)) }
                } }
                div { dt { "Kernel" } dd { (env.map_or("not recorded", |e| &e.kernel)) } }
                div { dt { "Device" } dd {
                    (plan.device.name())
                    @if let Some(n) = plan.device.size_bytes() { ", " (format::bytes(n)) }
                } }
                div { dt { "Revision" } dd { (env.map_or("not recorded", |e| &e.revision)) } }
                div { dt { "Repetitions" } dd { (plan.repetitions) } }
                div { dt { "Scale" } dd { (scale(plan.scale)) "x the workload's sizes and times" } }
            }
            p.command { "Command: " code { (plan.command) } }
        }
    }
}

/// The factor on sizes, without needless digits.
pub fn scale(factor: f64) -> String {
    if factor.fract() == 0.0 {
        format!("{factor:.0}")
    } else {
        format::significant(factor, 3)
    }
}

/// The ratios of every test, and whether the run is whole.
pub fn section(page: &Page<'_>) -> Result<Markup, ReportError> {
    let ratios = match page.base() {
        None => html! {
            p.note {
                "This run does not have the system " code { (crate::table::DEFAULT_BASE) }
                ", so there are no ratios. Choose another base with "
                code { "report RUN_DIR --base SYSTEM" } "."
            }
        },
        Some(base) => html! {
            p {
                "IOPS of every system related to " strong { (base) }
                ": the median of the ratios inside each repetition, with its 95 % interval. "
                (few_repetitions(page))
            }
            (forest(page, base)?)
            (floor::table(page))
            div.cards {
                @for test in &page.run.plan.tests {
                    (card(page, test, base))
                }
            }
        },
    };
    Ok(html! {
        section #summary aria-labelledby="h-summary" {
            h2 #h-summary { "Summary" }
            (state(page))
            (ratios)
        }
    })
}

/// How much of the plan has figures.
fn state(page: &Page<'_>) -> Markup {
    let run = page.run;
    let planned = run.planned(Probes::Off);
    let (probed, with_probes) = (run.probed.len(), run.planned(Probes::On));
    let measured = run.measured.len();
    let skipped = run
        .plan
        .systems
        .iter()
        .filter(|s| s.skipped.is_some())
        .count();
    let failed = run.left_out.len();
    let asks = |id: &str| {
        run.test(id).is_some_and(|t| {
            t.verify.read_bytes > 0 || t.verify.write_bytes > 0 || t.verify.compare
        })
    };
    let unverified = run.measured.iter().filter(|m| !asks(&m.test)).count();
    html! {
        p.state {
            strong { (measured) " of " (planned) } " planned repetitions have figures"
            @if measured > 0 {
                @if unverified == 0 { ", every one with its content verified" }
                @else { "; " (unverified) " of them come from tests that ask for no verification" }
            }
            ". "
            @if measured < planned || probed < with_probes {
                strong { "The run is not complete." } " "
            }
            @if with_probes > 0 || probed > 0 {
                (probed) " of " (with_probes)
                " repetitions with probes inside the kernel were measured beside them; none of their "
                "rates or latencies is in the figures. "
            }
            @if failed > 0 {
                a href="#gaps" { (failed) @if failed == 1 { " attempt" } @else { " attempts" } " without figures" } ". "
            }
            @if skipped > 0 {
                a href="#gaps" { (skipped) @if skipped == 1 { " system" } @else { " systems" } " skipped" } ". "
            }
            @if !run.damaged.is_empty() {
                a href="#gaps" { (run.damaged.len()) " unreadable line" @if run.damaged.len() != 1 { "s" } } "."
            }
        }
    }
}

/// What an interval of so few repetitions is worth.
fn few_repetitions(page: &Page<'_>) -> Markup {
    let n = page.run.plan.repetitions as usize;
    let coverage = stats::range_coverage(n);
    html! {
        @if n < 2 {
            "One repetition per cell: there is no interval, and no difference is established."
        } @else if coverage < stats::CONFIDENCE {
            "With " (n) " repetitions the interval cannot be wider than their range, which covers "
            "the true median with a probability of at most " (format!("{:.0}", coverage * 100.0))
            " %: read it as the spread that was seen."
        }
    }
}

fn card(page: &Page<'_>, test: &efuse_model::test::Test, base: &str) -> Markup {
    let ops = page.ops(test);
    let label = format!("{}: IOPS related to {base}", test.id);
    let table = html! {
        table {
            caption { strong { (test.id) } " " (test.title) (page.mark()) }
            thead { tr {
                th scope="col" { "System" }
                @for op in &ops { th.num scope="col" { (op.name()) " IOPS" } }
            } }
            tbody {
                @for s in page.systems() {
                    tr {
                        th scope="row" { (system_name(page, &s.id)) }
                        @if page.run.of(&test.id, &s.id).next().is_none() {
                            td.none colspan=(ops.len()) { (page.run.why_missing(&test.id, &s.id)) }
                        } @else {
                            @for op in &ops {
                                (ratio_cell(page, &s.id, page
                                    .row(&test.id, &s.id, *op, Metric::Iops)
                                    .and_then(|r| r.ratio.as_ref()), true))
                            }
                        }
                    }
                }
            }
        }
    };
    scrolling(&label, &table)
}

/// Every test and system on one axis, related to the base.
fn forest(page: &Page<'_>, base: &str) -> Result<Markup, ReportError> {
    let plan = &page.run.plan;
    let mut panels = Vec::new();
    for op in page.all_ops() {
        let mut values = vec![1.0];
        let mut lines = Vec::new();
        let mut read_out = Vec::new();
        let mut bands = Vec::new();
        for test in plan.tests.iter().filter(|t| page.ops(t).contains(&op)) {
            lines.push(Line {
                name: test.id.clone(),
                slot: 0,
                content: Content::Heading,
            });
            let from = lines.len();
            let measured = |s: &&PlannedSystem| s.id != base && s.skipped.is_none();
            for s in page.systems().filter(measured) {
                let row = page.row(&test.id, &s.id, op, Metric::Iops);
                let content = match row.and_then(|r| r.ratio.as_ref()) {
                    Some(r) => {
                        values.extend(r.points.iter().map(|p| p.value));
                        read_out.push(format!("{} {}: {}", test.id, s.id, format::ratio(r)));
                        Content::Data {
                            words: format::ratio(r),
                            median: Some(r.median),
                            interval: r.interval,
                            points: r
                                .points
                                .iter()
                                .map(|p| {
                                    let tip = format!(
                                        "{}, {}, repetition {}: {}x",
                                        test.id,
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
                    None if row.is_some() => Content::Missing(format!("{base} has no figure")),
                    None => Content::Missing(page.why_missing(&test.id, &s.id, op)),
                };
                lines.push(Line {
                    name: s.id.clone(),
                    slot: page.slot(&s.id),
                    content,
                });
            }
            if let Some(floor) = floor::largest(page, &test.id, op, Metric::Iops) {
                let band = floor.band();
                values.extend([band.low, band.high]);
                bands.push(Band {
                    lines: from..lines.len(),
                    interval: band,
                    tip: floor.words(),
                });
            }
        }
        if read_out.is_empty() {
            continue;
        }
        let chart = Chart {
            label: format!(
                "{} IOPS related to {base}, median of paired ratios. {}.{}",
                op.name(),
                read_out.join("; "),
                page.mark_text()
            ),
            scale: Scale::marks(values),
            axis: format!("{} IOPS, multiple of {base}", op.name()),
            divisor: 1.0,
            reference: Some(1.0),
            bars: false,
            joined: false,
            bands,
            lines,
        };
        panels.push((op, chart.svg()?));
    }
    if panels.is_empty() {
        return Ok(html! {
            p.note { "No two systems have figures of the same repetition: there is nothing to relate." }
        });
    }
    Ok(html! {
        figure {
            div.panels {
                @for (op, svg) in &panels {
                    div.panel { h3 { (op.name()) "s" } (PreEscaped(svg)) }
                }
            }
            (under::caption(page, &html! {
                "IOPS as a multiple of " (base) ". Diamond: median of the paired ratios; "
                "points: each repetition; whiskers: 95 % bootstrap interval; line at 1: " (base)
                ". " (floor::legend(page)) "Higher is better."
            }, &plan.tests.iter().collect::<Vec<_>>(), &[Probes::Off]))
        }
    })
}
