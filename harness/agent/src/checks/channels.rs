//! Ring channels are not always one for each processor with a worker that is free: fewer of them, a
//! daemon that was given one processor, processors that go and come back, handlers that wait.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use efuse_bpf::{Dev, ring_counts};
use efuse_model::environment::Place;
use efuse_systems::Mounted;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::blocked::blocked;
use super::{Site, Trouble, fail, stackfs};
use crate::error::AgentError;
use crate::sys::{self, Aligned};

const WORKERS: usize = 4;
const BYTES: usize = 150_003;
const DIRECT: usize = 64 << 10;
/// Of each thread and mount.
const ROUNDS: u64 = 12;
const CPUS: &str = "/sys/devices/system/cpu";

const OPTIONS: &[&str] = &["--allow-other", "--transport", "ring"];
/// As the system `efuse` has it.
const PROGRAMS: &[&str] = &[
    "--passthrough",
    "--policy",
    "prelim",
    "--until-invalidated",
    "--cache-size",
    "8",
];

pub(super) fn run(site: &mut Site<'_>) -> Result<String, Trouble> {
    site.unmount()?;
    let mut said = Vec::new();
    for channels in [1, 2] {
        let what = format!("{channels} channels");
        said.push(fewer(site, channels).map_err(|trouble| trouble.of(&what))?);
    }
    for pin in ["false", "true"] {
        let what = format!("one processor, --pin {pin}");
        said.push(limited(site, pin).map_err(|trouble| trouble.of(&what))?);
    }
    // There the kernel itself would wait.
    if site.system == "rfuse" {
        said.push(blocked(site).map_err(|trouble| trouble.of("handlers that wait"))?);
    }
    said.push(hotplug(site).map_err(|trouble| trouble.of("processors that go"))?);
    site.mount()?;
    Ok(said.join("; "))
}

/// Mounts the daemon with so many threads and more options, each with a value.
pub(super) fn mount(
    site: &Site<'_>,
    workers: usize,
    more: &[(&str, &str)],
) -> Result<Mounted, Trouble> {
    let workers = workers.to_string();
    let mut options = [OPTIONS, &["--workers", &workers]].concat();
    options.extend(more.iter().flat_map(|(name, value)| [name, value]));
    if site.system == "efuse" {
        options.extend(PROGRAMS);
    }
    let context = site.context("channels");
    let mounted = site.mount_with(&stackfs("channels", &options)?, &context)?;
    let point = Some(context.mountpoint);
    site.watchdog.watch(mounted.daemon_pid(), point);
    Ok(mounted)
}

pub(super) fn unmount(site: &Site<'_>, mounted: Mounted) -> Result<(), Trouble> {
    let result = mounted.unmount();
    site.watchdog.watch(None, None);
    Ok(result?)
}

/// Waits until it is so, or time is up.
pub(super) fn until(
    site: &Site<'_>,
    so: &mut dyn FnMut() -> Result<bool, Trouble>,
) -> Result<(), Trouble> {
    while !so()? {
        site.limit.check()?;
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// The calling thread runs there from now on, if it can.
pub(super) fn stay_on(cpu: usize) -> bool {
    let mut set = CpuSet::new();
    set.set(cpu).is_ok() && sched_setaffinity(Pid::from_raw(0), &set).is_ok()
}

fn online() -> Result<Vec<usize>, Trouble> {
    let set =
        sched_getaffinity(Pid::from_raw(0)).map_err(AgentError::errno("it", "ask for CPUs"))?;
    let there = (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu) == Ok(true));
    Ok(there.collect())
}

/// Nothing is left in the channels, of which there are so many.
pub(super) fn settled(site: &Site<'_>, mounted: &Mounted, channels: usize) -> Result<u64, Trouble> {
    let dev = Dev::of_mount(mounted.root())?;
    let mut requests = 0;
    until(site, &mut || {
        let counts = ring_counts(dev)?;
        if counts.len() != channels {
            return fail(format!("{} channels instead of {channels}", counts.len()));
        }
        let sum = |name: &str| -> u64 { counts.iter().filter_map(|of| of.get(name)).sum() };
        if sum("bad") > 0 {
            return fail(format!("{} replies that made no sense", sum("bad")));
        }
        requests = sum("requests");
        // RELEASE is nobody's to wait for.
        Ok(sum("in_flight") + sum("waiting") == 0)
    })?;
    Ok(requests)
}

/// Threads at the files of a mount, one for each processor.
struct Load<'a> {
    root: &'a Path,
    lower: &'a Path,
    cpus: Vec<usize>,
    rounds: Vec<AtomicU64>,
    stop: AtomicBool,
}

