//! Counting from one moment to another.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use efuse_model::counters::{BusyFrom, Counters, CpuTime, Memory, Switches};

use crate::error::Result;
use crate::proc::{self, Totals};
use crate::{cpus, perf, proc::added};

/// Whom to count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subjects {
    /// fio's process.
    pub fio: u32,
    /// fio's job threads: those whose switches fio itself counts.
    pub jobs: Vec<u32>,
    /// Switches of the jobs that come from counting, not from their work: taken off.
    pub own_switches: u64,
    /// The daemon's process, if there is one.
    pub daemon: Option<u32>,
    /// It is the kernel's own file system: there is nothing else, neither a daemon nor
    /// maps nor rings.
    pub kernel_only: bool,
}

/// What `/proc` said at the start.
#[derive(Debug)]
struct Before {
    fio_cpu: Option<f64>,
    daemon_cpu: Option<f64>,
    kernel: HashMap<i32, u64>,
    jobs: BTreeMap<u32, u64>,
    daemon: BTreeMap<u32, u64>,
    totals: Totals,
    /// Processors, if their idle time is exact.
    processors: Option<usize>,
}

/// Counters that run.
#[derive(Debug)]
pub struct Window {
    subjects: Subjects,
    before: Before,
    since: Instant,
    fio: Option<perf::Switches>,
    daemon: Option<perf::Switches>,
    system: Option<perf::Switches>,
    missing: Vec<String>,
}

/// Counters that are set up and do not run yet.
#[derive(Debug)]
pub struct Prepared {
    subjects: Subjects,
    daemon_threads: Vec<u32>,
    fio: Option<perf::Switches>,
    daemon: Option<perf::Switches>,
    system: Option<perf::Switches>,
    processors: Option<usize>,
    missing: Vec<String>,
}

/// Takes a value or notes why there is none.
fn note<T>(missing: &mut Vec<String>, result: Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(e) => {
            missing.push(e.to_string());
            None
        }
    }
}

impl Prepared {
    /// Sets up what takes time. `perf` says whether perf events can be trusted here, or
    /// why not.
    ///
    /// What cannot be counted is noted, and everything else is.
    #[must_use]
    pub fn new(subjects: Subjects, perf: std::result::Result<(), &str>) -> Self {
        let mut missing = Vec::new();
        let daemon_threads = subjects.daemon.map_or_else(Vec::new, |pid| {
            note(&mut missing, proc::threads(pid)).unwrap_or_default()
        });
        let (mut fio, mut daemon, mut system) = (None, None, None);
        match perf {
            Ok(()) => {
                // What a job starts (the shell of the barrier at its end) is not its work.
                fio = note(
                    &mut missing,
                    perf::Switches::of_threads(&subjects.jobs, false),
                );
                if subjects.daemon.is_some() {
                    daemon = note(
                        &mut missing,
                        perf::Switches::of_threads(&daemon_threads, true),
                    );
                }
                system = note(&mut missing, perf::Switches::of_system());
            }
            Err(reason) => missing.push(reason.to_owned()),
        }
        let processors = match cpus::idle_not_exact() {
            None => note(&mut missing, cpus::online()).map(|all| all.len()),
            Some(reason) => {
                missing.push(format!("exact time of busy processors: {reason}"));
                None
            }
        };
        Self {
            subjects,
            daemon_threads,
            fio,
            daemon,
            system,
            processors,
            missing,
        }
    }

    /// Begins to count.
    #[must_use]
    pub fn start(self) -> Window {
        let Self {
            subjects,
            daemon_threads,
            mut fio,
            mut daemon,
            mut system,
            processors,
            mut missing,
        } = self;
        // The slow look first, the counters that a difference of a few switches would
        // show in last.
        let kernel = note(&mut missing, proc::kernel_threads()).unwrap_or_default();
        let before = Before {
            kernel,
            processors,
            fio_cpu: note(&mut missing, proc::cpu_seconds(subjects.fio)),
            daemon_cpu: subjects
                .daemon
                .and_then(|pid| note(&mut missing, proc::cpu_seconds(pid))),
            daemon: subjects.daemon.map_or_else(BTreeMap::new, |pid| {
                note(&mut missing, proc::switches(pid, &daemon_threads)).unwrap_or_default()
            }),
            jobs: note(&mut missing, proc::switches(subjects.fio, &subjects.jobs))
                .unwrap_or_default(),
            totals: note(&mut missing, proc::totals()).unwrap_or_default(),
        };
        for running in [&mut fio, &mut daemon, &mut system] {
            let started = running.as_mut().map(perf::Switches::start);
            if let Some(Err(e)) = started {
                missing.push(e.to_string());
                *running = None;
            }
        }
        Window {
            subjects,
            before,
            since: Instant::now(),
            fio,
            daemon,
            system,
            missing,
        }
    }
}

