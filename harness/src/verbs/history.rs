//! `eval history`.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use efuse_model::cell::TWIN;
use efuse_model::document::{History as Document, Panel, Series, VERSION, Value};
use efuse_model::test::Test;

use super::{Context, Status};
use crate::judge::METRICS;
use crate::judge::between::{environment_differences, same_device};
use crate::judge::within::floor;
use crate::measuring::BASE;
use crate::metric::Metric;
use crate::reporter::{self, pages_folder};
use crate::stored::{self, Stored};
use crate::suggest;
use crate::summary::Figures;
use crate::table::Table;

/// Show how systems stood to a base over the baselines that are kept, oldest first.
///
/// Also writes a page with charts. Baselines of different environments or devices are never
/// in one chart, and a test that became another job starts a chart of its own.
#[derive(Debug, Args)]
pub struct History {
    /// The system that others are set in relation to, inside each run.
    #[arg(long, default_value = BASE, value_name = "SYSTEM")]
    base: String,
    /// Figures to show [default: those that the gate judges].
    #[arg(long, alias = "metric", value_delimiter = ',', value_parser = Metric::parse, value_name = "A,B")]
    metrics: Option<Vec<Metric>>,
    /// Where to write the page [default: results/pages/history.html].
    #[arg(long, value_name = "FILE", conflicts_with = "no_page")]
    html: Option<PathBuf>,
    /// Write no page.
    #[arg(long)]
    no_page: bool,
}

/// Shows.
///
/// # Errors
/// If there is no baseline, none has the base, or the page cannot be written.
///
/// # Panics
/// Never: the default metrics exist.
pub fn run(context: &Context, verb: &History) -> Result<Status> {
    let root = &context.root;
    let (all, mut notes) = stored::all_baselines(root)?;
    if all.is_empty() {
        let unreadable: String = notes.iter().map(|n| format!("\n  {n}")).collect();
        bail!(
            "there is no baseline, so there is no history; keep a run with `eval baseline save NAME [RUN]`{unreadable}"
        );
    }
    let metrics = verb.metrics.clone().unwrap_or_else(|| {
        let parse = |name: &&str| Metric::parse(name).expect("a metric of the table");
        METRICS.iter().map(parse).collect()
    });
    let has_base = |s: &Stored| {
        let mut systems = s.plan.systems.iter();
        systems.any(|p| p.id == verb.base && p.skipped.is_none())
    };
    if !all.iter().any(has_base) {
        let mut known: Vec<&str> = Vec::new();
        for system in all.iter().flat_map(|s| &s.plan.systems) {
            if !known.contains(&system.id.as_str()) {
                known.push(&system.id);
            }
        }
        bail!(suggest::unknown(
            "system of any baseline",
            &verb.base,
            &known
        ));
    }
    for one in all.iter().filter(|s| !has_base(s)) {
        notes.push(format!("{} was measured without {}", one.label, verb.base));
    }
    for one in &all {
        notes.extend(
            one.attempts
                .damaged
                .iter()
                .map(|d| format!("{}: {d}", one.label)),
        );
    }
    let document = Document {
        version: VERSION,
        base: verb.base.clone(),
        metrics: metrics.iter().map(|m| m.name.to_owned()).collect(),
        environments: grouped(&all)
            .iter()
            .map(|group| panel(group, &verb.base, &metrics))
            .collect(),
        notes,
        page: verb
            .html
            .clone()
            .unwrap_or_else(|| pages_folder(root).join("history.html")),
    };
    let page = (!verb.no_page)
        .then(|| reporter::document_page(root, "history", &document, &document.page));
    context.print(&document, || {
        let mut text = render(&document);
        if let Some(Ok(())) = page {
            text.push_str(&format!("page  {}\n", document.page.display()));
        }
        text
    })?;
    if let Some(Err(e)) = page {
        return Err(e).context("the history is above, but its page is missing");
    }
    Ok(0)
}

/// Baselines of one environment and device together, in their order.
fn grouped(all: &[Stored]) -> Vec<Vec<&Stored>> {
    let mut groups: Vec<Vec<&Stored>> = Vec::new();
    for one in all {
        let fits = |group: &&mut Vec<&Stored>| {
            // Equal to every one of them: the tolerance for memory must not add up.
            group.iter().all(|other| {
                one.environment.is_some() == other.environment.is_some()
                    && environment_differences(one, other).is_empty()
                    && same_device(one, other)
            })
        };
        match groups.iter_mut().find(fits) {
            Some(group) => group.push(one),
            None => groups.push(vec![one]),
        }
    }
    groups
}

