use zerocopy::IntoBytes;

use crate::wire::{Dirent, EntryOut};

/// Writes `head`, `name` and padding to a multiple of 8 at `used`; false if they do not fit.
fn push(buf: &mut [u8], used: &mut usize, heads: [&[u8]; 2], name: &[u8]) -> bool {
    let fixed = heads[0].len() + heads[1].len();
    let size = (fixed + name.len()).next_multiple_of(8);
    let Some(room) = buf.get_mut(*used..).filter(|room| room.len() >= size) else {
        return false;
    };
    let (first, rest) = room[..size].split_at_mut(heads[0].len());
    first.copy_from_slice(heads[0]);
    let (second, rest) = rest.split_at_mut(heads[1].len());
    second.copy_from_slice(heads[1]);
    rest[..name.len()].copy_from_slice(name);
    rest[name.len()..].fill(0);
    *used += size;
    true
}

fn dirent(ino: u64, next: u64, kind: u32, name: &[u8]) -> Dirent {
    Dirent {
        ino,
        off: next,
        namelen: u32::try_from(name.len()).unwrap_or(u32::MAX),
        kind,
    }
}

/// Builds the reply to READDIR in a buffer of the size the kernel asked for.
#[derive(Debug)]
pub struct DirentBuf<'b> {
    buf: &'b mut [u8],
    used: usize,
}

impl<'b> DirentBuf<'b> {
    /// Starts an empty reply in `buf`.
    pub fn new(buf: &'b mut [u8]) -> DirentBuf<'b> {
        DirentBuf { buf, used: 0 }
    }

    /// Adds an entry: its inode number, the offset of the entry after it, its type (`DT_*`) and its
    /// name. False, and nothing written, if it does not fit.
    #[must_use]
    pub fn push(&mut self, ino: u64, next: u64, kind: u32, name: &[u8]) -> bool {
        let head = dirent(ino, next, kind, name);
        push(self.buf, &mut self.used, [&[], head.as_bytes()], name)
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.used
    }

    /// Whether nothing was added yet.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }
}

/// Builds the reply to READDIRPLUS in a buffer of the size the kernel asked for.
#[derive(Debug)]
pub struct DirentPlusBuf<'b> {
    buf: &'b mut [u8],
    used: usize,
}

impl<'b> DirentPlusBuf<'b> {
    /// Starts an empty reply in `buf`.
    pub fn new(buf: &'b mut [u8]) -> DirentPlusBuf<'b> {
        DirentPlusBuf { buf, used: 0 }
    }

    /// Whether an entry with a name of this many bytes still fits. Ask before looking the entry up:
    /// every entry with a node id counts as a lookup.
    pub fn fits(&self, name_len: usize) -> bool {
        let fixed = size_of::<EntryOut>() + size_of::<Dirent>();
        (fixed + name_len).next_multiple_of(8) <= self.buf.len() - self.used
    }

    /// Adds an entry; `entry.nodeid` 0 means "not looked up" and counts nothing. The rest as in
    /// [`DirentBuf::push`].
    #[must_use]
    pub fn push(&mut self, entry: &EntryOut, ino: u64, next: u64, kind: u32, name: &[u8]) -> bool {
        let head = dirent(ino, next, kind, name);
        push(
            self.buf,
            &mut self.used,
            [entry.as_bytes(), head.as_bytes()],
            name,
        )
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.used
    }

    /// Whether nothing was added yet.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }
}
