//! Verification, what was left out, environment, method and terms.

use std::collections::BTreeMap;

use efuse_model::attempt::{Phase, Verified};
use efuse_model::counters::Probes;
use efuse_model::environment::Environment;
use efuse_model::test::Test;
use maud::{Markup, html};

use super::{Page, scrolling, system_name};
use crate::format;
use crate::stats;

/// Everything behind the charts.
pub fn sections(page: &Page<'_>) -> [Markup; 5] {
    [
        verification(page),
        gaps(page),
        environment(page),
        method(page),
        terms(page),
    ]
}

fn verification(page: &Page<'_>) -> Markup {
    let run = page.run;
    let table = html! {
        table {
            thead { tr {
                th scope="col" { "Test" }
                th scope="col" { "System" }
                th.num scope="col" { "Repetitions" }
                th.num scope="col" { "Read and checked" }
                th.num scope="col" { "Written and read back" }
                th.num scope="col" { "Files compared" }
                th.num scope="col" { "Bytes compared" }
            } }
            tbody { @for test in &run.plan.tests { @for s in page.everyone() {
                @let done: Vec<&Verified> = run.of(&test.id, &s.id).map(|m| &m.verified).collect();
                tr {
                    th scope="row" { (test.id) }
                    td { (system_name(page, &s.id)) }
                    @if done.is_empty() {
                        td.none colspan="5" { (run.why_missing(&test.id, &s.id)) }
                    } @else {
                        td.num { (done.len()) " of " (run.planned_of(&test.id, &s.id)) }
                        (checked(&done, test.verify.read_bytes, |v| v.read_bytes))
                        (checked(&done, test.verify.write_bytes, |v| v.write_bytes))
                        (compared(&done, test))
                        td.num { (format::bytes(done.iter().map(|v| v.bytes_compared).sum())) }
                    }
                }
            } } }
        }
    };
    html! {
        section #verification aria-labelledby="h-verification" {
            h2 #h-verification { "Verification" }
            p {
                "A repetition counts only if everything that was checked matched; one mismatch makes it a failed "
                "attempt without figures. Before measuring, blocks laid out with a crc32c through the lower file "
                "system are read and checked through the system under test; after measuring, blocks are written "
                "through it and read back; last, every file's checksum through the system is compared with the "
                "lower directory's. Sums over the repetitions that count:"
            }
            (scrolling("What was verified", &table))
        }
    }
}

/// Bytes that were checked, with a word where a repetition checked less than asked.
fn checked(done: &[&Verified], asked: u64, of: fn(&Verified) -> u64) -> Markup {
    let sum: u64 = done.iter().map(|v| of(v)).sum();
    let short = done.iter().filter(|v| of(v) < asked).count();
    html! {
        td.num {
            @if asked == 0 && sum == 0 { span.none { "not asked for" } }
            @else {
                (format::bytes(sum))
                @if short > 0 { " " small { (short) " below the " (format::bytes(asked)) " asked for" } }
            }
        }
    }
}

fn compared(done: &[&Verified], test: &Test) -> Markup {
    let sum: u64 = done.iter().map(|v| u64::from(v.files_compared)).sum();
    let short = done.iter().filter(|v| v.files_compared == 0).count();
    html! {
        td.num {
            @if !test.verify.compare && sum == 0 { span.none { "not asked for" } }
            @else {
                (format::count(sum))
                @if test.verify.compare && short > 0 { " " small { (short) " compared none" } }
            }
        }
    }
}

fn gaps(page: &Page<'_>) -> Markup {
    let run = page.run;
    let skipped: Vec<_> = page
        .everyone()
        .iter()
        .filter_map(|s| Some((s, s.skipped.as_deref()?)))
        .collect();
    let attempts = html! {
        table {
            thead { tr {
                th scope="col" { "Test" }
                th scope="col" { "System" }
                th.num scope="col" { "Repetition" }
                th.num scope="col" { "Try" }
                th scope="col" { "Step" }
                th scope="col" { "Reason" }
                th scope="col" { "Made good" }
            } }
            tbody { @for l in &run.left_out { tr {
                td { (l.test) }
                th scope="row" { (system_name(page, &l.system)) }
                td.num { (l.repetition + 1) @if !l.probes.is_off() { " " small { "with probes" } } }
                td.num { (l.attempt + 1) }
                td { (l.step) }
                td.reason { (l.reason) }
                td { @if l.made_good { "yes, by another try" } @else { strong { "no" } } }
            } } }
        }
    };
    html! {
        section #gaps aria-labelledby="h-gaps" {
            h2 #h-gaps { "Left out" }
            h3 { "Skipped systems" }
            @if skipped.is_empty() { p { "None." } } @else {
                dl.reasons { @for (s, reason) in &skipped {
                    dt { (system_name(page, &s.id)) } dd { (reason) }
                } }
            }
            h3 { "Attempts without figures" }
            @if run.left_out.is_empty() { p { "None." } } @else {
                (scrolling("Attempts without figures", &attempts))
            }
            h3 { "Damaged lines" }
            @if run.damaged.is_empty() { p { "None." } } @else {
                p { "These lines of attempts.jsonl could not be read and give no figures:" }
                ul { @for d in &run.damaged { li { code { (d) } } } }
            }
        }
    }
}

