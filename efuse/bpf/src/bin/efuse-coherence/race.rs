//! One thread changes, others look: whoever begins to look after a change was complete must see it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::Random;
use crate::differential::{get_xattr, set_xattr};

/// A name, whose state is even in `step` while it is steady: step / 2 changes are complete. Odd: a
/// change is under way, and either state is right.
struct Steady {
    step: AtomicU64,
}

impl Steady {
    const fn new() -> Self {
        Self {
            step: AtomicU64::new(0),
        }
    }

    fn change<T>(&self, what: impl FnOnce() -> T) -> T {
        self.step.fetch_add(1, Ordering::SeqCst);
        let result = what();
        self.step.fetch_add(1, Ordering::SeqCst);
        result
    }

    /// What `look` saw, with the number of changes before it, if none came meanwhile.
    fn look<T>(&self, look: impl FnOnce() -> T) -> Option<(u64, T)> {
        let before = self.step.load(Ordering::SeqCst);
        let seen = look();
        let after = self.step.load(Ordering::SeqCst);
        (before == after && before.is_multiple_of(2)).then_some((before / 2, seen))
    }
}

/// A kind of change, and how to tell the state after `n` of them.
struct Subject {
    what: &'static str,
    path: PathBuf,
    steady: Steady,
    change: fn(&Path, u64) -> io::Result<()>,
    holds: fn(&Path, u64) -> bool,
}

fn other(path: &Path) -> PathBuf {
    path.with_extension("other")
}

fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

fn len(path: &Path) -> u64 {
    fs::symlink_metadata(path).map_or(u64::MAX, |meta| meta.len())
}

/// Each begins with an empty file at its path.
fn subjects(folder: &Path) -> Vec<Subject> {
    let subject = |what: &'static str,
                   change: fn(&Path, u64) -> io::Result<()>,
                   holds: fn(&Path, u64) -> bool| Subject {
        what,
        // A folder each: a change keeps everybody else out of its own.
        path: folder.join(what).join("it"),
        steady: Steady::new(),
        change,
        holds,
    };
    vec![
        subject(
            "unlink",
            |path, n| match n % 2 {
                0 => fs::remove_file(path),
                _ => File::create_new(path).map(drop),
            },
            |path, n| is_there(path) == n.is_multiple_of(2),
        ),
        subject(
            "rename",
            |path, n| match n % 2 {
                0 => fs::rename(path, other(path)),
                _ => fs::rename(other(path), path),
            },
            |path, n| {
                is_there(path) == n.is_multiple_of(2)
                    && is_there(&other(path)) != n.is_multiple_of(2)
            },
        ),
        subject(
            "write",
            |path, _| OpenOptions::new().append(true).open(path)?.write_all(b"x"),
            |path, n| len(path) == n,
        ),
        subject(
            "truncate",
            |path, n| OpenOptions::new().write(true).open(path)?.set_len(n + 1),
            |path, n| len(path) == n,
        ),
        subject(
            "chmod",
            |path, n| {
                let mode = if n % 2 == 0 { 0o600 } else { 0o644 };
                fs::set_permissions(path, fs::Permissions::from_mode(mode))
            },
            |path, n| {
                let mode = if n % 2 == 0 { 0o644 } else { 0o600 };
                fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o777 == mode)
            },
        ),
        subject(
            "replace",
            |path, n| {
                let new = other(path);
                fs::write(&new, vec![b'r'; usize::try_from(n % 4096 + 1).unwrap_or(1)])?;
                fs::rename(&new, path)
            },
            |path, n| len(path) == if n == 0 { 0 } else { (n - 1) % 4096 + 1 },
        ),
        subject(
            "xattr",
            |path, n| set_xattr(path, 0, n % 400 + 1),
            |path, n| match get_xattr(path, 0) {
                Ok(value) => n > 0 && value.len() as u64 == (n - 1) % 400 + 1,
                Err(error) => n == 0 && error.raw_os_error() == Some(libc::ENODATA),
            },
        ),
        subject(
            "link",
            |path, n| {
                let new = other(path);
                symlink(format!("to-{n}"), &new)?;
                fs::rename(&new, path)
            },
            |path, n| match fs::read_link(path) {
                Ok(target) => n > 0 && target == Path::new(&format!("to-{}", n - 1)),
                Err(error) => n == 0 && error.raw_os_error() == Some(libc::EINVAL),
            },
        ),
    ]
}