fn panel(group: &[&Stored], base: &str, metrics: &[Metric]) -> Panel {
    let figures: Vec<_> = group
        .iter()
        .map(|s| Figures::new(&s.plan, &s.attempts))
        .collect();
    let (mut tests, mut systems): (Vec<&Test>, Vec<&str>) = (Vec::new(), Vec::new());
    for one in group {
        for test in &one.plan.tests {
            if !tests.iter().any(|t| t.id == test.id && t.job == test.job) {
                tests.push(test);
            }
        }
        for system in one.plan.systems.iter().filter(|s| s.skipped.is_none()) {
            let id = system.id.as_str();
            if id != base && !id.ends_with(TWIN) && !systems.contains(&id) {
                systems.push(id);
            }
        }
    }
    let mut series = Vec::new();
    for test in tests {
        for metric in metrics {
            for system in &systems {
                let values: Vec<Value> = group
                    .iter()
                    .zip(&figures)
                    .enumerate()
                    .filter(|(_, (s, _))| {
                        let mut its = s.plan.tests.iter();
                        its.any(|t| t.id == test.id && t.job == test.job)
                    })
                    .map(|(point, (stored, figures))| {
                        let floor = floor(figures, &stored.plan, &test.id, *metric, &(0..u32::MAX));
                        value(point, figures.ratio(system, base, &test.id, *metric), floor)
                    })
                    .collect();
                if values.iter().any(|v| v.ratio.is_some()) {
                    series.push(Series {
                        test: test.clone(),
                        system: (*system).to_owned(),
                        metric: metric.name.to_owned(),
                        more_is_better: metric.more_is_better,
                        values,
                    });
                }
            }
        }
    }
    Panel {
        points: group.iter().map(|s| s.side()).collect(),
        series,
    }
}

fn value(point: usize, ratio: Result<crate::summary::Ratio, String>, floor: Option<f64>) -> Value {
    let (ratio, reason) = match ratio {
        Ok(r) if r.median.is_finite() && r.median > 0.0 => (Some(r), None),
        Ok(r) => (
            None,
            Some(format!("the ratio is {}, which is no figure", r.median)),
        ),
        Err(reason) => (None, Some(reason)),
    };
    let interval = ratio.as_ref().and_then(|r| r.interval);
    Value {
        point,
        ratio: ratio.as_ref().map(|r| r.median),
        low: interval.map(|i| i.low),
        high: interval.map(|i| i.high),
        n: ratio.as_ref().map_or(0, |r| r.n),
        floor: floor.filter(|f| f.is_finite()),
        reason,
    }
}

fn render(document: &Document) -> String {
    let mut out = String::new();
    for panel in &document.environments {
        let first = panel.points.first();
        if let Some(e) = first.and_then(|p| p.environment.as_ref()) {
            out.push_str(&format!(
                "{}/{}, {} x {}, kernel {}\n",
                e.place, e.accelerator, e.cpus, e.cpu, e.kernel
            ));
        }
        let mut table = Table::new(&[
            "test",
            "figure",
            "system",
            "baseline",
            "revision",
            ">ratio",
            "95 % interval",
            ">n",
        ]);
        for series in &panel.series {
            for value in &series.values {
                let Some(point) = panel.points.get(value.point) else {
                    continue;
                };
                let dash = || "-".to_owned();
                table.row([
                    series.test.id.clone(),
                    series.metric.clone(),
                    series.system.clone(),
                    point.label.trim_start_matches("baseline ").to_owned(),
                    point
                        .environment
                        .as_ref()
                        .map_or_else(dash, |e| e.revision.clone()),
                    value.ratio.map_or_else(dash, |r| format!("{r:.3}")),
                    match (value.low, value.high, &value.reason) {
                        (Some(low), Some(high), _) => format!("[{low:.3}, {high:.3}]"),
                        (_, _, Some(reason)) => reason.clone(),
                        _ => dash(),
                    },
                    value.n.to_string(),
                ]);
            }
        }
        out.push_str(&table.render());
        out.push('\n');
    }
    for note in &document.notes {
        out.push_str(&format!("note  {note}\n"));
    }
    out
}
