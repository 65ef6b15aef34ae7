//! For tests: the words of shared memory, as std's atomics or, in a model, as loom's.
//!
//! loom's own atomics cannot lie in memory that is shared with a kernel, so `memory.rs` finds
//! these, which lie there like std's. Inside a model each stands for an atomic of loom by its
//! address, and loom tries all orders that the memory model allows.

use std::any::Any;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

pub(super) use std::sync::atomic::Ordering;

thread_local! {
    /// By address. All threads of a model run on one thread of the system.
    static WORDS: RefCell<Option<HashMap<usize, Rc<dyn Any>>>> = const { RefCell::new(None) };
}

/// From here on this thread is in a model, until `end`.
pub(super) fn begin() {
    WORDS.with(|words| *words.borrow_mut() = Some(HashMap::new()));
}

/// Forgets what `begin` and `register` did.
pub(super) fn end() {
    WORDS.with(|words| *words.borrow_mut() = None);
}

/// `None` outside a model.
fn find<T: 'static>(address: usize) -> Option<Rc<T>> {
    WORDS.with(|words| {
        let words = words.borrow();
        let word = words.as_ref()?.get(&address);
        let word = word.expect("a word that the model was not told of");
        Some(Rc::clone(word).downcast().expect("a word of one type"))
    })
}

/// As std's.
pub(super) fn fence(order: Ordering) {
    if WORDS.with(|words| words.borrow().is_some()) {
        loom::sync::atomic::fence(order);
    } else {
        std::sync::atomic::fence(order);
    }
}

macro_rules! word {
    ($name:ident, $int:ty) => {
        #[repr(transparent)]
        pub(super) struct $name(std::sync::atomic::$name);

        // Each has what the code needs of it, and not more.
        #[allow(dead_code)]
        impl $name {
            /// Makes it known to the model, with the value it has, before threads start.
            pub(super) fn register(&self) {
                let word = loom::sync::atomic::$name::new(self.0.load(Ordering::Relaxed));
                WORDS.with(|words| {
                    let mut words = words.borrow_mut();
                    let words = words.as_mut().expect("a model");
                    words.insert(self.address(), Rc::new(word));
                });
            }

            fn address(&self) -> usize {
                std::ptr::from_ref(self).addr()
            }

            fn modelled(&self) -> Option<Rc<loom::sync::atomic::$name>> {
                find(self.address())
            }

            pub(super) fn load(&self, order: Ordering) -> $int {
                match self.modelled() {
                    Some(word) => word.load(order),
                    None => self.0.load(order),
                }
            }

            pub(super) fn store(&self, value: $int, order: Ordering) {
                match self.modelled() {
                    Some(word) => word.store(value, order),
                    None => self.0.store(value, order),
                }
            }

            pub(super) fn swap(&self, value: $int, order: Ordering) -> $int {
                match self.modelled() {
                    Some(word) => word.swap(value, order),
                    None => self.0.swap(value, order),
                }
            }

            pub(super) fn fetch_add(&self, value: $int, order: Ordering) -> $int {
                match self.modelled() {
                    Some(word) => word.fetch_add(value, order),
                    None => self.0.fetch_add(value, order),
                }
            }

            pub(super) fn compare_exchange(
                &self,
                old: $int,
                new: $int,
                order: Ordering,
                failed: Ordering,
            ) -> Result<$int, $int> {
                match self.modelled() {
                    Some(word) => word.compare_exchange(old, new, order, failed),
                    None => self.0.compare_exchange(old, new, order, failed),
                }
            }
        }
    };
}

word!(AtomicU32, u32);
word!(AtomicI32, i32);
word!(AtomicU64, u64);