fn environment(page: &Page<'_>) -> Markup {
    html! {
        section #environment aria-labelledby="h-environment" {
            h2 #h-environment { "Environment" }
            @match &page.run.environment {
                None => p.note { "None was recorded: the run ended before its first boot." },
                Some(env) => (environment_table(page, env)),
            }
        }
    }
}

fn environment_table(page: &Page<'_>, env: &Environment) -> Markup {
    let plan = &page.run.plan;
    let row = |name: &str, value: &str| {
        html! { tr { th scope="row" { (name) } td { (value) } } }
    };
    let rows = |prefix: &str, map: &BTreeMap<String, String>| {
        html! { @for (k, v) in map { tr { th scope="row" { (prefix) (k) } td { (v) } } } }
    };
    let sessions: std::collections::BTreeSet<_> = page
        .run
        .measured
        .iter()
        .map(|m| m.session.as_str())
        .collect();
    let table = html! {
        table.environment {
            tbody {
                (row("Place", &env.place.to_string()))
                (row("Accelerator", &format!(
                    "{}{}",
                    env.accelerator,
                    if env.accelerator.emulated() { " (emulated)" } else { "" }
                )))
                @if !env.clock.is_real() { (row("Time", &format!("counted in executed instructions ({})", env.clock))) }
                (row("Kernel", &env.kernel))
                (row("Kernel command line", &env.cmdline))
                (row("Processor", &format!("{}, {} online", env.cpu, env.cpus)))
                (row("Frequency governor", &env.governor))
                (row("Memory", &format::bytes(env.memory_bytes)))
                (row("Block device", &device(&plan.device)))
                (row("Boots or sessions with figures", &sessions.len().to_string()))
                (row("Revision of the project", &env.revision))
            }
            (group("Versions", &rows("", &env.versions)))
            (group("Content hashes of what was measured", &rows("", &env.artifacts)))
            (group("Kernel configuration", &rows("", &env.config)))
            (group("Processor vulnerabilities and mitigations", &rows("", &env.mitigations)))
        }
    };
    scrolling("Environment", &table)
}

fn group(title: &str, rows: &Markup) -> Markup {
    html! {
        @if !rows.0.is_empty() {
            tbody { tr { th.group colspan="2" scope="rowgroup" { (title) } } (rows) }
        }
    }
}

pub fn device(device: &efuse_model::device::Device) -> String {
    use efuse_model::device::Device;
    match device {
        Device::NvmeModel {
            size_bytes,
            latency_ns,
        } => format!(
            "{}: RAM-backed null_blk of {}, each request completed after {} \u{b5}s",
            device.name(),
            format::bytes(*size_bytes),
            format::number(*latency_ns as f64 / 1000.0)
        ),
        Device::Brd { size_bytes } => {
            format!(
                "brd: RAM disk of {}, no latency of its own",
                format::bytes(*size_bytes)
            )
        }
        Device::Virtio { size_bytes } => {
            format!(
                "virtio: virtio-blk of {} on a sparse file of the host",
                format::bytes(*size_bytes)
            )
        }
        Device::Loop { size_bytes } => {
            format!(
                "loop: loop device of {} on a file of the host",
                format::bytes(*size_bytes)
            )
        }
        Device::Disk { path } => format!("disk: {path}"),
    }
}

