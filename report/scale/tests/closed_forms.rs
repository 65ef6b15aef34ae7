//! The model against formulas that are known to be right.

use efuse_scale::{Design, Load, Measured, Model, Outcome, Times, Work, simulate};

const SERVICE_NS: f64 = 100_000.0;

fn open(cores: u32, design: Design, workers: u32, load: f64, service: Times) -> Model {
    Model {
        cores,
        design,
        workers,
        load: Load::Open {
            per_second: load * f64::from(workers) * 1e9 / service.mean(),
        },
        service,
        work: None,
        lock: Times::Fixed(0.0),
    }
}

#[track_caller]
fn close(got: f64, want: f64, within: f64) {
    assert!((got / want - 1.0).abs() < within, "{got} is not {want}");
}

/// Mean wait in M/M/c by Erlang's formula C, in times of service.
fn erlang_c(workers: u32, load: f64) -> f64 {
    let c = f64::from(workers);
    let offered = c * load;
    // Erlang's B by recursion, which does not overflow.
    let b = (1..=workers).fold(1.0, |b, n| offered * b / (f64::from(n) + offered * b));
    let waits = b / (1.0 - load + load * b);
    waits / (c * (1.0 - load))
}

fn run(model: &Model) -> Outcome {
    simulate(model, 400_000, 7)
}

#[test]
fn one_queue_is_m_m_c() {
    for (workers, load) in [(1, 0.5), (1, 0.8), (4, 0.7), (4, 0.9), (32, 0.9)] {
        let service = Times::Exponential(SERVICE_NS);
        let out = run(&open(workers, Design::OneQueue, workers, load, service));
        close(out.queueing_ns, erlang_c(workers, load) * SERVICE_NS, 0.08);
        close(out.total_ns - out.queueing_ns, SERVICE_NS, 0.02);
    }
}

#[test]
fn queues_of_their_own_are_m_m_1_and_m_m_c_each() {
    for (cores, workers, load) in [(8, 8, 0.5), (8, 8, 0.8), (4, 16, 0.8)] {
        let service = Times::Exponential(SERVICE_NS);
        let out = run(&open(cores, Design::PerCore, workers, load, service));
        let each = erlang_c(workers / cores, load);
        close(out.queueing_ns, each * SERVICE_NS, 0.05);
    }
}

/// Pollaczek and Khinchine: the wait of M/G/1 depends on the second moment of service alone.
#[test]
fn one_worker_is_m_g_1() {
    let measured = [(20_000, 900), (40_000, 80), (1_000_000, 20)];
    for service in [
        Times::Fixed(SERVICE_NS),
        Times::histogram(&measured, |low| low / 16).unwrap(),
    ] {
        for load in [0.5, 0.7] {
            let out = run(&open(1, Design::OneQueue, 1, load, service.clone()));
            let rate = load / service.mean();
            let want = rate * service.second_moment() / (2.0 * (1.0 - load));
            close(out.queueing_ns, want, 0.06);
        }
    }
}

/// The machine repairman, M/M/c//N: callers that think, workers that serve.
#[test]
fn callers_that_wait_are_the_machine_repairman() {
    for (callers, workers, think) in [(10, 1, 5.0), (12, 4, 1.0), (3, 8, 0.5), (64, 10, 2.0)] {
        let model = Model {
            cores: 1,
            design: Design::OneQueue,
            workers,
            load: Load::Closed {
                callers,
                threads: callers,
                think: Times::Exponential(think * SERVICE_NS),
            },
            service: Times::Exponential(SERVICE_NS),
            work: None,
            lock: Times::Fixed(0.0),
        };
        let out = run(&model);
        let (served, at_workers) = repairman(callers, workers, think);
        close(out.per_second, served * 1e9 / SERVICE_NS, 0.02);
        close(out.in_flight, at_workers, 0.02);
    }
}

/// Mean number of busy workers and of those at the workers, by the state probabilities of the birth
/// and death process; thinking takes so many times of service.
fn repairman(callers: u32, workers: u32, think: f64) -> (f64, f64) {
    let mut p = vec![1.0];
    for n in 1..=callers {
        let birth = f64::from(callers - n + 1) / think;
        let death = f64::from(n.min(workers));
        p.push(p[n as usize - 1] * birth / death);
    }
    let sum: f64 = p.iter().sum();
    let mean = |of: &dyn Fn(f64) -> f64| -> f64 {
        let weighted = p.iter().enumerate().map(|(n, p)| of(n as f64) * p / sum);
        weighted.sum()
    };
    (mean(&|n| n.min(f64::from(workers))), mean(&|n| n))
}

