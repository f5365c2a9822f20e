//! Counts requests by client, as long as the admin API is asked for this.
//!
//! Rule: a client is its verified identity, or else its address without the port. Each worker keeps [`MAX_CLIENTS`] of them. A further
//! client replaces the one with the fewest requests and inherits that count, which is then its upper bound (the space-saving algorithm of
//! Metwally, Agrawal and El Abbadi, 2005). So a client that calls often stays, however many other clients call once.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, SystemTime},
};

use attache_config::model::Name;
use serde_json::{Value, json};

use super::failed;
use crate::{Exchange, rfc3339};

/// How many clients each worker keeps.
const MAX_CLIENTS: usize = 256;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum ClientId {
    Identity(Name),
    Address(IpAddr),
    Unknown,
}

/// The counts of one client of one listener since counting started.
#[derive(Clone, Debug)]
struct Calls {
    requests: u64,
    /// How many of [`Self::requests`] may belong to other clients.
    inherited: u64,
    failed: u64,
    time: Duration,
    slowest: Duration,
    last: SystemTime,
    reason: Option<&'static str>,
}

impl Default for Calls {
    fn default() -> Self {
        Self {
            requests: 0,
            inherited: 0,
            failed: 0,
            time: Duration::ZERO,
            slowest: Duration::ZERO,
            last: SystemTime::UNIX_EPOCH,
            reason: None,
        }
    }
}

/// The clients of one worker, or of several workers together.
#[derive(Clone, Debug, Default)]
pub(super) struct CallsByClient(HashMap<(Name, ClientId), Calls>);

impl CallsByClient {
    pub(super) fn add(&mut self, exchange: &Exchange, total: Duration) {
        let who = match (&*exchange.identity.borrow(), exchange.client) {
            (Some(identity), _) => ClientId::Identity(identity.clone()),
            (None, Some(address)) => ClientId::Address(address.ip().to_canonical()),
            (None, None) => ClientId::Unknown,
        };
        let key = (exchange.listener.clone(), who);
        if !self.0.contains_key(&key) && self.0.len() >= MAX_CLIENTS {
            let fewest = self.0.iter().min_by_key(|(_, calls)| calls.requests).map(|(key, _)| key.clone());
            let inherited =
                fewest.and_then(|fewest| self.0.remove(&fewest)).map_or(0, |calls| calls.requests);
            self.0.insert(key.clone(), Calls { requests: inherited, inherited, ..Calls::default() });
        }
        let calls = self.0.entry(key).or_default();
        calls.requests += 1;
        calls.time += total;
        calls.slowest = calls.slowest.max(total);
        calls.last = SystemTime::now();
        if failed(exchange, total) {
            calls.failed += 1;
            calls.reason = exchange.reason.get().map(crate::Reason::as_str);
        }
    }

    /// Adds the counts of another worker.
    pub(super) fn merge(&mut self, other: &Self) {
        for (key, theirs) in &other.0 {
            let ours = self.0.entry(key.clone()).or_default();
            ours.requests += theirs.requests;
            ours.inherited += theirs.inherited;
            ours.failed += theirs.failed;
            ours.time += theirs.time;
            ours.slowest = ours.slowest.max(theirs.slowest);
            if theirs.last > ours.last {
                (ours.last, ours.reason) = (theirs.last, theirs.reason.or(ours.reason));
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The clients with the most requests, in that order.
    pub(super) fn json(&self, most: usize) -> Vec<Value> {
        let mut all: Vec<_> = self.0.iter().collect();
        all.sort_by(|a, b| b.1.requests.cmp(&a.1.requests).then_with(|| a.0.0.cmp(&b.0.0)));
        let millis = |time: Duration| (time.as_secs_f64() * 100_000.0).round() / 100.0;
        all.truncate(most);
        all.into_iter()
            .map(|((listener, who), calls)| {
                let own = calls.requests.saturating_sub(calls.inherited).max(1);
                json!({
                    "listener": &**listener,
                    "client": match who {
                        ClientId::Identity(identity) => identity.to_string(),
                        ClientId::Address(address) => address.to_string(),
                        ClientId::Unknown => String::new(),
                    },
                    "verified": matches!(who, ClientId::Identity(_)),
                    "requests": calls.requests,
                    "at_least": calls.requests - calls.inherited,
                    "failed": calls.failed,
                    "mean_ms": millis(calls.time / u32::try_from(own).unwrap_or(u32::MAX)),
                    "slowest_ms": millis(calls.slowest),
                    "last": rfc3339(calls.last),
                    "last_reason": calls.reason,
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::Reason;

    fn call(clients: &mut CallsByClient, from: [u8; 4], identity: Option<&str>, reason: Option<Reason>) {
        let exchange = Exchange::new("inbound".into(), "http1", Some(SocketAddr::from((from, 4000))));
        exchange.identity.replace(identity.map(Name::from));
        exchange.reason.set(reason);
        exchange.status.set(200);
        clients.add(&exchange, Duration::from_millis(4));
    }

    #[test]
    fn a_client_is_its_identity_or_its_address_and_workers_are_added_up() {
        let (mut one, mut other) = (CallsByClient::default(), CallsByClient::default());
        call(&mut one, [10, 0, 0, 1], Some("spiffe://shop/web"), None);
        call(&mut other, [10, 0, 0, 2], Some("spiffe://shop/web"), Some(Reason::DeniedByRule));
        call(&mut other, [10, 0, 0, 3], None, None);
        one.merge(&other);
        let all = one.json(10);
        assert_eq!(all.len(), 2);
        assert_eq!((&all[0]["client"], &all[0]["requests"]), (&json!("spiffe://shop/web"), &json!(2)));
        assert_eq!((&all[0]["failed"], &all[0]["last_reason"]), (&json!(1), &json!("denied-by-rule")));
        assert_eq!((&all[0]["verified"], &all[1]["verified"]), (&json!(true), &json!(false)));
        assert_eq!(all[1]["client"], "10.0.0.3");
        assert_eq!(all[0]["mean_ms"], 4.0);
    }

    #[test]
    fn many_clients_with_one_call_do_not_displace_a_steady_one() {
        let mut clients = CallsByClient::default();
        for number in 0..20_000_u32 {
            let [_, b, c, d] = number.to_be_bytes();
            call(&mut clients, [10, b, c, d], None, None);
            call(&mut clients, [192, 0, 2, 1], None, None);
        }
        assert_eq!(clients.0.len(), MAX_CLIENTS);
        let first = &clients.json(1)[0];
        assert_eq!((&first["client"], &first["at_least"]), (&json!("192.0.2.1"), &json!(20_000)));
    }
}
