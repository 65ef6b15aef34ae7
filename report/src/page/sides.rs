//! What pages of several runs share: words for figures, where each run was measured, and
//! the commands.

use std::collections::BTreeMap;

use efuse_model::document::Side;
use maud::{Markup, html};

use super::{appendix, scrolling};
use crate::format;
use crate::palette;

/// A figure of `eval` in words; one that is not known here keeps its name.
pub fn figure(metric: &str) -> &str {
    match metric {
        "iops" => "IOPS",
        "read-iops" => "Read IOPS",
        "write-iops" => "Write IOPS",
        "bw" => "Throughput",
        "read-bw" => "Read throughput",
        "write-bw" => "Write throughput",
        "read-slat" => "Read submission latency",
        "write-slat" => "Write submission latency",
        "read-clat" => "Read completion latency",
        "write-clat" => "Write completion latency",
        "read-lat" => "Read latency",
        "write-lat" => "Write latency",
        "read-p50" => "Read latency, p50",
        "write-p50" => "Write latency, p50",
        "read-p99" => "Read latency, p99",
        "write-p99" => "Write latency, p99",
        "op-rate" => "Operations per second",
        "op-lat" => "Operation latency",
        "op-p50" => "Operation latency, p50",
        "op-p99" => "Operation latency, p99",
        "switches-per-op" => "Context switches per operation",
        "cpu-per-op" => "CPU time per operation",
        other => other,
    }
}

/// Which way is good.
pub fn direction(more_is_better: bool) -> &'static str {
    if more_is_better {
        "higher is better"
    } else {
        "lower is better"
    }
}

/// Whether figures are emulated; `None` where no environment was recorded.
pub fn emulated<'a>(sides: impl IntoIterator<Item = &'a Side>) -> Option<bool> {
    sides.into_iter().try_fold(false, |any, side| {
        Some(any || side.environment.as_ref()?.accelerator.emulated())
    })
}

/// The sentence that every caption ends with where figures are emulated.
pub fn mark(emulated: Option<bool>) -> Markup {
    html! {
        @match mark_text(emulated) {
            "" => {},
            text => span.mark-emulated { (text) },
        }
    }
}

/// For aria labels, which hold no markup.
pub const fn mark_text(emulated: Option<bool>) -> &'static str {
    match emulated {
        Some(true) => " Emulated (TCG): ratios only.",
        Some(false) => "",
        None => " Environment not recorded.",
    }
}

/// Stands above everything else on a page with emulated figures.
pub fn banner(emulated: Option<bool>) -> Markup {
    html! {
        @if emulated == Some(true) {
            p.banner role="note" {
                strong { "Emulated (TCG): ratios within a run count, absolute figures do not." }
            }
        }
    }
}

/// Where a side was measured, in one line.
pub fn environment(side: &Side) -> String {
    let device = appendix::device(&side.device);
    match &side.environment {
        Some(e) => format!(
            "{}, {}{}, {}, kernel {}, {device}, revision {}",
            e.place,
            e.accelerator,
            if e.clock.is_real() {
                String::new()
            } else {
                format!(", time by executed instructions ({})", e.clock)
            },
            format::cpus(e.cpus),
            e.kernel,
            e.revision
        ),
        None => format!("{}, environment not recorded, {device}", side.place),
    }
}

/// A revision as a label; `-dirty` stays, because it names another tree.
pub fn revision(side: &Side) -> String {
    let Some(e) = &side.environment else {
        return "none".to_owned();
    };
    let (hash, rest) = match e.revision.split_once('-') {
        Some((hash, _)) => (hash, "+"),
        None => (e.revision.as_str(), ""),
    };
    let short: String = hash.chars().take(7).collect();
    short + rest
}

/// The exact commands of a test on each side, those of several sides that are the same once.
pub fn commands(sides: &[&Side], test: &str) -> Markup {
    let mut distinct: Vec<(&str, Vec<&str>)> = Vec::new();
    for side in sides {
        for by in side.commands.iter().filter(|c| c.test == test) {
            match distinct.iter_mut().find(|(c, _)| *c == by.command) {
                Some((_, users)) if users.contains(&side.label.as_str()) => {}
                Some((_, users)) => users.push(&side.label),
                None => distinct.push((&by.command, vec![&side.label])),
            }
        }
    }
    html! {
        details.under {
            summary { "Exact command" @if distinct.len() != 1 { "s" } }
            @for (command, users) in &distinct {
                @if distinct.len() > 1 || users.len() < sides.len() { p { (users.join(", ")) } }
                pre tabindex="0" { code { (command) } }
            }
        }
    }
}

