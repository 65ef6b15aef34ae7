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
/// capability.h
const CAP_SYS_ADMIN: i32 = 21;
const CAP_PERFMON: i32 = 38;
const CAP_BPF: i32 = 39;
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

    {
        use std::os::unix::process::CommandExt as _;
        let mut command = Command::new("/bin/busybox");
        command.args(["unshare", "-U", "-r"]).arg(&efuse);
        command.arg("attach").arg(&root).uid(NOBODY).gid(NOBODY);
        let done = process::run(&mut command, site.limit)?;
        must(
            "attaching as root of a user namespace",
            &done,
            Some("not permitted"),
        )?;
    }
    // CAP_SYS_ADMIN stands for the other two.
    for (without, words) in [
        (&[CAP_BPF, CAP_SYS_ADMIN][..], "not permitted"),
        (&[CAP_PERFMON, CAP_SYS_ADMIN], "does not load"),
    ] {
        let mut command = Command::new(&efuse);
        command.arg("attach").arg(&root);
        let done = process::run(drop_from_root(&mut command, without), site.limit)?;
        let what = format!("attaching without capabilities {without:?}");
        must(&what, &done, Some(words))?;
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

/// Root without some of its capabilities.
fn drop_from_root<'a>(command: &'a mut Command, without: &'static [i32]) -> &'a mut Command {
    use std::os::unix::process::CommandExt as _;

    // SAFETY: between fork and exec it makes plain system calls on numbers, and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            for capability in without {
                // What root gets by exec is bounded by this set.
                if libc::prctl(libc::PR_CAPBSET_DROP, *capability, 0, 0, 0) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        })
    }
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