impl<'a> Load<'a> {
    fn new(site: &'a Site<'_>, root: &'a Path, cpus: &[usize]) -> Self {
        Self {
            root,
            lower: &site.lower,
            cpus: cpus.to_vec(),
            rounds: cpus.iter().map(|_| AtomicU64::new(0)).collect(),
            stop: AtomicBool::new(false),
        }
    }

    /// Works while `meanwhile` runs. The rounds of all.
    fn during(
        &self,
        meanwhile: &mut dyn FnMut(&Self) -> Result<(), Trouble>,
    ) -> Result<u64, Trouble> {
        thread::scope(|scope| {
            let threads: Vec<_> = (0..self.cpus.len())
                .map(|n| scope.spawn(move || self.work(n)))
                .collect();
            let result = meanwhile(self);
            self.stop.store(true, Ordering::Relaxed);
            for thread in threads {
                // What went wrong there is why nothing went on here.
                thread.join().expect("no panic in it")?;
            }
            result
        })?;
        Ok(self.rounds.iter().map(|n| n.load(Ordering::Relaxed)).sum())
    }

    /// Waits until each thread has done so many rounds more.
    fn go_on(&self, site: &Site<'_>, more: u64) -> Result<(), Trouble> {
        let now = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let wanted: Vec<u64> = self.rounds.iter().map(|n| now(n) + more).collect();
        until(site, &mut || {
            if self.stop.load(Ordering::Relaxed) {
                return fail("a thread gave up");
            }
            let mut all = self.rounds.iter().zip(&wanted);
            Ok(all.all(|(n, wanted)| now(n) >= *wanted))
        })
    }

    fn work(&self, n: usize) -> Result<(), Trouble> {
        while !self.stop.load(Ordering::Relaxed) {
            // Again each time: a processor may have gone and come back.
            stay_on(self.cpus[n]);
            let round = self.rounds[n].load(Ordering::Relaxed);
            if let Err(trouble) = self.round(n, round) {
                self.stop.store(true, Ordering::Relaxed);
                return Err(trouble);
            }
            self.rounds[n].fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Writes a file, and reads it in three ways.
    fn round(&self, n: usize, round: u64) -> Result<(), Trouble> {
        let bytes: Vec<u8> = (0..BYTES as u64)
            .map(|at| (at.wrapping_mul(31 + n as u64) >> 3).wrapping_add(round) as u8)
            .collect();
        let (first, name) = (format!("new{n}"), format!("f{n}"));
        let path = self.root.join(&name);
        let seen = (|| -> io::Result<[Vec<u8>; 3]> {
            fs::write(self.root.join(&first), &bytes)?;
            fs::rename(self.root.join(&first), &path)?;
            let direct = OpenOptions::new()
                .read(true)
                .custom_flags(libc::O_DIRECT)
                .open(&path)?;
            let mut page = Aligned::new(DIRECT);
            direct.read_exact_at(page.bytes(), 0)?;
            Ok([
                fs::read(&path)?,
                page.bytes().to_vec(),
                fs::read(self.lower.join(&name))?,
            ])
        })();
        let seen = seen.map_err(AgentError::io(&path, "write and read"))?;
        let wanted = [&bytes[..], &bytes[..DIRECT], &bytes[..]];
        for (how, (seen, wanted)) in ["read", "read directly", "seen below"]
            .iter()
            .zip(seen.iter().zip(wanted))
        {
            if seen != wanted {
                return fail(format!(
                    "{}: other bytes {how} than written in round {round}",
                    path.display()
                ));
            }
        }
        fs::remove_file(&path).map_err(AgentError::io(&path, "remove"))?;
        Ok(())
    }
}

/// A load from every processor that is online; the rounds that it did.
pub(super) fn loaded(site: &Site<'_>, root: &Path) -> Result<u64, Trouble> {
    let load = Load::new(site, root, &online()?);
    load.during(&mut |load| load.go_on(site, ROUNDS * u64::from(site.effort)))
}

fn fewer(site: &Site<'_>, channels: usize) -> Result<String, Trouble> {
    let mounted = mount(site, WORKERS, &[("--ring-channels", &channels.to_string())])?;
    let there = channels.min(possible()?);
    let rounds = loaded(site, mounted.root())?;
    let requests = settled(site, &mounted, there)?;
    unmount(site, mounted)?;
    Ok(format!(
        "{there} channels: {rounds} rounds, {requests} requests"
    ))
}

/// Processors that there may be, as the daemon counts them.
pub(super) fn possible() -> Result<usize, Trouble> {
    let list = sys::read(format!("{CPUS}/possible"));
    list.as_deref()
        .and_then(|list| list.rsplit(['-', ',']).next()?.parse::<usize>().ok())
        .map(|last| last + 1)
        .ok_or_else(|| Trouble::Fail(format!("{CPUS}/possible says {list:?}")))
}

/// A daemon that may run on one processor only, as taskset(1) would start it. Its callers run on all.
fn limited(site: &Site<'_>, pin: &str) -> Result<String, Trouble> {
    let all =
        sched_getaffinity(Pid::from_raw(0)).map_err(AgentError::errno("it", "ask for CPUs"))?;
    let one = online()?[0];
    stay_on(one);
    let mounted = mount(site, WORKERS, &[("--pin", pin)]);
    sched_setaffinity(Pid::from_raw(0), &all).map_err(AgentError::errno("it", "run everywhere"))?;
    let mounted = mounted?;
    let pid = mounted.daemon_pid().expect("it has a daemon");
    let rounds = loaded(site, mounted.root())?;
    let threads = statuses(pid)?;
    for status in &threads {
        let list = status
            .lines()
            .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        if list.map(str::trim) != Some(&one.to_string()) {
            return fail(format!(
                "a thread of the daemon may run on {list:?}, not on {one}"
            ));
        }
    }
    settled(site, &mounted, possible()?)?;
    unmount(site, mounted)?;
    Ok(format!(
        "{} threads on one processor, --pin {pin}: {rounds} rounds",
        threads.len()
    ))
}

/// What the kernel says about each thread of a process.
pub(super) fn statuses(pid: u32) -> Result<Vec<String>, Trouble> {
    let folder = PathBuf::from(format!("/proc/{pid}/task"));
    let list = fs::read_dir(&folder).map_err(AgentError::io(&folder, "list"))?;
    let mut all = Vec::new();
    for item in list {
        let path = item
            .map_err(AgentError::io(&folder, "list"))?
            .path()
            .join("status");
        let mut text = String::new();
        match File::open(&path).and_then(|mut file| file.read_to_string(&mut text)) {
            Ok(_) => all.push(text),
            // It has just ended.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => {}
            Err(e) => return Err(AgentError::io(&path, "read")(e).into()),
        }
    }
    Ok(all)
}

/// Processors that are offline, online again when this goes.
struct Offline<'a> {
    all: &'a [usize],
}

fn switch(cpu: usize, on: bool) -> Result<(), Trouble> {
    let path = format!("{CPUS}/cpu{cpu}/online");
    sys::write(&path, if on { "1" } else { "0" })?;
    if sys::read(&path).as_deref() != Some(if on { "1" } else { "0" }) {
        return fail(format!("{path} is not what was written into it"));
    }
    Ok(())
}

impl Drop for Offline<'_> {
    fn drop(&mut self) {
        for cpu in self.all {
            // What can be done; the next check would say that processors are missing.
            let _ = switch(*cpu, true);
        }
    }
}

