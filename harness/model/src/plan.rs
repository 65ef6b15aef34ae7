//! What a run is going to do, written before anything is measured.

use serde::{Deserialize, Serialize};

use crate::cell::{Cell, CellKey};
use crate::counters::Probes;
use crate::device::Device;
use crate::environment::Place;
use crate::test::Test;

/// A system in the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedSystem {
    /// `fuse`, `ext4`, ...
    pub id: String,
    /// One line for charts.
    pub title: String,
    /// Hash of its definition.
    pub digest: String,
    /// The system that this one is measured as a second time under another name (A/A).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub twin_of: Option<String>,
    /// Why it is not measured here; `None` where it is. A skipped system keeps its row.
    pub skipped: Option<String>,
}

/// One slot of the schedule.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Slot {
    /// The cell to measure.
    pub cell: CellKey,
    /// Repetition, from 0; counted apart with and without probes.
    pub repetition: u32,
    /// Whether the probes run in it.
    #[serde(default, skip_serializing_if = "Probes::is_off")]
    pub probes: Probes,
}

/// The plan of a run (`plan.json`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// [`crate::attempt::SCHEMA`].
    pub schema: u32,
    /// Name of the run's folder.
    pub run: String,
    /// Name of the workload.
    pub workload: String,
    /// The command line that made the plan.
    pub command: String,
    /// When it was made.
    pub created: jiff::Timestamp,
    /// Seed of the order.
    pub seed: u64,
    /// Factor on sizes and times.
    pub scale: f64,
    /// Repetitions per cell.
    pub repetitions: u32,
    /// Host or VM.
    pub place: Place,
    /// The block device.
    pub device: Device,
    /// Every system asked for, skipped ones too.
    pub systems: Vec<PlannedSystem>,
    /// Every test.
    pub tests: Vec<Test>,
    /// The cells to measure (available systems x tests).
    pub cells: Vec<Cell>,
    /// The order: each repetition is a block with every cell once, shuffled anew.
    pub order: Vec<Slot>,
}

impl Plan {
    /// The cell with this key.
    #[must_use]
    pub fn cell(&self, key: &CellKey) -> Option<&Cell> {
        self.cells.iter().find(|c| c.key() == *key)
    }
}
