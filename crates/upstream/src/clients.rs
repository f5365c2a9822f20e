//! How many requests each client has running on an upstream, over all workers (`circuit_breaker.max_requests_per_client`).
//!
//! **Rule.** A client is an address, and of IPv6 a /64, since that is what one host is given. It may have so many
//! requests running; one more is refused with `overflow-client`. Clients without an address, those of Unix sockets,
//! aren't bounded.
//!
//! **How.** A count-min sketch (Cormode and Muthukrishnan, 2005): two rows of counters, and each client has one in
//! either, by a hash that no client can foresee. So there is no lock, no allocation and no bound on the number of
//! clients. A client is refused only if *both* of its counters are at the limit; where another client shares one of
//! them, the other one is its own but once in [`SLOTS`] times. What a client is refused for is thus its own.

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
pub(crate) struct Clients {
    slots: Arc<Slots>,
    hashes: RandomState,
    limit: u32,
}

/// One running request in its client's counts, until it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    slots: Arc<Slots>,
    places: [usize; 2],
}

impl Clients {
    pub(crate) fn new(limit: u32) -> Self {
        let slots = (0..SLOTS).map(|_| Default::default()).collect();
        Self { slots, hashes: RandomState::new(), limit }
    }

    /// One more request of this client; `None` where it has as many as it may.
    pub(crate) fn take(&self, client: IpAddr) -> Option<Share> {
        let network = match client.to_canonical() {
            IpAddr::V4(address) => u64::from(address.to_bits()),
            // The upper half is no IPv4 address: 2000::/3 is what hosts have.
            IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
        };
        let hash = self.hashes.hash_one((client.to_canonical().is_ipv4(), network));
        let places = [hash as usize % SLOTS, (hash >> 32) as usize % SLOTS];
        let share = Share { slots: Arc::clone(&self.slots), places };
        // Raised before they are looked at, so that of two that race one is the last. The refused gives them back as it is dropped.
        let free = share.counters().filter(|counter| counter.fetch_add(1, Relaxed) < self.limit).count();
        (free > 0).then_some(share)
    }
}

impl Share {
    fn counters(&self) -> impl Iterator<Item = &AtomicU32> {
        self.places.iter().enumerate().filter_map(|(row, place)| self.slots.get(*place)?.get(row))
    }
}

impl Drop for Share {
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
        let clients = Clients::new(3);
        let mut greedy: Vec<_> = (0..3).map(|_| clients.take(address(1)).unwrap()).collect();
        assert!(clients.take(address(1)).is_none());
        // One of 1,000 others shares both of its counters once in 4096² times.
        let others: Vec<_> = (2..1002).filter_map(|n| clients.take(address(n))).collect();
        assert!(others.len() >= 999, "{}", others.len());
        // So many at once may well have a request in either of the first one's counters.
        drop(others);
        greedy.pop();
        assert!(clients.take(address(1)).is_some_and(|_| clients.take(address(1)).is_none()));
    }

    #[test]
    fn a_host_s_addresses_of_ipv6_are_one_client_and_a_mapped_one_is_its_ipv4() {
        let clients = Clients::new(1);
        let held = clients.take("2001:db8::1".parse().unwrap());
        assert!(held.is_some() && clients.take("2001:db8::ffff:1".parse().unwrap()).is_none());
        assert!(clients.take("2001:db8:0:1::1".parse().unwrap()).is_some());
        let mapped = clients.take("::ffff:10.0.0.1".parse().unwrap());
        assert!(mapped.is_some() && clients.take("10.0.0.1".parse().unwrap()).is_none());
    }

    #[test]
    fn what_is_dropped_is_given_back_also_by_the_refused() {
        let clients = Clients::new(1);
        for _ in 0..10 {
            let held = clients.take(address(7)).unwrap();
            assert!(clients.take(address(7)).is_none());
            drop(held);
        }
        assert!(clients.slots.iter().flatten().all(|counter| counter.load(Relaxed) == 0));
    }
}
