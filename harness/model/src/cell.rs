//! A cell of the matrix and its content hash.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::device::Device;
use crate::environment::Place;
use crate::test::Test;

/// Version of what a cell's figures mean. Raised when the measurement itself changes,
/// so that old figures are not taken for new ones.
pub const MEASUREMENT: u32 = 1;

/// Ends the name of a system that is measured a second time as an A/A control
/// (`fuse@twin`): the same definition, mounted the same way, under another name.
pub const TWIN: &str = "@twin";

/// With a number of percent after it, ends the name of a system whose daemon takes so much
/// longer in its handlers on purpose (`fuse@slow10`): what a gate has to notice.
pub const SLOW: &str = "@slow";

/// In what a system measured under a second name differs from the one that is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// In nothing ([`TWIN`]).
    Twin,
    /// Its daemon's handlers take so many percent longer ([`SLOW`]).
    Slow(u16),
}

/// A system's name without its suffix, and what the suffix says; a suffix that is not one
/// of those above belongs to the name.
#[must_use]
pub fn variant(name: &str) -> (&str, Option<Variant>) {
    if let Some(system) = name.strip_suffix(TWIN) {
        return (system, Some(Variant::Twin));
    }
    let slow = name.rsplit_once(SLOW).and_then(|(system, percent)| {
        let canonical = !percent.starts_with(['0', '+']);
        let percent = percent.parse().ok().filter(|_| canonical)?;
        Some((system, Some(Variant::Slow(percent))))
    });
    slow.unwrap_or((name, None))
}

/// The name of the system that is really mounted for a cell.
#[must_use]
pub fn mounted_system(name: &str) -> &str {
    variant(name).0
}

/// How much longer the handlers of this system's daemon take on purpose, percent.
#[must_use]
pub fn slow_percent(name: &str) -> u16 {
    match variant(name).1 {
        Some(Variant::Slow(percent)) => percent,
        Some(Variant::Twin) | None => 0,
    }
}

/// Content hash of a [`Cell`]: 16 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CellKey(pub String);

impl fmt::Display for CellKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One test on one system on one device in one place.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Cell {
    /// Host or VM.
    pub place: Place,
    /// The block device below.
    pub device: Device,
    /// Identifier of the system under test (`fuse`, `ext4`, ...).
    pub system: String,
    /// Hash of the system's definition (options, plug-in file), so that an edited
    /// definition is another cell.
    pub system_digest: String,
    /// The job.
    pub test: Test,
}

impl Cell {
    /// Hash of the measurement version and the cell's canonical JSON (fields in
    /// declaration order, maps sorted).
    ///
    /// # Panics
    /// Never: every field serialises to JSON.
    #[must_use]
    pub fn key(&self) -> CellKey {
        let json = serde_json::to_vec(&(MEASUREMENT, self)).expect("a cell is plain data");
        CellKey(blake3::hash(&json).to_hex()[..16].to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes() {
        assert_eq!(variant("fuse"), ("fuse", None));
        assert_eq!(variant("fuse@twin"), ("fuse", Some(Variant::Twin)));
        assert_eq!(variant("fuse@slow10"), ("fuse", Some(Variant::Slow(10))));
        assert_eq!(slow_percent("fuse@slow10"), 10);
        assert_eq!(slow_percent("fuse@twin"), 0);
        for name in [
            "fuse@slow",
            "fuse@slow010",
            "fuse@slow+1",
            "fuse@slow1x",
            "fuse@else",
        ] {
            assert_eq!(variant(name), (name, None));
        }
    }
}
