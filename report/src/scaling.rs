//! What the model of `efuse-scale` makes of a run: inputs are what was measured, everything else is
//! modelled and says so.

use efuse_model::DAEMON_WORKERS;
use efuse_model::counters::BusyFrom;
use efuse_model::histogram::Histogram;
use efuse_model::test::{Job, Test};
use efuse_scale::{Design, Measured as Inputs, Outcome, Times, simulate};

use crate::count::Cell;
use crate::input::Run;

/// The system with one queue.
const QUEUE: &str = "fuse";

/// Cores that are modelled.
pub const CORES: [u32; 8] = [1, 2, 4, 8, 16, 32, 64, 128];

/// Requests that a system needs in its repetitions with probes, for its means to be some.
const ENOUGH: u64 = 1000;

/// What was measured of a system, and what goes into the model.
#[derive(Clone, Debug)]
pub struct System {
    /// Its name.
    pub id: String,
    /// Inputs of the model.
    pub input: Inputs,
    /// Requests in a second that were measured.
    pub per_second: f64,
    /// Queueing that was measured, mean, nanoseconds.
    pub queueing_ns: f64,
    /// The model of the measured machine, to be compared with what was measured.
    pub modelled: Outcome,
}

/// Takings of a lock.
#[derive(Clone, Copy, Debug)]
pub struct Takings {
    /// All: each request is put in and taken out under the lock.
    pub all: u64,
    /// Those that found it taken.
    pub contended: u64,
    /// How many there were in a second.
    pub per_second: f64,
}

impl Takings {
    fn of(run: &Run, test: &Test, cell: &Cell, cores: u32) -> Self {
        let all = 2 * requests(cell);
        Self {
            all,
            contended: run
                .probed_of(&test.id, &cell.system)
                .filter_map(|m| Some(m.metrics.counters.as_ref()?.queue_lock?.contended))
                .sum(),
            per_second: all as f64 / seconds(run, test, &cell.system, cores),
        }
    }

    /// How long it is held, mean, nanoseconds. Whoever takes it finds it taken for the share of
    /// time that the other processors hold it: their takings a second times how long one takes.
    /// The time that was waited for it does not say that: where processors
    /// are emulated, a few waits for one that does not run are nearly all of it.
    fn held_ns(&self, cores: u32) -> Option<f64> {
        let others = self.per_second * (1.0 - 1.0 / f64::from(cores));
        let share = self.contended as f64 / self.all as f64;
        (share > 0.0 && others > 0.0).then(|| share / others * 1e9)
    }
}

/// How long requests were counted. On a slow machine that is less than the job ran, as setting the
/// counters up takes its time; all the processors' time was counted together with them.
fn seconds(run: &Run, test: &Test, system: &str, cores: u32) -> f64 {
    run.probed_of(&test.id, system)
        .filter_map(|m| Some((m, m.metrics.counters.as_ref()?)))
        .map(|(m, c)| match c.cpu.busy_from {
            BusyFrom::Idle => c.cpu.accounted_s() / f64::from(cores),
            BusyFrom::Ticks => m.metrics.runtime_ms / 1e3,
        })
        .sum()
}

/// A curve of the model.
#[derive(Clone, Debug)]
pub struct Curve {
    /// The system that a request costs as much as with.
    pub costs_of: String,
    /// Who shares a queue.
    pub design: Design,
    /// For each of [`CORES`].
    pub outcomes: Vec<Outcome>,
}

/// The model of a test.
#[derive(Clone, Debug)]
pub struct Scaling {
    /// Stock FUSE.
    pub queue: System,
    /// The system with rings.
    pub rings: System,
    /// How often the lock of the one queue was taken, and found taken.
    pub lock: Takings,
    /// One queue, queues per core with the same costs, queues per core with those of the rings.
    pub curves: [Curve; 3],
}

