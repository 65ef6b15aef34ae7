//! `eval check`: the agent's integration checks.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;
use efuse_agent::checks::{self, ALL};
use efuse_model::device::Device;
use efuse_model::environment::Place;
use serde::Serialize;

use super::{Context, Status};
use crate::cli::PlaceOptions;
use crate::interrupt::{exit_status, signal_name};
use crate::places::{self, GuestShape};
use crate::progress::Steps;
use crate::session::{Checked, EMULATORS_OOPS, Opener, Opening, Session, SessionError};
use crate::suggest;
use crate::table::Table;
use crate::units;

/// Run the integration checks: mount every system, do real I/O, compare bytes.
///
/// Exits with 1 if a check failed.
#[derive(Debug, Args)]
pub struct Check {
    /// Only these systems.
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    systems: Option<Vec<String>>,
    /// Only these checks.
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    checks: Option<Vec<String>>,
    /// List the checks and stop.
    #[arg(long)]
    list: bool,
    /// Do so many times as much of what looks for rare events: random operations, races.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    effort: u32,
    /// Give a check up after this long.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = units::parse_duration)]
    time_limit: Duration,
    #[command(flatten)]
    place: PlaceOptions,
}

/// Guests that may be lost before the rest of the checks is given up.
const MAX_LOST: u32 = 5;

/// Checks that are run again for it, in all.
const MAX_AGAIN: u32 = 3;

/// Programs that some checks use: test suites and other people's daemons where they are
/// installed, and our own.
const SUITES: [&str; 11] = [
    "pjdfstest",
    "fsx",
    "efuse",
    "efuse-coherence",
    "efuse-hostile",
    "efuse-odd",
    "passthrough_ll",
    "sshfs",
    "/usr/lib/openssh/sftp-server",
    "squashfuse_ll",
    "mksquashfs",
];

/// What `--memory` is without it: room for the RAM disks of the checks.
const DEVICE: Device = Device::Brd {
    size_bytes: 2 << 30,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Passed,
    Failed,
    Skipped,
}

#[derive(Serialize)]
struct Line {
    check: String,
    system: String,
    verdict: Verdict,
    /// Why it failed or was skipped.
    reason: Option<String>,
    detail: String,
    seconds: f64,
}

/// Checks.
///
/// # Errors
/// If a system or check is unknown, or no guest boots.
pub fn run(context: &Context, verb: &Check) -> Result<Status> {
    let known: Vec<&str> = ALL.iter().map(|c| c.name).collect();
    if verb.list {
        let titles: Vec<(&str, &str)> = ALL.iter().map(|c| (c.name, c.title)).collect();
        context.print(&titles, || {
            let mut table = Table::new(&["check", "what"]);
            for (name, title) in &titles {
                table.row([(*name).to_owned(), (*title).to_owned()]);
            }
            table.render()
        })?;
        return Ok(0);
    }
    let mut checks: Vec<&checks::Check> = ALL.iter().collect();
    if let Some(names) = &verb.checks {
        for name in names {
            if !known.contains(&name.as_str()) {
                bail!(suggest::unknown("check", name, &known));
            }
        }
        checks.retain(|c| names.iter().any(|n| n == c.name));
    }
    let catalogue = context.catalogue()?;
    let systems: Vec<String> = match &verb.systems {
        Some(names) => names.clone(),
        None => catalogue.names().into_iter().map(str::to_owned).collect(),
    };
    catalogue.planned(&systems)?;
    let place = Place::from(verb.place.place);
    let shape = GuestShape::new(&verb.place, &DEVICE)?;
    let mut opener = places::opener(
        context, &catalogue, place, &shape, &DEVICE, &systems, &SUITES,
    )?;
    let pairs: Vec<(String, String)> = systems
        .iter()
        .flat_map(|s| checks.iter().map(move |c| (c, s)))
        .filter(|(check, system)| check.applies_to(system))
        .map(|(check, system)| (check.name.to_owned(), system.clone()))
        .collect();
    if pairs.is_empty() {
        bail!("none of these checks says anything about these systems");
    }
    let logs = context.root.join("target/eval/check");
    std::fs::create_dir_all(&logs)?;
    let mut checking = Checking {
        context,
        opener: &mut *opener,
        limit: verb.time_limit,
        effort: verb.effort,
        time_limit: verb.time_limit * u32::try_from(pairs.len()).unwrap_or(u32::MAX).max(1)
            + Duration::from_secs(300),
        logs,
        boots: 0,
        lost: 0,
        again: 0,
        session: None,
        strict: std::env::var_os("EFUSE_CI").is_some(),
    };
    let lines = match checking.all(&pairs) {
        Ok(lines) => lines,
        Err(SessionError::Interrupted(signal)) => {
            eprintln!("eval: {}", signal_name(signal));
            return Ok(exit_status(signal));
        }
        Err(e) => bail!("{e}"),
    };
    let mut counts = BTreeMap::new();
    for line in &lines {
        *counts.entry(line.verdict as u8).or_insert(0usize) += 1;
    }
    let count = |v: Verdict| counts.get(&(v as u8)).copied().unwrap_or(0);
    let closing = format!(
        "{} passed, {} failed, {} skipped\n",
        count(Verdict::Passed),
        count(Verdict::Failed),
        count(Verdict::Skipped)
    );
    // The lines came one by one.
    context.print(&lines, || closing)?;
    Ok(Status::from(count(Verdict::Failed) > 0))
}

