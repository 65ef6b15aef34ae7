//! How systems stood to a base over the baselines that are kept.

use efuse_model::document::{History, Panel, Series, Side, Value};
use efuse_model::test::Test;
use maud::{Markup, PreEscaped, html};

use super::sides::{self, direction, figure};
use super::{Shell, appendix, scrolling, shell};
use crate::chart::{Dot, Scale, Span, Timeline, Trace};
use crate::error::ReportError;
use crate::format;
use crate::stats::Interval;

/// The whole document.
///
/// # Errors
/// If a chart cannot be drawn.
pub fn render(document: &History) -> Result<String, ReportError> {
    let mut sections = Vec::new();
    let titles: Vec<Title> = titles(&document.environments);
    for (i, panel) in document.environments.iter().enumerate() {
        sections.push(environment(document, i, panel, &titles[i])?);
    }
    sections.push(method(document));
    let contents = html! {
        nav aria-label="Contents" { ul {
            @for (i, title) in titles.iter().enumerate() {
                li { a href=(format!("#environment-{i}")) { (title.text) } }
            }
            li { a href="#method" { "Method" } }
        } }
    };
    let baselines: usize = document.environments.iter().map(|p| p.points.len()).sum();
    let all = document.environments.iter().flat_map(|p| &p.points);
    let any = all.clone().any(|s| sides::emulated([s]) == Some(true));
    let header = html! {
        header {
            div.title {
                h1 { "eFUSE history: ratios to " (document.base) }
                button #theme type="button" hidden { "Dark theme" }
            }
            (sides::banner(Some(any)))
            p.state {
                strong { (baselines) " baseline" @if baselines != 1 { "s" } } " in "
                (document.environments.len()) " environment" @if document.environments.len() != 1 { "s" }
                ", which are never mixed in a chart."
            }
            @if !document.notes.is_empty() {
                div.note { ul { @for note in &document.notes { li { (note) } } } }
            }
        }
    };
    Ok(shell(&Shell {
        title: &format!("eFUSE history: ratios to {}", document.base),
        first: if document.environments.is_empty() {
            "method"
        } else {
            "environment-0"
        },
        header: &header,
        contents: &contents,
        sections: &sections,
        footer: &html! {
            "Made by efuse-report " (env!("CARGO_PKG_VERSION")) " from the baselines in "
            code { "results/baselines" } "; the same as JSON: " code { "eval --json history" } "."
        },
    }))
}

/// The heading of an environment.
struct Title {
    text: String,
    /// Where an earlier one would have the same: what differs.
    differs: Vec<String>,
}

fn titles(panels: &[Panel]) -> Vec<Title> {
    let plain: Vec<String> = panels.iter().map(plain).collect();
    let of = |i: usize| {
        let text = plain[i].clone();
        let alike: Vec<usize> = (0..i).filter(|j| plain[*j] == text).collect();
        let Some(first) = alike.first() else {
            return Title {
                text,
                differs: vec![],
            };
        };
        Title {
            text: format!("{text} ({})", alike.len() + 1),
            differs: differences(&panels[i], &panels[*first]),
        }
    };
    (0..panels.len()).map(of).collect()
}

/// What makes the figures of two environments incomparable.
fn differences(panel: &Panel, other: &Panel) -> Vec<String> {
    let (Some(side), Some(other)) = (panel.points.first(), other.points.first()) else {
        return vec![];
    };
    let environments = side.environment.as_ref().zip(other.environment.as_ref());
    let mut out = environments.map_or_else(Vec::new, |(a, b)| a.differences(b));
    // These are what a history is of.
    out.retain(|line| !line.starts_with("revision: ") && !line.starts_with("artifact "));
    if side.device != other.device {
        let [ours, theirs] = [side, other].map(|s| appendix::device(&s.device));
        out.push(format!("device: {ours}, was {theirs}"));
    }
    out
}

fn plain(panel: &Panel) -> String {
    let Some(first) = panel.points.first() else {
        return "no baseline".to_owned();
    };
    match &first.environment {
        Some(e) => format!(
            "{}, {}, {}, kernel {}, {}",
            e.place,
            e.accelerator,
            format::cpus(e.cpus),
            e.kernel,
            first.device.name()
        ),
        None => format!("{}, environment not recorded", first.place),
    }
}

