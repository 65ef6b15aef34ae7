//! How many workers a session has, against a transport that plays the kernel's part and handlers that
//! wait until they are let go.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::CStr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use efuse_abi::wire::{InHeader, InitIn};
use efuse_abi::{Errno, InitFlags, NotifyCode, Opcode};
use efuse_runtime::{
    Channel, Context, Entry, Exchange, FileSystem, RawRequest, ReceiveError, Session,
    SessionConfig, Transport, TransportError,
};
use zerocopy::IntoBytes;

const INIT: u64 = 1;
/// Who is not served by then never will be.
const HUNG: Duration = Duration::from_secs(60);

/// What both sides see of each other.
#[derive(Default)]
struct World {
    lanes: Vec<VecDeque<Request>>,
    closed: bool,
    /// Further channels cannot be opened.
    refuse: bool,
    /// Replies by unique id.
    replies: BTreeMap<u64, u32>,
    /// Workers there are, by lane, and ends of channels that were opened in all.
    workers: Vec<usize>,
    opened: usize,
    /// Nodes whose handlers may go on.
    gates: Vec<u64>,
    /// Handlers that wait, and the most at a time.
    inside: usize,
    most_inside: usize,
}

#[derive(Clone, Copy)]
struct Request {
    unique: u64,
    opcode: Opcode,
    /// The handler waits for the gate of this node. 0: for none.
    gate: u64,
}

#[derive(Default)]
struct Shared {
    world: Mutex<World>,
    changed: Condvar,
}

impl Shared {
    fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let value = change(&mut self.world.lock().expect("the world"));
        self.changed.notify_all();
        value
    }

    /// Waits until it is so; the test fails if it never is.
    fn until(&self, what: &str, so: impl Fn(&World) -> bool) -> MutexGuard<'_, World> {
        let world = self.world.lock().expect("the world");
        let (world, late) = self
            .changed
            .wait_timeout_while(world, HUNG, |world| !so(world))
            .expect("the world");
        assert!(!late.timed_out(), "never: {what}");
        world
    }

    fn send(&self, lane: usize, unique: u64, gate: u64) {
        let opcode = Opcode::Lookup;
        self.change(|world| {
            world.lanes[lane].push_back(Request {
                unique,
                opcode,
                gate,
            });
        });
    }

    fn open(&self, gate: u64) {
        self.change(|world| world.gates.push(gate));
    }

    fn answered(&self, unique: u64) {
        let what = format!("a reply to {unique}");
        drop(self.until(&what, |world| world.replies.contains_key(&unique)));
    }
}

struct Lanes(Arc<Shared>);

impl Lanes {
    fn end(&self, lane: usize, patience: Option<Duration>) -> Box<dyn Channel> {
        self.0.change(|world| {
            world.workers[lane] += 1;
            world.opened += 1;
        });
        Box::new(End {
            shared: Arc::clone(&self.0),
            lane,
            patience,
            header: InHeader::default(),
            inline: Vec::new(),
            data: Vec::new(),
        })
    }
}

impl Transport for Lanes {
    fn channel(&self, worker: usize, _: usize) -> Result<Box<dyn Channel>, TransportError> {
        let lanes = self.lanes();
        Ok(self.end(worker % lanes, None))
    }

    fn workers_at_least(&self) -> usize {
        self.lanes()
    }

    fn lanes(&self) -> usize {
        self.0.change(|world| world.lanes.len())
    }

    fn untaken(&self, lane: usize) -> bool {
        self.0.change(|world| !world.lanes[lane].is_empty())
    }

    fn extra_channel(
        &self,
        lane: usize,
        worker: usize,
        patience: Duration,
    ) -> Result<Box<dyn Channel>, TransportError> {
        if self.0.change(|world| world.refuse) {
            return Err(TransportError {
                worker,
                what: "play along".to_owned(),
                source: std::io::ErrorKind::OutOfMemory.into(),
            });
        }
        Ok(self.end(lane, Some(patience)))
    }

    fn notify(&self, _: NotifyCode, _: &[&[u8]]) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }
}

struct End {
    shared: Arc<Shared>,
    lane: usize,
    patience: Option<Duration>,
    header: InHeader,
    inline: Vec<u64>,
    data: Vec<u8>,
}

