//! A table of things known by number, for nodes and open files.
//!
//! An id is a slot index (plus 1, in the low half) and the slot's generation (in the high half), so
//! an id is never given out twice and a stale one is noticed. Slots live in chunks that are never
//! moved or freed; reading the hot word of a slot takes two loads and no lock.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

const FIRST_CHUNK_BITS: u32 = 8;
/// The last chunk ends at index 2^31.
const CHUNKS: usize = (31 - FIRST_CHUNK_BITS) as usize + 1;

struct Slot<T> {
    /// Generation in the high half; the hot word plus 1 in the low half, 0 if the slot is free.
    state: AtomicU64,
    value: RwLock<Option<Arc<T>>>,
}

#[derive(Default)]
struct Free {
    indices: Vec<u32>,
    /// Slots from here on were never used.
    unused: u32,
}

pub(crate) struct Table<T> {
    chunks: [OnceLock<Box<[Slot<T>]>>; CHUNKS],
    free: Mutex<Free>,
    len: AtomicUsize,
}

/// A poisoned lock only says that a handler panicked; every critical section here and in the users
/// of this function leaves its data whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn split(id: u64) -> Option<(u32, u32)> {
    let index = (id as u32).checked_sub(1)?;
    Some((index, (id >> 32) as u32))
}

/// Chunk number and offset in it: chunk 0 has 2^8 slots, as chunk 1; every later one doubles.
fn place(index: u32) -> (usize, usize) {
    let bits = u32::BITS - (index >> FIRST_CHUNK_BITS).leading_zeros();
    let start = if bits == 0 {
        0
    } else {
        1u32 << (FIRST_CHUNK_BITS + bits - 1)
    };
    (bits as usize, (index - start) as usize)
}

fn chunk_len(chunk: usize) -> usize {
    1 << (FIRST_CHUNK_BITS as usize + chunk.saturating_sub(1))
}

impl<T> Table<T> {
    pub(crate) fn new() -> Table<T> {
        Table {
            chunks: [const { OnceLock::new() }; CHUNKS],
            free: Mutex::new(Free::default()),
            len: AtomicUsize::new(0),
        }
    }

    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    fn slot(&self, index: u32) -> Option<&Slot<T>> {
        let (chunk, offset) = place(index);
        self.chunks.get(chunk)?.get()?.get(offset)
    }

    /// Adds an entry; the first one ever gets id 1. None if the table is full. `hot` must be less
    /// than `u32::MAX`.
    pub(crate) fn insert(&self, value: Arc<T>, hot: u32) -> Option<u64> {
        let index = {
            let mut free = lock(&self.free);
            match free.indices.pop() {
                Some(index) => index,
                None if place(free.unused).0 < CHUNKS => {
                    free.unused += 1;
                    free.unused - 1
                }
                None => return None,
            }
        };
        let (chunk, offset) = place(index);
        let slots = self.chunks[chunk].get_or_init(|| {
            (0..chunk_len(chunk))
                .map(|_| Slot {
                    state: AtomicU64::new(0),
                    value: RwLock::new(None),
                })
                .collect()
        });
        let slot = &slots[offset];
        let generation = slot.state.load(Ordering::Relaxed) >> 32;
        *slot.value.write().unwrap_or_else(PoisonError::into_inner) = Some(value);
        slot.state
            .store(generation << 32 | (u64::from(hot) + 1), Ordering::Release);
        self.len.fetch_add(1, Ordering::Relaxed);
        Some(generation << 32 | u64::from(index + 1))
    }

    /// The hot word of an entry.
    #[inline]
    pub(crate) fn hot(&self, id: u64) -> Option<u32> {
        let (index, generation) = split(id)?;
        let state = self.slot(index)?.state.load(Ordering::Acquire);
        if (state >> 32) as u32 != generation {
            return None;
        }
        (state as u32).checked_sub(1)
    }

    pub(crate) fn get(&self, id: u64) -> Option<Arc<T>> {
        let (index, generation) = split(id)?;
        let slot = self.slot(index)?;
        let value = slot.value.read().unwrap_or_else(PoisonError::into_inner);
        // The generation changes under the write lock only.
        let current = (slot.state.load(Ordering::Acquire) >> 32) as u32;
        if current == generation {
            value.clone()
        } else {
            None
        }
    }

    pub(crate) fn remove(&self, id: u64) -> Option<Arc<T>> {
        let (index, generation) = split(id)?;
        let slot = self.slot(index)?;
        let value = {
            let mut value = slot.value.write().unwrap_or_else(PoisonError::into_inner);
            if (slot.state.load(Ordering::Acquire) >> 32) as u32 != generation {
                return None;
            }
            let value = value.take()?;
            let next = u64::from(generation.wrapping_add(1));
            slot.state.store(next << 32, Ordering::Release);
            value
        };
        self.len.fetch_sub(1, Ordering::Relaxed);
        lock(&self.free).indices.push(index);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_dense_and_in_range() {
        let mut expected = (0, 0);
        for index in 0..100_000 {
            assert_eq!(place(index), expected, "index {index}");
            expected.1 += 1;
            if expected.1 == chunk_len(expected.0) {
                expected = (expected.0 + 1, 0);
            }
        }
        assert_eq!(place((1 << 31) - 1).0, CHUNKS - 1);
    }

    #[test]
    fn ids_are_never_given_out_twice() {
        let table = Table::new();
        let first = table.insert(Arc::new(1), 10).expect("room");
        assert_eq!(first, 1);
        assert_eq!(table.hot(first), Some(10));
        assert_eq!(table.remove(first).as_deref(), Some(&1));
        assert_eq!(table.remove(first), None);
        let second = table.insert(Arc::new(2), 20).expect("room");
        assert_ne!(first, second);
        assert_eq!((table.hot(first), table.get(first)), (None, None));
        assert_eq!(table.get(second).as_deref(), Some(&2));
        assert_eq!((table.hot(0), table.hot(u64::MAX)), (None, None));
        // The third slot exists and was never used.
        assert_eq!(table.hot(3), None);
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn many_threads_see_their_own_entries() {
        let table = Table::new();
        std::thread::scope(|scope| {
            for thread in 0..4u32 {
                let table = &table;
                scope.spawn(move || {
                    for round in 0..2000u32 {
                        let ids: Vec<u64> = (0..8)
                            .map(|n| table.insert(Arc::new((thread, round, n)), n).expect("room"))
                            .collect();
                        for (n, id) in (0..).zip(&ids) {
                            assert_eq!(table.hot(*id), Some(n));
                            assert_eq!(table.get(*id).as_deref(), Some(&(thread, round, n)));
                        }
                        for id in ids {
                            assert!(table.remove(id).is_some());
                        }
                    }
                });
            }
        });
        assert_eq!(table.len(), 0);
    }
}
