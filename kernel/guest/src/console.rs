//! Reads the guest's console for signs that its kernel is no longer sound.

use std::collections::VecDeque;

use crate::error::GuestError;

/// Lines kept for messages that show how the console ended.
const TAIL: usize = 40;
/// Lines kept from before the first bad one ("cut here" and what led to it).
const BEFORE: usize = 8;
/// A trace longer than this is complete enough.
const LONGEST: usize = 400;
/// A line longer than this is cut.
const LINE: usize = 4096;

/// By what prefix init says that it gave up.
const INIT_FAILED: &str = "efuse-init: FAILED: ";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Init,
    OutOfMemory,
    Warning,
    HungTask,
    Oops,
    Panic,
}

#[derive(Debug)]
struct Report {
    kind: Kind,
    lines: Vec<String>,
    complete: bool,
}

/// The console so far.
#[derive(Debug, Default)]
pub(crate) struct Console {
    tail: VecDeque<String>,
    partial: Vec<u8>,
    report: Option<Report>,
}

impl Console {
    /// Takes what the console wrote, in pieces of any size.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' {
                let line = std::mem::take(&mut self.partial);
                self.line(String::from_utf8_lossy(&line).trim_end().to_owned());
            } else if self.partial.len() < LINE {
                self.partial.push(byte);
            }
        }
    }

    /// The console is closed: an unfinished line is all there will be of it.
    pub(crate) fn end(&mut self) {
        if !self.partial.is_empty() {
            self.feed(b"\n");
        }
    }

    /// Whether something bad was seen.
    pub(crate) const fn bad(&self) -> bool {
        self.report.is_some()
    }

    /// Whether the whole of it was seen. Some kinds have no last line: there the caller stops
    /// when nothing more comes.
    pub(crate) fn complete(&self) -> bool {
        self.report.as_ref().is_some_and(|report| report.complete)
    }

    /// The failure, if something bad was seen.
    pub(crate) fn failure(&self) -> Option<GuestError> {
        let report = self.report.as_ref()?;
        let trace = report.lines.join("\n");
        Some(match report.kind {
            Kind::Panic => GuestError::Panic { trace },
            Kind::Oops => GuestError::Oops { trace },
            Kind::Warning => GuestError::Warning { trace },
            Kind::HungTask => GuestError::HungTask { trace },
            Kind::OutOfMemory => GuestError::OutOfMemory { trace },
            Kind::Init => GuestError::Init {
                message: report
                    .lines
                    .iter()
                    .find_map(|line| Some(line.split_once(INIT_FAILED)?.1.to_owned()))
                    .unwrap_or_default(),
                tail: self.tail(),
            },
        })
    }

    /// The last lines.
    pub(crate) fn tail(&self) -> String {
        if self.tail.is_empty() {
            return "(nothing)".to_owned();
        }
        Vec::from_iter(self.tail.iter().map(String::as_str)).join("\n")
    }

    fn line(&mut self, line: String) {
        let kind = kernel_message(&line).and_then(classify);
        match (&mut self.report, kind) {
            (None, Some(kind)) => {
                let before = self.tail.len().saturating_sub(BEFORE);
                let mut lines: Vec<String> = self.tail.iter().skip(before).cloned().collect();
                lines.push(line.clone());
                self.report = Some(Report {
                    kind,
                    lines,
                    complete: kind == Kind::Init,
                });
            }
            (Some(report), kind) if !report.complete => {
                // A warning or a hang that ends in a panic is reported as what it ended in.
                if let Some(kind @ (Kind::Oops | Kind::Panic)) = kind
                    && !matches!(report.kind, Kind::Oops | Kind::Panic)
                {
                    report.kind = kind;
                }
                report.complete = line.contains("---[ end ") || report.lines.len() >= LONGEST;
                report.lines.push(line.clone());
            }
            _ => {}
        }
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }
}

/// The text of a kernel message: what follows `[   12.345678] `. What programs write to the
/// console has no such stamp, and may stand before one on the same line.
fn kernel_message(line: &str) -> Option<&str> {
    line.match_indices('[').find_map(|(at, _)| {
        let (stamp, text) = line[at + 1..].split_once("] ")?;
        let (seconds, micros) = stamp.trim_start().split_once('.')?;
        let digits =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        (digits(seconds) && micros.len() == 6 && digits(micros)).then_some(text)
    })
}

fn classify(text: &str) -> Option<Kind> {
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| text.starts_with(prefix));
    if text.starts_with("Kernel panic - not syncing") {
        Some(Kind::Panic)
    } else if text.starts_with(INIT_FAILED) {
        Some(Kind::Init)
    } else if text.starts_with("watchdog: BUG: ")
        || (text.starts_with("INFO: task ") && text.contains(" blocked for more than "))
        || (text.starts_with("rcu: INFO: ") && text.contains("stall"))
    {
        Some(Kind::HungTask)
    // Without the colon it is SLUB's, of a cache: `BUG kmalloc-64 (Not tainted): ...`.
    } else if starts(&["BUG: ", "BUG ", "kernel BUG at ", "Oops: "])
        || starts(&[
            "general protection fault",
            "stack segment: ",
            "double fault: ",
        ])
        || starts(&[
            "invalid opcode: ",
            "divide error: ",
            "int3: ",
            "traps: PANIC",
        ])
        || starts(&["Unable to handle kernel", "KASAN: ", "KFENCE: "])
    {
        Some(Kind::Oops)
    } else if starts(&["WARNING: ", "UBSAN: ", "refcount_t: ", "ODEBUG: "])
        || text.starts_with("INFO: trying to register non-static key")
    {
        Some(Kind::Warning)
    } else if text.starts_with("Out of memory: Killed process") {
        Some(Kind::OutOfMemory)
    } else {
        // A trace under none of the headings above: `dump_stack` from an error path.
        (text.trim() == "Call Trace:").then_some(Kind::Warning)
    }
}

#[cfg(test)]
mod tests;