/// When to stop looking.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    Seconds(u64),
    Tries(u64),
}

pub(crate) fn run(folder: &Path, until: Until, readers: u32, seed: u64) -> Result<String> {
    println!("seed {seed}, {until:?}, {readers} threads that look");
    let subjects = subjects(folder);
    for subject in &subjects {
        fs::create_dir(subject.path.with_file_name(""))
            .and_then(|()| fs::write(&subject.path, b""))
            .and_then(|()| fs::set_permissions(&subject.path, fs::Permissions::from_mode(0o644)))
            .with_context(|| subject.path.display().to_string())?;
    }
    let stop = AtomicBool::new(false);
    let tries = AtomicU64::new(0);
    let begun = Instant::now();
    let (changes, stale) = std::thread::scope(|scope| {
        let (stop, tries, subjects) = (&stop, &tries, &subjects);
        let writers: Vec<_> = (0u64..)
            .zip(subjects)
            .map(|(n, subject)| {
                let random = Random(seed ^ (n + 1).wrapping_mul(0x1234_5678_9abc_def1));
                scope.spawn(move || keep_changing(subject, random, stop))
            })
            .collect();
        let watchers: Vec<_> = (0..readers)
            .map(|_| scope.spawn(move || keep_looking(subjects, tries, stop)))
            .collect();
        let enough = || match until {
            Until::Seconds(seconds) => begun.elapsed() >= Duration::from_secs(seconds),
            Until::Tries(wanted) => tries.load(Ordering::Relaxed) >= wanted,
        };
        while !enough() && !stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(50));
        }
        stop.store(true, Ordering::Relaxed);
        let mut changes = 0;
        let mut problems = Vec::new();
        for writer in writers {
            match writer.join().expect("it does not panic") {
                Ok(n) => changes += n,
                Err(error) => problems.push(format!("{error:#}")),
            }
        }
        for watcher in watchers {
            problems.extend(watcher.join().expect("it does not panic"));
        }
        (changes, problems)
    });
    let tries = tries.load(Ordering::Relaxed);
    let about = format!("{tries} looks at {changes} changes, seed {seed}");
    if !stale.is_empty() {
        bail!("{} ({about})", stale.join("; "));
    }
    if tries == 0 {
        bail!("nothing was ever steady for as long as a look takes ({about})");
    }
    Ok(format!("{about}: none stale"))
}

fn keep_changing(subject: &Subject, mut random: Random, stop: &AtomicBool) -> Result<u64> {
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        subject
            .steady
            .change(|| (subject.change)(&subject.path, n))
            .with_context(|| format!("change {n} of {}", subject.path.display()))?;
        n += 1;
        // Time to be looked at, or none. Looks that meet a change say nothing, and a daemon that
        // is late makes both long.
        if random.below(4) > 0 {
            std::thread::sleep(Duration::from_micros(random.below(100_000)));
        }
    }
    Ok(n)
}

/// What was stale. Counts how often something steady was seen.
fn keep_looking(subjects: &[Subject], tries: &AtomicU64, stop: &AtomicBool) -> Option<String> {
    while !stop.load(Ordering::Relaxed) {
        for subject in subjects {
            let seen = subject.steady.step.load(Ordering::SeqCst) / 2;
            let Some((n, holds)) = subject.steady.look(|| (subject.holds)(&subject.path, seen))
            else {
                continue;
            };
            tries.fetch_add(1, Ordering::Relaxed);
            if !holds && n == seen {
                stop.store(true, Ordering::Relaxed);
                return Some(format!(
                    "{} after {n} changes shows an earlier state",
                    subject.what
                ));
            }
        }
    }
    None
}
