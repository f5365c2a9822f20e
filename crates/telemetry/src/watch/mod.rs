//! The live view for operators: the last failures with all details, exchanges when they end, and the share of each endpoint.
//!
//! Rule: as long as nobody watches, a successful request pays one relaxed load for all of this. Only failures are always kept: each worker
//! writes them into its own ring. Only a reader takes the ring's lock too, and the worker never waits for it. A tap is a bounded queue;
//! records that don't fit are dropped, counted and reported.
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

use self::{clients::CallsByClient, events::Events, failures::FailureRing, tap::Tap};
pub use self::{
    events::ChangeEvent,
    groups::{FailureGroup, FailureKind},
    headers::SeenHeaders,
    record::ExchangeRecord,
    tap::{OpenTap, TapFilter, TapResult},
};
pub(crate) use self::{events::StateChange, groups::QUIET};
use crate::{Exchange, Reason, metrics::MIN_CLIENT_WAIT};

/// Bit of [`WatchState::flags`]: a client follows exchanges.
const TAPPED: u32 = 1;
/// Bit of [`WatchState::flags`]: a client requests endpoint statistics.
const ENDPOINTS: u32 = 2;

/// The data that workers write for the admin API. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Watch(Arc<WatchState>);

#[derive(Debug, Default)]
struct WatchState {
    /// What readers want. Only readers write it, so all workers share its cache line.
    flags: AtomicU32,
    taps: ArcSwap<Vec<Arc<Tap>>>,
    /// Readers hold it while they open or close a tap.
    changing: Mutex<()>,
    /// One for each worker that has seen a failure, or a call while calls were counted.
    rings: Mutex<Vec<Arc<Mutex<FailureRing>>>>,
    /// Failures that were dropped because their ring was being read.
    missed: AtomicU64,
    /// Notified when a kind of failure begins.
    begins: Notify,
    /// Written when a state changes, which is rare.
    events: Mutex<Events>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    /// The last failures of all workers, newest first.
    pub fn failures(&self, most: usize) -> Vec<ExchangeRecord> {
        let rings = lock(&self.0.rings).clone();
        let mut all: Vec<ExchangeRecord> = rings.iter().flat_map(|ring| lock(ring).all()).collect();
        all.sort_by_key(|record| std::cmp::Reverse(record.at));
        all.truncate(most);
        all
    }

    /// All failures since the start, by kind. The kind with the most recent failure comes first.
    pub fn groups(&self) -> Vec<FailureGroup> {
        let rings = lock(&self.0.rings).clone();
        let mut all = Vec::new();
        for ring in rings {
            lock(&ring).groups().merge_into(&mut all);
        }
        all.sort_by_key(|group| std::cmp::Reverse(group.last));
        all
    }

    /// 4xx responses of the upstreams themselves, by upstream and status. They are no failures if there are other responses too.
    pub fn client_errors(&self) -> Vec<FailureGroup> {
        let rings = lock(&self.0.rings).clone();
        let mut all = Vec::new();
        for ring in rings {
            lock(&ring).client_errors().merge_into(&mut all);
        }
        all.sort_by_key(|group| std::cmp::Reverse(group.last));
        all
    }

    /// Notes a change of state, see [`ChangeEvent`]. A worker never waits for a reader: if one holds the lock, the change is not noted.
    pub(crate) fn event(&self, change: StateChange) {
        if let Ok(mut events) = self.0.events.try_lock() {
            events.add(change, SystemTime::now());
        }
    }

    /// Notes a change of state of the process, not of an upstream.
    pub(crate) fn own_event(&self, kind: &'static str, what: &str) {
        self.event(StateChange { kind, what: what.to_owned(), ..StateChange::default() });
    }

    /// The last changes of state, newest first.
    pub fn events(&self) -> Vec<ChangeEvent> {
        lock(&self.0.events).all()
    }

    /// The clients since counting started, as JSON; those with the most calls first.
    pub fn clients(&self, most: usize) -> Vec<serde_json::Value> {
        let rings = lock(&self.0.rings).clone();
        let mut all = CallsByClient::default();
        for ring in rings {
            all.merge(lock(&ring).clients());
        }
        all.json(most)
    }

    /// Waits until a kind of failure begins that had not occurred for a while.
    pub(crate) async fn begins(&self) {
        self.0.begins.notified().await;
    }

    /// How many failures are missing, because they ended while the ring was being read.
    pub fn missed(&self) -> u64 {
        self.0.missed.load(Relaxed)
    }

    /// Sets whether the requests of each endpoint and each client are counted from now on. When it starts, the counts of clients start at
    /// 0.
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

    /// Follows exchanges when they end, until the [`OpenTap`] is dropped. `None` if the limit of taps is reached.
    pub fn tap(&self, filter: TapFilter) -> Option<OpenTap> {
        tap::begin(self, filter)
    }
}

/// One worker's side of a [`Watch`].
#[derive(Debug)]
pub(crate) struct WorkerWatch {
    watch: Watch,
    ring: OnceCell<Arc<Mutex<FailureRing>>>,
}

impl WorkerWatch {
    pub(crate) fn new(watch: &Watch) -> Self {
        Self { watch: watch.clone(), ring: OnceCell::new() }
    }

    /// Notes a change of state of an upstream.
    #[cold]
    pub(crate) fn event(
        &self,
        kind: &'static str,
        upstream: &Name,
        endpoint: Option<&str>,
        to: &str,
        because: &str,
    ) {
        self.watch.event(StateChange {
            kind,
            whose: format!("upstream {upstream}"),
            endpoint: endpoint.map(ToOwned::to_owned),
            what: to.to_owned(),
            because: because.to_owned(),
        });
    }

    /// Whether somebody follows exchanges and needs their headers.
    pub(crate) fn tapped(&self) -> bool {
        self.watch.0.flags.load(Relaxed) & TAPPED != 0
    }

    /// Notes that an exchange ended. Returns true if its endpoint must be counted.
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

    fn ring(&self) -> &Mutex<FailureRing> {
        self.ring.get_or_init(|| {
            let ring = Arc::<Mutex<FailureRing>>::default();
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

    /// Notes a 4xx response. A service may answer so often: this costs a lock without contention, and a search among a few kinds.
    fn client_error(&self, exchange: &Exchange, total: Duration) {
        if let Ok(mut ring) = self.ring().try_lock() {
            ring.client_error(exchange, total);
        }
    }

    #[cold]
    pub(crate) fn keep(&self, exchange: &Exchange, total: Duration) {
        let ring = self.ring();
        // This never waits: a reader holds the lock for as long as it takes to copy a hundred records.
        if let Ok(mut ring) = ring.try_lock() {
            if ring.push(exchange, total) {
                self.watch.0.begins.notify_one();
            }
        } else {
            self.watch.0.missed.fetch_add(1, Relaxed);
        }
    }
}

/// Whether an exchange must be remembered: it has a reason or a 5xx. Of the clients that left, only those that had waited without a result
/// count: the others are too many, and they are no failure of the service.
fn failed(exchange: &Exchange, total: Duration) -> bool {
    match exchange.reason.get() {
        Some(Reason::ClientClosed) => {
            // An exchange whose client left while the request continued has been noted already.
            let is_new = exchange.status.get() == 0 && !exchange.left.get();
            is_new && total > MIN_CLIENT_WAIT && exchange.protocol.starts_with("http")
        }
        Some(_) => true,
        None => exchange.outcome() >= 500,
    }
}

#[cfg(test)]
mod tests;
