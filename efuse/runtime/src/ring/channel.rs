//! One worker's end of a ring channel.

use std::fs::File;
use std::hint::spin_loop;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use efuse_abi::ring::{RING_ENTER, RING_HEAD, RING_WAIT, RING_WAIT_MS_SHIFT, RingEnter};
use efuse_abi::wire::{BatchForgetIn, ForgetOne, InHeader, InterruptIn};
use efuse_abi::{Errno, Opcode};
use zerocopy::IntoBytes;

use super::Mapping;
use super::memory::Taken;
use crate::cpu::stay_on;
use crate::transport::{Channel, Exchange, RawRequest, ReceiveError};

/// FORGETs in one request to the session.
const BATCH: u32 = 64;
/// One look in so many is first for what else would wait as long as there are requests: FORGETs, and
/// requests without a slot. A power of two.
const OTHERS: u32 = 8;

/// What the worker is at.
#[derive(Clone, Copy, Debug)]
enum Current {
    Nothing,
    Request(Taken),
    /// Made here: FORGETs, which have no reply.
    Forgets(InHeader),
    /// The same for an interrupt, of a request in that slot.
    Interrupt {
        header: InHeader,
        unique: u64,
        slot: u32,
    },
}

pub(super) struct RingChannel {
    mapping: Arc<Mapping>,
    /// A descriptor of its own, so that workers do not count references on one.
    file: File,
    index: u32,
    /// Where to stay, until the worker's thread has heard of it.
    cpu: Option<usize>,
    spin: Duration,
    /// Flags for waiting.
    wait: u32,
    current: Current,
    /// Arguments of what is made here, in words for their alignment.
    made: Vec<u64>,
    forgets: Vec<ForgetOne>,
    /// Interrupts whose request no worker had when they came.
    again: Vec<(u64, u32)>,
    /// Looks so far.
    looks: u32,
    /// There are replies to be entered.
    dirty: bool,
}

impl RingChannel {
    pub(super) fn new(
        mapping: Arc<Mapping>,
        file: File,
        index: u32,
        cpu: Option<usize>,
        spin: Duration,
        patience: Option<Duration>,
    ) -> RingChannel {
        let ms = patience.map_or(0, |time| time.as_millis().clamp(1, u16::MAX.into()) as u32);
        RingChannel {
            mapping,
            file,
            index,
            cpu,
            spin,
            wait: RING_WAIT | ms << RING_WAIT_MS_SHIFT,
            current: Current::Nothing,
            made: Vec::new(),
            forgets: Vec::with_capacity(BATCH as usize),
            again: Vec::new(),
            looks: 0,
            dirty: false,
        }
    }

    fn enter(&mut self, flags: u32) -> Result<(), ReceiveError> {
        let enter = RingEnter {
            channel: self.index,
            flags,
        };
        // SAFETY: the request reads one RingEnter behind the pointer.
        let result = unsafe { libc::ioctl(self.file.as_raw_fd(), RING_ENTER, &enter) };
        if result >= 0 {
            self.dirty = false;
            return Ok(());
        }
        match Errno::last() {
            // Replies are handed over before anything waits.
            Errno::EINTR => Ok(()),
            Errno::ETIMEDOUT => Err(ReceiveError::Idle),
            Errno::ENODEV | Errno::ECONNABORTED => Err(ReceiveError::Closed),
            errno => Err(ReceiveError::Io(errno.into())),
        }
    }

    /// Puts what is in the memory into `current`, if there is something.
    fn take(&mut self) -> bool {
        if self.others_first() && self.take_forgets() {
            return true;
        }
        // An interrupt whose request was not found takes turns with requests: it may be one that
        // nobody has taken yet.
        while let Some((unique, slot)) = self.again.pop() {
            if !self.mapping.memory.unanswered(unique, slot) {
                continue;
            }
            if let Some(taken) = self.mapping.memory.take_request() {
                self.again.push((unique, slot));
                self.current = Current::Request(taken);
            } else {
                std::thread::yield_now();
                self.interrupt(unique, slot);
            }
            return true;
        }
        if let Some((unique, slot)) = self.mapping.memory.take_interrupt() {
            self.interrupt(unique, slot);
        } else if let Some(taken) = self.mapping.memory.take_request() {
            self.current = Current::Request(taken);
        } else {
            return self.take_forgets();
        }
        true
    }

    const fn others_first(&self) -> bool {
        self.looks.is_multiple_of(OTHERS)
    }

