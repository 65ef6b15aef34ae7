//! The daemon is killed in the middle of I/O.

use std::fs;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::requests::Requests;
use super::{Site, Trouble, fail};
use crate::error::AgentError;
use crate::sys;

const THREADS: u32 = 4;
/// All requests have to end within this after the kill.
const PATIENCE: Duration = Duration::from_secs(20);

/// As often as the effort says.
pub(super) fn run(site: &mut Site<'_>) -> Result<String, Trouble> {
    let before = Requests::before()?;
    let (mut requests, mut worst, mut error) = (0, Duration::ZERO, String::new());
    for _ in 0..site.effort {
        let (ended, slowest, how) = once(site)?;
        requests += ended;
        worst = worst.max(slowest);
        error = how;
    }
    let left = match before {
        Some(before) => format!("; {}", before.settle()?),
        None => String::new(),
    };
    Ok(format!(
        "{} kills: {requests} requests ended {} ms after them at most with {error}; unmounted, \
         mounted again{left}",
        site.effort,
        worst.as_millis(),
    ))
}

/// How many requests ended, how long after the kill the last one did, and with what.
fn once(site: &mut Site<'_>) -> Result<(usize, Duration, String), Trouble> {
    let root = site.root.clone();
    let Some(pid) = site.mounted()?.daemon_pid() else {
        return Err(Trouble::Skip(format!("{} has no daemon", site.system)));
    };
    let pid = Pid::from_raw(i32::try_from(pid).expect("a process number"));
    let rounds = AtomicU32::new(0);
    let (mut killed, mut worst) = (None, Duration::ZERO);
    let mut errors = Vec::new();
    thread::scope(|scope| -> Result<(), Trouble> {
        let threads: Vec<_> = (0..THREADS)
            .map(|n| {
                let path = root.join(format!("busy{n}"));
                let rounds = &rounds;
                let limit = site.limit;
                scope.spawn(move || {
                    loop {
                        let round = fs::write(&path, vec![b'x'; 300_000])
                            .and_then(|()| fs::read(&path))
                            .and_then(|bytes| fs::remove_file(&path).map(|()| bytes.len()));
                        rounds.fetch_add(1, Ordering::Relaxed);
                        match round {
                            Ok(300_000) if limit.check().is_ok() => {}
                            Ok(n) => {
                                return (
                                    Instant::now(),
                                    io::Error::other(format!("read {n} bytes")),
                                );
                            }
                            Err(e) => return (Instant::now(), e),
                        }
                    }
                })
            })
            .collect();
        // All of them are in the middle of something.
        while rounds.load(Ordering::Relaxed) < 5 * THREADS && site.limit.check().is_ok() {
            thread::sleep(Duration::from_millis(2));
        }
        let now = Instant::now();
        kill(pid, Signal::SIGKILL).map_err(AgentError::errno("daemon", "kill"))?;
        killed = Some(now);
        for thread in threads {
            let (end, error) = thread.join().expect("no panic in it");
            worst = worst.max(end.saturating_duration_since(now));
            errors.push(error);
        }
        Ok(())
    })?;
    if killed.is_none() || worst > PATIENCE {
        return fail(format!("a request ended only {worst:?} after the kill"));
    }
    for error in &errors {
        match error.raw_os_error() {
            // A page that could not be filled is an EIO to whoever waited for it,
            // whatever the reason.
            Some(libc::ENOTCONN | libc::ECONNABORTED | libc::EIO) => {}
            // Mainline cancels the io_uring commands that requests lie in (seen on 6.18).
            Some(libc::ECANCELED) if site.system == "fuse-uring" => {}
            _ => {
                return fail(format!(
                    "a request ended with {error:?} after the kill, not with ENOTCONN, ECONNABORTED or EIO"
                ));
            }
        }
    }
    match fs::metadata(root.join("never-seen")) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOTCONN | libc::ECONNABORTED)) => {}
        other => {
            return fail(format!(
                "a lookup after the kill gives {other:?}, not ENOTCONN"
            ));
        }
    }
    // It is known to be dead, so the error that says so is what is wanted.
    match site.unmount() {
        Err(Trouble::Fail(text)) if text.contains("SIGKILL") => {}
        Err(other) => return Err(other),
        Ok(()) => return fail("the death of the daemon was not noticed"),
    }
    if sys::mounts()?.iter().any(|m| m.point == root) {
        return fail(format!("{} is still mounted", root.display()));
    }
    // The lower file system is not harmed: the system mounts again and works.
    site.mount()?;
    let path = site.root.join("after");
    fs::write(&path, "works").map_err(AgentError::io(&path, "write after a new mount"))?;
    Ok((errors.len(), worst, errors[0].to_string()))
}
