//! Data under change: no read may return bytes older than a write that was complete when it began.
//!
//! Two kinds of files. In a *versioned* one each block holds its number and version all over;
//! a thread writes versions of its own blocks, and readers know which one was complete before they
//! read and which was begun by the end. In a *stepped* one each step leaves a state that is known to
//! the byte; readers compare what they saw while no step was under way.

use std::fs::{File, OpenOptions};
use std::io;
use std::num::NonZero;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use rustix::fs::{Advice, fadvise};

use crate::Random;

const BLOCK: usize = 4096;
/// Bytes that hold number and version once.
const CELL: usize = 16;
/// Small enough that reads, fills and writes meet.
const BLOCKS: usize = 96;
const WRITERS: usize = 2;
/// Blocks of the largest read or write.
const SPAN: usize = 20;

/// Memory aligned for direct I/O.
struct Aligned {
    memory: Vec<u8>,
    from: usize,
}

impl Aligned {
    fn new(len: usize) -> Self {
        let memory = vec![0; len + BLOCK];
        let from = memory.as_ptr().align_offset(BLOCK);
        Self { memory, from }
    }

    fn bytes(&mut self, len: usize) -> &mut [u8] {
        &mut self.memory[self.from..self.from + len]
    }
}

fn open(path: &Path, direct: bool) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(if direct { libc::O_DIRECT } else { 0 })
        .open(path)
        .with_context(|| format!("open {}", path.display()))
}

/// Reads until the end of the file or of the buffer. What is not whole blocks is the end; direct I/O
/// could not go on from there.
fn read_all(file: &File, out: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < out.len() && done.is_multiple_of(BLOCK) {
        match file.read_at(&mut out[done..], at + done as u64)? {
            0 => break,
            n => done += n,
        }
    }
    Ok(done)
}

/// What was seen, and what was wrong with it.
#[derive(Default)]
struct Seen {
    blocks: u64,
    wrong: Option<String>,
}

struct Versioned {
    path: PathBuf,
    begun: Vec<AtomicU64>,
    done: Vec<AtomicU64>,
}

fn fill(block: &mut [u8], number: usize, version: u64) {
    for cell in block.chunks_exact_mut(CELL) {
        cell[..8].copy_from_slice(&(number as u64).to_ne_bytes());
        cell[8..].copy_from_slice(&version.to_ne_bytes());
    }
}

impl Versioned {
    fn new(path: PathBuf) -> Result<Self> {
        let mut all = vec![0; BLOCKS * BLOCK];
        for (n, block) in all.chunks_exact_mut(BLOCK).enumerate() {
            fill(block, n, 0);
        }
        std::fs::write(&path, &all).with_context(|| format!("write {}", path.display()))?;
        let counters = || (0..BLOCKS).map(|_| AtomicU64::new(0)).collect();
        Ok(Self {
            path,
            begun: counters(),
            done: counters(),
        })
    }

    /// Writes versions of every WRITERS-th group of blocks.
    fn keep_writing(&self, writer: usize, stop: &AtomicBool) -> Result<u64> {
        let mut random = Random(writer as u64 + 1);
        let files = [open(&self.path, true)?, open(&self.path, false)?];
        let mut memory = Aligned::new(SPAN * BLOCK);
        let mut writes = 0;
        let share = BLOCKS / WRITERS;
        while !stop.load(Ordering::Relaxed) {
            let span = match random.below(8) {
                0 => 1 + random.below(SPAN as u64) as usize,
                _ => 1,
            };
            let first = writer * share + random.below((share - span + 1) as u64) as usize;
            let bytes = memory.bytes(span * BLOCK);
            for (n, block) in (first..).zip(bytes.chunks_exact_mut(BLOCK)) {
                let version = self.begun[n].fetch_add(1, Ordering::SeqCst) + 1;
                fill(block, n, version);
            }
            let file = &files[usize::from(random.below(4) == 0)];
            let at = (first * BLOCK) as u64;
            file.write_all_at(bytes, at)
                .with_context(|| format!("write {} at {at}", self.path.display()))?;
            for n in first..first + span {
                self.done[n].fetch_add(1, Ordering::SeqCst);
            }
            writes += 1;
            if random.below(4) == 0 {
                std::thread::sleep(Duration::from_micros(random.below(3000)));
            }
        }
        Ok(writes)
    }

    /// Has the kernel drop pages, so that they are read anew while they are written. Changes nothing.
    fn keep_dropping(&self, stop: &AtomicBool) -> Result<u64> {
        let mut random = Random(0x4000);
        let file = open(&self.path, false)?;
        let half = BLOCKS as u64 / 2;
        let len = NonZero::new(half * BLOCK as u64);
        while !stop.load(Ordering::Relaxed) {
            let at = random.below(half) * BLOCK as u64;
            fadvise(&file, at, len, Advice::DontNeed)
                .with_context(|| format!("drop pages of {}", self.path.display()))?;
            std::thread::sleep(Duration::from_micros(random.below(600)));
        }
        Ok(0)
    }

