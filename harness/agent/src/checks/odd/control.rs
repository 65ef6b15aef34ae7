//! A daemon whose device control changes files.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use efuse_bpf::data_counts;
use nix::errno::Errno;

use super::super::{Site, Trouble, fail};
use super::Odd;
use crate::error::AgentError;

/// As in `efuse-odd`: `_IOW('o', 1, u64)`, `_IO('o', 2)`, and `_IOW('o', 3, u64)`.
const SET_SIZE: libc::Ioctl = 0x4008_6f01;
const GROW_AND_RETRY: libc::Ioctl = 0x6f02;
const FILL: libc::Ioctl = 0x4008_6f03;
const BYTES: u64 = 40_000;
/// Of each file.
const SIZES: [u64; 6] = [1234, 4096, 39_999, 0, 100, 20_000];
const LOOKS: usize = 3;
/// `FS_IMMUTABLE_FL`
const IMMUTABLE: libc::c_int = 0x10;

/// Bytes that a file is filled with.
const FILLS: [u64; 3] = [0x11, 0xee, 0x77];
/// Of a file in each case: sizes, contents, flags, and requests for more arguments.
const CHANGES: usize = SIZES.len() + FILLS.len() + 2 + LOOKS;
/// Options of the daemon, and the policy: one that answers each look, the kernel's own use of what
/// was answered, and data that are cached as well.
const CASES: [(&[&str], &str); 3] = [
    (&[], "metadata"),
    (&["--default-permissions"], "metadata"),
    (&["--default-permissions"], "cache"),
];

/// What a caller knows of a file.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    size: u64,
    mode: u32,
    mtime: (i64, i64),
    flags: String,
    content: Vec<u8>,
}

pub(super) fn run(site: &Site<'_>) -> Result<String, Trouble> {
    for (options, policy) in CASES {
        let odd = Odd::mount(site, "ioctl", options)?;
        let programs = odd.attach(policy)?;
        let path = odd.file(0);
        odd.answering(CHANGES * (LOOKS - 1), || {
            cut(&path)?;
            fill(&path)?;
            flags(&path)?;
            retry(&path)
        })
        .map_err(|trouble| trouble.of(&format!("policy {policy}, {options:?}")))?;
        let cached = data_counts(odd.dev)?.get("read_cache").copied();
        if policy == "cache" && cached.is_none_or(|n| n < FILLS.len() as u64) {
            return fail(format!("{cached:?} reads were served by the cache"));
        }
        drop(programs);
        odd.unmount()?;
    }
    Ok(format!(
        "sizes, data, modes and extended attributes are right after {} changes by ioctl; one that \
         wants more arguments is sent once and fails",
        CASES.len() * CHANGES
    ))
}

/// Looks several times, so that programs know all of it. Fails if that changes while nothing does.
fn look(path: &Path) -> Result<Seen, Trouble> {
    let first = look_once(path)?;
    for _ in 1..LOOKS {
        let again = look_once(path)?;
        if again != first {
            return fail("a file that nobody changes looks different each time");
        }
    }
    Ok(first)
}

fn look_once(path: &Path) -> Result<Seen, Trouble> {
    let status = fs::metadata(path).map_err(AgentError::io(path, "stat"))?;
    let mut value = [0; 16];
    let len = rustix::fs::getxattr(path, "user.flags", &mut value)
        .map_err(|e| Trouble::Fail(format!("user.flags: {e}")))?;
    let file = File::open(path).map_err(AgentError::io(path, "open"))?;
    // Whatever size the kernel believes in.
    let mut content = vec![0; 2 * BYTES as usize];
    let read = file
        .read_at(&mut content, 0)
        .map_err(AgentError::io(path, "read"))?;
    content.truncate(read);
    Ok(Seen {
        size: status.size(),
        mode: status.mode() & 0o7777,
        mtime: (status.mtime(), status.mtime_nsec()),
        flags: String::from_utf8_lossy(&value[..len]).into_owned(),
        content,
    })
}

