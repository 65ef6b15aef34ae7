//! Who served the requests of a measured phase: what the programs of an eFUSE mount have
//! counted between its edges.

use std::collections::BTreeMap;

use efuse_bpf::{Attached, BpfError, Counts, Dev, attached_to, data_counts, opcode_name};
use efuse_model::counters::Served;
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
        })
    }

    /// What was counted since, by opcode.
    ///
    /// # Errors
    /// If the counters cannot be read.
    pub fn served(&self) -> Result<Vec<Served>, BpfError> {
        Ok(between(&self.before, &self.now()?))
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
            },
            &Moment {
                programs: [(1, now), (3, then), (22, idle)].into(),
                kernel: kept(53),
            },
        );
        let opcodes: Vec<_> = served.iter().map(|s| s.opcode.as_str()).collect();
        assert_eq!(opcodes, ["GETATTR", "LOOKUP"]);
        let from = [("kept".to_owned(), 50), ("maps".to_owned(), 100)];
        assert_eq!(served[1].kernel, from.into());
        assert_eq!(served[1].passed, [("gone".to_owned(), 2)].into());
        assert_eq!((served[0].in_kernel(), served[0].by_daemon()), (10, 5));
    }
}
