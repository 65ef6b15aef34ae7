//! From a request to a plan.

use efuse_model::attempt::SCHEMA;
use efuse_model::cell::Cell;
use efuse_model::device::Device;
use efuse_model::environment::Place;
use efuse_model::plan::{Adaptive, Plan, PlannedSystem};
use efuse_model::test::Test;
use thiserror::Error;

use crate::schedule;
use crate::units::show_bytes;

/// What is to be measured.
#[derive(Clone, Debug)]
pub struct Request {
    /// Name of the run.
    pub run: String,
    /// Name of the workload.
    pub workload: String,
    /// The command line.
    pub command: String,
    /// Seed of the order.
    pub seed: u64,
    /// Factor on sizes and times, already applied to `tests`.
    pub scale: f64,
    /// Repetitions per cell.
    pub repetitions: u32,
    /// Further repetitions per cell with probes.
    pub probed: u32,
    /// When more repetitions follow.
    pub adaptive: Option<Adaptive>,
    /// Host or VM.
    pub place: Place,
    /// The block device.
    pub device: Device,
    /// The systems with what keeps them from running here.
    pub systems: Vec<PlannedSystem>,
    /// The tests.
    pub tests: Vec<Test>,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlanError {
    /// The device is too small.
    #[error(
        "test {test} needs {} on the {device} device, which has {}; choose a larger one (--device {device}:{suggestion}) or a smaller --scale",
        show_bytes(*needed), show_bytes(*size)
    )]
    TooSmall {
        /// The test.
        test: String,
        /// Bytes for its files and the file system's own.
        needed: u64,
        /// Bytes there are.
        size: u64,
        /// Name of the device.
        device: &'static str,
        /// A size that is enough.
        suggestion: String,
    },
    /// A device that does not exist in this place.
    #[error("a {device} device is not to be had in place {place}; there are: {}", .there.join(", "))]
    WrongPlace {
        /// The device.
        device: &'static str,
        /// The place.
        place: Place,
        /// The devices of the place.
        there: &'static [&'static str],
    },
    /// No system can run.
    #[error("none of the systems can run here:\n{}", .0.join("\n"))]
    NothingToMeasure(Vec<String>),
}

/// Devices in each place.
const VM_DEVICES: &[&str] = &["nvme-model", "brd", "virtio"];
const HOST_DEVICES: &[&str] = &["loop", "nvme-model", "brd", "disk"];

/// Bytes that a test needs on its device.
fn needed_bytes(test: &Test) -> u64 {
    efuse_workloads::device_for(test.job.bytes())
}

/// Refuses a device that cannot carry the tests in this place.
///
/// # Errors
/// See [`PlanError`].
pub fn check_device(device: &Device, place: Place, tests: &[Test]) -> Result<(), PlanError> {
    let there = match place {
        Place::Vm => VM_DEVICES,
        Place::Host => HOST_DEVICES,
    };
    if !there.contains(&device.name()) {
        return Err(PlanError::WrongPlace {
            device: device.name(),
            place,
            there,
        });
    }
    let Some(size) = device.size_bytes() else {
        return Ok(());
    };
    match tests.iter().max_by_key(|t| needed_bytes(t)) {
        Some(test) if needed_bytes(test) > size => {
            let needed = needed_bytes(test);
            Err(PlanError::TooSmall {
                test: test.id.clone(),
                needed,
                size,
                device: device.name(),
                suggestion: format!("{}M", needed.div_ceil(1 << 20)),
            })
        }
        _ => Ok(()),
    }
}

/// Repetitions below which a run gives an impression and no judgement.
pub const JUDGED_FROM: u32 = 6;

