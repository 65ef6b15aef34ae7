//! What an eFUSE mount has counted by itself between the edges of a measured phase: who served
//! the requests that its programs saw, and what its ring channels had to do.

use std::collections::BTreeMap;

use efuse_bpf::{
    Attached, BpfError, ChannelCounts, Counts, Dev, KernelCounts, attached_to, kernel_counts,
    opcode_name, ring_counts,
};
use efuse_model::counters::{Adaptive, BY_BACKING, BY_CACHE, Channel, Counters, FILLED, Served};
use efuse_systems::Mounted;

/// The counts of a mount with programs, with rings, or with both.
pub(crate) struct OwnCounts {
    dev: Dev,
    programs: Option<Attached>,
    before: Moment,
}

/// What was counted up to a moment.
#[derive(Debug, Default)]
struct Moment {
    /// By the programs, by opcode.
    programs: BTreeMap<u32, Counts>,
    /// By the kernel.
    kernel: KernelCounts,
    /// How the policy chose paths for data, if it does so by file.
    adaptive: Option<efuse_bpf::Adaptive>,
}

/// The kernel's names for answers that it used again without asking a program, and what
/// they were answers to.
const KEPT: [(&str, &str); 2] = [("kept_lookup", "LOOKUP"), ("kept_getattr", "GETATTR")];

impl OwnCounts {
    /// `None` where there are neither programs nor rings, as on every mount that is not
    /// eFUSE's.
    ///
    /// # Errors
    /// If the kernel does not tell what there is.
    pub fn of(mounted: &Mounted) -> Result<Option<Self>, BpfError> {
        if mounted.family() != Some("efuse") {
            return Ok(None);
        }
        let Some(minor) = mounted.connection() else {
            return Ok(None);
        };
        let dev = Dev::new(0, minor);
        let programs = match attached_to(dev) {
            Ok(set) => Some(set),
            Err(BpfError::NotAttached { .. }) => None,
            Err(e) => return Err(e),
        };
        // Rings are made before a mount is ready.
        let counted = programs.is_some() || !ring_counts(dev)?.is_empty();
        Ok(counted.then(|| Self {
            dev,
            programs,
            before: Moment::default(),
        }))
    }

    /// The phase begins.
    ///
    /// # Errors
    /// If the counters cannot be read.
    pub fn start(&mut self) -> Result<(), BpfError> {
        self.before = self.now()?;
        Ok(())
    }

    fn now(&self) -> Result<Moment, BpfError> {
        let mut now = Moment {
            kernel: kernel_counts(self.dev)?,
            ..Moment::default()
        };
        if let Some(set) = &self.programs {
            now.programs = set.counts()?;
            now.adaptive = set.adaptive()?;
        }
        Ok(now)
    }

    /// Adds what was counted since: by opcode, how paths for data were chosen, and the load of
    /// channels.
    ///
    /// # Errors
    /// If the counters cannot be read.
    pub fn read(&self, counters: &mut Counters) -> Result<(), BpfError> {
        let now = self.now()?;
        if self.programs.is_some() {
            counters.served = between(&self.before, &now);
        }
        counters.channels = loads(&self.before.kernel.channels, &now.kernel.channels);
        counters.adaptive = now.adaptive.map(|now| {
            let then = self.before.adaptive.unwrap_or_default();
            // A file that the policy does not know any more takes its rounds with it.
            Adaptive {
                on_cache: now.on_cache,
                on_backing: now.on_backing,
                rounds: now.rounds.saturating_sub(then.rounds),
                changes: now.changes.saturating_sub(then.changes),
                short_rounds: now.short_rounds.saturating_sub(then.short_rounds),
            }
        });
        Ok(())
    }
}

/// What each channel had to do between two moments, and what it is like at the later one.
fn loads(before: &[ChannelCounts], after: &[ChannelCounts]) -> Vec<Channel> {
    let none = ChannelCounts::new();
    let pairs = after.iter().enumerate();
    let pairs = pairs.map(|(n, after)| (before.get(n).unwrap_or(&none), after));
    let load = |(before, after): (&ChannelCounts, &ChannelCounts)| {
        let now = |what: &str| after.get(what).copied().unwrap_or_default();
        let since = |what: &str| {
            // Redirected ones are counted without a lock, and could go back by one.
            now(what).saturating_sub(before.get(what).copied().unwrap_or_default())
        };
        Channel {
            requests: since("requests"),
            polled: since("polled"),
            waited: since("waited"),
            redirected: since("redirected"),
            migrated: since("migrated"),
            forgets: since("forgets"),
            interrupts: since("interrupts"),
            wakeups: since("wakeups"),
            bad: since("bad"),
            depth: now("depth"),
            in_flight: now("in_flight"),
            waiting: now("waiting"),
            sleepers: now("sleepers"),
            service_ns: now("service_ns"),
        }
    };
    pairs.map(load).collect()
}

