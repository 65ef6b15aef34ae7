//! The protocol, over pipes instead of a port.
#![allow(missing_docs, reason = "tests")]

#[macro_use]
mod common;

use std::io::{BufReader, Read};

use common::{agent, cell, job};
use efuse_agent::Cancel;
use efuse_model::attempt::{Outcome, Phase};
use efuse_model::counters::Probes;
use efuse_model::protocol::{FromAgent, PROTOCOL, ToAgent};

/// Gives one byte at a time, as a slow port may.
struct Trickle(std::io::Cursor<Vec<u8>>);

impl Read for Trickle {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = buffer.len().min(1);
        self.0.read(&mut buffer[..n])
    }
}

fn talk(requests: &[ToAgent], trailing: &str) -> (Vec<FromAgent>, Result<(), String>) {
    let dir = tempfile::tempdir().unwrap();
    let agent = agent(dir.path(), Cancel::default());
    let mut input: String = requests
        .iter()
        .map(|r| serde_json::to_string(r).unwrap() + "\n")
        .collect();
    input.push_str(trailing);
    let mut output = Vec::new();
    let reader = BufReader::new(Trickle(std::io::Cursor::new(input.into_bytes())));
    let result = agent.serve(reader, &mut output).map_err(|e| e.to_string());
    let answers = String::from_utf8(output)
        .unwrap()
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    (answers, result)
}

#[test]
fn requests_are_answered_in_order() {
    need_host!();
    let (answers, result) = talk(
        &[
            ToAgent::Probe {
                seq: 1,
                systems: vec!["ext4".into(), "nope".into()],
            },
            ToAgent::Run {
                seq: 2,
                cell: Box::new(cell("ext4", job())),
                probes: Probes::Off,
                timeout_ms: 300_000,
            },
            ToAgent::Run {
                seq: 3,
                cell: Box::new(cell("nope", job())),
                probes: Probes::Off,
                timeout_ms: 300_000,
            },
            ToAgent::Check {
                seq: 4,
                check: "module".into(),
                system: "ext4".into(),
                effort: 1,
                timeout_ms: 300_000,
            },
            ToAgent::Shutdown,
        ],
        "not read any more\n",
    );
    result.unwrap();
    let mut answers = answers.into_iter();
    let FromAgent::Ready {
        protocol,
        environment,
    } = answers.next().unwrap()
    else {
        panic!("the first line is Ready");
    };
    assert_eq!(protocol, PROTOCOL);
    assert!(environment.versions["fio"].starts_with("fio-"));
    let FromAgent::Availability { seq: 1, systems } = answers.next().unwrap() else {
        panic!("then the probe");
    };
    assert_eq!(systems[0], ("ext4".into(), None));
    assert!(systems[1].1.is_some());
    for wanted in Phase::ALL {
        let Some(FromAgent::Phase { seq: 2, phase }) = answers.next() else {
            panic!("a phase");
        };
        assert_eq!(phase, wanted);
    }
    let Some(FromAgent::Finished {
        seq: 2,
        outcome,
        raw,
        command,
        ..
    }) = answers.next()
    else {
        panic!("the result");
    };
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    assert!(raw.is_some() && command.starts_with("fio "));
    assert!(matches!(
        answers.next(),
        Some(FromAgent::Phase { seq: 3, .. })
    ));
    let Some(FromAgent::Finished {
        seq: 3,
        outcome: Outcome::Failed { reason, .. },
        ..
    }) = answers.next()
    else {
        panic!("the failure");
    };
    assert!(reason.contains("unknown system"), "{reason}");
    let Some(FromAgent::Checked {
        seq: 4,
        failure: None,
        skipped: Some(_),
        ..
    }) = answers.next()
    else {
        panic!("the check");
    };
    assert!(answers.next().is_none());
}

#[test]
fn a_line_that_is_no_request_is_an_error() {
    need_host!();
    let (answers, result) = talk(&[], "{\"to\":\"dance\"}\n");
    assert_eq!(answers.len(), 1);
    let text = result.unwrap_err();
    assert!(
        text.contains("not a request") && text.contains("dance"),
        "{text}"
    );
    assert!(talk(&[], "").1.is_ok(), "the end of input ends it");
}
