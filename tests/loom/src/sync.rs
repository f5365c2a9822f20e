//! loom's types, under the program's names for the types that threads share.
//!
//! loom (0.7) searches for interleavings only by the last access to an atomic: if a thread loads and then swaps, loom
//! doesn't see that the swap also depends on an earlier load of another thread, and leaves out those interleavings. So
//! each access here follows a relaxed read-modify-write of a word beside the value, which depends on every other one.
//! Since it is relaxed, it orders nothing in memory.

use std::fmt;

use loom::sync::atomic;
pub(crate) use loom::sync::atomic::{Ordering, fence};

macro_rules! atomic {
    ($name:ident of $type:ty: $($arithmetic:ident)*) => {
        pub(crate) struct $name {
            value: atomic::$name,
            turn: atomic::AtomicUsize,
        }

        impl $name {
            pub(crate) fn new(value: $type) -> Self {
                Self { value: atomic::$name::new(value), turn: atomic::AtomicUsize::new(0) }
            }

            fn turn(&self) -> &atomic::$name {
                self.turn.fetch_add(1, Ordering::Relaxed);
                &self.value
            }

            pub(crate) fn load(&self, order: Ordering) -> $type {
                self.turn().load(order)
            }

            pub(crate) fn store(&self, value: $type, order: Ordering) {
                self.turn().store(value, order);
            }

            pub(crate) fn swap(&self, value: $type, order: Ordering) -> $type {
                self.turn().swap(value, order)
            }

            pub(crate) fn compare_exchange(
                &self,
                from: $type,
                to: $type,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$type, $type> {
                self.turn().compare_exchange(from, to, success, failure)
            }

            pub(crate) fn fetch_update(
                &self,
                set: Ordering,
                fetch: Ordering,
                mut next: impl FnMut($type) -> Option<$type>,
            ) -> Result<$type, $type> {
                let mut known = self.load(fetch);
                while let Some(value) = next(known) {
                    match self.compare_exchange(known, value, set, fetch) {
                        Ok(_) => return Ok(known),
                        Err(other) => known = other,
                    }
                }
                Err(known)
            }

            $(pub(crate) fn $arithmetic(&self, amount: $type, order: Ordering) -> $type {
                self.turn().$arithmetic(amount, order)
            })*
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new(<$type>::default())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    };
}

atomic!(AtomicBool of bool:);
atomic!(AtomicU32 of u32: fetch_add fetch_sub);
atomic!(AtomicU64 of u64: fetch_add fetch_sub);
