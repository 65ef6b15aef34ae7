//! The memory of one channel, and the cursors in it.
//!
//! Workers of a channel share it with each other and with the kernel. Rings that the kernel fills
//! are emptied by whoever moves the head; replies go into the complete ring at places that were
//! reserved by moving its tail. `kernel/efuse/ring.c` says how both sides order their accesses.

use std::ptr::NonNull;
#[cfg(not(test))]
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering, fence};

use efuse_abi::ring::{
    RING_FORGETS, RING_PAGE, RingHeader, RingInterrupt, RingLayout, RingSlot, SLOT_DONE,
    SLOT_POLLED,
};
use efuse_abi::wire::{ForgetOne, InHeader};

#[cfg(test)]
use super::words::{AtomicI32, AtomicU32, AtomicU64, Ordering, fence};

/// What a word of the shared memory is found by.
macro_rules! field {
    ($base:expr, $at:expr, $type:ty, $field:ident, $atomic:ty) => {{
        let place = $at + std::mem::offset_of!($type, $field);
        // SAFETY: the place is inside the memory (callers give offsets of the layout), aligned
        // as the structures are, and all words of it that others write are accessed atomically.
        unsafe { $base.add(place).cast::<$atomic>().as_ref() }
    }};
}

/// The kernel's time for measurements, in nanoseconds.
fn now() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the time is ours to write; this clock is always there.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// A request that was taken from a channel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    pub(super) slot: u32,
    pub(super) header: InHeader,
    /// Sizes and places, in bytes; inside the channel's memory.
    pub(super) inline: usize,
    pub(super) external: (usize, usize),
    pub(super) data: (usize, usize),
}

/// One channel's memory. Does not own it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    base: NonNull<u8>,
    layout: RingLayout,
}

