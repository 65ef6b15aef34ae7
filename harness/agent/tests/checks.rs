//! The integration checks on the host: all of them on every system that is here.
#![allow(missing_docs, reason = "tests")]

#[macro_use]
mod common;

use common::{TIMEOUT, agent, leftovers};
use efuse_agent::{Cancel, checks};

#[test]
fn every_check_on_every_available_system() {
    need_host!();
    let dir = tempfile::tempdir().unwrap();
    let agent = agent(dir.path(), Cancel::default());
    let ids: Vec<String> = agent.registry().iter().map(|s| s.id().to_owned()).collect();
    let only = std::env::var("EFUSE_TEST_CHECK").ok();
    let mut failures = Vec::new();
    for (id, why_not) in agent.probe(&ids) {
        if let Some(reason) = why_not {
            eprintln!("skipped: {id}: {reason}");
            continue;
        }
        for check in checks::ALL.iter().filter(|c| c.applies_to(&id)) {
            if only.as_ref().is_some_and(|o| o != check.name) {
                continue;
            }
            let started = std::time::Instant::now();
            let result = checks::run(&agent, check.name, &id, 1, TIMEOUT);
            let ms = started.elapsed().as_millis();
            let name = check.name;
            match (result.failure, result.skipped) {
                (Some(f), _) => failures.push(format!("{id} {name} ({ms} ms): {f}")),
                (None, Some(s)) => eprintln!("skipped: {id} {name}: {s}"),
                (None, None) => eprintln!("{id} {name} ({ms} ms): {}", result.detail),
            }
            assert_eq!(leftovers(dir.path()), Vec::<String>::new(), "{id} {name}");
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn an_unknown_check_lists_the_known_ones() {
    need_host!();
    let dir = tempfile::tempdir().unwrap();
    let agent = agent(dir.path(), Cancel::default());
    let result = checks::run(&agent, "nope", "ext4", 1, TIMEOUT);
    let text = result.failure.unwrap();
    assert!(
        text.contains("unknown check") && text.contains("posix"),
        "{text}"
    );
}