/// A private command cuts the file, or makes it longer.
fn cut(path: &Path) -> Result<(), Trouble> {
    let io = |action: &'static str| AgentError::io(path, action);
    let mut file = File::options().write(true).open(path).map_err(io("open"))?;
    let mut wanted: Vec<u8> = (0..BYTES).map(|n| (n % 251) as u8).collect();
    file.write_all(&wanted).map_err(io("write"))?;
    let mut before = look(path)?;
    for size in SIZES {
        // SAFETY: the command reads the number behind the pointer.
        let result = unsafe { libc::ioctl(file.as_raw_fd(), SET_SIZE, &raw const size) };
        Errno::result(result).map_err(|e| Trouble::Fail(format!("set the size: {e}")))?;
        wanted.resize(size as usize, 0);
        let now = look(path)?;
        if now.size != size || now.content != wanted || now.mtime <= before.mtime {
            return fail(format!(
                "size {}, {} bytes and time {:?} after size {size} was set at {:?}",
                now.size,
                now.content.len(),
                now.mtime,
                before.mtime
            ));
        }
        before = now;
    }
    Ok(())
}

/// A file gets other content of the same size. Who read it before reads what is new before anything
/// else tells the kernel.
fn fill(path: &Path) -> Result<(), Trouble> {
    let file = File::open(path).map_err(AgentError::io(path, "open"))?;
    let size = look(path)?.size as usize;
    let mut content = vec![0; size];
    let mut read = || {
        let done = file.read_exact_at(&mut content, 0);
        done.map_err(AgentError::io(path, "read"))?;
        Ok::<_, Trouble>(content.clone())
    };
    for byte in FILLS {
        for _ in 0..LOOKS {
            read()?;
        }
        // SAFETY: the command reads the number behind the pointer.
        let result = unsafe { libc::ioctl(file.as_raw_fd(), FILL, &raw const byte) };
        Errno::result(result).map_err(|e| Trouble::Fail(format!("fill: {e}")))?;
        if read()? != vec![byte as u8; size] || look(path)?.content != read()? {
            return fail(format!("the file does not have {byte:#x} all over"));
        }
    }
    Ok(())
}

/// A file that is made immutable has another mode and another extended attribute here.
fn flags(path: &Path) -> Result<(), Trouble> {
    let file = File::open(path).map_err(AgentError::io(path, "open"))?;
    let fd = file.as_raw_fd();
    for (mut flags, mode, text) in [(IMMUTABLE, 0o444, "00000010"), (0, 0o666, "00000000")] {
        let before = look(path)?;
        flags_ioctl(fd, libc::FS_IOC_SETFLAGS, &mut flags)?;
        let mut got = -1;
        flags_ioctl(fd, libc::FS_IOC_GETFLAGS, &mut got)?;
        let now = look(path)?;
        if got != flags || now.mode != mode || now.flags != text || now.mtime <= before.mtime {
            return fail(format!(
                "flags {got:#x}, mode {:o} and attribute {:?} after {flags:#x} was set",
                now.mode, now.flags
            ));
        }
    }
    Ok(())
}

/// Reads or sets the flags of an inode.
fn flags_ioctl(fd: RawFd, command: libc::Ioctl, flags: &mut libc::c_int) -> Result<(), Trouble> {
    // SAFETY: both commands take the address of an int, whatever their numbers say.
    let result = unsafe { libc::ioctl(fd, command, std::ptr::from_mut(flags)) };
    match Errno::result(result) {
        Ok(_) => Ok(()),
        Err(e) => fail(format!("flags by ioctl {command:#x}: {e}")),
    }
}

/// Only character devices may ask for more arguments. The request takes effect once all the same.
fn retry(path: &Path) -> Result<(), Trouble> {
    let file = File::open(path).map_err(AgentError::io(path, "open"))?;
    for _ in 0..LOOKS {
        let before = look(path)?;
        // SAFETY: the command has no argument.
        let result = unsafe { libc::ioctl(file.as_raw_fd(), GROW_AND_RETRY, 0) };
        let result = Errno::result(result);
        let now = look(path)?;
        if result != Err(Errno::EIO) || now.size != before.size + 1 {
            return fail(format!(
                "{result:?} and size {} from {} for a request for more arguments",
                now.size, before.size
            ));
        }
    }
    Ok(())
}
