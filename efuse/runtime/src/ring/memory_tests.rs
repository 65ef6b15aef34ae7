//! Several workers on one channel, and a thread in the kernel's place, on ordinary memory.

use std::collections::HashMap;
use std::hint::spin_loop;
use std::sync::atomic::AtomicBool;
use std::thread;

use efuse_abi::ring::{SLOT_ASYNC, SLOT_FREE};

use super::*;
use crate::buffer::AlignedBuffer;

#[path = "memory_model.rs"]
mod model;

const LAYOUT: RingLayout = RingLayout::new(8, 16);

fn channel() -> (AlignedBuffer, Memory) {
    let mut buffer = AlignedBuffer::new(LAYOUT.bytes).expect("mmap");
    let base = NonNull::new(buffer.as_mut_ptr()).expect("mapped");
    // SAFETY: page aligned and as long as the layout; tests keep the buffer.
    let memory = unsafe { Memory::new(base, LAYOUT) };
    (buffer, memory)
}

impl Memory {
    /// What the kernel does to send a request: `unique` is also the first argument.
    fn send(&self, slot: u32, unique: u64, status: u32, out: u32) {
        let at = self.slot_at(slot);
        // SAFETY: inside the memory; the slot is free.
        let shared = unsafe { self.base.add(at).cast::<RingSlot>().as_mut() };
        shared.in_inline = 8;
        shared.args[..8].copy_from_slice(&unique.to_ne_bytes());
        shared.header.unique = unique;
        shared.out_page = slot * 2;
        shared.out_size = out;
        self.status(slot).store(status, Ordering::Relaxed);
        let tail = self.pending_tail().load(Ordering::Relaxed);
        self.word(self.layout.pending, tail)
            .store(slot, Ordering::Relaxed);
        self.pending_tail()
            .store(tail.wrapping_add(1), Ordering::Release);
    }

    /// The kernel's end of the complete ring.
    fn complete(&self, head: &mut u32) -> Option<u32> {
        let entry = self
            .word(self.layout.complete, *head)
            .swap(0, Ordering::AcqRel);
        (entry != 0).then(|| {
            *head = head.wrapping_add(1);
            entry - 1
        })
    }

    fn set_cursors(&self, to: u32) {
        self.pending_tail().store(to, Ordering::Relaxed);
        self.pending_head().store(to, Ordering::Relaxed);
        let tail = field!(self.base, 0, RingHeader, complete_tail, AtomicU32);
        tail.store(to, Ordering::Relaxed);
    }
}

/// 60 000 requests through 8 slots and 4 workers, with cursors that overflow on the way: each is
/// taken once and its reply is its own.
#[test]
fn no_request_is_lost_or_taken_twice() {
    const REQUESTS: u64 = 60_000;
    let (_buffer, memory) = channel();
    let start = u32::MAX - 1000;
    memory.set_cursors(start);
    let end = AtomicBool::new(false);
    let taken = thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut mine = Vec::new();
                    while !end.load(Ordering::Acquire) {
                        let Some(taken) = memory.take_request() else {
                            thread::yield_now();
                            continue;
                        };
                        // SAFETY: taken just now, answered below.
                        let (inline, external, data) = unsafe { memory.parts(&taken) };
                        assert!(external.is_empty());
                        data.copy_from_slice(inline);
                        mine.push(taken.header.unique);
                        // SAFETY: the parts are used no more.
                        let enter = unsafe { memory.answer(taken.slot, 0, inline, 8) };
                        assert!(enter);
                    }
                    mine
                })
            })
            .collect();
        let (mut next, mut ended, mut head) = (1, 0, start);
        let mut under_way = HashMap::new();
        let mut free: Vec<u32> = (0..LAYOUT.depth).collect();
        while ended < REQUESTS {
            while next <= REQUESTS
                && let Some(slot) = free.pop()
            {
                under_way.insert(slot, next);
                memory.send(slot, next, SLOT_ASYNC, 8);
                next += 1;
            }
            let Some(slot) = memory.complete(&mut head) else {
                thread::yield_now();
                continue;
            };
            let unique = under_way.remove(&slot).expect("a slot that was sent");
            assert_eq!(memory.status(slot).load(Ordering::Acquire), SLOT_DONE);
            let at = memory.slot_at(slot);
            // SAFETY: inside the memory; the reply is there, so it is ours.
            let shared = unsafe { memory.base.add(at).cast::<RingSlot>().read() };
            assert_eq!((shared.head_size, shared.data_size), (8, 8));
            assert_eq!(shared.head[..8], unique.to_ne_bytes());
            let page = LAYOUT.pool + slot as usize * 2 * RING_PAGE;
            // SAFETY: inside the pool, as above.
            let data = unsafe { memory.base.add(page).cast::<u64>().read() };
            assert_eq!(data, unique);
            memory.status(slot).store(SLOT_FREE, Ordering::Relaxed);
            free.push(slot);
            ended += 1;
        }
        end.store(true, Ordering::Release);
        workers
            .into_iter()
            .flat_map(|worker| worker.join().expect("a worker"))
            .collect::<Vec<_>>()
    });
    let mut taken = taken;
    taken.sort_unstable();
    assert!(taken.into_iter().eq(1..=REQUESTS));
}

