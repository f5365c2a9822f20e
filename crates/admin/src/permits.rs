//! Which connections a small server keeps when more are wanted than it has places for.
//!
//! Whoever reaches such a port can open connections and say nothing. A bound alone would then be the attack: the silent ones hold
//! every place, and the kubelet's probe or the API server's review waits behind them. So a full server takes the new connection and
//! cuts another: one that is waited for (its handshake, its request's head or body), or one that has been taking its answer for longer
//! than a second. Of these it is the oldest one of the client that has the most, so that a client alone loses its own. The
//! bytes that requests hold are bounded in the same way.
//!
//! A connection that came just now is left alone for a moment ([`GRACE`]): a client that opens connections as fast as it can must not
//! cut those of others before their first byte is read.

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

/// How long a connection may be silent before it can be cut.
const GRACE: Duration = Duration::from_millis(20);
/// How long an answer may take before its connection can be cut.
const SLOW: Duration = Duration::from_secs(1);

/// The places of one server. Clones are the same places.
#[derive(Clone, Debug)]
pub struct AdminPermits {
    most: usize,
    budget: usize,
    table: Arc<Mutex<Table>>,
    freed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    held: HashMap<u64, Occupant>,
}

#[derive(Debug)]
struct Occupant {
    client: Option<IpAddr>,
    phase: Phase,
    since: Instant,
    bytes: usize,
    cut: Arc<Notify>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The client has to say something first.
    Waiting,
    /// The answer is made, and taken by the client.
    Answering,
    /// What is answered lasts by its nature, and is bounded elsewhere.
    Lasting,
}

/// A connection's place; dropped with it.
#[derive(Debug)]
pub struct AdminPermit {
    id: u64,
    places: AdminPermits,
    cut: Arc<Notify>,
}

impl AdminPermits {
    /// So many connections at once, whose requests together hold so many bytes.
    pub fn new(most: usize, budget: usize) -> Self {
        Self { most, budget, table: Arc::default(), freed: Arc::default() }
    }

    /// A place for a connection of this client; `None` is a client of this machine without an address. Waits while every connection
    /// is being answered, which none may take long. May be dropped while it waits.
    pub async fn take(&self, client: Option<IpAddr>) -> AdminPermit {
        loop {
            let freed = self.freed.notified();
            let next = match self.try_take(client.map(network)) {
                Ok(place) => return place,
                Err(next) => next,
            };
            tokio::select! {
                () = freed => {}
                () = async { match next { Some(next) => sleep_until(next).await, None => std::future::pending().await } } => {}
            }
        }
    }

    /// A place, or when the next may be had if none is freed before.
    fn try_take(&self, client: Option<IpAddr>) -> Result<AdminPermit, Option<Instant>> {
        let now = Instant::now();
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if table.held.len() >= self.most {
            let victim = table.victim(now)?;
            table.cut(victim);
        }
        let id = table.next;
        table.next += 1;
        let cut = Arc::new(Notify::new());
        let held = Occupant { client, phase: Phase::Waiting, since: now, bytes: 0, cut: cut.clone() };
        table.held.insert(id, held);
        drop(table);
        Ok(AdminPermit { id, places: self.clone(), cut })
    }
}

impl Occupant {
    fn may_be_cut_at(&self) -> Option<Instant> {
        match self.phase {
            Phase::Waiting => Some(self.since + GRACE),
            Phase::Answering => Some(self.since + SLOW),
            Phase::Lasting => None,
        }
    }
}

impl Table {
    /// The one that is cut for a new connection; or from when on.
    fn victim(&self, now: Instant) -> Result<u64, Option<Instant>> {
        let slow = |held: &Occupant| held.phase == Phase::Answering && held.since + SLOW <= now;
        // Fresh ones count for their client, too: otherwise a burst would leave only others' to be cut.
        let all = self.held.iter().filter(|(_, held)| held.phase == Phase::Waiting || slow(held));
        let victim = oldest_of_the_most(all, |_| 1).and_then(|id| Some((id, self.held.get(&id)?)));
        match victim.and_then(|(id, held)| Some((id, held.may_be_cut_at()?))) {
            Some((id, at)) if at <= now => Ok(id),
            Some((_, at)) => Err(Some(at)),
            None => Err(self.held.values().filter_map(Occupant::may_be_cut_at).min()),
        }
    }

    /// The one that is cut for another's bytes: of those that hold some, the oldest of the client that holds the most.
    fn largest(&self) -> Option<u64> {
        let all = self.held.iter().filter(|(_, held)| held.bytes > 0 && held.phase == Phase::Waiting);
        oldest_of_the_most(all, |held| held.bytes)
    }

    fn cut(&mut self, id: u64) {
        if let Some(held) = self.held.remove(&id) {
            held.cut.notify_one();
        }
    }
}

