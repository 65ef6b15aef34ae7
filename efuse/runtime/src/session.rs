use std::io;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use efuse_abi::wire::{InitIn, InitOut};
use efuse_abi::{
    DecodeError, Dialect, Errno, InitFlags, KERNEL_MINOR_MIN, KERNEL_MINOR_VERSION, KERNEL_VERSION,
    Op, Opcode,
};
use thiserror::Error;
use zerocopy::IntoBytes;

use crate::crew::{Crew, oversee};
use crate::fs::FileSystem;
use crate::notify::{Connection, Negotiation, Notifier};
use crate::transport::{Channel, ReceiveError, Transport, TransportError};
use crate::worker::Work;

/// How a session runs.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Number of worker threads; at least what the transport needs are started.
    pub workers: usize,
    /// So many there may be in the end: where handlers block and the transport has
    /// [lanes](Transport::lanes), more are started. No more than [`Self::workers`] keeps the number as
    /// it is; `None` stands for twice as many as are started, and at least 64.
    pub max_workers: Option<usize>,
    /// A worker that was started later ends when it had nothing to do for so long.
    pub patience: Duration,
    /// Largest READ or WRITE in bytes, a multiple of the page size.
    pub max_write: u32,
    /// How many asynchronous requests may be under way.
    ///
    /// libfuse leaves the kernel's 12, which lets `io_submit(2)` block from the 13th direct request
    /// on, whatever the queue depth. The deepest workload has 8 jobs of depth 256; all of it fits.
    pub max_background: u16,
    /// From how many asynchronous requests on the kernel stops reading ahead; the kernel's own
    /// choice is three quarters of `max_background`.
    pub congestion_threshold: u16,
    /// What to ask for, as far as the kernel offers it. The file system may change it.
    pub flags: InitFlags,
    /// A debug knob: how much longer each handler takes than it needs, in percent. Tests of
    /// measurements use it to make a daemon slower by a known amount.
    pub slow_percent: u16,
    /// A debug knob: requests wait for random times of up to this before their handler and again
    /// before the reply. Tests of races use it.
    pub delay: Duration,
    /// What the random times follow from.
    pub delay_seed: u64,
}

impl Default for SessionConfig {
    fn default() -> SessionConfig {
        SessionConfig {
            workers: std::thread::available_parallelism().map_or(2, usize::from),
            max_workers: None,
            patience: Duration::from_secs(5),
            max_write: 1 << 20,
            max_background: 4096,
            congestion_threshold: 3072,
            flags: InitFlags::ASYNC_READ
                | InitFlags::BIG_WRITES
                | InitFlags::MAX_PAGES
                | InitFlags::ASYNC_DIO
                | InitFlags::PARALLEL_DIROPS
                | InitFlags::AUTO_INVAL_DATA
                | InitFlags::HAS_IOCTL_DIR
                | InitFlags::INIT_EXT,
            slow_percent: 0,
            delay: Duration::ZERO,
            delay_seed: 0,
        }
    }
}

/// A session did not start or broke.
#[derive(Debug, Error)]
pub enum SessionError {
    /// A channel could not be opened.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// Receiving failed.
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    /// The kernel's first message makes no sense.
    #[error("the kernel's INIT cannot be decoded")]
    Decode(#[from] DecodeError),
    /// Another request came before INIT.
    #[error("the kernel sent {0} before INIT")]
    NotInit(String),
    /// The kernel is too old or too new.
    #[error(
        "the kernel speaks FUSE {major}.{minor}; this daemon needs \
         {KERNEL_VERSION}.{KERNEL_MINOR_MIN} or newer (Linux 5.4)"
    )]
    Version {
        /// The kernel's major version.
        major: u32,
        /// The kernel's minor version.
        minor: u32,
    },
    /// The transport needs what this kernel does not offer.
    #[error(
        "this kernel does not offer {0:?} (OVER_IO_URING: Linux 6.14 or newer with \
         CONFIG_FUSE_IO_URING, and Y in /sys/module/fuse/parameters/enable_uring)"
    )]
    Missing(InitFlags),
    /// INIT could not be answered, or the file system refused to start.
    #[error("INIT failed")]
    Init(#[source] Errno),
    /// A thread could not be started.
    #[error("cannot start worker {worker}")]
    Thread {
        /// Index of the worker.
        worker: usize,
        /// The error.
        #[source]
        source: io::Error,
    },
    /// A worker died of something that is not a handler's panic.
    #[error("worker {0} panicked outside a handler")]
    Panic(usize),
}

