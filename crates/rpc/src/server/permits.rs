//! Decides which connections a small server keeps when clients want more than it has permits for.
//!
//! Every client that reaches such a port can open connections and send nothing. With only a limit, idle connections could hold every
//! permit, and the kubelet's probe or the API server's review would wait for them. So a full server accepts the new connection and evicts
//! another: one whose client must send something (its handshake, or its request's head or body), or one whose answer has taken longer than
//! a second. Of these it evicts the oldest connection of the client that has the most, so that an attacker loses only its own connections.
//! The bytes of request bodies are limited in the same way.
//!
//! A connection that has just arrived can't be evicted for a moment ([`GRACE`]): a client that opens connections as fast as it can must not
//! evict those of others before their first byte is read.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// How long a new connection may send nothing before it can be evicted.
const GRACE: Duration = Duration::from_millis(20);
/// How long an answer may take before its connection can be evicted.
const SLOW: Duration = Duration::from_secs(1);

/// The permits of one server. Clones share them.
#[derive(Clone, Debug)]
pub struct ConnectionPermits {
    most: usize,
    budget: usize,
    table: Arc<Mutex<ConnectionTable>>,
    released: Arc<Notify>,
}

#[derive(Debug, Default)]
struct ConnectionTable {
    next: u64,
    connections: HashMap<u64, TrackedConnection>,
}

#[derive(Debug)]
struct TrackedConnection {
    client: Option<IpAddr>,
    phase: ConnectionPhase,
    since: Instant,
    bytes: usize,
    evicted: Arc<Notify>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConnectionPhase {
    /// The client must send something next.
    Waiting,
    /// The answer is being made or sent.
    Answering,
    /// The answer is long-lived by its nature; other limits apply to it.
    LongLived,
}

/// A connection's permit. It is dropped with the connection.
#[derive(Debug)]
pub struct ServerConnectionPermit {
    id: u64,
    permits: ConnectionPermits,
    evicted: Arc<Notify>,
}

impl ConnectionPermits {
    /// Permits for `most` connections at once, whose requests together may reserve `budget` bytes.
    pub fn new(most: usize, budget: usize) -> Self {
        Self { most, budget, table: Arc::default(), released: Arc::default() }
    }

    /// A permit for a connection of this client; `None` is a client on this machine without an address. It waits while every connection is
    /// being answered. The future may be dropped while it waits.
    pub async fn acquire(&self, client: Option<IpAddr>) -> ServerConnectionPermit {
        loop {
            let released = self.released.notified();
            let next = match self.try_acquire(client.map(network)) {
                Ok(permit) => return permit,
                Err(next) => next,
            };
            tokio::select! {
                () = released => {}
                () = async { match next { Some(next) => sleep_until(next).await, None => std::future::pending().await } } => {}
            }
        }
    }

    /// A permit, or the instant at which an eviction releases one if no permit is released before.
    fn try_acquire(&self, client: Option<IpAddr>) -> Result<ServerConnectionPermit, Option<Instant>> {
        let now = Instant::now();
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if table.connections.len() >= self.most {
            let victim = table.victim(now)?;
            table.evict(victim);
        }
        let id = table.next;
        table.next += 1;
        let evicted = Arc::new(Notify::new());
        let connection = TrackedConnection {
            client,
            phase: ConnectionPhase::Waiting,
            since: now,
            bytes: 0,
            evicted: evicted.clone(),
        };
        table.connections.insert(id, connection);
        drop(table);
        Ok(ServerConnectionPermit { id, permits: self.clone(), evicted })
    }
}

impl TrackedConnection {
    fn evictable_at(&self) -> Option<Instant> {
        match self.phase {
            ConnectionPhase::Waiting => Some(self.since + GRACE),
            ConnectionPhase::Answering => Some(self.since + SLOW),
            ConnectionPhase::LongLived => None,
        }
    }
}

impl ConnectionTable {
    /// The connection to evict for a new one, or the instant from which there is one.
    fn victim(&self, now: Instant) -> Result<u64, Option<Instant>> {
        let slow = |connection: &TrackedConnection| {
            connection.phase == ConnectionPhase::Answering && connection.since + SLOW <= now
        };
        // New connections count for their client too: otherwise, in a burst, only those of other clients could be evicted.
        let all = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.phase == ConnectionPhase::Waiting || slow(connection));
        let victim =
            oldest_of_the_largest_client(all, |_| 1).and_then(|id| Some((id, self.connections.get(&id)?)));
        match victim.and_then(|(id, connection)| Some((id, connection.evictable_at()?))) {
            Some((id, at)) if at <= now => Ok(id),
            Some((_, at)) => Err(Some(at)),
            None => Err(self.connections.values().filter_map(TrackedConnection::evictable_at).min()),
        }
    }

