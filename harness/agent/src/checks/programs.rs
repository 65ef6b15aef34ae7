//! Programs on an eFUSE mount: what must not load, who may attach, and coming and going under load.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::{Site, Trouble, fail};
use crate::error::AgentError;
use crate::process::{self, Finished};
use crate::sys::{self, Drop as Caches};

const FILES: usize = 100;
/// An account without any capability.
const NOBODY: u32 = 65534;
/// Times that programs come and go while the tree is read.
const ROUNDS: usize = 8;

pub(super) fn run(site: &mut Site<'_>) -> Result<String, Trouble> {
    let efuse = site.agent.program("efuse", "build it with `just build`")?;
    let root = site.root.clone();
    let call = |args: &[&str]| -> Result<Finished, Trouble> {
        Ok(process::run(
            Command::new(&efuse).args(args).arg(&root),
            site.limit,
        )?)
    };
    let selftest = call(&["selftest"])?;
    if !selftest.status.success() {
        return fail(format!(
            "efuse selftest {}: {}",
            selftest.how(),
            selftest.tail()
        ));
    }
    let refused = selftest
        .stdout
        .lines()
        .last()
        .unwrap_or_default()
        .to_owned();

    let must = |what: &str, done: &Finished, wanted: Option<&str>| match wanted {
        None if done.status.success() => Ok(()),
        Some(words) if !done.status.success() && done.tail().contains(words) => Ok(()),
        _ => fail(format!("{what} {}: {}", done.how(), done.tail())),
    };
    must("attaching", &call(&["attach"])?, None)?;
    must(
        "attaching again",
        &call(&["attach"])?,
        Some("attached there already"),
    )?;
    must("replacing", &call(&["attach", "--replace"])?, None)?;
    must("detaching", &call(&["detach"])?, None)?;
    must(
        "detaching again",
        &call(&["detach"])?,
        Some("no programs are attached"),
    )?;
    let elsewhere = process::run(Command::new(&efuse).args(["attach", "/proc"]), site.limit)?;
    must(
        "attaching to /proc",
        &elsewhere,
        Some("no mount point of type efuse"),
    )?;

    for args in [["attach"], ["show"]] {
        use std::os::unix::process::CommandExt as _;
        let done = process::run(
            Command::new(&efuse)
                .args(args)
                .arg(&root)
                .uid(NOBODY)
                .gid(NOBODY),
            site.limit,
        )?;
        must(args[0], &done, Some("not permitted"))?;
    }

    for n in 0..FILES {
        let path = root.join(format!("f{n}"));
        fs::write(&path, n.to_string()).map_err(AgentError::io(&path, "write"))?;
    }
    let stop = AtomicBool::new(false);
    let reads = thread::scope(|scope| {
        let reader = scope.spawn(|| keep_reading(&root, &stop));
        let churn = (0..ROUNDS).try_for_each(|_| {
            must(
                "attaching under load",
                &call(&["attach", "--until-invalidated"])?,
                None,
            )?;
            sys::drop_caches(Caches::All)?;
            must(
                "replacing under load",
                &call(&["attach", "--replace"])?,
                None,
            )?;
            must("detaching under load", &call(&["detach"])?, None)
        });
        stop.store(true, Ordering::Relaxed);
        let reads = reader.join().expect("it does not panic");
        churn.and(reads)
    })?;
    site.mounted()?.alive()?;
    Ok(format!(
        "{refused}; attached, replaced and detached {ROUNDS} times during {reads} reads"
    ))
}

/// Reads everything again and again, with a missing name between; the number of files read.
fn keep_reading(root: &Path, stop: &AtomicBool) -> Result<usize, Trouble> {
    let mut reads = 0;
    while !stop.load(Ordering::Relaxed) {
        for n in 0..FILES {
            let path = root.join(format!("f{n}"));
            let text = fs::read_to_string(&path).map_err(AgentError::io(&path, "read"))?;
            if text != n.to_string() {
                return fail(format!("{} has the content {text:?}", path.display()));
            }
            if root.join(format!("missing{n}")).exists() {
                return fail(format!("missing{n} is there"));
            }
            reads += 1;
        }
    }
    Ok(reads)
}
