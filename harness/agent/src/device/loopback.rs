//! `loop`: a loop device on a sparse file that is made for one cell.
//!
//! The file's pages are the device (no direct I/O below): on a RAM file system it is
//! a RAM disk, elsewhere the host's page cache stands before the disk.

use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::{Backing, BlockDevice, refuse};
use crate::error::{AgentError, Result};
use crate::sys;

const CONTROL: &str = "/dev/loop-control";
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
const LOOP_CLR_FD: libc::c_ulong = 0x4C01;

/// `struct loop_info64` of the kernel.
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    sizelimit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` of the kernel.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<LoopInfo>() == 232 && size_of::<LoopConfig>() == 304);

struct Loop {
    node: PathBuf,
    file: PathBuf,
}

pub(super) fn acquire(size_bytes: u64, folder: &Path) -> Result<BlockDevice> {
    let space = nix::sys::statvfs::statvfs(folder)
        .map_err(AgentError::errno(folder, "read its free space"))?;
    let free = space.blocks_available() * space.fragment_size();
    if free < size_bytes {
        return Err(refuse(
            "loop",
            format!(
                "{} has {} MiB free, the device may need {} MiB; choose a smaller device or another folder",
                folder.display(),
                free >> 20,
                size_bytes >> 20
            ),
        ));
    }
    let file = folder.join(format!("device-{}.img", std::process::id()));
    // A file of this name is left from a killed process with the same number.
    match fs::remove_file(&file) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(AgentError::io(&file, "remove")(e));
        }
        _ => {}
    }
    let backing = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&file)
        .map_err(AgentError::io(&file, "create"))?;
    let made = backing
        .set_len(size_bytes)
        .map_err(AgentError::io(&file, "set its size"))
        .and_then(|()| attach(&backing));
    let node = match made {
        Ok(node) => node,
        Err(e) => {
            let _ = fs::remove_file(&file);
            return Err(e);
        }
    };
    Ok(BlockDevice::new(node.clone(), true, Loop { node, file }))
}

fn attach(backing: &File) -> Result<PathBuf> {
    let control = OpenOptions::new()
        .read(true)
        .write(true)
        .open(CONTROL)
        .map_err(AgentError::io(
            CONTROL,
            "open (are you root, is the loop module loaded?)",
        ))?;
    loop {
        // SAFETY: the request takes no argument and returns a number or -1.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
        let number =
            Errno::result(number).map_err(AgentError::errno(CONTROL, "get a free device"))?;
        let node = PathBuf::from(format!("/dev/loop{number}"));
        sys::wait_for_node(&node)?;
        let device = open(&node)?;
        // SAFETY: all fields of `LoopConfig` are integers; zero is valid for each.
        let mut config: LoopConfig = unsafe { std::mem::zeroed() };
        config.fd =
            u32::try_from(backing.as_raw_fd()).expect("an open file's number is not negative");
        config.block_size = 512;
        // SAFETY: LOOP_CONFIGURE reads one `loop_config` through the pointer.
        let done = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) };
        match Errno::result(done) {
            Ok(_) => return Ok(node),
            // Someone else was quicker.
            Err(Errno::EBUSY) => {}
            Err(e) => return Err(AgentError::errno(node, "attach the file")(e)),
        }
    }
}

fn open(node: &Path) -> Result<OwnedFd> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(node)
        .map_err(AgentError::io(node, "open"))?;
    Ok(file.into())
}

fn detach(node: &Path) -> Result<()> {
    let device = open(node)?;
    // SAFETY: the request takes no argument.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CLR_FD) };
    match Errno::result(done) {
        Ok(_) | Err(Errno::ENXIO) => Ok(()),
        Err(e) => Err(AgentError::errno(node, "detach the loop device")(e)),
    }
}

impl Backing for Loop {
    fn release(&mut self) -> Result<()> {
        let detached = detach(&self.node);
        let removed = fs::remove_file(&self.file).map_err(AgentError::io(&self.file, "remove"));
        detached.and(removed)
    }
}

/// Detaches every loop device whose file is under `folder`, and removes the file.
pub(crate) fn detach_all_under(folder: &Path, problems: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir("/sys/block") else {
        return;
    };
    for entry in entries.flatten() {
        let Some(file) = sys::read(entry.path().join("loop/backing_file")) else {
            continue;
        };
        let file = file.strip_suffix(" (deleted)").unwrap_or(&file);
        if Path::new(file).starts_with(folder)
            && let Err(e) = detach(&Path::new("/dev").join(entry.file_name()))
        {
            problems.push(e.to_string());
        }
    }
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for path in entries.flatten().map(|e| e.path()) {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if name.starts_with("device-")
            && name.ends_with(".img")
            && let Err(e) = fs::remove_file(&path)
        {
            problems.push(format!("{}: cannot remove: {e}", path.display()));
        }
    }
}
