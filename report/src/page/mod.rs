//! The page: one HTML document that needs nothing from anywhere.

mod appendix;
mod choice;
pub mod compare;
mod cpu;
mod ctx;
mod floor;
pub mod history;
mod latency;
mod parts;
mod probes;
mod published;
mod requests;
mod rings;
mod scaling;
mod served;
mod sides;
mod summary;
mod switches;
mod tests;
mod under;

use efuse_model::plan::PlannedSystem;
use efuse_model::test::Test;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::count::Cell;
use crate::error::ReportError;
use crate::format;
use crate::input::Run;
use crate::metric::{Metric, Op};
use crate::palette;
use crate::paper::Reference;
use crate::table::{Ratio, Row, Table};

const STYLE: &str = include_str!("style.css");
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:";
const SCRIPT: &str = include_str!("script.js");

/// What every part of the page draws from.
struct Page<'a> {
    run: &'a Run,
    table: &'a Table,
    cells: Vec<Cell>,
    reference: &'static Reference,
}

/// The whole document.
///
/// # Errors
/// If a chart cannot be drawn or the published values are damaged.
pub fn render(run: &Run, table: &Table) -> Result<String, ReportError> {
    let page = Page {
        run,
        table,
        cells: Cell::all(run),
        reference: Reference::shipped()?,
    };
    let plan = &run.plan;
    let title = format!("eFUSE evaluation: {} ({})", plan.workload, plan.run);
    let mut sections = vec![summary::section(&page)?];
    for (i, test) in plan.tests.iter().enumerate() {
        sections.push(tests::section(&page, i, test)?);
    }
    sections.extend(choice::section(&page)?);
    sections.extend(rings::section(&page)?);
    sections.push(published::section(&page)?);
    sections.extend(appendix::sections(&page));
    Ok(shell(&Shell {
        title: &title,
        first: "summary",
        header: &summary::header(&page),
        contents: &contents(&page),
        sections: &sections,
        footer: &html! {
            "Made by efuse-report " (env!("CARGO_PKG_VERSION")) " from the run "
            code { (plan.run) } ". The same table as JSON: "
            code { "report RUN_DIR --json" } "."
        },
    }))
}

/// The parts of a page.
struct Shell<'a> {
    title: &'a str,
    /// The section that a keyboard jumps to.
    first: &'a str,
    header: &'a Markup,
    contents: &'a Markup,
    sections: &'a [Markup],
    footer: &'a Markup,
}

fn shell(page: &Shell<'_>) -> String {
    let document = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                // The promise to fetch nothing, kept by the browser.
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="color-scheme" content="light dark";
                meta name="generator" content=(concat!("efuse-report ", env!("CARGO_PKG_VERSION")));
                title { (page.title) }
                // An empty icon keeps browsers from asking a server for one.
                link rel="icon" href="data:,";
                style { (PreEscaped(colours())) (PreEscaped(STYLE)) }
            }
            body {
                a.skip href={ "#" (page.first) } { "Skip to the " (page.first) }
                (page.header)
                (page.contents)
                main { @for s in page.sections { (s) } }
                footer { p { (page.footer) } }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    document.into_string()
}

fn contents(page: &Page<'_>) -> Markup {
    html! {
        nav aria-label="Contents" {
            ul {
                li { a href="#summary" { "Summary" } }
                @for (i, test) in page.run.plan.tests.iter().enumerate() {
                    li { a href=(format!("#test-{i}")) { (test.id) } }
                }
                @if choice::any(page) { li { a href="#choice" { "Adaptive choice" } } }
                @if rings::any(page) { li { a href="#rings" { "Ring channels" } } }
                li { a href="#published" { "Published values" } }
                li { a href="#verification" { "Verification" } }
                li { a href="#gaps" { "Left out" } }
                li { a href="#environment" { "Environment" } }
                li { a href="#method" { "Method" } }
                li { a href="#terms" { "Terms" } }
            }
        }
    }
}