    /// The connection to evict for another connection's bytes: the oldest of the client that has reserved the most.
    fn largest(&self) -> Option<u64> {
        let all = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.bytes > 0 && connection.phase == ConnectionPhase::Waiting);
        oldest_of_the_largest_client(all, |connection| connection.bytes)
    }

    fn evict(&mut self, id: u64) {
        if let Some(connection) = self.connections.remove(&id) {
            connection.evicted.notify_one();
        }
    }
}

/// The oldest connection of the client that has the most.
fn oldest_of_the_largest_client<'h>(
    all: impl Iterator<Item = (&'h u64, &'h TrackedConnection)>,
    weight: impl Fn(&TrackedConnection) -> usize,
) -> Option<u64> {
    let mut clients: HashMap<Option<IpAddr>, (usize, Instant, u64)> = HashMap::new();
    for (id, connection) in all {
        let entry = clients.entry(connection.client).or_insert((0, connection.since, *id));
        entry.0 += weight(connection);
        if (connection.since, *id) < (entry.1, entry.2) {
            (entry.1, entry.2) = (connection.since, *id);
        }
    }
    // Of several clients with the same number, the one whose connection is the oldest.
    let most = clients
        .into_values()
        .max_by_key(|(most, since, id)| (*most, std::cmp::Reverse(*since), std::cmp::Reverse(*id)));
    most.map(|(.., id)| id)
}

impl ServerConnectionPermit {
    /// The client must send something: from now on the connection can be evicted at once.
    pub fn waiting(&self) {
        self.enter(ConnectionPhase::Waiting);
    }

    /// A request is complete and is being answered: the connection can be evicted when this has taken a second.
    pub fn answering(&self) {
        self.enter(ConnectionPhase::Answering);
    }

    /// The answer is long-lived by its nature (a stream, a lifecycle hook): the connection isn't evicted, and the server's timeout for
    /// connections doesn't apply.
    pub fn long_lived(&self) {
        self.enter(ConnectionPhase::LongLived);
    }

    fn enter(&self, phase: ConnectionPhase) {
        self.with(|connection| (connection.phase, connection.since) = (phase, Instant::now()));
    }

    /// Whether the connection has a long-lived answer.
    pub(super) fn is_long_lived(&self) -> bool {
        let mut long_lived = false;
        self.with(|connection| long_lived = connection.phase == ConnectionPhase::LongLived);
        long_lived
    }

    fn with(&self, change: impl FnOnce(&mut TrackedConnection)) {
        let mut table = self.permits.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = table.connections.get_mut(&self.id) {
            change(connection);
        }
    }

    /// Reserves more bytes for this connection's request. If the budget is exceeded, other connections that have reserved bytes are
    /// evicted. Returns false if this connection must be evicted itself.
    pub fn reserve(&self, bytes: usize) -> bool {
        let mut table = self.permits.table.lock().unwrap_or_else(PoisonError::into_inner);
        match table.connections.get_mut(&self.id) {
            Some(connection) => connection.bytes += bytes,
            None => return false,
        }
        while table.connections.values().map(|connection| connection.bytes).sum::<usize>()
            > self.permits.budget
        {
            match table.largest() {
                Some(id) => table.evict(id),
                None => return false,
            }
            if !table.connections.contains_key(&self.id) {
                return false;
            }
        }
        true
    }

