//! The load of ring channels: which of them carried the requests to the daemon.

use efuse_model::counters::{Channel, Probes};
use efuse_model::plan::PlannedSystem;
use efuse_model::test::Test;
use maud::{Markup, PreEscaped, html};

use super::parts::{self, Bar, Row, Stack};
use super::{Page, scrolling, system_name, under};
use crate::error::ReportError;
use crate::format;
use crate::rings::{self, Load};

/// Parts of a bar: where the requests of a channel came from.
const ORIGINS: [(usize, &str); 3] = [
    (0, "from callers of the channel"),
    (2, "redirected from callers of others"),
    (3, "taken over from others, where they waited"),
];

/// With fewer requests in a test, how even they are says nothing.
const MANY: u64 = 1000;

/// Of channels beyond these, only the table tells.
const DRAWN: usize = 16;

/// Whether any system has rings whose load was stored.
pub fn any(page: &Page<'_>) -> bool {
    page.systems().any(|s| has_rings(page, s))
}

fn has_rings(page: &Page<'_>, system: &PlannedSystem) -> bool {
    let mut tests = page.run.plan.tests.iter();
    tests.any(|t| !loads(page, t, system).is_empty())
}

fn loads<'a>(page: &'a Page<'_>, test: &Test, system: &PlannedSystem) -> &'a [Load] {
    let cell = page.cell(&test.id, &system.id);
    cell.map_or(&[], |c| &c.channels)
}

/// Every test and every system with rings; nothing where there are none.
pub fn section(page: &Page<'_>) -> Result<Option<Markup>, ReportError> {
    let systems: Vec<_> = page.systems().filter(|s| has_rings(page, s)).collect();
    let tests: Vec<&Test> = page
        .run
        .plan
        .tests
        .iter()
        .filter(|t| systems.iter().any(|s| !loads(page, t, s).is_empty()))
        .collect();
    if systems.is_empty() {
        return Ok(None);
    }
    let mut panels = Vec::new();
    for test in &tests {
        let svg = parts::stacked(
            page,
            &format!("{}, requests by ring channel", test.id),
            "requests to the daemon, per operation",
            &rows(page, test, &systems),
        )?;
        panels.extend(svg.map(|svg| (&test.id, svg)));
    }
    let more = tests
        .iter()
        .any(|t| systems.iter().any(|s| loads(page, t, s).len() > DRAWN));
    Ok(Some(html! {
        section #rings aria-labelledby="h-rings" {
            h2 #h-rings { "Ring channels" }
            p {
                "What reached the daemon of systems with rings, by the channel that carried it. A caller uses the channel of its processor; "
                "a request goes to another one if that is busy or stuck (redirected), or is taken over by an idle worker while it waits for room."
            }
            ul { @for s in &systems { li { (system_name(page, &s.id)) ": " (finding(page, s, &tests)) } } }
            figure #fig-rings {
                @if !panels.is_empty() {
                    (parts::legend(&ORIGINS))
                    div.panels { @for (test, svg) in &panels {
                        div.panel { h4 { (test) } (PreEscaped(svg)) }
                    } }
                }
                (under::caption(page, &html! {
                    "Requests of every kind in each ring channel during the measured phase, divided by the operations that the load completed; sums over the repetitions. "
                    "What the kernel answers without the daemon is in none. Each test has its own axis. "
                    @if more { "Of a system's channels the first " (DRAWN) " are drawn. " }
                    "Bars of one length are an even load; a shorter one is less work for the daemon."
                }, &tests, &[Probes::Off]))
                (table(page, &tests, &systems))
            }
        }
    }))
}

fn rows(page: &Page<'_>, test: &Test, systems: &[&PlannedSystem]) -> Vec<Row> {
    let mut rows = Vec::new();
    for s in systems {
        let loads = loads(page, test, s);
        let mut row = |name: String, content| {
            rows.push(Row::Stack(Stack {
                system: s.id.clone(),
                name,
                content,
            }));
        };
        if loads.is_empty() {
            row(s.id.clone(), Err(why(page, test, s)));
        }
        for (n, load) in loads.iter().enumerate().take(DRAWN) {
            let bar = bar(load).ok_or_else(|| "the load completed no operation".to_owned());
            row(format!("{}, channel {n}", s.id), bar);
        }
    }
    rows
}

fn bar(load: &Load) -> Option<Bar> {
    let all = load.per_operation(load.channel.requests)?;
    let mut parts = Vec::new();
    for ((n, name), requests) in ORIGINS.into_iter().zip(load.origins()) {
        parts.push((n, name, load.per_operation(requests)?));
    }
    Some(Bar {
        words: format!("{} per operation", format::number(all)),
        parts,
    })
}

fn why(page: &Page<'_>, test: &Test, system: &PlannedSystem) -> String {
    match page.cell(&test.id, &system.id) {
        Some(c) if c.n > 0 => "stored without the load of its channels".to_owned(),
        _ => parts::why(page, &test.id, &system.id),
    }
}