impl Drop for End {
    fn drop(&mut self) {
        self.shared.change(|world| world.workers[self.lane] -= 1);
    }
}

impl Channel for End {
    fn receive(&mut self) -> Result<(), ReceiveError> {
        let start = Instant::now();
        let mut world = self.shared.world.lock().expect("the world");
        let request = loop {
            if world.closed {
                return Err(ReceiveError::Closed);
            }
            if let Some(request) = world.lanes[self.lane].pop_front() {
                break request;
            }
            let left = self
                .patience
                .map_or(HUNG, |time| time.saturating_sub(start.elapsed()));
            if left.is_zero() {
                return Err(ReceiveError::Idle);
            }
            let changed = &self.shared.changed;
            world = changed.wait_timeout(world, left).expect("the world").0;
        };
        drop(world);
        // Somebody may wait for that.
        self.shared.changed.notify_all();
        self.inline.clear();
        if request.opcode == Opcode::Init {
            let init = InitIn {
                major: 7,
                minor: 41,
                flags: InitFlags::MAX_PAGES.bits() as u32,
                ..InitIn::default()
            };
            self.inline.resize(size_of::<InitIn>().div_ceil(8), 0);
            self.inline.as_mut_bytes()[..size_of::<InitIn>()].copy_from_slice(init.as_bytes());
        } else {
            self.inline.push(u64::from_le_bytes(*b"name\0\0\0\0"));
        }
        self.header = InHeader {
            opcode: request.opcode as u32,
            unique: request.unique,
            nodeid: request.gate,
            ..InHeader::default()
        };
        Ok(())
    }

    fn exchange(&mut self) -> Exchange<'_> {
        let len = match self.header.opcode {
            opcode if opcode == Opcode::Lookup as u32 => 5,
            _ => size_of::<InitIn>(),
        };
        Exchange {
            request: RawRequest::Parts {
                header: &self.header,
                inline: &self.inline.as_bytes()[..len],
                external: &[],
            },
            data: &mut self.data,
        }
    }

    fn reply(
        &mut self,
        unique: u64,
        _: Result<(), Errno>,
        _: &[u8],
        _: usize,
    ) -> Result<(), Errno> {
        self.shared
            .change(|world| *world.replies.entry(unique).or_insert(0) += 1);
        Ok(())
    }
}

struct Waiting(Arc<Shared>);

impl FileSystem for Waiting {
    fn lookup(&self, _: &Context<'_>, gate: u64, _: &CStr) -> Result<Entry, Errno> {
        self.0.change(|world| {
            world.inside += 1;
            world.most_inside = world.most_inside.max(world.inside);
        });
        if gate != 0 {
            drop(self.0.until("a gate", |world| world.gates.contains(&gate)));
        }
        self.0.change(|world| world.inside -= 1);
        Err(Errno::ENOENT)
    }
}

struct Running {
    shared: Arc<Shared>,
    fs: Arc<Waiting>,
    session: Session,
}

/// A session with one worker for each lane, and at most so many.
fn start(lanes: usize, most: usize) -> Running {
    let shared = Arc::new(Shared::default());
    shared.change(|world| {
        world.lanes = vec![VecDeque::new(); lanes];
        world.workers = vec![0; lanes];
        world.lanes[0].push_back(Request {
            unique: INIT,
            opcode: Opcode::Init,
            gate: 0,
        });
    });
    let transport: Arc<dyn Transport> = Arc::new(Lanes(Arc::clone(&shared)));
    let fs = Arc::new(Waiting(Arc::clone(&shared)));
    let config = SessionConfig {
        workers: 1,
        max_workers: Some(most),
        patience: Duration::from_millis(30),
        max_write: 4096,
        ..SessionConfig::default()
    };
    let session = Session::start(&transport, &fs, &config).expect("a session");
    Running {
        shared,
        fs,
        session,
    }
}

impl Running {
    /// Ends it; nobody is left, and each reply was given once.
    fn end(self) {
        self.shared.change(|world| world.closed = true);
        self.session.wait().expect("a clean end");
        let world = self.shared.world.lock().expect("the world");
        assert!(world.workers.iter().all(|n| *n == 0), "{:?}", world.workers);
        assert!(world.replies.values().all(|n| *n == 1));
        assert_eq!(Arc::strong_count(&self.fs), 1, "a worker is left");
    }
}