impl Window {
    /// Sets up and begins to count.
    #[must_use]
    pub fn open(subjects: Subjects, perf: std::result::Result<(), &str>) -> Self {
        Prepared::new(subjects, perf).start()
    }

    /// Ends counting; what only probes count is left empty.
    #[must_use]
    pub fn close(self) -> Counters {
        let Self {
            subjects,
            before,
            since,
            fio,
            daemon,
            system,
            mut missing,
        } = self;
        let window_s = since.elapsed().as_secs_f64();
        let missing = &mut missing;
        let mut read =
            |counter: Option<perf::Switches>| counter.and_then(|c| note(missing, c.stop()));
        let (system, fio, daemon) = (read(system), read(fio), read(daemon));
        let totals = note(missing, proc::totals());
        let jobs = proc::switches(subjects.fio, &subjects.jobs)
            .and_then(|after| difference("fio's job", &before.jobs, &after));
        let jobs = note(missing, jobs);
        let daemon_proc = subjects.daemon.and_then(|pid| {
            let after = proc::threads(pid).and_then(|all| proc::switches(pid, &all));
            note(
                missing,
                after.and_then(|after| difference("the daemon", &before.daemon, &after)),
            )
        });
        let spent = |before: Option<f64>, pid: Option<u32>, missing: &mut Vec<String>| {
            let after = note(missing, proc::cpu_seconds(pid?))?;
            Some(after - before?)
        };
        let fio_s = spent(before.fio_cpu, Some(subjects.fio), missing);
        let daemon_s = spent(before.daemon_cpu, subjects.daemon, missing);
        let kernel = note(missing, proc::kernel_threads());
        #[expect(clippy::cast_precision_loss, reason = "nanoseconds of one phase")]
        let kernel_threads_s =
            kernel.map_or(0.0, |after| added(&before.kernel, &after) as f64 / 1e9);
        let then = before.totals;
        let now = totals.unwrap_or(then);
        let memory = subjects
            .daemon
            .map(|pid| Memory {
                daemon_peak: note(missing, proc::peak_resident(pid)),
                maps: note(missing, proc::map_memory(pid)),
                rings: note(missing, proc::ring_memory(pid)),
            })
            .unwrap_or_else(|| {
                let none = subjects.kernel_only.then_some(0);
                Memory {
                    daemon_peak: None,
                    maps: none,
                    rings: none,
                }
            });
        let (busy_s, busy_from) = busy(&then, &now, before.processors);
        Counters {
            fio_switches: Switches {
                perf: fio.map(|n| n.saturating_sub(subjects.own_switches)),
                proc: jobs.map(|n| n.saturating_sub(subjects.own_switches)),
            },
            daemon_switches: subjects.daemon.map(|_| Switches {
                perf: daemon,
                proc: daemon_proc,
            }),
            system_switches: Switches {
                perf: system,
                proc: totals.map(|t| t.switches - then.switches),
            },
            cpu: CpuTime {
                fio_s,
                daemon_s,
                kernel_threads_s,
                busy_s,
                busy_from,
                idle_s: now.idle_s - then.idle_s,
                steal_s: now.steal_s - then.steal_s,
            },
            window_s: Some(window_s),
            memory,
            missing: std::mem::take(missing),
            ..Counters::default()
        }
    }
}

/// Time in which processors were busy, seconds, between two looks. Ticks are lost where the
/// clock's interrupt is late, so it is what is left of the time of all processors, if idle
/// time is exact.
#[expect(clippy::cast_precision_loss, reason = "a number of processors")]
fn busy(then: &Totals, now: &Totals, processors: Option<usize>) -> (f64, BusyFrom) {
    let Some(processors) = processors else {
        return (now.busy_s - then.busy_s, BusyFrom::Ticks);
    };
    let all = (now.clock_s - then.clock_s) * processors as f64;
    let other = now.idle_s - then.idle_s + now.steal_s - then.steal_s;
    // Idle time is given in units of 10 ms, so a short phase may have more than there is.
    ((all - other).max(0.0), BusyFrom::Idle)
}

