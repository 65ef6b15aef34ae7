//! The POSIX test suite of the crate `pjdfstest`, if its program is here: on the lower
//! ext4 and on the system. Only differences count.
//!
//! Its cases named `etxtbsy` run a copy of `sleep` under another name. A copy of busybox
//! ends at once under a name it does not know, and whether it still runs when the case
//! looks is chance; they do not count where `sleep` is busybox. The check `posix` has a
//! case of its own for it.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use efuse_model::environment::Place;

use super::{Site, Trouble, fail};
use crate::error::AgentError;
use crate::process;

/// Longer than a tick of the coarsest kernel clock (100 Hz), by which ext4 stamps.
const CONFIG: &str = r#"
[features]
posix_fallocate = {}
rename_ctime = {}
utime_now = {}
utimensat = {}

[settings]
naptime = 0.02

[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
"#;

/// `(system, case, why)` of differences that are known and accepted.
/// `*` is every system on FUSE.
const KNOWN: &[(&str, &str, &str)] = &[
    (
        "*",
        "link::link_count_max",
        "glibc takes LINK_MAX from the file system's type, and knows none for FUSE",
    ),
    ("fuse", "open::etxtbsy", CUT),
    ("fuse-passthrough", "open::etxtbsy", CUT),
    ("fuse-uring", "open::etxtbsy", CUT),
    ("libfuse", "open::etxtbsy", CUT),
    ("libfuse", "mkdir::uid_gid_eq_euid_egid", AS_ROOT),
    ("libfuse", "mkfifo::uid_gid_eq_euid_egid", AS_ROOT),
    ("libfuse", "mknod::uid_gid_eq_euid_egid", AS_ROOT),
    ("libfuse", "open::uid_gid_eq_euid_egid", AS_ROOT),
];

/// What ext4 gives, which is made in the same way for every check.
static BELOW: OnceLock<BTreeMap<String, Verdict>> = OnceLock::new();

/// Sometimes: docs/decisions.md 32.
const CUT: &str = "with O_TRUNC the daemon cuts the program's file before the kernel asks whether \
                   it runs, and the program may have died of it by then";
const AS_ROOT: &str = "libfuse's example makes files as root, not as the caller";

pub(super) fn run(site: &mut Site<'_>) -> Result<String, Trouble> {
    let Some(program) = site.agent.options().bin.find("pjdfstest") else {
        return Err(Trouble::Skip(
            "the program pjdfstest is not here (cargo install pjdfstest)".into(),
        ));
    };
    if site.agent.options().place == Place::Vm {
        users()?;
    }
    let config = site.agent.folder().join("pjdfstest.toml");
    fs::write(&config, CONFIG).map_err(AgentError::io(&config, "write"))?;
    let run = |path: &Path| suite(&program, &config, path, site.agent.folder(), site);
    let below = match BELOW.get() {
        Some(below) => below,
        None => {
            // Beside the lower directory, so that it is not seen through the system.
            let control = site.fs.root().join("control");
            fs::create_dir(&control).map_err(AgentError::io(&control, "create the folder"))?;
            let below = run(&control)?;
            BELOW.get_or_init(|| below)
        }
    };
    let through = run(&site.root)?;
    let mut differences = differences(below, &through);
    let busybox = fs::canonicalize("/bin/sleep").is_ok_and(|p| p.ends_with("busybox"));
    if busybox {
        differences.retain(|(case, _)| !case.ends_with("::etxtbsy"));
    }
    let (known, new): (Vec<_>, Vec<_>) = differences.into_iter().partition(|(case, _)| {
        KNOWN
            .iter()
            .any(|(system, name, _)| ["*", site.system].contains(system) && name == case)
    });
    if !new.is_empty() {
        let list: Vec<_> = new
            .iter()
            .map(|(case, what)| format!("{case} ({what})"))
            .collect();
        return fail(format!(
            "{} cases differ from ext4 below: {}",
            list.len(),
            list.join("; ")
        ));
    }
    let count = |result: &str| through.values().filter(|r| r.verdict == result).count();
    Ok(format!(
        "{} passed, {} failed, {} skipped; known differences from ext4 below: {}",
        count("ok"),
        count("FAILED"),
        count("skipped"),
        if known.is_empty() {
            "none".to_owned()
        } else {
            let names: Vec<_> = known.iter().map(|(case, _)| case.as_str()).collect();
            names.join(", ")
        }
    ))
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Verdict {
    verdict: String,
    reason: String,
}

fn suite(
    program: &Path,
    config: &Path,
    path: &Path,
    second: &Path,
    site: &Site<'_>,
) -> Result<BTreeMap<String, Verdict>, Trouble> {
    // The name of a socket has room for 108 bytes, which a path below a deep folder of the project
    // exceeds: by a short name.
    let short = tempfile::Builder::new()
        .prefix("efuse-")
        .permissions(fs::Permissions::from_mode(0o711))
        .tempdir()
        .map_err(AgentError::io(std::env::temp_dir(), "create a folder in"))?;
    let name = short.path().join("p");
    symlink(path, &name).map_err(AgentError::io(&name, "make the link"))?;
    let done = process::run(
        Command::new(program)
            .env("NO_COLOR", "1")
            .arg("-c")
            .arg(config)
            .arg("-s")
            .arg(second)
            .arg("-p")
            .arg(&name),
        site.limit,
    )?;
    let results = parse(&done.stdout);
    // It exits with an error when a case fails; without a summary it broke off.
    if results.is_empty() || !done.stdout.contains("Summary:") {
        return fail(format!(
            "pjdfstest on {} {} before its summary: {}",
            path.display(),
            done.how(),
            done.tail()
        ));
    }
    Ok(results)
}

fn parse(text: &str) -> BTreeMap<String, Verdict> {
    let mut out: BTreeMap<String, Verdict> = BTreeMap::new();
    let mut last = None;
    for line in text.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            [name, verdict @ ("ok" | "FAILED" | "skipped")] if !line.starts_with('\t') => {
                out.insert(
                    name.to_owned(),
                    Verdict {
                        verdict: verdict.to_owned(),
                        reason: String::new(),
                    },
                );
                last = Some(name.to_owned());
            }
            _ => {
                if line.trim().starts_with("Backtrace") {
                    last = None;
                }
                let entry = last.as_ref().and_then(|n| out.get_mut(n));
                if let Some(entry) = entry.filter(|e| e.verdict == "FAILED" && e.reason.len() < 300)
                {
                    entry.reason = format!("{} {}", entry.reason, line.trim())
                        .trim()
                        .to_owned();
                }
            }
        }
    }
    out
}

