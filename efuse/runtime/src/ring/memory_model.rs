//! Every order of events that the memory model allows, for a few of them: `memory.rs` under loom.
//! What the kernel does is as in `kernel/efuse/ring.c`; its full barriers are fences.

use std::sync::Arc;

use efuse_abi::ring::SLOT_SLEEPING;
use loom::cell::UnsafeCell;
use loom::sync::Mutex;
use loom::thread;

use super::super::super::words;
use super::*;

/// How often a thread may lose the processor where it need not. Two find almost every known bug
/// (Musuvathi and Qadeer 2007), three are what a minute allows.
const PREEMPTIONS: usize = 3;

/// A channel of so few slots, whose words loom knows, with contents of slots that it watches.
struct Channel {
    memory: Memory,
    kernel: Arc<Kernel>,
    _buffer: AlignedBuffer,
}

/// What both sides' threads share beside the channel.
struct Kernel {
    contents: Contents,
    /// What `ch->lock` protects: the complete ring's head, and (slot, reply) of what has ended.
    ended: Mutex<(u32, Vec<(u32, u64)>)>,
}

/// Stands for what is in each slot and not atomic: loom sees who uses it without being allowed to.
struct Contents(Vec<UnsafeCell<u64>>);

// SAFETY: loom itself checks how its cells are shared.
unsafe impl Send for Contents {}
// SAFETY: as above.
unsafe impl Sync for Contents {}

impl Contents {
    fn get(&self, slot: u32) -> u64 {
        // SAFETY: loom ends the test if another thread writes.
        self.0[slot as usize].with(|value| unsafe { *value })
    }

    fn set(&self, slot: u32, value: u64) {
        // SAFETY: loom ends the test if another thread reads or writes.
        self.0[slot as usize].with_mut(|place| unsafe { *place = value });
    }
}

impl Channel {
    fn new(depth: u32, start: u32) -> Channel {
        let layout = RingLayout::new(depth, 2 * depth);
        let mut buffer = AlignedBuffer::new(layout.bytes).expect("mmap");
        let base = NonNull::new(buffer.as_mut_ptr()).expect("mapped");
        // SAFETY: page aligned and as long as the layout; the buffer is kept beside it.
        let memory = unsafe { Memory::new(base, layout) };
        words::end();
        memory.set_cursors(start);
        words::begin();
        for word in [
            memory.pending_tail(),
            memory.pending_head(),
            memory.spinners(),
            field!(base, 0, RingHeader, backlog, AtomicU32),
            field!(base, 0, RingHeader, intr_tail, AtomicU32),
            field!(base, 0, RingHeader, intr_head, AtomicU32),
            field!(base, 0, RingHeader, forget_tail, AtomicU32),
            field!(base, 0, RingHeader, forget_head, AtomicU32),
            field!(base, 0, RingHeader, complete_tail, AtomicU32),
        ] {
            word.register();
        }
        for n in 0..depth {
            memory.word(layout.pending, n).register();
            memory.word(layout.complete, n).register();
            let at = memory.slot_at(n);
            memory.status(n).register();
            field!(base, at, RingSlot, error, AtomicI32).register();
            field!(base, at, RingSlot, head_size, AtomicU32).register();
            field!(base, at, RingSlot, data_size, AtomicU32).register();
        }
        Channel {
            memory,
            kernel: Arc::new(Kernel {
                contents: Contents((0..depth).map(|_| UnsafeCell::new(0)).collect()),
                ended: Mutex::new((start, Vec::new())),
            }),
            _buffer: buffer,
        }
    }

    /// The kernel's: a request of this number.
    fn send(&self, slot: u32, unique: u64, status: u32) {
        self.kernel.contents.set(slot, unique);
        self.memory.send(slot, unique, status, 0);
    }

    /// What has ended, in the order of slots.
    fn ended(&self) -> Vec<(u32, u64)> {
        let mut ended = self.kernel.ended.lock().expect("the lock").1.clone();
        ended.sort_unstable();
        ended
    }

