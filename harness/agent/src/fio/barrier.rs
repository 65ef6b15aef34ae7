//! A barrier around fio's measured phase.
//!
//! fio spends much of its life on something else than its job: it parses, makes and opens
//! files, starts threads, prints. Counters that cover its whole process count all of
//! that. fio's own `ctx` covers each job's thread from just after `exec_prerun` to just
//! before `exec_postrun` (fio 3.33, `thread_main` in `backend.c`), so these two commands
//! are a barrier here: a shell built-in that says "arrived" into a FIFO and waits for a
//! line from another. When all jobs have arrived, each of their threads sleeps in the
//! kernel, counters are set up in peace, and all are let go at once. The commands are not
//! part of the command line that is stored: without a harness on the other side they
//! would wait for ever, and the job is the same without them.
//!
//! A job's own count and one between the barriers differ by the thread's way into
//! `system(3)` at the end: it sleeps until its child has started, and until it ends. These
//! [`SWITCHES_PER_JOB`] are the barrier's own and are taken off. With a ramp the counters
//! start when it is over by the clock.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use efuse_probes::proc;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::error::{AgentError, Result};
use crate::process::Attend;

/// How long jobs may wait for one that does not come because it has failed.
const GRACE: Duration = Duration::from_secs(10);

/// How long after a ramp counting may begin without a word.
const LATE: Duration = Duration::from_millis(20);

/// Beginning of what is said where counting began later.
pub const RAMP_MISSED: &str = "the measured phase after the ramp was not counted";

/// Switches of a job that the barrier makes between the start and the end of counting:
/// the `vfork` and the `waitpid` of `system(3)`.
pub const SWITCHES_PER_JOB: u64 = 2;

/// Told at the edges of the measured phase, while every job waits.
pub trait Phase {
    /// All jobs have come and wait: fio's process and the threads of its jobs. What takes
    /// time is done here.
    fn gathered(&mut self, fio: u32, jobs: Vec<u32>);

    /// The phase begins: the jobs are about to be let go, or their ramp is over and they
    /// work already.
    fn starts(&mut self);

    /// All jobs have done their work, and their threads are still there.
    fn ended(&mut self);

    /// There is no phase to tell about, and why.
    fn failed(&mut self, reason: String);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Jobs arrive at the start.
    Gathering,
    /// Let go; counting starts then.
    Ramp(Instant),
    /// Jobs work, and arrive at the end.
    Working,
    /// All are let go.
    Over,
}

/// The barrier.
pub struct Barrier<'a> {
    folder: PathBuf,
    arrived: File,
    start: File,
    end: File,
    jobs: usize,
    ramp: Duration,
    stage: Stage,
    /// Arrivals at the start and at the end.
    count: (usize, usize),
    /// When the last job arrived.
    last: Instant,
    threads: Vec<u32>,
    phase: &'a mut dyn Phase,
    whose: Whose,
}

/// Whose jobs they are, which tells how their threads are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// fio's: each waits for the child that is its barrier.
    Fio,
    /// `metaload`'s: all its threads but the first, and each comes to the barrier itself.
    Metaload,
}

impl Whose {
    /// Switches that the barrier itself makes in each job between the start and the end
    /// of counting.
    #[must_use]
    pub const fn switches(self) -> u64 {
        match self {
            Self::Fio => SWITCHES_PER_JOB,
            // The sleep at the end.
            Self::Metaload => 1,
        }
    }

    fn threads(self, pid: u32) -> efuse_probes::Result<Vec<u32>> {
        match self {
            Self::Fio => proc::threads_with_children(pid),
            Self::Metaload => {
                let mut threads = proc::threads(pid)?;
                threads.retain(|thread| *thread != pid);
                Ok(threads)
            }
        }
    }
}

impl std::fmt::Debug for Barrier<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Barrier")
            .field("folder", &self.folder)
            .field("jobs", &self.jobs)
            .field("stage", &self.stage)
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

/// Whether a line of fio's output is about the barrier's commands and nothing else.
pub(super) fn is_notice(line: &str) -> bool {
    line.contains(" : Saving output of prerun in ")
        || line.contains(" : Saving output of postrun in ")
}

fn fifo(path: &Path) -> Result<File> {
    mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)
        .map_err(AgentError::errno(path, "make the FIFO"))?;
    // Both ways: opening does not wait for the other side, and it never ends for a reader.
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)
        .map_err(AgentError::io(path, "open the FIFO"))
}

impl<'a> Barrier<'a> {
    /// For `jobs` jobs that ramp up for `ramp`. `folder` is made, and removed with the
    /// barrier.
    ///
    /// # Errors
    /// If the folder or a FIFO cannot be made.
    pub fn new(
        folder: &Path,
        whose: Whose,
        jobs: u32,
        ramp: Duration,
        phase: &'a mut dyn Phase,
    ) -> Result<Self> {
        let _ = fs::remove_dir_all(folder);
        fs::create_dir(folder).map_err(AgentError::io(folder, "create the folder"))?;
        Ok(Self {
            arrived: fifo(&folder.join("arrived"))?,
            start: fifo(&folder.join("start"))?,
            end: fifo(&folder.join("end"))?,
            folder: folder.to_owned(),
            jobs: usize::try_from(jobs).unwrap_or(usize::MAX),
            ramp,
            stage: Stage::Gathering,
            count: (0, 0),
            last: Instant::now(),
            threads: Vec::new(),
            phase,
            whose,
        })
    }

