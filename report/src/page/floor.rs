//! The noise floor: the same system measured twice under two names (A/A).

use maud::{Markup, html};

use super::{Page, scrolling, system_name};
use crate::format;
use crate::metric::{Metric, Op};
use crate::stats::{self, Interval};

/// The ratio of a twin to its original, where any difference is noise.
pub struct Floor {
    /// The original.
    system: String,
    /// Its second name.
    twin: String,
    /// Median of the ratios inside the repetitions that both have.
    median: f64,
    /// 95 % bootstrap interval of that median.
    interval: Interval,
    /// How far from 1 a ratio may lie by chance, as a share ([`stats::aa_floor`]).
    floor: f64,
    /// Pairs.
    n: usize,
}

impl Floor {
    /// What is no news: as far below 1 as above, on a logarithmic scale.
    pub fn band(&self) -> Interval {
        Interval {
            low: 1.0 / (1.0 + self.floor),
            high: 1.0 + self.floor,
        }
    }

    /// For the pointer resting on the band.
    pub fn words(&self) -> String {
        format!(
            "A/A: {} over {}, the same system: {}x ({}\u{2013}{}, n={}), floor {:.1} %",
            self.twin,
            self.system,
            format::factor(self.median),
            format::factor(self.interval.low),
            format::factor(self.interval.high),
            self.n,
            self.floor * 100.0
        )
    }
}

/// The floor of one figure; `None` without a twin or with fewer than two pairs.
pub fn of(page: &Page<'_>, system: &str, test: &str, op: Op, metric: Metric) -> Option<Floor> {
    let twin = page.run.twin(system)?;
    let original = page.row(test, system, op, metric)?;
    let second = page.row(test, &twin.id, op, metric)?;
    let ratios: Vec<f64> = second
        .points
        .iter()
        .filter_map(|p| {
            let base = original
                .points
                .iter()
                .find(|b| b.repetition == p.repetition)?;
            (base.value > 0.0).then(|| p.value / base.value)
        })
        .collect();
    Some(Floor {
        system: system.to_owned(),
        twin: twin.id.clone(),
        median: stats::median(&ratios)?,
        interval: stats::bootstrap_median(&ratios, page.run.plan.seed)?,
        floor: stats::aa_floor(&ratios, page.run.plan.seed)?,
        n: ratios.len(),
    })
}

/// The floor of one figure in a test: the largest over all systems that were measured twice, as
/// the gate takes it.
pub fn largest(page: &Page<'_>, test: &str, op: Op, metric: Metric) -> Option<Floor> {
    originals(page)
        .filter_map(|original| of(page, original, test, op, metric))
        .max_by(|a, b| a.floor.total_cmp(&b.floor))
}

fn originals<'a>(page: &'a Page<'_>) -> impl Iterator<Item = &'a str> {
    let systems = page.run.plan.systems.iter();
    systems.filter_map(|system| system.twin_of.as_deref())
}

/// What the band means, for the caption of a chart of ratios.
pub fn legend(page: &Page<'_>) -> Markup {
    let originals: Vec<_> = originals(page).collect();
    html! {
        @if originals.is_empty() {
            "No A/A floor: this run measures no system twice. "
        } @else {
            "Shaded band: A/A floor, the farther end of the 95 % interval of the ratio of " (originals.join(", "))
            " to the same measured once more" @if originals.len() > 1 { ", the widest of them" }
            ", on both sides of 1; a difference inside it is noise. "
        }
    }
}

/// The floor of every test and direction.
pub fn table(page: &Page<'_>) -> Markup {
    let twins: Vec<_> = page
        .everyone()
        .iter()
        .filter_map(|s| Some((s, s.twin_of.as_deref()?)))
        .collect();
    if twins.is_empty() {
        return html! {};
    }
    let table = html! {
        table {
            caption { "A/A: the same system measured twice in this run, IOPS of the second over the first" (page.mark()) }
            thead { tr {
                th scope="col" { "System" }
                th scope="col" { "Test" }
                @for op in page.all_ops() { th.num scope="col" { (op.name()) " IOPS" } }
            } }
            tbody { @for (twin, original) in &twins { @for test in &page.run.plan.tests { tr {
                th scope="row" { (system_name(page, &twin.id)) }
                td { (test.id) }
                @if let Some(reason) = &twin.skipped {
                    td.none colspan=(page.all_ops().len()) { "skipped: " (reason) }
                } @else { @for op in page.all_ops() {
                    @if !page.ops(test).contains(&op) {
                        td.none { "no " (op.name()) "s in this test" }
                    } @else if let Some(f) = of(page, original, &test.id, op, Metric::Iops) {
                        td.num {
                            (format::factor(f.median)) "x (" (format::factor(f.interval.low)) "\u{2013}"
                            (format::factor(f.interval.high)) ", n=" (f.n) ") "
                            small.verdict { "floor " (format!("{:.1} %", f.floor * 100.0)) }
                        }
                    } @else {
                        td.none { "fewer than two pairs: no floor" }
                    }
                } }
            } } } }
        }
    };
    scrolling("A/A floor", &table)
}
