//! Modelled: the queue's design on more cores than were measured.

use efuse_model::counters::Probes;
use efuse_model::test::Test;
use efuse_scale::{Design, Outcome};
use maud::{Markup, PreEscaped, html};

use super::{Page, scrolling, under};
use crate::chart::{Lines, Path, Seen};
use crate::error::ReportError;
use crate::format;
use crate::palette;
use crate::scaling::{self, CORES, Curve, Scaling, System};

/// A panel: its heading, what of an outcome it shows, and the same as measured.
type Panel = (&'static str, fn(&Outcome) -> f64, fn(&System) -> f64);

const PANELS: [Panel; 2] = [
    ("Requests per second", |o| o.per_second, |s| s.per_second),
    (
        "Mean queueing, \u{b5}s",
        |o| o.queueing_ns / 1e3,
        |s| s.queueing_ns / 1e3,
    ),
];

/// The model of a test; nothing where the run has no rings beside stock FUSE.
pub fn figure(page: &Page<'_>, index: usize, test: &Test) -> Result<Markup, ReportError> {
    let scaling = match scaling::of(page.run, &page.cells, test) {
        Ok(scaling) => scaling,
        Err(None) => return Ok(html! {}),
        Err(Some(why)) => {
            return Ok(html! { p.note { (test.id) " is not modelled on more cores: " (why) "." } });
        }
    };
    let mut panels = Vec::new();
    for panel in &PANELS {
        panels.push((panel.0, svg(page, test, &scaling, panel)?));
    }
    let rings = &scaling.rings.id;
    Ok(html! {
        figure id=(format!("fig-{index}-scaling")) {
            h3 { "Modelled, not measured: one queue and channels per core on up to " (CORES[CORES.len() - 1]) " cores" }
            p.legend { @for curve in &scaling.curves { (legend(page, &scaling, curve)) } }
            div.panels { @for (name, svg) in &panels {
                div.panel { h4 { (name) " (modelled)" } (PreEscaped(svg)) }
            } }
            (under::caption(page, &html! {
                (test.id) ", " strong { "lines: a discrete-event model; squares: what was measured here" } ", in the repetitions with probes. What goes in is measured: what a request costs "
                "processors in the daemon and elsewhere, what the quickest 1 % took beside that, the callers and their threads, the daemon's threads, and how long the lock of " (scaling.queue.id) "'s queue is held: "
                (format::number(scaling.queue.input.lock_ns)) " ns, as " (format::count(scaling.lock.contended)) " of "
                (format::count(scaling.lock.all)) " takings found it taken by another processor. For each core there are as many callers and threads as there were here for each processor. "
                "What the model leaves out favours the one queue: a lock and its cache line that cost more the more cores want them, and wake-ups across cores. "
                "Channels have no balancing, and their locks cost the same. Processors are shared out fairly, one request at a time; where callers and daemon want the same processor, queueing depends much on that."
            }, &[test], &[Probes::On]))
            (check(page, test, &scaling))
            (table(page, test, &scaling, rings))
        }
    })
}

fn slot(page: &Page<'_>, scaling: &Scaling, curve: &Curve) -> u8 {
    match curve.design {
        Design::PerCore if curve.costs_of == scaling.queue.id => {
            // A system that does not exist: a colour that no known one has.
            u8::try_from(palette::all().len() - 1).unwrap_or(0)
        }
        _ => page.slot(&curve.costs_of),
    }
}

fn name(curve: &Curve) -> String {
    let design = match curve.design {
        Design::OneQueue => "one queue",
        Design::PerCore => "a channel per core",
    };
    format!("{design}, costs as {}", curve.costs_of)
}

fn legend(page: &Page<'_>, scaling: &Scaling, curve: &Curve) -> Markup {
    html! { span {
        (PreEscaped(format!(
            "<svg class=\"key\" viewBox=\"0 0 30 10\" aria-hidden=\"true\"><polyline class=\"curve s{}\" points=\"0,5 30,5\"/></svg>",
            slot(page, scaling, curve)
        )))
        (name(curve))
    } }
}

fn svg(
    page: &Page<'_>,
    test: &Test,
    scaling: &Scaling,
    (title, modelled, measured): &Panel,
) -> Result<String, ReportError> {
    let last = CORES.len() - 1;
    let lines: Vec<Path> = scaling
        .curves
        .iter()
        .map(|curve| {
            let values: Vec<f64> = curve.outcomes.iter().map(modelled).collect();
            Path {
                slot: slot(page, scaling, curve),
                tip: format!(
                    "modelled, {}: {} on 1 core, {} on {}",
                    name(curve),
                    format::number(values[0]),
                    format::number(values[last]),
                    CORES[last]
                ),
                points: CORES.iter().map(|c| f64::from(*c)).zip(values).collect(),
            }
        })
        .collect();
    let seen = [&scaling.queue, &scaling.rings].map(|s| Seen {
        slot: page.slot(&s.id),
        tip: format!(
            "measured, {} on {}: {}",
            s.id,
            format::cpus(s.input.cores),
            format::number(measured(s))
        ),
        at: (f64::from(s.input.cores), measured(s)),
    });
    let read_out: Vec<&str> = lines
        .iter()
        .map(|l| l.tip.as_str())
        .chain(seen.iter().map(|s| s.tip.as_str()))
        .collect();
    Lines {
        label: format!(
            "{}, {title}, modelled: {}.{}",
            test.id,
            read_out.join("; "),
            page.mark_text()
        ),
        stamp: "modelled".to_owned(),
        axis: "cores (both axes logarithmic)".to_owned(),
        steps: CORES.map(f64::from).to_vec(),
        lines,
        seen: seen.to_vec(),
    }
    .svg()
}

/// How far the model is from what was measured, on the measured machine.
fn check(page: &Page<'_>, test: &Test, scaling: &Scaling) -> Markup {
    let pair = |modelled: f64, measured: f64, divisor: f64| {
        html! { td.num {
            (format::number(modelled / divisor)) " / " (format::number(measured / divisor))
            @if measured > 0.0 { " " small { (format::factor(modelled / measured)) "x" } }
        } }
    };
    let table = html! {
        table {
            caption { "The model against what was measured, on " (format::cpus(scaling.queue.input.cores)) ": modelled / measured, and what went in" (page.mark()) }
            thead { tr {
                th scope="col" { "System" }
                th.num scope="col" { "Requests per second" }
                th.num scope="col" { "Mean queueing, \u{b5}s" }
                th.num scope="col" { "Processors for a request, \u{b5}s" }
                th.num scope="col" { "of it in the daemon" }
                th.num scope="col" { "At the disk, \u{b5}s" }
            } }
            tbody { @for s in [&scaling.queue, &scaling.rings] { tr {
                th scope="row" { (super::system_name(page, &s.id)) }
                (pair(s.modelled.per_second, s.per_second, 1.0))
                (pair(s.modelled.queueing_ns, s.queueing_ns, 1e3))
                td.num { (format::number((s.input.caller_ns + s.input.worker_ns) / 1e3)) }
                td.num { (format::number(s.input.worker_ns / 1e3)) }
                td.num { (format::number(s.input.service.mean() / 1e3)) }
            } } }
        }
    };
    scrolling(
        &format!("{}, the model against the measurement", test.id),
        &table,
    )
}

fn table(page: &Page<'_>, test: &Test, scaling: &Scaling, rings: &str) -> Markup {
    let table = html! {
        table {
            caption { "Modelled, not measured" (page.mark()) }
            thead {
                tr {
                    th.num rowspan="2" scope="col" { "Cores" }
                    @for curve in &scaling.curves { th.group colspan="4" scope="colgroup" { (name(curve)) } }
                    th.num rowspan="2" scope="col" { (rings) "'s channels over one queue" }
                }
                tr { @for _ in &scaling.curves {
                    th.num scope="col" { "requests/s" }
                    th.num scope="col" { "queueing, \u{b5}s" }
                    th.num scope="col" { "p99, \u{b5}s" }
                    th.num scope="col" { "lock held, %" }
                } }
            }
            tbody { @for (i, cores) in CORES.iter().enumerate() { tr {
                th.num scope="row" { (cores) }
                @for curve in &scaling.curves {
                    @let o = &curve.outcomes[i];
                    td.num { (format::number(o.per_second)) }
                    td.num { (format::number(o.queueing_ns / 1e3)) }
                    td.num { (format::number(o.queueing_p99_ns / 1e3)) }
                    td.num { (format::number(o.lock_busy * 100.0)) }
                }
                td.num { (format::factor(scaling.curves[2].outcomes[i].per_second / scaling.curves[0].outcomes[i].per_second)) "x" }
            } } }
        }
    };
    scrolling(&format!("{}, modelled on more cores", test.id), &table)
}