fn environment(
    document: &History,
    i: usize,
    panel: &Panel,
    title: &Title,
) -> Result<Markup, ReportError> {
    let mut tests: Vec<&Test> = Vec::new();
    for series in &panel.series {
        if !tests.contains(&&series.test) {
            tests.push(&series.test);
        }
    }
    let mut figures = Vec::new();
    for test in tests {
        figures.push(of_test(document, panel, test)?);
    }
    let columns: Vec<(String, &Side)> = panel
        .points
        .iter()
        .map(|s| (name(s).to_owned(), s))
        .collect();
    let columns: Vec<(&str, &Side)> = columns.iter().map(|(n, s)| (n.as_str(), *s)).collect();
    Ok(html! {
        section id=(format!("environment-{i}")) aria-labelledby=(format!("h-environment-{i}")) {
            h2 id=(format!("h-environment-{i}")) { (title.text) }
            @if !title.differs.is_empty() {
                p.note { "Differs from the environment of that name above in " (title.differs.join("; ")) "." }
            }
            @if figures.is_empty() {
                p.note { "No baseline of this environment has a figure that can be related to " (document.base) "." }
            }
            @for figure in &figures { (figure) }
            details {
                summary { "The baselines of this environment" }
                (sides::table(&columns))
            }
        }
    })
}

/// The name of a baseline.
fn name(side: &Side) -> &str {
    side.label.trim_start_matches("baseline ")
}

fn of_test(document: &History, panel: &Panel, test: &Test) -> Result<Markup, ReportError> {
    let series: Vec<&Series> = panel.series.iter().filter(|s| s.test == *test).collect();
    let points: Vec<&Side> = points_of(&series)
        .into_iter()
        .filter_map(|p| panel.points.get(p))
        .collect();
    let emulated = sides::emulated(points.iter().copied());
    let mut systems: Vec<&str> = Vec::new();
    let mut panels = Vec::new();
    for metric in &document.metrics {
        let of_metric: Vec<&Series> = series
            .iter()
            .filter(|s| s.metric == *metric)
            .copied()
            .collect();
        let Some(first) = of_metric.first() else {
            continue;
        };
        for s in &of_metric {
            if !systems.contains(&s.system.as_str()) {
                systems.push(&s.system);
            }
        }
        let svg = chart(document, panel, &points_of(&series), metric, &of_metric)?;
        panels.push((metric, first.more_is_better, svg));
    }
    let floors = series.iter().flat_map(|s| &s.values);
    let floors = floors.filter(|v| v.floor.is_some()).count();
    let n = series.iter().flat_map(|s| &s.values).map(|v| v.n);
    let (least, most) = (
        n.clone().filter(|n| *n > 0).min().unwrap_or(0),
        n.max().unwrap_or(0),
    );
    Ok(html! {
        figure {
            h3 { (test.id) ": " (test.title) }
            p.legend { @for system in &systems {
                span { (sides::system_name(sides::slot(&points, system), system)) }
            } }
            div.panels { @for (metric, more, svg) in &panels {
                div.panel { h4 { (figure(metric)) " " small { (direction(*more)) } } (PreEscaped(svg)) }
            } }
            figcaption {
                "Multiple of " (document.base) " inside each run, over the baselines, the oldest at the left; below each its "
                "revision, with + where the tree was changed. Diamond: median of the paired ratios; whiskers: 95 % bootstrap "
                "interval; line at 1: " (document.base) ". Neighbours are joined. "
                @if floors > 0 { "Shaded band: A/A floor of that baseline, where it measured a system twice. " }
                @else { "No A/A floor: no baseline measures a system twice. " }
                (sides::mark(emulated))
                p.under {
                    @if let Some(last) = points.last() { (sides::environment(last)) " (the newest)" }
                    ". n\u{a0}=\u{a0}"
                    @if least == most { (most) } @else { (least) }
                    " repetition" @if least != 1 { "s" } @if least != most { " at least, " (most) " at most" } " of each."
                }
                (sides::commands(&points, &test.id))
            }
            (table(panel, test, &series))
        }
    })
}

/// Baselines that have the test, in their order.
fn points_of(series: &[&Series]) -> Vec<usize> {
    let mut points: Vec<usize> = series
        .iter()
        .flat_map(|s| s.values.iter().map(|v| v.point))
        .collect();
    points.sort_unstable();
    points.dedup();
    points
}

fn interval(value: &Value) -> Option<Interval> {
    let (low, high) = value.low.zip(value.high)?;
    Some(Interval { low, high })
}

