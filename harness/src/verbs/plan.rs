//! `eval plan`, and what it shares with `run`.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use efuse_model::cell::{TWIN, mounted_system};
use efuse_model::device::Device;
use efuse_model::environment::Place;
use efuse_model::plan::{self as model, Adaptive, PlannedSystem};
use efuse_model::test::Job;
use efuse_workloads::Workload;
use serde::Serialize;

use super::{Context, Status};
use crate::catalogue::{self, Catalogue};
use crate::cli::{Precision, Selection};
use crate::estimate::Clock;
use crate::measuring::BASE;
use crate::places::{self, GuestShape};
use crate::planning::{self, Request};
use crate::runs;
use crate::suggest;
use crate::table::Table;
use crate::units::{DeviceRequest, show_bytes, show_device, show_duration, show_slot};

/// Show what would be measured, in which order, and how long it would take.
#[derive(Debug, Args)]
pub struct Plan {
    #[command(flatten)]
    selection: Selection,
    /// Also list the order, slot by slot.
    #[arg(long)]
    order: bool,
}

#[derive(Serialize)]
struct Shown<'a> {
    plan: &'a model::Plan,
    estimated_seconds: u64,
}

/// Shows.
///
/// # Errors
/// If the workload, a test or a system is unknown, or the device does not fit.
pub fn run(context: &Context, verb: &Plan) -> Result<Status> {
    places::build_controls(context)?;
    let catalogue = context.catalogue()?;
    for name in expand(&verb.selection.workload) {
        let chosen = choose(&catalogue, &verb.selection, &name)?;
        let place = Place::from(verb.selection.place.place);
        let mut systems = chosen.systems.clone();
        for system in &mut systems {
            system.skipped = catalogue.known_obstacle(&system.id, place);
        }
        let plan = planning::build(chosen.request("not-run", systems))?;
        let mut clock = Clock::new(&plan);
        let shape = GuestShape::new(&verb.selection.place, &chosen.device)?;
        learn(context, &mut clock, &shape);
        let estimate = clock.total(&plan.order);
        let shown = Shown {
            plan: &plan,
            estimated_seconds: estimate.as_secs(),
        };
        context.print(&shown, || render(&plan, &clock, estimate, verb.order))?;
    }
    Ok(0)
}

/// The workloads that a word means: `all` is the paper's profiles.
#[must_use]
pub fn expand(word: &str) -> Vec<String> {
    if word == "all" {
        catalogue::workload_names()
            .into_iter()
            .filter(|n| n.starts_with("paper-"))
            .map(str::to_owned)
            .collect()
    } else {
        vec![word.to_owned()]
    }
}

/// A workload with what the command line changed of it.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// The workload, scaled.
    pub workload: Workload,
    /// The systems, of which nothing is known yet.
    pub systems: Vec<PlannedSystem>,
    /// The device.
    pub device: Device,
    place: Place,
    repetitions: u32,
    probed: u32,
    adaptive: Option<Adaptive>,
    scale: f64,
    seed: u64,
}

impl Chosen {
    /// The request for a plan, with what is known of the systems by now.
    #[must_use]
    pub fn request(&self, run: &str, systems: Vec<PlannedSystem>) -> Request {
        let words: Vec<_> = std::env::args()
            .enumerate()
            .map(|(n, arg)| if n == 0 { "eval".to_owned() } else { arg })
            .collect();
        Request {
            run: run.to_owned(),
            workload: self.workload.name.clone(),
            command: words.join(" "),
            seed: self.seed,
            scale: self.scale,
            repetitions: self.repetitions,
            probed: self.probed,
            adaptive: self.adaptive.clone(),
            place: self.place,
            device: self.device.clone(),
            systems,
            tests: self.workload.tests.clone(),
        }
    }
}

