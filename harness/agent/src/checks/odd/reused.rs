//! A daemon that gives the number of a node to another file as soon as the kernel has forgotten it:
//! what programs know of a number is true until then.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rustix::fs::getxattr;

use super::super::{Site, Trouble, fail};
use super::Odd;
use crate::error::AgentError;
use crate::sys::{self, Drop as Caches};

/// Files `f0` and so on of the daemon.
const FILES: u64 = 8;
const THREADS: u64 = 3;
/// Of a thread: files that it looks at, one after the other.
const LOOKS: usize = 150;
/// How often a file is looked at in a row, so that programs know it.
const TIMES: usize = 3;

/// Names that each number was seen under.
type Numbers = BTreeMap<u64, BTreeSet<u64>>;

pub(super) fn run(site: &Site<'_>) -> Result<String, Trouble> {
    let seed: u64 = rand::random();
    let (mut again, mut drops) = (0, 0);
    for (options, policy) in [
        (&[][..], "metadata"),
        (&["--default-permissions"], "metadata"),
        (&["--default-permissions"], "cache"),
    ] {
        let of = |trouble: Trouble| trouble.of(&format!("{policy}, {options:?}, seed {seed}"));
        let odd = Odd::mount(site, "reused", options)?;
        let programs = odd.attach(policy)?;
        let mut numbers = Numbers::new();
        odd.answering(LOOKS, || {
            let (seen, dropped) = looks(site, odd.root(), seed).map_err(of)?;
            numbers = seen;
            drops += dropped;
            Ok(())
        })?;
        again += numbers.values().filter(|names| names.len() > 1).count();
        if again == 0 {
            return fail("no number was used again");
        }
        drop(programs);
        odd.unmount()?;
        let log = site.context("odd").log;
        let said = fs::read_to_string(&log).map_err(AgentError::io(&log, "read"))?;
        if let Some(line) = said.lines().find(|line| line.contains("forgotten")) {
            return fail(format!("the daemon says: {line}"));
        }
    }
    Ok(format!(
        "{again} numbers of nodes were used for several files, all of them as they should be (caches \
         dropped {drops} times, seed {seed})"
    ))
}

/// Several threads look at files while caches are dropped; the numbers, and how often they were.
fn looks(site: &Site<'_>, root: &Path, seed: u64) -> Result<(Numbers, u32), Trouble> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let lookers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let mut dice = ChaCha8Rng::seed_from_u64(seed);
                dice.set_stream(thread);
                scope.spawn(move || -> Result<Numbers, Trouble> {
                    let mut numbers = Numbers::new();
                    for _ in 0..LOOKS {
                        let n = dice.random_range(0..FILES);
                        for _ in 0..TIMES {
                            let number = look(root, n)?;
                            numbers.entry(number).or_default().insert(n);
                        }
                    }
                    Ok(numbers)
                })
            })
            .collect();
        let dropper = scope.spawn(|| {
            let mut drops = 0;
            while !done.load(Ordering::Relaxed) {
                site.limit.check()?;
                sys::drop_caches(Caches::All)?;
                drops += 1;
            }
            Ok::<_, Trouble>(drops)
        });
        let numbers: Result<Vec<_>, _> = lookers
            .into_iter()
            .map(|thread| thread.join().expect("no panic in it"))
            .collect();
        done.store(true, Ordering::Relaxed);
        let drops = dropper.join().expect("no panic in it")?;
        let mut all = Numbers::new();
        for (number, names) in numbers?.into_iter().flatten() {
            all.entry(number).or_default().extend(names);
        }
        Ok((all, drops))
    })
}

/// Looks at all there is of a file; its number. The daemon's files differ in all of it.
fn look(root: &Path, n: u64) -> Result<u64, Trouble> {
    let path = root.join(format!("f{n}"));
    let io = |action: &'static str| AgentError::io(&path, action);
    let size = 5000 + n * 100;
    let status = fs::metadata(&path).map_err(io("stat"))?;
    let mut value = [0; 8];
    let len = getxattr(&path, "user.file", &mut value)
        .map_err(|e| Trouble::Fail(format!("user.file of {}: {e}", path.display())))?;
    let mut content = Vec::new();
    let mut file = File::open(&path).map_err(io("open"))?;
    file.read_to_end(&mut content).map_err(io("read"))?;
    let open = file.metadata().map_err(io("stat"))?;
    let right = content.len() as u64 == size && content.iter().all(|&byte| u64::from(byte) == n);
    if status.size() != size || open.size() != size || value[..len] != *n.to_string().as_bytes() {
        return fail(format!(
            "f{n} (number {}): sizes {} and {}, attribute {:?}",
            status.ino(),
            status.size(),
            open.size(),
            String::from_utf8_lossy(&value[..len])
        ));
    }
    if !right {
        return fail(format!(
            "f{n} (number {}): {} bytes that begin with {:?}",
            status.ino(),
            content.len(),
            content.first()
        ));
    }
    Ok(status.ino())
}
