//! Random changes of one file through the system, mirrored in memory.

use std::fs::{self, File, OpenOptions};
use std::num::NonZeroUsize;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::fcntl::FallocateFlags;
use nix::sys::mman::{MapFlags, MsFlags, ProtFlags, mmap, msync, munmap};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::{Site, Trouble, fail};
use crate::error::AgentError;
use crate::sys::{self, Aligned, Drop as Caches};

const STEPS: usize = 1500;
/// Larger than one FUSE request, not a multiple of a page.
const LARGEST: usize = (3 << 20) + 12_345;
const BLOCK: usize = 4096;
/// Variable that repeats an earlier run.
const SEED: &str = "EFUSE_CHECK_SEED";

/// The file, the same in memory, and how often each step was done.
struct Twin<'a> {
    path: &'a Path,
    file: File,
    /// The same file, opened with `O_DIRECT`; `None` where that is refused.
    direct: Option<File>,
    shadow: Vec<u8>,
    rng: ChaCha8Rng,
    counts: [(&'static str, u32); 7],
}

pub(super) fn run(site: &mut Site<'_>) -> Result<String, Trouble> {
    let seed = seed();
    let result = drive(site, seed);
    result.map_err(|e| match e {
        Trouble::Fail(text) => Trouble::Fail(format!("{text} (repeat with {SEED}={seed})")),
        skip @ Trouble::Skip(_) => skip,
    })
}

fn seed() -> u64 {
    let given = std::env::var(SEED).ok().and_then(|v| v.parse().ok());
    given.unwrap_or_else(|| {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        now.as_secs() ^ u64::from(now.subsec_nanos())
    })
}

fn drive(site: &mut Site<'_>, seed: u64) -> Result<String, Trouble> {
    let path = site.root.join("bytes");
    let open = |flags: i32| {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .custom_flags(flags)
            .open(&path)
    };
    let mut twin = Twin {
        path: &path,
        file: open(0).map_err(AgentError::io(&path, "create"))?,
        direct: open(libc::O_DIRECT).ok(),
        shadow: Vec::new(),
        rng: ChaCha8Rng::seed_from_u64(seed),
        counts: [
            "write",
            "read",
            "truncate",
            "direct write",
            "direct read",
            "mapping",
            "punch",
        ]
        .map(|name| (name, 0)),
    };
    for step in 0..STEPS {
        site.limit.check()?;
        twin.step()
            .map_err(|e| Trouble::Fail(format!("step {step}: {e}")))?;
    }
    let counts = twin.counts;
    let Twin {
        shadow,
        file,
        direct,
        ..
    } = twin;
    let whole = fs::read(&path).map_err(AgentError::io(&path, "read"))?;
    differs("through the mount at the end", &whole, &shadow, 0).map_or(Ok(()), fail)?;
    drop((file, direct));
    site.unmount()?;
    sys::drop_caches(Caches::All)?;
    let below = site.lower.join("bytes");
    let whole = fs::read(&below).map_err(AgentError::io(&below, "read"))?;
    differs("in the lower file after unmount", &whole, &shadow, 0).map_or(Ok(()), fail)?;
    let counts: Vec<_> = counts.iter().map(|(n, c)| format!("{c} x {n}")).collect();
    Ok(format!(
        "seed {seed}: {}; {} bytes equal through the mount and below",
        counts.join(", "),
        shadow.len()
    ))
}

/// Where two byte strings differ first, as a message.
fn differs(place: &str, seen: &[u8], wanted: &[u8], offset: usize) -> Option<String> {
    if seen == wanted {
        return None;
    }
    let at = seen.iter().zip(wanted).position(|(a, b)| a != b);
    Some(match at {
        Some(at) => format!(
            "{place}: byte {} is {:#04x}, not {:#04x}",
            offset + at,
            seen[at],
            wanted[at]
        ),
        None => format!(
            "{place}: {} bytes at offset {offset}, not {}",
            seen.len(),
            wanted.len()
        ),
    })
}

impl Twin<'_> {
    fn step(&mut self) -> Result<(), String> {
        let kind = match self.rng.random_range(0..100) {
            0..35 => 0,
            35..65 => 1,
            65..72 => 2,
            72..82 => 3,
            82..90 => 4,
            90..96 => 5,
            _ => 6,
        };
        let name = self.counts[kind].0;
        self.counts[kind].1 += 1;
        match kind {
            0 => self.write(),
            1 => self.read(),
            2 => self.truncate(),
            3 => self.direct_write(),
            4 => self.direct_read(),
            5 => self.mapping(),
            _ => self.punch(),
        }
        .map_err(|e| format!("{name}: {e}"))
    }

    /// Offset and length, small ones more often, odd and aligned ones alike.
    fn range(&mut self) -> (usize, usize) {
        let limit = 1usize << self.rng.random_range(1..=21);
        let mut len = self.rng.random_range(1..=limit);
        let mut offset = self.rng.random_range(0..LARGEST);
        if self.rng.random_range(0..3) == 0 {
            offset &= !(BLOCK - 1);
            len = len.next_multiple_of(BLOCK);
        }
        (offset, len.min(LARGEST - offset).max(1))
    }

    fn fill(&mut self, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.rng.fill(&mut data[..]);
        data
    }

    fn store(&mut self, offset: usize, data: &[u8]) {
        if self.shadow.len() < offset + data.len() {
            self.shadow.resize(offset + data.len(), 0);
        }
        self.shadow[offset..offset + data.len()].copy_from_slice(data);
    }

    fn write(&mut self) -> Result<(), String> {
        let (offset, len) = self.range();
        let data = self.fill(len);
        self.file
            .write_all_at(&data, offset as u64)
            .map_err(|e| format!("{len} bytes at {offset}: {e}"))?;
        self.store(offset, &data);
        if self.rng.random_range(0..20) == 0 {
            self.file.sync_all().map_err(|e| format!("fsync: {e}"))?;
        }
        Ok(())
    }

    fn read(&mut self) -> Result<(), String> {
        let (offset, len) = self.range();
        let mut seen = vec![0; len];
        let n = read_fully(&self.file, &mut seen, offset)?;
        let end = (offset + len).min(self.shadow.len()).max(offset);
        let wanted = self.shadow.get(offset..end).unwrap_or_default();
        differs("read", &seen[..n], wanted, offset).map_or(Ok(()), Err)
    }

    fn truncate(&mut self) -> Result<(), String> {
        let len = self.rng.random_range(0..LARGEST);
        self.file
            .set_len(len as u64)
            .map_err(|e| format!("to {len}: {e}"))?;
        self.shadow.resize(len, 0);
        let seen = fs::metadata(self.path)
            .map_err(|e| format!("stat: {e}"))?
            .len();
        if seen == len as u64 {
            Ok(())
        } else {
            Err(format!("to {len}: stat says {seen}"))
        }
    }

    fn direct_write(&mut self) -> Result<(), String> {
        let Some(direct) = &self.direct else {
            return Ok(());
        };
        let (offset, len) = (
            self.rng.random_range(0..LARGEST / BLOCK) * BLOCK,
            self.rng.random_range(1..=64) * BLOCK,
        );
        let mut buffer = Aligned::new(len);
        self.rng.fill(buffer.bytes());
        direct
            .write_all_at(buffer.bytes(), offset as u64)
            .map_err(|e| format!("{len} bytes at {offset}: {e}"))?;
        let data = buffer.bytes().to_vec();
        self.store(offset, &data);
        Ok(())
    }

    fn direct_read(&mut self) -> Result<(), String> {
        let Some(direct) = &self.direct else {
            return Ok(());
        };
        let (offset, len) = (
            self.rng.random_range(0..LARGEST / BLOCK) * BLOCK,
            self.rng.random_range(1..=64) * BLOCK,
        );
        let mut buffer = Aligned::new(len);
        // One call: after a short direct read the next offset would be unaligned.
        let n = direct
            .read_at(buffer.bytes(), offset as u64)
            .map_err(|e| format!("{len} bytes at {offset}: {e}"))?;
        let end = (offset + len).min(self.shadow.len()).max(offset);
        let wanted = self.shadow.get(offset..end).unwrap_or_default();
        differs("read", &buffer.bytes()[..n], wanted, offset).map_or(Ok(()), Err)
    }

    /// Changes bytes through a shared mapping, which never reaches past the end.
    fn mapping(&mut self) -> Result<(), String> {
        let Some(len) = NonZeroUsize::new(self.shadow.len()) else {
            return Ok(());
        };
        let at = self.rng.random_range(0..len.get());
        let n = self.rng.random_range(1..=8192).min(len.get() - at);
        let data = self.fill(n);
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address that the kernel chooses.
        let map = unsafe { mmap(None, len, protection, MapFlags::MAP_SHARED, &self.file, 0) }
            .map_err(|e| format!("mmap: {e}"))?;
        // SAFETY: the mapping has `len` bytes, the file has as many and nothing changes
        // its size meanwhile, so no access is past the end.
        let bytes = unsafe { std::slice::from_raw_parts_mut(map.cast::<u8>().as_ptr(), len.get()) };
        let seen = differs("mapping", &bytes[at..at + n], &self.shadow[at..at + n], at);
        bytes[at..at + n].copy_from_slice(&data);
        // SAFETY: address and length are those of the mapping; `bytes` is not used after
        // it is gone.
        let synced = unsafe { msync(map, len.get(), MsFlags::MS_SYNC) };
        // SAFETY: as above.
        unsafe { munmap(map, len.get()) }.map_err(|e| format!("munmap: {e}"))?;
        self.shadow[at..at + n].copy_from_slice(&data);
        synced.map_err(|e| format!("msync: {e}"))?;
        seen.map_or(Ok(()), Err)
    }

    fn punch(&mut self) -> Result<(), String> {
        let (offset, len) = self.range();
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let as_off = |v: usize| i64::try_from(v).expect("small");
        match nix::fcntl::fallocate(&self.file, flags, as_off(offset), as_off(len)) {
            Ok(()) => {
                let end = (offset + len).min(self.shadow.len());
                if let Some(hole) = self.shadow.get_mut(offset..end) {
                    hole.fill(0);
                }
                Ok(())
            }
            Err(nix::errno::Errno::EOPNOTSUPP) => Ok(()),
            Err(e) => Err(format!(
                "{len} bytes at {offset} of fd {}: {e}",
                self.file.as_raw_fd()
            )),
        }
    }
}

fn read_fully(file: &File, buffer: &mut [u8], offset: usize) -> Result<usize, String> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], (offset + done) as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) => return Err(format!("at {}: {e}", offset + done)),
        }
    }
    Ok(done)
}
