//! The loop of one worker.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use efuse_abi::{DecodeError, Dialect, Errno, Op, Opcode};

use crate::crew::Crew;
use crate::dispatch::{Head, Outcome, dispatch};
use crate::fs::{Context, FileSystem};
use crate::slow::{Delays, Hindered};
use crate::transport::{Channel, Exchange, ReceiveError};

/// What every worker of a session is given.
pub(crate) struct Work<F> {
    pub(crate) fs: Arc<F>,
    pub(crate) crew: Arc<Crew>,
    pub(crate) dialect: Dialect,
    pub(crate) slow_percent: u16,
    pub(crate) delay: Duration,
    pub(crate) delay_seed: u64,
}

impl<F> Clone for Work<F> {
    fn clone(&self) -> Self {
        Work {
            fs: Arc::clone(&self.fs),
            crew: Arc::clone(&self.crew),
            ..*self
        }
    }
}

/// However the worker ends, the others hear of it.
struct Presence<'c> {
    crew: &'c Crew,
    worker: usize,
    /// It ends because there is nothing to do.
    spare: bool,
}

impl Drop for Presence<'_> {
    fn drop(&mut self) {
        self.crew.leave(self.worker, !self.spare);
    }
}

impl<F: FileSystem> Work<F> {
    /// Serves until the connection ends or, if the channel ever says so, there is nothing to do.
    pub(crate) fn run(&self, channel: &mut dyn Channel, worker: usize) -> Result<(), ReceiveError> {
        let mut presence = Presence {
            crew: &self.crew,
            worker,
            spare: false,
        };
        self.fs.worker_start();
        let mut hindered = Hindered {
            percent: self.slow_percent,
            delays: Delays::new(self.delay, self.delay_seed, worker),
        };
        let mut head = Head::EMPTY;
        loop {
            match channel.receive() {
                Ok(()) => {}
                Err(ReceiveError::Closed) => return Ok(()),
                Err(ReceiveError::Idle) if self.crew.spare(worker) => {
                    presence.spare = true;
                    return Ok(());
                }
                Err(ReceiveError::Idle) => continue,
                Err(error) => return Err(error),
            }
            self.crew.begin(worker);
            self.serve(channel, worker, &mut hindered, &mut head);
            self.crew.end(worker);
        }
    }

    /// Answers the request that was received.
    fn serve(
        &self,
        channel: &mut dyn Channel,
        worker: usize,
        hindered: &mut Hindered,
        head: &mut Head,
    ) {
        head.clear();
        let Exchange { request: raw, data } = channel.exchange();
        let unique = raw.unique();
        let outcome = match raw.decode(self.dialect) {
            Ok(request) => {
                if let Op::Interrupt(arg) = request.op {
                    interrupt(&self.crew, arg.unique)
                } else {
                    self.crew.handles(worker, unique);
                    let cx = Context::new(
                        request.header,
                        request.extensions,
                        self.crew.interrupted(worker),
                    );
                    let outcome = catch_unwind(AssertUnwindSafe(|| {
                        hindered.call(|| dispatch(&*self.fs, &cx, &request, data, head))
                    }));
                    self.crew.handles(worker, 0);
                    outcome.unwrap_or_else(|_| {
                        // The panic hook has printed message and place already.
                        let opcode = Opcode::from_raw(request.header.opcode);
                        eprintln!("the handler of {opcode:?} panicked; its caller gets EIO");
                        if opcode.is_some_and(Opcode::wants_reply) {
                            Outcome::Error(Errno::EIO)
                        } else {
                            Outcome::Silent
                        }
                    })
                }
            }
            Err(DecodeError::Opcode(_)) => Outcome::Error(Errno::ENOSYS),
            Err(error) => {
                eprintln!("malformed request {unique}: {error}; answered EIO");
                Outcome::Error(Errno::EIO)
            }
        };
        let sent = match outcome {
            Outcome::Silent => return,
            Outcome::Error(errno) => channel.reply(unique, Err(errno), &[], 0),
            Outcome::Reply(data) => channel.reply(unique, Ok(()), head.as_bytes(), data),
        };
        match sent {
            // ENOENT: the caller is gone. The next receive finds out about a closed connection.
            Ok(()) | Err(Errno::ENOENT | Errno::ENODEV | Errno::ECONNABORTED) => {}
            Err(errno) => {
                // The kernel refused the reply as malformed. Its caller must not wait for ever.
                eprintln!("the kernel refused the reply to request {unique}: {errno}");
                let _ = channel.reply(unique, Err(Errno::EIO), &[], 0);
            }
        }
    }
}

/// Marks the request as interrupted where a worker has it. If none has, it is answered already, or
/// read and not yet registered: EAGAIN makes the kernel send the interrupt again, and drop it if
/// the request is gone. The reply to an INTERRUPT carries its own unique id.
fn interrupt(crew: &Crew, unique: u64) -> Outcome {
    if crew.interrupt(unique) {
        Outcome::Silent
    } else {
        Outcome::Error(Errno::EAGAIN)
    }
}
