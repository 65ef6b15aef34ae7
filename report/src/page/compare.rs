//! Two runs beside each other, judged by `eval`.

use efuse_model::document::{Call, Judged, Outcome, Side, Sides, Verdict};
use maud::{Markup, PreEscaped, html};

use super::sides::{self, direction, figure};
use super::{Shell, scrolling, shell};
use crate::chart::{Band, Chart, Content, Line, Scale};
use crate::error::ReportError;
use crate::format;
use crate::stats::Interval;

/// What every part of the page draws from.
struct Page<'a> {
    document: &'a Verdict,
    sides: &'a Sides,
    emulated: Option<bool>,
}

impl Page<'_> {
    fn both(&self) -> [&Side; 2] {
        [&self.sides.new, &self.sides.old]
    }

    /// The values of a list without repetition, in their order.
    fn each<'a>(
        judged: impl Iterator<Item = &'a Judged>,
        of: fn(&'a Judged) -> &'a str,
    ) -> Vec<&'a str> {
        let mut out = Vec::new();
        for name in judged.map(of) {
            if !out.contains(&name) {
                out.push(name);
            }
        }
        out
    }
}

/// The whole document.
///
/// # Errors
/// If a chart cannot be drawn.
pub fn render(document: &Verdict, sides: &Sides) -> Result<String, ReportError> {
    let page = Page {
        document,
        sides,
        emulated: sides::emulated([&sides.new, &sides.old]),
    };
    let tests = Page::each(document.judged.iter(), |j| &j.test);
    let mut sections = vec![verdict(&page)];
    for (i, test) in tests.iter().enumerate() {
        sections.push(section(&page, i, test)?);
    }
    sections.push(both(&page));
    sections.push(method(&page));
    let contents = html! {
        nav aria-label="Contents" { ul {
            li { a href="#verdict" { "Verdict" } }
            @for (i, test) in tests.iter().enumerate() {
                li { a href=(format!("#test-{i}")) { (test) } }
            }
            li { a href="#sides" { "Both runs" } }
            li { a href="#method" { "Method" } }
        } }
    };
    Ok(shell(&Shell {
        title: &format!("eFUSE comparison: {}", document.title),
        first: "verdict",
        header: &header(&page),
        contents: &contents,
        sections: &sections,
        footer: &html! {
            "Made by efuse-report " (env!("CARGO_PKG_VERSION")) " from the judgement of "
            code { "eval compare" } "; the same as JSON: " code { "eval --json compare A B" } "."
        },
    }))
}

fn header(page: &Page<'_>) -> Markup {
    let Sides {
        old,
        new,
        differences,
        forbidding,
        ..
    } = page.sides;
    html! {
        header {
            div.title {
                h1 { "eFUSE comparison: " (new.label) " against " (old.label) }
                button #theme type="button" hidden { "Dark theme" }
            }
            @if differences.is_empty() {
                p { "Both environments are equal in everything that is recorded." }
            } @else {
                div class=(if forbidding.is_empty() { "differences" } else { "differences note" }) {
                    p { strong { "The environments differ" } " (B, was A)"
                        @if forbidding.is_empty() { ", in nothing that keeps figures from being compared:" }
                        @else { "; the " (forbidding.len()) " in bold keep figures from being compared:" }
                    }
                    ul { @for d in differences {
                        li { @if forbidding.contains(d) { strong { (d) } } @else { (d) } }
                    } }
                }
            }
            (sides::banner(page.emulated))
            dl.facts {
                @for (name, side) in [("A, old", old), ("B, new", new)] {
                    div { dt { (name) } dd { (side.label) ", " (format::time(side.created)) } }
                    div { dt { (name) ": revision" } dd {
                        (side.environment.as_ref().map_or("not recorded", |e| &e.revision))
                    } }
                }
            }
            p.command { "Command of A: " code { (old.command) } }
            p.command { "Command of B: " code { (new.command) } }
        }
    }
}

fn verdict(page: &Page<'_>) -> Markup {
    let document = page.document;
    let words = match document.outcome {
        Outcome::Pass => "No regression",
        Outcome::Regression => "Regression",
        Outcome::CouldNotJudge => "Could not judge",
    };
    html! {
        section #verdict aria-labelledby="h-verdict" {
            h2 #h-verdict { "Verdict" }
            p.state {
                strong { (words) } ": "
                @if document.judged.is_empty() { "nothing could be compared." }
                @else { (document.counts()) " of " (document.judged.len()) " comparisons." }
            }
            @if !document.problems.is_empty() {
                div.note {
                    strong { "What keeps the judgement from being whole:" }
                    ul { @for problem in &document.problems { li.lines { (problem) } } }
                }
            }
            @if !document.notes.is_empty() {
                ul { @for note in &document.notes { li { (note) } } }
            }
        }
    }
}

