//! What the user sees while a run goes on: bars on a terminal, one line a cell elsewhere.
//! All of it on standard error; results go to standard output.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use efuse_model::attempt::{Attempt, Outcome, Phase};
use efuse_model::cell::Cell;
use efuse_model::plan::Slot;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::execute::{Position, Watch};
use crate::units::{show_bytes, show_duration, show_figure, show_slot};

/// Bars or lines, whichever fits standard error.
#[must_use]
pub fn watch() -> Box<dyn Watch> {
    if std::io::stderr().is_terminal() {
        Box::new(Bars::new())
    } else {
        Box::new(Lines::new())
    }
}

/// Says what takes time before a run exists: a spinner or lines.
#[derive(Debug)]
pub struct Steps(Option<ProgressBar>);

impl Steps {
    /// Starts.
    #[must_use]
    pub fn new() -> Self {
        Self(std::io::stderr().is_terminal().then(spinner))
    }

    /// The next step.
    pub fn step(&self, text: &str) {
        match &self.0 {
            Some(bar) => bar.set_message(text.to_owned()),
            None => eprintln!("eval: {text}"),
        }
    }
}

impl Default for Steps {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

fn spinner() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    bar.set_style(style("{spinner} {msg} {elapsed}"));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// A style from a template of this file.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// One line on how an attempt ended: `T1 fuse r0: 3.7k read, 1.6k write IOPS, ...`.
#[must_use]
pub fn describe(attempt: &Attempt) -> String {
    let took = show_duration(Duration::from_millis(attempt.wall_ms));
    let again = match attempt.attempt {
        0 => String::new(),
        n => format!(" try {}", n + 1),
    };
    let head = format!(
        "{} {} {}{again}",
        attempt.test,
        attempt.system,
        show_slot(attempt.probes, attempt.repetition)
    );
    match &attempt.outcome {
        Outcome::Done { metrics, verified } => {
            if let Some(op) = &metrics.operations {
                return format!(
                    "{head}: {} operations/s, {} answers checked, took {took}",
                    show_figure(op.iops),
                    show_figure(verified.operations as f64)
                );
            }
            let parts: Vec<String> = [("read", &metrics.read), ("write", &metrics.write)]
                .into_iter()
                .filter_map(|(name, op)| {
                    op.as_ref()
                        .map(|op| format!("{} {name}", show_figure(op.iops)))
                })
                .collect();
            let bytes = verified.read_bytes + verified.write_bytes + verified.bytes_compared;
            format!(
                "{head}: {} IOPS, {} verified, took {took}",
                parts.join(", "),
                show_bytes(bytes)
            )
        }
        Outcome::Failed { phase, reason } => {
            let first = reason.lines().next().unwrap_or("no reason given");
            format!("{head}: FAILED in {}: {first} (took {took})", phase.name())
        }
    }
}

struct Lines {
    begun: Instant,
}

impl Lines {
    fn new() -> Self {
        Self {
            begun: Instant::now(),
        }
    }
}

impl Watch for Lines {
    fn opening(&mut self, step: &str) {
        eprintln!("eval: {step}");
    }

    fn note(&mut self, text: &str) {
        eprintln!("eval: {text}");
    }

    fn started(&mut self, _position: Position, _cell: &Cell, _slot: &Slot, _attempt: u32) {}

    fn phase(&mut self, _phase: Phase) {}

    fn finished(&mut self, position: Position, attempt: &Attempt) {
        eprintln!(
            "[{}/{}] {}; elapsed {}, left about {}",
            position.done,
            position.total,
            describe(attempt),
            show_duration(self.begun.elapsed()),
            show_duration(position.left),
        );
    }
}

struct Bars {
    bars: MultiProgress,
    all: ProgressBar,
    current: ProgressBar,
    cell: String,
}

impl Bars {
    fn new() -> Self {
        let bars = MultiProgress::new();
        let all = bars.add(ProgressBar::new(0));
        all.set_style(style(
            "{bar:30.cyan/blue} {pos}/{len}  elapsed {elapsed}, left about {msg}",
        ));
        all.enable_steady_tick(Duration::from_secs(1));
        let current = bars.add(spinner());
        Self {
            bars,
            all,
            current,
            cell: String::new(),
        }
    }

    fn place(&self, position: Position) {
        self.all.set_length(position.total as u64);
        self.all.set_position(position.done as u64);
        self.all.set_message(show_duration(position.left));
    }

    fn print(&self, text: &str) {
        // A terminal that is gone is no reason to stop measuring.
        let _ = self.bars.println(text);
    }
}

impl Watch for Bars {
    fn opening(&mut self, step: &str) {
        self.current.set_message(step.to_owned());
    }

    fn note(&mut self, text: &str) {
        self.print(text);
    }

    fn started(&mut self, position: Position, cell: &Cell, slot: &Slot, _attempt: u32) {
        self.place(position);
        self.cell = format!(
            "{} on {}, {}",
            cell.test.id,
            cell.system,
            show_slot(slot.probes, slot.repetition)
        );
        self.current.reset_elapsed();
        self.current.set_message(self.cell.clone());
    }

    fn phase(&mut self, phase: Phase) {
        self.current
            .set_message(format!("{}: {}", self.cell, phase.name()));
    }

    fn finished(&mut self, position: Position, attempt: &Attempt) {
        self.place(position);
        self.print(&describe(attempt));
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.current.finish_and_clear();
        self.all.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn a_line_says_what_was_measured_or_why_not() {
        let plan = testing::plan(&["fuse"], 1, 0);
        let cell = &plan.cells[0];
        let done = testing::attempt(cell, 2, 0, testing::done(3712.0, 1590.4));
        assert_eq!(
            describe(&done),
            "T1 fuse r2: 3712 read, 1590 write IOPS, 350 B verified, took 1s"
        );
        let failed = testing::attempt(cell, 0, 1, testing::failed("fio exited with 1\nmore"));
        assert_eq!(
            describe(&failed),
            "T1 fuse r0 try 2: FAILED in measure: fio exited with 1 (took 1s)"
        );
    }
}