    fn keep_reading(&self, reader: usize, stop: &AtomicBool) -> Result<Seen> {
        let mut random = Random(0x1000 + reader as u64);
        let files = [open(&self.path, true)?, open(&self.path, false)?];
        let mut memory = Aligned::new(SPAN * BLOCK);
        let mut seen = Seen::default();
        let mut least = vec![0; SPAN];
        while !stop.load(Ordering::Relaxed) {
            let span = match random.below(6) {
                0 => 1 + random.below(SPAN as u64) as usize,
                _ => 1,
            };
            let first = random.below((BLOCKS - span + 1) as u64) as usize;
            for (n, least) in (first..).zip(&mut least[..span]) {
                *least = self.done[n].load(Ordering::SeqCst);
            }
            let bytes = memory.bytes(span * BLOCK);
            let at = (first * BLOCK) as u64;
            let got = read_all(&files[usize::from(random.below(4) == 0)], bytes, at)
                .with_context(|| format!("read {} at {at}", self.path.display()))?;
            ensure!(got == bytes.len(), "read {got} bytes at {at} in the middle");
            for ((n, block), least) in (first..).zip(bytes.chunks_exact(BLOCK)).zip(&least) {
                let most = self.begun[n].load(Ordering::SeqCst);
                if let Some(wrong) = check(block, n, *least, most) {
                    stop.store(true, Ordering::Relaxed);
                    seen.wrong = Some(wrong);
                    return Ok(seen);
                }
                seen.blocks += 1;
            }
        }
        Ok(seen)
    }
}

fn check(block: &[u8], number: usize, least: u64, most: u64) -> Option<String> {
    block.chunks_exact(CELL).enumerate().find_map(|(i, cell)| {
        let word =
            |at: usize| u64::from_ne_bytes(cell[at..at + 8].try_into().expect("eight bytes"));
        let (owner, version) = (word(0), word(8));
        (owner != number as u64 || version < least || version > most).then(|| {
            format!(
                "block {number} has at {} version {version} of block {owner}; versions {least} to \
                 {most} of its own would be right",
                i * CELL
            )
        })
    })
}

/// Largest size of a stepped file.
const LARGEST: usize = 5 * BLOCK;

struct Stepped {
    path: PathBuf,
    step: AtomicU64,
}

/// The content after `n` steps is that of the last of them applied to what was there before.
fn apply(content: &mut Vec<u8>, n: u64) {
    let byte = (n % 251) as u8 + 1;
    match n % 6 {
        0 => *content = vec![byte; LARGEST],
        1 => content.truncate(5000),
        2 => content.resize(3 * BLOCK + 100, 0),
        3 => content.extend_from_slice(&[byte; 300]),
        4 => content[6000..6700].fill(byte),
        _ => content[BLOCK..2 * BLOCK].fill(byte),
    }
}

impl Stepped {
    fn new(path: PathBuf) -> Result<Self> {
        let mut content = Vec::new();
        apply(&mut content, 0);
        std::fs::write(&path, &content).with_context(|| format!("write {}", path.display()))?;
        Ok(Self {
            path,
            step: AtomicU64::new(0),
        })
    }

    fn keep_stepping(&self, mapped: bool, stop: &AtomicBool) -> Result<u64> {
        let mut random = Random(99);
        let mut content = Vec::new();
        apply(&mut content, 0);
        let mut n = 0;
        while !stop.load(Ordering::Relaxed) {
            n += 1;
            self.step.fetch_add(1, Ordering::SeqCst);
            apply(&mut content, n);
            self.change(&content, n, mapped)
                .with_context(|| format!("step {n} of {}", self.path.display()))?;
            self.step.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_micros(2000 + random.below(20_000)));
        }
        Ok(n)
    }

    fn change(&self, content: &[u8], n: u64, mapped: bool) -> Result<()> {
        let byte = (n % 251) as u8 + 1;
        let mut options = OpenOptions::new();
        match n % 6 {
            0 => std::fs::write(&self.path, content)?,
            1 | 2 => options
                .write(true)
                .open(&self.path)?
                .set_len(content.len() as u64)?,
            3 => {
                use std::io::Write as _;
                options
                    .append(true)
                    .open(&self.path)?
                    .write_all(&content[content.len() - 300..])?;
            }
            4 => open(&self.path, false)?.write_all_at(&content[6000..6700], 6000)?,
            _ if mapped => store(&open(&self.path, false)?, byte)?,
            _ => {
                let mut memory = Aligned::new(BLOCK);
                memory.bytes(BLOCK).fill(byte);
                open(&self.path, true)?.write_all_at(memory.bytes(BLOCK), BLOCK as u64)?;
            }
        }
        Ok(())
    }

    fn keep_comparing(&self, reader: usize, stop: &AtomicBool) -> Result<Seen> {
        let mut random = Random(0x2000 + reader as u64);
        let mut memory = Aligned::new(LARGEST + BLOCK);
        let mut seen = Seen::default();
        let mut content = Vec::new();
        let mut at = 0;
        apply(&mut content, 0);
        while !stop.load(Ordering::Relaxed) {
            let file = open(&self.path, random.below(2) == 0)?;
            for _ in 0..4 {
                let before = self.step.load(Ordering::SeqCst);
                let bytes = memory.bytes(LARGEST + BLOCK);
                let got = read_all(&file, bytes, 0)
                    .with_context(|| format!("read {}", self.path.display()))?;
                if before % 2 == 1 || self.step.load(Ordering::SeqCst) != before {
                    continue;
                }
                while at < before / 2 {
                    at += 1;
                    apply(&mut content, at);
                }
                if bytes[..got] != content[..] {
                    let differs = content.iter().zip(&*bytes).position(|(a, b)| a != b);
                    stop.store(true, Ordering::Relaxed);
                    seen.wrong = Some(format!(
                        "after step {at} ({}) {} has {got} bytes where {} would be right; the \
                         first that differs is {differs:?}",
                        at % 6,
                        self.path.display(),
                        content.len()
                    ));
                    return Ok(seen);
                }
                seen.blocks += got.div_ceil(BLOCK) as u64;
            }
        }
        Ok(seen)
    }
}

