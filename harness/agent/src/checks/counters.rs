//! What is counted in different ways has to be the same.

mod background;
mod messages;
mod phases;
mod stopped;

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use efuse_model::attempt::Metrics;
use efuse_model::counters::{BusyFrom, Counters, Probes, Requests, Switches};
use efuse_model::environment::Place;
use efuse_model::test::{FioJob, Job, Pattern, Test, Verify};

use super::{Site, Trouble, fail};
use efuse_probes::kernel;

use crate::fio;
use crate::layout;
use crate::lockdep;
use crate::measure::{self, Measure};

const JOBS: u32 = 2;
/// Two counts of the same switches may differ by this part of them, percent.
const SWITCHES_PERCENT: u64 = 2;
/// And by so many: they are not read at the very same moment.
const SWITCHES_FEW: u64 = 2 * JOBS as u64;
/// fio counts from where a job's loop begins to where it ends. What it switches while it
/// starts and ends its jobs is counted by the others alone, and is more on a busy machine.
const OUTSIDE_LOOP: u64 = 8 * JOBS as u64;
/// Events that probes may skip, of the some ten thousand of a check.
const FEW_SKIPPED: u64 = 20;
/// Of the whole system, other programs switch between two readings.
const SYSTEM_FEW: u64 = 50;
/// Queueing and processing may miss the requests' whole time by this part of it.
const TIME_PART: f64 = 0.01;
/// Of so many requests at least: between reply and end lies what the kernel does there
/// and the probe itself, and under emulation code that runs for the first time is slow.
const TIME_OF: u64 = 100;

/// Idle and iowait are each given in whole units of 10 ms, so their sum over a phase may be
/// that much too large twice, and what is left of the clock's time too small; seconds.
const IDLE_UNIT: f64 = 0.02;

/// How long the kernel and the daemon may take for what has to happen.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often to look whether it has.
const LOOK: Duration = Duration::from_millis(10);

/// Systems whose every direct request goes through the daemon.
const ALL_BY_DAEMON: &[&str] = &["fuse", "efuse-bare", "libfuse"];

pub(super) fn run(site: &mut Site<'_>) -> Result<String, Trouble> {
    if lockdep::is_there() {
        let reason = "lockdep puts another function where probes look for waits for a lock";
        return Err(Trouble::Skip(reason.to_owned()));
    }
    if let Err(reason) = site.agent.perf() {
        return fail(format!("the self-test of perf events: {reason}"));
    }
    let program = site.agent.program("fio", "install it (apt install fio)")?;
    let (test, job) = test();
    let plain = |invocation: &fio::Invocation| {
        let folder = site.agent.folder();
        fio::run(&program, invocation, folder, None, None, site.limit)
    };
    layout::write(&job, &site.lower, site.agent.backing(), site.limit, &plain)?;
    let mut said = Vec::new();
    let mut probed = false;
    for probes in [Probes::Off, Probes::On] {
        let (metrics, counters) = measured(site, &program, &test, &job, probes)?;
        said.push(switches(&metrics, &counters)?);
        said.push(processors(&counters)?);
        said.push(memory(&counters)?);
        match probes {
            Probes::Off => complete(&counters)?,
            Probes::On => {
                said.push(requests(site, &metrics, &counters)?);
                probed = counters.missing.is_empty();
            }
        }
    }
    let by_daemon = ALL_BY_DAEMON.contains(&site.system);
    if probed && by_daemon {
        said.push(phases::ramp(site, &program)?);
    }
    if probed && site.mounted()?.daemon_pid().is_some() {
        said.push(messages::run(site)?);
    }
    if probed && by_daemon {
        said.push(background::run(site)?);
    }
    Ok(said.join("; "))
}

/// Probes that count what this process does on the mounted system.
fn attached(site: &mut Site<'_>) -> Result<kernel::Probes, Trouble> {
    let mounted = site.mounted()?;
    let probes = kernel::Probes::attach(measure::connection(mounted))?;
    probes.start(std::process::id(), mounted.daemon_pid())?;
    Ok(probes)
}

/// Ends counting; whatever was not counted is a failure.
fn counted(probes: kernel::Probes) -> Result<Counters, Trouble> {
    let mut counters = Counters::default();
    probes.pause()?;
    probes.read(&mut counters)?;
    complete(&counters)?;
    Ok(counters)
}

/// Asks again and again until the answer is yes.
fn until(
    site: &Site<'_>,
    what: &str,
    ask: &mut dyn FnMut() -> Result<bool, Trouble>,
) -> Result<(), Trouble> {
    let end = Instant::now() + PATIENCE;
    while !ask()? {
        site.limit.check()?;
        if Instant::now() > end {
            return fail(format!("{what} within {} s", PATIENCE.as_secs()));
        }
        thread::sleep(LOOK);
    }
    Ok(())
}

