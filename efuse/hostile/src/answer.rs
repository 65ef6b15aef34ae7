//! What a request is answered with: often something that a file system could say.

use efuse_abi::Opcode;
use efuse_abi::wire::{
    Attr, AttrOut, EntryOut, GetxattrOut, LseekOut, OpenOut, StatfsOut, WriteOut,
};
use rand::{Rng, RngExt as _};
use zerocopy::IntoBytes as _;

/// A reply: a negative error, the fixed part, and bytes of data.
pub(crate) struct Answer {
    pub(crate) error: i32,
    pub(crate) head: Vec<u8>,
    pub(crate) data: u32,
}

/// Odd node ids are folders, as the root is.
fn attributes(nodeid: u64, random: &mut (impl Rng + ?Sized)) -> Attr {
    let folder = nodeid % 2 == 1;
    Attr {
        ino: nodeid,
        size: if random.random_ratio(1, 16) {
            random.random()
        } else {
            random.random_range(0..2 << 20)
        },
        blocks: 8,
        mode: if folder {
            libc::S_IFDIR | 0o777
        } else {
            libc::S_IFREG | 0o666
        },
        nlink: random.random_range(0..3),
        blksize: 4096,
        ..Attr::default()
    }
}

/// Of a request about `nodeid`, whose caller takes up to `room` bytes of data.
pub(crate) fn of(opcode: u32, nodeid: u64, room: u32, random: &mut impl Rng) -> Answer {
    let mut head = Vec::new();
    let mut data = 0;
    let mut error = 0;
    let valid = u64::from(random.random_ratio(1, 3)) * 5;
    let open = OpenOut {
        fh: random.random_range(0..4),
        open_flags: if random.random_ratio(1, 16) {
            random.random()
        } else {
            [0, 1, 2, 3, 4, 8][random.random_range(0..6)]
        },
        backing_id: random.random_range(-1..4),
    };
    let entry = |random: &mut dyn Rng, folder: Option<bool>| {
        let mut node = random.random_range(2..40_u64);
        if let Some(folder) = folder {
            node = node * 2 + u64::from(folder);
        }
        EntryOut {
            nodeid: node,
            generation: random.random_range(0..2),
            entry_valid: valid,
            attr_valid: valid,
            attr: attributes(node, &mut *random),
            ..EntryOut::default()
        }
    };
    match Opcode::from_raw(opcode) {
        Some(Opcode::Lookup) => head.extend(entry(random, None).as_bytes()),
        Some(Opcode::Mkdir) => head.extend(entry(random, Some(true)).as_bytes()),
        Some(Opcode::Mknod | Opcode::Symlink | Opcode::Link) => {
            head.extend(entry(random, Some(false)).as_bytes());
        }
        Some(Opcode::Create | Opcode::Tmpfile) => {
            head.extend(entry(random, Some(false)).as_bytes());
            head.extend(open.as_bytes());
        }
        Some(Opcode::Getattr | Opcode::Setattr) => head.extend(
            AttrOut {
                attr_valid: valid,
                attr: attributes(nodeid, random),
                ..AttrOut::default()
            }
            .as_bytes(),
        ),
        Some(Opcode::Open | Opcode::Opendir) => head.extend(open.as_bytes()),
        Some(Opcode::Write | Opcode::CopyFileRange) => head.extend(
            WriteOut {
                size: random.random_range(0..8192),
                padding: 0,
            }
            .as_bytes(),
        ),
        Some(Opcode::Read | Opcode::Readlink | Opcode::Readdir | Opcode::Readdirplus) => {
            data = random.random_range(0..=room);
        }
        Some(Opcode::Getxattr | Opcode::Listxattr) if room == 0 => {
            head.extend(GetxattrOut::default().as_bytes());
        }
        Some(Opcode::Getxattr | Opcode::Listxattr) => data = random.random_range(0..=room),
        Some(Opcode::Statfs) => head.extend(StatfsOut::default().as_bytes()),
        Some(Opcode::Lseek) => head.extend(LseekOut { offset: 7 }.as_bytes()),
        Some(Opcode::Ioctl | Opcode::Poll | Opcode::Bmap | Opcode::Getlk) => error = -libc::ENOSYS,
        _ => {}
    }
    if random.random_ratio(1, 10) {
        error =
            -[libc::ENOENT, libc::EIO, libc::EAGAIN, libc::EINTR, 511][random.random_range(0..5)];
    }
    Answer { error, head, data }
}
