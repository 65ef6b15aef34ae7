//! What the sections of counters share: stacked bars with their legend, cells of figures,
//! and the list of what was not counted.

use efuse_model::test::Test;
use maud::{Markup, PreEscaped, html};

use super::{Page, system_name};
use crate::chart::{Chart, Content, Line, Scale};
use crate::count::{Count, Figure};
use crate::error::ReportError;
use crate::format;

/// A row of a stacked chart: its parts, each with its number, name and value.
pub struct Stack {
    /// The system.
    pub system: String,
    /// The name at the left; the system's unless rows are told apart otherwise.
    pub name: String,
    /// The figure in words, or why there is none.
    pub content: Result<Bar, String>,
}

/// Parts of a bar.
pub struct Bar {
    /// The figure in words.
    pub words: String,
    /// Number (for its look), name and length of each part.
    pub parts: Vec<(usize, &'static str, f64)>,
}

/// Headings between rows and the rows.
pub enum Row {
    /// A heading.
    Heading(String),
    /// A bar.
    Stack(Stack),
}

/// A row for each system, under its own name.
pub fn rows(page: &Page<'_>, bar: impl Fn(&str) -> Result<Bar, String>) -> Vec<Row> {
    page.systems()
        .map(|s| {
            Row::Stack(Stack {
                system: s.id.clone(),
                name: s.id.clone(),
                content: bar(&s.id),
            })
        })
        .collect()
}

/// Stacked bars as an `<svg>` element; `None` where no row has a figure.
pub fn stacked(
    page: &Page<'_>,
    what: &str,
    axis: &str,
    rows: &[Row],
) -> Result<Option<String>, ReportError> {
    let mut longest = Vec::new();
    let mut read_out = Vec::new();
    let mut heading = String::new();
    let lines = rows
        .iter()
        .map(|row| match row {
            Row::Heading(name) => {
                heading = format!("{name} ");
                Line {
                    name: name.clone(),
                    slot: 0,
                    content: Content::Heading,
                }
            }
            Row::Stack(s) => Line {
                name: s.name.clone(),
                slot: page.slot(&s.system),
                content: match &s.content {
                    Err(why) => Content::Missing(why.clone()),
                    Ok(bar) => {
                        longest.push(bar.parts.iter().map(|(_, _, v)| v.max(0.0)).sum::<f64>());
                        read_out.push(format!("{heading}{}: {}", s.name, bar.words));
                        Content::Stack {
                            words: bar.words.clone(),
                            parts: bar
                                .parts
                                .iter()
                                .map(|(n, name, v)| {
                                    let tip = format!(
                                        "{heading}{}, {name}: {}",
                                        s.name,
                                        format::number(*v)
                                    );
                                    (*n, *v, tip)
                                })
                                .collect(),
                            marks: vec![],
                        }
                    }
                },
            },
        })
        .collect();
    if longest.iter().all(|v| *v <= 0.0) {
        return Ok(None);
    }
    let chart = Chart {
        label: format!("{what}. {}.{}", read_out.join("; "), page.mark_text()),
        scale: Scale::bars(&longest, false),
        axis: axis.to_owned(),
        divisor: 1.0,
        reference: None,
        bars: true,
        joined: false,
        bands: vec![],
        lines,
    };
    chart.svg().map(Some)
}

/// The looks of the parts, in ink: bars have the colour of their system.
pub fn legend(names: &[(usize, &str)]) -> Markup {
    html! {
        p.legend {
            @for (n, name) in names {
                span {
                    (PreEscaped(format!(
                        "<svg class=\"key\" viewBox=\"0 0 30 12\" aria-hidden=\"true\"><rect class=\"part p{n} ink\" x=\"1\" y=\"1\" width=\"28\" height=\"10\"/></svg>"
                    )))
                    (name)
                }
            }
        }
    }
}

/// Why a cell has no counters.
pub fn why(page: &Page<'_>, test: &str, system: &str) -> String {
    match page.cell(test, system) {
        None => page.run.why_missing(test, system),
        Some(c) if c.n == 0 => "its repetitions were stored without counters".to_owned(),
        Some(_) => "not counted (see below)".to_owned(),
    }
}

/// Why a cell has nothing that only probes can count.
pub fn why_unprobed(page: &Page<'_>, test: &str, system: &str) -> String {
    let planned = page.run.planned(efuse_model::counters::Probes::On) > 0;
    match page.cell(test, system) {
        None => page.run.why_missing(test, system),
        Some(c) if c.n_probed > 0 => "not counted (see below)".to_owned(),
        Some(_) if !planned => "this run has no repetitions with probes".to_owned(),
        Some(_) => {
            let failed = page
                .run
                .left_out
                .iter()
                .rev()
                .find(|l| !l.probes.is_off() && l.test == test && l.system == system);
            match failed {
                Some(l) => format!("failed with probes in {}: {}", l.step, l.reason),
                None => "no repetition with probes has counters".to_owned(),
            }
        }
    }
}

/// A figure of a table with its interval, or that it was not counted.
pub fn cell(figure: Option<&Figure>) -> Markup {
    match figure {
        Some(f) => html! {
            td.num {
                (format::number(f.median))
                @if let Some(i) = f.interval {
                    " " small { "(" (format::number(i.low)) "\u{2013}" (format::number(i.high)) ")" }
                }
            }
        },
        None => html! { td.none { "not counted" } },
    }
}

/// A count in all and per operation.
pub fn both(count: &Count) -> Markup {
    html! {
        @match (&count.total, &count.per_op) {
            (None, None) => td.none colspan="2" { "not counted" },
            (total, per_op) => {
                @match total {
                    // Counts in full: they are to be compared to the last digit.
                    Some(f) => td.num { (format::count(f.median.round() as u64)) },
                    None => td.none { "not counted" },
                }
                (cell(per_op.as_ref()))
            }
        }
    }
}

/// The row of a system: its cells, or one across all columns that says why not.
pub fn row(page: &Page<'_>, system: &str, columns: usize, cells: Result<Markup, String>) -> Markup {
    html! {
        tr {
            th scope="row" { (system_name(page, system)) }
            @match cells {
                Ok(cells) => { (cells) },
                Err(why) => td.none colspan=(columns) { (why) },
            }
        }
    }
}

/// What the counters themselves say is missing in a test, the same reasons together.
pub fn missing(page: &Page<'_>, test: &Test) -> Markup {
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    let mut without = Vec::new();
    for s in page.everyone() {
        let Some(cell) = page.cell(&test.id, &s.id) else {
            continue;
        };
        if cell.n > 0 && cell.without > 0 {
            without.push((s.id.as_str(), cell.without));
        }
        for reason in &cell.missing {
            match reasons.iter_mut().find(|(r, _)| r == reason) {
                Some((_, systems)) => systems.push(&s.id),
                None => reasons.push((reason, vec![&s.id])),
            }
        }
    }
    html! {
        @if !reasons.is_empty() || !without.is_empty() {
            div.note {
                strong { "Not counted in this test:" }
                ul {
                    @for (reason, systems) in &reasons { li { (systems.join(", ")) ": " (reason) } }
                    @for (system, n) in &without { li {
                        (system) ": " (n) @if *n == 1 { " repetition was" } @else { " repetitions were" }
                        " stored without counters"
                    } }
                }
            }
        }
    }
}
