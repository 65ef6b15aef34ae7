//! The same from `/proc`, and what only it has: CPU time and memory.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use procfs::process::Process;
use procfs::{CurrentSI as _, KernelStats};

use crate::error::{ProbeError, Result};

/// `PF_KTHREAD` of `include/linux/sched.h`: a thread of the kernel's own.
const PF_KTHREAD: u32 = 0x0020_0000;

fn failed(path: impl Into<String>) -> impl FnOnce(procfs::ProcError) -> ProbeError {
    let path = path.into();
    move |e| ProbeError::Proc {
        path,
        reason: e.to_string(),
    }
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> ProbeError {
    let path = path.display().to_string();
    move |e| ProbeError::Proc {
        path,
        reason: e.to_string(),
    }
}

/// Threads of a process, ascending.
///
/// # Errors
/// If there is no such process.
pub fn threads(pid: u32) -> Result<Vec<u32>> {
    let path = format!("/proc/{pid}/task");
    let path = Path::new(&path);
    let entries = fs::read_dir(path).map_err(io(path))?;
    let mut all: Vec<u32> = entries
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse().ok())
        .collect();
    all.sort_unstable();
    Ok(all)
}

/// The threads of a process that have a child: those that wait in `system(3)`.
///
/// # Errors
/// If there is no such process, or the kernel does not list children by thread
/// (`CONFIG_PROC_CHILDREN`).
pub fn threads_with_children(pid: u32) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for tid in threads(pid)? {
        let path = format!("/proc/{pid}/task/{tid}/children");
        let path = Path::new(&path);
        if !fs::read_to_string(path)
            .map_err(io(path))?
            .trim()
            .is_empty()
        {
            found.push(tid);
        }
    }
    Ok(found)
}

/// Context switches of threads since they started, voluntary and not, by thread. A
/// thread that has ended is not in it.
///
/// # Errors
/// If the kernel does not say them.
pub fn switches(pid: u32, threads: &[u32]) -> Result<BTreeMap<u32, u64>> {
    let mut all = BTreeMap::new();
    for &tid in threads {
        let path = format!("/proc/{pid}/task/{tid}/status");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e)
                if e.kind() == std::io::ErrorKind::NotFound
                    || e.raw_os_error() == Some(nix::libc::ESRCH) =>
            {
                continue;
            }
            Err(e) => return Err(io(Path::new(&path))(e)),
        };
        let sum = switches_of(&text).ok_or_else(|| ProbeError::Proc {
            path,
            reason: "no voluntary_ctxt_switches and nonvoluntary_ctxt_switches".into(),
        })?;
        all.insert(tid, sum);
    }
    Ok(all)
}

fn switches_of(status: &str) -> Option<u64> {
    let field = |name: &str| {
        status
            .lines()
            .find_map(|l| l.strip_prefix(name)?.trim().parse::<u64>().ok())
    };
    Some(field("voluntary_ctxt_switches:")? + field("nonvoluntary_ctxt_switches:")?)
}

/// CPU time of a process with all its threads, those that have ended included, seconds;
/// by its CPU clock, which counts nanoseconds where `/proc/PID/stat` counts ticks.
///
/// # Errors
/// If there is no such process.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let failed = |e: nix::Error| ProbeError::Proc {
        path: format!("CPU clock of process {pid}"),
        reason: e.desc().into(),
    };
    let id = i32::try_from(pid).map_err(|_| failed(nix::Error::ESRCH))?;
    let clock = clock_getcpuclockid(Pid::from_raw(id)).map_err(failed)?;
    clock_gettime(clock).map(seconds_of).map_err(failed)
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn seconds_of(time: TimeSpec) -> f64 {
    time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9
}

/// System calls that read and write, and their bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfers {
    /// `read(2)` and its kind.
    pub reads: u64,
    /// Bytes that they returned.
    pub read_bytes: u64,
    /// `write(2)` and its kind.
    pub writes: u64,
    /// Bytes that they took.
    pub written_bytes: u64,
}

impl Transfers {
    /// What has been added to an earlier figure.
    #[must_use]
    pub const fn since(self, before: Self) -> Self {
        Self {
            reads: self.reads - before.reads,
            read_bytes: self.read_bytes - before.read_bytes,
            writes: self.writes - before.writes,
            written_bytes: self.written_bytes - before.written_bytes,
        }
    }
}

/// What a process with all its threads, those that have ended included, has read and written.
///
/// # Errors
/// If there is no such process, or the kernel does not count it (`CONFIG_TASK_IO_ACCOUNTING`).
pub fn transfers(pid: u32) -> Result<Transfers> {
    let path = format!("/proc/{pid}/io");
    let failed_at = |e| failed(path.clone())(e);
    let id = i32::try_from(pid).unwrap_or(-1);
    let io = Process::new(id).and_then(|p| p.io()).map_err(failed_at)?;
    Ok(Transfers {
        reads: io.syscr,
        read_bytes: io.rchar,
        writes: io.syscw,
        written_bytes: io.wchar,
    })
}

