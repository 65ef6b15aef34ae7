//! A running guest.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use efuse_model::environment::Accelerator;
use efuse_model::protocol::{FromAgent, ToAgent};

use crate::accel;
use crate::console::Console;
use crate::error::GuestError;
use crate::image;
use crate::inbox::Inbox;
use crate::kernel_image;
use crate::qemu::Machine;
use crate::spec::{AccelRequest, GuestSpec, MAX_ICOUNT_SHIFT};
use crate::watcher::Watcher;

/// The longest message; fio's own output is some hundred KiB.
const LONGEST_MESSAGE: u64 = 64 << 20;
/// How long QEMU may take to end after its console was closed, and how long a failed write waits
/// for the reason of the failure to be found.
pub(crate) const AFTERMATH: Duration = Duration::from_secs(5);
/// How long the agent may take to finish and the guest to power off.
const SHUTDOWN: Duration = Duration::from_secs(30);
/// How often a boot is tried again that failed for the emulation's sake.
const BOOT_RETRIES: u32 = 2;
/// What init says first of all.
const INIT_STARTED: &[u8] = b"efuse-init: started";
/// Between two looks at whether a write that blocks still makes sense.
const WRITE_PATIENCE: Duration = Duration::from_millis(200);

/// A booted (or booting) guest. Dropping it kills it.
///
/// All methods may be called from several threads.
#[derive(Debug)]
pub struct Guest {
    shared: Arc<Shared>,
    writer: Mutex<UnixStream>,
    accelerator: Accelerator,
    accelerator_detail: String,
    started: Instant,
    threads: Vec<JoinHandle<()>>,
}

/// Ends a guest from another thread, such as the one that handles signals.
#[derive(Debug, Clone)]
pub struct Canceller(Arc<Shared>);

impl Canceller {
    /// Kills the guest at once. Calls that wait for it, and all later ones, give
    /// [`GuestError::Cancelled`].
    pub fn cancel(&self) {
        self.0.inbox.fail(GuestError::Cancelled);
        self.0.kill();
    }
}

/// What a guest's threads have in common.
pub(crate) struct Shared {
    pub inbox: Inbox,
    /// `None` until it is started. Reaped only under the lock, so that its number is never
    /// used for a process that has taken it over.
    child: Mutex<Option<Child>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    pub fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn kill(&self) {
        if let Some(child) = self.child().as_mut() {
            // Fails only if it is reaped already.
            let _ = child.kill();
        }
    }

    fn pid(&self) -> Option<u32> {
        self.child().as_ref().map(Child::id)
    }

