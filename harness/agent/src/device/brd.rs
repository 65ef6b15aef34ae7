//! `brd`: the kernel's RAM disk. Its size is a parameter of the module, so the module
//! is loaded for each cell and unloaded after it, which also gives the RAM back.

use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::{Backing, BlockDevice, open_exclusive, refuse, size_of};
use crate::error::{AgentError, Result};
use crate::limit::Limit;
use crate::process;
use crate::sys;

const NODE: &str = "/dev/ram0";
const MODULE: &CStr = c"brd";

struct Loaded;
struct Borrowed;

pub(super) fn acquire(size_bytes: u64, limit: &Limit) -> Result<BlockDevice> {
    if Path::new(NODE).exists() && unload().is_err() {
        return borrow(size_bytes);
    }
    let kib = size_bytes.div_ceil(1024);
    let done = process::run(
        Command::new("modprobe")
            .arg("brd")
            .arg("rd_nr=1")
            .arg("max_part=0")
            .arg(format!("rd_size={kib}")),
        limit,
    )?;
    if !done.status.success() {
        return Err(refuse(
            "brd",
            format!(
                "the module cannot be loaded ({}); use --device loop or the VM",
                done.tail()
            ),
        ));
    }
    let device = BlockDevice::new(PathBuf::from(NODE), true, Loaded);
    sys::wait_for_node(device.path())?;
    Ok(device)
}

/// One that is built in, or that someone else has loaded and uses.
fn borrow(size_bytes: u64) -> Result<BlockDevice> {
    let path = Path::new(NODE);
    let size = size_of(&open_exclusive(path)?, path)?;
    if size < size_bytes {
        return Err(refuse(
            "brd",
            format!(
                "{NODE} is there with {size} bytes and cannot be reloaded with {size_bytes}; unload brd or ask for a smaller device"
            ),
        ));
    }
    Ok(BlockDevice::new(path.to_owned(), false, Borrowed))
}

fn unload() -> Result<()> {
    // udev may hold the node open for a moment after the last unmount.
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        match nix::kmod::delete_module(MODULE, nix::kmod::DeleteModuleFlags::O_NONBLOCK) {
            Ok(()) | Err(Errno::ENOENT) => return Ok(()),
            Err(Errno::EAGAIN | Errno::EBUSY) if Instant::now() < end => {
                thread::sleep(Duration::from_millis(10));
            }
            Err(e) => return Err(AgentError::errno(NODE, "unload the module brd")(e)),
        }
    }
}

impl Backing for Loaded {
    fn release(&mut self) -> Result<()> {
        unload()
    }
}

impl Backing for Borrowed {
    fn release(&mut self) -> Result<()> {
        Ok(())
    }
}