/// Time that each kernel thread has spent on a processor, nanoseconds, by thread. From
/// `schedstat`; from the ticks of `stat` where the kernel has none.
///
/// # Errors
/// If `/proc` cannot be listed.
pub fn kernel_threads() -> Result<HashMap<i32, u64>> {
    let tick = 1_000_000_000 / procfs::ticks_per_second().max(1);
    let all = procfs::process::all_processes().map_err(failed("/proc"))?;
    Ok(all
        .flatten()
        .filter_map(|process| {
            let stat = process.stat().ok()?;
            if stat.flags & PF_KTHREAD == 0 {
                return None;
            }
            let on_cpu = process
                .schedstat()
                .map_or((stat.utime + stat.stime) * tick, |s| s.sum_exec_runtime);
            Some((stat.pid, on_cpu))
        })
        .collect())
}

/// Nanoseconds that were added between two looks. A thread that ended in between is not
/// in the second look, and what it added is not in the sum.
#[must_use]
pub fn added(before: &HashMap<i32, u64>, after: &HashMap<i32, u64>) -> u64 {
    let of = |(tid, now): (&i32, &u64)| now.saturating_sub(before.get(tid).copied().unwrap_or(0));
    after.iter().map(of).sum()
}

/// Totals of `/proc/stat`, and when they were read.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// Context switches since boot.
    pub switches: u64,
    /// The monotonic clock, seconds.
    pub clock_s: f64,
    /// user + nice + system + irq + softirq of all processors, seconds, by clock ticks.
    pub busy_s: f64,
    /// idle + iowait, seconds.
    pub idle_s: f64,
    /// steal, seconds.
    pub steal_s: f64,
}

/// Reads them.
///
/// # Errors
/// If the file cannot be read.
pub fn totals() -> Result<Totals> {
    let clock = clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_err(|e| io(Path::new("the clock"))(e.into()))?;
    let stat = KernelStats::current().map_err(failed("/proc/stat"))?;
    let cpu = &stat.total;
    #[expect(clippy::cast_precision_loss, reason = "ticks are far below 2^52")]
    let seconds = |ticks: u64| ticks as f64 / procfs::ticks_per_second() as f64;
    Ok(Totals {
        switches: stat.ctxt,
        clock_s: seconds_of(clock),
        busy_s: seconds(
            cpu.user + cpu.nice + cpu.system + cpu.irq.unwrap_or(0) + cpu.softirq.unwrap_or(0),
        ),
        idle_s: seconds(cpu.idle + cpu.iowait.unwrap_or(0)),
        steal_s: seconds(cpu.steal.unwrap_or(0)),
    })
}

/// Largest resident set of a process so far (`VmHWM`), bytes.
///
/// # Errors
/// If there is no such process.
pub fn peak_resident(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let id = i32::try_from(pid).unwrap_or(i32::MAX);
    let status = Process::new(id)
        .and_then(|p| p.status())
        .map_err(failed(&path))?;
    status.vmhwm.map(|kib| kib << 10).ok_or(ProbeError::Proc {
        path,
        reason: "no VmHWM".into(),
    })
}

/// Memory of the BPF maps that a process holds open, each map once, bytes (`memlock` of
/// their fdinfo).
///
/// # Errors
/// If there is no such process.
pub fn map_memory(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/fdinfo");
    let path = Path::new(&path);
    let mut maps = BTreeMap::new();
    for entry in fs::read_dir(path).map_err(io(path))?.flatten() {
        // A descriptor may have been closed meanwhile.
        let Ok(text) = fs::read_to_string(entry.path()) else {
            continue;
        };
        if let Some((id, bytes)) = map_of(&text) {
            maps.insert(id, bytes);
        }
    }
    Ok(maps.values().sum())
}

/// Memory that a process shares with the kernel in rings and buffers, bytes: its mappings
/// of a FUSE device or of an io_uring.
///
/// # Errors
/// If there is no such process.
pub fn ring_memory(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/maps");
    let path = Path::new(&path);
    let text = fs::read_to_string(path).map_err(io(path))?;
    Ok(text.lines().filter_map(ring_of).sum())
}

/// Size of a mapping that is such a ring.
fn ring_of(line: &str) -> Option<u64> {
    let mut words = line.split_whitespace();
    let (from, to) = words.next()?.split_once('-')?;
    let of = words.nth(4)?;
    if !matches!(of, "/dev/fuse" | "/dev/efuse" | "anon_inode:[io_uring]") {
        return None;
    }
    let at = |hex| u64::from_str_radix(hex, 16).ok();
    at(to)?.checked_sub(at(from)?)
}

