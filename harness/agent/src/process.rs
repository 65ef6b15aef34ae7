//! Running a program to its end, within a limit, without leaving anything behind.

use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::{AgentError, Result};
use crate::limit::{Limit, POLL};

/// How long a program may go on that has lost what it works on.
const GRACE: Duration = Duration::from_secs(5);

/// How a program ended and what it printed.
#[derive(Debug)]
pub struct Finished {
    /// Exit status.
    pub status: ExitStatus,
    /// What it printed on stdout.
    pub stdout: String,
    /// What it printed on stderr.
    pub stderr: String,
}

impl Finished {
    /// `exited with status 1`, `was killed by signal 9 (SIGKILL)`.
    #[must_use]
    pub fn how(&self) -> String {
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("exited with status {code}"),
            (None, Some(signal)) => {
                let name = Signal::try_from(signal).map_or("?", Signal::as_str);
                format!("was killed by signal {signal} ({name})")
            }
            (None, None) => "ended".to_owned(),
        }
    }

    /// The end of its error output (or of its output, if it said nothing there) as
    /// one line.
    #[must_use]
    pub fn tail(&self) -> String {
        let text = if self.stderr.trim().is_empty() {
            &self.stdout
        } else {
            &self.stderr
        };
        tail(text)
    }

    /// # Errors
    /// If it did not exit with status 0.
    pub fn success(self, program: &str) -> Result<Self> {
        if self.status.success() {
            Ok(self)
        } else {
            Err(AgentError::Program {
                program: program.to_owned(),
                how: self.how(),
                tail: self.tail(),
            })
        }
    }
}

/// The last lines of a program's output, joined by ` | `, at most about 600 bytes;
/// repeated lines once.
#[must_use]
pub fn tail(text: &str) -> String {
    let mut lines: Vec<&str> = Vec::new();
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty()) {
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    let mut out = String::new();
    for line in lines.iter().rev() {
        if !out.is_empty() && out.len() + line.len() > 600 {
            break;
        }
        out = if out.is_empty() {
            (*line).to_owned()
        } else {
            format!("{line} | {out}")
        };
    }
    if out.is_empty() {
        "it printed nothing".to_owned()
    } else {
        out
    }
}

/// Runs a program in its own process group; kills it and all its descendants when the
/// limit passes.
///
/// # Errors
/// If it cannot be started, or the limit passed.
pub fn run(command: &mut Command, limit: &Limit) -> Result<Finished> {
    run_while(command, limit, &|| true)
}

/// As [`run`]; a program that still runs some seconds after `sensible` has turned false
/// is killed: it waits for something that will not come.
///
/// # Errors
/// As [`run`], and [`AgentError::Pointless`].
pub fn run_while(
    command: &mut Command,
    limit: &Limit,
    sensible: &dyn Fn() -> bool,
) -> Result<Finished> {
    run_with(command, limit, sensible, None)
}

/// Something that is attended to while a program runs.
pub trait Attend {
    /// Readable when there is something to do.
    fn fd(&self) -> BorrowedFd<'_>;

    /// When there is something to do at the latest.
    fn due(&self) -> Option<Instant>;

    /// Does what there is to do, without waiting. Called after each wait.
    fn attend(&mut self, child: u32);
}

/// As [`run_while`], attending to something else meanwhile.
///
/// # Errors
/// As [`run_while`].
pub fn run_with(
    command: &mut Command,
    limit: &Limit,
    sensible: &dyn Fn() -> bool,
    attend: Option<&mut dyn Attend>,
) -> Result<Finished> {
    limit.check()?;
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|source| AgentError::Start {
            program: program.clone(),
            source,
        })?;
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let waited = wait(&mut child, limit, sensible, attend);
    if waited.is_err() {
        kill_tree(child.id());
    }
    // After SIGKILL this returns as soon as the kernel lets go of the process; one that
    // hangs in a dead mount is freed by the watchdog.
    let status = child
        .wait()
        .map_err(|source| AgentError::Start { program, source })?;
    if status.signal().is_some() {
        // What it started may outlive it and keep its pipes open (a group with members keeps its number).
        if let Ok(group) = i32::try_from(child.id()) {
            let _ = kill(Pid::from_raw(-group), Signal::SIGKILL);
        }
    }
    let finished = Finished {
        status,
        stdout: join(stdout),
        stderr: join(stderr),
    };
    waited.map(|()| finished)
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> Option<thread::JoinHandle<Vec<u8>>> {
    let mut pipe = pipe?;
    Some(thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error still is the program's output.
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    }))
}

