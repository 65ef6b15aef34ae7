//! Invented counters: whole for some systems, with gaps for others.

use efuse_model::attempt::{Metrics, OpMetrics, Outcome};
use efuse_model::counters::{
    BusyFrom, Counters, CpuTime, LockContention, Memory, Probes, Requests, Switches,
};
use efuse_model::histogram::{Histogram, bucket, lower_bound};

use super::{Fixture, done};

/// A distribution around a median with a long tail: fixed shares of `n` values at fixed
/// multiples.
pub fn spread(n: u64, median_ns: f64) -> Histogram {
    const SHAPE: [(f64, u64); 9] = [
        (0.4, 50),
        (0.6, 150),
        (0.8, 200),
        (1.0, 200),
        (1.3, 200),
        (1.8, 110),
        (3.0, 80),
        (6.0, 9),
        (30.0, 1),
    ];
    let mut h = Histogram::default();
    let (mut sum, mut max) = (0, 0);
    for (factor, share) in SHAPE {
        let ns = (median_ns * factor) as u64;
        let mut count = n * share / 1000;
        if factor == 1.0 {
            // What the other shares round away.
            count += n - SHAPE.iter().map(|(_, s)| n * s / 1000).sum::<u64>();
        }
        if count == 0 {
            continue;
        }
        sum += ns * count;
        max = max.max(ns);
        h.merge(&Histogram {
            bins: vec![(lower_bound(bucket(ns)), count)],
            sum_ns: None,
            max_ns: None,
        });
    }
    h.sum_ns = Some(sum);
    h.max_ns = Some(max);
    h
}

/// Counters that hang together: per operation of fio `fio` switches of it, and of a
/// daemon if there is one.
pub fn counters(operations: u64, fio: f64, daemon: Option<f64>) -> Counters {
    let n = |per_op: f64| (operations as f64 * per_op) as u64;
    let twice = |per_op| Switches {
        perf: Some(n(per_op)),
        proc: Some(n(per_op) + 3),
    };
    let daemon_part = daemon.unwrap_or(0.0);
    Counters {
        fio_switches: twice(fio),
        daemon_switches: daemon.map(twice),
        system_switches: twice(fio + daemon_part + 0.75),
        fio_syscalls: None,
        daemon_syscalls: None,
        cpu: CpuTime {
            fio_s: Some(operations as f64 * 40e-6),
            daemon_s: daemon.map(|d| operations as f64 * d * 60e-6),
            kernel_threads_s: operations as f64 * 15e-6,
            busy_from: BusyFrom::Idle,
            busy_s: operations as f64 * (70e-6 + daemon_part * 60e-6),
            idle_s: 2.0,
            steal_s: 0.05,
        },
        window_s: None,
        memory: Memory {
            daemon_peak: daemon.map(|_| 14 << 20),
            maps: None,
            rings: None,
        },
        requests: vec![],
        served: vec![],
        forgotten: None,
        adaptive: None,
        channels: vec![],
        queue_lock: None,
        missing: vec![],
    }
}

/// What probes add: system calls, and for systems with a daemon its requests.
pub fn probe(counters: &mut Counters, operations: u64, median_ns: f64) {
    counters.fio_syscalls = Some(operations * 2);
    if counters.daemon_switches.is_none() {
        return;
    }
    counters.daemon_syscalls = Some(operations * 3);
    counters.queue_lock = Some(LockContention {
        contended: operations / 20,
        wait_ns: operations * 55,
    });
    let request = |opcode: &str, n: u64, scale: f64| {
        let queueing = spread(n, median_ns * scale * 0.6);
        let processing = spread(n, median_ns * scale);
        // Measured on its own: 0.1 % off the sum.
        let mut total = spread(n, median_ns * scale * 1.6);
        let sum = queueing.sum_ns.unwrap() + processing.sum_ns.unwrap();
        total.sum_ns = Some(sum + sum / 1000);
        Requests {
            opcode: opcode.into(),
            crossings: n,
            // A tenth of queueing.
            held_ns: queueing.sum_ns.unwrap() / 10,
            queueing,
            processing,
            total,
        }
    };
    let forget = Requests {
        opcode: "FORGET".into(),
        crossings: operations / 500,
        ..Requests::default()
    };
    counters.forgotten = Some(operations / 500);
    counters.requests = vec![
        forget,
        request("GETATTR", operations / 20, 0.3),
        request("READ", operations * 7 / 10, 1.0),
        request("STATFS", operations / 1000, 0.2),
        request("WRITE", operations * 3 / 10, 1.7),
    ];
}

