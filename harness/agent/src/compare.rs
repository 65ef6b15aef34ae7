//! Comparison of every file seen through a system with the lower directory.
//!
//! A file's checksum is the xxh3 of the xxh3 of its 4 KiB blocks: one pass gives the
//! checksum and, when two differ, the first block that does.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::error::{AgentError, Result};
use crate::limit::Limit;
use crate::sys;

const BLOCK: usize = 4096;
/// Bytes that one read asks for, and one piece of work.
const PIECE: usize = 1 << 20;

/// Checksums of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// Size in bytes.
    pub len: u64,
    blocks: Vec<u64>,
}

impl Digest {
    /// The whole file's checksum.
    #[must_use]
    pub fn checksum(&self) -> u64 {
        let mut hash = Xxh3::new();
        for block in &self.blocks {
            hash.update(&block.to_le_bytes());
        }
        hash.digest()
    }

    /// Offset of the first block that differs, and its checksums here and there
    /// (`None` past the end).
    fn first_difference(&self, other: &Self) -> Option<(u64, Option<u64>, Option<u64>)> {
        let n = self.blocks.len().max(other.blocks.len());
        (0..n)
            .map(|i| (i, self.blocks.get(i).copied(), other.blocks.get(i).copied()))
            .find(|(_, a, b)| a != b)
            .map(|(i, a, b)| ((i * BLOCK) as u64, a, b))
    }
}

/// Checksums of these files in `dir`, read through the page cache.
///
/// # Errors
/// If one cannot be read, or changes its size meanwhile.
pub fn digests(dir: &Path, names: &[String], limit: &Limit) -> Result<Vec<Digest>> {
    let mut files = Vec::new();
    let mut work = Vec::new();
    for (n, name) in names.iter().enumerate() {
        let path = dir.join(name);
        let file = File::open(&path).map_err(AgentError::io(&path, "open for comparison"))?;
        let len = file
            .metadata()
            .map_err(AgentError::io(&path, "stat"))?
            .len();
        work.extend((0..len.div_ceil(PIECE as u64)).map(|piece| (n, piece * PIECE as u64)));
        files.push((path, file, len));
    }
    let next = AtomicUsize::new(0);
    let pieces = thread::scope(|scope| {
        let reader = || {
            let mut buffer = vec![0; PIECE];
            let mut done = Vec::new();
            while let Some((n, offset)) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                limit.check()?;
                let (path, file, len) = &files[*n];
                done.push((
                    *n,
                    *offset,
                    hash_piece(path, file, *offset, *len, &mut buffer)?,
                ));
            }
            Ok::<_, AgentError>(done)
        };
        let threads: Vec<_> = (0..sys::cpus()).map(|_| scope.spawn(reader)).collect();
        let mut all = Vec::with_capacity(work.len());
        for thread in threads {
            all.extend(thread.join().expect("hashing does not panic")?);
        }
        Ok::<_, AgentError>(all)
    })?;
    let mut out: Vec<Digest> = files
        .iter()
        .map(|(_, _, len)| Digest {
            len: *len,
            blocks: vec![0; usize::try_from(len.div_ceil(BLOCK as u64)).expect("fits in memory")],
        })
        .collect();
    for (n, offset, hashes) in pieces {
        let first = usize::try_from(offset).expect("fits in memory") / BLOCK;
        out[n].blocks[first..first + hashes.len()].copy_from_slice(&hashes);
    }
    Ok(out)
}

fn hash_piece(
    path: &Path,
    file: &File,
    offset: u64,
    len: u64,
    buffer: &mut [u8],
) -> Result<Vec<u64>> {
    let want = usize::try_from((len - offset).min(PIECE as u64)).expect("at most a piece");
    let buffer = &mut buffer[..want];
    file.read_exact_at(buffer, offset).map_err(AgentError::io(
        path,
        format!("read {want} bytes at offset {offset}"),
    ))?;
    Ok(buffer.chunks(BLOCK).map(xxh3_64).collect())
}

