//! The events, in the order of their times.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;

use crate::times::{Times, unit};

/// Who shares a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Design {
    /// All cores.
    OneQueue,
    /// Nobody: each core has one.
    PerCore,
}

/// Where requests come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Load {
    /// Independently of replies, this many a second for all cores together.
    Open {
        /// Mean rate of a Poisson process.
        per_second: f64,
    },
    /// From callers that wait for each reply and then think.
    Closed {
        /// How many; as with a queue depth, several are of one thread.
        callers: u32,
        /// Threads that do the callers' work, one request at a time, dealt out to the cores in turn.
        threads: u32,
        /// From a reply to the next request.
        think: Times,
    },
}

/// What is modelled.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// Cores.
    pub cores: u32,
    /// Who shares a queue.
    pub design: Design,
    /// Workers, dealt out to the queues in turn; at least one for each.
    pub workers: u32,
    /// Where requests come from.
    pub load: Load,
    /// From taken to replied, without what a processor does for it.
    pub service: Times,
    /// What processors do, one for each core; `None` for as many processors as are wanted.
    pub work: Option<Work>,
    /// How long a queue's lock is held to put one request in or take one out.
    pub lock: Times,
}

/// What a request costs processors. Whoever waits for a lock or holds it keeps its processor.
/// Threads run on any processor with [`Design::OneQueue`], and on that of their channel with
/// [`Design::PerCore`]. Whoever had least of them is next, and keeps one for all of its part.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    /// The caller, before it gives the request.
    pub caller: Times,
    /// The worker, after it took it.
    pub worker: Times,
}

/// What came of it, without the first part of the run. Times in nanoseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Requests that were answered.
    pub requests: u64,
    /// Of these, in a second of the model's time.
    pub per_second: f64,
    /// From given to taken by a worker, mean.
    pub queueing_ns: f64,
    /// The same, 99th percentile.
    pub queueing_p99_ns: f64,
    /// From given to answered, mean.
    pub total_ns: f64,
    /// Requests under way, mean over time.
    pub in_flight: f64,
    /// Share of takings of a lock that found it held.
    pub contended: f64,
    /// Share of time that a lock was held, mean over the locks.
    pub lock_busy: f64,
    /// Share of time that a processor was used, mean over them; 0 without [`Model::work`].
    pub processors_busy: f64,
}

/// What a lock is wanted for.
#[derive(Clone, Copy, Debug)]
enum Want {
    Put(u32),
    Take(u32),
}

#[derive(Clone, Copy, Debug)]
enum Event {
    /// Somebody on any core wants to give a request.
    Arrival,
    /// This caller wants to give one.
    Again(u32),
    /// This caller, or one on this core, has done what comes before that.
    Given(u32),
    /// This worker has done what is to be done for this request.
    Worked(u32, u32),
    /// The holder of this queue's lock lets go.
    Released(u32, Want),
    /// This worker has replied to this request.
    Replied(u32, u32),
}

/// Who wants a processor.
#[derive(Clone, Copy, Debug)]
enum Thread {
    Caller(u32),
    Worker(u32),
}

#[derive(Debug, Default)]
struct Queue {
    /// Processors that nobody uses.
    free: u32,
    /// By the processor time that each had.
    runnable: BinaryHeap<Planned<Thread>>,
    /// The least that one who runs had.
    floor: f64,
    held: bool,
    waiting: VecDeque<Want>,
    pending: VecDeque<u32>,
    idle: Vec<u32>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Request {
    caller: u32,
    given: f64,
    taken: f64,
}

/// Something with its time; among those of one time the one that was planned first comes first.
#[derive(Debug)]
struct Planned<T> {
    at: f64,
    number: u64,
    item: T,
}

impl<T> Ord for Planned<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        // Turned around: a heap gives its largest first.
        let (a, b) = ((other.at, other.number), (self.at, self.number));
        a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))
    }
}

impl<T> PartialOrd for Planned<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Planned<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for Planned<T> {}