/// Processors: a product-form network, of which only the demands count. Each request visits them
/// twice, as its caller and as its worker, and the disk once, where nobody waits.
#[test]
fn processors_are_the_machine_repairman_with_both_visits() {
    for (cores, callers, disk) in [(1, 4, 2.0), (2, 16, 4.0), (8, 24, 1.0), (4, 3, 3.0)] {
        let visit = SERVICE_NS / 2.0;
        let model = Model {
            cores,
            design: Design::OneQueue,
            workers: callers,
            load: Load::Closed {
                callers,
                threads: callers,
                think: Times::Fixed(0.0),
            },
            service: Times::Exponential(disk * SERVICE_NS),
            work: Some(Work {
                caller: Times::Exponential(visit),
                worker: Times::Exponential(visit),
            }),
            lock: Times::Fixed(0.0),
        };
        let out = run(&model);
        let (busy, _) = repairman(callers, cores, disk);
        close(out.per_second, busy * 1e9 / SERVICE_NS, 0.02);
        close(out.processors_busy, busy / f64::from(cores), 0.02);
    }
}

/// A lock that all want ends at one holder after the other: two holds a request.
#[test]
fn one_lock_is_a_ceiling_and_locks_of_their_own_are_none() {
    let hold = 1000.0;
    let model = |design| Model {
        cores: 64,
        design,
        workers: 64,
        load: Load::Closed {
            callers: 128,
            threads: 128,
            think: Times::Fixed(0.0),
        },
        service: Times::Exponential(10_000.0),
        work: None,
        lock: Times::Fixed(hold),
    };
    let one = run(&model(Design::OneQueue));
    close(one.per_second, 1e9 / (2.0 * hold), 0.01);
    close(one.lock_busy, 1.0, 0.01);
    assert!(one.contended > 0.95, "{one:?}");
    let own = run(&model(Design::PerCore));
    assert!(own.per_second > 8.0 * one.per_second, "{own:?}");
    // Sixty-four times as many workers as one core has.
    let single = run(&Model {
        cores: 1,
        workers: 1,
        load: Load::Closed {
            callers: 2,
            threads: 2,
            think: Times::Fixed(0.0),
        },
        ..model(Design::PerCore)
    });
    close(own.per_second, 64.0 * single.per_second, 0.02);
}

/// One thread for all callers is a worker like any other: with enough processors, a closed network
/// of two queues, M/M/1 and M/M/1, where the share of time that a queue is busy is known.
#[test]
fn callers_of_one_thread_wait_for_each_other() {
    for (callers, ratio) in [(4, 1.0_f64), (16, 1.0), (8, 0.5), (8, 2.0)] {
        let model = Model {
            cores: 8,
            design: Design::OneQueue,
            workers: 1,
            load: Load::Closed {
                callers,
                threads: 1,
                think: Times::Fixed(0.0),
            },
            service: Times::Fixed(0.0),
            work: Some(Work {
                caller: Times::Exponential(ratio * SERVICE_NS),
                worker: Times::Exponential(SERVICE_NS),
            }),
            lock: Times::Fixed(0.0),
        };
        let out = run(&model);
        // M/M/1/N as seen from the worker: the probability that nobody is there.
        let load = 1.0 / ratio;
        let sum: f64 = (0..=callers).map(|n| load.powi(n as i32)).sum();
        close(out.per_second, (1.0 - 1.0 / sum) * 1e9 / SERVICE_NS, 0.02);
    }
}

/// Without a disk and with more callers than processors, these are always busy, and a core's share of
/// requests is what its processor manages.
#[test]
fn a_measured_load_is_scaled_with_the_cores() {
    let measured = Measured {
        cores: 2,
        callers: 32,
        threads: 8,
        workers: 10,
        caller_ns: 60_000.0,
        worker_ns: 40_000.0,
        service: Times::Fixed(0.0),
        lock_ns: 500.0,
    };
    for design in [Design::OneQueue, Design::PerCore] {
        for cores in [1, 2, 4] {
            let model = measured.on(cores, design);
            assert_eq!((model.cores, model.workers), (cores, 5 * cores));
            let out = run(&model);
            close(out.per_second, f64::from(cores) * 1e9 / 100_000.0, 0.02);
            close(out.processors_busy, 1.0, 0.01);
        }
    }
    assert_eq!(measured.on(64, Design::PerCore).workers, 320);
}