struct Checking<'a> {
    context: &'a Context,
    opener: &'a mut dyn Opener,
    limit: Duration,
    effort: u32,
    time_limit: Duration,
    logs: std::path::PathBuf,
    boots: u32,
    lost: u32,
    /// Checks run again after [`EMULATORS_OOPS`].
    again: u32,
    session: Option<Box<dyn Session>>,
    /// A check that can be run and skips itself has failed. A system that cannot be there is skipped.
    strict: bool,
}

impl Checking<'_> {
    fn all(&mut self, pairs: &[(String, String)]) -> Result<Vec<Line>, SessionError> {
        let mut lines = Vec::new();
        let mut unavailable: Option<BTreeMap<String, Option<String>>> = None;
        for (check, system) in pairs {
            let mut session = self.open()?;
            if unavailable.is_none() {
                let mut systems: Vec<String> = pairs.iter().map(|p| p.1.clone()).collect();
                systems.dedup();
                unavailable = Some(session.probe(&systems)?.into_iter().collect());
            }
            self.session = Some(session);
            let obstacle = unavailable
                .as_ref()
                .and_then(|u| u.get(system).cloned())
                .flatten();
            let begun = Instant::now();
            let line = |verdict, reason, detail| Line {
                check: check.clone(),
                system: system.clone(),
                verdict,
                reason,
                detail,
                seconds: begun.elapsed().as_secs_f64(),
            };
            let line = match obstacle {
                Some(reason) => line(Verdict::Skipped, Some(reason), String::new()),
                None => match self.checked(check, system) {
                    Ok(checked) => match (checked.failure, checked.skipped) {
                        (Some(why), _) => line(Verdict::Failed, Some(why), checked.detail),
                        (None, Some(why)) if self.strict => {
                            let why = format!("skipped, which EFUSE_CI forbids: {why}");
                            line(Verdict::Failed, Some(why), checked.detail)
                        }
                        (None, Some(why)) => line(Verdict::Skipped, Some(why), checked.detail),
                        (None, None) => line(Verdict::Passed, None, checked.detail),
                    },
                    Err(SessionError::Lost(reason)) => {
                        self.lost += 1;
                        line(Verdict::Failed, Some(reason), String::new())
                    }
                    Err(other) => return Err(other),
                },
            };
            self.say(&line);
            lines.push(line);
            if self.lost >= MAX_LOST {
                return Err(SessionError::Lost(format!(
                    "{} guests were lost; the other checks were not run",
                    self.lost
                )));
            }
        }
        if let Some(session) = self.session.take() {
            let begun = Instant::now();
            match session.shutdown() {
                Ok(()) => {}
                Err(SessionError::Lost(reason)) => {
                    let line = Line {
                        check: "end".to_owned(),
                        system: "guest".to_owned(),
                        verdict: Verdict::Failed,
                        reason: Some(reason),
                        detail: String::new(),
                        seconds: begun.elapsed().as_secs_f64(),
                    };
                    self.say(&line);
                    lines.push(line);
                }
                Err(other) => return Err(other),
            }
        }
        Ok(lines)
    }

    /// Runs one check, and again if the emulator ended its guest. A session that is lost is
    /// dropped.
    fn checked(&mut self, check: &str, system: &str) -> Result<Checked, SessionError> {
        loop {
            let mut session = self.open()?;
            match session.check(check, system, self.effort, self.limit) {
                Ok(checked) => {
                    self.session = Some(session);
                    return Ok(checked);
                }
                Err(SessionError::Lost(reason))
                    if reason.contains(EMULATORS_OOPS) && self.again < MAX_AGAIN =>
                {
                    self.again += 1;
                    eprintln!(
                        "eval: {check} on {system} is run again: the emulated kernel met a breakpoint of its own that was gone ({EMULATORS_OOPS})"
                    );
                }
                Err(other) => return Err(other),
            }
        }
    }

    fn open(&mut self) -> Result<Box<dyn Session>, SessionError> {
        if let Some(signal) = self.context.interrupt.signal() {
            return Err(SessionError::Interrupted(signal));
        }
        if let Some(session) = self.session.take() {
            return Ok(session);
        }
        let opening = Opening {
            console: self.logs.join(format!("console-{}.log", self.boots)),
            time_limit: self.time_limit,
        };
        self.boots += 1;
        let steps = Steps::new();
        self.opener.open(&opening, &mut |step| steps.step(step))
    }

    fn say(&self, line: &Line) {
        let word = match line.verdict {
            Verdict::Passed => "ok  ",
            Verdict::Failed => "FAIL",
            Verdict::Skipped => "skip",
        };
        let text = [line.reason.as_deref().unwrap_or_default(), &line.detail]
            .into_iter()
            .filter(|t| !t.is_empty())
            .collect::<Vec<_>>()
            .join("; ");
        let text = format!(
            "{word} {} {} ({:.1}s){}{text}",
            line.system,
            line.check,
            line.seconds,
            if text.is_empty() { "" } else { ": " }
        );
        // With --json, standard output is for the document.
        if self.context.json {
            eprintln!("{text}");
        } else {
            println!("{text}");
        }
    }
}
