//! What an operator sees live: the last failures with their whole story, exchanges as they end, each endpoint's share.
//!
//! Rule: a successful request pays one relaxed load for all of this while no client watches. Only failures are always
//! kept: each worker writes them into its own ring, whose lock only a reader takes as well, and never waits for it. A
//! tap is a bounded queue; what doesn't fit is dropped, counted, and said.
//!
//! A reader runs on the control thread and never makes a worker wait.

mod clients;
mod events;
mod failures;
mod groups;
mod headers;
mod record;
mod tap;

use std::{
    cell::OnceCell,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use attache_config::model::Name;
use tokio::sync::Notify;

use self::{clients::Clients, events::Events, failures::Ring, tap::Tap};
pub(crate) use self::{events::Change, groups::QUIET};
pub use self::{
    events::Event,
    groups::{Group, Kind},
    headers::SeenHeaders,
    record::Record,
    tap::{TapFilter, Tapped, Tapping},
};
use crate::{Exchange, Reason, metrics::PATIENT};

/// Bit of [`Shared::flags`]: a client follows exchanges.
const TAPPED: u32 = 1;
/// Bit of [`Shared::flags`]: a client requests endpoint statistics.
const ENDPOINTS: u32 = 2;

/// The data that workers write for the admin API. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Watch(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// What is wanted; written by readers only, so its cache line stays shared by all workers.
    flags: AtomicU32,
    taps: ArcSwap<Vec<Arc<Tap>>>,
    /// Taken by readers when a tap begins or ends.
    changing: Mutex<()>,
    /// One for each worker that has seen a failure, or a call while calls were counted.
    rings: Mutex<Vec<Arc<Mutex<Ring>>>>,
    /// Failures that found their ring being read.
    missed: AtomicU64,
    /// Told when a kind of failure begins.
    begins: Notify,
    /// Written when a state changes, which is rare.
    events: Mutex<Events>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    /// The last failures of all workers, newest first.
    pub fn failures(&self, most: usize) -> Vec<Record> {
        let rings = lock(&self.0.rings).clone();
        let mut all: Vec<Record> = rings.iter().flat_map(|ring| lock(ring).all()).collect();
        all.sort_by_key(|record| std::cmp::Reverse(record.at));
        all.truncate(most);
        all
    }

    /// All failures since the start by kind; those that happened last come first.
    pub fn groups(&self) -> Vec<Group> {
        let rings = lock(&self.0.rings).clone();
        let mut all = Vec::new();
        for ring in rings {
            lock(&ring).groups().merge_into(&mut all);
        }
        all.sort_by_key(|group| std::cmp::Reverse(group.last));
        all
    }

    /// Answers with 4xx that are their upstreams' own, by upstream and status. They are no failures where others are among them.
    pub fn client_errors(&self) -> Vec<Group> {
        let rings = lock(&self.0.rings).clone();
        let mut all = Vec::new();
        for ring in rings {
            lock(&ring).client_errors().merge_into(&mut all);
        }
        all.sort_by_key(|group| std::cmp::Reverse(group.last));
        all
    }

    /// A state changed: see [`Event`]. A worker never waits for a reader; what finds one at it is left out.
    pub(crate) fn event(&self, change: Change) {
        if let Ok(mut events) = self.0.events.try_lock() {
            events.add(change, SystemTime::now());
        }
    }

    /// A state of the process changed, not of an upstream.
    pub(crate) fn own_event(&self, kind: &'static str, what: &str) {
        self.event(Change { kind, what: what.to_owned(), ..Change::default() });
    }

    /// The last changes of state, newest first.
    pub fn events(&self) -> Vec<Event> {
        lock(&self.0.events).all()
    }

    /// The clients since counting started, as JSON; those with the most calls first.
    pub fn clients(&self, most: usize) -> Vec<serde_json::Value> {
        let rings = lock(&self.0.rings).clone();
        let mut all = Clients::default();
        for ring in rings {
            all.merge(lock(&ring).clients());
        }
        all.json(most)
    }

    /// Waits until a kind of failure begins that was quiet.
    pub(crate) async fn begins(&self) {
        self.0.begins.notified().await;
    }

    /// Failures that are not among those, since they ended while they were being read.
    pub fn missed(&self) -> u64 {
        self.0.missed.load(Relaxed)
    }

    /// Whether each endpoint's and each client's requests are counted from now on. Clients begin anew with it.
    pub fn count_endpoints(&self, on: bool) {
        if on {
            self.0.flags.fetch_or(ENDPOINTS, Relaxed);
        } else {
            self.0.flags.fetch_and(!ENDPOINTS, Relaxed);
            let rings = lock(&self.0.rings).clone();
            for ring in rings {
                lock(&ring).forget_clients();
            }
        }
    }

    /// Follows exchanges as they end, until the [`Tapping`] is dropped. `None` if as many do already as may.
    pub fn tap(&self, filter: TapFilter) -> Option<Tapping> {
        tap::begin(self, filter)
    }
}