/// Switches between two looks at a process's threads. A thread that came in between
/// counts from its start; the count of one that ended is gone with it, and then there
/// is no sum.
fn difference(of: &str, before: &BTreeMap<u32, u64>, after: &BTreeMap<u32, u64>) -> Result<u64> {
    let ended = before.keys().filter(|t| !after.contains_key(t)).count();
    if ended > 0 {
        return Err(crate::ProbeError::Proc {
            path: format!("/proc/PID/task/*/status of {of}"),
            reason: format!(
                "{ended} threads ended while they were counted, and their counts with them; perf has them"
            ),
        });
    }
    Ok(after
        .iter()
        .map(|(tid, now)| now.saturating_sub(before.get(tid).copied().unwrap_or(0)))
        .sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_came_count_and_one_that_went_leaves_no_sum() {
        let before = BTreeMap::from([(1, 10), (2, 20)]);
        let after = BTreeMap::from([(1, 15), (2, 20), (3, 4)]);
        assert_eq!(difference("x", &before, &after).unwrap(), 9);
        let error = difference("x", &before, &BTreeMap::from([(1, 15)])).unwrap_err();
        assert!(error.to_string().contains("1 threads ended"), "{error}");
    }

    #[test]
    fn busy_is_what_idle_leaves_of_the_clock_whatever_the_ticks_say() {
        let then = Totals {
            clock_s: 10.0,
            busy_s: 3.0,
            idle_s: 7.0,
            steal_s: 1.0,
            switches: 0,
        };
        let now = Totals {
            clock_s: 12.0,
            busy_s: 3.5,
            idle_s: 8.0,
            steal_s: 1.25,
            switches: 0,
        };
        assert_eq!(busy(&then, &now, Some(2)), (2.75, BusyFrom::Idle));
        assert_eq!(busy(&then, &now, None), (0.5, BusyFrom::Ticks));
        assert_eq!(busy(&then, &then, Some(2)), (0.0, BusyFrom::Idle));
    }

    #[test]
    fn this_process_as_its_own_daemon() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: perf events of the kernel side need root");
            return;
        }
        let own = std::process::id();
        let tid = nix::unistd::gettid().as_raw().unsigned_abs();
        let window = Window::open(
            Subjects {
                fio: own,
                jobs: vec![tid],
                own_switches: 100,
                daemon: Some(own),
                kernel_only: false,
            },
            Ok(()),
        );
        for _ in 0..300 {
            std::thread::sleep(std::time::Duration::from_micros(50));
        }
        let counters = window.close();
        let fio = counters.fio_switches;
        let (perf, proc) = (fio.perf.unwrap(), fio.proc.unwrap());
        assert!(perf >= 200 && proc >= perf && proc - perf <= 10, "{fio:?}");
        assert!(counters.system_switches.perf.unwrap() >= perf);
        assert!(counters.system_switches.proc.unwrap() >= perf);
        assert!(counters.daemon_switches.unwrap().perf.unwrap() >= perf);
        assert!(counters.cpu.fio_s.unwrap() >= 0.0 && counters.memory.daemon_peak.unwrap() > 0);
        assert_eq!(
            (counters.memory.maps, counters.memory.rings),
            (Some(0), Some(0))
        );
    }

    #[test]
    fn what_is_missing_is_said_and_the_rest_is_there() {
        let window = Window::open(
            Subjects {
                fio: std::process::id(),
                jobs: Vec::new(),
                own_switches: 0,
                daemon: Some(u32::MAX),
                kernel_only: false,
            },
            Err("no perf here"),
        );
        let counters = window.close();
        assert_eq!(counters.fio_switches.perf, None);
        assert_eq!((counters.memory.maps, counters.memory.rings), (None, None));
        assert!(counters.system_switches.proc.is_some());
        assert!(counters.missing.contains(&"no perf here".to_owned()));
        assert!(
            counters.missing.iter().any(|m| m.contains("4294967295")),
            "{:?}",
            counters.missing
        );
    }
}
