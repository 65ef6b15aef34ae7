//! CPU time and memory, split by who used them.

use efuse_model::counters::Probes;
use efuse_model::test::Test;
use maud::{Markup, PreEscaped, html};

use super::parts::{self, Bar};
use super::{Page, scrolling, under};
use crate::count::{ACCOUNTED_PERCENT, Cell};
use crate::error::ReportError;
use crate::format;

/// CPU per operation and memory.
pub fn figures(page: &Page<'_>, index: usize, test: &Test) -> Result<Markup, ReportError> {
    // The section of switches says so already.
    if !page.cells.iter().any(|c| c.test == test.id && c.n > 0) {
        return Ok(html! {});
    }
    Ok(html! {
        (cpu(page, index, test)?)
        (memory(page, test))
    })
}

fn counted<'p>(page: &'p Page<'_>, test: &Test, system: &str) -> Result<&'p Cell, String> {
    page.cell(&test.id, system)
        .filter(|c| c.n > 0)
        .ok_or_else(|| parts::why(page, &test.id, system))
}

fn bar(cell: &Cell) -> Result<Bar, String> {
    let c = &cell.cpu_us;
    let known = cell.cpu_sum_known();
    let Some(all) = &c.all else {
        return Err("not counted (see below)".to_owned());
    };
    let mut out = Vec::new();
    for (n, name, figure) in [
        (0, "fio", &c.fio),
        (1, "daemon", &c.daemon),
        (2, "kernel threads", &c.kernel),
        (3, "rest", &c.rest),
    ] {
        if let Some(f) = figure.as_ref().filter(|_| known || n < 3) {
            out.push((n, name, f.median));
        }
    }
    let sum: f64 = out.iter().map(|(_, _, v)| v).sum();
    if c.rest.is_none() && known {
        out.push((3, "not told apart", all.median - sum));
    }
    let part = |name: &str, figure: &Option<crate::count::Figure>| {
        figure
            .as_ref()
            .map(|f| format!("{name} {}", format::number(f.median)))
    };
    let words: Vec<String> = [part("fio", &c.fio), part("daemon", &c.daemon)]
        .into_iter()
        .flatten()
        .collect();
    Ok(Bar {
        words: if known {
            format!(
                "{} \u{b5}s ({})",
                format::number(all.median),
                words.join(", ")
            )
        } else {
            format!("{} \u{b5}s, rest not known", words.join(", "))
        },
        parts: out,
    })
}

fn cpu(page: &Page<'_>, index: usize, test: &Test) -> Result<Markup, ReportError> {
    let rows = parts::rows(page, |system| counted(page, test, system).and_then(bar));
    let svg = parts::stacked(
        page,
        &format!("{}, CPU time per operation", test.id),
        "CPU time per operation of fio, \u{b5}s",
        &rows,
    )?;
    let table = html! {
        table {
            thead {
                tr {
                    th rowspan="2" scope="col" { "System" }
                    th.group colspan="5" scope="colgroup" { "CPU time per operation, \u{b5}s" }
                    th.num rowspan="2" scope="col" { "Processors busy, %" }
                    th.num rowspan="2" scope="col" { "Accounted for by /proc/stat, %" }
                    th.num rowspan="2" scope="col" { "Stolen by the host, s" }
                }
                tr {
                    th.num scope="col" { "fio" } th.num scope="col" { "daemon" }
                    th.num scope="col" { "kernel threads" } th.num scope="col" { "rest" } th.num scope="col" { "all" }
                }
            }
            tbody { @for s in page.systems() {
                (parts::row(page, &s.id, 8, counted(page, test, &s.id).map(|c| html! {
                    (parts::cell(c.cpu_us.fio.as_ref()))
                    @if c.has_daemon || c.cpu_us.daemon.is_some() { (parts::cell(c.cpu_us.daemon.as_ref())) }
                    @else { td.none { "no daemon" } }
                    (parts::cell(c.cpu_us.kernel.as_ref()))
                    @if c.cpu_sum_known() {
                        (parts::cell(c.cpu_us.rest.as_ref()))
                        (parts::cell(c.cpu_us.all.as_ref()))
                        (parts::cell(c.busy_percent.as_ref()))
                    } @else {
                        td.none colspan="3" { "not known: clock ticks were lost" }
                    }
                    @if c.accounted_percent.is_some() { (parts::cell(c.accounted_percent.as_ref())) }
                    @else { td.none { "no ticks counted" } }
                    (parts::cell(c.steal_s.as_ref()))
                })))
            } }
        }
    };
    Ok(html! {
        figure id=(format!("fig-{index}-cpu")) {
            h3 { "CPU time" }
            @if let Some(svg) = &svg {
                (parts::legend(&[(0, "fio"), (1, "daemon"), (2, "kernel threads"), (3, "rest")]))
                div.panels { div.panel { (PreEscaped(svg)) } }
            }
            (under::caption(page, &html! {
                (test.id) ", busy time of all processors in the measured phase, divided by the operations that fio completed; medians over "
                "the repetitions. Pollers and workers of the kernel are kernel threads; the rest is interrupts and every other task. Lower is better."
            }, &[test], &[Probes::Off]))
            (scrolling(&format!("{}, CPU time as a table", test.id), &table))
            @if page.cells.iter().any(|c| c.test == test.id && c.n > 0 && !c.cpu_sum_known()) {
                p.note {
                    "The sum of all CPU time comes from /proc/stat, which counts clock ticks. Where it accounts for less than "
                    (ACCOUNTED_PERCENT) " % of the processors' time, or for less than its parts, ticks were lost, as in an emulated guest on a busy host, and no sum or rest is given. "
                    "The times of fio, the daemon and kernel threads are the scheduler's own and do not depend on ticks."
                }
            }
        }
    })
}

fn memory(page: &Page<'_>, test: &Test) -> Markup {
    let bytes = |n: Option<u64>| match n {
        Some(0) => html! { td.none { "none" } },
        Some(n) => html! { td.num { (format::bytes(n)) } },
        None => html! { td.none { "not counted" } },
    };
    let table = html! {
        table {
            caption { "Memory, the most of any repetition" (page.mark()) }
            thead { tr {
                th scope="col" { "System" }
                th.num scope="col" { "Daemon, largest resident set" }
                th.num scope="col" { "BPF maps in the kernel" }
                th.num scope="col" { "Rings and argument buffers" }
            } }
            tbody { @for s in page.systems() {
                (parts::row(page, &s.id, 3, counted(page, test, &s.id).map(|c| html! {
                    @if c.has_daemon || c.daemon_peak.is_some() { (bytes(c.daemon_peak)) } @else { td.none { "no daemon" } }
                    (bytes(c.maps))
                    (bytes(c.rings))
                })))
            } }
        }
    };
    html! {
        h3 { "Memory" }
        (scrolling(&format!("{}, memory as a table", test.id), &table))
    }
}