    /// A worker that looks `times` times: what it took.
    fn worker(&self, times: u32) -> thread::JoinHandle<Vec<u64>> {
        let (memory, kernel) = (self.memory, Arc::clone(&self.kernel));
        thread::spawn(move || work(memory, &kernel, times))
    }
}

impl Kernel {
    /// What a worker that enters does: `efuse_ring_commit()`.
    fn commit(&self, memory: Memory) {
        loop {
            let mut ended = self.ended.lock().expect("the lock");
            // The kernel's xchg() as a load and a store: loom takes a swap that found nothing for a
            // store that may come after the worker's, which no order of modifications allows.
            // Where there is something, nobody else writes; a load sees no more than a swap.
            let entry = memory.word(memory.layout.complete, ended.0);
            let slot = match entry.load(Ordering::Acquire) {
                0 => return,
                slot => slot - 1,
            };
            entry.store(0, Ordering::Release);
            ended.0 = ended.0.wrapping_add(1);
            let reply = self.reply(memory, slot);
            ended.1.push((slot, reply));
        }
    }

    /// What a slot was answered with.
    fn reply(&self, memory: Memory, slot: u32) -> u64 {
        assert_eq!(memory.status(slot).load(Ordering::Acquire), SLOT_DONE);
        let at = memory.slot_at(slot);
        let size = field!(memory.base, at, RingSlot, data_size, AtomicU32);
        let reply = self.contents.get(slot);
        assert_eq!(u64::from(size.load(Ordering::Relaxed)) + 100, reply);
        reply
    }
}

/// Takes and answers up to so many requests, and enters where it has to.
fn work(memory: Memory, kernel: &Kernel, times: u32) -> Vec<u64> {
    let mut taken = Vec::new();
    for _ in 0..times {
        let Some(request) = memory.take_request() else {
            thread::yield_now();
            continue;
        };
        let unique = request.header.unique;
        assert_eq!(kernel.contents.get(request.slot), unique);
        kernel.contents.set(request.slot, unique + 100);
        // SAFETY: taken just now, and nothing of it is borrowed.
        if unsafe { memory.answer(request.slot, 0, &[], unique as usize) } {
            kernel.commit(memory);
        }
        taken.push(unique);
    }
    taken
}

fn joined<const N: usize>(workers: [thread::JoinHandle<Vec<u64>>; N]) -> Vec<u64> {
    let join = |worker: thread::JoinHandle<Vec<u64>>| worker.join().expect("a worker");
    workers.into_iter().flat_map(join).collect()
}

fn model(scenario: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.check(move || {
        scenario();
        words::end();
    });
}

#[test]
fn two_workers_take_each_request_once_while_more_come() {
    model(|| {
        // The cursors overflow between the two.
        let channel = Channel::new(2, u32::MAX);
        let workers = [channel.worker(2), channel.worker(2)];
        channel.send(0, 1, SLOT_ASYNC);
        channel.send(1, 2, SLOT_ASYNC);
        let mut taken = joined(workers);
        // Whoever looked too early left it.
        taken.extend(work(channel.memory, &channel.kernel, 2));
        taken.sort_unstable();
        assert_eq!(taken, [1, 2]);
        assert_eq!(channel.ended(), [(0, 101), (1, 102)]);
        assert!(!channel.memory.has_work());
    });
}

/// Two reply at the same time; who entered first may have found the other's place empty.
#[test]
fn replies_are_whole_when_the_kernel_finds_them_and_none_is_left() {
    model(|| {
        let channel = Channel::new(2, u32::MAX);
        channel.send(0, 1, SLOT_ASYNC);
        channel.send(1, 2, SLOT_ASYNC);
        let mut taken = joined([channel.worker(1), channel.worker(1)]);
        taken.sort_unstable();
        assert_eq!(taken, [1, 2]);
        assert_eq!(channel.ended(), [(0, 101), (1, 102)]);
    });
}

