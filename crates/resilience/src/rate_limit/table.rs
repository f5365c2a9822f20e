//! A fixed number of buckets for any number of keys, without a lock.
//!
//! By its hash, a key belongs to one set of eight entries. It is found by comparison, or takes an entry that is empty
//! or whose bucket is full again (so that nothing is forgotten). Two workers that take an entry for one key at the same
//! moment find the same entry, since both search in the same order. If an entry gets another key while a worker uses
//! its bucket, the worker takes at most one token from the wrong key.

use std::{
    hash::{BuildHasher, RandomState},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

const PLACES: usize = 8;

/// A token bucket: the instant at which it will be full, nanoseconds.
#[derive(Debug, Default)]
pub(super) struct Bucket(AtomicU64);

impl Bucket {
    /// Takes a token, or says when the bucket will be full.
    pub(super) fn take(&self, token: u64, full: u64, now: u64) -> Result<(), u64> {
        self.0
            .fetch_update(Relaxed, Relaxed, |full_at| {
                let full_at = full_at.max(now).saturating_add(token);
                (full_at <= now.saturating_add(full)).then_some(full_at)
            })
            .map(drop)
    }

    fn is_full(&self, now: u64) -> bool {
        self.0.load(Relaxed) <= now
    }
}

#[derive(Debug, Default)]
struct BucketEntry {
    /// The key's hash; 0 if the entry is empty.
    key: AtomicU64,
    bucket: Bucket,
}

#[derive(Debug)]
pub(super) struct BucketTable {
    /// Keyed at random, so that a client can't make two keys collide.
    hasher: RandomState,
    places: Box<[[BucketEntry; PLACES]]>,
    /// The bucket for keys that found no entry.
    others: Bucket,
}

impl BucketTable {
    pub(super) fn new(keys: usize) -> Self {
        let places = (0..keys.div_ceil(PLACES)).map(|_| Default::default()).collect();
        Self { hasher: RandomState::new(), places, others: Bucket::default() }
    }

    /// The bucket of a key; `None` if the table has no entries at all.
    pub(super) fn bucket(&self, key: &[u8], now: u64) -> Option<&Bucket> {
        let hash = self.hasher.hash_one(key).max(1);
        let set = self.places.get((hash % self.places.len().max(1) as u64) as usize)?;
        if let Some(place) = set.iter().find(|place| place.key.load(Relaxed) == hash) {
            return Some(&place.bucket);
        }
        for place in set {
            let old = place.key.load(Relaxed);
            if old != 0 && !place.bucket.is_full(now) {
                continue;
            }
            match place.key.compare_exchange(old, hash, Relaxed, Relaxed) {
                Ok(_) => return Some(&place.bucket),
                Err(other) if other == hash => return Some(&place.bucket),
                Err(_) => {}
            }
        }
        Some(&self.others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_keeps_its_bucket_until_that_is_full_however_many_other_keys_come() {
        let table = BucketTable::new(PLACES);
        let take = |key: u8, now: u64| {
            table.bucket(&[key], now).is_some_and(|bucket| bucket.take(10, 10, now).is_ok())
        };
        for key in 0..8 {
            assert!(take(key, 0), "{key}");
        }
        assert!(take(100, 9), "the first key without an entry");
        for other in 101..110 {
            assert!(!take(other, 9), "they share one bucket");
        }
        for key in 0..8 {
            assert!(!take(key, 9), "{key} is not forgotten");
        }
        // Each bucket is full again at the instant 10: another key may take its entry.
        for key in 200..208 {
            assert!(take(key, 10), "{key}");
            assert!(!take(key, 10), "{key}");
        }
        assert!(!take(0, 10), "the eight entries are taken");
    }
}