/// Fills the second block through a shared mapping that is gone afterwards.
fn store(file: &File, byte: u8) -> Result<()> {
    use std::os::fd::AsRawFd as _;

    // SAFETY: a new mapping of an open file, checked below.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            2 * BLOCK,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    };
    if address == libc::MAP_FAILED {
        bail!("mmap: {}", io::Error::last_os_error());
    }
    // SAFETY: both pages are mapped and inside the file, which only this thread changes in size.
    unsafe {
        std::ptr::write_bytes(address.cast::<u8>().add(BLOCK), byte, BLOCK);
        libc::munmap(address, 2 * BLOCK);
    }
    Ok(())
}

pub(crate) fn run(folder: &Path, seconds: u64, readers: u32) -> Result<String> {
    let versioned = Versioned::new(folder.join("versioned"))?;
    let stepped = [
        Stepped::new(folder.join("stepped"))?,
        Stepped::new(folder.join("mapped"))?,
    ];
    let stop = AtomicBool::new(false);
    let end = Instant::now() + Duration::from_secs(seconds);
    let (changes, blocks, problems) = std::thread::scope(|scope| {
        // Whoever fails stops all.
        fn watched<T>(stop: &AtomicBool, what: impl FnOnce() -> Result<T>) -> Result<T> {
            what().inspect_err(|_| stop.store(true, Ordering::Relaxed))
        }
        let (stop, versioned) = (&stop, &versioned);
        let mut writers = Vec::new();
        let mut watchers = Vec::new();
        for n in 0..WRITERS {
            writers.push(scope.spawn(move || watched(stop, || versioned.keep_writing(n, stop))));
        }
        writers.push(scope.spawn(move || watched(stop, || versioned.keep_dropping(stop))));
        for (n, file) in stepped.iter().enumerate() {
            writers.push(scope.spawn(move || watched(stop, || file.keep_stepping(n == 1, stop))));
            watchers.push(scope.spawn(move || watched(stop, || file.keep_comparing(n, stop))));
        }
        for n in 0..readers as usize {
            watchers.push(scope.spawn(move || watched(stop, || versioned.keep_reading(n, stop))));
        }
        while Instant::now() < end && !stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(50));
        }
        stop.store(true, Ordering::Relaxed);
        let (mut changes, mut blocks, mut problems) = (0, 0, Vec::new());
        for writer in writers {
            match writer.join().expect("it does not panic") {
                Ok(n) => changes += n,
                Err(error) => problems.push(format!("{error:#}")),
            }
        }
        for watcher in watchers {
            match watcher.join().expect("it does not panic") {
                Ok(seen) => {
                    blocks += seen.blocks;
                    problems.extend(seen.wrong);
                }
                Err(error) => problems.push(format!("{error:#}")),
            }
        }
        (changes, blocks, problems)
    });
    if problems.is_empty() {
        Ok(format!(
            "{blocks} blocks read during {changes} changes, none wrong"
        ))
    } else {
        Err(anyhow!(problems.join("; ")))
    }
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, check, fill, run};

    #[test]
    fn a_block_of_another_version_or_place_is_told() {
        let mut block = vec![0; BLOCK];
        fill(&mut block, 7, 3);
        assert_eq!(check(&block, 7, 2, 4), None);
        assert!(check(&block, 7, 4, 5).is_some());
        assert!(check(&block, 7, 1, 2).is_some());
        assert!(check(&block, 8, 2, 4).is_some());
    }

    #[test]
    fn a_plain_file_system_passes() {
        let folder = std::env::temp_dir().join(format!("efuse-data-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let said = run(&folder, 1, 2);
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(said.unwrap().ends_with("none wrong"));
    }
}
