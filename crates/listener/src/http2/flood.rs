//! The limits that a client's floods are charged to: those of its connection and of its address.
//!
//! [`attache_http2::Flood`] has the prices and the credits. A client whose connection was ended could open a new one and begin with a full
//! bucket. So what a connection spends beyond its credit is also charged to the client's address. An address that has spent nothing has no
//! entry here.

use std::{cell::RefCell, collections::HashMap, net::IpAddr, rc::Rc};

use attache_config::model::HttpLimits;
use attache_http2::{Flood, FloodLimits, FloodPayer, TokenBucket};
use tokio::time::Instant;

use crate::registry::OpenConnection;

/// How many addresses are remembered. Above this number, those that have spent nothing are forgotten, and new ones are not remembered.
const MAX_ADDRESSES: usize = 4096;

thread_local! {
    static SPENT: RefCell<HashMap<IpAddr, TokenBucket>> = RefCell::default();
}

/// The client of one connection; its address is charged for all of its connections together.
#[derive(Debug)]
pub(crate) struct FloodAccount {
    address: Option<IpAddr>,
    /// What all connections of its address together may spend, in each worker.
    bounds: FloodLimits,
    live: Rc<OpenConnection>,
}

/// Counts the frames of a client's connection.
pub(super) fn flood(
    limits: &HttpLimits,
    address: Option<IpAddr>,
    live: Rc<OpenConnection>,
) -> Flood<FloodAccount> {
    let own = FloodLimits { rate: limits.h2_flood_rate.into(), burst: limits.h2_flood_burst.into() };
    let times = u64::from(limits.h2_flood_per_client);
    let bounds = FloodLimits { rate: own.rate.saturating_mul(times), burst: own.burst.saturating_mul(times) };
    Flood::new(own, FloodAccount { address, bounds, live })
}

impl FloodPayer for FloodAccount {
    const IS_SERVER: bool = false;
    const SECTION: &'static str = "http.limits";

    fn requests(&self) -> u64 {
        self.live.answered.get()
    }

    fn spend(&self, amount: u64, now: Instant) -> Result<(), (&'static str, &'static str)> {
        if spend(self.address, amount, self.bounds, now) {
            return Ok(());
        }
        Err(("the connections of this address", "h2_flood_per_client"))
    }
}

/// Charges an amount to the client's address. Returns false if the address has spent too much.
fn spend(client: Option<IpAddr>, amount: u64, bounds: FloodLimits, now: Instant) -> bool {
    let Some(client) = client.map(network) else { return true };
    SPENT.with_borrow_mut(|all| {
        if all.len() >= MAX_ADDRESSES && !all.contains_key(&client) {
            all.retain(|_, account| !account.fill(bounds, now));
            if all.len() >= MAX_ADDRESSES {
                return true;
            }
        }
        all.entry(client).or_insert_with(|| TokenBucket::full(bounds, now)).spend(amount, bounds, now)
    })
}

/// The network of an IPv6 client: each client has a network of its own (RFC 6177).
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & (u128::MAX << 64)).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use attache_http2::{FrameHeader, Meter as _, kind};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_address_may_spend_a_multiple_of_a_connection_and_earns_with_time() {
        let bounds = FloodLimits { rate: 20, burst: 200 };
        let client = Some("2001:db8::1".parse().unwrap());
        let neighbour = Some("2001:db8::ffff".parse().unwrap());
        assert!(spend(client, 200, bounds, Instant::now()));
        assert!(!spend(neighbour, 1, bounds, Instant::now()), "the same network");
        assert!(spend(Some("192.0.2.1".parse().unwrap()), 200, bounds, Instant::now()));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(spend(client, 20, bounds, Instant::now()));
        assert!(!spend(client, 1, bounds, Instant::now()));
        assert!(spend(None, u64::MAX, bounds, Instant::now()), "a Unix socket has no address");
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_connection_does_not_avoid_the_limit() {
        let limits = HttpLimits {
            h2_flood_rate: 1000,
            h2_flood_burst: 5000,
            h2_flood_per_client: 2,
            ..HttpLimits::default()
        };
        let client = Some("192.0.2.8".parse().unwrap());
        let connect = || flood(&limits, client, Rc::default());
        let ping = FrameHeader { length: 8, kind: kind::PING, flags: 0, stream: 0 };
        let mut spent = 0;
        for _ in 0..1000 {
            let mut flood = connect();
            // Just below the amount at which a connection is charged.
            spent += (0..150).take_while(|_| flood.received(ping).is_ok()).count();
        }
        assert!(spent < 120_000, "{spent}");
        let mut flood = connect();
        let ended = (1..1000).find_map(|n| Some((n, flood.received(ping).err()?.to_string())));
        let (n, words) = ended.unwrap();
        assert!(n <= 101 && words.contains("of this address"), "{n} {words}");
        assert!(words.contains("http.limits.h2_flood_per_client"), "{words}");
    }
}
