//! Pages of the page cache are filled from cached data, with what the file has.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use efuse_bpf::{Dev, data_counts};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::{Site, Trouble, fail, stackfs};
use crate::error::AgentError;

/// More than one request, and no multiple of a page.
const BYTES: usize = (2 << 20) + 1234;
const BLOCK: usize = 4096;
/// Writes, and cuts, each followed by reads.
const CHANGES: usize = 24;

/// Who gave the data of reads: bytes that came from the cache, and requests to the daemon.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Served {
    cached: u64,
    asked: u64,
}

pub(super) fn run(site: &mut Site<'_>) -> Result<String, Trouble> {
    let seed: u64 = rand::random();
    match drive(site, &mut ChaCha8Rng::seed_from_u64(seed)) {
        Ok(said) => Ok(format!("seed {seed}: {said}")),
        Err(Trouble::Fail(text)) => fail(format!("seed {seed}: {text}")),
        Err(skip @ Trouble::Skip(_)) => Err(skip),
    }
}

fn drive(site: &mut Site<'_>, rng: &mut ChaCha8Rng) -> Result<String, Trouble> {
    let Some(minor) = site.mounted()?.connection() else {
        return fail("the mount has no connection");
    };
    let dev = Dev::new(0, minor);
    let path = site.root.join("pages");
    let mut bytes = vec![0; BYTES];
    rng.fill_bytes(&mut bytes);
    let below = site.lower.join("pages");
    fs::write(&below, &bytes).map_err(AgentError::io(&below, "write"))?;

    // Every open drops the file's pages, as the daemon does not ask to keep them.
    read(site, &path, &bytes)?;
    for (what, look) in [("read", read as Look), ("mapped", mapped)] {
        let before = served(dev)?;
        look(site, &path, &bytes)?;
        let after = served(dev)?;
        let whole = Served {
            cached: before.cached + bytes.len() as u64,
            ..before
        };
        if after != whole {
            return fail(format!(
                "a {what} file of {} bytes that is cached: from {before:?} to {after:?}",
                bytes.len()
            ));
        }
    }

    let before = served(dev)?;
    for n in 0..CHANGES {
        change(&path, &mut bytes, n, rng).map_err(AgentError::io(&path, "change"))?;
        // What was cached before, and what this read brought
        read(site, &path, &bytes)?;
        mapped(site, &path, &bytes)?;
        site.limit.check()?;
    }
    let after = served(dev)?;
    if after.asked == before.asked {
        return fail("the daemon was not asked for anything that was changed");
    }
    outdated(site)?;
    Ok(format!(
        "read and mapped from the cache alone; {} KiB of pages from it and {} requests beside {CHANGES} changes",
        (after.cached - before.cached) >> 10,
        after.asked - before.asked
    ))
}

/// A daemon that is not the only one to change its files.
const SHARED: &[&str] = &[
    "--workers",
    "{threads}",
    "--entry-timeout",
    "0",
    "--attr-timeout",
    "0",
    "--allow-other",
    "--policy",
    "cache",
    "--cache-size",
    "8",
];

/// A change below shows in an open file as soon as its attributes do, as it does without a cache.
fn outdated(site: &Site<'_>) -> Result<(), Trouble> {
    let shared = stackfs("shared", SHARED)?;
    let mut mounted = site.mount_with(&shared, &site.context("shared"))?;
    let [path, below] = [mounted.root(), site.lower.as_path()].map(|root| root.join("shared"));
    let result = (|| {
        fs::write(&below, [0; 2 * BLOCK]).map_err(AgentError::io(&below, "write"))?;
        let file = File::open(&path).map_err(AgentError::io(&path, "open"))?;
        for n in 1..7_u8 {
            fs::write(&below, [n; 2 * BLOCK]).map_err(AgentError::io(&below, "write"))?;
            // A time of its own
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(n.into());
            let changed = File::options().write(true).open(&below);
            changed
                .and_then(|changed| changed.set_modified(time))
                .map_err(AgentError::io(&below, "date"))?;
            file.metadata().map_err(AgentError::io(&path, "stat"))?;
            let mut there = [0; 2 * BLOCK];
            file.read_exact_at(&mut there, 0)
                .map_err(AgentError::io(&path, "read"))?;
            compare("changed below", &there, &[n; 2 * BLOCK])?;
        }
        Ok(())
    })();
    mounted.alive()?;
    mounted.unmount()?;
    result
}

type Look = fn(&Site<'_>, &Path, &[u8]) -> Result<(), Trouble>;

fn served(dev: Dev) -> Result<Served, Trouble> {
    let counts = data_counts(dev)?;
    let of = |name: &str| {
        let count = counts.get(name).copied();
        count.ok_or_else(|| Trouble::Fail(format!("the kernel does not count {name}")))
    };
    Ok(Served {
        cached: of("read_cache_bytes")?,
        asked: of("read_daemon")?,
    })
}

/// Bytes in the middle, or an end that is elsewhere.
fn change(path: &Path, bytes: &mut Vec<u8>, n: usize, rng: &mut ChaCha8Rng) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    if n.is_multiple_of(3) {
        let end = rng.random_range(BLOCK..BYTES + 8 * BLOCK);
        bytes.resize(end, 0);
        return file.set_len(end as u64);
    }
    let at = rng.random_range(0..bytes.len());
    let mut new = vec![0; rng.random_range(1..9 * BLOCK).min(bytes.len() - at)];
    rng.fill_bytes(&mut new);
    bytes[at..at + new.len()].copy_from_slice(&new);
    file.write_all_at(&new, at as u64)
}

fn compare(how: &str, there: &[u8], wanted: &[u8]) -> Result<(), Trouble> {
    if there == wanted {
        return Ok(());
    }
    let at = there.iter().zip(wanted).position(|(a, b)| a != b);
    fail(format!(
        "{how}: {} bytes and not {}, the first other one at {at:?}",
        there.len(),
        wanted.len()
    ))
}

fn read(_: &Site<'_>, path: &Path, bytes: &[u8]) -> Result<(), Trouble> {
    let there = fs::read(path).map_err(AgentError::io(path, "read"))?;
    compare("read", &there, bytes)
}

fn mapped(_: &Site<'_>, path: &Path, bytes: &[u8]) -> Result<(), Trouble> {
    let file = File::open(path).map_err(AgentError::io(path, "open"))?;
    let len = file.metadata().map_err(AgentError::io(path, "stat"))?.len() as usize;
    let Some(size) = NonZeroUsize::new(len) else {
        return fail("the file is empty");
    };
    // SAFETY: a new private mapping of an open file; nobody cuts it while it is mapped.
    let map = unsafe {
        mmap(
            None,
            size,
            ProtFlags::PROT_READ,
            MapFlags::MAP_PRIVATE,
            &file,
            0,
        )
    };
    let map = map.map_err(|e| AgentError::io(path, "map")(e.into()))?;
    // SAFETY: mapped just now for so many bytes, and unmapped below.
    let there = unsafe { std::slice::from_raw_parts(map.as_ptr().cast::<u8>(), len) };
    let result = compare("mapped", there, bytes);
    // SAFETY: exactly that mapping, which nobody uses any more.
    unsafe { munmap(map, len) }.map_err(|e| AgentError::io(path, "unmap")(e.into()))?;
    result
}