fn join(thread: Option<thread::JoinHandle<Vec<u8>>>) -> String {
    let bytes = thread.and_then(|t| t.join().ok()).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Waits until the child can be reaped.
fn wait(
    child: &mut Child,
    limit: &Limit,
    sensible: &dyn Fn() -> bool,
    mut attend: Option<&mut dyn Attend>,
) -> Result<()> {
    let pidfd = pidfd(child.id());
    let mut pointless: Option<Instant> = None;
    loop {
        if child.try_wait().is_ok_and(|s| s.is_some()) {
            return Ok(());
        }
        limit.check()?;
        if !sensible() && pointless.get_or_insert_with(Instant::now).elapsed() > GRACE {
            return Err(AgentError::Pointless);
        }
        let mut step = limit.left().min(POLL);
        if let Some(due) = attend.as_ref().and_then(|a| a.due()) {
            step = step.min(due.saturating_duration_since(Instant::now()));
        }
        match &pidfd {
            Some(fd) => {
                let mut fds = vec![PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
                if let Some(other) = &attend {
                    fds.push(PollFd::new(other.fd(), PollFlags::POLLIN));
                }
                let step = PollTimeout::try_from(step).unwrap_or(PollTimeout::ZERO);
                match poll(&mut fds, step) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(_) => thread::sleep(Duration::from_millis(5)),
                }
            }
            None => thread::sleep(step.min(Duration::from_millis(5))),
        }
        if let Some(other) = &mut attend {
            other.attend(child.id());
        }
    }
}

fn pidfd(pid: u32) -> Option<OwnedFd> {
    // SAFETY: the system call takes two integers and returns a new descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::c_long::from(pid), 0) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: `fd` was just returned by the kernel and nothing else owns it.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Kills a process, its group and its descendants: a program may have put its workers
/// into sessions of their own, as fio does.
pub fn kill_tree(pid: u32) {
    let mut all = vec![pid];
    let parents = parents();
    let mut next = 0;
    while next < all.len() {
        let parent = all[next];
        all.extend(
            parents
                .iter()
                .filter(|(_, p)| *p == parent)
                .map(|(c, _)| *c),
        );
        next += 1;
    }
    for pid in all.into_iter().filter_map(|p| i32::try_from(p).ok()) {
        let _ = kill(Pid::from_raw(-pid), Signal::SIGKILL);
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// Whether a process runs; one that has ended and is not reaped does not.
#[must_use]
pub fn runs(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit_once(')')
            .is_some_and(|(_, s)| s.starts_with(" Z"))
    })
}

/// `(process, its parent)` for every process.
fn parents() -> Vec<(u32, u32)> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            // The command name is in parentheses and may hold anything.
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?;
            Some((pid, parent.parse().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::Cancel;

    fn limit(ms: u64) -> Limit {
        Limit::new(Duration::from_millis(ms), Cancel::default())
    }

    #[test]
    fn output_and_status_are_kept() {
        let mut cmd = Command::new("sh");
        cmd.args(["-c", "echo out; echo err >&2; exit 3"]);
        let done = run(&mut cmd, &limit(60_000)).unwrap();
        assert_eq!(done.how(), "exited with status 3");
        assert_eq!(
            (done.stdout.as_str(), done.stderr.as_str()),
            ("out\n", "err\n")
        );
        let error = done.success("sh").unwrap_err().to_string();
        assert_eq!(error, "sh exited with status 3: err");
    }

    #[test]
    fn the_limit_kills_descendants_in_other_sessions() {
        let dir = tempfile::tempdir().unwrap();
        let note = dir.path().join("pid");
        let mut cmd = Command::new("sh");
        cmd.arg("-c").arg(format!(
            "setsid sh -c 'echo $$ > {0}.tmp; mv {0}.tmp {0}; sleep 600' & wait",
            note.display()
        ));
        let waiter = note.clone();
        let cancel = Cancel::default();
        let stop = cancel.clone();
        let canceller = thread::spawn(move || {
            while !waiter.exists() {
                thread::sleep(Duration::from_millis(5));
            }
            stop.cancel();
        });
        let error = run(&mut cmd, &Limit::new(Duration::from_secs(600), cancel)).unwrap_err();
        canceller.join().unwrap();
        assert!(matches!(error, AgentError::Interrupted), "{error}");
        let pid: i32 = fs::read_to_string(&note).unwrap().trim().parse().unwrap();
        let gone = (0..1000).any(|_| {
            thread::sleep(Duration::from_millis(10));
            match fs::read_to_string(format!("/proc/{pid}/stat")) {
                Ok(stat) => stat.contains(") Z "),
                Err(_) => true,
            }
        });
        assert!(gone, "process {pid} is still there");
    }

    #[test]
    fn a_program_without_purpose_is_killed() {
        let error = run_while(Command::new("sleep").arg("600"), &limit(60_000), &|| false);
        assert!(matches!(error, Err(AgentError::Pointless)), "{error:?}");
        assert!(runs(std::process::id()) && !runs(u32::MAX));
    }

    #[test]
    fn a_passed_limit_is_a_timeout() {
        let error = run(Command::new("sleep").arg("600"), &limit(50)).unwrap_err();
        assert!(matches!(error, AgentError::Timeout { .. }), "{error}");
    }

    #[test]
    fn the_tail_is_one_line_without_repetition() {
        assert_eq!(tail("a\n\nb\na\n"), "a | b");
        assert_eq!(tail(" \n"), "it printed nothing");
        let long: String = (0..1000).map(|n| format!("line {n}\n")).collect();
        assert!(tail(&long).len() < 700);
        assert!(tail(&long).ends_with("line 999"));
    }
}
