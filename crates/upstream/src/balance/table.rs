use super::{maglev::Maglev, ring::Ring};

/// A consistent hash.
#[derive(Debug)]
pub(super) enum Table {
    Ring(Ring),
    Maglev(Maglev),
}

impl Table {
    pub(super) fn find(&self, hash: u64, acceptable: impl Fn(u32) -> bool) -> Option<u32> {
        match self {
            Self::Ring(ring) => ring.find(hash, acceptable),
            Self::Maglev(maglev) => maglev.find(hash, acceptable),
        }
    }
}
