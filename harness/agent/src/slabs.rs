//! Objects of the kernel's slab caches: what is left when nothing should be.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::AgentError;

/// Objects that are freed after a grace period may take so long.
const PATIENCE: Duration = Duration::from_secs(10);
const SLABINFO: &str = "/proc/slabinfo";

/// Objects in use of the cache with this name, `None` if there is no such cache or it is merged
/// with others (the guest's kernel is started with `slab_nomerge`).
///
/// # Errors
/// If the kernel's figures cannot be read.
pub fn objects(cache: &str) -> Result<Option<u64>, AgentError> {
    // Without it, all objects of a slab that a processor holds count as used.
    let shrink = Path::new("/sys/kernel/slab").join(cache).join("shrink");
    if shrink.exists() {
        fs::write(&shrink, "1").map_err(AgentError::io(&shrink, "shrink the cache by"))?;
    }
    let path = Path::new(SLABINFO);
    let text = fs::read_to_string(path).map_err(AgentError::io(path, "read"))?;
    Ok(find(&text, cache))
}

/// Waits until the cache has no more objects than that; how many it has in the end.
///
/// # Errors
/// As [`objects`].
pub fn settle(cache: &str, goal: u64) -> Result<u64, AgentError> {
    let begun = Instant::now();
    loop {
        let now = objects(cache)?.unwrap_or(0);
        if now <= goal || begun.elapsed() > PATIENCE {
            return Ok(now);
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// Lines are `name active_objs num_objs ...`.
fn find(text: &str, cache: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some(cache))
            .then(|| words.next()?.parse().ok())
            .flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_of_that_very_name() {
        let text = "slabinfo - version: 2.1\n\
                    # name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab>\n\
                    efuse_request2         9     27    152   27    1 : tunables 0 0 0\n\
                    efuse_request          7     27    152   27    1 : tunables 0 0 0\n";
        assert_eq!(find(text, "efuse_request"), Some(7));
        assert_eq!(find(text, "fuse_request"), None);
    }
}
