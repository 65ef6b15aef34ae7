//! What stands under every chart: its caption, where it was measured, how often, and the
//! exact command.

use efuse_model::counters::Probes;
use efuse_model::test::Test;
use maud::{Markup, html};

use super::Page;
use crate::format;
use crate::input::Measured;

/// The caption of a chart that shows these tests.
pub fn caption(page: &Page<'_>, text: &Markup, tests: &[&Test], kinds: &[Probes]) -> Markup {
    html! {
        figcaption {
            (text) (page.mark())
            p.under { (environment(page)) " " (repetitions(page, tests, kinds)) }
            details.under {
                summary { "Exact fio command" @if tests.len() > 1 { "s" } }
                @for test in tests {
                    @let distinct = commands(page, test, kinds);
                    @for (command, users) in &distinct {
                        @if tests.len() > 1 || distinct.len() > 1 {
                            p { (test.id) @if distinct.len() > 1 { ": " (users.join(", ")) } }
                        }
                        pre tabindex="0" { code { (command) } }
                    }
                }
            }
        }
    }
}

fn environment(page: &Page<'_>) -> String {
    let plan = &page.run.plan;
    let mut device = plan.device.name().to_owned();
    if let Some(n) = plan.device.size_bytes() {
        device += &format!(" of {}", format::bytes(n));
    }
    match &page.run.environment {
        Some(e) => format!(
            "{}, {}{}{}, {}, kernel {}, {device}, revision {}.",
            e.place,
            e.accelerator,
            if e.accelerator.emulated() {
                " (emulated)"
            } else {
                ""
            },
            if e.clock.is_real() {
                String::new()
            } else {
                format!(", time by executed instructions ({})", e.clock)
            },
            format::cpus(e.cpus),
            e.kernel,
            e.revision
        ),
        None => format!("{}, environment not recorded, {device}.", plan.place),
    }
}

/// How many repetitions every system has in a chart.
fn repetitions(page: &Page<'_>, tests: &[&Test], kinds: &[Probes]) -> String {
    let mut parts = Vec::new();
    for kind in kinds {
        let counts: Vec<(String, usize)> = tests
            .iter()
            .flat_map(|t| page.systems().map(move |s| (t, s)))
            .filter(|(_, s)| s.skipped.is_none())
            .map(|(t, s)| {
                let name = if tests.len() > 1 {
                    format!("{} {}", t.id, s.id)
                } else {
                    s.id.clone()
                };
                let n = of(page, *kind)
                    .filter(|m| m.test == t.id && m.system == s.id)
                    .count();
                (name, n)
            })
            .collect();
        let most = counts.iter().map(|(_, n)| *n).max().unwrap_or(0);
        let fewer: Vec<String> = counts
            .iter()
            .filter(|(_, n)| *n < most)
            .map(|(name, n)| format!("{name} {n}"))
            .collect();
        let with = match (most, kind.is_off()) {
            (1, true) => "",
            (1, false) => " with probes",
            (_, true) => "s",
            (_, false) => "s with probes",
        };
        parts.push(if fewer.is_empty() {
            format!("n\u{a0}=\u{a0}{most} repetition{with} of each system.")
        } else {
            format!(
                "n\u{a0}=\u{a0}{most} repetition{with} of each system, but {}.",
                fewer.join(", ")
            )
        });
    }
    parts.join(" ")
}

fn of<'a>(page: &Page<'a>, kind: Probes) -> impl Iterator<Item = &'a Measured> {
    match kind {
        Probes::Off => page.run.measured.iter(),
        Probes::On => page.run.probed.iter(),
    }
}

/// The exact command lines of a test with who used them, the same ones together.
pub fn commands<'a>(page: &Page<'a>, test: &Test, kinds: &[Probes]) -> Vec<(&'a str, Vec<String>)> {
    let mut distinct: Vec<(&str, Vec<String>)> = Vec::new();
    for kind in kinds {
        for m in of(page, *kind).filter(|m| m.test == test.id) {
            let with = if kind.is_off() { "" } else { " with probes" };
            let who = format!("{} repetition {}{with}", m.system, m.repetition + 1);
            match distinct.iter_mut().find(|(c, _)| *c == m.command) {
                Some((_, users)) => users.push(who),
                None => distinct.push((&m.command, vec![who])),
            }
        }
    }
    distinct
}
