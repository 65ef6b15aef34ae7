//! A channel's cursors and slots: what a request costs the daemon in shared memory, without the
//! kernel's copying and without system calls. The bench puts requests in as the kernel does.

// criterion's macro makes a function without.
#![allow(missing_docs)]

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use efuse_abi::ring::{
    RING_FORGETS, RingHeader, RingLayout, RingSlot, SLOT_ASYNC, SLOT_DONE, SLOT_POLLED,
};
use efuse_runtime::BenchChannel;

const LAYOUT: RingLayout = RingLayout::new(64, 128);

/// With the kernel's side.
struct Channel(BenchChannel);

impl Channel {
    fn new() -> Channel {
        Channel(BenchChannel::new(LAYOUT).expect("mmap"))
    }

    fn word(&self, at: usize) -> &AtomicU32 {
        assert!(at + 4 <= LAYOUT.bytes && at.is_multiple_of(4));
        // SAFETY: inside the memory and aligned, as checked; all sides use it atomically.
        unsafe { &*self.0.base().add(at).cast::<AtomicU32>() }
    }

    fn slot(&self, nr: u32) -> usize {
        LAYOUT.slots + nr as usize * size_of::<RingSlot>()
    }

    fn status(&self, nr: u32) -> &AtomicU32 {
        self.word(self.slot(nr) + std::mem::offset_of!(RingSlot, status))
    }

    /// The kernel's part of sending.
    fn send(&self, nr: u32, unique: u64, status: u32) {
        let at = self.slot(nr);
        // SAFETY: inside the memory; the slot is free.
        let slot = unsafe { &mut *self.0.base().add(at).cast::<RingSlot>() };
        slot.in_inline = 40;
        slot.args[..8].copy_from_slice(&unique.to_ne_bytes());
        slot.header.unique = unique;
        self.status(nr).store(status, Ordering::Relaxed);
        let tail = self.word(std::mem::offset_of!(RingHeader, pending_tail));
        let cursor = tail.load(Ordering::Relaxed);
        let index = (cursor & (LAYOUT.depth - 1)) as usize;
        self.word(LAYOUT.pending + 4 * index)
            .store(nr, Ordering::Relaxed);
        tail.store(cursor.wrapping_add(1), Ordering::Release);
    }

    /// The kernel's part of ending.
    fn complete(&self, head: &mut u32) -> Option<u32> {
        let index = (*head & (LAYOUT.depth - 1)) as usize;
        let entry = self
            .word(LAYOUT.complete + 4 * index)
            .swap(0, Ordering::AcqRel);
        (entry != 0).then(|| {
            *head = head.wrapping_add(1);
            entry - 1
        })
    }
}

fn one_thread(c: &mut Criterion) {
    let mut group = c.benchmark_group("ring, one thread");
    group.throughput(Throughput::Elements(1));
    let channel = Channel::new();
    group.bench_function("put in, take, answer a caller that polls", |b| {
        b.iter(|| {
            channel.send(7, black_box(1), SLOT_POLLED);
            assert!(!channel.0.serve().expect("a request"));
            assert_eq!(channel.status(7).load(Ordering::Acquire), SLOT_DONE);
        });
    });
    let channel = Channel::new();
    let mut head = 0;
    group.bench_function("put in, take, answer, take from the complete ring", |b| {
        b.iter(|| {
            channel.send(7, black_box(1), SLOT_ASYNC);
            assert!(channel.0.serve().expect("a request"));
            assert_eq!(channel.complete(&mut head), Some(7));
        });
    });
    group.throughput(Throughput::Elements(LAYOUT.depth.into()));
    group.bench_function("the same, as many as there are slots at once", |b| {
        b.iter(|| {
            for nr in 0..LAYOUT.depth {
                channel.send(nr, black_box(1), SLOT_ASYNC);
            }
            for _ in 0..LAYOUT.depth {
                assert!(channel.0.serve().expect("a request"));
            }
            for nr in 0..LAYOUT.depth {
                assert_eq!(channel.complete(&mut head), Some(nr));
            }
        });
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("look, where there is nothing", |b| {
        b.iter(|| black_box(&channel.0).has_work());
    });
    group.throughput(Throughput::Elements(RING_FORGETS as u64));
    let tail = channel.word(std::mem::offset_of!(RingHeader, forget_tail));
    let mut forgets = Vec::with_capacity(RING_FORGETS);
    group.bench_function("a ring full of FORGETs, 64 at once", |b| {
        b.iter(|| {
            tail.fetch_add(RING_FORGETS as u32, Ordering::Release);
            for _ in 0..RING_FORGETS / 64 {
                forgets.clear();
                assert!(channel.0.take_forgets(&mut forgets, 64) && forgets.len() == 64);
            }
        });
    });
    group.finish();
}

/// To another processor and back: a caller that polls and a worker that does.
fn two_threads(c: &mut Criterion) {
    let mut group = c.benchmark_group("ring, two threads");
    let channel = Channel::new();
    let end = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !end.load(Ordering::Relaxed) {
                if channel.0.serve().is_none() {
                    std::hint::spin_loop();
                }
            }
        });
        group.bench_function("there and back, both polling", |b| {
            b.iter(|| {
                channel.send(7, black_box(1), SLOT_POLLED);
                while channel.status(7).load(Ordering::Acquire) != SLOT_DONE {
                    std::hint::spin_loop();
                }
            });
        });
        end.store(true, Ordering::Relaxed);
    });
    group.finish();
}

criterion_group!(benches, one_thread, two_threads);
criterion_main!(benches);
