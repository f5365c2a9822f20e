//! Numbers by which what lives as long as an upstream or an endpoint is found again.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number that nothing else in the process has had: unlike an address in memory it is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Id(u64);

impl Id {
    /// The next one.
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_comes_twice() {
        assert_ne!(Id::next(), Id::next());
    }
}