/// Requests of an opcode that were counted.
fn crossings(requests: &[Requests], opcode: &str) -> u64 {
    requests
        .iter()
        .filter(|r| r.opcode == opcode)
        .map(|r| r.crossings)
        .sum()
}

/// The figures of one job on the mounted system.
fn measured(
    site: &Site<'_>,
    fio: &Path,
    test: &Test,
    job: &FioJob,
    probes: Probes,
) -> Result<(Metrics, Counters), Trouble> {
    let measure = Measure {
        agent: site.agent,
        fio,
        test,
        job,
        probes,
        limit: site.limit,
    };
    let Some(mounted) = &site.mounted else {
        return fail("the system is not mounted");
    };
    let invocation = measure.invocation(mounted);
    let mut metrics = measure.metrics(&invocation, mounted)?.0;
    match metrics.counters.take() {
        Some(counters) => Ok((metrics, counters)),
        None => fail("there are no counters"),
    }
}

fn test() -> (Test, FioJob) {
    let job = FioJob {
        engine: "libaio".into(),
        pattern: Pattern::RandRw,
        read_percent: 70,
        block_bytes: 4096,
        iodepth: 4,
        jobs: JOBS,
        direct: true,
        files: 2,
        file_bytes: 4 << 20,
        io_bytes: Some(8 << 20),
        runtime_ms: None,
        ramp_ms: 0,
        options: [].into(),
    };
    (test_of(&job), job)
}

fn test_of(job: &FioJob) -> Test {
    Test {
        id: "counters".into(),
        title: "counters".into(),
        job: Job::Fio(job.clone()),
        verify: Verify {
            read_bytes: 0,
            write_bytes: 0,
            compare: false,
        },
        published: None,
    }
}

/// Whether a line says that no more than a few events were skipped: an interrupt may come
/// while a probe runs, and it says so in every result.
fn negligible(line: &str) -> bool {
    let count = line
        .split_ascii_whitespace()
        .find_map(|w| w.parse::<u64>().ok());
    line.contains("skipped because a probe ran already") && count.is_some_and(|n| n <= FEW_SKIPPED)
}

fn complete(counters: &Counters) -> Result<(), Trouble> {
    let missing: Vec<&str> = counters
        .missing
        .iter()
        .map(String::as_str)
        .filter(|line| !negligible(line))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    fail(format!("not counted: {}", missing.join("; ")))
}

fn same(what: &str, a: u64, b: u64, few: u64) -> Result<(), Trouble> {
    let allowed = (a.max(b) * SWITCHES_PERCENT / 100).max(few);
    if a.abs_diff(b) <= allowed {
        return Ok(());
    }
    fail(format!(
        "{what}: {a} and {b} switches, more than {allowed} apart"
    ))
}

fn both(of: &str, counted: Switches) -> Result<(u64, u64), Trouble> {
    match (counted.perf, counted.proc) {
        (Some(perf), Some(proc)) => Ok((perf, proc)),
        _ => fail(format!("switches of {of}: {counted:?}")),
    }
}

/// fio's switches by perf, by `/proc` and by fio; the daemon's and the system's by both.
fn switches(metrics: &Metrics, counters: &Counters) -> Result<String, Trouble> {
    let ctx = metrics.fio_ctx;
    let (perf, proc) = both("fio", counters.fio_switches)?;
    same("fio by perf and by /proc", perf, proc, SWITCHES_FEW)?;
    same("fio by perf and by itself", perf, ctx, OUTSIDE_LOOP)?;
    let mut text = format!("fio switched {ctx} times by itself, {perf} by perf, {proc} by /proc");
    if let Some(daemon) = counters.daemon_switches {
        let (perf, proc) = both("the daemon", daemon)?;
        same("the daemon by perf and by /proc", perf, proc, SYSTEM_FEW)?;
        text += &format!(", the daemon {perf} and {proc}");
    }
    let (perf, proc) = both("the system", counters.system_switches)?;
    same("the system by perf and by /proc", perf, proc, SYSTEM_FEW)?;
    Ok(text + &format!(", the system {perf} and {proc}"))
}

