//! Context switches by perf's software event.
//!
//! Two defaults of the interface would read 0 or too little: the kernel side is left out
//! (a switch happens there and nowhere else), and threads that start later are not
//! followed. Neither is left to a default here, and [`self_test`] checks what comes out.

use std::thread;
use std::time::Duration;

use perf_event::events::Software;
use perf_event::{Builder, Counter};

use crate::error::{ProbeError, Result};

/// Sleeps of the self-test.
const SLEEPS: u64 = 100;
/// Long enough that a slow, busy machine has gone to sleep before the time is up: of
/// sleeps of 50 us an emulated one with neighbours was awake for every seventh.
const SLEEP: Duration = Duration::from_millis(2);
/// What it may read: a sleep is one switch, and a busy machine adds some.
const LOW: u64 = 90;
const HIGH: u64 = 130;

/// Counters of context switches that are read as one sum.
#[derive(Debug)]
pub struct Switches(Vec<(String, Counter)>);

fn failed(of: &str, action: &'static str) -> impl FnOnce(std::io::Error) -> ProbeError {
    let of = of.to_owned();
    move |source| ProbeError::Perf { of, action, source }
}

fn builder(inherit: bool) -> Builder<'static> {
    let mut builder = Builder::new(Software::CONTEXT_SWITCHES);
    builder
        .exclude_kernel(false)
        .exclude_hv(false)
        .inherit(inherit)
        .enabled(false);
    builder
}

impl Switches {
    /// Of these threads; with `inherit` also of every thread and process that they start
    /// from now on. Nothing is counted before [`Switches::start`].
    ///
    /// # Errors
    /// If an event cannot be opened. A thread that has ended already is left out.
    pub fn of_threads(threads: &[u32], inherit: bool) -> Result<Self> {
        let mut counters = Vec::with_capacity(threads.len());
        for &tid in threads {
            let of = format!("thread {tid}");
            let pid = i32::try_from(tid).map_err(|_| ProbeError::Perf {
                of: of.clone(),
                action: "open it",
                source: std::io::ErrorKind::InvalidInput.into(),
            })?;
            match builder(inherit).observe_pid(pid).build() {
                Ok(counter) => counters.push((of, counter)),
                Err(e) if e.raw_os_error() == Some(nix::libc::ESRCH) => {}
                Err(e) => return Err(failed(&of, "open it")(e)),
            }
        }
        Ok(Self(counters))
    }

    /// Of everything on every processor that is online.
    ///
    /// # Errors
    /// If an event cannot be opened.
    pub fn of_system() -> Result<Self> {
        let mut counters = Vec::new();
        for cpu in crate::cpus::online()? {
            let of = format!("processor {cpu}");
            let counter = builder(false)
                .any_pid()
                .one_cpu(cpu)
                .build()
                .map_err(failed(&of, "open it"))?;
            counters.push((of, counter));
        }
        Ok(Self(counters))
    }

    /// Begins counting.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn start(&mut self) -> Result<()> {
        for (of, counter) in &mut self.0 {
            counter.enable().map_err(failed(of, "start it"))?;
        }
        Ok(())
    }

    /// Ends counting; the sum of all.
    ///
    /// # Errors
    /// If a counter cannot be stopped or read.
    pub fn stop(mut self) -> Result<u64> {
        for (of, counter) in &mut self.0 {
            counter.disable().map_err(failed(of, "stop it"))?;
        }
        let mut sum = 0;
        for (of, counter) in &mut self.0 {
            sum += counter.read().map_err(failed(of, "read it"))?;
        }
        Ok(sum)
    }
}

/// Sleeps a known number of times and looks whether the counter says so.
///
/// # Errors
/// If there are no perf events here, or they read something else: then their figures
/// must not be used.
pub fn self_test() -> Result<u64> {
    // In a thread of its own: that thread does nothing but sleep.
    let slept = thread::spawn(|| {
        let own = nix::unistd::gettid().as_raw().unsigned_abs();
        let mut counter = Switches::of_threads(&[own], true)?;
        counter.start()?;
        for _ in 0..SLEEPS {
            thread::sleep(SLEEP);
        }
        counter.stop()
    });
    let read = slept.join().map_err(|_| ProbeError::Perf {
        of: "the self-test".into(),
        action: "run it",
        source: std::io::ErrorKind::Other.into(),
    })??;
    if (LOW..=HIGH).contains(&read) {
        Ok(read)
    } else {
        Err(ProbeError::SelfTest {
            slept: SLEEPS,
            read,
            low: LOW,
            high: HIGH,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Perf events need privileges (`kernel.perf_event_paranoid`).
    fn allowed() -> bool {
        let allowed = nix::unistd::geteuid().is_root();
        if !allowed {
            eprintln!("skipped: perf events of the kernel side need root");
        }
        allowed
    }

    #[test]
    fn a_hundred_sleeps_read_about_a_hundred() {
        if allowed() {
            let read = self_test().unwrap();
            assert!((LOW..=HIGH).contains(&read), "{read}");
        }
    }

    #[test]
    fn threads_started_later_are_followed() {
        if !allowed() {
            return;
        }
        let own = nix::unistd::gettid().as_raw().unsigned_abs();
        let mut with = Switches::of_threads(&[own], true).unwrap();
        with.start().unwrap();
        thread::spawn(|| {
            for _ in 0..50 {
                thread::sleep(Duration::from_micros(50));
            }
        })
        .join()
        .unwrap();
        assert!(with.stop().unwrap() >= 50);
    }

    #[test]
    fn the_system_switches_at_least_as_often_as_one_thread() {
        if !allowed() {
            return;
        }
        let mut system = Switches::of_system().unwrap();
        system.start().unwrap();
        for _ in 0..50 {
            thread::sleep(Duration::from_micros(50));
        }
        assert!(system.stop().unwrap() >= 50);
    }

    #[test]
    fn a_thread_that_is_gone_is_left_out() {
        if allowed() {
            let tid = thread::spawn(|| nix::unistd::gettid().as_raw().unsigned_abs())
                .join()
                .unwrap();
            // Joined, but the kernel may take a moment to let go of the thread.
            while std::path::Path::new(&format!("/proc/self/task/{tid}")).exists() {
                thread::yield_now();
            }
            let counters = Switches::of_threads(&[tid], true).unwrap();
            assert_eq!(counters.stop().unwrap(), 0);
        }
    }
}