fn method(page: &Page<'_>) -> Markup {
    let plan = &page.run.plan;
    let cells = plan.cells.len();
    let keys: Vec<_> = plan.cells.iter().map(|c| (c.key(), c)).collect();
    let blocks = |probes: Probes| {
        let slots = plan.order.iter().filter(|s| s.probes == probes);
        slots.map(|s| s.repetition + 1).max().unwrap_or(0)
    };
    let order = |repetition: u32, probes: Probes| {
        plan.order
            .iter()
            .filter(|s| s.repetition == repetition && s.probes == probes)
            .filter_map(|s| keys.iter().find(|(k, _)| *k == s.cell))
            .map(|(_, c)| format!("{} {}", c.test.id, c.system))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let across: usize = page
        .table
        .rows
        .iter()
        .filter(|r| r.metric == crate::metric::Metric::Iops)
        .filter_map(|r| r.ratio.as_ref())
        .map(|r| r.across_sessions)
        .sum();
    html! {
        section #method aria-labelledby="h-method" {
            h2 #h-method { "Method" }
            p {
                "A cell is one test on one system; this run has " (cells) ". Each of its "
                (plan.repetitions) " repetitions is a block that holds every cell once, in an order that was "
                "shuffled anew for the block from seed " code { (plan.seed) } ", so that drift of the machine "
                "falls on every system alike. Sizes and times are "
                (super::summary::scale(plan.scale)) "x those of the workload " code { (plan.workload) } "."
            }
            p {
                "Every repetition goes through these steps, and a failure in any of them leaves it without figures: "
                (Phase::ALL.map(Phase::name).join(", ")) "."
            }
            p {
                "Bars and diamonds are medians. A ratio is taken inside a repetition, system by base, and the median of "
                "these ratios is given with a 95 % percentile bootstrap interval ("
                (format::count(stats::RESAMPLES as u64)) " resamples, generator seeded with the run's seed, so the same "
                "run always gives the same page). The words are: " em { "higher" } " or " em { "lower" }
                " where the whole interval lies on that side of 1, " em { "no clear difference" }
                " where it holds 1. The range of n repetitions covers the true median with a probability of at most "
                "1 \u{2212} 2" sup { "1\u{2212}n" } ": " (coverage(3)) " for n = 3, " (coverage(5)) " for 5, "
                (coverage(6)) " for 6; no interval from n repetitions can promise more. Below six, the words therefore only say what was seen: "
                em { "higher in all 3" } "."
            }
            @if let Some(a) = &plan.adaptive {
                p {
                    "Where the 95 % interval of a ratio of IOPS to " (a.base) " was wider than \u{b1}"
                    (format::significant(a.precision * 100.0, 2)) " % of it, the cell and its base were measured again, up to "
                    (a.max_repetitions) " repetitions; what is wider still is marked " em { "unstable" } " and keeps its figures."
                }
            }
            @if across > 0 {
                p {
                    strong { (across) " of the IOPS pairs" }
                    " relate repetitions of different boots or sessions; they count like the others."
                }
            }
            p {
                "Sources: Kalibera and Jones, Rigorous Benchmarking in Reasonable Time (ISMM 2013) for repetition "
                "blocks and ratios; Efron and Tibshirani, An Introduction to the Bootstrap (1993), section 13.3, for the "
                "interval; David and Nagaraja, Order Statistics (2003), section 7.1, for its bound."
            }
            @if plan.repetitions > 0 {
                details {
                    summary { "The order of each repetition" }
                    ol { @for r in 0..blocks(Probes::Off) { li { (order(r, Probes::Off)) } } }
                    @if blocks(Probes::On) > 0 {
                        p { "With probes inside the kernel:" }
                        ol { @for r in 0..blocks(Probes::On) { li { (order(r, Probes::On)) } } }
                    }
                }
            }
        }
    }
}

fn coverage(n: usize) -> String {
    format!("{:.0} %", stats::range_coverage(n) * 100.0)
}

fn terms(page: &Page<'_>) -> Markup {
    let terms: [(&str, &str); 9] = [
        (
            "IOPS",
            "Requests completed per second, by fio, over all jobs.",
        ),
        (
            "Throughput",
            "Bytes moved per second, in MiB/s (1,048,576 bytes).",
        ),
        (
            "Queueing latency",
            "The design document's word for fio's submission latency (slat): the time the submitting call takes. \
             With some engines a request is served inside that call, and then this holds what elsewhere is processing.",
        ),
        (
            "Processing latency",
            "The document's word for fio's completion latency (clat): from the end of submission to completion, \
             so it contains the wait in every queue below.",
        ),
        (
            "Percentile",
            "p99 = 5 ms: 99 % of the requests of a repetition completed within 5 ms.",
        ),
        (
            "Repetition, attempt",
            "A repetition is one planned measurement of a cell; an attempt is one try at it.",
        ),
        (
            "Base",
            "The system that ratios are related to. A ratio above 1 is more of the figure: better for IOPS and \
             throughput, worse for latencies.",
        ),
        (
            "Emulated",
            "QEMU executed the guest without hardware virtualisation (TCG). Instructions cost more, and not all alike: \
             emulation tends to enlarge the gap between systems, so ratios are to be read with that as well.",
        ),
        ("\u{b5}s, ms", "Microseconds and milliseconds."),
    ];
    html! {
        section #terms aria-labelledby="h-terms" {
            h2 #h-terms { "Terms" }
            dl.reasons { @for (term, text) in terms { dt { (term) } dd { (text) } } }
            h3 { "Systems" }
            dl.reasons { @for s in page.everyone() {
                dt { (system_name(page, &s.id)) }
                dd { (s.title) " " small { "(definition " code { (s.digest) } ")" } }
            } }
        }
    }
}