fn section(page: &Page<'_>, i: usize, test: &str) -> Result<Markup, ReportError> {
    let judged: Vec<&Judged> = page
        .document
        .judged
        .iter()
        .filter(|j| j.test == test)
        .collect();
    let metrics = Page::each(judged.iter().copied(), |j| &j.metric);
    let mut panels = Vec::new();
    for metric in &metrics {
        let rows: Vec<&Judged> = judged
            .iter()
            .filter(|j| j.metric == *metric)
            .copied()
            .collect();
        if rows.iter().any(|j| j.ratio.is_some()) {
            let svg = chart(page, test, metric, &rows)?;
            panels.push((metric, rows[0].more_is_better, svg));
        }
    }
    let title = page.sides.new.tests.iter().find(|t| t.id == test);
    Ok(html! {
        section id=(format!("test-{i}")) aria-labelledby=(format!("h-test-{i}")) {
            h2 id=(format!("h-test-{i}")) { (test) @if let Some(t) = title { ": " (t.title) } }
            @if panels.is_empty() {
                p.note { "No figure of this test is on both sides." }
            } @else {
                figure {
                    div.panels { @for (metric, more, svg) in &panels {
                        div.panel { h3 { (figure(metric)) " " small { (direction(*more)) } } (PreEscaped(svg)) }
                    } }
                    (caption(page, test, &judged))
                }
            }
            (table(page, test, &judged))
        }
    })
}

/// As far below 1 as above, on a logarithmic scale.
fn band(share: f64) -> Interval {
    Interval {
        low: 1.0 / (1.0 + share),
        high: 1.0 + share,
    }
}

fn range(ratio: f64, interval: Option<Interval>) -> String {
    match interval {
        Some(i) => format!("{ratio:.3}x ({:.3}\u{2013}{:.3})", i.low, i.high),
        None => format!("{ratio:.3}x (no interval)"),
    }
}

fn chart(
    page: &Page<'_>,
    test: &str,
    metric: &str,
    rows: &[&Judged],
) -> Result<String, ReportError> {
    // The line at 1 is always there to compare with.
    let mut values = vec![1.0];
    let (mut lines, mut bands, mut read_out) = (Vec::new(), Vec::new(), Vec::new());
    for (n, j) in rows.iter().enumerate() {
        let content = match j.ratio {
            Some(ratio) => {
                values.push(ratio);
                values.extend(j.interval.into_iter().flat_map(|i| [i.low, i.high]));
                let words = format!("{} {}", range(ratio, j.interval), j.call.word());
                read_out.push(format!("{}: {words}", j.system));
                Content::Data {
                    words,
                    median: Some(ratio),
                    interval: j.interval,
                    points: vec![],
                    marks: vec![],
                }
            }
            None => Content::Missing(j.reason.clone().unwrap_or_default()),
        };
        if let (Some(floor), Some(_)) = (j.floor, j.ratio) {
            let interval = band(floor);
            values.extend([interval.low, interval.high]);
            bands.push(Band {
                lines: n..n + 1,
                interval,
                tip: format!("A/A floor {:.1} %: a system against itself", floor * 100.0),
            });
        }
        lines.push(Line {
            name: j.system.clone(),
            slot: sides::slot(&page.both(), &j.system),
            content,
        });
    }
    Chart {
        label: format!(
            "{test}, {}, B over A. {}.{}",
            figure(metric),
            read_out.join("; "),
            sides::mark_text(page.emulated)
        ),
        scale: Scale::marks(values),
        axis: "B as a multiple of A".to_owned(),
        divisor: 1.0,
        reference: Some(1.0),
        bars: false,
        joined: false,
        bands,
        lines,
    }
    .svg()
}

fn related(page: &Page<'_>) -> Markup {
    html! {
        @match &page.sides.base {
            Some(base) => { "Each figure is first related to " (base) " inside its own run." },
            None => { "Figures are compared as they are." },
        }
    }
}

