//! The order of a run.

use efuse_model::cell::CellKey;
use efuse_model::counters::Probes;
use efuse_model::plan::Slot;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;

use efuse_stats::below;

/// Each repetition is a block that holds every cell once, shuffled (Fisher-Yates) with
/// the block's own ChaCha stream, so that drift of the machine falls on every cell alike
/// and the order of a block depends on the seed and the cells alone, not on how many
/// repetitions there are. A block with probes follows the one of the same number without,
/// so that what the probes cost is a ratio of neighbours.
#[must_use]
pub fn order(cells: &[CellKey], repetitions: u32, probed: u32, seed: u64) -> Vec<Slot> {
    let mut out = Vec::with_capacity(cells.len() * (repetitions + probed) as usize);
    for repetition in 0..repetitions.max(probed) {
        if repetition < repetitions {
            out.extend(block(cells, repetition, Probes::Off, seed));
        }
        if repetition < probed {
            out.extend(block(cells, repetition, Probes::On, seed));
        }
    }
    out
}

/// One block of the order.
#[must_use]
pub fn block(cells: &[CellKey], repetition: u32, probes: Probes, seed: u64) -> Vec<Slot> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let kind = match probes {
        Probes::Off => 0,
        Probes::On => 1 << 32,
    };
    rng.set_stream(kind + u64::from(repetition));
    let mut cells = cells.to_vec();
    for i in (1..cells.len()).rev() {
        cells.swap(i, below(&mut rng, i + 1));
    }
    let slot = |cell| Slot {
        cell,
        repetition,
        probes,
    };
    cells.into_iter().map(slot).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn keys(n: usize) -> Vec<CellKey> {
        (0..n).map(|i| CellKey(format!("{i:016x}"))).collect()
    }

    /// A stored seed must give the same order for ever: `resume` and readers of old
    /// runs rely on it.
    #[test]
    fn the_order_of_a_seed_is_fixed() {
        let names: Vec<_> = order(&keys(4), 2, 0, 42)
            .iter()
            .map(|s| {
                format!(
                    "{}{}",
                    s.repetition,
                    s.cell.0.trim_start_matches("000000000000000")
                )
            })
            .collect();
        assert_eq!(names.join(" "), "01 00 03 02 11 13 10 12");
    }

    proptest! {
        #[test]
        fn every_block_holds_every_cell_once(n in 0usize..20, reps in 0u32..6, seed: u64) {
            let cells = keys(n);
            let order = order(&cells, reps, 0, seed);
            prop_assert_eq!(order.len(), n * reps as usize);
            for (i, block) in order.chunks(n.max(1)).enumerate() {
                let seen: BTreeSet<_> = block.iter().map(|s| s.cell.clone()).collect();
                prop_assert_eq!(seen, cells.iter().cloned().collect::<BTreeSet<_>>());
                prop_assert!(block.iter().all(|s| s.repetition as usize == i));
            }
        }

        #[test]
        fn probed_blocks_come_beside_and_change_nothing_else(
            n in 1usize..10, reps in 0u32..5, probed in 0u32..5, seed: u64,
        ) {
            let cells = keys(n);
            let all = order(&cells, reps, probed, seed);
            let (off, on): (Vec<_>, Vec<_>) = all.iter().cloned().partition(|s| s.probes.is_off());
            prop_assert_eq!(off, order(&cells, reps, 0, seed));
            prop_assert_eq!(on.len(), n * probed as usize);
            let distinct: std::collections::HashSet<_> = all.iter().collect();
            prop_assert_eq!(distinct.len(), all.len());
        }

        #[test]
        fn the_order_depends_on_the_seed_alone(n in 1usize..20, a in 1u32..5, b in 1u32..5, seed: u64) {
            let cells = keys(n);
            let (short, long) = (a.min(b), a.max(b));
            let prefix = order(&cells, short, 0, seed);
            prop_assert_eq!(&order(&cells, long, 0, seed)[..prefix.len()], &prefix[..]);
        }
    }

    /// Every cell must come in every position about equally often.
    #[test]
    fn positions_are_uniform() {
        let cells = keys(5);
        let mut counts = [[0u32; 5]; 5];
        let blocks = 4000;
        for (i, slot) in order(&cells, blocks, 0, 3).iter().enumerate() {
            let cell = cells.iter().position(|c| *c == slot.cell).unwrap();
            counts[cell][i % 5] += 1;
        }
        for count in counts.iter().flatten() {
            assert!((680..=920).contains(count), "{counts:?}");
        }
    }
}