fn words(value: &Value, ratio: f64) -> String {
    match interval(value) {
        Some(i) => format!(
            "{ratio:.3}x ({:.3}\u{2013}{:.3}, n={})",
            i.low, i.high, value.n
        ),
        None => format!("{ratio:.3}x (n={}, no interval)", value.n),
    }
}

fn chart(
    document: &History,
    panel: &Panel,
    points: &[usize],
    metric: &str,
    series: &[&Series],
) -> Result<String, ReportError> {
    let shown: Vec<&Side> = points.iter().filter_map(|p| panel.points.get(*p)).collect();
    let column = |point: usize| points.iter().position(|p| *p == point);
    let mut values = vec![1.0];
    let (mut traces, mut spans, mut read_out) = (Vec::new(), Vec::<Span>::new(), Vec::new());
    for s in series {
        let mut dots = Vec::new();
        for value in &s.values {
            let (Some(column), Some(ratio), Some(side)) = (
                column(value.point),
                value.ratio,
                panel.points.get(value.point),
            ) else {
                continue;
            };
            let tip = format!("{}, {}: {}", s.system, name(side), words(value, ratio));
            values.push(ratio);
            values.extend(interval(value).into_iter().flat_map(|i| [i.low, i.high]));
            read_out.push(tip.clone());
            dots.push(Dot {
                column,
                value: ratio,
                interval: interval(value),
                tip,
            });
            if let (Some(floor), false) = (value.floor, spans.iter().any(|s| s.column == column)) {
                let interval = Interval {
                    low: 1.0 / (1.0 + floor),
                    high: 1.0 + floor,
                };
                values.extend([interval.low, interval.high]);
                spans.push(Span {
                    column,
                    interval,
                    tip: format!("{}: A/A floor {:.1} %", name(side), floor * 100.0),
                });
            }
        }
        traces.push(Trace {
            slot: sides::slot(&shown, &s.system),
            name: s.system.clone(),
            dots,
        });
    }
    Timeline {
        label: format!(
            "{}, {} as a multiple of {} over baselines. {}.{}",
            series.first().map_or("", |s| &s.test.id),
            figure(metric),
            document.base,
            read_out.join("; "),
            sides::mark_text(sides::emulated(shown.iter().copied()))
        ),
        scale: Scale::marks(values),
        axis: format!("revision; multiple of {}", document.base),
        columns: shown.iter().map(|s| sides::revision(s)).collect(),
        spans,
        traces,
    }
    .svg()
}

fn table(panel: &Panel, test: &Test, series: &[&Series]) -> Markup {
    let points = points_of(series);
    let table = html! {
        table {
            thead { tr {
                th scope="col" { "Figure" }
                th scope="col" { "System" }
                @for point in points.iter().filter_map(|p| panel.points.get(*p)) {
                    th.num scope="col" {
                        (name(point)) br; small { (sides::revision(point)) ", " (format::time(point.created)) }
                    }
                }
            } }
            tbody { @for s in series { tr {
                th scope="row" { (figure(&s.metric)) }
                td { (s.system) }
                @for point in &points {
                    @match s.values.iter().find(|v| v.point == *point) {
                        Some(value) => @match value.ratio {
                            Some(ratio) => td.num {
                                (words(value, ratio))
                                @if let Some(f) = value.floor { " " small.verdict { "floor " (format!("{:.1} %", f * 100.0)) } }
                            },
                            None => td.none { (value.reason.as_deref().unwrap_or("no figure")) },
                        },
                        None => td.none { "not measured" },
                    }
                }
            } } }
        }
    };
    html! {
        details {
            summary { "The figures of " (test.id) }
            (scrolling(&format!("History of {}", test.id), &table))
        }
    }
}

fn method(document: &History) -> Markup {
    html! {
        section #method aria-labelledby="h-method" {
            h2 #h-method { "Method" }
            p {
                "Every figure is the ratio of a system to " (document.base) " inside one run, as " code { "eval ratio" }
                " gives it: the median over pairs of the same repetition with its 95 % bootstrap interval. Absolute figures do "
                "not carry from one boot to another and are not shown. Environments count as different where "
                code { "eval compare" } " refuses to compare them; the revision and what is built of it may differ, that is what is "
                "followed. A test that became another job starts a chart of its own."
            }
            p {
                "A line that rises or falls is no judgement. To judge a change: " code { "eval compare A B" }
                " or " code { "eval gate --baseline NAME" } "."
            }
        }
    }
}
