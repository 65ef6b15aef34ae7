//! What has come from a guest and waits to be received, and how the guest ended.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use efuse_model::protocol::FromAgent;

use crate::error::GuestError;

/// Messages that may wait. When so many do, nothing more is read, and the agent's writes wait.
const CAPACITY: usize = 16;

#[derive(Default)]
struct State {
    messages: VecDeque<FromAgent>,
    /// Counts before whatever still waits: what the guest said may be worth nothing.
    failure: Option<GuestError>,
    /// How it ended; counts when all that it said before has been received.
    end: Option<GuestError>,
    /// Nothing more will come from the agent.
    silent: bool,
    /// QEMU is gone.
    gone: bool,
    /// The guest was told to power off.
    dismissed: bool,
    /// Nobody will receive any more.
    abandoned: bool,
}

/// Shared by the receiver, the reader of the channel and the watcher of QEMU.
#[derive(Default)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    changed: Condvar,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No invariant spans two fields, so a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Waits until `ready` gives something or the deadline is over.
    fn wait<T>(
        &self,
        deadline: Option<Instant>,
        mut ready: impl FnMut(&mut State) -> Option<T>,
    ) -> Option<T> {
        let mut state = self.lock();
        loop {
            if let Some(result) = ready(&mut state) {
                return Some(result);
            }
            state = match deadline.map(|deadline| deadline.checked_duration_since(Instant::now())) {
                None => self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(Some(left)) if !left.is_zero() => {
                    self.changed
                        .wait_timeout(state, left)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
                Some(_) => return None,
            };
        }
    }

    /// Puts a message in, waiting for room. False if nobody will receive it.
    pub(crate) fn put(&self, message: FromAgent) -> bool {
        let room = self.wait(None, |state| {
            if state.abandoned || state.failure.is_some() {
                Some(false)
            } else {
                (state.messages.len() < CAPACITY).then_some(true)
            }
        });
        if room != Some(true) {
            return false;
        }
        // The reader is the only one who puts, so the room is still there.
        self.change(|state| state.messages.push_back(message));
        true
    }

    /// Takes the next message out.
    pub(crate) fn take(&self, timeout: Duration) -> Result<FromAgent, GuestError> {
        // A timeout too long for the clock is no timeout.
        let deadline = Instant::now().checked_add(timeout);
        let result = self.wait(deadline, |state| {
            if let Some(failure) = &state.failure {
                return Some(Err(failure.clone()));
            }
            if let Some(message) = state.messages.pop_front() {
                return Some(Ok(message));
            }
            let end = state.end.as_ref().filter(|_| state.silent)?;
            Some(Err(end.clone()))
        });
        self.changed.notify_all();
        result.unwrap_or(Err(GuestError::Timeout { waited: timeout }))
    }

    /// The guest failed in a way that devalues what it said before. The first failure stays.
    pub(crate) fn fail(&self, failure: GuestError) {
        self.change(|state| {
            state.failure.get_or_insert(failure);
        });
    }

    /// The guest ended. The first end stays.
    pub(crate) fn finish(&self, end: GuestError) {
        self.change(|state| {
            state.end.get_or_insert(end);
        });
    }

    /// Nothing more will be put in.
    pub(crate) fn silence(&self) {
        self.change(|state| state.silent = true);
    }

    /// QEMU is gone, and reaped.
    pub(crate) fn set_gone(&self) {
        self.change(|state| state.gone = true);
    }

    /// From here on an end is not unexpected.
    pub(crate) fn dismiss(&self) {
        self.change(|state| state.dismissed = true);
    }

    pub(crate) fn dismissed(&self) -> bool {
        self.lock().dismissed
    }

    /// Nobody will take anything out any more.
    pub(crate) fn abandon(&self) {
        self.change(|state| {
            state.abandoned = true;
            state.messages.clear();
        });
    }

    /// Waits until QEMU is gone; false if it is not in that time. What the agent still says is
    /// thrown away meanwhile, since it would not end while it waits to say it.
    pub(crate) fn wait_gone(&self, timeout: Duration) -> bool {
        let deadline = Instant::now().checked_add(timeout);
        self.wait(deadline, |state| state.gone.then_some(()))
            .is_some()
    }

    /// Why the guest is lost, if it is.
    pub(crate) fn lost(&self) -> Option<GuestError> {
        let state = self.lock();
        state.failure.clone().or_else(|| state.end.clone())
    }

    /// Why the guest is lost, waiting for the watcher to find out.
    pub(crate) fn wait_lost(&self, timeout: Duration) -> Option<GuestError> {
        let deadline = Instant::now().checked_add(timeout);
        self.wait(deadline, |state| {
            state.failure.clone().or_else(|| state.end.clone())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(text: &str) -> FromAgent {
        FromAgent::Log { text: text.into() }
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn failure_overtakes_messages_and_an_end_does_not() {
        let inbox = Inbox::default();
        assert!(inbox.put(log("1")));
        inbox.finish(GuestError::Cancelled);
        inbox.silence();
        assert!(matches!(inbox.take(LONG), Ok(FromAgent::Log { .. })));
        assert!(matches!(inbox.take(LONG), Err(GuestError::Cancelled)));

        let inbox = Inbox::default();
        assert!(inbox.put(log("1")));
        inbox.fail(GuestError::Panic { trace: "t".into() });
        inbox.fail(GuestError::Cancelled);
        for _ in 0..2 {
            assert!(matches!(inbox.take(LONG), Err(GuestError::Panic { .. })));
        }
        assert!(!inbox.put(log("2")));
    }

    #[test]
    fn an_end_waits_for_what_is_still_in_the_channel() {
        let inbox = Inbox::default();
        inbox.finish(GuestError::Cancelled);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert!(inbox.put(log("last words")));
                inbox.silence();
            });
            assert!(matches!(inbox.take(LONG), Ok(FromAgent::Log { .. })));
            assert!(matches!(inbox.take(LONG), Err(GuestError::Cancelled)));
        });
    }

    #[test]
    fn a_full_inbox_makes_the_reader_wait() {
        let inbox = Inbox::default();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| (0..100).all(|n| inbox.put(log(&n.to_string()))));
            for expected in 0..100 {
                match inbox.take(LONG) {
                    Ok(FromAgent::Log { text }) => assert_eq!(text, expected.to_string()),
                    other => panic!("{other:?}"),
                }
                assert!(inbox.lock().messages.len() <= CAPACITY);
            }
            assert!(reader.join().expect("no panic"));
            let reader = scope.spawn(|| (0..100).all(|n| inbox.put(log(&n.to_string()))));
            inbox.abandon();
            assert!(!reader.join().expect("no panic"));
        });
    }

    #[test]
    fn silence_times_out() {
        let inbox = Inbox::default();
        let waited = Duration::from_millis(5);
        assert!(matches!(
            inbox.take(waited),
            Err(GuestError::Timeout { .. })
        ));
    }
}