#[test]
fn others_are_served_while_handlers_wait_and_who_is_not_needed_leaves() {
    let running = start(2, 5);
    let shared = &running.shared;
    for unique in [10, 11] {
        shared.send(0, unique, 1);
    }
    drop(shared.until("two that wait", |world| world.inside == 2));
    shared.send(0, 12, 0);
    shared.answered(12);
    {
        let world = shared.world.lock().expect("the world");
        assert_eq!(world.replies.len(), 2, "INIT and the last one");
        assert!((4..=5).contains(&world.opened), "{}", world.opened);
        assert_eq!(world.workers[1], 1, "nobody was needed there");
    }
    shared.open(1);
    for unique in [10, 11] {
        shared.answered(unique);
    }
    drop(shared.until("the workers of the start", |world| world.workers == [1, 1]));
    // As ever.
    shared.send(0, 13, 2);
    shared.send(0, 14, 0);
    shared.answered(14);
    shared.open(2);
    running.end();
}

#[test]
fn there_are_never_more_than_the_most() {
    let running = start(1, 3);
    let shared = &running.shared;
    for unique in 10..16 {
        shared.send(0, unique, unique);
    }
    drop(shared.until("three that wait", |world| world.inside == 3));
    // Time to do what it must not.
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(shared.change(|world| world.opened), 3);
    for unique in 10..16 {
        shared.open(unique);
        shared.answered(unique);
    }
    assert_eq!(shared.change(|world| world.most_inside), 3);
    running.end();
}

/// Whoever asks for as many as there are gets no others.
#[test]
fn the_number_may_be_fixed() {
    let running = start(2, 2);
    let shared = &running.shared;
    shared.send(0, 10, 1);
    shared.send(0, 11, 0);
    std::thread::sleep(Duration::from_millis(100));
    {
        let world = shared.world.lock().expect("the world");
        assert_eq!((world.opened, world.replies.len()), (2, 1));
    }
    shared.open(1);
    shared.answered(11);
    running.end();
}

#[test]
fn the_session_goes_on_where_no_more_can_be_started() {
    let running = start(1, 8);
    let shared = &running.shared;
    shared.change(|world| world.refuse = true);
    shared.send(0, 10, 1);
    shared.send(0, 11, 0);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(shared.change(|world| world.opened), 1);
    // It is tried again.
    shared.change(|world| world.refuse = false);
    shared.answered(11);
    shared.open(1);
    shared.answered(10);
    running.end();
}

/// The connection ends at any moment: while somebody is started, waits, or leaves.
#[test]
fn all_end_with_the_connection() {
    for round in 0..60 {
        let running = start(2, 6);
        let shared = &running.shared;
        for unique in 10..18 {
            shared.send(unique as usize % 2, unique, 1);
        }
        std::thread::sleep(Duration::from_millis(round % 50));
        shared.change(|world| world.closed = true);
        shared.open(1);
        running.end();
    }
}

/// Requests that wait and others, at random to three lanes: each is answered once, whatever is let go
/// when, as long as fewer wait than there may be workers.
#[test]
fn each_request_is_answered_whatever_waits() {
    const MOST: usize = 9;
    for seed in 1..=4_u64 {
        let running = start(3, MOST);
        let shared = &running.shared;
        let mut state = seed;
        let mut dice = |sides: usize| {
            // Knuth's MMIX
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % sides
        };
        let mut waiting = Vec::new();
        for unique in 100..400 {
            let gate = match dice(4) {
                // All lanes together have one more.
                0 if waiting.len() < MOST - 3 => unique,
                _ => 0,
            };
            shared.send(dice(3), unique, gate);
            if gate != 0 {
                waiting.push(gate);
            } else if dice(3) == 0 {
                shared.answered(unique);
            }
            if !waiting.is_empty() && dice(5) == 0 {
                let gate = waiting.swap_remove(dice(waiting.len()));
                shared.open(gate);
                shared.answered(gate);
            }
            if dice(20) == 0 {
                // Some leave.
                std::thread::sleep(Duration::from_millis(dice(60) as u64));
            }
        }
        for gate in waiting {
            shared.open(gate);
        }
        drop(shared.until("all replies", |world| world.replies.len() == 301));
        assert!(shared.change(|world| world.most_inside) <= MOST);
        running.end();
    }
}
