//! What is the same on every FUSE arm, so that a difference between two arms is the
//! mechanism under test and nothing else.
//!
//! Not settings, but equal as well:
//!
//! * **`O_DIRECT`** is passed down by every daemon: the kernel hands the flag to OPEN,
//!   and each opens the lower file with it. On EXT4 the flag is in effect by itself.
//! * **Largest request**: 1 MiB each way (256 pages), which is what libfuse asks for
//!   and StackFS too.
//! * **Write-back cache** is off: no daemon asks for it, so a completed write has
//!   reached the lower file system.
//! * **Caching of data** is the kernel's default ("auto"): pages are dropped at open
//!   when size or mtime changed.

/// Threads that serve requests in each daemon.
///
/// Ten, because libfuse's loop starts up to ten on its own and its example offers no
/// way to change that: the others follow the one that cannot be set. Idle threads are
/// kept rather than ended, so the number is steady once reached.
pub const WORKERS: u32 = efuse_model::DAEMON_WORKERS;

/// How long the kernel trusts names and attributes, seconds: libfuse's default for a
/// pass-through with `cache=auto`.
pub const TIMEOUT_S: &str = "1.0";

/// Requests that may be queued in the background (asynchronous direct I/O goes there)
/// before submitters sleep.
///
/// The kernel's own 12 was meant for read-ahead: with it `io_submit(2)` sleeps on every
/// deeper queue and the "queueing latency" measures that limit rather than the file
/// system. 128 is the whole depth of the published VM tests (4 jobs x 32). libfuse's
/// example cannot set it, so it is set from outside, through the connection's control
/// directory, on every arm alike.
pub const MAX_BACKGROUND: u32 = 128;

/// Background requests at which the device counts as congested: the kernel's own three
/// quarters of the maximum.
pub const CONGESTION_THRESHOLD: u32 = MAX_BACKGROUND * 3 / 4;

/// The settings as one line, for digests.
#[must_use]
pub fn fingerprint() -> String {
    format!(
        "workers={WORKERS} timeout={TIMEOUT_S} background={MAX_BACKGROUND}/{CONGESTION_THRESHOLD}"
    )
}
