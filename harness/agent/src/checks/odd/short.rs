//! A daemon that reads less than it is asked for, in the middle of a file.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _};

use efuse_bpf::data_counts;

use super::super::{Site, Trouble, fail};
use super::Odd;
use crate::error::AgentError;

/// Several replies of the daemon, and not a whole number of blocks.
const BYTES: usize = 300_000;
/// Of one read and the next: more than a reply of the daemon, and within the block that it ends in.
const PIECES: [usize; 2] = [64 << 10, 1000];
const ROUNDS: usize = 3;
/// Bytes of the daemon's replies: more than a block, and less.
const REPLIES: [&str; 2] = ["10000", "1000"];

pub(super) fn run(site: &Site<'_>) -> Result<String, Trouble> {
    for most in REPLIES {
        replies(site, most).map_err(|trouble| trouble.of(most))?;
    }
    Ok(format!(
        "{ROUNDS} x {BYTES} bytes are right from replies of {REPLIES:?}"
    ))
}

fn replies(site: &Site<'_>, most: &str) -> Result<(), Trouble> {
    let odd = Odd::mount(site, "short", &["--most", most])?;
    let programs = odd.attach("cache")?;
    let wanted: Vec<u8> = (0..BYTES).map(|n| (n % 251) as u8).collect();
    let path = odd.file(0);
    fs::write(&path, &wanted).map_err(AgentError::io(&path, "write"))?;
    // Once: what is cached goes when a file is opened.
    let mut file = File::open(&path).map_err(AgentError::io(&path, "open"))?;
    for round in 0..ROUNDS {
        let seen = read(&mut file).map_err(AgentError::io(&path, "read"))?;
        if seen != wanted {
            let same = seen.iter().zip(&wanted).take_while(|(a, b)| a == b).count();
            return fail(format!(
                "round {round}: {} bytes of {BYTES} were read, the first {same} as they should be",
                seen.len()
            ));
        }
    }
    let cached = data_counts(odd.dev)?.get("read_cache").copied();
    // No block is whole, or the file's last, where replies are less than that.
    if most == REPLIES[0] && cached.is_none_or(|n| n == 0) {
        return fail(format!("{cached:?} reads were served by the cache"));
    }
    drop((file, programs));
    odd.unmount()
}

/// From the beginning until a read gives nothing.
fn read(file: &mut File) -> io::Result<Vec<u8>> {
    file.rewind()?;
    let (mut seen, mut piece) = (Vec::new(), vec![0; PIECES[0]]);
    for size in PIECES.into_iter().cycle() {
        let n = file.read(&mut piece[..size])?;
        if n == 0 {
            break;
        }
        seen.extend_from_slice(&piece[..n]);
    }
    Ok(seen)
}
