//! A daemon that holds what is written until the file is flushed.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::super::{Site, Trouble, fail};
use super::Odd;
use crate::error::AgentError;

/// Bytes of each write.
const BYTES: u64 = 5000;
/// How often a file is looked at before it is closed, so that programs know it.
const LOOKS: usize = 4;
const ROUNDS: u64 = 20;

pub(super) fn run(site: &Site<'_>) -> Result<String, Trouble> {
    // With the kernel's checks of permissions, attributes that were answered are kept and used
    // again by the kernel itself; without, each look meets the program.
    for options in [&[][..], &["--default-permissions"]] {
        let odd = Odd::mount(site, "flush", options)?;
        let programs = odd.attach("metadata")?;
        // One descriptor of several is closed: FLUSH and no RELEASE. Then the last one is.
        for (n, last) in [(0, false), (1, true)] {
            let path = odd.file(n);
            let done = odd.answering(ROUNDS as usize * (LOOKS - 1), || rounds(&path, last));
            done.map_err(|trouble| {
                let which = if last { "the last" } else { "one" };
                trouble.of(&format!("{which} descriptor closed, {options:?}"))
            })?;
        }
        drop(programs);
        odd.unmount()?;
    }
    Ok(format!(
        "sizes and times are right after each of {} closes",
        4 * ROUNDS
    ))
}

fn rounds(path: &Path, last: bool) -> Result<(), Trouble> {
    let io = |action: &'static str| AgentError::io(path, action);
    let mut open = File::options()
        .append(true)
        .open(path)
        .map_err(io("open"))?;
    for round in 0..ROUNDS {
        let before = status(path).map_err(io("stat"))?;
        let data = vec![round as u8; BYTES as usize];
        open.write_all(&data).map_err(io("write"))?;
        for _ in 0..LOOKS {
            let held = status(path).map_err(io("stat"))?;
            if held != before {
                return fail(format!(
                    "{held:?} before the file is flushed, and {before:?} before it was written"
                ));
            }
        }
        let closed = if last {
            let again = File::options().append(true).open(path);
            std::mem::replace(&mut open, again.map_err(io("open"))?)
        } else {
            open.try_clone().map_err(io("duplicate"))?
        };
        drop(closed);
        let (size, mtime) = status(path).map_err(io("stat"))?;
        if size != BYTES * (round + 1) || mtime <= before.1 {
            return fail(format!(
                "round {round}: size {size} and time {mtime:?} after close, and {before:?} before"
            ));
        }
    }
    Ok(())
}

/// Size, and when that was.
fn status(path: &Path) -> io::Result<(u64, (i64, i64))> {
    let status = fs::metadata(path)?;
    Ok((status.size(), (status.mtime(), status.mtime_nsec())))
}