    /// Waits for QEMU, and kills it if it takes too long.
    pub fn reap(&self, patience: Duration) -> io::Result<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            let mut child = self.child();
            let Some(child) = child.as_mut() else {
                return Err(io::Error::other("it was never started"));
            };
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                child.kill()?;
                return child.wait();
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Guest {
    /// Makes the initramfs and boots it. Returns as soon as QEMU runs; the agent's first message
    /// is [`FromAgent::Ready`]. `progress` receives one line for each step that takes time.
    ///
    /// # Errors
    /// When a program, library or kernel module is missing, the specification makes no sense, KVM
    /// is asked for and does not work, or a file cannot be read or written.
    pub fn start(spec: &GuestSpec, progress: &mut dyn FnMut(&str)) -> Result<Self, GuestError> {
        check(spec)?;
        fs::create_dir_all(&spec.work_dir)
            .map_err(GuestError::io("make the folder", &spec.work_dir))?;
        let log = File::create(&spec.console_log)
            .map_err(GuestError::io("write the console's log", &spec.console_log))?;
        let (accelerator, accelerator_detail) =
            accel::choose(spec.accel, &spec.artifacts, &spec.work_dir, progress)?;
        let initramfs = image::build(spec, progress)?;
        let kernel = kernel_image::prepare(&spec.artifacts.vmlinuz, &spec.work_dir)?;
        let disk = spec
            .virtio_disk_bytes
            .map(|bytes| sparse_file(&spec.work_dir, bytes))
            .transpose()?;
        let name = Path::new("the guest");
        let pair = || UnixStream::pair().map_err(GuestError::io("connect to", name));
        let (console, console_theirs) = pair()?;
        let (agent, agent_theirs) = pair()?;
        // Only writes: reads on the other handle may take as long as they like.
        agent
            .set_write_timeout(Some(WRITE_PATIENCE))
            .map_err(GuestError::io("connect to", name))?;
        let reader = agent
            .try_clone()
            .map_err(GuestError::io("connect to", name))?;

        let started = Instant::now();
        let shared = Arc::new(Shared {
            inbox: Inbox::default(),
            child: Mutex::new(None),
        });
        let watcher = Watcher {
            shared: Arc::clone(&shared),
            socket: console,
            log,
            stderr: tempfile::tempfile().map_err(GuestError::io("make a file for", name))?,
            console: Console::default(),
            limit: spec.time_limit,
            deadline: started.checked_add(spec.time_limit),
            kvm: accelerator_detail.clone(),
        };
        let machine = Machine {
            accelerator,
            kernel,
            initramfs,
            vcpus: spec.vcpus,
            icount_shift: spec.icount_shift,
            kernel_arguments: spec.kernel_arguments,
            memory_mib: spec.memory_mib,
            console: console_theirs.into(),
            agent: Some(agent_theirs.into()),
            disk,
        };
        let (report, outcome) = mpsc::sync_channel(1);
        let watch = thread::Builder::new()
            .name("guest-watch".to_owned())
            .spawn(move || watcher.run(machine, &report))
            .map_err(GuestError::io("start a thread for", name))?;
        match outcome.recv() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(error),
            Err(mpsc::RecvError) => {
                return Err(GuestError::Specification(
                    "the thread that watches the guest broke down".to_owned(),
                ));
            }
        }
        // From here on, dropping it ends the guest.
        let mut guest = Self {
            shared: Arc::clone(&shared),
            writer: Mutex::new(agent),
            accelerator,
            accelerator_detail,
            started,
            threads: vec![watch],
        };
        let read = thread::Builder::new()
            .name("guest-read".to_owned())
            .spawn(move || {
                read_messages(&shared.inbox, BufReader::with_capacity(1 << 18, reader));
                shared.inbox.silence();
            })
            .map_err(GuestError::io("start a thread for", name))?;
        guest.threads.push(read);
        Ok(guest)
    }

    /// Starts a guest and waits until its agent is ready; gives that first message too.
    ///
    /// Under QEMU 7.2's emulation the stock kernel itself oopsed once in about 130 boots, two
    /// seconds after its start (others have seen the like when a kernel patches its own code).
    /// Such a failure comes before anything of ours runs in the guest, and only then is the boot
    /// tried again, at most twice; `progress` is told, and the failed console's log is kept
    /// beside the log as `*.failed-N`.
    ///
    /// # Errors
    /// As [`Guest::start`]; else why the guest was lost, or [`GuestError::Timeout`] if the agent
    /// was not ready within `patience`, or [`GuestError::Protocol`] if it said something else.
    pub fn boot(
        spec: &GuestSpec,
        patience: Duration,
        progress: &mut dyn FnMut(&str),
    ) -> Result<(Self, FromAgent), GuestError> {
        let mut attempt = 1;
        loop {
            let guest = Self::start(spec, progress)?;
            let said = loop {
                match guest.recv(patience) {
                    Ok(FromAgent::Log { text }) => progress(&text),
                    said => break said,
                }
            };
            let error = match said {
                Ok(ready @ FromAgent::Ready { .. }) => return Ok((guest, ready)),
                Ok(other) => GuestError::Protocol {
                    reason: "the first message must be `ready`".to_owned(),
                    line: format!("{other:?}").chars().take(200).collect(),
                },
                Err(error) => error,
            };
            let accelerator = guest.accelerator;
            // The log is whole only when the guest is gone.
            drop(guest);
            let console = fs::read(&spec.console_log).unwrap_or_default();
            if attempt > BOOT_RETRIES || !emulation_failed(&error, accelerator, &console) {
                return Err(error);
            }
            let mut kept = spec.console_log.clone().into_os_string();
            kept.push(format!(".failed-{attempt}"));
            fs::rename(&spec.console_log, &kept)
                .map_err(GuestError::io("keep the console's log", &spec.console_log))?;
            progress(&format!(
                "the emulated kernel failed before its init ran (console: {}); booting again",
                Path::new(&kept).display()
            ));
            attempt += 1;
        }
    }

