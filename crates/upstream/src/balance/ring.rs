//! Consistent hashing on a ring (Karger 1997), points as in ketama.
//!
//! An endpoint has 160 points for the mean weight, at least one; point i lies at `hash_bytes("LABEL_i")`. A key belongs
//! to the first point at or behind it, and to the next acceptable endpoint if that one is not. Points depend on the
//! endpoint alone (with equal weights), so if an endpoint leaves, only its own keys move.

use std::{fmt::Write as _, sync::Arc};

use crate::Endpoint;
use crate::hash::hash_bytes;

const POINTS: f64 = 160.0;

#[derive(Debug)]
pub(super) struct HashRing {
    points: Vec<(u64, u32)>,
}

impl HashRing {
    pub(super) fn build(members: &[u32], endpoints: &[Arc<Endpoint>]) -> Self {
        let listed = || members.iter().filter_map(|&i| Some((i, endpoints.get(i as usize)?)));
        let total: f64 = listed().map(|(_, e)| f64::from(e.weight())).sum();
        let mean = total / members.len().max(1) as f64;
        let mut points = Vec::new();
        let mut text = String::new();
        for (member, endpoint) in listed() {
            let count = (POINTS * f64::from(endpoint.weight()) / mean).round().max(1.0) as usize;
            for point in 0..count {
                text.clear();
                // Writing to a String can't fail.
                let _ = write!(text, "{}_{point}", endpoint.label);
                points.push((hash_bytes(text.as_bytes()), member));
            }
        }
        points.sort_unstable();
        Self { points }
    }

    pub(super) fn find(&self, hash: u64, acceptable: impl Fn(u32) -> bool) -> Option<u32> {
        let start = self.points.partition_point(|&(point, _)| point < hash);
        let (before, behind) = self.points.split_at_checked(start)?;
        behind.iter().chain(before).map(|&(_, member)| member).find(|&member| acceptable(member))
    }
}
