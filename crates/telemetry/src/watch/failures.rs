//! The last failures of one worker, and its clients while they are counted.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use super::{ExchangeRecord, clients::CallsByClient, groups::Groups};
use crate::Exchange;

/// How many failures each worker keeps.
const MAX_FAILURES: usize = 100;
/// The most rings. Each thread that ever had a failure has one, and threads start and end only with the process.
const RINGS: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct FailureRing {
    last: VecDeque<ExchangeRecord>,
    groups: Groups,
    /// 4xx responses of the upstreams themselves. They are separate, so that they don't displace failures.
    client_errors: Groups,
    clients: CallsByClient,
}

impl FailureRing {
    /// Adds a failure. The oldest one is removed, and the memory of its texts is used again, so that many failures allocate almost nothing.
    /// Returns true if a kind of failure begins.
    pub(super) fn push(&mut self, exchange: &Exchange, total: Duration) -> bool {
        let record = if self.last.len() < MAX_FAILURES { None } else { self.last.pop_front() };
        self.last.push_back(match record {
            Some(mut record) => {
                record.fill(exchange, total);
                record
            }
            None => ExchangeRecord::of(exchange, total),
        });
        self.groups.add(exchange, total)
    }

    pub(super) fn client_error(&mut self, exchange: &Exchange, total: Duration) {
        if exchange.upstream.borrow().is_some() {
            self.client_errors.add(exchange, total);
        }
    }

    pub(super) fn client_errors(&self) -> &Groups {
        &self.client_errors
    }

    pub(super) fn client(&mut self, exchange: &Exchange, total: Duration) {
        self.clients.add(exchange, total);
    }

    pub(super) fn clients(&self) -> &CallsByClient {
        &self.clients
    }

    pub(super) fn forget_clients(&mut self) {
        self.clients.clear();
    }

    pub(super) fn groups(&self) -> &Groups {
        &self.groups
    }

    pub(super) fn all(&self) -> Vec<ExchangeRecord> {
        self.last.iter().cloned().collect()
    }
}

pub(super) fn register(rings: &mut Vec<Arc<Mutex<FailureRing>>>, ring: &Arc<Mutex<FailureRing>>) {
    if rings.len() >= RINGS {
        // Removes the rings of threads that have ended.
        rings.retain(|ring| Arc::strong_count(ring) > 1);
    }
    rings.push(ring.clone());
}