/// A running file system.
#[derive(Debug)]
pub struct Session {
    threads: Vec<JoinHandle<Result<(), ReceiveError>>>,
}

impl Session {
    /// Answers INIT on the calling thread, then starts the workers. When it returns, the mount
    /// serves. Threads inherit the caller's signal mask.
    pub fn start<F: FileSystem>(
        transport: &Arc<dyn Transport>,
        fs: &Arc<F>,
        config: &SessionConfig,
    ) -> Result<Session, SessionError> {
        let connection = Connection {
            notifier: Notifier::new(Arc::clone(transport)),
            backing: transport.backing(),
        };
        let max_write = config.max_write as usize;
        let mut channel = transport.channel(0, max_write)?;
        let flags = negotiate(&mut *channel, &**fs, &connection, config, transport.needs())?;
        let workers = config.workers.max(transport.workers_at_least()) + transport.extra_workers();
        let most = config.max_workers.unwrap_or((2 * workers).max(64));
        let lanes = if most > workers { transport.lanes() } else { 0 };
        let most = if lanes == 0 { workers } else { most };
        let crew = Arc::new(Crew::new(workers, most, lanes));
        let work = Work {
            fs: Arc::clone(fs),
            crew: Arc::clone(&crew),
            dialect: Dialect::new(flags),
            slow_percent: config.slow_percent,
            delay: config.delay,
            delay_seed: config.delay_seed,
        };

        let mut session = Session {
            threads: Vec::new(),
        };
        let mut first = Some(channel);
        let (opened, results) = mpsc::channel();
        for worker in 0..workers {
            let first = first.take();
            let work = work.clone();
            let (transport, opened) = (Arc::clone(transport), opened.clone());
            let thread = spawn(worker, move || {
                // On the thread that will use it: io_uring completes what a thread submitted
                // on that thread, and its buffers are best near its processor.
                let channel = match first {
                    Some(channel) => Ok(channel),
                    None => transport.channel(worker, max_write),
                };
                let mut channel = match channel {
                    Ok(channel) => channel,
                    Err(error) => {
                        // The session does not start, and says why.
                        let _ = opened.send(Err(error));
                        return Ok(());
                    }
                };
                // Nobody listens after the first error.
                let _ = opened.send(Ok(()));
                drop((opened, transport));
                work.run(&mut *channel, worker)
            })?;
            session.threads.push(thread);
        }
        drop(opened);
        results.into_iter().collect::<Result<(), _>>()?;
        if lanes > 0 {
            let (transport, patience) = (Arc::clone(transport), config.patience);
            let foreman = std::thread::Builder::new()
                .name("efuse-foreman".to_owned())
                .spawn(move || {
                    oversee(&crew, &*transport, |lane, worker| {
                        let mut channel = transport.extra_channel(lane, worker, patience)?;
                        let work = work.clone();
                        spawn(worker, move || work.run(&mut *channel, worker))
                    })
                })
                .map_err(|source| SessionError::Thread {
                    worker: workers,
                    source,
                })?;
            session.threads.push(foreman);
        }
        Ok(session)
    }

