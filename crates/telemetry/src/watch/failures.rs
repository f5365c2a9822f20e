//! The last failures of one worker.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use super::Record;
use crate::Exchange;

/// Failures that each worker remembers.
const KEPT: usize = 100;
/// Rings at once. There is one for each thread that ever saw a failure, and threads come and go only with the process.
const RINGS: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Ring(VecDeque<Record>);

impl Ring {
    /// The oldest makes room; its texts' memory is used again, so that a storm of failures allocates next to nothing.
    pub(super) fn push(&mut self, exchange: &Exchange, total: Duration) {
        let record = if self.0.len() < KEPT { None } else { self.0.pop_front() };
        self.0.push_back(match record {
            Some(mut record) => {
                record.fill(exchange, total);
                record
            }
            None => Record::of(exchange, total),
        });
    }

    pub(super) fn all(&self) -> Vec<Record> {
        self.0.iter().cloned().collect()
    }
}

pub(super) fn register(rings: &mut Vec<Arc<Mutex<Ring>>>, ring: &Arc<Mutex<Ring>>) {
    if rings.len() >= RINGS {
        // Those whose thread is gone.
        rings.retain(|ring| Arc::strong_count(ring) > 1);
    }
    rings.push(ring.clone());
}