/// Processors go offline and come back one by one and all but one together, under load, and a mount is
/// made while they are away.
fn hotplug(site: &Site<'_>) -> Result<String, Trouble> {
    if site.agent.options().place == Place::Host {
        return Ok("processors of the host are not switched off".to_owned());
    }
    let all = online()?;
    let gone: Vec<usize> = all
        .iter()
        .copied()
        .filter(|cpu| Path::new(&format!("{CPUS}/cpu{cpu}/online")).exists())
        .collect();
    // One has to stay.
    let gone = &gone[usize::from(gone.len() == all.len())..];
    if gone.is_empty() {
        return Ok(format!(
            "no processor of {} has a file {CPUS}/cpuN/online to switch it off by",
            all.len()
        ));
    }
    let back = Offline { all: gone };
    let mounted = mount(site, WORKERS, &[])?;
    let rounds = Load::new(site, mounted.root(), &all).during(&mut |load| {
        load.go_on(site, 1)?;
        for _ in 0..site.effort {
            for cpu in gone {
                switch(*cpu, false)?;
                load.go_on(site, 2)?;
                switch(*cpu, true)?;
                load.go_on(site, 2)?;
            }
            for on in [false, true] {
                for cpu in gone {
                    switch(*cpu, on)?;
                }
                load.go_on(site, 2)?;
            }
        }
        Ok(())
    })?;
    settled(site, &mounted, possible()?)?;
    unmount(site, mounted)?;

    let mut later = 0;
    for pin in ["false", "true"] {
        for cpu in gone {
            switch(*cpu, false)?;
        }
        let mounted = mount(site, WORKERS, &[("--pin", pin)])?;
        later += Load::new(site, mounted.root(), &all).during(&mut |load| {
            load.go_on(site, 2)?;
            for cpu in gone {
                switch(*cpu, true)?;
                load.go_on(site, 2)?;
            }
            Ok(())
        })?;
        settled(site, &mounted, possible()?)?;
        unmount(site, mounted)?;
    }
    drop(back);
    Ok(format!(
        "{rounds} rounds while {} of {} processors went and came back, {later} with mounts made meanwhile",
        gone.len(),
        all.len()
    ))
}
