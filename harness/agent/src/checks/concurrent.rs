//! Threads that create, rename, unlink, link, write and read in one tree.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use xxhash_rust::xxh3::xxh3_64;

use super::{Site, Trouble, fail};
use crate::error::{AgentError, Result};
use crate::limit::Limit;
use crate::sys::{self, Drop as Caches};

const THREADS: u64 = 8;
const STEPS: u32 = 250;
const DIRS: u32 = 4;
/// Few names, so that threads meet on them.
const NAMES: u32 = 24;

pub(super) fn run(site: &mut Site<'_>) -> Result<String, Trouble> {
    let tree = site.root.join("tree");
    for dir in 0..DIRS {
        let path = tree.join(format!("d{dir}"));
        fs::create_dir_all(&path).map_err(AgentError::io(&path, "create the folder"))?;
    }
    let limit = site.limit;
    let done: Result<u32> = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|n| {
                let tree = &tree;
                scope.spawn(move || work(tree, n, limit))
            })
            .collect();
        let results = threads
            .into_iter()
            .map(|t| t.join().expect("no panic in it"));
        results.sum()
    });
    let done = done?;
    let through = list(&tree)?;
    site.unmount()?;
    sys::drop_caches(Caches::All)?;
    let below = list(&site.lower.join("tree"))?;
    for (path, entry) in &below {
        match through.get(path) {
            Some(seen) if seen == entry => {}
            Some(seen) => {
                return fail(format!(
                    "{}: {seen:?} through the system, {entry:?} below",
                    path.display()
                ));
            }
            None => {
                return fail(format!(
                    "{} is below, not through the system",
                    path.display()
                ));
            }
        }
    }
    if let Some(path) = through.keys().find(|p| !below.contains_key(*p)) {
        return fail(format!(
            "{} is there through the system, not below",
            path.display()
        ));
    }
    Ok(format!(
        "{THREADS} threads, {done} calls that succeeded; {} entries equal",
        below.len()
    ))
}

/// What two sides have to agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    mode: u32,
    links: u64,
    size: u64,
    content: u64,
}

fn list(root: &Path) -> Result<BTreeMap<PathBuf, Entry>> {
    let mut out = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        for item in fs::read_dir(&dir).map_err(AgentError::io(&dir, "list"))? {
            let path = item.map_err(AgentError::io(&dir, "list"))?.path();
            let meta = fs::symlink_metadata(&path).map_err(AgentError::io(&path, "stat"))?;
            let content = if meta.is_file() {
                xxh3_64(&fs::read(&path).map_err(AgentError::io(&path, "read"))?)
            } else {
                0
            };
            if meta.is_dir() {
                open.push(path.clone());
            }
            let name = path.strip_prefix(root).unwrap_or(&path).to_owned();
            out.insert(
                name,
                Entry {
                    mode: meta.mode(),
                    links: meta.nlink(),
                    size: meta.size(),
                    content,
                },
            );
        }
    }
    Ok(out)
}

/// Errors that another thread's change explains.
fn expected(e: &io::Error) -> bool {
    use io::ErrorKind::{AlreadyExists, DirectoryNotEmpty, IsADirectory, NotADirectory, NotFound};
    matches!(
        e.kind(),
        AlreadyExists | DirectoryNotEmpty | IsADirectory | NotADirectory | NotFound
    )
}

fn work(tree: &Path, thread: u64, limit: &Limit) -> Result<u32> {
    let mut rng = ChaCha8Rng::seed_from_u64(thread);
    let name = |rng: &mut ChaCha8Rng| {
        tree.join(format!("d{}", rng.random_range(0..DIRS)))
            .join(format!("n{}", rng.random_range(0..NAMES)))
    };
    let mut done = 0;
    for step in 0..STEPS {
        limit.check()?;
        let path = name(&mut rng);
        let (what, result) = match rng.random_range(0..10) {
            0..3 => ("write", write(&path, thread, step)),
            3 => ("append", append(&path, thread)),
            4 => ("rename", fs::rename(&path, name(&mut rng))),
            5 => ("unlink", fs::remove_file(&path)),
            6 => ("link", fs::hard_link(&path, name(&mut rng))),
            7 => ("mkdir", fs::create_dir(&path)),
            8 => ("rmdir", fs::remove_dir(&path)),
            _ => ("read", fs::read(&path).and_then(|bytes| whole(&bytes))),
        };
        match result {
            Ok(()) => done += 1,
            Err(e) if expected(&e) => {}
            // Another thread has made a folder of this name.
            Err(e) if what == "link" && e.raw_os_error() == Some(libc::EPERM) => {}
            Err(e) => return Err(AgentError::io(&path, what)(e)),
        }
    }
    Ok(done)
}

/// A line of one letter. Written in one call, so no reader may see a part of two.
fn line(thread: u64) -> Vec<u8> {
    let letter = b'a' + u8::try_from(thread % 26).expect("a letter");
    let mut line = vec![letter; 99];
    line.push(b'\n');
    line
}

/// Writes a new file beside and renames it into place.
fn write(path: &Path, thread: u64, step: u32) -> io::Result<()> {
    let tmp = path.with_extension(format!("{thread}-{step}"));
    fs::write(&tmp, line(thread).repeat(1 + step as usize % 60))?;
    fs::rename(&tmp, path).or_else(|e| {
        fs::remove_file(&tmp)?;
        Err(e)
    })
}

fn append(path: &Path, thread: u64) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).open(path)?;
    file.write_all(&line(thread))
}

/// Whole lines of one letter each.
fn whole(bytes: &[u8]) -> io::Result<()> {
    let good = bytes
        .chunks(100)
        .all(|l| l.len() == 100 && l[99] == b'\n' && l[..99].iter().all(|b| *b == l[0]));
    if good {
        Ok(())
    } else {
        Err(io::Error::other(format!(
            "read {} bytes that no writer has written in one piece",
            bytes.len()
        )))
    }
}