/// The repetitions of a plan, and what so few of them are worth.
#[must_use]
pub fn repetitions(plan: &Plan) -> String {
    let n = plan.repetitions;
    let mut text = format!("{n} repetition{}", if n == 1 { "" } else { "s" });
    if plan.probed > 0 {
        text.push_str(&format!(" + {} with probes", plan.probed));
    }
    if let Some(adaptive) = &plan.adaptive {
        text.push_str(&format!(
            ", up to {} where a ratio to {} is less certain than +-{} %",
            adaptive.max_repetitions,
            adaptive.base,
            adaptive.precision * 100.0
        ));
    }
    if n < JUDGED_FROM {
        text.push_str(": an impression, not a judgement");
    }
    text
}

/// Makes the plan.
///
/// # Errors
/// See [`PlanError`].
pub fn build(request: Request) -> Result<Plan, PlanError> {
    check_device(&request.device, request.place, &request.tests)?;
    let mut cells = Vec::new();
    for system in request.systems.iter().filter(|s| s.skipped.is_none()) {
        for test in &request.tests {
            cells.push(Cell {
                place: request.place,
                device: request.device.clone(),
                system: system.id.clone(),
                system_digest: system.digest.clone(),
                test: test.clone(),
            });
        }
    }
    if cells.is_empty() {
        let why = request.systems.iter().map(|s| {
            let reason = s.skipped.as_deref().unwrap_or("there is no test");
            format!("  {}: {reason}", s.id)
        });
        return Err(PlanError::NothingToMeasure(why.collect()));
    }
    let keys: Vec<_> = cells.iter().map(Cell::key).collect();
    Ok(Plan {
        schema: SCHEMA,
        order: schedule::order(&keys, request.repetitions, request.probed, request.seed),
        run: request.run,
        workload: request.workload,
        command: request.command,
        created: jiff::Timestamp::now(),
        seed: request.seed,
        scale: request.scale,
        repetitions: request.repetitions,
        probed: request.probed,
        adaptive: request.adaptive,
        place: request.place,
        device: request.device,
        systems: request.systems,
        tests: request.tests,
        cells,
    })
}

#[cfg(test)]
mod tests {
    use efuse_model::test::Job;

    use super::*;
    use crate::testing;

    #[test]
    fn a_skipped_system_stays_with_its_reason_and_has_no_cell() {
        let mut request = testing::request(&["ext4", "fuse", "efuse-bare"], 3, 5);
        request.systems[2].skipped = Some("the module is missing".into());
        let plan = build(request).unwrap();
        assert_eq!(plan.systems.len(), 3);
        assert_eq!(plan.cells.len(), 2 * plan.tests.len());
        assert!(plan.cells.iter().all(|c| c.system != "efuse-bare"));
        assert_eq!(plan.order.len(), 3 * plan.cells.len());
    }

    #[test]
    fn when_nothing_can_run_every_reason_is_said() {
        let mut request = testing::request(&["a", "b"], 1, 5);
        for s in &mut request.systems {
            s.skipped = Some(format!("{} is not there", s.id));
        }
        let message = build(request).unwrap_err().to_string();
        assert!(message.contains("a: a is not there"), "{message}");
        assert!(message.contains("b: b is not there"), "{message}");
    }

    #[test]
    fn a_device_that_is_too_small_is_refused_with_one_that_is_not() {
        let mut request = testing::request(&["a"], 1, 5);
        let Job::Fio(job) = &mut request.tests[0].job else {
            panic!("a job of fio's");
        };
        job.file_bytes = 1 << 30;
        request.device = Device::Brd {
            size_bytes: 1 << 30,
        };
        let message = build(request.clone()).unwrap_err().to_string();
        let start = message.find("brd:").unwrap() + 4;
        let suggestion = &message[start..start + message[start..].find(')').unwrap()];
        request.device = Device::Brd {
            size_bytes: crate::units::parse_size(suggestion).unwrap(),
        };
        build(request).unwrap();
    }

    #[test]
    fn a_loop_device_is_not_for_the_guest() {
        let mut request = testing::request(&["a"], 1, 5);
        request.device = Device::Loop {
            size_bytes: 1 << 40,
        };
        let message = build(request).unwrap_err().to_string();
        assert!(message.contains("nvme-model, brd, virtio"), "{message}");
    }
}
