//! System calls that may hang on a file system whose daemon does not answer.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Runs `call` on a thread of its own and waits at most `limit` for its value.
///
/// A call that is stuck in the kernel keeps its thread until somebody aborts the
/// connection it waits for; the caller goes on.
pub(crate) fn bounded<T: Send + 'static>(
    limit: Duration,
    call: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (send, receive) = mpsc::sync_channel(1);
    thread::Builder::new()
        .name("bounded-call".into())
        .spawn(move || {
            // The receiver may have given up.
            let _ = send.send(call());
        })
        .ok()?;
    receive.recv_timeout(limit).ok()
}

/// Asks `ready` until it has an answer, for at most `limit`; the pause between two
/// questions grows from 1 ms to 20 ms.
pub(crate) fn poll<T>(limit: Duration, mut ready: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(value) = ready() {
            return Some(value);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}
