//! Debug knobs: handlers that take longer than they need, requests that wait.

use std::hint::spin_loop;
use std::time::{Duration, Instant};

/// Calls `handler`, then keeps its thread busy for `percent` of the time that it took. At 0 it does
/// not even look at the clock.
///
/// It spins rather than sleeps: a slower handler needs the processor, too, and the extra time is
/// often shorter than a timer can tell.
fn stretched<T>(percent: u16, handler: impl FnOnce() -> T) -> T {
    if percent == 0 {
        return handler();
    }
    let start = Instant::now();
    let value = handler();
    let until = start.elapsed() + extra(start.elapsed(), percent);
    while start.elapsed() < until {
        spin_loop();
    }
    value
}

/// Random waits.
#[derive(Debug)]
pub(crate) struct Delays {
    /// The longest, in microseconds.
    max: u64,
    /// Of `SplitMix64` (Steele, Lea and Flood, 2014).
    state: u64,
}

impl Delays {
    pub(crate) fn new(max: Duration, seed: u64, worker: usize) -> Self {
        Self {
            max: u64::try_from(max.as_micros()).unwrap_or(u64::MAX - 1),
            state: seed ^ (worker as u64).wrapping_mul(0xd134_2543_de82_ef95),
        }
    }

    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The next one: none at all half of the time, so that some requests overtake others.
    fn next(&mut self) -> Duration {
        if self.max == 0 || self.random().is_multiple_of(2) {
            return Duration::ZERO;
        }
        Duration::from_micros(self.random() % (self.max + 1))
    }

    fn wait(&mut self) {
        let time = self.next();
        if !time.is_zero() {
            std::thread::sleep(time);
        }
    }
}

/// Both, for one worker.
#[derive(Debug)]
pub(crate) struct Hindered {
    pub(crate) percent: u16,
    pub(crate) delays: Delays,
}

impl Hindered {
    /// Calls a handler: what it does is late, and so is its reply.
    pub(crate) fn call<T>(&mut self, handler: impl FnOnce() -> T) -> T {
        self.delays.wait();
        let value = stretched(self.percent, handler);
        self.delays.wait();
        value
    }
}

/// So many percent of a time.
fn extra(elapsed: Duration, percent: u16) -> Duration {
    elapsed * u32::from(percent) / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_of_a_time() {
        let ms = Duration::from_millis;
        assert_eq!(extra(ms(200), 10), ms(20));
        assert_eq!(extra(ms(200), 250), ms(500));
        assert_eq!(extra(ms(200), 0), ms(0));
        assert_eq!(extra(Duration::from_nanos(50), 10), Duration::from_nanos(5));
    }

    #[test]
    fn delays_follow_from_the_seed_and_the_worker_and_stay_below_the_longest() {
        let max = Duration::from_micros(700);
        let some = |seed, worker| -> Vec<Duration> {
            let mut delays = Delays::new(max, seed, worker);
            (0..1000).map(|_| delays.next()).collect()
        };
        let first = some(1, 0);
        assert_eq!(first, some(1, 0));
        assert_ne!(first, some(2, 0));
        assert_ne!(first, some(1, 1));
        assert!(first.iter().all(|time| *time <= max));
        let none = first.iter().filter(|time| time.is_zero()).count();
        assert!((400..600).contains(&none), "{none}");
        let mut off = Delays::new(Duration::ZERO, 1, 0);
        assert!((0..100).all(|_| off.next().is_zero()));
    }

    #[test]
    fn a_handler_keeps_its_value_and_takes_at_least_its_share_longer() {
        let mut inside = Duration::ZERO;
        let start = Instant::now();
        let value = stretched(300, || {
            let began = Instant::now();
            std::thread::sleep(Duration::from_millis(2));
            inside = began.elapsed();
            "value"
        });
        assert_eq!(value, "value");
        // At least: how much longer it takes on a busy machine says nothing.
        assert!(start.elapsed() >= inside * 4, "{inside:?}");
    }
}