/// Of the client that has the most, the oldest.
fn oldest_of_the_most<'h>(
    all: impl Iterator<Item = (&'h u64, &'h Occupant)>,
    weight: impl Fn(&Occupant) -> usize,
) -> Option<u64> {
    let mut clients: HashMap<Option<IpAddr>, (usize, Instant, u64)> = HashMap::new();
    for (id, held) in all {
        let entry = clients.entry(held.client).or_insert((0, held.since, *id));
        entry.0 += weight(held);
        if (held.since, *id) < (entry.1, entry.2) {
            (entry.1, entry.2) = (held.since, *id);
        }
    }
    // Of clients that have as many, the one that has been here for longest.
    let most = clients
        .into_values()
        .max_by_key(|(most, since, id)| (*most, std::cmp::Reverse(*since), std::cmp::Reverse(*id)));
    most.map(|(.., id)| id)
}

impl AdminPermit {
    /// The client has to say something: from here on the connection can be cut when others need its place.
    pub fn waits(&self) {
        self.enter(Phase::Waiting);
    }

    /// A request has come whole, and is answered.
    pub fn answers(&self) {
        self.enter(Phase::Answering);
    }

    /// What is answered lasts by its nature: the connection isn't cut.
    pub fn lasts(&self) {
        self.enter(Phase::Lasting);
    }

    fn enter(&self, phase: Phase) {
        self.with(|held| (held.phase, held.since) = (phase, Instant::now()));
    }

    fn with(&self, change: impl FnOnce(&mut Occupant)) {
        let mut table = self.places.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = table.held.get_mut(&self.id) {
            change(held);
        }
    }

    /// The request of this connection uses so many bytes more. Others that hold some are cut if that is over the
    /// budget; false if this one is to go.
    pub fn holds(&self, bytes: usize) -> bool {
        let mut table = self.places.table.lock().unwrap_or_else(PoisonError::into_inner);
        match table.held.get_mut(&self.id) {
            Some(held) => held.bytes += bytes,
            None => return false,
        }
        while table.held.values().map(|held| held.bytes).sum::<usize>() > self.places.budget {
            match table.largest() {
                Some(id) => table.cut(id),
                None => return false,
            }
            if !table.held.contains_key(&self.id) {
                return false;
            }
        }
        true
    }

    /// The request's bytes are given back.
    pub fn released(&self) {
        self.with(|held| held.bytes = 0);
    }

    /// Done when another connection needs this one's place or memory.
    pub async fn is_cut(&self) {
        self.cut.notified().await;
    }
}

impl Drop for AdminPermit {
    fn drop(&mut self) {
        let mut table = self.places.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.held.remove(&self.id);
        drop(table);
        self.places.freed.notify_one();
    }
}

/// What counts as one client: an IPv4 address, or an IPv6 /64, because the owner of one address of it has all of them.
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

    async fn is_cut(place: &AdminPermit) -> bool {
        timeout(Duration::ZERO, place.is_cut()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_connection_takes_the_place_of_the_oldest_silent_one_of_the_client_that_has_the_most() {
        let places = AdminPermits::new(4, 0);
        let probe = places.take(Some(ip("10.0.0.1"))).await;
        let mut silent = Vec::new();
        for _ in 0..3 {
            advance(Duration::from_millis(1)).await;
            silent.push(places.take(Some(ip("10.0.0.9"))).await);
        }
        let begin = Instant::now();
        let another = places.take(Some(ip("10.0.0.9"))).await;
        assert_eq!(
            begin.elapsed(),
            Duration::from_millis(18),
            "not before the oldest was silent for a moment"
        );
        assert!(is_cut(&silent[0]).await && !is_cut(&probe).await && !is_cut(&another).await);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_answered_is_cut_only_once_it_is_slow() {
        let places = AdminPermits::new(2, 0);
        let (first, second) =
            (places.take(Some(ip("10.0.0.1"))).await, places.take(Some(ip("10.0.0.2"))).await);
        first.answers();
        second.lasts();
        let begin = Instant::now();
        let _third = places.take(Some(ip("10.0.0.3"))).await;
        assert_eq!(begin.elapsed(), SLOW);
        assert!(is_cut(&first).await && !is_cut(&second).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_is_given_back_is_had_at_once() {
        let places = AdminPermits::new(1, 0);
        let first = places.take(None).await;
        first.answers();
        let begin = Instant::now();
        let (second, ()) = tokio::join!(places.take(None), async { drop(first) });
        assert_eq!(begin.elapsed(), Duration::ZERO);
        assert!(!is_cut(&second).await);
    }

    #[tokio::test(start_paused = true)]
    async fn the_bytes_of_requests_are_bounded_and_the_largest_client_pays() {
        let places = AdminPermits::new(9, 100);
        let (small, large, again) = (
            places.take(Some(ip("10.0.0.1"))).await,
            places.take(Some(ip("10.0.0.9"))).await,
            places.take(Some(ip("10.0.0.9"))).await,
        );
        assert!(large.holds(60) && again.holds(30) && small.holds(10));
        assert!(small.holds(10), "it has room, because another is cut");
        assert!(is_cut(&large).await && !is_cut(&again).await);
        assert!(!again.holds(71), "it is itself the largest");
        assert!(small.holds(80));
        small.released();
        assert!(small.holds(100));
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
