//! Whether a kernel with lockdep still checks its locks.
//!
//! Lockdep goes off for good after its first report, and when one of its tables is full. A run
//! that passed under it says something only if it was on to the end.

use std::fs;
use std::path::Path;

use crate::error::AgentError;

const STATS: &str = "/proc/lockdep_stats";

/// Whether the kernel has lockdep at all.
#[must_use]
pub fn is_there() -> bool {
    Path::new(STATS).exists()
}

/// What the kernel says of it; `None` where there is no lockdep.
///
/// # Errors
/// If its figures cannot be read, or it is off.
pub fn still_on() -> Result<Option<String>, AgentError> {
    let text = match fs::read_to_string(STATS) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(AgentError::io(STATS, "read")(e)),
    };
    match judge(&text) {
        Some(said) => Ok(Some(said)),
        None => Err(AgentError::LockdepOff),
    }
}

/// `None` if it is off, else that it is on, and how full the fullest of its tables is.
fn judge(text: &str) -> Option<String> {
    let on = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .any(|(name, value)| name.trim() == "debug_locks" && value.trim() == "1");
    let fullest = text
        .lines()
        .filter_map(table)
        .max_by_key(|(_, permille)| *permille);
    on.then(|| match fullest {
        Some((name, permille)) => format!(
            "lockdep on, its {name} {}.{} % full",
            permille / 10,
            permille % 10
        ),
        None => "lockdep on".to_owned(),
    })
}

/// Lines of tables are ` name: <used> [max: <room>]`.
fn table(line: &str) -> Option<(&str, u64)> {
    let (name, rest) = line.split_once(':')?;
    let (used, room) = rest.split_once("[max:")?;
    let used: u64 = used.trim().parse().ok()?;
    let room: u64 = room.trim().strip_suffix(']')?.trim().parse().ok()?;
    Some((name.trim(), used.checked_mul(1000)?.checked_div(room)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = " lock-classes:                         1234 [max: 8192]\n \
         direct dependencies:                 65536 [max: 131072]\n \
         all direct dependencies:            200000\n \
         stack-trace entries:                100000 [max: 1048576]\n \
         combined max dependencies:      1234567890\n \
         debug_locks:                             1\n";

    #[test]
    fn the_fullest_table_is_told() {
        assert_eq!(
            judge(TEXT).as_deref(),
            Some("lockdep on, its direct dependencies 50.0 % full")
        );
    }

    #[test]
    fn off_is_off() {
        let off = TEXT.replace(
            "debug_locks:                             1",
            "debug_locks: 0",
        );
        assert_eq!(judge(&off), None);
        assert_eq!(judge(""), None);
    }
}
