//! fio's verification of random writes while others use the same file: somebody cuts it and lets
//! it grow behind fio's part, somebody writes through a mapping, and somebody opens it anew to read.
//!
//! Each has a part of its own and knows what must be there. Parts meet in the file's size, its
//! times, its pages' tree and its cached blocks, not in a byte.

use std::fs::{File, OpenOptions};
use std::num::NonZeroUsize;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::mman::{MapFlags, MsFlags, ProtFlags, mmap, msync, munmap};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::{Site, Trouble, fail};
use crate::error::AgentError;
use crate::process;
use crate::sys::{self, Aligned, Drop as Caches};

const NAME: &str = "verify";
const BLOCK: usize = 4096;
/// fio's part, from the beginning.
const FIO: usize = 1 << 20;
/// The mapping's, behind it.
const MAPPED: usize = 1 << 20;
/// Where the part begins that is cut and grows.
const TAIL: usize = FIO + MAPPED;
/// The file at its largest.
const WHOLE: usize = TAIL + (4 << 20);
/// Of fio's `struct verify_header` (verify.h of fio 3.33): how each verified block begins, and
/// where in it its offset in the file is.
const MAGIC: [u8; 2] = 0xacca_u16.to_le_bytes();
const OFFSET_AT: usize = 16;

pub(super) fn run(site: &mut Site<'_>) -> Result<String, Trouble> {
    let seed: u64 = rand::random();
    let path = site.root.join(NAME);
    plant(&path).map_err(AgentError::io(&path, "lay out"))?;
    let mut said = Vec::new();
    for direct in [true, false] {
        for round in 0..site.effort {
            let counts = together(site, &path, direct, seed.wrapping_add(round.into()))?;
            if round + 1 == site.effort {
                said.push(format!(
                    "{} beside it {} cuts, {} writes to a mapping, {} blocks read by others",
                    if direct { "direct:" } else { "buffered:" },
                    counts[0],
                    counts[1],
                    counts[2]
                ));
            }
        }
    }
    let names = [NAME.to_owned()];
    let through = crate::compare::digests(&site.root, &names, site.limit)?;
    site.unmount()?;
    sys::drop_caches(Caches::Pages)?;
    let below = crate::compare::digests(&site.lower, &names, site.limit)?;
    crate::compare::same(site.system, &names, &through, &below)?;
    Ok(format!(
        "seed {seed}: {} rounds each of {} writes verified; {}",
        site.effort,
        FIO / BLOCK,
        said.join("; ")
    ))
}

/// The file with blocks in fio's part that begin as fio's do, so that readers can tell them.
fn plant(path: &Path) -> std::io::Result<()> {
    let file = File::create(path)?;
    let mut bytes = vec![0; FIO];
    for (n, block) in bytes.chunks_exact_mut(BLOCK).enumerate() {
        block[..2].copy_from_slice(&MAGIC);
        block[OFFSET_AT..OFFSET_AT + 8].copy_from_slice(&((n * BLOCK) as u64).to_le_bytes());
    }
    file.write_all_at(&bytes, 0)?;
    file.set_len(WHOLE as u64)?;
    file.sync_all()
}

/// fio and the others at once, until fio is done: how often each of them did something.
fn together(site: &Site<'_>, path: &Path, direct: bool, seed: u64) -> Result<[u64; 3], Trouble> {
    let fio = site.agent.program("fio", "install it (apt install fio)")?;
    let mut command = Command::new(fio);
    command
        .args(["--name=verify", "--rw=randwrite", "--bs=4k", "--iodepth=8"])
        .args([
            "--ioengine=libaio",
            "--allow_file_create=0",
            "--fallocate=none",
        ])
        .args(["--verify=crc32c", "--do_verify=1", "--verify_fatal=1"])
        // It would lie in the working directory.
        .arg("--verify_state_save=0")
        .arg(format!("--direct={}", u8::from(direct)))
        .arg(format!("--randseed={}", seed >> 1))
        .arg(format!("--size={FIO}"))
        .arg(format!("--filename={}", path.display()));
    let stop = AtomicBool::new(false);
    let random = |n: u64| ChaCha8Rng::seed_from_u64(seed ^ n << 60);
    let (done, others) = std::thread::scope(|scope| {
        let others = [
            scope.spawn(|| cut(path, &mut random(1), &stop)),
            scope.spawn(|| mapped(path, &mut random(2), &stop)),
            scope.spawn(|| opened(path, &mut random(3), &stop)),
        ];
        let done = process::run(&mut command, site.limit);
        stop.store(true, Ordering::Relaxed);
        let others = others.map(|thread| thread.join().expect("it does not panic"));
        (done, others)
    });
    let mut counts = [0; 3];
    for (count, (who, result)) in counts.iter_mut().zip(
        ["who cuts the file", "who writes to a mapping", "who reads"]
            .into_iter()
            .zip(others),
    ) {
        *count = result.map_err(|why| Trouble::Fail(format!("{who} (seed {seed}): {why}")))?;
        if *count == 0 {
            return fail(format!("{who}: did nothing while fio ran"));
        }
    }
    done?.success("fio")?;
    Ok(counts)
}

fn open(path: &Path, direct: bool) -> Result<File, String> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(if direct { libc::O_DIRECT } else { 0 })
        .open(path)
        .map_err(|e| format!("open: {e}"))
}

