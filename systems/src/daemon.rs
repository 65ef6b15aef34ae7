//! A daemon's process: start, output, end.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::SystemError;
use crate::bounded::poll;

/// Set in the environment of every daemon; its value names the mount, so that a daemon
/// that forked itself into the background is found again, and only that one.
pub(crate) const TOKEN_VARIABLE: &str = "EFUSE_MOUNT_TOKEN";

/// How much of the log goes into a message.
const TAIL_BYTES: u64 = 2048;
const TAIL_LINES: usize = 12;

/// A new name for a mount, unique on this machine.
pub(crate) fn new_token() -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos();
    let n = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("{}-{n}-{now}", std::process::id())
}

/// The part of a log that belongs to one daemon.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    path: PathBuf,
    /// Where this daemon's output begins in the file.
    from: u64,
}

impl Log {
    fn open(path: &Path) -> Result<(Self, File), SystemError> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map_err(SystemError::io(path, "open the daemon's log"))?;
        let from = file
            .metadata()
            .map_err(SystemError::io(path, "read the size of the daemon's log"))?
            .len();
        let log = Self {
            path: path.to_owned(),
            from,
        };
        Ok((log, file))
    }

    fn read_from(&self, offset: u64) -> String {
        let mut bytes = Vec::new();
        // Shown in messages about something else: a log that cannot be read is empty.
        let _ = File::open(&self.path).and_then(|mut file| {
            file.seek(SeekFrom::Start(offset))?;
            file.read_to_end(&mut bytes)
        });
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Whether the daemon has printed this line.
    fn has_line(&self, line: &str) -> bool {
        let text = self.read_from(self.from);
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        complete.lines().any(|l| l.trim_end() == line)
    }

    /// The last lines on one line, for a message.
    pub(crate) fn tail(&self) -> String {
        let size = fs::metadata(&self.path).map_or(0, |m| m.len());
        let text = self.read_from(self.from.max(size.saturating_sub(TAIL_BYTES)));
        let lines: Vec<&str> = text
            .lines()
            .map(str::trim)
            .filter(|l| !l.is_empty())
            .collect();
        let shown = self.path.display();
        if lines.is_empty() {
            return format!("it printed nothing (log: {shown})");
        }
        let last = &lines[lines.len().saturating_sub(TAIL_LINES)..];
        format!("its log {shown} ends with: {}", last.join(" | "))
    }
}

/// What to start.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    pub system: &'a str,
    pub program: &'a Path,
    pub args: Vec<OsString>,
    pub env: Vec<(String, OsString)>,
    /// Whether the started process is the daemon itself.
    pub foreground: bool,
    pub log: &'a Path,
    pub token: &'a str,
    /// A descriptor the daemon inherits under the same number.
    pub inherit: Option<&'a OwnedFd>,
}

/// A started daemon.
#[derive(Debug)]
pub(crate) struct Daemon {
    system: String,
    token: String,
    log: Log,
    foreground: bool,
    /// The started process.
    child: Child,
    status: Option<ExitStatus>,
    /// The daemon's process, when it put itself into the background.
    background: Option<Background>,
}

/// A process that is not our child: its number could be given to another one, its
/// number together with its start cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Background {
    pid: u32,
    /// Clock ticks from boot to its start.
    start: u64,
}

impl Background {
    fn of(pid: u32) -> Option<Self> {
        let (_, start) = state_and_start(pid)?;
        Some(Self { pid, start })
    }

    /// Whether it still runs; a zombie, which only its parent can remove, does not.
    fn runs(self) -> bool {
        state_and_start(self.pid)
            .is_some_and(|(state, start)| start == self.start && !matches!(state, 'Z' | 'X'))
    }
}