    /// fio's working folder: it writes what the commands print there.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// fio's options.
    pub(super) fn args(&self) -> [String; 2] {
        // Relative to fio's folder. fio appends a redirection. `:` because fio takes a
        // failing command for a failing job.
        let wait = |letter, fifo| format!("{{ echo {letter} >arrived; read -r line <{fifo}; :; }}");
        [
            format!("--exec_prerun={}", wait('s', "start")),
            format!("--exec_postrun={}", wait('e', "end")),
        ]
    }

    fn receive(&mut self) {
        let mut bytes = [0; 256];
        while let Ok(n) = self.arrived.read(&mut bytes)
            && n > 0
        {
            let of = |letter| bytes[..n].iter().filter(|b| **b == letter).count();
            self.count.0 += of(b's');
            self.count.1 += of(b'e');
            self.last = Instant::now();
        }
    }

    fn let_go(mut fifo: &File, jobs: usize) -> io::Result<()> {
        // A line for each. Fits: a pipe holds at least a page.
        fifo.write_all(&vec![b'\n'; jobs])
    }

    fn gathered(&mut self, child: u32) {
        // Their threads are found by their children, which they have only here.
        self.threads = self.find(child);
        if !self.threads.is_empty() {
            self.phase.gathered(child, self.threads.clone());
        }
        if self.ramp.is_zero() {
            self.starts();
            self.stage = Stage::Working;
        } else {
            self.stage = Stage::Ramp(Instant::now() + self.ramp);
        }
        self.release_start();
    }

    fn release_start(&mut self) {
        if let Err(e) = Self::let_go(&self.start, self.jobs) {
            self.phase.failed(format!("the jobs cannot be let go: {e}"));
        }
    }

    fn find(&mut self, child: u32) -> Vec<u32> {
        match self.whose.threads(child) {
            Ok(threads) if threads.len() == self.jobs => threads,
            Ok(threads) => {
                self.phase.failed(format!(
                    "{} threads wait at the start, not {}",
                    threads.len(),
                    self.jobs
                ));
                Vec::new()
            }
            Err(e) => {
                self.phase
                    .failed(format!("the jobs' threads cannot be found: {e}"));
                Vec::new()
            }
        }
    }

    fn starts(&mut self) {
        if !self.threads.is_empty() {
            self.phase.starts();
        }
    }

    /// Ends counting, whoever has arrived, and lets all go.
    fn finish(&mut self) {
        if !self.threads.is_empty() {
            self.phase.ended();
        }
        self.stage = Stage::Over;
        if let Err(e) = Self::let_go(&self.end, self.jobs) {
            self.phase
                .failed(format!("the jobs cannot be let go at their end: {e}"));
        }
    }

    /// Jobs of those that started which will not come to the end: their threads are gone.
    fn gone(&self, child: u32) -> usize {
        let alive = proc::threads(child).unwrap_or_default();
        self.threads.iter().filter(|t| !alive.contains(t)).count()
    }
}

impl Attend for Barrier<'_> {
    fn fd(&self) -> BorrowedFd<'_> {
        self.arrived.as_fd()
    }

    fn due(&self) -> Option<Instant> {
        match self.stage {
            Stage::Ramp(until) => Some(until),
            // The waiting loop looks often enough for jobs that will not come.
            Stage::Gathering | Stage::Working | Stage::Over => None,
        }
    }

    fn attend(&mut self, child: u32) {
        self.receive();
        match self.stage {
            Stage::Gathering if self.count.0 >= self.jobs => self.gathered(child),
            Stage::Gathering if self.count.0 > 0 && self.last.elapsed() > GRACE => {
                self.phase.failed(format!(
                    "{} of {} jobs came to the start",
                    self.count.0, self.jobs
                ));
                self.stage = Stage::Over;
                self.release_start();
                if let Err(e) = Self::let_go(&self.end, self.jobs) {
                    self.phase
                        .failed(format!("the jobs cannot be let go at their end: {e}"));
                }
            }
            Stage::Ramp(until) if Instant::now() >= until => {
                self.starts();
                // The jobs work meanwhile: what they did until now is not counted.
                let late = until.elapsed();
                if late > LATE {
                    self.phase.failed(format!(
                        "{RAMP_MISSED} for {} ms, in which the counters were set up",
                        late.as_millis()
                    ));
                }
                self.stage = Stage::Working;
            }
            Stage::Ramp(_) | Stage::Gathering | Stage::Over => {}
            Stage::Working if self.count.1 >= self.jobs => self.finish(),
            Stage::Working if self.count.1 > 0 => {
                let gone = self.gone(child);
                if gone > 0 && self.count.1 + gone >= self.jobs {
                    self.phase.failed(format!(
                        "{gone} of {} jobs ended without coming to the end",
                        self.jobs
                    ));
                    self.finish();
                }
            }
            Stage::Working => {}
        }
    }
}

impl Drop for Barrier<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}
