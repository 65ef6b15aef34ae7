//! The processors of this machine.

use crate::error::{ProbeError, Result};

const ONLINE: &str = "/sys/devices/system/cpu/online";
const TIMERS: &str = "/proc/timer_list";

/// Numbers of the processors that are online.
///
/// # Errors
/// If the kernel's list cannot be read.
pub fn online() -> Result<Vec<usize>> {
    let text = std::fs::read_to_string(ONLINE).map_err(|e| ProbeError::Proc {
        path: ONLINE.into(),
        reason: e.to_string(),
    })?;
    parse(text.trim()).ok_or_else(|| ProbeError::Proc {
        path: ONLINE.into(),
        reason: format!("{:?} is no list of processors", text.trim()),
    })
}

/// Whether the kernel measures idle time with its clock and does not count it in ticks:
/// it does where it may stop the tick of an idle processor (`get_cpu_sleep_time_us` of
/// `kernel/time/tick-sched.c`), whether or not the tick is stopped each time. `None` if it
/// does, else why not.
pub fn idle_not_exact() -> Option<String> {
    let text = match std::fs::read_to_string(TIMERS) {
        Ok(text) => text,
        Err(e) => return Some(format!("{TIMERS}: {e}")),
    };
    let processors = match online() {
        Ok(all) => all.len(),
        Err(e) => return Some(e.to_string()),
    };
    let active = tickless(&text);
    (active != processors).then(|| {
        format!("{TIMERS}: {active} of {processors} processors can be without a tick when idle")
    })
}

/// Processors in the list of timers that can do without a tick.
fn tickless(timers: &str) -> usize {
    timers
        .lines()
        .filter_map(|line| line.split_once(':'))
        // As it is called since Linux 6.9, and before.
        .filter(|(name, _)| matches!(name.trim(), ".nohz" | ".nohz_mode"))
        .filter(|(_, value)| value.trim() != "0")
        .count()
}

/// `0-3,6`: the kernel's form of a list.
fn parse(list: &str) -> Option<Vec<usize>> {
    let mut all = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        all.extend(first..=last);
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_without_a_tick_are_told_from_those_with() {
        let of =
            |a, b| format!("cpu: 0\n  .nohz           : {a}\n  .nohz_mode : {b}\n  .nohzx: 1\n");
        assert_eq!(tickless(&of(1, 2)), 2);
        assert_eq!(tickless(&of(1, 0)), 1);
        assert_eq!(tickless(""), 0);
    }

    #[test]
    fn the_kernels_form_of_a_list() {
        assert_eq!(parse("0"), Some(vec![0]));
        assert_eq!(parse("0-2,5,7-8"), Some(vec![0, 1, 2, 5, 7, 8]));
        assert_eq!(parse(""), None);
        assert_eq!(parse("0-x"), None);
        assert!(!online().unwrap().is_empty());
    }
}