/// Models a test.
///
/// # Errors
/// Why it cannot be modelled; `None` where there is nothing to model, as the run has no rings or no probes.
pub fn of(run: &Run, cells: &[Cell], test: &Test) -> Result<Scaling, Option<String>> {
    let of = |id: &str| {
        cells
            .iter()
            .find(|c| c.test == test.id && c.system == id && requests(c) >= ENOUGH)
    };
    let queue = of(QUEUE).ok_or(None)?;
    // The one that sends most through its rings.
    let rings = cells
        .iter()
        .filter(|c| c.test == test.id && c.system != QUEUE && !is_twin(run, &c.system))
        .filter(|c| c.rings.is_some_and(|bytes| bytes > 0) && requests(c) >= ENOUGH)
        .max_by_key(|c| requests(c))
        .ok_or(None)?;
    let cores = run.environment.as_ref().map(|e| e.cpus).ok_or_else(|| {
        Some("the environment, and with it the number of processors, was not recorded".to_owned())
    })?;
    let callers = callers(test).ok_or_else(|| {
        Some(
            "it is buffered, so how many requests callers keep under way is the kernel's choice"
                .to_owned(),
        )
    })?;
    let lock = Takings::of(run, test, queue, cores);
    let lock_ns = lock.held_ns(cores).ok_or_else(|| {
        Some(format!(
            "nobody found the lock of {QUEUE}'s queue taken on {}, so what it costs is not known",
            crate::format::cpus(cores)
        ))
    })?;
    let system = |cell: &Cell, design| {
        system(run, test, cell, (cores, callers, lock_ns), design).ok_or_else(|| {
            Some(format!(
                "what a request costs with {} was not counted exactly",
                cell.system
            ))
        })
    };
    let queue = system(queue, Design::OneQueue)?;
    let rings = system(rings, Design::PerCore)?;
    let curve = |from: &System, design| Curve {
        costs_of: from.id.clone(),
        design,
        outcomes: CORES
            .iter()
            .map(|cores| model(run, &from.input, *cores, design))
            .collect(),
    };
    let curves = [
        curve(&queue, Design::OneQueue),
        curve(&queue, Design::PerCore),
        curve(&rings, Design::PerCore),
    ];
    Ok(Scaling {
        queue,
        rings,
        lock,
        curves,
    })
}

fn is_twin(run: &Run, system: &str) -> bool {
    let planned = run.plan.systems.iter().find(|s| s.id == system);
    planned.is_some_and(|s| s.twin_of.is_some())
}

fn requests(cell: &Cell) -> u64 {
    cell.requests.iter().map(|o| o.total.count()).sum()
}

/// Requests that the job keeps under way, and its threads.
fn callers(test: &Test) -> Option<(u32, u32)> {
    match &test.job {
        Job::Fio(job) if job.direct => Some((job.jobs * job.iodepth, job.jobs)),
        Job::Fio(_) => None,
        Job::Metadata(job) => Some((job.threads, job.threads)),
    }
}

fn system(
    run: &Run,
    test: &Test,
    cell: &Cell,
    (cores, (callers, threads), lock_ns): (u32, (u32, u32), f64),
    design: Design,
) -> Option<System> {
    let (mut queueing, mut processing) = (Histogram::default(), Histogram::default());
    for o in &cell.requests {
        queueing.merge(&o.queueing);
        processing.merge(&o.processing);
    }
    let n = requests(cell) as f64;
    let counters = || {
        let of = run.probed_of(&test.id, &cell.system);
        of.filter_map(|m| m.metrics.counters.as_ref())
    };
    let daemon_s: f64 = counters().map(|c| c.cpu.daemon_s).sum::<Option<f64>>()?;
    let callers_s: f64 = counters().map(|c| c.cpu.fio_s).sum::<Option<f64>>()?;
    // Interrupts and the kernel's threads take their time from whoever runs.
    let rest_s: f64 = counters()
        .map(|c| match c.cpu.busy_from {
            BusyFrom::Idle => Some(c.cpu.busy_s - c.cpu.daemon_s? - c.cpu.fio_s?),
            BusyFrom::Ticks => Some(c.cpu.kernel_threads_s),
        })
        .sum::<Option<f64>>()?;
    let stretch = 1.0 + rest_s.max(0.0) / (daemon_s + callers_s);
    let worker_ns = daemon_s * stretch * 1e9 / n;
    let input = Inputs {
        cores,
        callers,
        threads,
        workers: DAEMON_WORKERS,
        caller_ns: callers_s * stretch * 1e9 / n,
        worker_ns,
        // What the quickest took beside the daemon's work. The others waited for processors as well, which
        // the model lets them do itself.
        service: Times::Fixed((processing.percentile_ns(1.0)? as f64 - worker_ns).max(0.0)),
        lock_ns,
    };
    Some(System {
        id: cell.system.clone(),
        per_second: n / seconds(run, test, &cell.system, cores),
        queueing_ns: queueing.mean_ns()?,
        modelled: model(run, &input, cores, design),
        input,
    })
}

/// Long enough for every caller to come round several times.
fn model(run: &Run, input: &Inputs, cores: u32, design: Design) -> Outcome {
    let each = u64::from(input.callers) * u64::from(cores) / u64::from(input.cores.max(1));
    simulate(
        &input.on(cores, design),
        (16 * each).max(60_000),
        run.plan.seed,
    )
}