/// One slot and one entry: the second request lies where a slow worker still looks at the first.
#[test]
fn a_place_that_is_used_again_is_not_mistaken() {
    model(|| {
        let channel = Channel::new(1, u32::MAX);
        channel.send(0, 1, SLOT_ASYNC);
        let workers = [channel.worker(1), channel.worker(1)];
        // The kernel sends when the slot is free, and else not.
        let sent = channel.ended() == [(0, 101)];
        if sent {
            channel.send(0, 2, SLOT_ASYNC);
        }
        let mut taken = joined(workers);
        taken.extend(work(channel.memory, &channel.kernel, 1));
        taken.sort_unstable();
        assert_eq!(taken, if sent { vec![1, 2] } else { vec![1] });
        assert_eq!(channel.ended().len(), taken.len());
    });
}

#[test]
fn a_caller_going_to_sleep_is_woken_or_sees_the_whole_reply() {
    model(|| {
        let channel = Channel::new(1, 0);
        channel.send(0, 1, SLOT_POLLED);
        let worker = channel.worker(1);
        let (old, new) = (SLOT_POLLED, SLOT_SLEEPING);
        let order = (Ordering::SeqCst, Ordering::Acquire);
        let status = channel.memory.status(0);
        let asleep = status.compare_exchange(old, new, order.0, order.1).is_ok();
        if !asleep {
            assert_eq!(channel.kernel.reply(channel.memory, 0), 101);
        }
        assert_eq!(joined([worker]), [1]);
        // Who sleeps is woken by the worker's entering, and nobody else.
        let woken: &[_] = if asleep { &[(0, 101)] } else { &[] };
        assert_eq!(channel.ended(), woken);
    });
}

/// A worker stops spinning while a request comes: it sees the request, or the kernel wakes somebody.
#[test]
fn a_request_that_comes_as_spinning_ends_is_not_left() {
    model(|| {
        let channel = Channel::new(1, 0);
        let memory = channel.memory;
        let worker = thread::spawn(move || {
            assert!(memory.start_spinning());
            let found = memory.has_work();
            memory.stop_spinning();
            // Entering, the kernel looks once more.
            found || memory.has_work()
        });
        channel.send(0, 1, SLOT_ASYNC);
        // wq_has_sleeper() has this barrier; somebody else sleeps there.
        fence(Ordering::SeqCst);
        let wakes = memory.spinners().load(Ordering::Relaxed) == 0;
        let found = worker.join().expect("a worker");
        assert!(wakes || found);
    });
}

/// A worker stops spinning for a request and is busy with it while a second one comes: the kernel, which
/// woke nobody for the first, wakes somebody for the second.
#[test]
fn a_request_that_comes_behind_the_one_that_spinning_ended_with_is_not_left() {
    model(|| {
        let channel = Channel::new(2, 0);
        let memory = channel.memory;
        channel.send(0, 1, SLOT_ASYNC);
        assert!(memory.start_spinning());
        let worker = thread::spawn(move || {
            assert!(memory.has_work());
            memory.stop_spinning();
            memory.take_request().expect("it is there").header.unique
        });
        channel.send(1, 2, SLOT_ASYNC);
        // efuse_wake_worker(); somebody else sleeps. Its smp_rmb() is the second fence.
        fence(Ordering::SeqCst);
        let pending = 2 - memory.pending_head().load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        let wakes = pending > 1 || memory.spinners().load(Ordering::Relaxed) == 0;
        assert_eq!(worker.join().expect("a worker"), 1);
        assert!(wakes);
    });
}

/// Two want to spin: one does.
#[test]
fn one_worker_spins_at_a_time() {
    model(|| {
        let memory = Channel::new(1, 0);
        let inside = Arc::new(Contents(vec![UnsafeCell::new(0)]));
        let spin = |memory: Memory, inside: Arc<Contents>| {
            move || {
                if memory.start_spinning() {
                    inside.set(0, 1);
                    memory.stop_spinning();
                }
            }
        };
        let other = thread::spawn(spin(memory.memory, Arc::clone(&inside)));
        spin(memory.memory, inside)();
        other.join().expect("a worker");
    });
}