    /// Sends a message to the agent, waiting until it is on its way.
    ///
    /// # Errors
    /// When the guest is lost; why.
    pub fn send(&self, message: &ToAgent) -> Result<(), GuestError> {
        let mut line = serde_json::to_vec(message).expect("a message is plain data");
        line.push(b'\n');
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rest = line.as_slice();
        while !rest.is_empty() {
            if let Some(lost) = self.shared.inbox.lost() {
                return Err(lost);
            }
            match writer.write(rest) {
                Ok(length) => rest = &rest[length..],
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                    ) => {}
                // QEMU has closed its end. The watcher knows why, or will in a moment.
                Err(error) => {
                    let lost = self.shared.inbox.wait_lost(AFTERMATH);
                    return Err(lost.unwrap_or_else(|| {
                        GuestError::io("write to", Path::new("the guest"))(error)
                    }));
                }
            }
        }
        Ok(())
    }

    /// Waits for the agent's next message.
    ///
    /// A failure of the guest's kernel is returned at once and before messages that wait; that
    /// the guest ended in another way, after them.
    ///
    /// # Errors
    /// [`GuestError::Timeout`] when nothing came in time (the guest still runs); any other
    /// error is final and is returned again by later calls.
    pub fn recv(&self, timeout: Duration) -> Result<FromAgent, GuestError> {
        self.shared.inbox.take(timeout)
    }

    /// What executes the guest.
    #[must_use]
    pub const fn accelerator(&self) -> Accelerator {
        self.accelerator
    }

    /// How it was found that KVM works, or why it does not.
    #[must_use]
    pub fn accelerator_detail(&self) -> &str {
        &self.accelerator_detail
    }

    /// How long ago QEMU was started.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// QEMU's process, for messages.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.shared.pid()
    }

    /// A handle that ends the guest from elsewhere.
    #[must_use]
    pub fn canceller(&self) -> Canceller {
        Canceller(Arc::clone(&self.shared))
    }

    /// Tells the agent to finish, and waits until the guest has powered itself off. Messages
    /// that were not received are lost.
    ///
    /// # Errors
    /// When the guest failed before or while it shut down, or did not do so within half a
    /// minute. It is gone in every case.
    pub fn shutdown(self) -> Result<(), GuestError> {
        let inbox = &self.shared.inbox;
        inbox.dismiss();
        inbox.abandon();
        self.send(&ToAgent::Shutdown)?;
        if !inbox.wait_gone(SHUTDOWN) {
            return Err(inbox
                .lost()
                .unwrap_or(GuestError::Timeout { waited: SHUTDOWN }));
        }
        inbox.lost().map_or(Ok(()), Err)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.shared.inbox.dismiss();
        self.shared.inbox.abandon();
        self.shared.kill();
        // Both see the end of their sockets now.
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Whether it was the bare kernel that failed, emulated, before the first program of the guest.
fn emulation_failed(error: &GuestError, accelerator: Accelerator, console: &[u8]) -> bool {
    let of_the_kernel = matches!(
        error,
        GuestError::Panic { .. } | GuestError::Oops { .. } | GuestError::Warning { .. }
    );
    let init_ran = console
        .windows(INIT_STARTED.len())
        .any(|window| window == INIT_STARTED);
    accelerator.emulated() && of_the_kernel && !init_ran
}

fn check(spec: &GuestSpec) -> Result<(), GuestError> {
    let refuse = |reason: &str| Err(GuestError::Specification(reason.to_owned()));
    if spec.vcpus == 0 {
        return refuse("a guest needs at least one processor");
    }
    if spec.memory_mib < 512 {
        return refuse("a guest needs at least 512 MiB of memory: its files alone take 100");
    }
    if let Some(shift) = spec.icount_shift {
        if spec.accel != AccelRequest::Tcg || spec.vcpus != 1 {
            return refuse("time that counts instructions needs emulation and one processor");
        }
        if shift > MAX_ICOUNT_SHIFT {
            return refuse("the shift of time that counts instructions is 10 at most");
        }
        if spec.virtio_disk_bytes.is_some() {
            return refuse(
                "time that counts instructions does not pass while QEMU's disk works: use a device in RAM",
            );
        }
    }
    if spec
        .virtio_disk_bytes
        .is_some_and(|bytes| bytes % 512 != 0 || bytes == 0)
    {
        return refuse("the size of a disk is a multiple of 512 bytes, and not 0");
    }
    Ok(())
}

/// A file without a name: it is gone when QEMU and this process are. There must be room for all of it: the
/// guest's device would fail in the middle.
fn sparse_file(folder: &Path, bytes: u64) -> Result<OwnedFd, GuestError> {
    let space = nix::sys::statvfs::statvfs(folder).map_err(|errno| {
        GuestError::io("read the free space of", folder)(io::Error::from(errno))
    })?;
    let free = space.blocks_available() * space.fragment_size();
    if free < bytes {
        return Err(GuestError::Specification(format!(
            "{} has {} MiB free, and the guest's disk may need {} MiB; choose a smaller device or make room",
            folder.display(),
            free >> 20,
            bytes >> 20
        )));
    }
    let file =
        tempfile::tempfile_in(folder).map_err(GuestError::io("make the disk's file in", folder))?;
    file.set_len(bytes)
        .map_err(GuestError::io("make the disk's file in", folder))?;
    Ok(file.into())
}

/// Reads until the channel is closed. What nobody will receive is read too, and thrown away: the
/// agent must never be stuck in a write.
fn read_messages(inbox: &Inbox, mut from: impl BufRead) {
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = match from
            .by_ref()
            .take(LONGEST_MESSAGE)
            .read_until(b'\n', &mut line)
        {
            Ok(0) => return,
            Ok(length) => length as u64,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        let whole = line.last() == Some(&b'\n');
        if !whole && length < LONGEST_MESSAGE {
            // The guest ended in the middle of a message; how, the watcher says.
            return;
        }
        let message = if whole {
            serde_json::from_slice(&line).map_err(|error| error.to_string())
        } else {
            Err(format!("it is longer than {} MiB", LONGEST_MESSAGE >> 20))
        };
        match message {
            Ok(message) => {
                inbox.put(message);
            }
            Err(reason) => {
                let shown: String = String::from_utf8_lossy(&line).chars().take(200).collect();
                inbox.finish(GuestError::Protocol {
                    reason,
                    line: shown.trim_end().to_owned(),
                });
                inbox.silence();
                let _ = io::copy(&mut from, &mut io::sink());
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_bare_emulated_kernel_gets_another_try() {
        let oops = GuestError::Oops {
            trace: String::new(),
        };
        let early = b"[    2.061160] Oops: int3: 0000 [#1] PREEMPT SMP NOPTI\n";
        let late = b"[    2.0] efuse-init: started\n[    2.061160] Oops: int3\n";
        assert!(emulation_failed(&oops, Accelerator::Tcg, early));
        assert!(!emulation_failed(&oops, Accelerator::Tcg, late));
        assert!(!emulation_failed(&oops, Accelerator::Kvm, early));
        let hung = GuestError::Timeout {
            waited: Duration::ZERO,
        };
        assert!(!emulation_failed(&hung, Accelerator::Tcg, early));
    }
}