/// What there is to say of a system over all tests.
fn finding(page: &Page<'_>, system: &PlannedSystem, tests: &[&Test]) -> Markup {
    let sum = |of: fn(&Channel) -> u64| -> u64 {
        let all = tests.iter().flat_map(|t| loads(page, t, system));
        all.map(|l| of(&l.channel)).sum()
    };
    let requests = sum(|c| c.requests);
    let (redirected, migrated) = (sum(|c| c.redirected), sum(|c| c.migrated));
    let (waited, bad) = (sum(|c| c.waited), sum(|c| c.bad));
    let share = |n: u64| {
        let percent = n as f64 / requests as f64 * 100.0;
        format!("{} ({} %)", format::count(n), format::number(percent))
    };
    let uneven = tests
        .iter()
        .filter_map(|t| {
            let loads = loads(page, t, system);
            let requests: u64 = loads.iter().map(|l| l.channel.requests).sum();
            let enough = requests >= MANY && loads.len() > 1;
            Some((&t.id, rings::unevenness(loads).filter(|_| enough)?))
        })
        .max_by(|a, b| a.1.total_cmp(&b.1));
    html! {
        @if requests == 0 {
            "no request reached its daemon."
        } @else {
            (format::count(requests)) " requests, of which " (share(redirected)) " were redirected, "
            (share(migrated)) " were taken over and " (share(waited)) " found no room at first. "
            @match uneven {
                Some((test, times)) => {
                    "The busiest channel of any test had " (format::factor(times)) " times an even share (" (test) "). "
                },
                None => {},
            }
        }
        @if bad > 0 { strong { (format::count(bad)) " replies made no sense." } }
    }
}

fn table(page: &Page<'_>, tests: &[&Test], systems: &[&PlannedSystem]) -> Markup {
    let table = html! {
        table {
            caption { "Load by channel: sums over the repetitions; at the end: medians" (page.mark()) }
            thead {
                tr {
                    th rowspan="2" scope="col" { "Test" }
                    th rowspan="2" scope="col" { "System" }
                    th.num rowspan="2" scope="col" { "Channel" }
                    th.group colspan="7" scope="colgroup" { "Requests" }
                    th.group colspan="3" scope="colgroup" { "At the end" }
                    th.group colspan="4" scope="colgroup" { "Beside them" }
                }
                tr {
                    @for name in [
                        "sent", "of all channels, %", "per operation", "polled for, %", "redirected", "taken over", "found no room",
                        "service, \u{b5}s", "workers asleep", "room",
                        "workers woken", "bad replies", "FORGET", "INTERRUPT",
                    ] { th.num scope="col" { (name) } }
                }
            }
            tbody { @for test in tests { @for s in systems {
                @let loads = loads(page, test, s);
                @let all = loads.iter().map(|l| l.channel.requests).sum();
                @if loads.is_empty() {
                    tr {
                        td { (test.id) }
                        th scope="row" { (system_name(page, &s.id)) }
                        td.none colspan="15" { (why(page, test, s)) }
                    }
                }
                @for (n, load) in loads.iter().enumerate() { tr {
                    td { (test.id) }
                    th scope="row" { (system_name(page, &s.id)) }
                    td.num { (n) }
                    (line(load, all))
                } }
            } } }
        }
    };
    html! {
        (scrolling("Load by ring channel as a table", &table))
        p.job {
            "Polled for: the caller found the reply while it looked for it, and was not woken. Redirected: sent here for a caller of another channel. "
            "Taken over: moved here by an idle worker of this channel while it waited for room in another. Workers woken: how often one slept in the kernel and was called. "
            "Service: from sending to reply, an average in which the newest request, be it from before the phase, has a weight of 1/8. Room: requests that a channel holds at once."
        }
    }
}

fn line(load: &Load, all: u64) -> Markup {
    let c = &load.channel;
    let dash = || "\u{2013}".to_owned();
    let percent = |n: u64, of: u64| {
        if of == 0 {
            dash()
        } else {
            format::number(n as f64 / of as f64 * 100.0)
        }
    };
    html! {
        td.num { (format::count(c.requests)) }
        td.num { (percent(c.requests, all)) }
        td.num { (load.per_operation(c.requests).map_or_else(dash, format::number)) }
        td.num { (percent(c.polled, c.requests)) }
        @for n in [c.redirected, c.migrated, c.waited] { td.num { (format::count(n)) } }
        td.num { @if c.service_ns > 0 { (format::number(c.service_ns as f64 / 1e3)) } @else { (dash()) } }
        td.num { (c.sleepers) }
        td.num { (c.depth) }
        td.num { (format::count(c.wakeups)) }
        td.num { @if c.bad > 0 { strong { (format::count(c.bad)) } } @else { "0" } }
        @for n in [c.forgets, c.interrupts] { td.num { (format::count(n)) } }
    }
}