/// Gives a direction fio's bins.
pub fn bins(op: &mut OpMetrics) {
    let percentiles = &op.clat.percentiles;
    let p50 = percentiles.first().map_or(op.clat.mean_us, |(_, us)| *us);
    op.clat_bins = spread(op.ios, p50 * 1000.0);
    op.clat.max_us = op.clat_bins.max_ns.map_or(0.0, |ns| ns as f64 / 1000.0);
}

pub fn metrics(outcome: &mut Outcome) -> Option<&mut Metrics> {
    match outcome {
        Outcome::Done { metrics, .. } => Some(metrics),
        Outcome::Failed { .. } => None,
    }
}

fn operations(m: &Metrics) -> u64 {
    [&m.read, &m.write]
        .into_iter()
        .flatten()
        .map(|op| op.ios)
        .sum()
}

/// A finished attempt with counters and bins.
pub fn done_counted(
    read: Option<f64>,
    write: Option<f64>,
    fio: f64,
    daemon: Option<f64>,
) -> Outcome {
    let mut outcome = done(read, write);
    fill(&mut outcome, fio, daemon, Probes::Off);
    outcome
}

/// Gives an outcome counters and bins, and what probes count where they ran.
pub fn fill(outcome: &mut Outcome, fio: f64, daemon: Option<f64>, probes: Probes) {
    let Some(m) = metrics(outcome) else { return };
    for op in [&mut m.read, &mut m.write].into_iter().flatten() {
        bins(op);
    }
    let operations = operations(m);
    let median_ns = m
        .read
        .as_ref()
        .map_or(1e6, |r| r.clat.mean_us * 1000.0 / 10.0);
    let mut c = counters(operations, fio, daemon);
    m.fio_ctx = c.fio_switches.perf.unwrap_or(0) + 5;
    if !probes.is_off() {
        probe(&mut c, operations, median_ns);
    }
    // Two processors for as long as fio ran.
    c.cpu.idle_s = 2.0 * m.runtime_ms / 1e3 - c.cpu.busy_s - c.cpu.steal_s;
    m.counters = Some(c);
}

/// Fills a run that holds every kind of thing.
pub fn everything(f: &mut Fixture) {
    let daemon = |id: &str| (id != "ext4").then_some(2.0);
    let mut probed = Vec::new();
    let mut twins = Vec::new();
    for a in &mut f.attempts {
        let Some(m) = metrics(&mut a.outcome) else {
            continue;
        };
        if a.system == "fuse" {
            let rate = |op: &Option<OpMetrics>| op.as_ref().map(|o| o.iops);
            let off = 1.0 + 0.03 * (f64::from(a.repetition) - 1.0);
            let (read, write) = (rate(&m.read), rate(&m.write));
            let mut outcome = done(read.map(|v| v * off), write.map(|v| v / off));
            fill(&mut outcome, 1.1, Some(2.0), Probes::Off);
            twins.push((a.test.clone(), a.repetition, outcome));
        }
        if a.repetition < 2 && a.test != "M1" && a.system != "fuse-passthrough" {
            let rate = |op: &Option<OpMetrics>| op.as_ref().map(|o| o.iops * 0.93);
            let mut outcome = done(rate(&m.read), rate(&m.write));
            fill(&mut outcome, 1.1, daemon(&a.system), Probes::On);
            probed.push((a.test.clone(), a.system.clone(), a.repetition, outcome));
        }
        // Stored before there were counters.
        if a.system == "efuse-bare" {
            continue;
        }
        let system = a.system.clone();
        fill(&mut a.outcome, 1.1, daemon(&system), Probes::Off);
        let m = metrics(&mut a.outcome).unwrap();
        let c = m.counters.as_mut().unwrap();
        if system.starts_with("my-team") {
            c.daemon_switches = Some(Switches::default());
            c.cpu.daemon_s = None;
            c.missing = vec![
                "switches and CPU time of the daemon: it ended before it was read <pid 77>".into(),
            ];
        }
        if system == "libfuse" {
            // A counter that went wrong.
            c.fio_switches.proc = c.fio_switches.perf.map(|n| n / 2);
        }
    }
    for (test, repetition, outcome) in twins {
        f.attempt(&test, "fuse@twin", repetition, outcome);
    }
    for (test, system, repetition, outcome) in probed {
        f.attempt_as(&test, &system, repetition, Probes::On, outcome);
    }
    f.attempt_as(
        "T1",
        "fuse-passthrough",
        0,
        Probes::On,
        Outcome::Failed {
            phase: efuse_model::attempt::Phase::Measure,
            reason: "the probe on fuse_dev_do_read cannot be attached: no such symbol".into(),
        },
    );
}
