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

/// The name of the system that is really mounted for a cell.
#[must_use]
pub fn mounted_system(name: &str) -> &str {
    name.strip_suffix(TWIN).unwrap_or(name)
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