/// A caller that gives up polling while the reply comes: exactly one side has to wake the other.
#[test]
fn a_caller_that_goes_to_sleep_is_woken_or_sees_the_reply() {
    use efuse_abi::ring::SLOT_SLEEPING;
    let (_buffer, memory) = channel();
    let (mut seen, mut woken) = (0, 0);
    thread::scope(|scope| {
        let (asked, ask) = std::sync::mpsc::channel();
        let (answered, answers) = std::sync::mpsc::channel();
        scope.spawn(move || {
            while ask.recv().is_ok() {
                let taken = loop {
                    if let Some(taken) = memory.take_request() {
                        break taken;
                    }
                    spin_loop();
                };
                // SAFETY: taken just now, and nothing of it is borrowed.
                let enter = unsafe { memory.answer(taken.slot, 0, &[], 0) };
                answered.send(enter).expect("the caller");
            }
        });
        let mut head = 0;
        for unique in 1..5000_u64 {
            asked.send(()).expect("the worker");
            memory.send(0, unique, SLOT_POLLED, 0);
            for _ in 0..unique % 97 {
                spin_loop();
            }
            let slept = memory
                .status(0)
                .compare_exchange(
                    SLOT_POLLED,
                    SLOT_SLEEPING,
                    Ordering::AcqRel,
                    Ordering::Acquire,
                )
                .is_ok();
            let enter = answers.recv().expect("the worker");
            assert_eq!(slept, enter);
            assert_eq!(memory.complete(&mut head), enter.then_some(0));
            if slept { woken += 1 } else { seen += 1 }
        }
        drop(asked);
    });
    assert_eq!(seen + woken, 4999);
}

#[test]
fn forgets_come_in_batches_and_in_order_across_the_end_of_the_ring() {
    let (_buffer, memory) = channel();
    let tail = field!(memory.base, 0, RingHeader, forget_tail, AtomicU32);
    let head = field!(memory.base, 0, RingHeader, forget_head, AtomicU32);
    let start = u32::MAX - 99;
    head.store(start, Ordering::Relaxed);
    for i in 0..RING_FORGETS as u32 {
        let index = start.wrapping_add(i) as usize & (RING_FORGETS - 1);
        let at = LAYOUT.forget + index * size_of::<ForgetOne>();
        field!(memory.base, at, ForgetOne, nodeid, AtomicU64).store(i.into(), Ordering::Relaxed);
    }
    tail.store(start.wrapping_add(RING_FORGETS as u32), Ordering::Release);
    assert!(memory.has_work() && !memory.has_pending());
    let mut all = Vec::new();
    let mut batches = 0;
    while memory.take_forgets(&mut all, 100).is_some() {
        batches += 1;
    }
    assert_eq!(batches, 3);
    assert!(all.iter().map(|one| one.nodeid).eq(0..RING_FORGETS as u64));
    assert!(!memory.has_work());
}

#[test]
fn an_interrupt_is_for_a_request_without_a_reply() {
    let (_buffer, memory) = channel();
    memory.send(3, 42, SLOT_ASYNC, 0);
    let at = LAYOUT.intr;
    field!(memory.base, at, RingInterrupt, unique, AtomicU64).store(42, Ordering::Relaxed);
    field!(memory.base, at, RingInterrupt, slot, AtomicU32).store(3, Ordering::Relaxed);
    field!(memory.base, 0, RingHeader, intr_tail, AtomicU32).store(1, Ordering::Release);
    assert_eq!(memory.take_interrupt(), Some((42, 3)));
    assert_eq!(memory.take_interrupt(), None);
    assert!(memory.unanswered(42, 3));
    assert!(!memory.unanswered(44, 3));
    let taken = memory.take_request().expect("the request");
    // SAFETY: taken just now, and nothing of it is borrowed.
    assert!(unsafe { memory.answer(taken.slot, -4, &[], 0) });
    assert!(!memory.unanswered(42, 3));
}
