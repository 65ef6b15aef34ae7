//! A debug knob: handlers that take longer than they need.

use std::hint::spin_loop;
use std::time::{Duration, Instant};

/// Calls `handler`, then keeps its thread busy for `percent` of the time that it took. At 0 it does
/// not even look at the clock.
///
/// It spins rather than sleeps: a slower handler needs the processor, too, and the extra time is
/// often shorter than a timer can tell.
pub(crate) fn stretched<T>(percent: u16, handler: impl FnOnce() -> T) -> T {
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