/// One worker's side of a [`Watch`].
#[derive(Debug)]
pub(crate) struct Watcher {
    watch: Watch,
    ring: OnceCell<Arc<Mutex<Ring>>>,
}

impl Watcher {
    pub(crate) fn new(watch: &Watch) -> Self {
        Self { watch: watch.clone(), ring: OnceCell::new() }
    }

    /// A state of an upstream changed.
    #[cold]
    pub(crate) fn event(
        &self,
        kind: &'static str,
        upstream: &Name,
        endpoint: Option<&str>,
        to: &str,
        because: &str,
    ) {
        self.watch.event(Change {
            kind,
            whose: format!("upstream {upstream}"),
            endpoint: endpoint.map(ToOwned::to_owned),
            what: to.to_owned(),
            because: because.to_owned(),
        });
    }

    /// Somebody follows exchanges, so headers are wanted.
    pub(crate) fn tapped(&self) -> bool {
        self.watch.0.flags.load(Relaxed) & TAPPED != 0
    }

    /// An exchange ended. True if its endpoint's share is wanted.
    pub(crate) fn ended(&self, exchange: &Exchange, total: Duration) -> bool {
        let flags = self.watch.0.flags.load(Relaxed);
        if failed(exchange, total) {
            self.keep(exchange, total);
        } else if (400..500).contains(&exchange.outcome()) && exchange.reason.get().is_none() {
            self.client_error(exchange, total);
        }
        if flags & TAPPED != 0 {
            tap::offer(&self.watch.0.taps.load(), exchange, total);
        }
        if flags & ENDPOINTS != 0 {
            self.client(exchange, total);
        }
        flags & ENDPOINTS != 0
    }

    fn ring(&self) -> &Mutex<Ring> {
        self.ring.get_or_init(|| {
            let ring = Arc::<Mutex<Ring>>::default();
            failures::register(&mut lock(&self.watch.0.rings), &ring);
            ring
        })
    }

    #[cold]
    fn client(&self, exchange: &Exchange, total: Duration) {
        if let Ok(mut ring) = self.ring().try_lock() {
            ring.client(exchange, total);
        }
    }

    /// A service may answer so often: it costs a lock without contention, and a look at a few kinds.
    fn client_error(&self, exchange: &Exchange, total: Duration) {
        if let Ok(mut ring) = self.ring().try_lock() {
            ring.client_error(exchange, total);
        }
    }

    #[cold]
    pub(crate) fn keep(&self, exchange: &Exchange, total: Duration) {
        let ring = self.ring();
        // Never waits: a reader holds it for as long as it takes to copy a hundred records.
        if let Ok(mut ring) = ring.try_lock() {
            if ring.push(exchange, total) {
                self.watch.0.begins.notify_one();
            }
        } else {
            self.watch.0.missed.fetch_add(1, Relaxed);
        }
    }
}

/// What is worth remembering: whatever has a reason or a 5xx; of clients that went away only those that had waited in vain, as the others
/// are too many and no failure of ours.
fn failed(exchange: &Exchange, total: Duration) -> bool {
    match exchange.reason.get() {
        Some(Reason::ClientClosed) => {
            // One that left while the request went on is there already.
            let is_new = exchange.status.get() == 0 && !exchange.left.get();
            is_new && total > PATIENT && exchange.protocol.starts_with("http")
        }
        Some(_) => true,
        None => exchange.outcome() >= 500,
    }
}

#[cfg(test)]
mod tests;
