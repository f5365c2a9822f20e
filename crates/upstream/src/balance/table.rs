use super::{maglev::Maglev, ring::HashRing};

/// A consistent hash.
#[derive(Debug)]
pub(super) enum ConsistentHash {
    Ring(HashRing),
    Maglev(Maglev),
}

impl ConsistentHash {
    pub(super) fn find(&self, hash: u64, acceptable: impl Fn(u32) -> bool) -> Option<u32> {
        match self {
            Self::Ring(ring) => ring.find(hash, acceptable),
            Self::Maglev(maglev) => maglev.find(hash, acceptable),
        }
    }
}