    fn take_forgets(&mut self) -> bool {
        self.forgets.clear();
        let memory = &self.mapping.memory;
        if memory.take_forgets(&mut self.forgets, BATCH).is_none() {
            return false;
        }
        let batch = BatchForgetIn {
            count: self.forgets.len() as u32,
            dummy: 0,
        };
        let args = [batch.as_bytes(), self.forgets.as_bytes()];
        self.current = Current::Forgets(make(&mut self.made, Opcode::BatchForget, 0, &args));
        true
    }

    fn interrupt(&mut self, unique: u64, slot: u32) {
        let arg = InterruptIn { unique };
        // As the kernel numbers its interrupts: the request's id with the lowest bit.
        let header = make(
            &mut self.made,
            Opcode::Interrupt,
            unique | 1,
            &[arg.as_bytes()],
        );
        self.current = Current::Interrupt {
            header,
            unique,
            slot,
        };
    }

    /// Looks for work for a while.
    fn spin(&self) -> bool {
        let memory = &self.mapping.memory;
        if self.spin.is_zero() || !memory.start_spinning() {
            return false;
        }
        let start = Instant::now();
        let mut found = memory.has_work();
        while !found && start.elapsed() < self.spin {
            spin_loop();
            found = memory.has_work();
        }
        memory.stop_spinning();
        found
    }
}

/// Puts arguments into `words` and gives a header for them.
fn make(words: &mut Vec<u64>, opcode: Opcode, unique: u64, args: &[&[u8]]) -> InHeader {
    let len: usize = args.iter().map(|arg| arg.len()).sum();
    words.clear();
    words.resize(len.div_ceil(8), 0);
    let mut rest = words.as_mut_bytes();
    for arg in args {
        let (place, after) = rest.split_at_mut(arg.len());
        place.copy_from_slice(arg);
        rest = after;
    }
    InHeader {
        len: (size_of::<InHeader>() + len) as u32,
        opcode: opcode as u32,
        unique,
        ..InHeader::default()
    }
}

impl Channel for RingChannel {
    fn receive(&mut self) -> Result<(), ReceiveError> {
        if let Some(cpu) = self.cpu.take() {
            stay_on(cpu);
        }
        self.current = Current::Nothing;
        self.looks = self.looks.wrapping_add(1);
        if self.others_first() && self.mapping.memory.backlog() {
            self.enter(0)?;
        }
        loop {
            // What comes next may take long. If nothing does, the replies go when it waits.
            if self.dirty && (self.mapping.memory.has_work() || !self.spin.is_zero()) {
                self.enter(0)?;
            }
            if self.take() {
                // It came after that look.
                if self.dirty {
                    self.enter(0)?;
                }
                return Ok(());
            }
            if self.mapping.memory.backlog() {
                self.enter(0)?;
            } else if !self.spin() {
                self.enter(self.wait)?;
            }
        }
    }

    fn exchange(&mut self) -> Exchange<'_> {
        let made = self.made.as_bytes();
        match &self.current {
            Current::Request(taken) => {
                // SAFETY: taken from this channel and not answered, as that ends `Request`; the
                // borrow of `self` keeps it from being answered or handed out twice.
                let (inline, external, data) = unsafe { self.mapping.memory.parts(taken) };
                Exchange {
                    request: RawRequest::Parts {
                        header: &taken.header,
                        inline,
                        external,
                    },
                    data,
                }
            }
            Current::Forgets(header) | Current::Interrupt { header, .. } => Exchange {
                request: RawRequest::Parts {
                    header,
                    inline: &made[..header.len as usize - size_of::<InHeader>()],
                    external: &[],
                },
                data: &mut [],
            },
            Current::Nothing => Exchange {
                request: RawRequest::Whole(&[]),
                data: &mut [],
            },
        }
    }

    fn reply(
        &mut self,
        unique: u64,
        result: Result<(), Errno>,
        head: &[u8],
        data: usize,
    ) -> Result<(), Errno> {
        match self.current {
            Current::Request(taken) if taken.header.unique == unique => {
                let (error, head, data) = match result {
                    Ok(()) => (0, head, data),
                    Err(errno) => (errno.wire(), &[][..], 0),
                };
                if head.len() > RING_HEAD || data > taken.data.1 {
                    return Err(Errno::EINVAL);
                }
                self.current = Current::Nothing;
                // SAFETY: taken from this channel, not answered, and what `exchange` gave is not
                // borrowed any more.
                let enter = unsafe { self.mapping.memory.answer(taken.slot, error, head, data) };
                self.dirty |= enter;
                Ok(())
            }
            Current::Interrupt { unique, slot, .. } => {
                if result == Err(Errno::EAGAIN) {
                    self.again.push((unique, slot));
                }
                self.current = Current::Nothing;
                Ok(())
            }
            _ => Err(Errno::ENOENT),
        }
    }
}
