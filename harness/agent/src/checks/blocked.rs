//! Handlers wait, for good, in every thread that the daemon started with; others are served. They wait
//! because the file system below is frozen, which lets nobody write until it is thawed.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use efuse_bpf::{Dev, ring_counts};

use super::channels::{mount, settled, statuses, stay_on, unmount, until};
use super::{Site, Trouble, fail};
use crate::error::AgentError;
use crate::sys::{self, Aligned};

/// More writers than this for each thread that the daemon starts with.
const EACH: usize = 3;
const MOST: usize = 16;
const PAGE: usize = 4096;

nix::ioctl_readwrite_bad!(
    freeze,
    nix::request_code_readwrite!(b'X', 119, size_of::<libc::c_int>()),
    libc::c_int
);
nix::ioctl_readwrite_bad!(
    thaw,
    nix::request_code_readwrite!(b'X', 120, size_of::<libc::c_int>()),
    libc::c_int
);

/// A frozen file system, thawed at the latest when this goes.
struct Frozen {
    folder: File,
    thawed: bool,
}

impl Frozen {
    fn new(path: &Path) -> Result<Self, Trouble> {
        let folder = File::open(path).map_err(AgentError::io(path, "open"))?;
        // SAFETY: the argument is not used by the kernel, and ours.
        unsafe { freeze(folder.as_raw_fd(), &mut 0) }
            .map_err(AgentError::errno(path, "freeze the file system of"))?;
        Ok(Self {
            folder,
            thawed: false,
        })
    }

    fn thaw(&mut self) -> Result<(), Trouble> {
        if !self.thawed {
            // SAFETY: as above.
            unsafe { thaw(self.folder.as_raw_fd(), &mut 0) }
                .map_err(AgentError::errno("the file system below", "thaw"))?;
            self.thawed = true;
        }
        Ok(())
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // What can be done.
        let _ = self.thaw();
    }
}

pub(super) fn blocked(site: &Site<'_>) -> Result<String, Trouble> {
    let one = round(site, 1)?;
    let two = round(site, 2.min(sys::cpus() as usize))?;
    Ok(format!("{one}, {two}"))
}

/// Threads that serve requests.
pub(super) fn workers(pid: u32) -> Result<usize, Trouble> {
    let named = |status: &String| {
        let name = status.lines().find_map(|line| line.strip_prefix("Name:"));
        let number = name.and_then(|name| name.trim().strip_prefix("efuse-"));
        number.is_some_and(|number| number.parse::<usize>().is_ok())
    };
    Ok(statuses(pid)?.iter().filter(|status| named(status)).count())
}

fn in_flight(dev: Dev) -> Result<u64, Trouble> {
    let channels = ring_counts(dev)?;
    Ok(channels.iter().filter_map(|of| of.get("in_flight")).sum())
}

fn content(n: usize) -> Vec<u8> {
    (0..PAGE).map(|at| (at * 7 + n * 13) as u8).collect()
}

/// With so many channels and a thread for each.
fn round(site: &Site<'_>, channels: usize) -> Result<String, Trouble> {
    let most = MOST.to_string();
    let options = [
        ("--ring-channels", &channels.to_string()[..]),
        ("--max-workers", &most),
    ];
    let mounted = mount(site, channels, &options)?;
    let root = mounted.root();
    let pid = mounted.daemon_pid().expect("it has a daemon");
    let io = |action: &'static str| AgentError::io(root, action);
    let still = root.join("still");
    fs::write(&still, content(99)).map_err(io("write into"))?;
    let waiting = channels * EACH + 1;
    let files = (0..waiting)
        .map(|n| File::create(root.join(format!("w{n}"))))
        .collect::<io::Result<Vec<_>>>();
    let files = files.map_err(io("create files in"))?;
    settled(site, &mounted, channels)?;
    if workers(pid)? != channels {
        return fail(format!(
            "{} threads at the start, not {channels}",
            workers(pid)?
        ));
    }

    let dev = Dev::of_mount(root)?;
    let mut frozen = Frozen::new(&site.lower)?;
    let (written, served) = (AtomicUsize::new(0), AtomicBool::new(false));
    let most = thread::scope(|scope| {
        let writers: Vec<_> = files
            .iter()
            .enumerate()
            .map(|(n, file)| {
                let written = &written;
                scope.spawn(move || {
                    stay_on(n % sys::cpus() as usize);
                    let result = file.write_all_at(&content(n), 0);
                    written.fetch_add(1, Ordering::Relaxed);
                    result
                })
            })
            .collect();
        // All of them have sent their requests, to every channel, and what comes now is behind them.
        let mut all = until(site, &mut || Ok(in_flight(dev)? == waiting as u64));
        let other = scope.spawn(|| {
            let result = use_it(root, &still);
            served.store(true, Ordering::Relaxed);
            result
        });
        if all.is_ok() {
            all = until(site, &mut || Ok(served.load(Ordering::Relaxed)));
        }
        let (early, most) = (written.load(Ordering::Relaxed), workers(pid));
        // Whatever was seen, everybody can end now.
        frozen.thaw()?;
        other
            .join()
            .expect("no panic in it")
            .map_err(AgentError::io(&still, "use"))?;
        for writer in writers {
            let wrote = writer.join().expect("no panic in it");
            wrote.map_err(io("write into"))?;
        }
        all.map_err(|trouble| trouble.of("while all threads of the start wait"))?;
        if early > 0 {
            return fail(format!("{early} writers did not wait at all"));
        }
        most
    })?;
    if most <= waiting || most > MOST {
        return fail(format!(
            "{most} threads, of at most {MOST}, served others while {waiting} waited"
        ));
    }
    drop(files);
    for n in 0..waiting {
        let name = format!("w{n}");
        for path in [root.join(&name), site.lower.join(&name)] {
            let seen = fs::read(&path).map_err(AgentError::io(&path, "read"))?;
            if seen != content(n) {
                return fail(format!("{}: not what was written", path.display()));
            }
        }
        let path = root.join(&name);
        fs::remove_file(&path).map_err(AgentError::io(&path, "remove"))?;
    }
    // In one mount of the two they end by themselves.
    if channels == 1 {
        until(site, &mut || Ok(workers(pid)? == channels))?;
        // Apart, as it moves from processor to processor.
        thread::scope(|scope| scope.spawn(|| use_it(root, &still)).join())
            .expect("no panic in it")
            .map_err(AgentError::io(&still, "use"))?;
    }
    settled(site, &mounted, channels)?;
    unmount(site, mounted)?;
    Ok(format!(
        "{waiting} handlers that wait and {channels} threads at the start, {most} then: served"
    ))
}

/// Asks for what no cache has, and reads what no cache may have, from every processor.
fn use_it(root: &Path, still: &Path) -> io::Result<()> {
    for cpu in 0..sys::cpus() as usize {
        stay_on(cpu);
        match fs::metadata(root.join(format!("never-seen-{cpu}"))) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            other => return Err(io::Error::other(format!("a lookup gives {other:?}"))),
        }
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECT)
            .open(still)?;
        let mut page = Aligned::new(PAGE);
        file.read_exact_at(page.bytes(), 0)?;
        if page.bytes() != content(99) {
            return Err(io::Error::other("a direct read gives other bytes"));
        }
    }
    Ok(())
}
