//! A daemon that has nothing to do does nothing: its workers wait in the kernel, and nobody looks at
//! memory or at a clock every now and then.
//!
//! How much processor time it used is no speed: it is next to none on any machine, however slow and
//! busy. What it still does after a load (more workers end after 5 s) is waited for.

use std::thread;
use std::time::Duration;

use efuse_bpf::{Dev, ring_counts};
use efuse_probes::proc;

use super::blocked::workers;
use super::channels::{loaded, mount, possible, settled, unmount};
use super::{Site, Trouble, fail};

const WORKERS: usize = 4;
const WINDOW: Duration = Duration::from_secs(2);
/// Seconds of processor time in a window: less than a tick of `/proc/PID/stat`, and what a thread needs that
/// wakes up 100 times a second and looks for requests for 50 us.
const MOST: f64 = 0.005;
/// Wake-ups and the like of all threads in a window.
const SWITCHES: u64 = 20;
/// Windows: what a load leaves behind may spoil the first ones.
const TRIES: u32 = 5;

/// What the daemon has done so far.
struct Seen {
    cpu: f64,
    switches: u64,
    requests: u64,
    sleepers: u64,
    workers: u64,
}

fn look(dev: Dev, pid: u32) -> Result<Seen, Trouble> {
    let channels = ring_counts(dev)?;
    let sum = |name: &str| -> u64 { channels.iter().filter_map(|of| of.get(name)).sum() };
    let threads = proc::threads(pid)?;
    Ok(Seen {
        cpu: proc::cpu_seconds(pid)?,
        switches: proc::switches(pid, &threads)?.values().sum(),
        requests: sum("requests") + sum("forgets"),
        sleepers: sum("sleepers"),
        workers: workers(pid)? as u64,
    })
}

pub(super) fn run(site: &mut Site<'_>) -> Result<String, Trouble> {
    site.unmount()?;
    let mounted = mount(site, WORKERS, &[])?;
    let pid = mounted.daemon_pid().expect("it has a daemon");
    let dev = Dev::of_mount(mounted.root())?;
    let start = look(dev, pid)?;
    loaded(site, mounted.root())?;
    settled(site, &mounted, possible()?)?;
    let busy = look(dev, pid)?.cpu - start.cpu;
    // Else it is not the daemon's time that is looked at.
    if busy < MOST {
        return fail(format!("{busy:.4} s of processor time under load"));
    }
    let idle = idle(site, dev, pid)?;
    unmount(site, mounted)?;
    site.mount()?;
    Ok(format!("{busy:.2} s of processor time under load, {idle}"))
}

/// Waits for a window in which the daemon does nothing.
fn idle(site: &Site<'_>, dev: Dev, pid: u32) -> Result<String, Trouble> {
    let mut said = String::new();
    for _ in 0..TRIES {
        site.limit.check()?;
        let before = look(dev, pid)?;
        thread::sleep(WINDOW);
        let after = look(dev, pid)?;
        let cpu = after.cpu - before.cpu;
        let requests = after.requests - before.requests;
        // The threads of one that has ended since took theirs along.
        let switches = after.switches.saturating_sub(before.switches);
        said = format!(
            "{:.2} ms and {switches} switches in {} s in which {} of {} workers slept, {requests} requests",
            cpu * 1e3,
            WINDOW.as_secs(),
            after.sleepers,
            after.workers
        );
        let asleep = |seen: &Seen| seen.sleepers == seen.workers;
        if requests == 0
            && asleep(&before)
            && asleep(&after)
            && before.workers == after.workers
            && cpu <= MOST
            && switches <= SWITCHES
        {
            return Ok(said);
        }
    }
    fail(format!("never idle; in the end {said}"))
}
