//! Who served the requests of a measured phase: what the programs of an eFUSE mount have
//! counted between its edges.

use std::collections::BTreeMap;

use efuse_bpf::{Attached, BpfError, Counts, Dev, attached_to, data_counts, opcode_name};
use efuse_model::counters::{Adaptive, Served};
use efuse_systems::Mounted;

/// The programs of a mount.
pub(crate) struct Programs {
    set: Attached,
    before: Moment,
}

/// What was counted up to a moment.
#[derive(Debug, Default)]
struct Moment {
    /// By the programs, by opcode.
    programs: BTreeMap<u32, Counts>,
    /// By the kernel, by name.
    kernel: BTreeMap<String, u64>,
    /// How the policy chose paths for data, if it does so by file.
    adaptive: Option<efuse_bpf::Adaptive>,
}

/// The kernel's names for answers that it used again without asking a program, and what
/// they were answers to.
const KEPT: [(&str, &str); 2] = [("kept_lookup", "LOOKUP"), ("kept_getattr", "GETATTR")];

impl Programs {
    /// `None` where none are attached, as on every mount that is not eFUSE's.
    ///
    /// # Errors
    /// If the kernel does not tell what is attached.
    pub fn of(mounted: &Mounted) -> Result<Option<Self>, BpfError> {
        if mounted.family() != Some("efuse") {
            return Ok(None);
        }
        let Some(minor) = mounted.connection() else {
            return Ok(None);
        };
        match attached_to(Dev::new(0, minor)) {
            Ok(set) => Ok(Some(Self {
                set,
                before: Moment::default(),
            })),
            Err(BpfError::NotAttached { .. }) => Ok(None),
            Err(e) => Err(e),
        }
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
        Ok(Moment {
            programs: self.set.counts()?,
            kernel: data_counts(self.set.dev)?,
            adaptive: self.set.adaptive()?,
        })
    }

    /// What was counted since, by opcode, and how paths for data were chosen.
    ///
    /// # Errors
    /// If the counters cannot be read.
    pub fn served(&self) -> Result<(Vec<Served>, Option<Adaptive>), BpfError> {
        let now = self.now()?;
        let served = between(&self.before, &now);
        let adaptive = now.adaptive.map(|now| {
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
        Ok((served, adaptive))
    }
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
        let of = |moment: &Moment| moment.kernel.get(word).copied().unwrap_or_default();
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
            let at = |moment: &Moment| moment.kernel.get(&name).copied().unwrap_or_default();
            at(after) - at(before)
        };
        let row = rows.entry(opcode).or_insert_with(|| new(opcode));
        let (backing, daemon) = (of("backing"), of("daemon"));
        let filled = of("miss");
        add(&mut row.kernel, "cache", of("cache"));
        // What the cache lacked was read into it: from the backing file where there is one, else
        // from the daemon.
        let from_backing = filled.min(backing);
        add(
            &mut row.kernel,
            "backing file, into the cache",
            from_backing,
        );
        add(&mut row.kernel, "backing file", backing - from_backing);
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
        let kept = |n| [("kept_lookup".to_owned(), n)].into();
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
            kernel: counts.iter().map(|(k, n)| ((*k).to_owned(), *n)).collect(),
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
}