/// Number and size of the map that an fdinfo is about.
fn map_of(fdinfo: &str) -> Option<(u64, u64)> {
    let field = |name: &str| {
        fdinfo
            .lines()
            .find_map(|l| l.strip_prefix(name)?.trim().parse().ok())
    };
    // Programs have a memlock as well, and no map_id.
    Some((field("map_id:")?, field("memlock:")?))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn both_kinds_of_switches_are_added() {
        let status = "Name:\tx\nvoluntary_ctxt_switches:\t150\nnonvoluntary_ctxt_switches:\t545\n";
        assert_eq!(switches_of(status), Some(695));
        assert_eq!(switches_of("voluntary_ctxt_switches:\t150\n"), None);
    }

    #[test]
    fn a_sleep_is_a_switch() {
        let own = std::process::id();
        let tid = nix::unistd::gettid().as_raw().unsigned_abs();
        assert!(threads(own).unwrap().contains(&tid));
        let before = switches(own, &[tid, u32::MAX]).unwrap();
        for _ in 0..20 {
            thread::sleep(Duration::from_micros(50));
        }
        let after = switches(own, &[tid]).unwrap();
        assert_eq!(before.len(), 1, "a thread that is not there is left out");
        assert!(after[&tid] - before[&tid] >= 20, "{before:?} {after:?}");
    }

    #[test]
    fn figures_of_this_process_and_system() {
        let own = std::process::id();
        let before = (cpu_seconds(own).unwrap(), totals().unwrap());
        let mut x = 0_u64;
        while cpu_seconds(own).unwrap() < before.0 + 0.03 {
            x = std::hint::black_box(x.wrapping_add(1));
        }
        let after = totals().unwrap();
        // Not by how much: CPU time is counted in whole ticks, and threads of other tests have some.
        assert!(after.clock_s > before.1.clock_s);
        assert!(after.busy_s >= before.1.busy_s && after.switches >= before.1.switches);
        assert!(peak_resident(own).unwrap() > 1 << 16);
        assert_eq!(map_memory(own).unwrap(), 0);
        assert_eq!(ring_memory(own).unwrap(), 0);
        assert!(cpu_seconds(u32::MAX).is_err() && threads(u32::MAX).is_err());
    }

    #[test]
    fn what_a_process_reads_and_writes() {
        let mut cat = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut back = [0; 1000];
        let mut echo = || {
            cat.stdin.as_mut().unwrap().write_all(&[7; 1000]).unwrap();
            cat.stdout.as_mut().unwrap().read_exact(&mut back).unwrap();
            // A call is counted as it ends, which is after its bytes are there.
            while !waits(cat.id()) {
                thread::sleep(Duration::from_millis(1));
            }
            transfers(cat.id()).unwrap()
        };
        // How its start has read libraries is not looked at.
        let before = echo();
        for _ in 0..3 {
            echo();
        }
        let grown = echo().since(before);
        cat.kill().unwrap();
        cat.wait().unwrap();
        let n = 4;
        let wanted = Transfers {
            reads: n,
            read_bytes: 1000 * n,
            writes: n,
            written_bytes: 1000 * n,
        };
        assert_eq!(grown, wanted);
        assert!(transfers(u32::MAX).is_err());
    }

    /// Whether the only thread of a process waits.
    fn waits(pid: u32) -> bool {
        let stat = Process::new(pid.cast_signed()).unwrap().stat().unwrap();
        stat.state == 'S'
    }

    #[test]
    fn a_thread_that_waits_for_a_child_is_found() {
        let own = std::process::id();
        let (send, receive) = std::sync::mpsc::channel();
        let waiter = thread::spawn(move || {
            let mut child = std::process::Command::new("sleep")
                .arg("600")
                .spawn()
                .unwrap();
            send.send((nix::unistd::gettid().as_raw().unsigned_abs(), child.id()))
                .unwrap();
            child.wait().unwrap();
        });
        let (tid, child) = receive.recv().unwrap();
        let found = threads_with_children(own);
        nix::sys::signal::kill(
            Pid::from_raw(child.cast_signed()),
            nix::sys::signal::Signal::SIGKILL,
        )
        .unwrap();
        waiter.join().unwrap();
        match found {
            Ok(found) => assert!(found.contains(&tid), "{found:?}"),
            Err(e) => assert!(e.to_string().contains("children"), "{e}"),
        }
    }

    #[test]
    fn kernel_threads_that_came_count_from_their_start() {
        let before = HashMap::from([(1, 100), (2, 50)]);
        let after = HashMap::from([(1, 130), (3, 7)]);
        assert_eq!(added(&before, &after), 37);
        if nix::unistd::geteuid().is_root() {
            assert!(!kernel_threads().unwrap().contains_key(&1));
        }
    }

    #[test]
    fn rings_are_told_from_files() {
        let of = |what: &str| {
            ring_of(&format!(
                "7f00000000-7f00003000 rw-s 00000000 00:0e 77 {what}"
            ))
        };
        assert_eq!(of("/dev/efuse"), Some(0x3000));
        assert_eq!(of("anon_inode:[io_uring]"), Some(0x3000));
        assert_eq!(of("/usr/lib/libc.so"), None);
        assert_eq!(of(""), None);
    }

    #[test]
    fn maps_are_told_from_programs() {
        let map = "pos:\t0\nmap_type:\t2\nmax_entries:\t2\nmemlock:\t8192\nmap_id:\t7\n";
        assert_eq!(map_of(map), Some((7, 8192)));
        assert_eq!(map_of("prog_type:\t1\nmemlock:\t4096\nprog_id:\t3\n"), None);
    }
}