/// The parts of the processors' busy time are not more than all of it.
fn processors(counters: &Counters) -> Result<String, Trouble> {
    let cpu = counters.cpu;
    if cpu.busy_from == BusyFrom::Ticks {
        // Then `missing` has the reason, and nothing can be said of lost ticks.
        return Ok(format!("busy for {:.3} s by clock ticks", cpu.busy_s));
    }
    let Some(fio) = cpu.fio_s else {
        return fail("the CPU time of fio was not counted");
    };
    let daemon = match (counters.daemon_switches, cpu.daemon_s) {
        (Some(_), None) => return fail("the CPU time of the daemon was not counted"),
        (_, daemon) => daemon.unwrap_or(0.0),
    };
    let kernel = cpu.kernel_threads_s;
    let parts = fio + daemon + kernel;
    let whole = cpu.busy_s + cpu.idle_s + cpu.steal_s;
    let text = format!(
        "processors: {:.3} s busy of {whole:.3} s: fio {fio:.3}, daemon {daemon:.3}, kernel threads {kernel:.3}, other {:.3}",
        cpu.busy_s,
        cpu.busy_s - parts
    );
    if parts > cpu.busy_s + IDLE_UNIT || cpu.busy_s > whole {
        return fail(format!("{text}: the parts are more than the whole"));
    }
    Ok(text)
}

/// Whether a system has maps and rings is known of every one.
fn memory(counters: &Counters) -> Result<String, Trouble> {
    match (counters.memory.maps, counters.memory.rings) {
        (Some(maps), Some(rings)) => Ok(format!("{maps} bytes of maps, {rings} of rings")),
        _ => fail(format!("maps or rings: {:?}", counters.memory)),
    }
}

fn requests(site: &Site<'_>, metrics: &Metrics, counters: &Counters) -> Result<String, Trouble> {
    if !counters.missing.is_empty() {
        // A kernel of the user's own may lack what the probes need; the guest's has it.
        if site.agent.options().place == Place::Host {
            return Ok(format!("no probes: {}", counters.missing.join("; ")));
        }
        complete(counters)?;
    }
    let Some(calls) = counters.fio_syscalls.filter(|n| *n > 0) else {
        return fail("no system call of fio was counted");
    };
    let mut text = format!("{calls} system calls of fio");
    if counters.daemon_switches.is_none() {
        return Ok(text);
    }
    let Some(lock) = counters.queue_lock else {
        return fail("the input queue's lock was not watched");
    };
    for request in &counters.requests {
        text += &format!(", {}", one_opcode(request)?);
    }
    let crossings: u64 = counters.requests.iter().map(|r| r.crossings).sum();
    let Some(calls) = counters.daemon_syscalls.filter(|n| *n >= crossings) else {
        return fail(format!(
            "{:?} system calls of the daemon for {crossings} requests",
            counters.daemon_syscalls
        ));
    };
    text += &format!(", {calls} system calls of the daemon");
    if ALL_BY_DAEMON.contains(&site.system) {
        let (ios, data) = data_requests(metrics, counters);
        if ios != data {
            return fail(format!(
                "fio completed {ios} direct requests and {data} READ and WRITE were counted"
            ));
        }
    }
    Ok(text
        + &format!(
            ", the queue's lock contended {} times for {} us",
            lock.contended,
            lock.wait_ns / 1000
        ))
}

/// Reads and writes that fio completed, and READ and WRITE that were counted.
fn data_requests(metrics: &Metrics, counters: &Counters) -> (u64, u64) {
    let ios = [&metrics.read, &metrics.write]
        .into_iter()
        .flatten()
        .map(|op| op.ios)
        .sum();
    let counted = counters
        .requests
        .iter()
        .filter(|r| matches!(r.opcode.as_str(), "READ" | "WRITE"))
        .map(|r| r.crossings)
        .sum();
    (ios, counted)
}

/// Its three histograms hold the same requests, and their times add up.
fn one_opcode(request: &Requests) -> Result<String, Trouble> {
    let Requests {
        opcode,
        crossings,
        queueing,
        held_ns,
        processing,
        total,
    } = request;
    let counts = [queueing.count(), processing.count(), total.count()];
    // FORGET and INTERRUPT have no reply.
    let expected = match opcode.as_str() {
        "FORGET" | "BATCH_FORGET" | "INTERRUPT" => [0; 3],
        _ => [*crossings; 3],
    };
    if counts != expected {
        return fail(format!(
            "{opcode}: {crossings} crossings, and {counts:?} times of queueing, processing and both"
        ));
    }
    let (Some(queueing), Some(processing), Some(total)) =
        (queueing.sum_ns, processing.sum_ns, total.sum_ns)
    else {
        return Ok(format!("{crossings} {opcode}"));
    };
    if *held_ns > queueing {
        return fail(format!(
            "{opcode}: {held_ns} ns before the input queue, in {queueing} ns of queueing"
        ));
    }
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a second or two")]
    let apart = (queueing + processing).abs_diff(total) as f64 / total as f64;
    if apart <= TIME_PART || *crossings < TIME_OF {
        return Ok(format!(
            "{crossings} {opcode} (times {:.2} % apart)",
            apart * 100.0
        ));
    }
    fail(format!(
        "{opcode}: queueing {queueing} ns and processing {processing} ns are not the {total} ns of the whole"
    ))
}