    /// Whether all workers have ended.
    pub fn finished(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Waits until the file system is unmounted or aborted.
    pub fn wait(self) -> Result<(), SessionError> {
        let mut result = Ok(());
        for (worker, thread) in self.threads.into_iter().enumerate() {
            match thread.join() {
                Ok(Ok(()) | Err(ReceiveError::Closed)) => {}
                Ok(Err(error)) => result = Err(error.into()),
                Err(_) => result = Err(SessionError::Panic(worker)),
            }
        }
        result
    }
}

fn spawn(
    worker: usize,
    work: impl FnOnce() -> Result<(), ReceiveError> + Send + 'static,
) -> Result<JoinHandle<Result<(), ReceiveError>>, SessionError> {
    std::thread::Builder::new()
        .name(format!("efuse-{worker}"))
        .spawn(work)
        .map_err(|source| SessionError::Thread { worker, source })
}

fn negotiate<F: FileSystem>(
    channel: &mut dyn Channel,
    fs: &F,
    connection: &Connection,
    config: &SessionConfig,
    needs: InitFlags,
) -> Result<InitFlags, SessionError> {
    loop {
        channel.receive()?;
        let request = channel.exchange().request.decode(Dialect::default())?;
        let unique = request.header.unique;
        let Op::Init(init) = request.op else {
            let opcode = Opcode::from_raw(request.header.opcode);
            return Err(SessionError::NotInit(format!("{opcode:?}")));
        };
        if init.major > KERNEL_VERSION {
            // The kernel asks again in our major version.
            let out = InitOut {
                major: KERNEL_VERSION,
                ..InitOut::default()
            };
            channel
                .reply(unique, Ok(()), out.as_bytes(), 0)
                .map_err(SessionError::Init)?;
            continue;
        }
        if init.major < KERNEL_VERSION || init.minor < KERNEL_MINOR_MIN {
            // The error below is what counts; the kernel learns that there is no session.
            let _ = channel.reply(unique, Err(Errno::EIO), &[], 0);
            return Err(SessionError::Version {
                major: init.major,
                minor: init.minor,
            });
        }
        let mut negotiation = propose(&init, config);
        negotiation.wanted |= needs;
        let missing = needs - negotiation.offered;
        if !missing.is_empty() {
            // As above.
            let _ = channel.reply(unique, Err(Errno::EIO), &[], 0);
            return Err(SessionError::Missing(missing));
        }
        if let Err(errno) = fs.init(&mut negotiation, connection) {
            // As above.
            let _ = channel.reply(unique, Err(errno), &[], 0);
            return Err(SessionError::Init(errno));
        }
        let (flags, out) = answer(&negotiation, config);
        channel
            .reply(unique, Ok(()), out.as_bytes(), 0)
            .map_err(SessionError::Init)?;
        return Ok(flags);
    }
}

fn propose(init: &InitIn, config: &SessionConfig) -> Negotiation {
    let mut offered = u64::from(init.flags);
    if offered & InitFlags::INIT_EXT.bits() != 0 {
        offered |= u64::from(init.flags2) << 32;
    }
    Negotiation {
        minor: init.minor.min(KERNEL_MINOR_VERSION),
        offered: InitFlags::from_bits_retain(offered),
        wanted: config.flags,
        max_write: config.max_write,
        max_readahead: init.max_readahead,
        max_background: config.max_background,
        congestion_threshold: config.congestion_threshold,
        time_gran: 1,
        max_stack_depth: 0,
    }
}

fn answer(negotiation: &Negotiation, config: &SessionConfig) -> (InitFlags, InitOut) {
    const PAGE: u32 = 4096;
    let mut flags = negotiation.wanted & negotiation.offered;
    if !flags.contains(InitFlags::INIT_EXT) {
        flags &= InitFlags::from_bits_retain(u64::from(u32::MAX));
    }
    let passthrough = flags.contains(InitFlags::PASSTHROUGH);
    // The channels' buffers are sized by the configuration: a file system may only ask for less.
    let max_write = negotiation.max_write.min(config.max_write);
    let out = InitOut {
        major: KERNEL_VERSION,
        minor: negotiation.minor,
        max_readahead: negotiation.max_readahead,
        flags: flags.bits() as u32,
        max_background: negotiation.max_background,
        congestion_threshold: negotiation.congestion_threshold,
        max_write,
        time_gran: negotiation.time_gran,
        max_pages: u16::try_from(max_write.div_ceil(PAGE)).unwrap_or(u16::MAX),
        map_alignment: 0,
        flags2: (flags.bits() >> 32) as u32,
        max_stack_depth: if passthrough {
            negotiation.max_stack_depth
        } else {
            0
        },
        unused: [0; 6],
    };
    (flags, out)
}