/// A system's name with its colour, among the systems of its side.
pub fn system_name(slot: u8, id: &str) -> Markup {
    let class = if id.len() > 18 { "sys long" } else { "sys" };
    html! {
        span class=(class) { span class=(format!("swatch s{slot}")) aria-hidden="true" {} (id) }
    }
}

/// The number of a system's colour: that of the first side that has it.
pub fn slot(sides: &[&Side], system: &str) -> u8 {
    let has = |s: &&&Side| s.systems.iter().any(|p| p.id == system);
    sides
        .iter()
        .find(has)
        .map_or(0, |s| palette::slot_among(&s.systems, system))
}

/// Everything about several sides in columns; rows in which they differ are marked.
pub fn table(sides: &[(&str, &Side)]) -> Markup {
    let mut rows: Vec<(String, Vec<String>)> = Vec::new();
    let mut row = |name: &str, value: &dyn Fn(&Side) -> String| {
        let values = sides.iter().map(|(_, s)| value(s)).collect();
        rows.push((name.to_owned(), values));
    };
    row("What", &|s| s.label.clone());
    row("Run", &|s| s.run.clone());
    row("Planned", &|s| format::time(s.created));
    row("Command", &|s| s.command.clone());
    row("Workload", &|s| s.workload.clone());
    row("Scale", &|s| super::summary::scale(s.scale));
    row("Repetitions", &|s| s.repetitions.to_string());
    row("Seed", &|s| s.seed.to_string());
    row("Block device", &|s| appendix::device(&s.device));
    let of = |get: &dyn Fn(&efuse_model::environment::Environment) -> String, s: &Side| {
        s.environment
            .as_ref()
            .map_or_else(|| "not recorded".to_owned(), get)
    };
    row("Revision", &|s| of(&|e| e.revision.clone(), s));
    row("Place", &|s| s.place.to_string());
    row("Accelerator", &|s| of(&|e| e.accelerator.to_string(), s));
    row("Time", &|s| of(&|e| e.clock.to_string(), s));
    row("Kernel", &|s| of(&|e| e.kernel.clone(), s));
    row("Kernel command line", &|s| of(&|e| e.cmdline.clone(), s));
    row("Processor", &|s| {
        of(&|e| format!("{}, {} online", e.cpu, e.cpus), s)
    });
    row("Frequency governor", &|s| of(&|e| e.governor.clone(), s));
    row("Memory", &|s| of(&|e| format::bytes(e.memory_bytes), s));
    type Map = BTreeMap<String, String>;
    type Get = fn(&efuse_model::environment::Environment) -> &Map;
    let maps: [(&str, Get); 4] = [
        ("Version of", |e| &e.versions),
        ("Content hash of", |e| &e.artifacts),
        ("Configuration", |e| &e.config),
        ("Vulnerability", |e| &e.mitigations),
    ];
    for (what, get) in maps {
        let environments = sides.iter().filter_map(|(_, s)| s.environment.as_ref());
        let mut keys: Vec<&String> = environments.flat_map(|e| get(e).keys()).collect();
        keys.sort_unstable();
        keys.dedup();
        for key in keys {
            let values = sides.iter().map(|(_, s)| {
                let value = s.environment.as_ref().and_then(|e| get(e).get(key));
                value.cloned().unwrap_or_else(|| "absent".to_owned())
            });
            rows.push((format!("{what} {key}"), values.collect()));
        }
    }
    let table = html! {
        table.environment {
            thead { tr {
                th scope="col" { "" }
                @for (name, _) in sides { th scope="col" { (name) } }
            } }
            tbody { @for (name, values) in &rows {
                @let differs = values.windows(2).any(|w| w[0] != w[1]);
                tr {
                    th scope="row" { (name) @if differs { " " small { "(differs)" } } }
                    @for value in values { td {
                        @if differs { strong { (value) } } @else { (value) }
                    } }
                }
            } }
        }
    };
    scrolling("Runs and environments", &table)
}