fn differences(
    below: &BTreeMap<String, Verdict>,
    through: &BTreeMap<String, Verdict>,
) -> Vec<(String, String)> {
    let names: std::collections::BTreeSet<_> = below.keys().chain(through.keys()).collect();
    names
        .into_iter()
        .filter_map(|name| {
            let get = |m: &BTreeMap<String, Verdict>| {
                m.get(name)
                    .map_or("absent".to_owned(), |v| v.verdict.clone())
            };
            let (a, b) = (get(below), get(through));
            let reason = through.get(name).map_or("", |v| &v.reason);
            (a != b).then(|| {
                (
                    name.clone(),
                    format!("{a} below, {b} here: {reason}")
                        .trim_end_matches([':', ' '])
                        .to_owned(),
                )
            })
        })
        .collect()
}

/// The suite switches to two users, whom the guest's minimal tree does not have.
fn users() -> Result<(), Trouble> {
    for (file, lines) in [
        (
            "/etc/passwd",
            [
                "daemon:x:1:1:daemon:/:/bin/false",
                "nobody:x:65534:65534:nobody:/:/bin/false",
            ],
        ),
        ("/etc/group", ["daemon:x:1:", "nogroup:x:65534:"]),
    ] {
        let text = fs::read_to_string(file).unwrap_or_default();
        let mut out = OpenOptions::new()
            .create(true)
            .append(true)
            .open(file)
            .map_err(AgentError::io(file, "open"))?;
        for line in lines {
            let name = line.split_once(':').map_or(line, |(n, _)| n);
            if !text.lines().any(|l| l.starts_with(&format!("{name}:"))) {
                writeln!(out, "{line}").map_err(AgentError::io(file, "append"))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_and_reasons_are_read() {
        let text = "open::a    ok\nopen::b    FAILED\n\tassertion failed at x.rs:1\nopen::c   skipped\n\tno reason\n\nSummary: 1 failed, 1 skipped, 1 passed\n";
        let seen = parse(text);
        assert_eq!(seen.len(), 3);
        assert_eq!(seen["open::a"].verdict, "ok");
        assert!(seen["open::b"].reason.starts_with("assertion failed"));
        let mut other = seen.clone();
        assert_eq!(differences(&seen, &other), []);
        other.get_mut("open::a").unwrap().verdict = "FAILED".into();
        other.remove("open::c");
        let list = differences(&seen, &other);
        assert_eq!(list[0], ("open::a".into(), "ok below, FAILED here".into()));
        assert_eq!(
            list[1],
            ("open::c".into(), "skipped below, absent here".into())
        );
    }
}
