//! Builds requests as the kernel does, with random contents.

use efuse_abi::wire::*;
use efuse_abi::{Dialect, Opcode};
use rand::{Rng, RngExt};
use zerocopy::{FromZeros, Immutable, IntoBytes};

/// Bytes at an address that is a multiple of 8, as transports deliver them.
pub struct Aligned {
    words: Vec<u64>,
    len: usize,
}

impl Aligned {
    pub fn new(bytes: &[u8]) -> Aligned {
        let mut words = vec![0u64; bytes.len().div_ceil(8).max(1)];
        words.as_mut_bytes()[..bytes.len()].copy_from_slice(bytes);
        Aligned {
            words,
            len: bytes.len(),
        }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.words.as_bytes()[..self.len]
    }
}

fn fixed<T: FromZeros + IntoBytes + zerocopy::FromBytes + Immutable>(
    rng: &mut impl Rng,
) -> Vec<u8> {
    let mut value = T::new_zeroed();
    rng.fill(value.as_mut_bytes());
    value.as_bytes().to_vec()
}

fn name(rng: &mut impl Rng, out: &mut Vec<u8>) {
    for _ in 0..rng.random_range(1..=255) {
        let mut byte = rng.random_range(1..=255u8);
        if byte == b'/' {
            byte = b'_';
        }
        out.push(byte);
    }
    out.push(0);
}

fn data(rng: &mut impl Rng, size: u32, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + size as usize, 0);
    rng.fill(&mut out[start..]);
}

/// The arguments of a valid request.
pub fn arguments(opcode: Opcode, dialect: Dialect, rng: &mut impl Rng) -> Vec<u8> {
    let size = rng.random_range(0..5000u32);
    let count = rng.random_range(0..100u32);
    let mut out = Vec::new();
    match opcode {
        Opcode::Lookup | Opcode::Unlink | Opcode::Rmdir | Opcode::Removexattr => {
            name(rng, &mut out);
        }
        Opcode::Forget => out = fixed::<ForgetIn>(rng),
        Opcode::Getattr => out = fixed::<GetattrIn>(rng),
        Opcode::Setattr => out = fixed::<SetattrIn>(rng),
        Opcode::Readlink | Opcode::Statfs | Opcode::Destroy => {}
        Opcode::Symlink => {
            name(rng, &mut out);
            name(rng, &mut out);
        }
        Opcode::Mknod => {
            out = fixed::<MknodIn>(rng);
            name(rng, &mut out);
        }
        Opcode::Mkdir => {
            out = fixed::<MkdirIn>(rng);
            name(rng, &mut out);
        }
        Opcode::Rename => {
            out = fixed::<RenameIn>(rng);
            name(rng, &mut out);
            name(rng, &mut out);
        }
        Opcode::Rename2 => {
            out = fixed::<Rename2In>(rng);
            name(rng, &mut out);
            name(rng, &mut out);
        }
        Opcode::Link => {
            out = fixed::<LinkIn>(rng);
            name(rng, &mut out);
        }
        Opcode::Open | Opcode::Opendir => out = fixed::<OpenIn>(rng),
        Opcode::Read | Opcode::Readdir | Opcode::Readdirplus => out = fixed::<ReadIn>(rng),
        Opcode::Write => {
            out = WriteIn {
                fh: rng.random(),
                offset: rng.random(),
                size,
                ..WriteIn::default()
            }
            .as_bytes()
            .to_vec();
            data(rng, size, &mut out);
        }
        Opcode::Release | Opcode::Releasedir => out = fixed::<ReleaseIn>(rng),
        Opcode::Fsync | Opcode::Fsyncdir => out = fixed::<FsyncIn>(rng),
        Opcode::Setxattr => {
            out = if dialect.setxattr_ext {
                SetxattrIn {
                    size,
                    flags: 1,
                    setxattr_flags: 1,
                    padding: 0,
                }
                .as_bytes()
                .to_vec()
            } else {
                SetxattrInCompat { size, flags: 1 }.as_bytes().to_vec()
            };
            name(rng, &mut out);
            data(rng, size, &mut out);
        }
        Opcode::Getxattr => {
            out = fixed::<GetxattrIn>(rng);
            name(rng, &mut out);
        }
        Opcode::Listxattr => out = fixed::<GetxattrIn>(rng),
        Opcode::Flush => out = fixed::<FlushIn>(rng),
        Opcode::Init => out = fixed::<InitIn>(rng),
        Opcode::Getlk | Opcode::Setlk | Opcode::Setlkw => out = fixed::<LkIn>(rng),
        Opcode::Access => out = fixed::<AccessIn>(rng),
        Opcode::Create => {
            out = fixed::<CreateIn>(rng);
            name(rng, &mut out);
        }
        Opcode::Tmpfile => {
            out = fixed::<CreateIn>(rng);
            out.extend_from_slice(b"/\0");
        }
        Opcode::Interrupt => out = fixed::<InterruptIn>(rng),
        Opcode::Bmap => out = fixed::<BmapIn>(rng),
        Opcode::Ioctl => {
            out = IoctlIn {
                in_size: size,
                out_size: rng.random(),
                ..IoctlIn::default()
            }
            .as_bytes()
            .to_vec();
            data(rng, size, &mut out);
        }
        Opcode::Poll => out = fixed::<PollIn>(rng),
        Opcode::NotifyReply => {
            out = NotifyRetrieveIn {
                size,
                ..NotifyRetrieveIn::default()
            }
            .as_bytes()
            .to_vec();
            data(rng, size, &mut out);
        }
        Opcode::BatchForget => {
            out = BatchForgetIn { count, dummy: 0 }.as_bytes().to_vec();
            data(rng, count * 16, &mut out);
        }
        Opcode::Fallocate => out = fixed::<FallocateIn>(rng),
        Opcode::Lseek => out = fixed::<LseekIn>(rng),
        Opcode::CopyFileRange | Opcode::CopyFileRange64 => out = fixed::<CopyFileRangeIn>(rng),
        Opcode::Setupmapping => out = fixed::<SetupmappingIn>(rng),
        Opcode::Removemapping => {
            out = RemovemappingIn { count }.as_bytes().to_vec();
            data(rng, count * 16, &mut out);
        }
        Opcode::Syncfs => out = fixed::<SyncfsIn>(rng),
        Opcode::Statx => out = fixed::<StatxIn>(rng),
        Opcode::CuseInit => out = fixed::<CuseInitIn>(rng),
    }
    out
}

/// A valid request of this opcode, in one piece.
pub fn request(opcode: Opcode, dialect: Dialect, rng: &mut impl Rng) -> Vec<u8> {
    let args = arguments(opcode, dialect, rng);
    let header = header(opcode, args.len(), rng);
    [header.as_bytes(), &args].concat()
}

pub fn header(opcode: Opcode, args: usize, rng: &mut impl Rng) -> InHeader {
    InHeader {
        len: (size_of::<InHeader>() + args) as u32,
        opcode: opcode as u32,
        unique: rng.random(),
        nodeid: rng.random(),
        uid: rng.random(),
        gid: rng.random(),
        pid: rng.random(),
        total_extlen: 0,
        padding: 0,
    }
}
