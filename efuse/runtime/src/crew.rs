//! Who works in a session, and whether there are enough of them.
//!
//! A worker whose handler waits (for a lock, a slow disk, a network) takes nothing else. Where a
//! transport can tell ([`Transport::lanes`]), a thread of its own, the foreman, starts another worker
//! for a lane in which all are in handlers, none came back for a while, and something is not taken.
//! Workers that it started end when they had nothing to do for a while.
//!
//! The foreman looks every now and then while some lane is all busy, and sleeps else. A worker
//! counts its turns in a word of its own, and wakes the foreman if that sleeps and nobody else of the
//! lane is idle: nothing is shared by workers while none of this happens.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::session::SessionError;
use crate::transport::{ReceiveError, Transport};

/// A lane in which nobody came back for so long has too few workers. Also how often the foreman
/// looks while something is not taken.
const BLOCKED: Duration = Duration::from_millis(10);
/// How often it looks at most while nothing waits.
const SELDOM: Duration = Duration::from_millis(160);
/// When it tries again to start a worker after that failed.
const AGAIN: Duration = Duration::from_secs(1);

/// What others must see of a worker: apart, so that workers share no cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Place {
    /// 0: nobody is here. Even: idle. Odd: in a handler. Written by the worker alone, but for its first
    /// value.
    turn: AtomicU64,
    /// Whose requests it takes.
    lane: AtomicUsize,
    /// Unique id of the request in the handler, 0 for none.
    current: AtomicU64,
    /// Unique id of the request that was interrupted last.
    interrupted: AtomicU64,
}

/// The places of all workers that there may be.
#[derive(Debug)]
pub(crate) struct Crew {
    places: Box<[Place]>,
    lanes: usize,
    /// The foreman wants to hear when a lane is all busy.
    asleep: AtomicBool,
    bell: Mutex<Bell>,
    rung: Condvar,
}

#[derive(Debug, Default)]
struct Bell {
    rung: bool,
    /// The connection has ended, or a worker died: nobody is started any more.
    closed: bool,
}

/// How long the foreman waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    For(Duration),
    /// Until a lane is all busy.
    UntilBusy,
    /// Until somebody ends.
    UntilLeft,
}

impl Crew {
    /// `workers` that are about to start, in `lanes` by turns, and room for `most` of them. With no
    /// lanes there is no foreman.
    pub(crate) fn new(workers: usize, most: usize, lanes: usize) -> Crew {
        let crew = Crew {
            places: (0..most.max(workers)).map(|_| Place::default()).collect(),
            lanes,
            asleep: AtomicBool::new(false),
            bell: Mutex::default(),
            rung: Condvar::new(),
        };
        for worker in 0..workers {
            crew.enter(worker, if lanes == 0 { 0 } else { worker % lanes });
        }
        crew
    }

    /// Somebody is about to start there.
    fn enter(&self, worker: usize, lane: usize) {
        let place = &self.places[worker];
        place.lane.store(lane, Ordering::Relaxed);
        place.turn.store(2, Ordering::Release);
    }

    /// The worker has ended; with `close` the others are to end, too.
    pub(crate) fn leave(&self, worker: usize, close: bool) {
        self.places[worker].current.store(0, Ordering::Release);
        self.places[worker].turn.store(0, Ordering::Release);
        // Always: it may have been the last idle one of its lane, and somebody has to join it.
        self.ring(close);
    }

    /// The worker has taken something.
    pub(crate) fn begin(&self, worker: usize) {
        if self.lanes == 0 {
            return;
        }
        self.turn(worker);
        // Pairs with the one in `sleep`, and with itself: of those who make a lane all busy and a foreman
        // that is about to sleep, the last one sees what the others wrote.
        fence(Ordering::SeqCst);
        let lane = self.places[worker].lane.load(Ordering::Relaxed);
        if self.asleep.load(Ordering::Relaxed) && self.all_busy(lane).is_some() {
            self.ring(false);
        }
    }

    /// It is done with that.
    pub(crate) fn end(&self, worker: usize) {
        if self.lanes != 0 {
            self.turn(worker);
        }
    }