struct Engine<'m> {
    model: &'m Model,
    rng: ChaCha8Rng,
    now: f64,
    events: BinaryHeap<Planned<Event>>,
    planned: u64,
    queues: Vec<Queue>,
    requests: Vec<Request>,
    unused: Vec<u32>,
    /// Of each thread of callers that is at work: who waits for it.
    threads: Vec<Option<VecDeque<u32>>>,
    /// Of each thread of callers and each worker.
    shares: [Vec<Share>; 2],
    figures: Figures,
}

/// A thread's processor time.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    had: f64,
    since: f64,
}

#[derive(Default)]
struct Figures {
    since: f64,
    queueing: Vec<f64>,
    total: f64,
    /// Integral of requests under way over time.
    area: f64,
    under_way: u64,
    /// The same of processors in use.
    ran: f64,
    running: u64,
    changed: f64,
    takings: u64,
    contended: u64,
    held: f64,
}

/// Runs the model until `requests` were answered, after a quarter as many that do not count. The
/// same seed gives the same outcome.
///
/// # Panics
/// If the model has no core, no worker or no caller.
#[must_use]
pub fn simulate(model: &Model, requests: u64, seed: u64) -> Outcome {
    let queues = match model.design {
        Design::OneQueue => 1,
        Design::PerCore => model.cores,
    };
    assert!(queues > 0 && model.workers > 0, "nobody to answer");
    let mut engine = Engine {
        model,
        rng: ChaCha8Rng::seed_from_u64(seed),
        now: 0.0,
        events: BinaryHeap::new(),
        planned: 0,
        queues: (0..queues)
            .map(|_| Queue {
                free: model.cores / queues,
                ..Queue::default()
            })
            .collect(),
        requests: Vec::new(),
        unused: Vec::new(),
        threads: Vec::new(),
        shares: [
            Vec::new(),
            vec![Share::default(); model.workers.max(queues) as usize],
        ],
        figures: Figures::default(),
    };
    for worker in 0..model.workers.max(queues) {
        engine.queues[(worker % queues) as usize].idle.push(worker);
    }
    match &model.load {
        Load::Open { .. } => engine.next_arrival(),
        Load::Closed {
            callers,
            threads,
            think,
        } => {
            assert!(*callers > 0 && *threads > 0, "nobody to ask");
            engine.threads = (0..*threads).map(|_| None).collect();
            engine.shares[0] = vec![Share::default(); *threads as usize];
            for caller in 0..*callers {
                let first = think.draw(&mut engine.rng);
                engine.schedule(first, Event::Again(caller));
            }
        }
    }
    engine.run(requests / 4);
    engine.figures = Figures {
        since: engine.now,
        changed: engine.now,
        under_way: engine.figures.under_way,
        running: engine.figures.running,
        queueing: Vec::with_capacity(requests as usize),
        ..Figures::default()
    };
    engine.run(requests);
    engine.outcome()
}

