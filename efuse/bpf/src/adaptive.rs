//! The adaptive choice of a path for data: what can be set before it is loaded, and what it says of
//! itself. The programs are `bpf/adaptive.h`.

use std::ops::RangeInclusive;

use libbpf_rs::{MapCore as _, MapFlags, MapType};
use serde::Serialize;

use crate::{Attached, BpfError};

/// The read-only section that holds the tunables, each a `u32`.
pub(crate) const SECTION: &str = ".rodata.adaptive";

/// Members of `struct adaptive_tunables` in their order, with what makes sense for each.
const TUNABLES: [(&str, RangeInclusive<u32>); 8] = [
    ("probe", 1..=4096),
    ("spread", 2..=4096),
    ("round", 8..=u32::MAX),
    ("take", 0..=99),
    ("keep", 0..=99),
    ("warm", 0..=u32::MAX),
    ("largest", 0..=u32::MAX),
    ("idle", 0..=100),
];

/// The map with the state of each file.
const FILES: &str = "files";
/// What is read of a file's state: its first members.
const HEAD: usize = 16;
/// `EFUSE_IO_CACHE`.
const CACHE: u32 = 2;

/// A tunable as on a command line, `NAME=NUMBER`.
///
/// # Errors
/// In words, if there is none of that name, or it cannot have that value.
pub fn adaptive_tunable(text: &str) -> Result<(String, u32), String> {
    let (name, number) = text
        .split_once('=')
        .ok_or_else(|| "not of the form NAME=NUMBER".to_owned())?;
    let Some((_, range)) = TUNABLES.iter().find(|(known, _)| *known == name) else {
        let known: Vec<_> = TUNABLES.iter().map(|(name, _)| *name).collect();
        return Err(format!(
            "there is no {name:?}; there is {}",
            known.join(", ")
        ));
    };
    match number.parse() {
        Ok(number) if range.contains(&number) => Ok((name.to_owned(), number)),
        _ => Err(format!(
            "{name} is a number from {} to {}, not {number:?}",
            range.start(),
            range.end()
        )),
    }
}

/// Writes tunables into the section. `None` if it is not that of `bpf/adaptive.h`, else whether
/// they go together, in words.
pub(crate) fn set(section: &mut [u8], tunables: &[(String, u32)]) -> Option<Result<(), String>> {
    let place = |name: &str| {
        let at = TUNABLES.iter().position(|(known, _)| *known == name)?;
        Some(at * 4..at * 4 + 4)
    };
    if section.len() < TUNABLES.len() * 4 {
        return None;
    }
    for (name, number) in tunables {
        section[place(name)?].copy_from_slice(&number.to_ne_bytes());
    }
    let get = |name: &str| {
        let bytes = section[place(name)?].try_into().ok()?;
        Some(u64::from(u32::from_ne_bytes(bytes)))
    };
    let (probe, spread, round) = (get("probe")?, get("spread")?, get("round")?);
    // The prediction is made a little after the last read of the probe.
    let least = probe * (spread + 2);
    Some(if round > least {
        Ok(())
    } else {
        Err(format!(
            "a probe of {probe} reads, one in {spread}, does not fit into a round of {round} \
             (round must be above {least})"
        ))
    })
}

/// How paths were chosen, over all files that the policy knows just now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Adaptive {
    /// Files whose reads go to the cache.
    pub on_cache: u64,
    /// Files whose reads go to the backing file.
    pub on_backing: u64,
    /// Predictions that were made.
    pub rounds: u64,
    /// Those of them that changed the path.
    pub changes: u64,
    /// Those for which the processor's work counted and not time, as it was never idle.
    pub short_rounds: u64,
}

impl Adaptive {
    /// Adds a file, by the first members of its state.
    fn add(&mut self, state: &[u8]) {
        let mut words = state
            .chunks_exact(4)
            .map(|word| u32::from_ne_bytes(word.try_into().expect("four bytes")));
        let mut next = || words.next().unwrap_or_default();
        if next() == CACHE {
            self.on_cache += 1;
        } else {
            self.on_backing += 1;
        }
        self.rounds += u64::from(next());
        self.changes += u64::from(next());
        self.short_rounds += u64::from(next());
    }
}

impl Attached {
    /// How it chose paths; `None` if it makes no such choice.
    ///
    /// # Errors
    /// If its map cannot be read.
    pub fn adaptive(&self) -> Result<Option<Adaptive>, BpfError> {
        let state = |map: &&crate::Map| {
            map.name == FILES
                && map.handle.map_type() == MapType::LruHash
                && map.handle.value_size() as usize >= HEAD
        };
        let Some(map) = self.maps.iter().find(state) else {
            return Ok(None);
        };
        let mut sum = Adaptive::default();
        for key in map.handle.keys() {
            // It may have gone since.
            let value = map
                .handle
                .lookup(&key, MapFlags::ANY)
                .map_err(BpfError::bpf("read the state of files"))?;
            if let Some(value) = value {
                sum.add(&value[..HEAD]);
            }
        }
        Ok(Some(sum))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_order_are_those_of_the_programs() {
        let header = include_str!("bpf/adaptive.h");
        let from = header.find("struct adaptive_tunables {").unwrap();
        let body = &header[from..from + header[from..].find("} adaptive SEC").unwrap()];
        let members: Vec<_> = body
            .lines()
            .filter_map(|line| line.trim().strip_prefix("__u32 ")?.strip_suffix(';'))
            .collect();
        let names: Vec<_> = TUNABLES.iter().map(|(name, _)| *name).collect();
        assert_eq!(members, names);
    }

    #[test]
    fn bad_tunables_are_refused_with_what_there_is() {
        assert_eq!(adaptive_tunable("take=5"), Ok(("take".to_owned(), 5)));
        let error = adaptive_tunable("hysteresis=5").unwrap_err();
        assert!(error.contains("probe, spread, round"), "{error}");
        for text in ["take=100", "take=-1", "spread=1", "take=", "take"] {
            assert!(adaptive_tunable(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_probe_has_to_fit_into_its_round() {
        let numbers = [16u32, 8, 1024, 10, 3, 16384, 1 << 20, 10];
        let mut section: Vec<u8> = numbers.iter().flat_map(|n| n.to_ne_bytes()).collect();
        let one = |name: &str, number| [(name.to_owned(), number)];
        assert_eq!(set(&mut section, &one("take", 20)), Some(Ok(())));
        assert_eq!(section[12..16], 20u32.to_ne_bytes());
        let error = set(&mut section, &one("round", 160)).unwrap().unwrap_err();
        assert!(error.contains("above 160"), "{error}");
        assert_eq!(set(&mut section[..8], &[]), None);
    }

    #[test]
    fn files_are_counted_by_their_path() {
        let state = |words: [u32; 4]| words.map(u32::to_ne_bytes).concat();
        let mut sum = Adaptive::default();
        sum.add(&state([CACHE, 3, 1, 2]));
        sum.add(&state([1, 4, 2, 0]));
        let wanted = Adaptive {
            on_cache: 1,
            on_backing: 1,
            rounds: 7,
            changes: 3,
            short_rounds: 2,
        };
        assert_eq!(sum, wanted);
    }
}
