//! The QEMU process.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use efuse_model::environment::Accelerator;

use crate::error::GuestError;
use crate::{DISK_SERIAL, PORT, tool};

const BINARY: &str = "qemu-system-x86_64";
const PACKAGE: &str = "qemu-system-x86";

/// Messages from warnings upwards (a `WARN_ON` is one) go to the console; a panic ends QEMU
/// through `-no-reboot`. The crypto self-tests, a second under emulation, are left out: nothing
/// that is measured uses what they test. Slab caches are not merged, so that their objects can be
/// counted.
const COMMAND_LINE: &str =
    "console=ttyS0 loglevel=5 panic=-1 oops=panic printk.devkmsg=on cryptomgr.notests slab_nomerge";

/// Everything that QEMU emulates, but for "fast" string operations: it executes `rep movsb` byte
/// by byte, and a kernel that takes it for fast copies memory about nine times more slowly (200
/// MiB read from tmpfs: 4.8 s against 0.55 s). Without the two flags it copies by words, as it
/// does on a processor that has neither.
const EMULATED_CPU: &str = "max,erms=off,fsrm=off";

/// On a busy host the kernel may find the emulated TSC unsteady and change to a clock that costs
/// an exit at every reading, in the middle of a run and for the rest of it. The TSC is the
/// host's, so there is nothing to watch.
///
/// A host that is short of processor time or memory may also not run an emulated processor for
/// 20 s, which is what the kernel takes for a processor that hangs (and an RCU stall): here a
/// minute is. A loop that never ends is still found.
const EMULATED_COMMAND_LINE: &str =
    " tsc=nowatchdog watchdog_thresh=30 rcupdate.rcu_cpu_stall_timeout=60";

/// With time that counts instructions nothing may differ from boot to boot by chance. The last
/// word is for whoever is inside and judges by time: there it repeats.
const ICOUNT_COMMAND_LINE: &str = " nokaslr norandmaps guest.clock=icount";

/// Where QEMU is.
pub(crate) fn find() -> Result<PathBuf, GuestError> {
    tool::find(BINARY, PACKAGE)
}

/// QEMU's own line about its version, such as `QEMU emulator version 7.2.22 (Debian ...)`.
///
/// # Errors
/// When QEMU is not installed or does not run.
pub fn qemu_version() -> Result<String, GuestError> {
    let output = tool::output(Command::new(find()?).arg("--version"))?;
    let text = String::from_utf8_lossy(&output);
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

/// What QEMU is to run. The descriptors are handed over.
pub(crate) struct Machine {
    pub accelerator: Accelerator,
    pub kernel: PathBuf,
    pub initramfs: OwnedFd,
    pub vcpus: u32,
    /// See [`crate::GuestSpec::icount_shift`].
    pub icount_shift: Option<u8>,
    pub kernel_arguments: Option<&'static str>,
    pub memory_mib: u32,
    /// The console's other end is a socket.
    pub console: OwnedFd,
    /// So is the agent's.
    pub agent: Option<OwnedFd>,
    pub disk: Option<OwnedFd>,
}

impl Machine {
    /// Starts QEMU from the calling thread, **which must live as long as QEMU is to**: the kernel
    /// kills QEMU when the thread that started it ends, and so when this process does.
    pub(crate) fn spawn(&self, stderr: File) -> Result<Child, GuestError> {
        let binary = find()?;
        let (mut command, inherited) = self.command(&binary);
        command
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .process_group(0);
        let parent = std::process::id();
        // SAFETY: the closure runs between fork and exec and only makes system calls that are
        // async-signal-safe; it allocates nothing (`inherited` was made before).
        unsafe {
            command.pre_exec(move || die_with(parent).and_then(|()| keep_open(&inherited)));
        }
        command.spawn().map_err(GuestError::io("start", &binary))
    }

    fn command(&self, binary: &Path) -> (Command, Vec<RawFd>) {
        let mut command = Command::new(binary);
        let mut inherited = Vec::new();
        let mut number = |fd: BorrowedFd<'_>| {
            inherited.push(fd.as_raw_fd());
            fd.as_raw_fd()
        };
        command.args(["-nodefaults", "-no-user-config", "-no-reboot"]);
        command.args(["-display", "none", "-machine", "pc"]);
        match self.accelerator {
            Accelerator::Kvm => command.args(["-accel", "kvm", "-cpu", "host"]),
            Accelerator::Tcg | Accelerator::Native => {
                let threads = match self.icount_shift {
                    Some(_) => "tcg,thread=single",
                    None => "tcg,thread=multi",
                };
                command.args(["-accel", threads, "-cpu", EMULATED_CPU])
            }
        };
        if let Some(shift) = self.icount_shift {
            // Idle time is skipped and not slept through: a timer is due when it is next.
            command.args(["-icount", &format!("shift={shift},sleep=off,align=off")]);
            // Of RDRAND and virtio-rng.
            command.args(["-seed", "1"]);
            command.args(["-rtc", "base=2026-01-01T00:00:00,clock=vm"]);
        }
        command.args(["-smp", &self.vcpus.to_string()]);
        command.args(["-m", &format!("{}M", self.memory_mib)]);
        command.arg("-kernel").arg(&self.kernel);
        let initramfs = number(self.initramfs.as_fd());
        command.args(["-initrd", &format!("/proc/self/fd/{initramfs}")]);
        let mut append = COMMAND_LINE.to_owned();
        if self.accelerator.emulated() {
            append.push_str(EMULATED_COMMAND_LINE);
        }
        if self.icount_shift.is_some() {
            append.push_str(ICOUNT_COMMAND_LINE);
        }
        if let Some(arguments) = self.kernel_arguments {
            append.push(' ');
            append.push_str(arguments);
        }
        command.args(["-append", &append]);

        let console = number(self.console.as_fd());
        command.args(["-chardev", &format!("socket,id=console,fd={console}")]);
        command.args(["-serial", "chardev:console"]);
        command.args(["-object", "rng-builtin,id=rng"]);
        command.args(["-device", "virtio-rng-pci,rng=rng"]);
        if let Some(agent) = &self.agent {
            let agent = number(agent.as_fd());
            command.args(["-device", "virtio-serial-pci,max_ports=2"]);
            command.args(["-chardev", &format!("socket,id=agent,fd={agent}")]);
            command.args([
                "-device",
                &format!("virtserialport,chardev=agent,name={PORT}"),
            ]);
        }
        if let Some(disk) = &self.disk {
            let disk = number(disk.as_fd());
            command.args([
                "-drive",
                &format!("if=none,id=disk,format=raw,file=/proc/self/fd/{disk},discard=unmap,werror=report"),
            ]);
            command.args([
                "-device",
                &format!("virtio-blk-pci,drive=disk,serial={DISK_SERIAL}"),
            ]);
        }
        (command, inherited)
    }
}

fn die_with(parent: u32) -> io::Result<()> {
    // SAFETY: PR_SET_PDEATHSIG takes a signal number and touches no memory.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // If the parent died before the call above, no signal will come.
    if std::os::unix::process::parent_id() == parent {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::ESRCH))
    }
}

fn keep_open(descriptors: &[RawFd]) -> io::Result<()> {
    for &fd in descriptors {
        // SAFETY: F_SETFD takes an integer; a bad descriptor gives EBADF.
        if unsafe { libc::fcntl(fd, libc::F_SETFD, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