impl Engine<'_> {
    fn schedule(&mut self, after: f64, event: Event) {
        self.events.push(Planned {
            at: self.now + after,
            number: self.planned,
            item: event,
        });
        self.planned += 1;
    }

    fn run(&mut self, answers: u64) {
        let mut left = answers;
        while left > 0
            && let Some(Planned { at, item, .. }) = self.events.pop()
        {
            self.now = at;
            match item {
                Event::Arrival => {
                    let core = unit(&mut self.rng) * f64::from(self.model.cores);
                    self.runnable(Thread::Caller(core.ceil() as u32 - 1));
                    self.next_arrival();
                }
                Event::Again(caller) => self.again(caller),
                Event::Given(caller) => self.give(caller),
                Event::Worked(worker, request) => {
                    self.sleeps(Thread::Worker(worker));
                    let service = self.model.service.draw(&mut self.rng);
                    self.schedule(service, Event::Replied(worker, request));
                }
                Event::Released(queue, want) => self.released(queue, want),
                Event::Replied(worker, request) => {
                    self.replied(worker, request);
                    left -= 1;
                }
            }
        }
    }

    fn next_arrival(&mut self) {
        if let Load::Open { per_second } = self.model.load {
            let after = Times::Exponential(1e9 / per_second).draw(&mut self.rng);
            self.schedule(after, Event::Arrival);
        }
    }

    fn under_way(&mut self, change: i64) {
        let f = &mut self.figures;
        f.area += f.under_way as f64 * (self.now - f.changed);
        f.ran += f.running as f64 * (self.now - f.changed);
        f.changed = self.now;
        f.under_way = f.under_way.wrapping_add_signed(change);
    }

    fn again(&mut self, caller: u32) {
        let thread = caller as usize % self.threads.len();
        match &mut self.threads[thread] {
            Some(waiting) => waiting.push_back(caller),
            idle => {
                *idle = Some(VecDeque::new());
                self.runnable(Thread::Caller(caller));
            }
        }
    }

    /// The thread of this caller is done with its request; on to the next.
    fn given(&mut self, caller: u32) {
        if self.threads.is_empty() {
            return;
        }
        let thread = caller as usize % self.threads.len();
        let next = self.threads[thread].as_mut().and_then(VecDeque::pop_front);
        match next {
            Some(next) => self.runnable(Thread::Caller(next)),
            None => self.threads[thread] = None,
        }
    }

    /// Threads sit on the cores in turn, so a thread's number says its core.
    fn queue_of(&self, thread: Thread) -> u32 {
        let number = match thread {
            Thread::Caller(caller) if !self.threads.is_empty() => {
                caller % self.threads.len() as u32
            }
            Thread::Caller(number) | Thread::Worker(number) => number,
        };
        number % self.queues.len() as u32
    }

    fn runnable(&mut self, thread: Thread) {
        if self.model.work.is_none() {
            return self.runs(thread);
        }
        let queue = self.queue_of(thread) as usize;
        // Who slept is not owed the time.
        let floor = self.queues[queue].floor;
        let had = self.share(thread).map_or(floor, |s| s.had.max(floor));
        self.queues[queue].runnable.push(Planned {
            at: had,
            number: self.planned,
            item: thread,
        });
        self.planned += 1;
        if self.queues[queue].free > 0 {
            self.under_way(0);
            self.queues[queue].free -= 1;
            self.figures.running += 1;
            self.next(queue);
        }
    }

    fn share(&mut self, thread: Thread) -> Option<&mut Share> {
        match thread {
            Thread::Caller(_) if self.threads.is_empty() => None,
            Thread::Caller(caller) => {
                let thread = caller as usize % self.threads.len();
                Some(&mut self.shares[0][thread])
            }
            Thread::Worker(worker) => Some(&mut self.shares[1][worker as usize]),
        }
    }

    /// The one that had least goes on a processor that somebody left.
    fn next(&mut self, queue: usize) {
        let now = self.now;
        let q = &mut self.queues[queue];
        if let Some(Planned { at, item, .. }) = q.runnable.pop() {
            q.floor = q.floor.max(at);
            if let Some(share) = self.share(item) {
                *share = Share {
                    had: at,
                    since: now,
                };
            }
            self.runs(item);
        } else {
            self.under_way(0);
            self.queues[queue].free += 1;
            self.figures.running -= 1;
        }
    }

    fn runs(&mut self, thread: Thread) {
        match thread {
            Thread::Caller(caller) => match &self.model.work {
                Some(work) => {
                    let work = work.caller.draw(&mut self.rng);
                    self.schedule(work, Event::Given(caller));
                }
                None => self.give(caller),
            },
            Thread::Worker(worker) => {
                self.want(self.queue_of(thread), Want::Take(worker));
            }
        }
    }

    /// A thread gives its processor away.
    fn sleeps(&mut self, thread: Thread) {
        if self.model.work.is_none() {
            return;
        }
        let now = self.now;
        if let Some(share) = self.share(thread) {
            share.had += now - share.since;
        }
        self.next(self.queue_of(thread) as usize);
    }

    fn give(&mut self, caller: u32) {
        self.under_way(1);
        let request = Request {
            caller,
            given: self.now,
            taken: 0.0,
        };
        let index = match self.unused.pop() {
            Some(index) => {
                self.requests[index as usize] = request;
                index
            }
            None => {
                self.requests.push(request);
                self.requests.len() as u32 - 1
            }
        };
        let queue = self.queue_of(Thread::Caller(caller));
        self.want(queue, Want::Put(index));
    }

    fn want(&mut self, queue: u32, want: Want) {
        self.figures.takings += 1;
        let q = &mut self.queues[queue as usize];
        if q.held {
            self.figures.contended += 1;
            q.waiting.push_back(want);
        } else {
            self.hold(queue, want);
        }
    }

    fn hold(&mut self, queue: u32, want: Want) {
        self.queues[queue as usize].held = true;
        let hold = self.model.lock.draw(&mut self.rng);
        self.figures.held += hold;
        self.schedule(hold, Event::Released(queue, want));
    }

    fn released(&mut self, queue: u32, want: Want) {
        // Who waits longest is next, as with a queued spin lock.
        match self.queues[queue as usize].waiting.pop_front() {
            Some(next) => self.hold(queue, next),
            None => self.queues[queue as usize].held = false,
        }
        let q = &mut self.queues[queue as usize];
        match want {
            Want::Put(request) => {
                q.pending.push_back(request);
                let woken = q.idle.pop();
                let caller = self.requests[request as usize].caller;
                self.sleeps(Thread::Caller(caller));
                if let Some(worker) = woken {
                    self.runnable(Thread::Worker(worker));
                }
                self.given(caller);
            }
            Want::Take(worker) => match q.pending.pop_front() {
                Some(request) => {
                    let r = &mut self.requests[request as usize];
                    r.taken = self.now;
                    let work = match &self.model.work {
                        Some(work) => work.worker.draw(&mut self.rng),
                        None => 0.0,
                    };
                    self.schedule(work, Event::Worked(worker, request));
                }
                // Another worker was faster.
                None => {
                    q.idle.push(worker);
                    self.sleeps(Thread::Worker(worker));
                }
            },
        }
    }

    fn replied(&mut self, worker: u32, request: u32) {
        self.under_way(-1);
        let r = self.requests[request as usize];
        self.unused.push(request);
        self.figures.queueing.push(r.taken - r.given);
        self.figures.total += self.now - r.given;
        if let Load::Closed { think, .. } = &self.model.load {
            let after = think.draw(&mut self.rng);
            self.schedule(after, Event::Again(r.caller));
        }
        let queue = self.queue_of(Thread::Worker(worker));
        let q = &mut self.queues[queue as usize];
        if q.pending.is_empty() {
            q.idle.push(worker);
        } else {
            self.runnable(Thread::Worker(worker));
        }
    }

    fn outcome(mut self) -> Outcome {
        self.under_way(0);
        let locks = self.queues.len() as f64;
        let f = &mut self.figures;
        let n = f.queueing.len();
        let time = self.now - f.since;
        f.queueing.sort_unstable_by(f64::total_cmp);
        Outcome {
            requests: n as u64,
            per_second: n as f64 * 1e9 / time,
            queueing_ns: f.queueing.iter().sum::<f64>() / n as f64,
            queueing_p99_ns: f
                .queueing
                .get((n * 99).div_ceil(100).saturating_sub(1))
                .copied()
                .unwrap_or(f64::NAN),
            total_ns: f.total / n as f64,
            in_flight: f.area / time,
            contended: f.contended as f64 / f.takings.max(1) as f64,
            lock_busy: f.held / time / locks,
            processors_busy: f.ran / time / f64::from(self.model.cores),
        }
    }
}
