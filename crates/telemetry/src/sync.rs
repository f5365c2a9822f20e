//! The types that threads share, behind one name: `tests/loom` compiles the modules that use them with loom's types of the same names, and
//! runs them with every interleaving that the memory model allows.

pub(crate) use std::sync::atomic::{AtomicU64, Ordering, fence};
