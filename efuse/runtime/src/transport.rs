use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use efuse_abi::wire::InHeader;
use efuse_abi::{DecodeError, Dialect, Errno, InitFlags, NotifyCode, Request};
use thiserror::Error;

/// A way between kernel and daemon: a character device, shared rings, io_uring.
pub trait Transport: Send + Sync {
    /// Opens the channel of one worker. Worker 0's channel is opened first and carries INIT.
    /// `max_write` is the largest payload in bytes that requests and replies carry.
    fn channel(&self, worker: usize, max_write: usize) -> Result<Box<dyn Channel>, TransportError>;

    /// How many workers it takes for every request to be received.
    fn workers_at_least(&self) -> usize {
        1
    }

    /// Among how many groups of workers requests are shared out, once INIT is answered: worker `n`
    /// belongs to lane `n` modulo their number. 0 where workers cannot be added.
    fn lanes(&self) -> usize {
        0
    }

    /// Whether something waits for a worker of this lane.
    fn untaken(&self, _lane: usize) -> bool {
        false
    }

    /// Opens a channel for one more worker of a lane, which reports [`ReceiveError::Idle`] when nothing
    /// came for the time of `patience`.
    fn extra_channel(
        &self,
        _lane: usize,
        worker: usize,
        _patience: Duration,
    ) -> Result<Box<dyn Channel>, TransportError> {
        Err(TransportError {
            worker,
            what: "add one to those of the start".to_owned(),
            source: io::ErrorKind::Unsupported.into(),
        })
    }

    /// Sends an unsolicited message: `parts` are sent back to back behind the header.
    fn notify(&self, code: NotifyCode, parts: &[&[u8]]) -> Result<(), Errno>;

    /// The registry of backing files, where the transport has one.
    fn backing(&self) -> Option<Arc<dyn BackingFiles>> {
        None
    }

    /// What the kernel must offer at INIT for this transport.
    fn needs(&self) -> InitFlags {
        InitFlags::empty()
    }

    /// Workers beside those of the session's configuration, which have little to do.
    fn extra_workers(&self) -> usize {
        0
    }
}

/// One worker's end of a transport. One request at a time: `receive`, `exchange`, `reply`.
pub trait Channel: Send {
    /// Waits for the next request and keeps it.
    fn receive(&mut self) -> Result<(), ReceiveError>;

    /// The request received last, with the buffer that its reply's data go to. The buffer is page
    /// aligned and has room for all that the caller takes; a ring hands out the memory that it
    /// shares with the kernel, so that data written there are not copied again.
    fn exchange(&mut self) -> Exchange<'_>;

    /// Answers the request: with an error, or with `head` followed by the first `data` bytes of
    /// the exchange's buffer. ENOENT means that the request was aborted meanwhile and nobody waits.
    fn reply(
        &mut self,
        unique: u64,
        result: Result<(), Errno>,
        head: &[u8],
        data: usize,
    ) -> Result<(), Errno>;
}

/// A request and the place for the data of its reply.
pub struct Exchange<'c> {
    /// The request, not decoded yet.
    pub request: RawRequest<'c>,
    /// Where READ, READDIR and the like put what they answer.
    pub data: &'c mut [u8],
}

/// A request as it lies in memory.
#[derive(Clone, Copy, Debug)]
pub enum RawRequest<'c> {
    /// Header, arguments and payload in one piece.
    Whole(&'c [u8]),
    /// Fixed arguments apart from the payload.
    Parts {
        /// The header, already copied out of memory that the kernel may write.
        header: &'c InHeader,
        /// Fixed arguments and what follows them inline.
        inline: &'c [u8],
        /// The payload, if it lies elsewhere.
        external: &'c [u8],
    },
}

impl<'c> RawRequest<'c> {
    /// Decodes it; see [`Request::parse`] and [`Request::from_parts`].
    pub fn decode(&self, dialect: Dialect) -> Result<Request<'c>, DecodeError> {
        match *self {
            RawRequest::Whole(bytes) => Request::parse(bytes, dialect),
            RawRequest::Parts {
                header,
                inline,
                external,
            } => Request::from_parts(header, inline, external, dialect),
        }
    }

    /// Unique id of a request, even of one that does not decode. 0 if there is no header.
    pub fn unique(&self) -> u64 {
        match self {
            RawRequest::Whole(bytes) => {
                let at = std::mem::offset_of!(InHeader, unique);
                bytes
                    .get(at..at + 8)
                    .and_then(|bytes| bytes.try_into().ok())
                    .map_or(0, u64::from_ne_bytes)
            }
            RawRequest::Parts { header, .. } => header.unique,
        }
    }
}

/// Registers lower files that the kernel reads and writes itself.
pub trait BackingFiles: Send + Sync {
    /// Registers an open file; the kernel keeps its own reference. Returns the backing id.
    fn open(&self, file: BorrowedFd<'_>) -> Result<i32, Errno>;

    /// Gives a backing id back; opens that use it keep working.
    fn close(&self, id: i32) -> Result<(), Errno>;
}

/// Why `receive` returned without a request.
#[derive(Debug, Error)]
pub enum ReceiveError {
    /// Unmounted or aborted: the worker ends.
    #[error("the connection is closed")]
    Closed,
    /// Nothing came for a while, and nothing waits for this worker: it may end.
    #[error("nothing to do")]
    Idle,
    /// Anything else is fatal for the worker.
    #[error("cannot receive requests")]
    Io(#[source] io::Error),
}

/// A channel could not be opened.
#[derive(Debug, Error)]
#[error("cannot open a channel for worker {worker}: {what}")]
pub struct TransportError {
    /// Index of the worker.
    pub worker: usize,
    /// What was tried.
    pub what: String,
    /// The error.
    #[source]
    pub source: io::Error,
}
