//! KVM or emulation?

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use efuse_kernel::Artifacts;
use efuse_model::environment::Accelerator;
use serde::{Deserialize, Serialize};

use crate::error::GuestError;
use crate::qemu::{self, Machine};
use crate::spec::AccelRequest;
use crate::{image, kernel_image};

/// A kernel that runs under KVM at all is through its start long before.
const PROBE_LIMIT: Duration = Duration::from_secs(10);

const MARKER: &str = "efuse-probe-boot-works";

/// Whether KVM works here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvmProbe {
    /// Whether a guest boots under it.
    pub works: bool,
    /// How that was found, or why not.
    pub detail: String,
}

#[derive(Serialize, Deserialize)]
struct Record {
    key: String,
    probe: KvmProbe,
}

/// Finds out by booting a guest that does nothing else. That takes up to ten seconds once; the
/// answer is kept in `work_dir` for this kernel, this QEMU and this boot of the host.
///
/// # Errors
/// When QEMU, busybox or the kernel is missing. That KVM does not work is not an error.
pub fn probe_kvm(
    artifacts: &Artifacts,
    work_dir: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<KvmProbe, GuestError> {
    // A device that cannot even be opened says so at once, and may be there next time.
    if let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        return Ok(KvmProbe {
            works: false,
            detail: match error.kind() {
                ErrorKind::NotFound => "there is no /dev/kvm".to_owned(),
                _ => format!("cannot open /dev/kvm: {error}"),
            },
        });
    }
    fs::create_dir_all(work_dir).map_err(GuestError::io("make the folder", work_dir))?;
    let host = |file: &str| {
        let path = Path::new("/proc/sys/kernel").join(file);
        fs::read_to_string(&path).map_err(GuestError::io("read", &path))
    };
    let key = [
        artifacts.release.clone(),
        qemu::qemu_version()?,
        host("osrelease")?,
        host("random/boot_id")?,
    ]
    .map(|part| part.trim().to_owned())
    .join(" | ");
    let path = work_dir.join("kvm-probe.json");
    if let Some(record) = fs::read(&path)
        .ok()
        .and_then(|json| serde_json::from_slice::<Record>(&json).ok())
        .filter(|record| record.key == key)
    {
        return Ok(record.probe);
    }
    progress("trying whether a guest boots under KVM (10 s at most, once)");
    let probe = boot(artifacts, work_dir)?;
    let record = Record { key, probe };
    let json = serde_json::to_vec_pretty(&record).expect("a record is plain data");
    fs::write(&path, json).map_err(GuestError::io("write", &path))?;
    Ok(record.probe)
}

fn boot(artifacts: &Artifacts, work_dir: &Path) -> Result<KvmProbe, GuestError> {
    let name = Path::new("the probe boot");
    let (mut console, theirs) = UnixStream::pair().map_err(GuestError::io("connect to", name))?;
    let mut stderr = tempfile::tempfile().map_err(GuestError::io("make a file for", name))?;
    let machine = Machine {
        accelerator: Accelerator::Kvm,
        kernel: kernel_image::prepare(&artifacts.vmlinuz, work_dir)?,
        initramfs: image::build_probe(MARKER)?,
        vcpus: 1,
        icount_shift: None,
        kernel_arguments: None,
        memory_mib: 512,
        console: theirs.into(),
        agent: None,
        disk: None,
    };
    let started = Instant::now();
    let handle = stderr
        .try_clone()
        .map_err(GuestError::io("make a file for", name))?;
    let mut child = machine.spawn(handle)?;
    drop(machine);
    let seen = wait_for_marker(&mut console, started + PROBE_LIMIT);
    // Whatever came of it, this QEMU has nothing more to tell; if it has ended by itself, the
    // kill has no effect.
    let _ = child.kill();
    let _ = child.wait();
    Ok(match seen {
        Ok(true) => KvmProbe {
            works: true,
            detail: format!("a guest booted in {:.1} s", started.elapsed().as_secs_f64()),
        },
        Ok(false) => KvmProbe {
            works: false,
            detail: format!(
                "a guest under it does not boot within {} s",
                PROBE_LIMIT.as_secs()
            ),
        },
        Err(()) => KvmProbe {
            works: false,
            detail: format!("QEMU ended early: {}", written(&mut stderr)),
        },
    })
}

/// Whether the marker came in time; an error if the console was closed before.
fn wait_for_marker(console: &mut UnixStream, deadline: Instant) -> Result<bool, ()> {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        console.set_read_timeout(Some(left)).map_err(drop)?;
        match console.read(&mut buffer) {
            Ok(0) => return Err(()),
            Ok(length) => text.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Ok(false);
            }
            Err(_) => return Err(()),
        }
        if text
            .windows(MARKER.len())
            .any(|window| window == MARKER.as_bytes())
        {
            return Ok(true);
        }
    }
}

/// What was written to a file that has no name.
pub(crate) fn written(file: &mut File) -> String {
    use std::io::{Seek, SeekFrom};
    let mut bytes = Vec::new();
    let read = file
        .seek(SeekFrom::Start(0))
        .and_then(|_| file.read_to_end(&mut bytes));
    match read {
        Ok(_) => String::from_utf8_lossy(&bytes).trim().to_owned(),
        Err(error) => format!("(its messages cannot be read: {error})"),
    }
}

/// The accelerator to use, and why it is not KVM if it is not.
pub(crate) fn choose(
    request: AccelRequest,
    artifacts: &Artifacts,
    work_dir: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<(Accelerator, String), GuestError> {
    if request == AccelRequest::Tcg {
        return Ok((Accelerator::Tcg, "KVM was not asked for".to_owned()));
    }
    let probe = probe_kvm(artifacts, work_dir, progress)?;
    match (probe.works, request) {
        (true, _) => Ok((Accelerator::Kvm, probe.detail)),
        (false, AccelRequest::Kvm) => Err(GuestError::KvmUnusable {
            reason: probe.detail,
        }),
        (false, _) => {
            let why = probe.detail.lines().next().unwrap_or_default();
            progress(&format!(
                "emulating the guest, KVM boots no kernel here: {why}"
            ));
            Ok((Accelerator::Tcg, probe.detail))
        }
    }
}
