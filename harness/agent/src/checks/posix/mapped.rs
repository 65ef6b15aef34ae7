//! What a mapping does to a file beside its bytes.

use std::fs::{self, OpenOptions};
use std::io;
use std::num::NonZeroUsize;
use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::sys::mman::{MapFlags, MsFlags, ProtFlags, mmap, msync, munmap};

use super::{Case, ensure, equal, file};

pub(super) const CASES: &[Case] = &[("mapped-times", times)];

const BYTES: NonZeroUsize = NonZeroUsize::new(8192).unwrap();
/// Looks before the change, so that whatever keeps attributes has them.
const LOOKS: u32 = 4;
/// More than the systems let the kernel keep attributes without asking.
const KEPT: Duration = Duration::from_millis(1100);

/// POSIX has the times of a file marked for update by msync at the latest; the descriptor may be closed.
fn times(dir: &Path) -> io::Result<()> {
    let f = file(dir, "f", &[1; BYTES.get()])?;
    let open = OpenOptions::new().read(true).write(true).open(&f)?;
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a new mapping at an address that the kernel chooses.
    let map = unsafe { mmap(None, BYTES, protection, MapFlags::MAP_SHARED, &open, 0) }?;
    drop(open);
    // What the kernel itself knows of the file ends, so that programs hear of it and answer the next.
    thread::sleep(KEPT);
    let looked = || -> io::Result<_> {
        for _ in 0..LOOKS {
            fs::metadata(&f)?;
        }
        fs::metadata(&f)?.modified()
    };
    let before = looked();
    // Longer than a tick of the clock that files are stamped with.
    thread::sleep(Duration::from_millis(20));
    // SAFETY: the first byte of a mapping that is as long as its file, which nobody cuts.
    unsafe { map.cast::<u8>().write(2) };
    // SAFETY: address and length are those of the mapping.
    let synced = unsafe { msync(map, BYTES.get(), MsFlags::MS_SYNC) };
    // SAFETY: as above; nothing points into it.
    unsafe { munmap(map, BYTES.get()) }?;
    synced?;
    thread::sleep(KEPT);
    let (before, after) = (before?, looked()?);
    ensure(
        after > before,
        format!("the time of modification is {after:?} after a store and {before:?} before it"),
    )?;
    let mut wanted = vec![1; BYTES.get()];
    wanted[0] = 2;
    equal("content", fs::read(&f)?, wanted)
}
