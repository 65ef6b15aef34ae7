//! Ctrl-C, SIGTERM and SIGHUP.
//!
//! The first signal asks: whoever waits looks at [`Interrupt::signal`] a few times a
//! second, lets go of its session (which kills the guest or unmounts) and returns. While
//! nothing can look ([`Interrupt::exit_directly`]), and on a second signal, the process
//! ends at once; a guest then dies with its parent (`PR_SET_PDEATHSIG`), and what a host
//! session had mounted is cleaned up by the next run, `resume` or `clean`.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Whether the user wants out.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The first signal, 0 before it.
    signal: AtomicI32,
    /// Nobody is looking: end the process on the first signal.
    direct: AtomicBool,
}

/// The exit status that says "ended by this signal", as shells do.
#[must_use]
pub fn exit_status(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(255)
}

/// `SIGINT`, `SIGTERM`, ...
#[must_use]
pub fn signal_name(signal: i32) -> &'static str {
    match signal {
        SIGINT => "Ctrl-C",
        SIGTERM => "SIGTERM",
        SIGHUP => "SIGHUP",
        _ => "a signal",
    }
}

impl Interrupt {
    /// Starts to listen.
    ///
    /// # Errors
    /// If the handlers cannot be installed.
    pub fn listen() -> io::Result<Self> {
        let this = Self::default();
        let state = Arc::clone(&this.state);
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                for signal in signals.forever() {
                    let first = state
                        .signal
                        .compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst)
                        .is_ok();
                    if !first || state.direct.load(Ordering::SeqCst) {
                        eprintln!("\neval: ended by {}", signal_name(signal));
                        std::process::exit(exit_status(signal).into());
                    }
                }
            })?;
        Ok(this)
    }

    /// The signal that came, if one came.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        match self.state.signal.load(Ordering::SeqCst) {
            0 => None,
            signal => Some(signal),
        }
    }

    /// Does as if this signal had come.
    pub fn raise(&self, signal: i32) {
        self.state.signal.store(signal, Ordering::SeqCst);
    }

    /// Runs something that cannot look at [`Self::signal`] and leaves nothing behind
    /// when the process ends in the middle of it.
    ///
    /// # Errors
    /// The signal, where one came just before.
    pub fn exit_directly<T>(&self, work: impl FnOnce() -> T) -> Result<T, i32> {
        self.state.direct.store(true, Ordering::SeqCst);
        // A signal between the last look and the line above was only noted.
        let out = match self.signal() {
            Some(signal) => Err(signal),
            None => Ok(work()),
        };
        self.state.direct.store(false, Ordering::SeqCst);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_that_came_before_keeps_the_work_from_starting() {
        let interrupt = Interrupt::default();
        assert_eq!(interrupt.exit_directly(|| 1), Ok(1));
        interrupt.raise(SIGTERM);
        assert_eq!(interrupt.exit_directly(|| 1), Err(SIGTERM));
        assert_eq!(exit_status(SIGTERM), 143);
    }
}
