//! Messages without a reply: FORGET and INTERRUPT.

use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use efuse_probes::kernel::Probes;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::stopped::Stopped;
use super::{Site, Trouble, attached, counted, crossings, fail, until};
use crate::error::AgentError;
use crate::sys::{self, Drop as Caches};

/// Files that are forgotten together, and their folder with them.
const TOGETHER: u64 = 40;
/// Files that are forgotten one by one.
const ALONE: u64 = 3;
/// Requests that are interrupted; fewer than the daemon has threads.
const INTERRUPTED: u64 = 3;

pub(super) fn run(site: &mut Site<'_>) -> Result<String, Trouble> {
    // A new mount knows the root and nothing else.
    site.unmount()?;
    let below = site.lower.join("messages");
    fs::create_dir(&below).map_err(AgentError::io(&below, "create the folder"))?;
    for n in 0..TOGETHER {
        let path = below.join(n.to_string());
        fs::write(&path, "x").map_err(AgentError::io(&path, "write"))?;
    }
    site.mount()?;
    let folder = site.root.join("messages");
    let probes = attached(site)?;
    let forgotten = forgets(site, &probes, &folder)?;
    interrupts(site, &probes, &folder)?;
    let counters = counted(probes)?;
    if counters.forgotten != Some(forgotten) {
        return fail(format!(
            "{forgotten} nodes were forgotten, and in the end {:?}",
            counters.forgotten
        ));
    }
    let of = |opcode| crossings(&counters.requests, opcode);
    let (alone, batches, interrupts) = (of("FORGET"), of("BATCH_FORGET"), of("INTERRUPT"));
    if interrupts != INTERRUPTED {
        return fail(format!(
            "{INTERRUPTED} requests were interrupted and {interrupts} INTERRUPT counted"
        ));
    }
    Ok(format!(
        "{forgotten} nodes forgotten in {alone} FORGET and {batches} BATCH_FORGET, {interrupts} INTERRUPT"
    ))
}

/// Makes the kernel forget nodes, many at once and one by one. How many in all.
fn forgets(site: &mut Site<'_>, probes: &Probes, folder: &Path) -> Result<u64, Trouble> {
    let forgotten = || Ok::<_, Trouble>(probes.forgotten()?);
    for n in 0..TOGETHER {
        let path = folder.join(n.to_string());
        fs::metadata(&path).map_err(AgentError::io(&path, "stat"))?;
    }
    if forgotten()? != 0 {
        return fail("nodes were forgotten before the kernel dropped any");
    }
    // Nobody takes the first before the others are there.
    let stopped = Stopped::new(site)?;
    sys::drop_caches(Caches::All)?;
    sys::drop_caches(Caches::All)?;
    drop(stopped);
    let all = TOGETHER + 1;
    until(site, "not all nodes were forgotten", &mut || {
        if forgotten()? == all {
            return Ok(true);
        }
        // What was used just before may be spared once.
        sys::drop_caches(Caches::All)?;
        Ok(false)
    })?;
    let before = probes.requests()?;
    if crossings(&before, "BATCH_FORGET") == 0 {
        return fail(format!("{all} nodes were forgotten, and never two at once"));
    }
    for n in 0..ALONE {
        // Its folder stays known.
        let path = folder.join(n.to_string());
        fs::remove_file(&path).map_err(AgentError::io(&path, "remove"))?;
        until(site, "a removed file was not forgotten", &mut || {
            Ok(forgotten()? == all + n + 1)
        })?;
    }
    let alone = crossings(&probes.requests()?, "FORGET") - crossings(&before, "FORGET");
    if alone != ALONE {
        return fail(format!(
            "{ALONE} files were removed one by one and {alone} FORGET counted"
        ));
    }
    Ok(all + ALONE)
}

/// Interrupts requests that the daemon has and cannot answer: the lower file system is
/// frozen, and whoever wants to change something there waits.
fn interrupts(site: &mut Site<'_>, probes: &Probes, folder: &Path) -> Result<(), Trouble> {
    let chmod = site
        .agent
        .program("chmod", "install it (apt install coreutils)")?;
    // Dropped after the other, as they end only then.
    let mut callers = Vec::new();
    let frozen = Frozen::new(&site.lower)?;
    for n in 0..INTERRUPTED {
        let child = Command::new(&chmod)
            .arg("600")
            .arg(folder.join((ALONE + n).to_string()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(AgentError::io(&chmod, "start"))?;
        callers.push(Caller(child));
    }
    until(site, "the daemon did not get all requests", &mut || {
        let taken = probes.under_way()?.taken;
        Ok(taken.iter().filter(|o| *o == "SETATTR").count() as u64 == INTERRUPTED)
    })?;
    for Caller(child) in &callers {
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process number"));
        kill(pid, Signal::SIGTERM).map_err(AgentError::errno("chmod", "signal"))?;
    }
    until(site, "not every INTERRUPT was counted", &mut || {
        Ok(crossings(&probes.requests()?, "INTERRUPT") >= INTERRUPTED)
    })?;
    drop(frozen);
    Ok(())
}

/// A program that waits for the daemon; its end is waited for when it is dropped.
struct Caller(Child);

impl Drop for Caller {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

mod ioctl {
    nix::ioctl_readwrite!(freeze, b'X', 119, libc::c_int);
    nix::ioctl_readwrite!(thaw, b'X', 120, libc::c_int);
}

/// A file system in which nothing changes until this is dropped.
struct Frozen(File);

impl Frozen {
    fn new(folder: &Path) -> Result<Self, Trouble> {
        let file = File::open(folder).map_err(AgentError::io(folder, "open"))?;
        // SAFETY: FIFREEZE takes no notice of its argument.
        unsafe { ioctl::freeze(file.as_raw_fd(), std::ptr::null_mut()) }
            .map_err(AgentError::errno(folder, "freeze its file system"))?;
        Ok(Self(file))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // It fails only where nothing is frozen.
        // SAFETY: FITHAW takes no notice of its argument.
        let _ = unsafe { ioctl::thaw(self.0.as_raw_fd(), std::ptr::null_mut()) };
    }
}
