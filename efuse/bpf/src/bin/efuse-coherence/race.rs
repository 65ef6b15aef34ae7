//! One thread changes, others look: whoever begins to look after a change was complete must see it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

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
        path: folder.join(what),
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
    ]
}

pub(crate) fn run(folder: &Path, seconds: u64, readers: u32) -> Result<String> {
    let subjects = subjects(folder);
    for subject in &subjects {
        fs::write(&subject.path, b"")
            .and_then(|()| fs::set_permissions(&subject.path, fs::Permissions::from_mode(0o644)))
            .with_context(|| subject.path.display().to_string())?;
    }
    let stop = AtomicBool::new(false);
    let end = Instant::now() + Duration::from_secs(seconds);
    let (changes, looks, stale) = std::thread::scope(|scope| {
        let writers: Vec<_> = subjects
            .iter()
            .map(|subject| scope.spawn(|| keep_changing(subject, &stop)))
            .collect();
        let watchers: Vec<_> = (0..readers)
            .map(|_| scope.spawn(|| keep_looking(&subjects, &stop)))
            .collect();
        while Instant::now() < end && !stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(50));
        }
        stop.store(true, Ordering::Relaxed);
        let mut changes = 0;
        let mut problems = Vec::new();
        for writer in writers {
            match writer.join().expect("it does not panic") {
                Ok(n) => changes += n,
                Err(error) => problems.push(error.to_string()),
            }
        }
        let mut looks = 0;
        for watcher in watchers {
            let (n, stale) = watcher.join().expect("it does not panic");
            looks += n;
            problems.extend(stale);
        }
        (changes, looks, problems)
    });
    ensure!(stale.is_empty(), "{}", stale.join("; "));
    Ok(format!("{looks} looks at {changes} changes, none stale"))
}

fn keep_changing(subject: &Subject, stop: &AtomicBool) -> Result<u64> {
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        subject
            .steady
            .change(|| (subject.change)(&subject.path, n))
            .with_context(|| format!("change {n} of {}", subject.path.display()))?;
        n += 1;
        // Time to be looked at.
        std::thread::sleep(Duration::from_micros(n * 371 % 20_000));
    }
    Ok(n)
}

/// How often something steady was seen, and what was stale.
fn keep_looking(subjects: &[Subject], stop: &AtomicBool) -> (u64, Option<String>) {
    let mut looks = 0;
    while !stop.load(Ordering::Relaxed) {
        for subject in subjects {
            let seen = subject.steady.step.load(Ordering::SeqCst) / 2;
            let Some((n, holds)) = subject.steady.look(|| (subject.holds)(&subject.path, seen))
            else {
                continue;
            };
            looks += 1;
            if !holds && n == seen {
                stop.store(true, Ordering::Relaxed);
                let stale = format!("{} after {n} changes shows an earlier state", subject.what);
                return (looks, Some(stale));
            }
        }
    }
    (looks, None)
}