/// Applies the command line to a workload.
///
/// # Errors
/// If the workload, a test or a system is unknown, or the device is not to be had in the place,
/// too small, or a disk without consent.
pub fn choose(catalogue: &Catalogue, selection: &Selection, workload: &str) -> Result<Chosen> {
    let mut workload = catalogue::workload(workload)?.scaled(selection.scale);
    if let Some(ids) = &selection.tests {
        only(&mut workload, ids)?;
    }
    let place = Place::from(selection.place.place);
    let names = with_twins(selection, &workload)?;
    let systems = catalogue.planned(&names)?;
    let repetitions = selection.repetitions.unwrap_or(workload.repetitions);
    let adaptive = adaptive(selection, &workload, &names, repetitions)?;
    let device = device(selection, &workload, place)?;
    planning::check_device(&device, place, &workload.tests)?;
    Ok(Chosen {
        systems,
        device,
        place,
        repetitions,
        probed: selection.probed.unwrap_or(workload.probed),
        adaptive,
        scale: selection.scale,
        seed: match selection.seed {
            Some(seed) => seed,
            None => random_seed()?,
        },
        workload,
    })
}

/// Leaves the named tests alone.
fn only(workload: &mut Workload, ids: &[String]) -> Result<()> {
    let known: Vec<_> = workload.tests.iter().map(|t| t.id.as_str()).collect();
    if let Some(stray) = ids.iter().find(|id| !known.contains(&id.as_str())) {
        let what = format!("test of workload {}", workload.name);
        bail!(suggest::unknown(&what, stray, &known));
    }
    workload.tests.retain(|test| ids.contains(&test.id));
    Ok(())
}

/// The systems, each twin right after its original.
fn with_twins(selection: &Selection, workload: &Workload) -> Result<Vec<String>> {
    let systems = selection.systems.as_ref().unwrap_or(&workload.systems);
    let twins: Vec<&String> = match &selection.twin {
        Some(twins) => {
            if let Some(stray) = twins.iter().find(|t| !systems.contains(t)) {
                bail!(
                    "--twin {stray}: it is not among the systems to measure ({})",
                    systems.join(", ")
                );
            }
            twins.iter().collect()
        }
        // Of a selection, those whose original is in it.
        None => workload.twins.iter().collect(),
    };
    let mut names = Vec::new();
    for system in systems {
        names.push(system.clone());
        let twin = format!("{system}{TWIN}");
        if twins.contains(&system) && !systems.contains(&twin) {
            names.push(twin);
        }
    }
    Ok(names)
}

fn adaptive(
    selection: &Selection,
    workload: &Workload,
    names: &[String],
    repetitions: u32,
) -> Result<Option<Adaptive>> {
    let precision = match selection.precision {
        Some(Precision(precision)) => precision,
        None => workload.precision,
    };
    let Some(precision) = precision else {
        if selection.max_repetitions.is_some() {
            bail!("--max-repetitions goes with --precision: without, no cell is measured again");
        }
        return Ok(None);
    };
    let max_repetitions = match (selection.max_repetitions, workload.max_repetitions) {
        (Some(max), _) if max < repetitions => bail!(
            "--max-repetitions {max} is less than the {repetitions} repetitions that are planned"
        ),
        (Some(max), _) => max,
        (None, Some(max)) if selection.repetitions.is_none() => max,
        (None, _) => repetitions.saturating_mul(2),
    };
    // A single system has nothing to be compared with, and nothing is measured again.
    let base = names.iter().find(|n| *n == BASE).or(names.first());
    Ok(base.map(|base| Adaptive {
        base: mounted_system(base).to_owned(),
        precision,
        max_repetitions,
    }))
}

fn device(selection: &Selection, workload: &Workload, place: Place) -> Result<Device> {
    let device = match &selection.device {
        Some(request) => request.resolve(&workload.device),
        // The workloads' model device needs a kernel module that a host rarely loads.
        None if place == Place::Host => {
            let device = DeviceRequest::Loop(None).resolve(&workload.device);
            if device != workload.device {
                eprintln!(
                    "eval: measuring on a {} instead of the workload's {} (choose with --device)",
                    show_device(&device),
                    show_device(&workload.device)
                );
            }
            device
        }
        None => workload.device.clone(),
    };
    match (&device, &selection.destroy) {
        (Device::Disk { path }, Some(consent)) if consent == path => {}
        (Device::Disk { path }, _) => bail!(
            "everything on {path} would be destroyed; if that is meant, say so with --destroy {path}"
        ),
        (_, Some(_)) => bail!("--destroy goes with --device disk:/dev/... only"),
        (_, None) => {}
    }
    Ok(device)
}