// SAFETY: all words that several threads use are accessed atomically; the rest of a slot and its
// pages belong to the thread that took it from the pending ring until it gives the reply.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// # Safety
    /// `base` is aligned to a page and valid for `layout.bytes` as long as this is used.
    pub(super) unsafe fn new(base: NonNull<u8>, layout: RingLayout) -> Memory {
        Memory { base, layout }
    }

    fn pending_tail(&self) -> &AtomicU32 {
        field!(self.base, 0, RingHeader, pending_tail, AtomicU32)
    }

    fn pending_head(&self) -> &AtomicU32 {
        field!(self.base, 0, RingHeader, pending_head, AtomicU32)
    }

    fn spinners(&self) -> &AtomicU32 {
        field!(self.base, 0, RingHeader, spinners, AtomicU32)
    }

    fn word(&self, ring: usize, cursor: u32) -> &AtomicU32 {
        let index = (cursor & (self.layout.depth - 1)) as usize;
        // SAFETY: both rings of words have `depth` of them, from an aligned offset on.
        unsafe { self.base.add(ring).cast::<AtomicU32>().add(index).as_ref() }
    }

    fn slot_at(&self, slot: u32) -> usize {
        assert!(slot < self.layout.depth, "slot {slot} of no channel");
        self.layout.slots + slot as usize * size_of::<RingSlot>()
    }

    fn status(&self, slot: u32) -> &AtomicU32 {
        field!(self.base, self.slot_at(slot), RingSlot, status, AtomicU32)
    }

    /// Whether there is anything for a worker in the memory or waiting in the kernel.
    pub(super) fn has_work(&self) -> bool {
        self.has_pending() || self.backlog() || {
            let word = |tail: &AtomicU32, head: &AtomicU32| {
                tail.load(Ordering::Acquire) != head.load(Ordering::Acquire)
            };
            let base = self.base;
            word(
                field!(base, 0, RingHeader, intr_tail, AtomicU32),
                field!(base, 0, RingHeader, intr_head, AtomicU32),
            ) || word(
                field!(base, 0, RingHeader, forget_tail, AtomicU32),
                field!(base, 0, RingHeader, forget_head, AtomicU32),
            )
        }
    }

    pub(super) fn has_pending(&self) -> bool {
        self.pending_tail().load(Ordering::Acquire) != self.pending_head().load(Ordering::Acquire)
    }

    /// Whether something waits to be entered for.
    pub(super) fn backlog(&self) -> bool {
        field!(self.base, 0, RingHeader, backlog, AtomicU32).load(Ordering::Acquire) != 0
    }

    /// Makes this thread the one that spins, unless there is one.
    pub(super) fn start_spinning(&self) -> bool {
        self.spinners()
            .compare_exchange(0, 1, Ordering::SeqCst, Ordering::Relaxed)
            .is_ok()
    }

    /// From here on others are woken for what comes.
    pub(super) fn stop_spinning(&self) {
        self.spinners().store(0, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Takes up to `max` entries of a ring that the kernel fills: what `read` made of the cursors
    /// from the first on. Entries may be read and then turn out to be another worker's.
    fn take<T>(
        tail: &AtomicU32,
        head: &AtomicU32,
        max: u32,
        mut read: impl FnMut(u32, u32) -> T,
    ) -> Option<T> {
        loop {
            let first = head.load(Ordering::Acquire);
            let there = tail.load(Ordering::Acquire).wrapping_sub(first);
            if there == 0 {
                return None;
            }
            let n = there.min(max);
            let value = read(first, n);
            let next = first.wrapping_add(n);
            // Release: the kernel may use the entries again once it sees the new head.
            if head
                .compare_exchange(first, next, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
            {
                return Some(value);
            }
        }
    }

    /// The next request.
    pub(super) fn take_request(&self) -> Option<Taken> {
        let slot = Memory::take(self.pending_tail(), self.pending_head(), 1, |cursor, _| {
            self.word(self.layout.pending, cursor)
                .load(Ordering::Relaxed)
        })?;
        let at = self.slot_at(slot);
        // SAFETY: inside the memory and aligned; the kernel wrote all of it before it put the slot
        // into the ring, and leaves it alone until the reply.
        let read = unsafe { self.base.add(at).cast::<RingSlot>().read() };
        if read.timed != 0 {
            field!(self.base, at, RingSlot, taken, AtomicU64).store(now(), Ordering::Relaxed);
        }
        let pages = |page: u32, size: u32| {
            let from = page as usize * RING_PAGE;
            let end = from + size as usize;
            assert!(end <= self.layout.pages as usize * RING_PAGE);
            (self.layout.pool + from, size as usize)
        };
        assert!(read.in_inline as usize <= read.args.len());
        Some(Taken {
            slot,
            header: read.header,
            inline: read.in_inline as usize,
            external: pages(read.in_page, read.in_size),
            data: pages(read.out_page, read.out_size),
        })
    }

    /// Arguments in the slot, those in pages, and the place for data.
    ///
    /// # Safety
    /// `taken` came from [`Memory::take_request`] of this channel and was not answered, and no
    /// other call of this for it is in use.
    pub(super) unsafe fn parts<'m>(&self, taken: &Taken) -> (&'m [u8], &'m [u8], &'m mut [u8]) {
        let args = self.slot_at(taken.slot) + std::mem::offset_of!(RingSlot, args);
        // SAFETY: inside the memory as `take_request` checked; the three do not overlap, and the
        // kernel gives them to nobody else until the reply.
        unsafe {
            (
                std::slice::from_raw_parts(self.base.add(args).as_ptr(), taken.inline),
                std::slice::from_raw_parts(
                    self.base.add(taken.external.0).as_ptr(),
                    taken.external.1,
                ),
                std::slice::from_raw_parts_mut(self.base.add(taken.data.0).as_ptr(), taken.data.1),
            )
        }
    }

    /// Answers a request: `error` is 0 or negative, `data` bytes are in the pages. True if the
    /// kernel has to be entered for it.
    ///
    /// # Safety
    /// As for [`Memory::parts`], and nothing of that is in use any more.
    pub(super) unsafe fn answer(&self, slot: u32, error: i32, head: &[u8], data: usize) -> bool {
        let at = self.slot_at(slot);
        let place = at + std::mem::offset_of!(RingSlot, head);
        assert!(head.len() <= efuse_abi::ring::RING_HEAD);
        // SAFETY: inside the slot, which is this thread's.
        unsafe {
            self.base
                .add(place)
                .copy_from_nonoverlapping(NonNull::from(head).cast(), head.len());
        }
        let base = self.base;
        field!(base, at, RingSlot, error, AtomicI32).store(error, Ordering::Relaxed);
        field!(base, at, RingSlot, head_size, AtomicU32)
            .store(head.len() as u32, Ordering::Relaxed);
        field!(base, at, RingSlot, data_size, AtomicU32).store(data as u32, Ordering::Relaxed);
        // Release: the reply is there before the status says so.
        if self.status(slot).swap(SLOT_DONE, Ordering::AcqRel) == SLOT_POLLED {
            return false;
        }
        let tail = field!(base, 0, RingHeader, complete_tail, AtomicU32);
        let cursor = tail.fetch_add(1, Ordering::Relaxed);
        self.word(self.layout.complete, cursor)
            .store(slot + 1, Ordering::Release);
        true
    }

    /// The next request that is not wanted any more: its unique id and its slot.
    pub(super) fn take_interrupt(&self) -> Option<(u64, u32)> {
        let base = self.base;
        let tail = field!(base, 0, RingHeader, intr_tail, AtomicU32);
        let head = field!(base, 0, RingHeader, intr_head, AtomicU32);
        Memory::take(tail, head, 1, |cursor, _| {
            let index = (cursor & (self.layout.depth - 1)) as usize;
            let at = self.layout.intr + index * size_of::<RingInterrupt>();
            let unique = field!(base, at, RingInterrupt, unique, AtomicU64);
            let slot = field!(base, at, RingInterrupt, slot, AtomicU32);
            (
                unique.load(Ordering::Relaxed),
                slot.load(Ordering::Relaxed) & (self.layout.depth - 1),
            )
        })
    }

    /// Whether the slot still has that request, without a reply.
    pub(super) fn unanswered(&self, unique: u64, slot: u32) -> bool {
        let at = self.slot_at(slot) + std::mem::offset_of!(RingSlot, header);
        let there = field!(self.base, at, InHeader, unique, AtomicU64);
        self.status(slot).load(Ordering::Acquire) != SLOT_DONE
            && there.load(Ordering::Relaxed) == unique
    }

    /// Up to `max` FORGETs behind what is in `into` already.
    pub(super) fn take_forgets(&self, into: &mut Vec<ForgetOne>, max: u32) -> Option<()> {
        let base = self.base;
        let keep = into.len();
        let tail = field!(base, 0, RingHeader, forget_tail, AtomicU32);
        let head = field!(base, 0, RingHeader, forget_head, AtomicU32);
        Memory::take(tail, head, max, |cursor, n| {
            into.truncate(keep);
            for i in 0..n {
                let index = cursor.wrapping_add(i) as usize & (RING_FORGETS - 1);
                let at = self.layout.forget + index * size_of::<ForgetOne>();
                let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
                into.push(ForgetOne {
                    nodeid: load(field!(base, at, ForgetOne, nodeid, AtomicU64)),
                    nlookup: load(field!(base, at, ForgetOne, nlookup, AtomicU64)),
                });
            }
        })
    }
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
