//! Files whose blocks say where they belong, read past the page cache.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use crate::sys::Aligned;

pub(super) const BLOCK: usize = 4096;
const WORD: usize = 8;

/// What a block begins and ends with.
fn mark(file: u64, block: u64) -> [u8; WORD] {
    (file << 32 | block).to_le_bytes()
}

/// Writes a file of whole blocks, each with its marks.
pub(super) fn plant(path: &Path, number: u64, bytes: u64) -> io::Result<()> {
    const BLOCKS: u64 = 256;
    let mut file = File::create(path)?;
    let mut buffer = vec![0xa5; BLOCKS as usize * BLOCK];
    let mut block = 0;
    while block * (BLOCK as u64) < bytes {
        for place in buffer.chunks_exact_mut(BLOCK) {
            place[..WORD].copy_from_slice(&mark(number, block));
            place[BLOCK - WORD..].copy_from_slice(&mark(number, block));
            block += 1;
        }
        file.write_all(&buffer)?;
    }
    file.set_len(bytes)?;
    file.sync_all()
}

/// A planted file, opened with `O_DIRECT`.
pub(super) struct Planted {
    file: File,
    number: u64,
    buffer: Aligned,
}

impl Planted {
    /// `piece`: bytes of one read.
    pub fn open(path: &Path, number: u64, piece: usize) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECT)
            .open(path)?;
        Ok(Self {
            file,
            number,
            buffer: Aligned::new(piece),
        })
    }

    /// Reads a piece that begins with this block, and looks whether it is the right one.
    pub fn read(&mut self, block: u64) -> io::Result<()> {
        let bytes = self.buffer.bytes();
        self.file.read_exact_at(bytes, block * BLOCK as u64)?;
        for (n, got) in bytes.chunks_exact(BLOCK).enumerate() {
            let wanted = mark(self.number, block + n as u64);
            if got[..WORD] != wanted || got[BLOCK - WORD..] != wanted {
                return Err(io::Error::other(format!(
                    "block {} of file {} has the marks {:02x?} and {:02x?}, not {wanted:02x?}",
                    block + n as u64,
                    self.number,
                    &got[..WORD],
                    &got[BLOCK - WORD..]
                )));
            }
        }
        Ok(())
    }
}
