//! Memory of cached data: it stays within its budget, and is given back when the kernel is short
//! of memory, when the programs are taken off, and at the unmount.
//!
//! What the kernel counts is held against the memory that is free then.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use efuse_bpf::{Dev, attached_to, data_counts};
use efuse_model::environment::Place;

use super::direct::{self, BLOCK, Planted};
use super::{Site, Trouble, fail};
use crate::error::AgentError;
use crate::process;
use crate::sys::{self, Drop as Caches};

/// Three times the budget of the systems with a cache, in files that fit into it: a policy that
/// chooses reads each of them into the cache first.
const FILES: u64 = 24;
const FILE_BYTES: u64 = 4 << 20;
const PIECE: usize = 128 << 10;
/// How long memory may take to come back: structures wait for readers first.
const PATIENCE: Duration = Duration::from_secs(10);
/// Beside the cache's pages what comes or goes meanwhile.
const SLACK: u64 = 12 << 20;
const MIB: u64 = 1 << 20;

/// The cache's counts, bytes.
#[derive(Clone, Copy, Debug)]
struct Size {
    used: u64,
    budget: u64,
}

pub(super) fn run(site: &mut Site<'_>) -> Result<String, Trouble> {
    for n in 0..FILES {
        let path = site.lower.join(format!("f{n}"));
        direct::plant(&path, n, FILE_BYTES).map_err(AgentError::io(&path, "write"))?;
    }
    sys::drop_caches(Caches::All)?;

    let (largest, budget) = within_budget(site)?;
    let mut said = vec![format!(
        "{} of {} KiB used at most while {} MiB were read",
        largest >> 10,
        budget >> 10,
        FILES * FILE_BYTES / MIB
    )];
    said.push(dropped(site)?);
    said.push(match site.agent.options().place {
        Place::Vm => under_pressure(site)?,
        Place::Host => "no pressure is put on this machine's own memory".to_owned(),
    });
    said.push(detached(site)?);
    said.push(unmounted(site)?);
    site.mount()?;
    Ok(said.join("; "))
}

fn connection(site: &mut Site<'_>) -> Result<Dev, Trouble> {
    match site.mounted()?.connection() {
        Some(minor) => Ok(Dev::new(0, minor)),
        None => fail("the mount has no connection"),
    }
}

fn size(dev: Dev) -> Result<Size, Trouble> {
    let counts = data_counts(dev)?;
    let of = |name: &str| {
        let count = counts.get(name).copied();
        count.ok_or_else(|| Trouble::Fail(format!("the kernel does not count {name}")))
    };
    Ok(Size {
        used: of("cache_used")?,
        budget: of("cache_budget")?,
    })
}

/// A figure of a file in `/proc` that has a name and a number a line.
fn figure(path: &str, name: &str) -> Result<u64, Trouble> {
    let text = std::fs::read_to_string(path).map_err(AgentError::io(path, "read"))?;
    let number = text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()?.trim_end_matches(':') == name).then(|| words.next()?.parse().ok())?
    });
    number.ok_or_else(|| Trouble::Fail(format!("{path} has no {name}")))
}

/// The sum of a figure over zones and processors in `/proc/zoneinfo`, there in pages.
fn zones(name: &str) -> Result<u64, Trouble> {
    const PATH: &str = "/proc/zoneinfo";
    let text = std::fs::read_to_string(PATH).map_err(AgentError::io(PATH, "read"))?;
    let numbers = text.lines().filter_map(|line| {
        let number = line.trim().strip_prefix(name)?;
        number.trim().parse::<u64>().ok()
    });
    Ok(numbers.sum::<u64>() * BLOCK as u64)
}

/// Free memory, with the pages that each processor has put aside, up to an eighth of it all.
fn free() -> Result<u64, Trouble> {
    Ok((figure("/proc/meminfo", "MemFree")? << 10) + zones("count:")?)
}

fn open(site: &Site<'_>) -> Result<Vec<Planted>, Trouble> {
    (0..FILES)
        .map(|n| {
            let path = site.root.join(format!("f{n}"));
            let file = Planted::open(&path, n, PIECE);
            file.map_err(|e| AgentError::io(&path, "open")(e).into())
        })
        .collect()
}