/// Two opcodes without a name are one row.
fn between(before: &Moment, after: &Moment) -> Vec<Served> {
    let mut rows: BTreeMap<&str, Served> = BTreeMap::new();
    let new = |opcode: &str| Served {
        opcode: opcode.to_owned(),
        ..Served::default()
    };
    let add = |of: &mut BTreeMap<String, u64>, word: &str, n: u64| {
        if n > 0 {
            *of.entry(word.to_owned()).or_default() += n;
        }
    };
    for (word, opcode) in KEPT {
        let of = |moment: &Moment| moment.kernel.data.get(word).copied().unwrap_or_default();
        let row = rows.entry(opcode).or_insert_with(|| new(opcode));
        add(&mut row.kernel, "kept", of(after) - of(before));
    }
    for (opcode, now) in &after.programs {
        let then = before.programs.get(opcode).copied().unwrap_or_default();
        let name = opcode_name(*opcode);
        let row = rows.entry(name).or_insert_with(|| new(name));
        add(&mut row.kernel, "maps", now.answered - then.answered);
        for ((word, now), (_, then)) in now.reasons().iter().zip(then.reasons()) {
            add(&mut row.passed, word, now - then);
        }
    }
    for (way, opcode) in [("read", "READ"), ("write", "WRITE")] {
        let of = |what: &str| {
            let name = format!("{way}_{what}");
            let at = |moment: &Moment| moment.kernel.data.get(&name).copied().unwrap_or_default();
            at(after) - at(before)
        };
        let row = rows.entry(opcode).or_insert_with(|| new(opcode));
        let (backing, daemon) = (of("backing"), of("daemon"));
        let filled = of("miss");
        add(&mut row.kernel, BY_CACHE, of("cache"));
        // What the cache lacked was read into it: from the backing file where there is one, else
        // from the daemon.
        let from_backing = filled.min(backing);
        add(&mut row.kernel, FILLED, from_backing);
        add(&mut row.kernel, BY_BACKING, backing - from_backing);
        let mut left = daemon;
        for (word, n) in [
            ("miss", filled - from_backing),
            ("set-id", of("set_id")),
            ("error", of("error")),
        ] {
            let n = n.min(left);
            left -= n;
            add(&mut row.passed, word, n);
        }
        add(&mut row.passed, "chosen", left);
    }
    rows.into_values()
        .filter(|row| row.in_kernel() + row.by_daemon() > 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_before_the_phase_is_left_out() {
        let then = Counts {
            answered: 10,
            miss: 5,
            learnt: 5,
            ..Counts::default()
        };
        let now = Counts {
            answered: 110,
            miss: 5,
            gone: 2,
            learnt: 7,
            ..Counts::default()
        };
        let idle = Counts {
            learnt: 3,
            ..Counts::default()
        };
        let kept = |n| KernelCounts {
            data: [("kept_lookup".to_owned(), n)].into(),
            ..KernelCounts::default()
        };
        let served = between(
            &Moment {
                programs: [(1, then)].into(),
                kernel: kept(3),
                adaptive: None,
            },
            &Moment {
                programs: [(1, now), (3, then), (22, idle)].into(),
                kernel: kept(53),
                adaptive: None,
            },
        );
        let opcodes: Vec<_> = served.iter().map(|s| s.opcode.as_str()).collect();
        assert_eq!(opcodes, ["GETATTR", "LOOKUP"]);
        let from = [("kept".to_owned(), 50), ("maps".to_owned(), 100)];
        assert_eq!(served[1].kernel, from.into());
        assert_eq!(served[1].passed, [("gone".to_owned(), 2)].into());
        assert_eq!((served[0].in_kernel(), served[0].by_daemon()), (10, 5));
    }

    #[test]
    fn data_are_told_by_path() {
        let moment = |counts: &[(&str, u64)]| Moment {
            kernel: KernelCounts {
                data: counts.iter().map(|(k, n)| ((*k).to_owned(), *n)).collect(),
                ..KernelCounts::default()
            },
            ..Moment::default()
        };
        let before = moment(&[("read_cache", 7)]);
        let after = moment(&[
            ("read_cache", 107),
            ("read_backing", 50),
            ("read_miss", 20),
            ("write_daemon", 9),
            ("write_set_id", 4),
            ("cache_used", 4096),
        ]);
        let served = between(&before, &after);
        let words = |of: &BTreeMap<String, u64>| format!("{of:?}");
        assert_eq!(served.len(), 2);
        assert_eq!(
            words(&served[0].kernel),
            r#"{"backing file": 30, "backing file, into the cache": 20, "cache": 100}"#
        );
        assert_eq!(words(&served[1].passed), r#"{"chosen": 5, "set-id": 4}"#);
        // Without a backing file the cache is filled by the daemon.
        let after = moment(&[("read_daemon", 20), ("read_miss", 20)]);
        let served = between(&Moment::default(), &after);
        assert_eq!(words(&served[0].passed), r#"{"miss": 20}"#);
    }

    #[test]
    fn what_channels_count_is_told_of_the_phase_and_their_state_at_its_end() {
        let counts = |all: &[(&str, u64)]| -> ChannelCounts {
            all.iter().map(|(k, n)| ((*k).to_owned(), *n)).collect()
        };
        let before = [
            counts(&[("requests", 40), ("service_ns", 9000), ("sleepers", 5)]),
            counts(&[("requests", 7), ("redirected", 2)]),
        ];
        let after = [
            counts(&[("requests", 140), ("service_ns", 700), ("sleepers", 4)]),
            counts(&[("requests", 7), ("redirected", 1), ("depth", 64)]),
        ];
        let wanted = [
            Channel {
                requests: 100,
                service_ns: 700,
                sleepers: 4,
                ..Channel::default()
            },
            Channel {
                depth: 64,
                ..Channel::default()
            },
        ];
        assert_eq!(loads(&before, &after), wanted);
        assert_eq!(loads(&[], &[]), []);
    }

    #[test]
    fn every_figure_of_a_channel_that_is_shown_is_stored() {
        // Each with a value of its own, under the name that the kernel gives it.
        let names = include_str!("../../../kernel/efuse/balance.c")
            .lines()
            .filter_map(|line| line.trim().strip_prefix("SHOW(\"")?.split('"').next());
        let shown: ChannelCounts = names.map(str::to_owned).zip(1..).collect();
        assert!(shown.len() >= 14, "{shown:?}");
        let stored = serde_json::to_value(loads(&[], std::slice::from_ref(&shown))[0]).unwrap();
        let stored: ChannelCounts = serde_json::from_value(stored).unwrap();
        assert_eq!(stored, shown);
    }
}