    fn turn(&self, worker: usize) {
        let turn = &self.places[worker].turn;
        turn.store(turn.load(Ordering::Relaxed) + 1, Ordering::Release);
    }

    /// Notes which request is in the handler.
    pub(crate) fn handles(&self, worker: usize, unique: u64) {
        let current = &self.places[worker].current;
        current.store(unique, Ordering::Release);
    }

    /// Where the worker finds out that its request was interrupted.
    pub(crate) fn interrupted(&self, worker: usize) -> &AtomicU64 {
        &self.places[worker].interrupted
    }

    /// Tells the worker that has this request. False if none has.
    pub(crate) fn interrupt(&self, unique: u64) -> bool {
        for place in &self.places {
            if place.current.load(Ordering::Acquire) == unique {
                place.interrupted.store(unique, Ordering::Relaxed);
                return true;
            }
        }
        false
    }

    /// The turns of those who work in a lane.
    fn turns(&self, lane: usize) -> impl Iterator<Item = u64> {
        self.places.iter().filter_map(move |place| {
            let turn = place.turn.load(Ordering::Acquire);
            (turn != 0 && place.lane.load(Ordering::Relaxed) == lane).then_some(turn)
        })
    }

    /// Whether all of a lane are in handlers; a number that is another one when one of them came back.
    fn all_busy(&self, lane: usize) -> Option<u64> {
        self.turns(lane).try_fold(0_u64, |sum, turn| {
            (turn % 2 == 1).then(|| sum.wrapping_add(turn))
        })
    }

    /// Whether an idle worker can be done without: another one of its lane is idle.
    pub(crate) fn spare(&self, worker: usize) -> bool {
        let lane = self.places[worker].lane.load(Ordering::Relaxed);
        self.turns(lane).filter(|turn| turn % 2 == 0).count() > 1
    }

    fn bell(&self) -> MutexGuard<'_, Bell> {
        self.bell.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self, close: bool) {
        let mut bell = self.bell();
        self.asleep.store(false, Ordering::Relaxed);
        bell.rung = true;
        bell.closed |= close;
        self.rung.notify_one();
    }

    /// Waits, for the foreman. False when the session ends.
    fn sleep(&self, wait: Wait) -> bool {
        let mut bell = self.bell();
        if wait == Wait::UntilBusy {
            self.asleep.store(true, Ordering::Relaxed);
            // Pairs with the one in `begin`.
            fence(Ordering::SeqCst);
            bell.rung |= (0..self.lanes).any(|lane| self.all_busy(lane).is_some());
        }
        let quiet = |bell: &mut Bell| !bell.rung && !bell.closed;
        let mut bell = match wait {
            Wait::For(time) => {
                let waited = self.rung.wait_timeout_while(bell, time, quiet);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            Wait::UntilBusy | Wait::UntilLeft => {
                let waited = self.rung.wait_while(bell, quiet);
                waited.unwrap_or_else(PoisonError::into_inner)
            }
        };
        self.asleep.store(false, Ordering::Relaxed);
        bell.rung = false;
        !bell.closed
    }
}

/// A worker's thread.
type Worker = JoinHandle<Result<(), ReceiveError>>;