/// 32 random bits: short enough to be typed again.
fn random_seed() -> Result<u64> {
    use std::io::Read as _;
    let mut bytes = [0; 4];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut f| f.read_exact(&mut bytes))
        .context("cannot read a random seed from /dev/urandom")?;
    Ok(u32::from_le_bytes(bytes).into())
}

/// Feeds the clock with what earlier runs took for the same cells.
pub fn learn(context: &Context, clock: &mut Clock, shape: &GuestShape) {
    // An unreadable old run only makes the estimate a guess.
    let Ok((all, _)) = runs::all(&context.root) else {
        return;
    };
    // A cell takes another time where the guest's clock counts instructions.
    let alike = |run: &runs::Run| {
        GuestShape::read(run.dir.path()).is_ok_and(|s| s.icount_shift == shape.icount_shift)
    };
    for run in all.iter().filter(|run| alike(run)) {
        for attempt in run.dir.attempts().unwrap_or_default().list {
            clock.learn(&attempt);
        }
    }
}

fn render(plan: &model::Plan, clock: &Clock, estimate: Duration, order: bool) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "workload {}, scale {}, {}, place {}, device {}, seed {}\n",
        plan.workload,
        plan.scale,
        planning::repetitions(plan),
        plan.place,
        show_device(&plan.device),
        plan.seed
    );
    let mut tests = Table::new(&["test", "job", ">files", ">size", "title"]);
    for test in &plan.tests {
        let job = match &test.job {
            Job::Fio(job) => job,
            Job::Metadata(job) => {
                tests.row([
                    test.id.clone(),
                    format!("{} x {}", job.kind.name(), job.threads),
                    (u64::from(job.dirs) * u64::from(job.files)).to_string(),
                    "up to 4 KiB".to_owned(),
                    test.title.clone(),
                ]);
                continue;
            }
        };
        let mix = if job.pattern.reads() && job.pattern.writes() {
            format!(" {}/{}", job.read_percent, 100 - job.read_percent)
        } else {
            String::new()
        };
        tests.row([
            test.id.clone(),
            format!(
                "{}{mix} {} x {} QD{}{}",
                job.pattern.as_fio(),
                job.jobs,
                show_bytes(job.block_bytes),
                job.iodepth,
                if job.direct { " direct" } else { "" }
            ),
            job.files.to_string(),
            show_bytes(job.file_bytes),
            test.title.clone(),
        ]);
    }
    out.push_str(&tests.render());
    out.push('\n');
    let mut systems = Table::new(&["system", "title", ">each attempt", "skipped because"]);
    for system in &plan.systems {
        let times: Vec<_> = plan
            .cells
            .iter()
            .filter(|c| c.system == system.id)
            .map(|c| show_duration(clock.expect(&c.key())))
            .collect();
        systems.row([
            system.id.clone(),
            system.title.clone(),
            times.join(" "),
            system.skipped.clone().unwrap_or_default(),
        ]);
    }
    out.push_str(&systems.render());
    if order {
        out.push('\n');
        for (n, slot) in plan.order.iter().enumerate() {
            if let Some(cell) = plan.cell(&slot.cell) {
                let _ = writeln!(
                    out,
                    "{:4}  {}  {} {}",
                    n + 1,
                    show_slot(slot.probes, slot.repetition),
                    cell.test.id,
                    cell.system
                );
            }
        }
    }
    let _ = writeln!(
        out,
        "\n{} attempts, about {}",
        plan.order.len(),
        show_duration(estimate)
    );
    out
}
