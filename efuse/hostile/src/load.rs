//! Callers that do all kinds of things, interrupted by signals, whatever comes of it.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::os::unix::thread::JoinHandleExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rand::{Rng, RngExt as _};
use rustix::fs::{FallocateFlags, FlockOperation, XattrFlags};

use crate::random;

const THREADS: u64 = 6;

/// Until somebody kills it. Prints now and then how many calls ended.
pub(crate) fn run(mountpoint: &Path, seed: u64) -> Result<()> {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: zeros are a valid sigaction, and the handler does nothing.
    let set = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        // No SA_RESTART: calls end with EINTR.
        action.sa_sigaction = nothing as *const () as usize;
        libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut())
    };
    if set < 0 {
        return Err(std::io::Error::last_os_error()).context("cannot set a signal's handler");
    }
    let calls = std::sync::Arc::new(AtomicU64::new(0));
    let threads: Vec<_> = (0..THREADS)
        .map(|n| {
            let root = mountpoint.to_owned();
            let calls = std::sync::Arc::clone(&calls);
            let mut dice = random(seed, 3000 + n);
            thread::spawn(move || {
                loop {
                    // Errors are what is expected.
                    let _ = call(&root, &mut dice);
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let mut dice = random(seed, 4000);
    for n in 0_u64.. {
        thread::sleep(Duration::from_micros(dice.random_range(0..5000)));
        let thread = &threads[dice.random_range(0..threads.len())];
        // SAFETY: the threads never end, so the handle is one.
        unsafe { libc::pthread_kill(thread.as_pthread_t(), libc::SIGUSR1) };
        if n % 32 == 0 {
            println!("{}", calls.load(Ordering::Relaxed));
        }
    }
    Ok(())
}

fn call(root: &Path, dice: &mut impl Rng) -> std::io::Result<()> {
    let path = root.join(format!("n{}", dice.random_range(0..12)));
    let deeper = path.join(format!("m{}", dice.random_range(0..4)));
    let size = [1, 100, 4096, 20_000, 1 << 17, 1 << 20][dice.random_range(0..6)];
    let at = 4096 * dice.random_range(0..64_u64);
    let open = |dice: &mut dyn Rng| {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(dice.random())
            .custom_flags(if dice.random() { libc::O_DIRECT } else { 0 })
            .open(&path)
    };
    match dice.random_range(0..18) {
        0 => fs::symlink_metadata(&path).map(drop)?,
        1 => fs::metadata(&deeper).map(drop)?,
        2 => fs::read_dir(&path)?.take(100).for_each(drop),
        3 => fs::create_dir(&path)?,
        4 => fs::remove_file(&path)?,
        5 => fs::remove_dir(&path)?,
        6 => fs::rename(&path, &deeper)?,
        7 => symlink("somewhere", &path)?,
        8 => fs::read_link(&path).map(drop)?,
        9 => rustix::fs::statfs(root).map(drop)?,
        10 => {
            let value = vec![1; dice.random_range(0..70_000)];
            rustix::fs::setxattr(&path, "user.x", &value, XattrFlags::empty())?;
        }
        11 => {
            let mut value = vec![0; dice.random_range(0..2) * 65_536];
            rustix::fs::getxattr(&path, "user.x", &mut value[..])?;
        }
        12 => {
            let mut names = vec![0; dice.random_range(0..2) * 65_536];
            rustix::fs::listxattr(&path, &mut names[..])?;
        }
        13 => File::options().write(true).open(&path)?.set_len(at)?,
        14 => {
            let file = open(dice)?;
            rustix::fs::fallocate(&file, FallocateFlags::empty(), at, 4096)?;
            rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
            file.sync_all()?;
        }
        15 => {
            let mut file = open(dice)?;
            file.seek(SeekFrom::Start(at))?;
            file.read(&mut vec![0; size]).map(drop)?;
        }
        16 => {
            let mut file = open(dice)?;
            file.seek(SeekFrom::Start(at))?;
            file.write(&vec![7; size]).map(drop)?;
        }
        _ => {
            let name = CString::new(path.as_os_str().as_encoded_bytes())?;
            // SAFETY: a NUL-terminated string that outlives the call.
            unsafe { libc::access(name.as_ptr(), libc::R_OK) };
        }
    }
    Ok(())
}
