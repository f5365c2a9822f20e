//! What the clients of one address spent on all their connections to one worker.
//!
//! A flood that opens a new connection whenever one is ended would begin anew with each. So what a connection spends beyond what was
//! earned is also taken from its client's address. An address that spends nothing has no entry here.

use std::{cell::RefCell, collections::HashMap, net::IpAddr};

use tokio::time::Instant;

use super::flood::Bounds;

/// Addresses that are remembered. Beyond it those with nothing spent are forgotten, and further ones are not remembered.
const MOST: usize = 4096;

thread_local! {
    static SPENT: RefCell<HashMap<IpAddr, Account>> = RefCell::default();
}

/// A bucket that fills with time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account {
    left: u64,
    since: Instant,
}

impl Account {
    pub(super) fn full(burst: u64, now: Instant) -> Self {
        Self { left: burst, since: now }
    }

    fn fill(&mut self, rate: u64, burst: u64, now: Instant) {
        let earned = (now.duration_since(self.since).as_millis() as u64).saturating_mul(rate) / 1000;
        if earned > 0 {
            self.left = self.left.saturating_add(earned).min(burst);
            self.since = now;
        }
    }

    /// Takes what was spent; false where there is less.
    pub(super) fn spend(&mut self, amount: u64, rate: u64, burst: u64, now: Instant) -> bool {
        self.fill(rate, burst, now);
        let enough = self.left >= amount;
        self.left = self.left.saturating_sub(amount);
        enough
    }
}

/// Takes what was spent from the client's address; false where it has spent too much.
pub(super) fn spend(client: Option<IpAddr>, amount: u64, bounds: &Bounds, now: Instant) -> bool {
    let Some(client) = client.map(network) else { return true };
    let times = u64::from(bounds.per_client);
    let (rate, burst) = (bounds.rate.saturating_mul(times), bounds.burst.saturating_mul(times));
    SPENT.with_borrow_mut(|all| {
        if all.len() >= MOST && !all.contains_key(&client) {
            all.retain(|_, account| {
                account.fill(rate, burst, now);
                account.left < burst
            });
            if all.len() >= MOST {
                return true;
            }
        }
        all.entry(client).or_insert_with(|| Account::full(burst, now)).spend(amount, rate, burst, now)
    })
}

/// One client of IPv6 has a network of its own (RFC 6177).
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & (u128::MAX << 64)).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const BOUNDS: Bounds = Bounds { rate: 10, burst: 100, per_client: 2 };

    #[tokio::test(start_paused = true)]
    async fn an_address_has_a_multiple_of_a_connection_and_earns_with_time() {
        let client = Some("2001:db8::1".parse().unwrap());
        let neighbour = Some("2001:db8::ffff".parse().unwrap());
        assert!(spend(client, 200, &BOUNDS, Instant::now()));
        assert!(!spend(neighbour, 1, &BOUNDS, Instant::now()), "the same network");
        assert!(spend(Some("192.0.2.1".parse().unwrap()), 200, &BOUNDS, Instant::now()));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(spend(client, 20, &BOUNDS, Instant::now()));
        assert!(!spend(client, 1, &BOUNDS, Instant::now()));
        assert!(spend(None, u64::MAX, &BOUNDS, Instant::now()), "a Unix socket has no address");
    }
}
