//! What single calls do, each case in a folder of its own.
//!
//! A case that fails through the system is tried on the lower file system as well: if
//! it fails there too, it says nothing about the system.

mod attributes;
mod data;
mod mapped;
mod names;

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::{Site, Trouble, fail};
use crate::error::AgentError;

/// A case works in an empty folder and says what is wrong.
type Case = (&'static str, fn(&Path) -> io::Result<()>);

/// `(system, case, why)`: what a system is known not to do.
const KNOWN: &[(&str, &str, &str)] = &[
    (
        "libfuse",
        "xattr",
        "its example has extended attributes off, the faster setting",
    ),
    (
        "libfuse",
        "rename-exchange",
        "its example refuses flags of rename",
    ),
    (
        "libfuse",
        "rename-noreplace",
        "its example refuses flags of rename",
    ),
    ("libfuse", "tmpfile", "its example has no such operation"),
    (
        "libfuse",
        "sticky",
        "its example makes files as root, not as the caller",
    ),
    (
        "libfuse",
        "permission",
        "its example makes files as root, not as the caller",
    ),
    (
        "libfuse",
        "statx-birth",
        "libfuse 3.14 has no statx operation",
    ),
];

pub(super) fn run(site: &mut Site<'_>) -> Result<String, Trouble> {
    let (mut passed, mut known, mut below) = (0, Vec::new(), Vec::new());
    let mut wrong = Vec::new();
    let cases = names::CASES
        .iter()
        .chain(attributes::CASES)
        .chain(data::CASES)
        .chain(mapped::CASES);
    for (name, case) in cases {
        site.limit.check()?;
        let Err(error) = in_folder(&site.root, name, *case)? else {
            passed += 1;
            continue;
        };
        let accepted = KNOWN
            .iter()
            .any(|(system, case, _)| *system == site.system && case == name);
        if accepted {
            known.push(*name);
        } else if in_folder(site.fs.root(), name, *case)?.is_err() {
            below.push(*name);
        } else {
            wrong.push(format!("{name}: {error}"));
        }
    }
    if !wrong.is_empty() {
        return fail(format!(
            "{} of {} cases fail that ext4 below passes: {}",
            wrong.len(),
            passed + wrong.len() + known.len() + below.len(),
            wrong.join("; ")
        ));
    }
    let mut detail = format!("{passed} cases passed");
    for (what, list) in [
        ("known not to work here", known),
        ("fail on ext4 below too", below),
    ] {
        if !list.is_empty() {
            detail.push_str(&format!("; {what}: {}", list.join(", ")));
        }
    }
    Ok(detail)
}

fn in_folder(
    parent: &Path,
    name: &str,
    case: fn(&Path) -> io::Result<()>,
) -> Result<io::Result<()>, Trouble> {
    let dir = parent.join(format!("case-{name}"));
    fs::create_dir(&dir).map_err(AgentError::io(&dir, "create the folder"))?;
    let result = case(&dir);
    fs::remove_dir_all(&dir).map_err(AgentError::io(&dir, "remove the case's folder"))?;
    Ok(result)
}

/// # Errors
/// With the text, if the condition does not hold.
fn ensure(condition: bool, text: impl Into<String>) -> io::Result<()> {
    if condition {
        Ok(())
    } else {
        Err(io::Error::other(text.into()))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "calls stay readable")]
fn equal<T: PartialEq + std::fmt::Debug>(what: &str, seen: T, wanted: T) -> io::Result<()> {
    if seen == wanted {
        Ok(())
    } else {
        Err(io::Error::other(format!(
            "{what} is {seen:?}, not {wanted:?}"
        )))
    }
}

/// # Errors
/// If the call succeeds, or fails otherwise.
fn refused<T>(what: &str, result: io::Result<T>, errno: i32) -> io::Result<()> {
    match result {
        Err(e) if e.raw_os_error() == Some(errno) => Ok(()),
        Err(e) => Err(io::Error::other(format!(
            "{what} fails with {e}, not with {}",
            io::Error::from_raw_os_error(errno)
        ))),
        Ok(_) => Err(io::Error::other(format!("{what} is not refused"))),
    }
}

fn c_path(path: &Path) -> std::ffi::CString {
    std::ffi::CString::new(path.as_os_str().as_bytes()).expect("no NUL in our own paths")
}

/// The result of a system call that returns -1 and `errno`.
fn call(result: i64) -> io::Result<i64> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// A file with content.
fn file(dir: &Path, name: &str, content: &[u8]) -> io::Result<PathBuf> {
    let path = dir.join(name);
    fs::write(&path, content)?;
    Ok(path)
}
