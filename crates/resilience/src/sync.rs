//! Types that threads share. `tests/loom` compiles the modules that use them with loom's types of the same names, and
//! runs them with every interleaving that the memory model allows.

pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