    /// Releases the bytes of the request.
    pub fn release(&self) {
        self.with(|connection| connection.bytes = 0);
    }

    /// Completes when another connection needs this one's permit or memory.
    pub async fn evicted(&self) {
        self.evicted.notified().await;
    }
}

impl Drop for ServerConnectionPermit {
    fn drop(&mut self) {
        let mut table = self.permits.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.connections.remove(&self.id);
        drop(table);
        self.permits.released.notify_one();
    }
}

/// The network that counts as one client: an IPv4 address, or an IPv6 /64, because the owner of one address has all addresses of its /64.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => {
            let mut bytes = address.octets();
            bytes[8..].fill(0);
            IpAddr::from(bytes)
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, timeout};

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    async fn is_evicted(permit: &ServerConnectionPermit) -> bool {
        timeout(Duration::ZERO, permit.evicted()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_connection_evicts_the_oldest_idle_one_of_the_client_that_has_the_most() {
        let permits = ConnectionPermits::new(4, 0);
        let probe = permits.acquire(Some(ip("10.0.0.1"))).await;
        let mut silent = Vec::new();
        for _ in 0..3 {
            advance(Duration::from_millis(1)).await;
            silent.push(permits.acquire(Some(ip("10.0.0.9"))).await);
        }
        let begin = Instant::now();
        let another = permits.acquire(Some(ip("10.0.0.9"))).await;
        assert_eq!(
            begin.elapsed(),
            Duration::from_millis(18),
            "not before the oldest has been idle for a moment"
        );
        assert!(is_evicted(&silent[0]).await && !is_evicted(&probe).await && !is_evicted(&another).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_being_answered_is_evicted_only_when_slow() {
        let permits = ConnectionPermits::new(2, 0);
        let (first, second) =
            (permits.acquire(Some(ip("10.0.0.1"))).await, permits.acquire(Some(ip("10.0.0.2"))).await);
        first.answering();
        second.long_lived();
        let begin = Instant::now();
        let _third = permits.acquire(Some(ip("10.0.0.3"))).await;
        assert_eq!(begin.elapsed(), SLOW);
        assert!(is_evicted(&first).await && !is_evicted(&second).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_released_permit_is_available_at_once() {
        let permits = ConnectionPermits::new(1, 0);
        let first = permits.acquire(None).await;
        first.answering();
        let begin = Instant::now();
        let (second, ()) = tokio::join!(permits.acquire(None), async { drop(first) });
        assert_eq!(begin.elapsed(), Duration::ZERO);
        assert!(!is_evicted(&second).await);
    }

    #[tokio::test(start_paused = true)]
    async fn the_bytes_of_requests_are_bounded_and_the_largest_client_pays() {
        let permits = ConnectionPermits::new(9, 100);
        let (small, large, again) = (
            permits.acquire(Some(ip("10.0.0.1"))).await,
            permits.acquire(Some(ip("10.0.0.9"))).await,
            permits.acquire(Some(ip("10.0.0.9"))).await,
        );
        assert!(large.reserve(60) && again.reserve(30) && small.reserve(10));
        assert!(small.reserve(10), "another connection is evicted for it");
        assert!(is_evicted(&large).await && !is_evicted(&again).await);
        assert!(!again.reserve(71), "this connection has reserved the most itself");
        assert!(small.reserve(80));
        small.release();
        assert!(small.reserve(100));
    }

    #[test]
    fn an_ipv6_network_is_one_client() {
        let one = |text: &str| network(text.parse().unwrap());
        assert_eq!(one("fd00::1"), one("fd00::ffff"));
        assert_ne!(one("fd00::1"), one("fd00:0:0:1::1"));
        assert_eq!(one("::ffff:10.0.0.1"), one("10.0.0.1"));
        assert_ne!(one("10.0.0.1"), one("10.0.0.2"));
    }
}
