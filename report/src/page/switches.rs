//! Context switches and system calls, split by who made them.

use efuse_model::counters::Probes;
use efuse_model::test::Test;
use maud::{Markup, PreEscaped, html};

use super::parts::{self, Bar};
use super::{Page, scrolling, under};
use crate::count::{Cell, Counted};
use crate::error::ReportError;
use crate::format;

/// Counters of the same switches may differ by this much (issue 2 of the project's plan):
/// they are read one after the other while tasks run.
const AGREEMENT_PERCENT: f64 = 2.0;

/// Context switches, the agreement of their counters, and system calls.
pub fn figures(page: &Page<'_>, index: usize, test: &Test) -> Result<Markup, ReportError> {
    let any = page.cells.iter().any(|c| c.test == test.id && c.n > 0);
    if !any {
        return Ok(html! {
            p.note { "No repetition of this test was stored with counters: there are no context switches and no CPU times to show." }
        });
    }
    Ok(html! {
        (context(page, index, test)?)
        (agreement(page, test))
        (calls(page, index, test)?)
        (parts::missing(page, test))
    })
}

/// The cell of a system that is there, or why there is none.
fn counted<'p>(page: &'p Page<'_>, test: &Test, system: &str) -> Result<&'p Cell, String> {
    page.cell(&test.id, system)
        .filter(|c| c.n > 0)
        .ok_or_else(|| parts::why(page, &test.id, system))
}

fn bar(cell: &Cell) -> Result<Bar, String> {
    let s = &cell.switches;
    let (Some(fio), Some(all)) = (&s.fio, &s.all) else {
        return Err("not counted (see below)".to_owned());
    };
    let mut out = vec![(0, "fio", fio.median)];
    let daemon = match (&s.daemon, cell.has_daemon) {
        (Some(d), _) => {
            out.push((1, "daemon", d.median));
            format!("daemon {}", format::factor(d.median))
        }
        (None, true) => "daemon not counted".to_owned(),
        (None, false) => "no daemon".to_owned(),
    };
    match &s.rest {
        Some(rest) => out.push((3, "rest of the system", rest.median)),
        None => out.push((3, "daemon and rest of the system", all.median - fio.median)),
    }
    Ok(Bar {
        words: format!(
            "{} (fio {}, {daemon})",
            format::factor(all.median),
            format::factor(fio.median)
        ),
        parts: out,
    })
}

fn context(page: &Page<'_>, index: usize, test: &Test) -> Result<Markup, ReportError> {
    let rows = parts::rows(page, |system| counted(page, test, system).and_then(bar));
    let svg = parts::stacked(
        page,
        &format!("{}, context switches per operation", test.id),
        "context switches per operation of fio",
        &rows,
    )?;
    let table = html! {
        table {
            thead {
                tr {
                    th rowspan="2" scope="col" { "System" }
                    th.group colspan="2" scope="colgroup" { "fio" }
                    th.group colspan="2" scope="colgroup" { "Daemon" }
                    th.group colspan="2" scope="colgroup" { "Whole system" }
                    th.num rowspan="2" scope="col" { "Rest per operation" }
                }
                tr { @for _ in 0..3 { th.num scope="col" { "total" } th.num scope="col" { "per operation" } } }
            }
            tbody { @for s in page.systems() {
                (parts::row(page, &s.id, 7, counted(page, test, &s.id).map(|c| html! {
                    (parts::both(c.fio.best()))
                    @if c.has_daemon { (parts::both(c.daemon.best())) } @else { td.none colspan="2" { "no daemon" } }
                    (parts::both(c.system_wide.best()))
                    (parts::cell(c.switches.rest.as_ref()))
                })))
            } }
        }
    };
    Ok(html! {
        figure id=(format!("fig-{index}-switches")) {
            h3 { "Context switches" }
            @if let Some(svg) = &svg {
                (parts::legend(&[(0, "fio"), (1, "daemon"), (3, "rest of the system")]))
                div.panels { div.panel { (PreEscaped(svg)) } }
            }
            (under::caption(page, &html! {
                (test.id) ", context switches in the measured phase, divided by the operations that fio completed; "
                "medians over the repetitions. Counted by perf events, and where those are missing by /proc. "
                "The rest is the whole system without fio and the daemon: kernel threads, idle tasks and the harness. "
                "Fewer is better."
            }, &[test], &[Probes::Off]))
            (scrolling(&format!("{}, context switches as a table", test.id), &table))
        }
    })
}

