//! `nvme-model`: a RAM-backed `null_blk` with a timer for its completions.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Backing, BlockDevice, refuse};
use crate::error::{AgentError, Result};
use crate::sys;

const CONFIGFS: &str = "/sys/kernel/config/nullb";
/// Prefix of the folders that are ours.
const PREFIX: &str = "efuse";
const MIB: u64 = 1 << 20;
/// As deep as a queue of a common NVMe disk.
const QUEUE_DEPTH: u32 = 1024;

static NEXT: AtomicU32 = AtomicU32::new(0);

struct NullBlk {
    folder: PathBuf,
}

pub(super) fn acquire(size_bytes: u64, latency_ns: u64) -> Result<BlockDevice> {
    if !Path::new(CONFIGFS).exists() {
        return Err(refuse(
            "nvme-model",
            format!(
                "{CONFIGFS} is not there: the kernel has no null_blk module loaded or configfs is not mounted (use --device loop or the VM)"
            ),
        ));
    }
    if !size_bytes.is_multiple_of(MIB) || size_bytes == 0 {
        return Err(refuse(
            "nvme-model",
            format!("its size must be whole MiB, not {size_bytes} bytes"),
        ));
    }
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("{PREFIX}{}.{number}", std::process::id());
    let folder = Path::new(CONFIGFS).join(&name);
    fs::create_dir(&folder).map_err(AgentError::io(&folder, "make the null_blk"))?;
    let guard = NullBlk { folder };
    let cpus = sys::cpus().to_string();
    let irq_timer = "2";
    for (attribute, value) in [
        ("memory_backed", "1"),
        ("discard", "1"),
        ("size", &(size_bytes / MIB).to_string()),
        // Of a disk with 512-byte logical sectors, so that every direct I/O is taken.
        ("blocksize", "512"),
        ("submit_queues", &cpus),
        ("hw_queue_depth", &QUEUE_DEPTH.to_string()),
        ("irqmode", irq_timer),
        ("completion_nsec", &latency_ns.to_string()),
        ("power", "1"),
    ] {
        if let Err(e) = sys::write(guard.folder.join(attribute), value) {
            let mut guard = guard;
            let _ = guard.release();
            return Err(e);
        }
    }
    // Older kernels number the devices, newer ones name them after the folder.
    let by_name = Path::new("/dev").join(&name);
    let index = sys::read(guard.folder.join("index")).unwrap_or_default();
    let path = if Path::new("/sys/block").join(&name).exists() {
        by_name
    } else {
        PathBuf::from(format!("/dev/nullb{index}"))
    };
    let device = BlockDevice::new(path, true, guard);
    sys::wait_for_node(device.path())?;
    Ok(device)
}

impl Backing for NullBlk {
    fn release(&mut self) -> Result<()> {
        remove(&self.folder)
    }
}

fn remove(folder: &Path) -> Result<()> {
    match sys::write(folder.join("power"), "0") {
        Ok(()) => {}
        Err(AgentError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    fs::remove_dir(folder).map_err(AgentError::io(folder, "remove the null_blk"))
}

/// Removes what a killed agent left; those of a living agent are busy or its own.
pub(crate) fn remove_all(problems: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(CONFIGFS) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(owner) = name.strip_prefix(PREFIX).and_then(|n| n.split('.').next()) else {
            continue;
        };
        if Path::new("/proc").join(owner).exists() {
            continue;
        }
        if let Err(e) = remove(&entry.path()) {
            problems.push(e.to_string());
        }
    }
}
