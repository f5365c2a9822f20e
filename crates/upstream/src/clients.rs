//! How many requests each client has running on an upstream, over all workers (`circuit_breaker.max_requests_per_client`).
//!
//! **Rule.** A client is an address; for IPv6 it is a /64, since one host usually gets a /64. It may have that many
//! running requests; one more is refused with `overflow-client`. Clients without an address, those of Unix sockets,
//! have no limit.
//!
//! **How.** A count-min sketch (Cormode and Muthukrishnan, 2005): two rows of counters, and each client has one counter
//! in each row, by a hash that no client can predict. So there is no lock, no allocation and no limit on the number of
//! clients. A client is refused only if *both* of its counters are at the limit. If it shares one of them with another
//! client, it shares the other one as well only once in [`SLOTS`] cases. So a client is refused for its own requests.

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

/// Counters in a row; both take 32 KiB.
const SLOTS: usize = 4096;

/// The counters of both rows, side by side.
type Slots = [[AtomicU32; 2]];

/// The counters of one upstream.
#[derive(Debug)]
pub(crate) struct ClientCounts {
    slots: Arc<Slots>,
    hashes: RandomState,
    limit: u32,
}

/// One running request in its client's counts, until it is dropped.
#[derive(Debug)]
pub(crate) struct ClientShare {
    slots: Arc<Slots>,
    places: [usize; 2],
}

impl ClientCounts {
    pub(crate) fn new(limit: u32) -> Self {
        let slots = (0..SLOTS).map(|_| Default::default()).collect();
        Self { slots, hashes: RandomState::new(), limit }
    }

    /// One more request of this client; `None` if it is at its limit.
    pub(crate) fn take(&self, client: IpAddr) -> Option<ClientShare> {
        let network = match client.to_canonical() {
            IpAddr::V4(address) => u64::from(address.to_bits()),
            // The upper half never equals an IPv4 address, since hosts have addresses of 2000::/3.
            IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
        };
        let hash = self.hashes.hash_one((client.to_canonical().is_ipv4(), network));
        let places = [hash as usize % SLOTS, (hash >> 32) as usize % SLOTS];
        let share = ClientShare { slots: Arc::clone(&self.slots), places };
        // The counters are raised before they are read, so that of two racing calls one is over the limit. A refused
        // call lowers them when it is dropped.
        let free = share.counters().filter(|counter| counter.fetch_add(1, Relaxed) < self.limit).count();
        (free > 0).then_some(share)
    }
}

impl ClientShare {
    fn counters(&self) -> impl Iterator<Item = &AtomicU32> {
        self.places.iter().enumerate().filter_map(|(row, place)| self.slots.get(*place)?.get(row))
    }
}

impl Drop for ClientShare {
    fn drop(&mut self) {
        for counter in self.counters() {
            counter.fetch_sub(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u32) -> IpAddr {
        IpAddr::V4(n.into())
    }

    #[test]
    fn a_client_has_as_many_as_it_may_and_others_theirs() {
        let clients = ClientCounts::new(3);
        let mut greedy: Vec<_> = (0..3).map(|_| clients.take(address(1)).unwrap()).collect();
        assert!(clients.take(address(1)).is_none());
        // One of 1,000 others shares both of its counters once in 4096² times.
        let others: Vec<_> = (2..1002).filter_map(|n| clients.take(address(n))).collect();
        assert!(others.len() >= 999, "{}", others.len());
        // So many clients at once may well share both counters of the first one.
        drop(others);
        greedy.pop();
        assert!(clients.take(address(1)).is_some_and(|_| clients.take(address(1)).is_none()));
    }

    #[test]
    fn a_host_s_addresses_of_ipv6_are_one_client_and_a_mapped_one_is_its_ipv4() {
        let clients = ClientCounts::new(1);
        let held = clients.take("2001:db8::1".parse().unwrap());
        assert!(held.is_some() && clients.take("2001:db8::ffff:1".parse().unwrap()).is_none());
        assert!(clients.take("2001:db8:0:1::1".parse().unwrap()).is_some());
        let mapped = clients.take("::ffff:10.0.0.1".parse().unwrap());
        assert!(mapped.is_some() && clients.take("10.0.0.1".parse().unwrap()).is_none());
    }

    #[test]
    fn a_dropped_share_lowers_the_counts_also_if_it_was_refused() {
        let clients = ClientCounts::new(1);
        for _ in 0..10 {
            let held = clients.take(address(7)).unwrap();
            assert!(clients.take(address(7)).is_none());
            drop(held);
        }
        assert!(clients.slots.iter().flatten().all(|counter| counter.load(Relaxed) == 0));
    }
}
