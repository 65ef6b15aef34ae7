//! What can go wrong with a guest.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why a guest could not be made, or why it is of no more use.
///
/// It is `Clone` because a failure of the guest is final: every later call returns it again.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum GuestError {
    /// The guest's kernel panicked.
    #[error("the guest's kernel panicked:\n{trace}")]
    Panic {
        /// What the console showed of it.
        trace: String,
    },
    /// The guest's kernel oopsed: a bad access, a `BUG()`, a sanitizer's finding.
    #[error("the guest's kernel oopsed:\n{trace}")]
    Oops {
        /// What the console showed of it.
        trace: String,
    },
    /// The guest's kernel warned (`WARN_ON`, lockdep, UBSAN). It runs on, but what it measures
    /// from then on means nothing.
    #[error("the guest's kernel gave a warning:\n{trace}")]
    Warning {
        /// What the console showed of it.
        trace: String,
    },
    /// A task, a processor or RCU made no progress in the guest.
    #[error("a task hung in the guest:\n{trace}")]
    HungTask {
        /// What the console showed of it.
        trace: String,
    },
    /// The guest's kernel killed a process for want of memory.
    #[error("the guest ran out of memory; give it more:\n{trace}")]
    OutOfMemory {
        /// What the console showed of it.
        trace: String,
    },
    /// The guest's init could not do its work, or the agent ended by itself.
    #[error("the guest gave up: {message}\nits console ended with:\n{tail}")]
    Init {
        /// What init said.
        message: String,
        /// End of the console.
        tail: String,
    },
    /// QEMU ended although nobody told the guest to.
    #[error("QEMU ended ({status}){}\nthe guest's console ended with:\n{tail}", said(.stderr))]
    Exited {
        /// How it ended: `exit status: 1`, `signal: 9 (SIGKILL)`.
        status: String,
        /// What QEMU wrote on its standard error.
        stderr: String,
        /// End of the console.
        tail: String,
    },
    /// The guest ran longer than it was allowed to, and was ended.
    #[error(
        "the guest ran longer than its limit of {limit:?} and was ended; its console ended with:\n{tail}"
    )]
    TimeLimit {
        /// The limit.
        limit: Duration,
        /// End of the console.
        tail: String,
    },
    /// [`crate::Canceller::cancel`] was called.
    #[error("the guest was ended on request")]
    Cancelled,
    /// Nothing came within the time that the caller of [`crate::Guest::recv`] was ready to wait.
    /// The guest is still running.
    #[error("the guest said nothing for {waited:?}")]
    Timeout {
        /// How long the caller waited.
        waited: Duration,
    },
    /// What came over the channel is not the agent's protocol.
    #[error("the guest's agent sent what is no valid message ({reason}): {line}")]
    Protocol {
        /// Why not.
        reason: String,
        /// The line, shortened.
        line: String,
    },
    /// A program of the host is missing.
    #[error("{tool} is not installed: apt-get install {package}")]
    MissingTool {
        /// The program.
        tool: String,
        /// Debian's package that has it.
        package: &'static str,
    },
    /// Virtualisation was asked for and does not work.
    #[error("KVM cannot be used here: {reason}; ask for TCG instead, or for whichever works")]
    KvmUnusable {
        /// Why not.
        reason: String,
    },
    /// This QEMU can execute nothing: no virtualisation, and no emulation built in.
    #[error(
        "QEMU can run no guest here: {kvm}, and it is built without TCG; apt-get install qemu-system-x86"
    )]
    NoAccelerator {
        /// Why there is no KVM.
        kvm: String,
    },
    /// A kernel module that the guest cannot do without is neither built in nor there.
    #[error("{modules_dir} has no module {module}, and it is not built into the kernel either")]
    MissingModule {
        /// The module.
        module: String,
        /// Where it was looked for.
        modules_dir: PathBuf,
    },
    /// A library that a program needs is not on this host.
    #[error("{program} needs the library {library}, which is not on this host")]
    MissingLibrary {
        /// The program or library that needs it.
        program: PathBuf,
        /// The library's name.
        library: String,
    },
    /// Two programs need different libraries of the same name.
    #[error(
        "two programs for the guest need different files under the name {name}: {first} and {second}"
    )]
    LibraryConflict {
        /// The name.
        name: String,
        /// One file.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// Something in the specification makes no sense.
    #[error("{0}")]
    Specification(String),
    /// A helper program of the host failed.
    #[error("{command} failed ({status}): {stderr}")]
    Command {
        /// The command.
        command: String,
        /// How it ended.
        status: String,
        /// What it said.
        stderr: String,
    },
    /// A system call failed.
    #[error("cannot {action} {path}: {reason}")]
    Io {
        /// What was tried, as in "cannot *read*".
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
}

impl GuestError {
    pub(crate) fn io<E: Into<io::Error>>(
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(E) -> Self + use<E> {
        let path = path.to_owned();
        move |error| Self::Io {
            action,
            path,
            reason: error.into().to_string(),
        }
    }

    /// Whether the guest is lost: nothing but dropping it makes sense any more.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        !matches!(self, Self::Timeout { .. })
    }
}

fn said(stderr: &str) -> String {
    if stderr.trim().is_empty() {
        String::new()
    } else {
        format!(" and said: {}", stderr.trim())
    }
}
