//! A daemon whose files have each byte once: what was read for a cache would be lost to who reads on.

use std::fs::File;
use std::io::Read as _;

use super::super::{Site, Trouble, fail};
use super::Odd;
use crate::error::AgentError;

/// Of reads: less than a block, a block, and more.
const PIECES: [usize; 5] = [10, 4096, 1, 10_000, 512];
const ROUNDS: usize = 4;

pub(super) fn run(site: &Site<'_>) -> Result<String, Trouble> {
    let odd = Odd::mount(site, "stream", &[])?;
    let programs = odd.attach("cache")?;
    let mut bytes = 0;
    for n in 0..2 {
        let path = odd.file(n);
        let mut file = File::open(&path).map_err(AgentError::io(&path, "open"))?;
        let mut next = 0u64;
        for size in PIECES.repeat(ROUNDS) {
            let mut piece = vec![0; size];
            file.read_exact(&mut piece)
                .map_err(AgentError::io(&path, "read"))?;
            for byte in piece {
                if u64::from(byte) != next % 251 {
                    return fail(format!("f{n}: byte {next} that comes is {byte}"));
                }
                next += 1;
            }
        }
        bytes += next;
    }
    drop(programs);
    odd.unmount()?;
    Ok(format!("{bytes} bytes that come once came once"))
}