/// Mounts the system anew and opens the files: a policy that chooses has seen nothing of them yet,
/// and not that a cache is of no use to who reads them all in turn.
fn fresh(site: &mut Site<'_>) -> Result<(Dev, Vec<Planted>), Trouble> {
    site.unmount()?;
    site.mount()?;
    Ok((connection(site)?, open(site)?))
}

/// Reads every file.
fn read(site: &Site<'_>, files: &mut [Planted]) -> Result<(), Trouble> {
    for (n, file) in files.iter_mut().enumerate() {
        for piece in 0..FILE_BYTES / PIECE as u64 {
            let read = file.read(piece * (PIECE / BLOCK) as u64);
            read.map_err(AgentError::io(site.root.join(format!("f{n}")), "read"))?;
        }
        site.limit.check()?;
    }
    Ok(())
}

/// Fills the cache; what it then has. Fails if that is not nearly all it may have.
fn fill(site: &mut Site<'_>, files: &mut [Planted]) -> Result<Size, Trouble> {
    read(site, files)?;
    let now = size(connection(site)?)?;
    if now.used < now.budget / 4 * 3 {
        return fail(format!(
            "{} KiB of {} KiB are used after reading {} MiB: the cache is not filled",
            now.used >> 10,
            now.budget >> 10,
            FILES * FILE_BYTES / MIB
        ));
    }
    Ok(now)
}

/// The largest use that is seen while the files are read, and the budget.
fn within_budget(site: &mut Site<'_>) -> Result<(u64, u64), Trouble> {
    let (dev, mut files) = fresh(site)?;
    let done = AtomicBool::new(false);
    let (seen, filled) = thread::scope(|scope| {
        let watch = scope.spawn(|| -> Result<(u64, u32), Trouble> {
            let (mut largest, mut looks) = (0, 0);
            while !done.load(Ordering::Relaxed) {
                largest = largest.max(size(dev)?.used);
                looks += 1;
                thread::sleep(Duration::from_millis(1));
            }
            Ok((largest, looks))
        });
        let filled = fill(site, &mut files);
        done.store(true, Ordering::Relaxed);
        (watch.join().expect("no panic in it"), filled)
    });
    let (largest, looks) = seen?;
    let filled = filled?;
    let largest = largest.max(filled.used);
    if largest > filled.budget || looks < 10 {
        return fail(format!(
            "{largest} bytes of {} were used, seen {looks} times",
            filled.budget
        ));
    }
    Ok((largest, filled.budget))
}

