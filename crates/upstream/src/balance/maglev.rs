//! Consistent hashing by lookup table (Eisenbud et al., "Maglev", NSDI 2016, section 3.4).
//!
//! Every endpoint has its own order of the table's slots (offset and skip come from its label). In turns, each endpoint
//! takes the first free slot in its order, until the table is full. The number of turns of an endpoint is in proportion
//! to its weight. If the endpoint of a key's slot is not acceptable, the slot of the key hashed again is tried, and at
//! last the following slots.

use std::sync::Arc;

use crate::Endpoint;
use crate::hash::{hash_bytes, mix};

/// Slots: a prime, as the paper's. The size is the same for every number of endpoints, because another size would move every key.
pub(super) const SLOTS: usize = 65_537;
/// Hashes tried before the table is walked.
const REHASHES: usize = 16;

#[derive(Debug)]
pub(super) struct Maglev {
    pub(super) slots: Vec<u32>,
}

impl Maglev {
    pub(super) fn build(members: &[u32], endpoints: &[Arc<Endpoint>]) -> Self {
        struct MaglevMember {
            member: u32,
            weight: f64,
            taken: f64,
            slot: usize,
            skip: usize,
        }
        let mut entries: Vec<MaglevMember> = members
            .iter()
            .filter_map(|&member| {
                let endpoint = endpoints.get(member as usize)?;
                let hash = hash_bytes(endpoint.label.as_bytes());
                let slot = (hash % SLOTS as u64) as usize;
                let skip = (mix(hash) % (SLOTS as u64 - 1) + 1) as usize;
                Some(MaglevMember { member, weight: f64::from(endpoint.weight()), taken: 0.0, slot, skip })
            })
            .collect();
        let heaviest = entries.iter().map(|e| e.weight).fold(1.0, f64::max);
        let mut slots = vec![u32::MAX; SLOTS];
        let mut free = if entries.is_empty() { 0 } else { SLOTS };
        let mut round = 0.0;
        while free > 0 {
            round += 1.0;
            for entry in &mut entries {
                if free == 0 || entry.taken >= round * entry.weight / heaviest {
                    continue;
                }
                entry.taken += 1.0;
                // SLOTS is prime: every skip visits every slot, so a free one is found.
                while let Some(slot) = slots.get_mut(entry.slot) {
                    entry.slot = (entry.slot + entry.skip) % SLOTS;
                    if *slot == u32::MAX {
                        *slot = entry.member;
                        free -= 1;
                        break;
                    }
                }
            }
        }
        Self { slots }
    }

    pub(super) fn find(&self, hash: u64, acceptable: impl Fn(u32) -> bool) -> Option<u32> {
        let mut hash = hash;
        for _ in 0..REHASHES {
            let member = *self.slots.get((hash % SLOTS as u64) as usize)?;
            if acceptable(member) {
                return Some(member);
            }
            hash = mix(hash);
        }
        let (before, behind) = self.slots.split_at_checked((hash % SLOTS as u64) as usize)?;
        let mut last = u32::MAX;
        behind.iter().chain(before).copied().find(|&member| {
            let new = member != last;
            last = member;
            new && acceptable(member)
        })
    }
}