/// Reads a piece of whole blocks.
fn read(file: &File, at: usize, buffer: &mut Aligned) -> Result<(), String> {
    file.read_exact_at(buffer.bytes(), at as u64)
        .map_err(|e| format!("{} bytes at {at}: {e}", buffer.bytes().len()))
}

/// Writes into the tail, cuts it, lets it grow again: zeroes where it was cut, what was written
/// elsewhere.
fn cut(path: &Path, random: &mut ChaCha8Rng, stop: &AtomicBool) -> Result<u64, String> {
    const PIECE: usize = 64 << 10;
    let (plain, direct) = (open(path, false)?, open(path, true)?);
    let mut tail = vec![0u8; WHOLE - TAIL];
    let mut back = Aligned::new(PIECE);
    // A round before left something there.
    plain
        .set_len(TAIL as u64)
        .and_then(|()| plain.set_len(WHOLE as u64))
        .map_err(|e| format!("truncate: {e}"))?;
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let at = random.random_range(0..tail.len() - PIECE);
        let byte = random.random_range(1..=u8::MAX);
        tail[at..at + PIECE].fill(byte);
        plain
            .write_all_at(&tail[at..at + PIECE], (TAIL + at) as u64)
            .map_err(|e| format!("write: {e}"))?;
        let end = random.random_range(at..tail.len());
        tail[end..].fill(0);
        for size in [TAIL + end, WHOLE] {
            plain
                .set_len(size as u64)
                .map_err(|e| format!("truncate to {size}: {e}"))?;
        }
        // Around where it was cut, and around what was written.
        for near in [end, at] {
            let from = near.saturating_sub(PIECE / 2).min(tail.len() - PIECE) / BLOCK * BLOCK;
            let file = if count % 2 == 0 { &direct } else { &plain };
            read(file, TAIL + from, &mut back)?;
            let wanted = &tail[from..from + PIECE];
            if let Some(n) = back.bytes().iter().zip(wanted).position(|(a, b)| a != b) {
                return Err(format!(
                    "byte {} is {} and not {}, cut at {}",
                    TAIL + from + n,
                    back.bytes()[n],
                    wanted[n],
                    TAIL + end
                ));
            }
        }
        count += 1;
    }
    Ok(count)
}

/// Writes to pages of a mapping; what was synchronised is read by others as well.
fn mapped(path: &Path, random: &mut ChaCha8Rng, stop: &AtomicBool) -> Result<u64, String> {
    let (plain, direct) = (open(path, false)?, open(path, true)?);
    let len = NonZeroUsize::new(MAPPED).expect("not zero");
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    let offset = i64::try_from(FIO).expect("small");
    // SAFETY: a new mapping at an address that the kernel chooses.
    let map = unsafe { mmap(None, len, protection, MapFlags::MAP_SHARED, &plain, offset) }
        .map_err(|e| format!("mmap: {e}"))?;
    // SAFETY: the mapping has as many bytes, nobody cuts the file before its end (`cut` keeps to
    // the tail), and nobody else writes to it.
    let bytes = unsafe { std::slice::from_raw_parts_mut(map.cast::<u8>().as_ptr(), MAPPED) };
    let mut block = Aligned::new(BLOCK);
    let mut count = 0;
    let mut result = Ok(());
    while result.is_ok() && !stop.load(Ordering::Relaxed) {
        let page = random.random_range(0..MAPPED / BLOCK) * BLOCK;
        bytes[page..page + BLOCK].fill(random.random());
        count += 1;
        if count % 8 != 0 {
            continue;
        }
        // SAFETY: address and length are those of the mapping.
        result = unsafe { msync(map, MAPPED, MsFlags::MS_SYNC) }
            .map_err(|e| format!("msync: {e}"))
            .and_then(|()| read(&direct, FIO + page, &mut block))
            .and_then(|()| {
                if block.bytes() == &bytes[page..page + BLOCK] {
                    Ok(())
                } else {
                    Err(format!("block {} is not what was synchronised", FIO + page))
                }
            });
    }
    // SAFETY: as above; `bytes` is not used after it.
    unsafe { munmap(map, MAPPED) }.map_err(|e| format!("munmap: {e}"))?;
    result.map(|()| count)
}

/// Opens the file anew and reads fio's part: whichever write a block is of, it is one for that
/// place.
fn opened(path: &Path, random: &mut ChaCha8Rng, stop: &AtomicBool) -> Result<u64, String> {
    const PIECE: usize = 32 << 10;
    let mut buffer = Aligned::new(PIECE);
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let file = open(path, random.random())?;
        let at = random.random_range(0..FIO / PIECE) * PIECE;
        read(&file, at, &mut buffer)?;
        for (n, block) in buffer.bytes().chunks_exact(BLOCK).enumerate() {
            let offset = ((at + n * BLOCK) as u64).to_le_bytes();
            if block[..2] != MAGIC || block[OFFSET_AT..OFFSET_AT + 8] != offset {
                return Err(format!(
                    "block {} begins with {:02x?}",
                    at + n * BLOCK,
                    &block[..OFFSET_AT + 8]
                ));
            }
            count += 1;
        }
    }
    Ok(count)
}
