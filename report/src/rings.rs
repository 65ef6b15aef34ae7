//! The load of a cell's ring channels: pooled over its repetitions without probes.

use efuse_model::counters::Channel;
use serde::Serialize;

use crate::input::Run;
use crate::stats;

/// One channel of a cell.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Load {
    /// What counts up is the sum over the repetitions, the state at the end their median.
    #[serde(flatten)]
    pub channel: Channel,
    /// Operations that the load completed in those repetitions.
    pub operations: u64,
}

impl Load {
    fn of(repetitions: &[Channel], operations: u64) -> Self {
        let sum = |of: fn(&Channel) -> u64| repetitions.iter().map(of).sum();
        let median = |of: fn(&Channel) -> u64| {
            let values: Vec<f64> = repetitions.iter().map(|c| of(c) as f64).collect();
            stats::median(&values).unwrap_or_default().round() as u64
        };
        Self {
            channel: Channel {
                requests: sum(|c| c.requests),
                polled: sum(|c| c.polled),
                waited: sum(|c| c.waited),
                redirected: sum(|c| c.redirected),
                migrated: sum(|c| c.migrated),
                forgets: sum(|c| c.forgets),
                interrupts: sum(|c| c.interrupts),
                wakeups: sum(|c| c.wakeups),
                bad: sum(|c| c.bad),
                depth: median(|c| c.depth),
                in_flight: median(|c| c.in_flight),
                waiting: median(|c| c.waiting),
                sleepers: median(|c| c.sleepers),
                service_ns: median(|c| c.service_ns),
            },
            operations,
        }
    }

    /// Requests by where they came from: the channel's own callers, callers of others, and
    /// channels where they waited. One that did both counts as taken over.
    #[must_use]
    pub fn origins(&self) -> [u64; 3] {
        let Channel {
            requests,
            redirected,
            migrated,
            ..
        } = self.channel;
        let migrated = migrated.min(requests);
        let redirected = redirected.min(requests - migrated);
        [requests - migrated - redirected, redirected, migrated]
    }

    /// So many for each operation of the load.
    #[must_use]
    pub fn per_operation(&self, n: u64) -> Option<f64> {
        (self.operations > 0).then(|| n as f64 / self.operations as f64)
    }
}

/// Every channel of a cell in the order of their numbers; empty where it has no rings, or
/// was stored before their load was.
#[must_use]
pub fn of(run: &Run, test: &str, system: &str) -> Vec<Load> {
    let (mut seen, mut operations) = (Vec::<Vec<Channel>>::new(), 0);
    for m in run.of(test, system) {
        let counters = m.metrics.counters.as_ref();
        let Some(channels) = counters.map(|c| &c.channels).filter(|c| !c.is_empty()) else {
            continue;
        };
        operations += m.metrics.counted().round() as u64;
        seen.resize_with(seen.len().max(channels.len()), Vec::new);
        for (of_channel, channel) in seen.iter_mut().zip(channels) {
            of_channel.push(*channel);
        }
    }
    seen.iter().map(|c| Load::of(c, operations)).collect()
}

/// Requests of the busiest channel over what each would have if all had the same; `None`
/// without any.
#[must_use]
pub fn unevenness(loads: &[Load]) -> Option<f64> {
    let all: u64 = loads.iter().map(|l| l.channel.requests).sum();
    let most = loads.iter().map(|l| l.channel.requests).max()?;
    (all > 0).then(|| most as f64 * loads.len() as f64 / all as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(requests: u64, redirected: u64, migrated: u64) -> Load {
        Load {
            channel: Channel {
                requests,
                redirected,
                migrated,
                ..Channel::default()
            },
            operations: 200,
        }
    }

    #[test]
    fn where_requests_came_from_adds_up_to_the_requests() {
        assert_eq!(load(100, 20, 5).origins(), [75, 20, 5]);
        assert_eq!(load(10, 8, 5).origins(), [0, 5, 5]);
        assert_eq!(load(3, 0, 5).origins(), [0, 0, 3]);
    }

    #[test]
    fn the_busiest_channel_is_told_against_an_even_share() {
        let uneven = |a, b| unevenness(&[load(a, 0, 0), load(b, 0, 0)]);
        assert_eq!(uneven(300, 100), Some(1.5));
        assert_eq!(uneven(50, 50), Some(1.0));
        assert_eq!(uneven(0, 0), None);
        assert_eq!(unevenness(&[]), None);
    }

    #[test]
    fn counts_are_summed_and_states_are_medians() {
        let one = |requests, service_ns, sleepers| Channel {
            requests,
            service_ns,
            sleepers,
            ..Channel::default()
        };
        let pooled = Load::of(&[one(10, 900, 4), one(20, 100, 5), one(30, 300, 5)], 120);
        assert_eq!(pooled.channel, one(60, 300, 5));
        assert_eq!(pooled.per_operation(pooled.channel.requests), Some(0.5));
        assert_eq!(Load::of(&[], 0).per_operation(0), None);
    }
}