/// The foreman's thread, from when all have started until the session ends: `hire` starts a worker at
/// a place for a lane. All that it started have ended when it does.
pub(crate) fn oversee(
    crew: &Crew,
    transport: &dyn Transport,
    hire: impl Fn(usize, usize) -> Result<Worker, SessionError>,
) -> Result<(), ReceiveError> {
    let mut hired: Vec<Option<Worker>> = crew.places.iter().map(|_| None).collect();
    let mut seen = vec![None; crew.lanes];
    let mut wait = Wait::For(BLOCKED);
    let mut failed = false;
    let mut result = Ok(());
    while crew.sleep(wait) {
        for (place, worker) in crew.places.iter().zip(&mut hired) {
            // It has ended but for the last steps.
            if place.turn.load(Ordering::Acquire) == 0
                && let Some(worker) = worker.take()
            {
                result = result.and(join(worker));
            }
        }
        let vacant = |place: &Place| place.turn.load(Ordering::Acquire) == 0;
        let (mut waits, mut busy) = (false, false);
        for (lane, seen) in seen.iter_mut().enumerate() {
            let now = crew.all_busy(lane);
            busy |= now.is_some();
            let now = now.filter(|_| transport.untaken(lane));
            waits |= now.is_some();
            let blocked = now.is_some() && now == *seen;
            *seen = now;
            if !blocked {
                continue;
            }
            let Some(place) = crew.places.iter().position(vacant) else {
                continue;
            };
            crew.enter(place, lane);
            match hire(lane, place) {
                Ok(worker) => {
                    failed = false;
                    // Who was there may have left just now.
                    if let Some(former) = hired[place].replace(worker) {
                        result = result.and(join(former));
                    }
                }
                Err(error) => {
                    crew.places[place].turn.store(0, Ordering::Release);
                    if !failed {
                        eprintln!("handlers block, and no more threads can be started: {error}");
                    }
                    failed = true;
                }
            }
        }
        wait = match wait {
            _ if failed && waits => Wait::For(AGAIN),
            _ if !crew.places.iter().any(vacant) => Wait::UntilLeft,
            _ if waits => Wait::For(BLOCKED),
            Wait::For(time) if time < SELDOM => Wait::For((time * 2).min(SELDOM)),
            _ if busy => Wait::For(SELDOM),
            Wait::For(_) => Wait::UntilBusy,
            Wait::UntilBusy | Wait::UntilLeft => Wait::For(BLOCKED),
        };
    }
    for worker in hired.into_iter().flatten() {
        result = result.and(join(worker));
    }
    result
}

fn join(worker: Worker) -> Result<(), ReceiveError> {
    match worker.join() {
        Ok(Ok(()) | Err(ReceiveError::Closed)) => Ok(()),
        Ok(Err(error)) => Err(error),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    /// Two workers become busy while the foreman goes to sleep: it hears of it. A wakeup that is lost
    /// leaves this test waiting.
    #[test]
    fn the_foreman_does_not_sleep_while_all_are_busy() {
        const ROUNDS: usize = 3000;
        let crew = Crew::new(2, 4, 1);
        let barrier = Barrier::new(3);
        thread::scope(|scope| {
            for worker in 0..2 {
                let (crew, barrier) = (&crew, &barrier);
                scope.spawn(move || {
                    for _ in 0..ROUNDS {
                        barrier.wait();
                        crew.begin(worker);
                        crew.end(worker);
                        crew.begin(worker);
                        barrier.wait();
                        crew.end(worker);
                    }
                });
            }
            for _ in 0..ROUNDS {
                barrier.wait();
                while crew.all_busy(0).is_none() {
                    assert!(crew.sleep(Wait::UntilBusy));
                }
                barrier.wait();
            }
        });
    }

    #[test]
    fn a_lane_is_all_busy_when_each_of_its_workers_is() {
        let crew = Crew::new(3, 4, 2);
        assert_eq!((crew.all_busy(0), crew.all_busy(1)), (None, None));
        crew.begin(0);
        crew.begin(1);
        assert!(crew.all_busy(0).is_none() && crew.all_busy(1).is_some());
        crew.begin(2);
        let before = crew.all_busy(0);
        assert!(before.is_some());
        crew.end(2);
        assert!(!crew.spare(2), "the last idle one");
        crew.begin(2);
        assert_ne!(crew.all_busy(0), before, "one was back meanwhile");
        crew.enter(3, 1);
        assert!(crew.all_busy(1).is_none());
        crew.end(1);
        assert!(crew.spare(3) && crew.spare(1));
        crew.leave(3, false);
        assert!(!crew.spare(1));
    }

    #[test]
    fn an_interrupt_finds_the_worker_that_has_the_request() {
        let crew = Crew::new(2, 2, 0);
        crew.handles(1, 42);
        assert!(crew.interrupt(42) && !crew.interrupt(44));
        assert_eq!(crew.interrupted(1).load(Ordering::Relaxed), 42);
        crew.handles(1, 0);
        assert!(!crew.interrupt(42));
    }
}
