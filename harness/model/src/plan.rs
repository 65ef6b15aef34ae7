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

/// When a cell gets more repetitions than planned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Adaptive {
    /// The system that the others are compared with.
    pub base: String,
    /// Largest half width of the 95 % interval of a ratio to the base, as a share of the
    /// ratio (0.1 is plus or minus 10 %); a cell whose interval is wider is measured again.
    pub precision: f64,
    /// Repetitions of a cell at most; one that is wider still is called unstable.
    pub max_repetitions: u32,
}

/// Slots that were added to a plan while it was measured (a line of `extra.jsonl`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Extra {
    /// Why, one line per cell.
    pub why: Vec<String>,
    /// The slots, in their order.
    pub slots: Vec<Slot>,
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
    /// Repetitions per cell; at least, where the plan is adaptive.
    pub repetitions: u32,
    /// Further repetitions per cell in which the probes run.
    #[serde(default)]
    pub probed: u32,
    /// Whether and when more repetitions follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adaptive: Option<Adaptive>,
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
    /// The order: each repetition is a block with every cell once, shuffled anew. Read from
    /// a run's folder, it ends with the slots that were added while measuring.
    pub order: Vec<Slot>,
}

impl Plan {
    /// The cell with this key.
    #[must_use]
    pub fn cell(&self, key: &CellKey) -> Option<&Cell> {
        self.cells.iter().find(|c| c.key() == *key)
    }

    /// Slots of a cell with or without probes.
    #[must_use]
    pub fn slots_of(&self, key: &CellKey, probes: Probes) -> u32 {
        let slots = self.order.iter();
        let of_cell = slots.filter(|s| s.cell == *key && s.probes == probes);
        u32::try_from(of_cell.count()).unwrap_or(u32::MAX)
    }
}