/// The palette as custom properties, for the style sheet's three themes.
fn colours() -> String {
    let (mut light, mut dark, mut classes) = (String::new(), String::new(), String::new());
    for (i, c) in palette::all().iter().enumerate() {
        light += &format!("--s{i}:{};", c.light);
        dark += &format!("--s{i}:{};", c.dark);
        classes += &format!(".s{i}{{--c:var(--s{i})}}");
        // A second carrier beside colour, for curves.
        let dash = ["none", "9 3", "2 3", "9 3 2 3"][i % 4];
        classes += &format!(".curve.s{i}{{stroke-dasharray:{dash}}}");
    }
    let (paper, ink) = palette::PAGE;
    let light = format!("--page:{paper};{light}");
    let dark = format!("--page:{ink};{dark}");
    format!(
        ":root{{{light}}}\n\
         @media screen and (prefers-color-scheme:dark){{:root:not([data-theme=light]){{{dark}}}}}\n\
         @media screen{{:root[data-theme=dark]{{{dark}}}}}\n{classes}\n"
    )
}

impl<'a> Page<'a> {
    /// The systems that are compared: a twin is no system of its own.
    fn systems(&self) -> impl Iterator<Item = &'a PlannedSystem> {
        self.everyone().iter().filter(|s| s.twin_of.is_none())
    }

    /// Every system of the plan, twins too.
    fn everyone(&self) -> &'a [PlannedSystem] {
        &self.run.plan.systems
    }

    fn slot(&self, system: &str) -> u8 {
        palette::slot(&self.run.plan, system)
    }

    fn row(&self, test: &str, system: &str, op: Op, metric: Metric) -> Option<&'a Row> {
        self.table.get(test, system, op, metric)
    }

    /// What was counted of a system in a test.
    fn cell(&self, test: &str, system: &str) -> Option<&Cell> {
        self.cells
            .iter()
            .find(|c| c.test == test && c.system == system)
    }

    /// The directions of a test: what its pattern does and whatever has figures.
    fn ops(&self, test: &Test) -> Vec<Op> {
        Op::ALL
            .into_iter()
            .filter(|op| {
                op.is_in(test)
                    || self
                        .table
                        .across(&test.id, *op, Metric::Iops)
                        .next()
                        .is_some()
            })
            .collect()
    }

    /// The directions that any test has.
    fn all_ops(&self) -> Vec<Op> {
        let tests = &self.run.plan.tests;
        Op::ALL
            .into_iter()
            .filter(|op| tests.iter().any(|t| self.ops(t).contains(op)))
            .collect()
    }

    /// Why a cell of a table is empty.
    fn why_missing(&self, test: &str, system: &str, op: Op) -> String {
        if self.run.of(test, system).next().is_some() {
            format!("fio gave no such {} figure", op.name())
        } else {
            self.run.why_missing(test, system)
        }
    }

    /// The sentence that every caption ends with where figures are emulated.
    fn mark(&self) -> Markup {
        match self.run.emulated() {
            Some(true) => html! { " " span.mark-emulated { "Emulated (TCG): ratios only." } },
            Some(false) => html! {},
            None => html! { " " span.mark-emulated { "Environment not recorded." } },
        }
    }

    /// For aria labels, which hold no markup.
    fn mark_text(&self) -> &'static str {
        match self.run.emulated() {
            Some(true) => " Emulated: ratios only.",
            Some(false) => "",
            None => " Environment not recorded.",
        }
    }

    fn base(&self) -> Option<&'a str> {
        self.table.base.as_deref()
    }
}

/// A system's name with its colour.
fn system_name(page: &Page<'_>, id: &str) -> Markup {
    // Only names that are longer than any built-in one may break.
    let class = if id.len() > 18 { "sys long" } else { "sys" };
    html! {
        span class=(class) { span class=(format!("swatch s{}", page.slot(id))) aria-hidden="true" {} (id) }
    }
}

/// A table that scrolls inside itself where the page is narrow.
fn scrolling(label: &str, table: &Markup) -> Markup {
    html! { div.scroll role="region" aria-label=(label) tabindex="0" { (table) } }
}

/// A ratio with its interval, and what it says. Only of IOPS (`rate`) does the plan ask
/// that it be certain.
fn ratio_cell(page: &Page<'_>, system: &str, ratio: Option<&Ratio>, rate: bool) -> Markup {
    if page.base() == Some(system) {
        return html! { td.num { "1 " small { "(base)" } } };
    }
    match ratio {
        Some(r) => html! {
            td.num {
                (format::ratio(r))
                @if r.interval.is_some() { " " small.verdict { (format::verdict(r)) } }
                @if rate && let Some(width) = page.base().and_then(|b| page.run.unstable(b, r)) {
                    " " small.verdict { strong { "unstable: \u{b1}" (format!("{:.1} %", width * 100.0)) } }
                }
            }
        },
        None => html! { td.num { span.none { "no ratio" } } },
    }
}