fn caption(page: &Page<'_>, test: &str, judged: &[&Judged]) -> Markup {
    let most = |of: fn(&Judged) -> usize| judged.iter().map(|j| of(j)).max().unwrap_or(0);
    let (new, old) = (most(|j| j.n.0), most(|j| j.n.1));
    let floors = judged.iter().any(|j| j.floor.is_some());
    html! {
        figcaption {
            "Diamond: B over A, medians; whiskers: 95 % bootstrap interval; line at 1: no change. "
            (related(page)) " "
            @if floors { "Shaded band: A/A floor, how far this machine puts a system from itself. " }
            @else { "No A/A floor: neither run measures a system twice. " }
            (sides::mark(page.emulated))
            p.under {
                "B: " (sides::environment(&page.sides.new)) ", n\u{a0}=\u{a0}" (new) " repetition" @if new != 1 { "s" } ". "
                "A: " (sides::environment(&page.sides.old)) ", n\u{a0}=\u{a0}" (old) " repetition" @if old != 1 { "s" } "."
            }
            (sides::commands(&page.both(), test))
        }
    }
}

fn table(page: &Page<'_>, test: &str, judged: &[&Judged]) -> Markup {
    let of_base = page.sides.base.as_ref();
    let unit = of_base.map_or_else(String::new, |b| format!(" (of {b})"));
    let share = |v: f64| format!("{:.1} %", v * 100.0);
    let table = html! {
        table {
            caption { (test) ": every comparison. " (related(page)) (sides::mark(page.emulated)) }
            thead { tr {
                th scope="col" { "Figure" }
                th scope="col" { "System" }
                th scope="col" { "Verdict" }
                th.num scope="col" { "A" (unit) }
                th.num scope="col" { "B" (unit) }
                th.num scope="col" { "B over A (95 %)" }
                th.num scope="col" { "n of B, A" }
                th.num scope="col" { "p (Holm)" }
                th.num scope="col" { "Effect" }
                th.num scope="col" { "A/A floor" }
                th.num scope="col" { "Limit" }
            } }
            tbody { @for j in judged { tr {
                th scope="row" { (figure(&j.metric)) " " small { (direction(j.more_is_better)) } }
                td { (sides::system_name(sides::slot(&page.both(), &j.system), &j.system)) }
                td class=(j.call.word()) { @match j.call {
                    Call::Regression | Call::Improved => strong { (j.call.word()) },
                    other => (other.word()),
                } }
                @match (j.ratio, j.medians) {
                    (Some(ratio), medians) => {
                        @match medians {
                            Some((new, old)) => {
                                td.num { (format::number(old)) }
                                td.num { (format::number(new)) }
                            },
                            None => td.none colspan="2" { "pairs" },
                        }
                        td.num { (range(ratio, j.interval)) }
                        td.num { (j.n.0) ", " (j.n.1) }
                        td.num { (j.p_holm.map_or_else(|| "-".to_owned(), |p| format!("{p:.3}"))) }
                        td.num {
                            @match (j.delta, j.magnitude) {
                                (Some(delta), Some(size)) => { (format!("{delta:+.2}")) " " small { (size.word()) } },
                                _ => { "-" },
                            }
                        }
                    },
                    (None, _) => td.none colspan="6" { (j.reason.as_deref().unwrap_or("no figure")) },
                }
                td.num { @match j.floor { Some(f) => { (share(f)) }, None => span.none { "none" } } }
                td.num { (share(j.limit)) }
            }
            @if let (Some(reason), Some(_)) = (&j.reason, j.ratio) {
                tr { td {} td.none colspan="10" { (j.system) ": " (reason) } }
            } } }
        }
    };
    scrolling(&format!("Comparisons of {test}"), &table)
}

fn both(page: &Page<'_>) -> Markup {
    html! {
        section #sides aria-labelledby="h-sides" {
            h2 #h-sides { "Both runs" }
            (sides::table(&[("A, old", &page.sides.old), ("B, new", &page.sides.new)]))
        }
    }
}

fn method(page: &Page<'_>) -> Markup {
    let d = page.document;
    html! {
        section #method aria-labelledby="h-method" {
            h2 #h-method { "Method" }
            p {
                "The rules are those of the gate; this page draws what " code { "eval" }
                " judged and computes nothing itself. A limit is the larger of the threshold, "
                (format!("{:.1} %", d.threshold * 100.0)) ", and the A/A floor. False alarms of all comparisons together: at most "
                (format!("{:.0} %", d.alpha * 100.0)) "."
            }
            dl.reasons {
                dt { "regression, improved" }
                dd { "The 95 % interval excludes 1, the p-value after Holm's correction over all comparisons is small enough, "
                     "and the ratio is farther from 1 than the limit: to the worse or to the better." }
                dt { "same" } dd { "The interval lies inside the limit." }
                dt { "inconclusive" } dd { "Nothing was found and nothing was excluded." }
                dt { "insufficient" } dd { "A figure is missing, or so few repetitions could not be significant whatever they said." }
                dt { "Effect" } dd { "Cliff's delta of B against A: +1 if every value of B is above every value of A." }
            }
        }
    }
}
