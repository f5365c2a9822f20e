//! The last failures of one worker, and its clients while they are counted.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use super::{Record, clients::Clients, groups::Groups};
use crate::Exchange;

/// Failures that each worker remembers.
const MAX_FAILURES: usize = 100;
/// Rings at once. There is one for each thread that ever saw a failure, and threads come and go only with the process.
const RINGS: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Ring {
    last: VecDeque<Record>,
    groups: Groups,
    /// Answers with 4xx that are their upstreams' own. Apart, so that they take no place of a failure.
    client_errors: Groups,
    clients: Clients,
}

impl Ring {
    /// The oldest makes room; its texts' memory is used again, so that a storm of failures allocates next to nothing.
    /// True if a kind of failure begins with it.
    pub(super) fn push(&mut self, exchange: &Exchange, total: Duration) -> bool {
        let record = if self.last.len() < MAX_FAILURES { None } else { self.last.pop_front() };
        self.last.push_back(match record {
            Some(mut record) => {
                record.fill(exchange, total);
                record
            }
            None => Record::of(exchange, total),
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

    pub(super) fn clients(&self) -> &Clients {
        &self.clients
    }

    pub(super) fn forget_clients(&mut self) {
        self.clients.clear();
    }

    pub(super) fn groups(&self) -> &Groups {
        &self.groups
    }

    pub(super) fn all(&self) -> Vec<Record> {
        self.last.iter().cloned().collect()
    }
}

pub(super) fn register(rings: &mut Vec<Arc<Mutex<Ring>>>, ring: &Arc<Mutex<Ring>>) {
    if rings.len() >= RINGS {
        // Those whose thread is gone.
        rings.retain(|ring| Arc::strong_count(ring) > 1);
    }
    rings.push(ring.clone());
}