/// State and start of a process: fields 3 and 22 of `/proc/PID/stat`, see proc(5). The
/// second field, the name, may contain anything but ends with the last parenthesis.
fn state_and_start(pid: u32) -> Option<(char, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

impl Daemon {
    pub(crate) fn start(launch: &Launch<'_>) -> Result<Self, SystemError> {
        let (log, file) = Log::open(launch.log)?;
        let second = file
            .try_clone()
            .map_err(SystemError::io(launch.log, "open the daemon's log twice"))?;
        let inherit = launch.inherit.map(AsRawFd::as_raw_fd);
        let mut command = Command::new(launch.program);
        command
            .args(&launch.args)
            .envs(launch.env.iter().map(|(k, v)| (k, v)))
            .env(TOKEN_VARIABLE, launch.token)
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(second);
        // SAFETY: between fork and exec only the async-signal-safe setsid(2) and
        // fcntl(2) are called; `inherit` is open in the child until exec because the
        // caller holds the descriptor across `spawn`.
        unsafe {
            command.pre_exec(move || {
                // A session of its own: a terminal's Ctrl-C does not reach it.
                if libc::setsid() < 0 {
                    return Err(std::io::Error::last_os_error());
                }
                // Cleared here and not in the parent, where another thread's child
                // could inherit the descriptor and keep the connection open.
                if let Some(fd) = inherit
                    && libc::fcntl(fd, libc::F_SETFD, 0) < 0
                {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = command.spawn().map_err(|source| SystemError::Start {
            system: launch.system.to_owned(),
            command: shown(launch.program, &launch.args),
            source,
        })?;
        Ok(Self {
            system: launch.system.to_owned(),
            token: launch.token.to_owned(),
            log,
            foreground: launch.foreground,
            child,
            status: None,
            background: None,
        })
    }

    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    pub(crate) fn has_printed(&self, line: &str) -> bool {
        self.log.has_line(line)
    }

    /// The daemon's process.
    pub(crate) fn pid(&self) -> Option<u32> {
        if self.foreground {
            Some(self.child.id())
        } else {
            self.background.map(|b| b.pid)
        }
    }

    /// Looks for the process of a daemon that put itself into the background.
    pub(crate) fn adopt(&mut self) {
        if !self.foreground {
            let started = self.child.id();
            self.background = self
                .processes()
                .into_iter()
                .find(|pid| *pid != started)
                .and_then(Background::of);
        }
    }

    /// How the started process ended, if it did.
    fn exit(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
        }
        self.status
    }

    /// An error if the daemon has ended: `when` says in the middle of what.
    pub(crate) fn check(&mut self, when: &'static str) -> Result<(), SystemError> {
        let how = match (self.exit(), self.foreground) {
            (None, _) => return Ok(()),
            (Some(status), true) => describe(status),
            // The process that was started ends when the daemon is in the background.
            (Some(status), false) if status.success() => match self.background {
                None => return Ok(()),
                Some(daemon) if daemon.runs() => return Ok(()),
                Some(daemon) => format!("(process {}) ended", daemon.pid),
            },
            (Some(status), false) => describe(status),
        };
        Err(SystemError::Died {
            system: self.system.clone(),
            how,
            when,
            log: self.log.tail(),
        })
    }

    /// Waits for every process of the daemon to end.
    pub(crate) fn wait_gone(&mut self, limit: Duration) -> bool {
        poll(limit, || {
            let left = self.exit().is_none() || (!self.foreground && !self.processes().is_empty());
            (!left).then_some(())
        })
        .is_some()
    }

    /// Sends a signal to every process that belongs to the mount.
    pub(crate) fn signal(&mut self, signal: Signal) {
        let mut pids = self.processes();
        // The child may not have reached exec, where it gets its environment. It has
        // not been reaped, so the number is still its own.
        if self.exit().is_none() && !pids.contains(&self.child.id()) {
            pids.push(self.child.id());
        }
        for pid in pids {
            if let Ok(pid) = i32::try_from(pid) {
                // It may have ended by itself in the meantime.
                let _ = kill(Pid::from_raw(pid), signal);
            }
        }
    }

    /// How it ended, if that is worth a complaint: by a signal, or, if `strict`, with
    /// a status that is not 0.
    pub(crate) fn complaint(&mut self, strict: bool) -> Option<SystemError> {
        let status = self.exit()?;
        let bad = status.signal().is_some() || (strict && !status.success());
        bad.then(|| SystemError::Died {
            system: self.system.clone(),
            how: describe(status),
            when: "while it was being unmounted",
            log: self.log.tail(),
        })
    }

    fn carries_token(&self, pid: u32) -> bool {
        let wanted = format!("{TOKEN_VARIABLE}={}", self.token);
        fs::read(format!("/proc/{pid}/environ"))
            .is_ok_and(|env| env.split(|b| *b == 0).any(|v| v == wanted.as_bytes()))
    }

    /// Every process that carries the token, and the one adopted earlier: while a
    /// process is in execve(2), its environment reads as empty. So does a zombie's.
    fn processes(&self) -> Vec<u32> {
        let adopted = self.background.filter(|b| b.runs()).map(|b| b.pid);
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        entries
            .filter_map(|e| e.file_name().to_str()?.parse().ok())
            .filter(|pid| adopted == Some(*pid) || self.carries_token(*pid))
            .collect()
    }
}

/// The command line, for messages.
fn shown(program: &Path, args: &[OsString]) -> String {
    let mut text = program.display().to_string();
    for arg in args {
        text.push(' ');
        text.push_str(&arg.to_string_lossy());
    }
    text
}

fn describe(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => match Signal::try_from(signal) {
            Ok(name) => format!("was killed by {name}"),
            Err(_) => format!("was killed by signal {signal}"),
        },
        (None, Some(code)) => format!("exited with status {code}"),
        (None, None) => "ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh<'a>(script: &str, log: &'a Path, token: &'a str, foreground: bool) -> Launch<'a> {
        Launch {
            system: "test",
            program: Path::new("/bin/sh"),
            args: vec!["-c".into(), script.into()],
            env: vec![],
            foreground,
            log,
            token,
            inherit: None,
        }
    }

    #[test]
    fn a_daemon_that_ends_is_noticed_with_its_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        fs::write(&log, "output of another daemon\n").unwrap();
        let token = new_token();
        let mut daemon =
            Daemon::start(&sh("echo one; echo two >&2; exit 3", &log, &token, true)).unwrap();
        assert!(daemon.wait_gone(Duration::from_secs(30)));
        let error = daemon.check("before it was ready").unwrap_err().to_string();
        assert_eq!(
            error,
            format!(
                "test: the daemon exited with status 3 before it was ready; its log {} ends with: one | two",
                log.display()
            )
        );
    }

    #[test]
    fn only_a_whole_line_counts_as_printed() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        fs::write(&log, "ready\n").unwrap();
        let token = new_token();
        let mut daemon =
            Daemon::start(&sh("echo unready; printf ready", &log, &token, true)).unwrap();
        assert!(daemon.wait_gone(Duration::from_secs(30)));
        assert!(!daemon.has_printed("ready"));
        assert!(daemon.has_printed("unready"));
    }

    #[test]
    fn a_daemon_in_the_background_is_found_and_ended() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let token = new_token();
        let mut daemon = Daemon::start(&sh("sleep 1000 &", &log, &token, false)).unwrap();
        let pid = poll(Duration::from_secs(30), || {
            daemon.adopt();
            daemon.exit().and(daemon.pid())
        });
        assert!(pid.is_some(), "the background process was not found");
        daemon.check("at once").unwrap();
        daemon.signal(Signal::SIGKILL);
        assert!(daemon.wait_gone(Duration::from_secs(30)));
        let error = daemon.check("later").unwrap_err().to_string();
        assert!(error.contains("ended later"), "{error}");
    }

    #[test]
    fn a_program_that_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut launch = sh("", &log, "t", true);
        launch.program = Path::new("/no/such/program");
        let error = Daemon::start(&launch).unwrap_err().to_string();
        assert!(
            error.starts_with("test: cannot start `/no/such/program -c `: No such file"),
            "{error}"
        );
    }
}