/// Waits until so much more memory is free than before.
fn comes_back(before: u64, bytes: u64) -> Result<u64, Trouble> {
    let end = Instant::now() + PATIENCE;
    loop {
        let more = free()?.saturating_sub(before);
        if more >= bytes {
            return Ok(more);
        }
        if Instant::now() > end {
            return fail(format!(
                "only {} KiB more are free, not {} KiB",
                more >> 10,
                bytes >> 10
            ));
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// The kernel's shrinkers are asked for all they can give.
fn dropped(site: &mut Site<'_>) -> Result<String, Trouble> {
    // Open: an inode that goes takes its blocks along, and that is not what is meant.
    let (dev, mut files) = fresh(site)?;
    let full = fill(site, &mut files)?;
    let before = free()?;
    sys::write("/proc/sys/vm/drop_caches", "2")?;
    let left = size(dev)?.used;
    if left > full.used / 4 {
        return fail(format!(
            "the shrinker left {} of {} KiB",
            left >> 10,
            full.used >> 10
        ));
    }
    let more = comes_back(before, (full.used - left) / 4 * 3).map_err(|t| t.of("shrinker"))?;
    read(site, &mut files)?;
    Ok(format!(
        "asked for, {} KiB of {} are given back ({} KiB more are free)",
        (full.used - left) >> 10,
        full.used >> 10,
        more >> 10
    ))
}

/// A process takes more memory than there is without the cache's.
fn under_pressure(site: &mut Site<'_>) -> Result<String, Trouble> {
    const VMSTAT: &str = "/proc/vmstat";
    let killed = figure(VMSTAT, "oom_kill")?;
    let (mut asked, mut taken) = (Vec::new(), Vec::new());
    // Nobody knows how much is enough: the kernel begins before it has none left, and may use pages
    // that processors have put aside. So by steps, and the first one that gets something from the
    // cache will do.
    for quarters in 0..12 {
        let (dev, mut files) = fresh(site)?;
        let full = fill(site, &mut files)?;
        // Then there is hardly anything else to be had but what the kernel keeps for itself.
        sys::drop_caches(Caches::Pages)?;
        let available = (figure("/proc/meminfo", "MemFree")? << 10) - zones("min ")?;
        let bytes = available - full.used / 4 * 3 + full.used / 4 * quarters;
        // The first one to be killed, if any is. One read takes 2 GiB at most, so several fill it.
        let script = format!(
            "echo 1000 >/proc/self/oom_score_adj; exec dd if=/dev/zero of=/dev/null bs={bytes} count=1 iflag=fullblock"
        );
        let mut command = Command::new("/bin/busybox");
        command.args(["sh", "-c", &script]);
        let done = process::run(&mut command, site.limit)?;
        let left = size(dev)?.used;
        if !done.status.success() || figure(VMSTAT, "oom_kill")? != killed {
            return fail(format!(
                "a process that takes {} MiB with {} MiB to be had and {} KiB in the cache {}, with \
                 {} KiB left in the cache: {}",
                bytes / MIB,
                available / MIB,
                full.used >> 10,
                done.how(),
                left >> 10,
                done.tail()
            ));
        }
        site.mounted()?.alive()?;
        asked.push(bytes / MIB);
        taken.push(full.used - left.min(full.used));
        if taken.last() >= Some(&(full.used / 4)) {
            read(site, &mut files)?;
            return Ok(format!(
                "a process that takes {} MiB with {} MiB to be had gets {} KiB of {} from the cache, \
                 and nothing is killed",
                bytes / MIB,
                available / MIB,
                taken.last().unwrap_or(&0) >> 10,
                full.used >> 10
            ));
        }
    }
    fail(format!(
        "processes got all they asked for, {asked:?} MiB with {} MiB free now, but from the cache only \
         {taken:?} bytes",
        free()? / MIB
    ))
}

/// The programs go, and with them the budget.
fn detached(site: &mut Site<'_>) -> Result<String, Trouble> {
    let (dev, mut files) = fresh(site)?;
    let full = fill(site, &mut files)?;
    let before = free()?;
    attached_to(dev)?.detach()?;
    let end = Instant::now() + PATIENCE;
    while size(dev)?.used > 0 {
        if Instant::now() > end {
            return fail(format!(
                "{} bytes are used {PATIENCE:?} after the programs went",
                size(dev)?.used
            ));
        }
        thread::sleep(Duration::from_millis(20));
    }
    let more = comes_back(before, full.used / 4 * 3).map_err(|t| t.of("detaching"))?;
    // Memory that nobody counted would show here.
    if more > full.budget + SLACK {
        return fail(format!(
            "{} KiB came back when the programs went, with a budget of {} KiB",
            more >> 10,
            full.budget >> 10
        ));
    }
    read(site, &mut files)?;
    Ok(format!("detaching frees {} KiB", more >> 10))
}

fn unmounted(site: &mut Site<'_>) -> Result<String, Trouble> {
    let (_, mut files) = fresh(site)?;
    let full = fill(site, &mut files)?;
    drop(files);
    let daemon = match site.mounted()?.daemon_pid() {
        Some(pid) => figure(&format!("/proc/{pid}/status"), "RssAnon")? << 10,
        None => 0,
    };
    let before = free()?;
    site.unmount()?;
    let wanted = full.used / 4 * 3 + daemon / 4 * 3;
    let more = comes_back(before, wanted).map_err(|t| t.of("unmounting"))?;
    Ok(format!(
        "unmounting frees {} KiB, of which the daemon had {}",
        more >> 10,
        daemon >> 10
    ))
}
