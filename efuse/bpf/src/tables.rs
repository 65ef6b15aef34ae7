//! Tables of the metadata policies: arrays that the programs use as caches (`src/bpf/table.h`).

use std::collections::BTreeMap;

use libbpf_rs::{MapCore, MapFlags};

/// The read-only section with their sizes.
pub(crate) const SECTION: &str = ".rodata.tables";

/// The tables, in the order of that section.
pub(crate) const NAMES: [&str; 4] = ["entries", "attrs", "statxs", "xattrs"];

/// How many entries are read from the kernel at once.
const BATCH: u32 = 1024;

/// What the section holds, given the entries of each map by name; of a table that a policy does
/// not have, 0.
pub(crate) fn section(sizes: &BTreeMap<String, u32>) -> [u8; 4 * NAMES.len()] {
    let mut bytes = [0; 4 * NAMES.len()];
    for (place, name) in bytes.chunks_exact_mut(4).zip(NAMES) {
        place.copy_from_slice(&sizes.get(name).copied().unwrap_or_default().to_ne_bytes());
    }
    bytes
}

/// Whether something is in this place: a value ends with its tag and when it was used.
fn occupied(value: &[u8]) -> bool {
    value
        .len()
        .checked_sub(16)
        .and_then(|at| value.get(at..at + 8))
        .is_some_and(|tag| tag != [0; 8])
}

/// Places in use.
///
/// # Errors
/// If the kernel does not give its entries.
pub(crate) fn used(map: &impl MapCore) -> Result<usize, libbpf_rs::Error> {
    let entries = map.lookup_batch(BATCH, MapFlags::ANY, MapFlags::ANY)?;
    Ok(entries.filter(|(_, value)| occupied(value)).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_section_has_a_size_for_each_table_in_order() {
        let sizes = [("xattrs", 7), ("entries", 1 << 16), ("other", 3)]
            .map(|(name, size)| (name.to_owned(), size))
            .into();
        let bytes = section(&sizes);
        let words: Vec<u32> = bytes
            .chunks_exact(4)
            .map(|word| u32::from_ne_bytes(word.try_into().expect("four bytes")))
            .collect();
        assert_eq!(words, [1 << 16, 0, 0, 7]);
    }

    #[test]
    fn a_place_is_free_without_a_tag() {
        let mut value = [0u8; 40];
        value[0] = 1;
        value[39] = 1;
        assert!(!occupied(&value));
        value[24] = 1;
        assert!(occupied(&value));
        assert!(!occupied(&[1; 8]));
    }
}
