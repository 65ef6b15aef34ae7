//! What waits in the background, before the input queue, waits.

use std::fs::{self, File};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::stopped::Stopped;
use super::{Site, Trouble, attached, counted, crossings, fail, until};
use crate::error::AgentError;

const FILE_BYTES: usize = 64 << 10;
/// How long the second request is held back at least.
const HELD: Duration = Duration::from_millis(200);

/// One request may be under way in the background, and a stopped daemon does not answer it:
/// a second one is held back until the daemon goes on.
pub(super) fn run(site: &mut Site<'_>) -> Result<String, Trouble> {
    site.unmount()?;
    let names = ["first", "second"];
    for name in names {
        let path = site.lower.join(name);
        fs::write(&path, vec![b'x'; FILE_BYTES]).map_err(AgentError::io(&path, "write"))?;
    }
    site.mount()?;
    let mut files = Vec::new();
    for name in names {
        let path = site.root.join(name);
        files.push(File::open(&path).map_err(AgentError::io(&path, "open"))?);
    }
    site.mounted()?.set_background(1)?;
    let probes = attached(site)?;
    let stopped = Stopped::new(site)?;
    // Read ahead, which asks for no attributes before.
    let ahead = |file: &File| {
        let len = i64::try_from(FILE_BYTES).expect("a small file");
        posix_fadvise(file, 0, len, PosixFadviseAdvice::POSIX_FADV_WILLNEED)
            .map_err(AgentError::errno("a file", "read ahead"))
    };
    let mut span = Duration::ZERO;
    thread::scope(|scope| -> Result<(), Trouble> {
        ahead(&files[0])?;
        // It waits in this call.
        let second = scope.spawn(|| ahead(&files[1]));
        let seen = until(site, "the second request was not held back", &mut || {
            let now = probes.under_way()?;
            Ok((now.held, now.queued.len(), now.taken.len()) == (1, 1, 0))
        });
        if seen.is_ok() {
            let since = Instant::now();
            thread::sleep(HELD);
            span = since.elapsed();
        }
        drop(stopped);
        second.join().expect("it does not panic")?;
        seen
    })?;
    until(site, "the two requests did not end", &mut || {
        Ok(crossings(&probes.requests()?, "READ") == 2)
    })?;
    let counters = counted(probes)?;
    let Some(read) = counters.requests.iter().find(|r| r.opcode == "READ") else {
        return fail("no READ was counted");
    };
    let at_least = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
    let queueing = read.queueing.sum_ns.unwrap_or(0);
    let text = format!(
        "two READ waited for {} us, one of them {} us of it in the background",
        queueing / 1000,
        read.held_ns / 1000
    );
    // The first waited in the input queue all the while, the second before it.
    if read.crossings != 2 || read.held_ns < at_least || queueing < read.held_ns + at_least {
        return fail(format!("{text}: not {} us each, {read:?}", at_least / 1000));
    }
    site.mounted()?
        .set_background(efuse_systems::settings::MAX_BACKGROUND)?;
    Ok(text)
}