/// Compares two lists of checksums of the same names.
///
/// # Errors
/// With the first difference: file, offset, both checksums.
pub fn same(system: &str, names: &[String], through: &[Digest], lower: &[Digest]) -> Result<()> {
    for ((name, a), b) in names.iter().zip(through).zip(lower) {
        if a == b {
            continue;
        }
        let place = match a.first_difference(b) {
            Some((offset, x, y)) => {
                let show =
                    |v: Option<u64>| v.map_or("past the end".into(), |v| format!("{v:016x}"));
                format!(
                    "first at offset {offset} (block checksum {} through {system}, {} below)",
                    show(x),
                    show(y)
                )
            }
            None => "in size only".to_owned(),
        };
        return Err(AgentError::Mismatch(format!(
            "{name} differs between {system} and the lower file system, {place}: {} bytes with xxh3 {:016x} through {system}, {} bytes with {:016x} below; the figures are discarded",
            a.len,
            a.checksum(),
            b.len,
            b.checksum()
        )));
    }
    Ok(())
}

/// Names of the regular files directly in a directory, sorted.
///
/// # Errors
/// If it cannot be read.
pub fn names(dir: &Path) -> Result<Vec<String>> {
    let read = |e| AgentError::io(dir, "list")(e);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(read)? {
        let entry = entry.map_err(read)?;
        if entry.file_type().map_err(read)?.is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Checks that a directory shows the same names through the system as below.
///
/// # Errors
/// With the names that only one of them has.
pub fn same_names(system: &str, through: &Path, lower: &Path) -> Result<Vec<String>> {
    let (a, b) = (names(through)?, names(lower)?);
    if a == b {
        return Ok(a);
    }
    let only = |x: &[String], y: &[String]| {
        let list: Vec<_> = x
            .iter()
            .filter(|n| !y.contains(n))
            .take(5)
            .cloned()
            .collect();
        if list.is_empty() {
            "none".to_owned()
        } else {
            list.join(", ")
        }
    };
    Err(AgentError::Mismatch(format!(
        "the directory has other names through {system} than below (only through: {}; only below: {}); the figures are discarded",
        only(&a, &b),
        only(&b, &a)
    )))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;
    use crate::limit::Cancel;

    fn limit() -> Limit {
        Limit::new(Duration::from_secs(600), Cancel::default())
    }

    fn digest(dir: &Path, bytes: &[u8]) -> Vec<Digest> {
        fs::write(dir.join("f0"), bytes).unwrap();
        digests(dir, &["f0".to_owned()], &limit()).unwrap()
    }

    #[test]
    fn one_changed_byte_is_found_with_its_block() {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = vec![7u8; 3 * PIECE + 100];
        let before = digest(dir.path(), &bytes);
        assert_eq!(before, digest(dir.path(), &bytes));
        bytes[2 * PIECE + 5000] ^= 1;
        let after = digest(dir.path(), &bytes);
        let names = ["f0".to_owned()];
        let error = same("fuse", &names, &before, &after)
            .unwrap_err()
            .to_string();
        let offset = 2 * PIECE + 4096;
        assert!(
            error.contains(&format!("first at offset {offset} ")),
            "{error}"
        );
        assert!(
            error.contains(&format!("{:016x}", before[0].checksum())),
            "{error}"
        );
        assert!(
            error.contains(&format!("{:016x}", after[0].checksum())),
            "{error}"
        );
    }

    #[test]
    fn a_shorter_file_is_a_difference() {
        let dir = tempfile::tempdir().unwrap();
        let long = digest(dir.path(), &[1; 8192]);
        let short = digest(dir.path(), &[1; 4096]);
        let names = ["f0".to_owned()];
        let error = same("fuse", &names, &long, &short).unwrap_err().to_string();
        assert!(
            error.contains("first at offset 4096") && error.contains("past the end"),
            "{error}"
        );
        assert_eq!(digest(dir.path(), b"")[0].len, 0);
    }

    #[test]
    fn a_missing_name_is_a_difference() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(a.path().join("f0"), "").unwrap();
        assert!(
            same_names("fuse", a.path(), b.path())
                .unwrap_err()
                .to_string()
                .contains("only through: f0")
        );
        fs::write(b.path().join("f0"), "").unwrap();
        assert_eq!(same_names("fuse", a.path(), b.path()).unwrap(), ["f0"]);
    }
}
