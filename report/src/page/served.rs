//! Who served the requests of a test: programs inside the kernel, or the daemon.

use std::collections::BTreeMap;

use efuse_model::counters::Probes;
use efuse_model::test::Test;
use maud::{Markup, PreEscaped, html};

use super::parts::{self, Bar};
use super::{Page, scrolling, system_name, under};
use crate::error::ReportError;
use crate::format;
use crate::served::{self, Share};

/// Shares of the whole, and every opcode with its reasons in a table. Nothing where no
/// system has programs.
pub fn figure(page: &Page<'_>, index: usize, test: &Test) -> Result<Markup, ReportError> {
    let cells: Vec<(&str, &[Share])> = page
        .systems()
        .filter_map(|s| Some((s.id.as_str(), &*page.cell(&test.id, &s.id)?.served)))
        .filter(|(_, shares)| !shares.is_empty())
        .collect();
    if cells.is_empty() {
        return Ok(html! {});
    }
    let rows = parts::rows(page, |id| {
        cells
            .iter()
            .find(|(system, _)| *system == id)
            .and_then(|(_, shares)| bar(shares))
            .ok_or_else(|| why(page, test, id))
    });
    let svg = parts::stacked(
        page,
        &format!("{}, requests by who served them", test.id),
        "requests that programs saw, per operation",
        &rows,
    )?;
    Ok(html! {
        figure id=(format!("fig-{index}-served")) {
            h3 { "Served by" }
            @if let Some(svg) = &svg {
                (parts::legend(&[(0, "answered in the kernel"), (2, "passed to the daemon")]))
                div.panels { div.panel { (PreEscaped(svg)) } }
            }
            (under::caption(page, &html! {
                (test.id) ", requests for each operation by who answered them, as the attached programs count them, pooled over the repetitions. "
                "Requests for which there is no program are not in it. A shorter lower part is better."
            }, &[test], &[Probes::Off]))
            (table(page, test, &cells))
        }
    })
}

fn sums(shares: &[Share]) -> (u64, u64) {
    shares.iter().fold((0, 0), |(kernel, daemon), s| {
        (kernel + s.counts.in_kernel(), daemon + s.counts.by_daemon())
    })
}

fn bar(shares: &[Share]) -> Option<Bar> {
    let (kernel, daemon) = sums(shares);
    let first = shares.first()?;
    Some(Bar {
        words: format!(
            "{} % in the kernel",
            format::number(served::percent(kernel, daemon)?)
        ),
        parts: vec![
            (0, "answered in the kernel", first.per_operation(kernel)?),
            (2, "passed to the daemon", first.per_operation(daemon)?),
        ],
    })
}

fn why(page: &Page<'_>, test: &Test, system: &str) -> String {
    match page.cell(&test.id, system) {
        Some(c) if c.n > 0 => "no programs attached".to_owned(),
        _ => parts::why(page, &test.id, system),
    }
}

/// Counts by their words, or a dash.
pub fn words(counts: &BTreeMap<String, u64>) -> String {
    let all: Vec<_> = counts
        .iter()
        .map(|(word, n)| format!("{word} {}", format::count(*n)))
        .collect();
    if all.is_empty() {
        "\u{2013}".to_owned()
    } else {
        all.join(", ")
    }
}

fn table(page: &Page<'_>, test: &Test, cells: &[(&str, &[Share])]) -> Markup {
    let per_op = |share: &Share, n| {
        share
            .per_operation(n)
            .map_or_else(|| "\u{2013}".to_owned(), format::number)
    };
    let table = html! {
        table {
            thead { tr {
                th scope="col" { "System" }
                th scope="col" { "Opcode" }
                th.num scope="col" { "In the kernel, %" }
                th.num scope="col" { "In the kernel, per operation" }
                th.num scope="col" { "By the daemon, per operation" }
                th scope="col" { "Answered from" }
                th scope="col" { "Passed because" }
            } }
            tbody { @for (system, shares) in cells { @for s in *shares { tr {
                th scope="row" { (system_name(page, system)) }
                td { (s.counts.opcode) }
                td.num { (s.kernel_percent().map_or_else(|| "\u{2013}".to_owned(), format::number)) }
                td.num { (per_op(s, s.counts.in_kernel())) }
                td.num { (per_op(s, s.counts.by_daemon())) }
                td { (words(&s.counts.kernel)) }
                td { (words(&s.counts.passed)) }
            } } } }
        }
    };
    html! {
        (scrolling(&format!("{}, requests by who served them as a table", test.id), &table))
        p.job {
            "Answered from the maps of the programs, or from an answer of theirs that was kept, as nothing had changed. Reasons: miss, it was not in the maps; expired, the daemon's timeout had passed; changed, something it depends on had changed since; "
            "gone, its inode is not in memory; unfit, it does not fit into the maps. "
            "READ and WRITE are calls of direct I/O by the path they took; set-id, the daemon is to clear suid or sgid; error, the backing file failed; chosen, the policy wanted the daemon."
        }
    }
}