/// Each count beside the others of the same switches.
fn agreement(page: &Page<'_>, test: &Test) -> Markup {
    let table = html! {
        table {
            caption {
                "The same switches counted by perf events, by /proc and by fio itself; medians. Disagreement is the "
                "largest spread within one repetition, in percent of the largest count"
                (page.mark())
            }
            thead {
                tr {
                    th rowspan="2" scope="col" { "System" }
                    th.group colspan="4" scope="colgroup" { "fio" }
                    th.group colspan="3" scope="colgroup" { "Daemon" }
                    th.group colspan="3" scope="colgroup" { "Whole system" }
                }
                tr {
                    th.num scope="col" { "perf" } th.num scope="col" { "/proc" } th.num scope="col" { "fio's ctx" }
                    th.num scope="col" { "disagree" }
                    @for _ in 0..2 {
                        th.num scope="col" { "perf" } th.num scope="col" { "/proc" } th.num scope="col" { "disagree" }
                    }
                }
            }
            tbody { @for s in page.systems() {
                (parts::row(page, &s.id, 10, counted(page, test, &s.id).map(|c| html! {
                    (counters(&c.fio, true))
                    @if c.has_daemon { (counters(&c.daemon, false)) } @else { td.none colspan="3" { "no daemon" } }
                    (counters(&c.system_wide, false))
                })))
            } }
        }
    };
    html! {
        h4 { "Do the counters agree?" }
        (scrolling(&format!("{}, agreement of the counters of switches", test.id), &table))
    }
}

fn counters(c: &Counted, own: bool) -> Markup {
    let total = |figure: &crate::count::Count| match &figure.total {
        Some(f) => html! { td.num { (format::count(f.median.round() as u64)) } },
        None => html! { td.none { "not counted" } },
    };
    html! {
        (total(&c.perf)) (total(&c.proc))
        @if own { (total(&c.own)) }
        @match c.disagreement_percent {
            None => td.none { "one counter only" },
            Some(p) if p > AGREEMENT_PERCENT => td.num { strong { (percent(p)) } " " small { "above " (AGREEMENT_PERCENT) " %" } },
            Some(p) => td.num { (percent(p)) },
        }
    }
}

fn percent(p: f64) -> String {
    format!("{p:.2} %")
}

/// Switches between user and kernel mode: system calls, and crossings of the FUSE device.
fn calls(page: &Page<'_>, index: usize, test: &Test) -> Result<Markup, ReportError> {
    let probed = |system: &str| {
        page.cell(&test.id, system)
            .filter(|c| c.fio_syscalls.total.is_some() || c.daemon_syscalls.total.is_some())
            .ok_or_else(|| parts::why_unprobed(page, &test.id, system))
    };
    if !page.systems().any(|s| probed(&s.id).is_ok()) {
        return Ok(html! {
            p.note { "System calls and crossings of the FUSE device were not counted in this test: only repetitions with probes inside the kernel count them." }
        });
    }
    let rows = parts::rows(page, |system| {
        probed(system).map(|c| {
            let of = |name, n, figure: &Option<crate::count::Figure>| {
                figure.as_ref().map(|f| (n, name, f.median))
            };
            let parts: Vec<_> = [
                of("fio", 0, &c.fio_syscalls.per_op),
                of("daemon", 1, &c.daemon_syscalls.per_op),
            ]
            .into_iter()
            .flatten()
            .collect();
            let words = parts
                .iter()
                .map(|(_, name, v)| format!("{name} {}", format::number(*v)))
                .collect::<Vec<_>>();
            Bar {
                words: words.join(", "),
                parts,
            }
        })
    });
    let svg = parts::stacked(
        page,
        &format!("{}, system calls per operation", test.id),
        "system calls per operation of fio",
        &rows,
    )?;
    let table = html! {
        table {
            thead {
                tr {
                    th rowspan="2" scope="col" { "System" }
                    th.group colspan="2" scope="colgroup" { "System calls of fio" }
                    th.group colspan="2" scope="colgroup" { "System calls of the daemon" }
                    th rowspan="2" scope="col" { "Crossings to the daemon per operation, by opcode" }
                }
                tr { @for _ in 0..2 { th.num scope="col" { "total" } th.num scope="col" { "per operation" } } }
            }
            tbody { @for s in page.systems() {
                (parts::row(page, &s.id, 5, probed(&s.id).map(|c| html! {
                    (parts::both(&c.fio_syscalls))
                    @if c.has_daemon { (parts::both(&c.daemon_syscalls)) } @else { td.none colspan="2" { "no daemon" } }
                    (crossings(c))
                })))
            } }
        }
    };
    Ok(html! {
        figure id=(format!("fig-{index}-syscalls")) {
            h3 { "Switches between user and kernel mode" }
            @if let Some(svg) = &svg {
                (parts::legend(&[(0, "fio"), (1, "daemon")]))
                div.panels { div.panel { (PreEscaped(svg)) } }
            }
            (under::caption(page, &html! {
                (test.id) ", system calls in the measured phase, divided by the operations that fio completed; medians over the "
                "repetitions with probes. Each call is one switch to the kernel and one back. A crossing is a request that the daemon took and "
                "answered. Fewer is better."
            }, &[test], &[Probes::On]))
            (scrolling(&format!("{}, system calls and crossings as a table", test.id), &table))
        }
    })
}

fn crossings(c: &Cell) -> Markup {
    let known: Vec<_> = c
        .requests
        .iter()
        .filter_map(|o| Some((&o.opcode, o.crossings.per_op.as_ref()?.median)))
        .collect();
    html! {
        @if !c.has_daemon { td.none { "no daemon" } }
        @else if known.is_empty() { td.none { "not counted" } }
        @else {
            td { @for (i, (opcode, n)) in known.iter().enumerate() {
                @if i > 0 { ", " } (opcode) " " (format::number(*n))
            } }
        }
    }
}
