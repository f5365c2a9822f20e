//! Endpoints of hosts that requests name: forward proxy and original destination.
//!
//! The control thread ([`OnDemand`]) owns the hosts: one look-up for all requests that need it at the same time, one
//! [`SharedUpstream`] (and so one circuit breaker) per host for all workers, refreshed by TTL like any upstream. Each worker
//! has an [`OnDemandHosts`], a cache of its own, which it reads without a lock; only a host that is new to the worker
//! costs a message.
//!
//! - At most `max_hosts` at once: failed hosts are removed first, then the least recently used ones. A host that is
//!   unused for 5 min is removed as well. Its endpoints count as removed half a minute later, when no request can still
//!   choose among them.
//! - The failure of a look-up is remembered for `dns.retry_interval`.
//! - A flag notes the use of a host, and the control thread collects the flags every half minute: "recently" is only
//!   that exact.

use std::{
    borrow::Cow,
    cell::RefCell,
    collections::{HashMap, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use attache_config::model::{Address, AddressMatch, Dns, EndpointSource, EndpointTarget, Name, Upstream};
use attache_telemetry::Reason;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{AbortHandle, JoinSet},
    time::Instant,
};

use super::{
    Discovery,
    deny::{FilteredLookup, denied},
    lookup::{Lookup, LookupError},
    refresh::Schedule,
};
use crate::{EndpointAddress, EndpointSpec, SharedUpstream};

const SWEEP: Duration = Duration::from_secs(30);
const IDLE: Duration = Duration::from_mins(5);
/// The most look-ups that may wait for the control thread.
const MAX_WAITING_LOOKUPS: usize = 1024;
/// `max_hosts` of an upstream that sets none.
const MAX_HOSTS: usize = 1024;
const TOO_MANY: &str = "`max_hosts` names are being looked up";

/// A host as all workers see it.
#[derive(Debug)]
struct Host {
    shared: Arc<SharedUpstream>,
    used: AtomicBool,
    /// The host was removed from the cache: ask again.
    evicted: AtomicBool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum HostKey {
    Name(Name, u16),
    Address(SocketAddr),
}

/// The ports of one name.
type NamePorts = Vec<(u16, Arc<Host>)>;

type HostWaiter = oneshot::Sender<Result<Arc<Host>, LookupError>>;

/// The control thread's side. Dropping it ends all refreshes; workers then get `shutting-down` for new hosts.
#[derive(Debug)]
pub struct OnDemand {
    asks: mpsc::Sender<(HostKey, HostWaiter)>,
    task: AbortHandle,
}

impl Drop for OnDemand {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl OnDemand {
    /// Begins to answer for `config`, whose address is [`Address::Authority`] or [`Address::OriginalDestination`].
    /// Must be called within the control thread's runtime.
    pub fn start(config: Arc<Upstream>, lookup: Arc<impl Lookup>, dns: &Dns) -> Self {
        let (max_hosts, deny) = match &config.address {
            Address::Authority { max_hosts, deny } => ((*max_hosts).max(1), deny.clone()),
            _ => (MAX_HOSTS, Vec::new()),
        };
        let (asks, receiver) = mpsc::channel(MAX_WAITING_LOOKUPS);
        let control = OnDemandControl {
            config,
            lookup: Arc::new(FilteredLookup { lookup, deny: deny.clone() }),
            schedule: Schedule::new(dns),
            negative: dns.retry_interval,
            max_hosts,
            deny,
            hosts: HashMap::new(),
            retired: VecDeque::new(),
            looking: JoinSet::new(),
        };
        Self { asks, task: tokio::spawn(control.run(receiver)).abort_handle() }
    }

    /// A cache for one worker.
    pub fn hosts(&self) -> OnDemandHosts {
        OnDemandHosts { asks: self.asks.clone(), names: RefCell::default(), addresses: RefCell::default() }
    }
}

/// A worker's side.
#[derive(Debug)]
pub struct OnDemandHosts {
    asks: mpsc::Sender<(HostKey, HostWaiter)>,
    /// By name, then port: found without an allocation.
    names: RefCell<HashMap<Name, NamePorts>>,
    addresses: RefCell<HashMap<SocketAddr, Arc<Host>>>,
}

impl OnDemandHosts {
    /// The upstream of `host:port`, if this worker knows it, without waiting. `host` is a name or an IP literal, without brackets.
    /// Keep the result for one request only.
    pub fn known(&self, host: &str, port: u16) -> Option<Arc<SharedUpstream>> {
        match host.parse::<IpAddr>() {
            Ok(ip) => self.known_address(SocketAddr::new(ip, port)),
            Err(_) => self.known_name(&in_lower_case(host), port),
        }
    }

    /// The upstream of one address, if this worker knows it.
    pub fn known_address(&self, address: SocketAddr) -> Option<Arc<SharedUpstream>> {
        let addresses = self.addresses.borrow();
        addresses.get(&address).filter(|host| host.fresh()).map(|host| host.shared.clone())
    }

    fn known_name(&self, name: &str, port: u16) -> Option<Arc<SharedUpstream>> {
        let names = self.names.borrow();
        let known = names.get(name)?.iter().find(|(known, host)| *known == port && host.fresh());
        known.map(|(_, host)| host.shared.clone())
    }

    /// The upstream of `host:port`, looked up if it isn't known. `host` is a name or an IP literal, without brackets.
    /// Keep the result for one request only.
    ///
    /// Errors: the look-up's reason; `denied-destination`; `dns-timeout` at `deadline` (the look-up goes on);
    /// `overloaded` if `max_hosts` are being looked up; `shutting-down`.
    pub async fn get(
        &self,
        host: &str,
        port: u16,
        deadline: Option<Instant>,
    ) -> Result<Arc<SharedUpstream>, LookupError> {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return self.get_address(SocketAddr::new(ip, port), deadline).await;
        }
        let host = in_lower_case(host);
        if let Some(shared) = self.known_name(&host, port) {
            return Ok(shared);
        }
        let name: Name = host.as_ref().into();
        let host = self.ask(HostKey::Name(name.clone(), port), deadline).await?;
        let mut names = self.names.borrow_mut();
        // Evicted hosts leave when a new one comes.
        names.retain(|_, ports| {
            ports.retain(|(_, host)| !host.evicted.load(Relaxed));
            !ports.is_empty()
        });
        let ports = names.entry(name).or_default();
        // Another request of this worker may have asked too.
        if !ports.iter().any(|(known, _)| *known == port) {
            ports.push((port, host.clone()));
        }
        Ok(host.shared.clone())
    }

    /// The upstream of one address: no look-up, the same limits. For original destinations.
    ///
    /// Errors: as [`OnDemandHosts::get`].
    pub async fn get_address(
        &self,
        address: SocketAddr,
        deadline: Option<Instant>,
    ) -> Result<Arc<SharedUpstream>, LookupError> {
        if let Some(shared) = self.known_address(address) {
            return Ok(shared);
        }
        let host = self.ask(HostKey::Address(address), deadline).await?;
        let mut addresses = self.addresses.borrow_mut();
        addresses.retain(|_, host| !host.evicted.load(Relaxed));
        addresses.insert(address, host.clone());
        Ok(host.shared.clone())
    }

    async fn ask(&self, key: HostKey, deadline: Option<Instant>) -> Result<Arc<Host>, LookupError> {
        let (reply, answer) = oneshot::channel();
        self.asks.try_send((key, reply)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => LookupError::new(Reason::Overloaded, TOO_MANY),
            mpsc::error::TrySendError::Closed(_) => LookupError::new(Reason::ShuttingDown, ""),
        })?;
        let answer = match deadline {
            Some(deadline) => {
                let late =
                    |_| LookupError::new(Reason::DnsTimeout, "the look-up took longer than the deadline");
                tokio::time::timeout_at(deadline, answer).await.map_err(late)?
            }
            None => answer.await,
        };
        answer.unwrap_or_else(|_| Err(LookupError::new(Reason::ShuttingDown, "")))
    }
}

/// Allocates only for a host in capitals.
fn in_lower_case(host: &str) -> Cow<'_, str> {
    let capitals = host.bytes().any(|byte| byte.is_ascii_uppercase());
    if capitals { Cow::Owned(host.to_ascii_lowercase()) } else { Cow::Borrowed(host) }
}

impl Host {
    /// Whether it is still in the cache; if so, its use is noted.
    fn fresh(&self) -> bool {
        let fresh = !self.evicted.load(Relaxed);
        // Written once between two sweeps, so that workers don't compete for the cache line.
        if fresh && !self.used.load(Relaxed) {
            self.used.store(true, Relaxed);
        }
        fresh
    }
}

struct OnDemandControl<L> {
    config: Arc<Upstream>,
    lookup: Arc<FilteredLookup<L>>,
    schedule: Schedule,
    negative: Duration,
    max_hosts: usize,
    deny: Vec<AddressMatch>,
    hosts: HashMap<HostKey, HostEntry>,
    /// Evicted hosts whose endpoints are not yet removed.
    retired: VecDeque<(Instant, Arc<Host>)>,
    looking: JoinSet<HostKey>,
}

struct HostEntry {
    host: Arc<Host>,
    state: HostState,
    last_used: Instant,
    /// Refreshes the host; `None` for addresses and failed names.
    discovery: Option<Discovery>,
}

enum HostState {
    Looking(Vec<HostWaiter>),
    Ready,
    Failed(LookupError, Instant),
}

impl<L: Lookup> OnDemandControl<L> {
    async fn run(mut self, mut asks: mpsc::Receiver<(HostKey, HostWaiter)>) {
        let mut sweep = tokio::time::interval_at(Instant::now() + SWEEP, SWEEP);
        loop {
            tokio::select! {
                ask = asks.recv() => match ask {
                    Some((key, reply)) => self.answer(key, reply),
                    None => return,
                },
                Some(done) = self.looking.join_next() => {
                    if let Ok(key) = done {
                        self.settle(&key);
                    }
                }
                _ = sweep.tick() => self.sweep(),
            }
        }
    }

    fn answer(&mut self, key: HostKey, reply: HostWaiter) {
        let now = Instant::now();
        if let Some(entry) = self.hosts.get_mut(&key) {
            entry.last_used = now;
            match &mut entry.state {
                HostState::Looking(waiting) => return waiting.push(reply),
                HostState::Ready => return send(reply, Ok(entry.host.clone())),
                HostState::Failed(failure, until) if now < *until => {
                    return send(reply, Err(failure.clone()));
                }
                HostState::Failed(..) => {
                    self.hosts.remove(&key);
                }
            }
        }
        if matches!(key, HostKey::Address(address) if denied(&self.deny, address)) {
            return send(reply, Err(LookupError::new(Reason::DeniedDestination, "")));
        }
        if self.hosts.len() >= self.max_hosts && !self.make_room() {
            return send(reply, Err(LookupError::new(Reason::Overloaded, TOO_MANY)));
        }
        self.begin(key, reply, now);
    }

    fn begin(&mut self, key: HostKey, reply: HostWaiter, now: Instant) {
        let shared = Arc::new(SharedUpstream::new(self.config.clone()));
        let host = Arc::new(Host {
            shared: shared.clone(),
            used: AtomicBool::new(true),
            evicted: AtomicBool::new(false),
        });
        let (state, discovery) = match &key {
            HostKey::Address(address) => {
                shared.replace_endpoints(vec![EndpointSpec::new(EndpointAddress::Tcp(*address))], None);
                send(reply, Ok(host.clone()));
                (HostState::Ready, None)
            }
            HostKey::Name(name, port) => {
                let target = EndpointTarget::Dns { host: name.clone(), port: *port };
                let source = EndpointSource::new(target);
                let discovery = super::start_sources(shared, vec![source], &self.lookup, &self.schedule);
                let (mut untried, key): (watch::Receiver<usize>, HostKey) =
                    (discovery.untried.clone(), key.clone());
                self.looking.spawn(async move {
                    let _ = untried.wait_for(|&untried| untried == 0).await;
                    key
                });
                (HostState::Looking(vec![reply]), Some(discovery))
            }
        };
        self.hosts.insert(key, HostEntry { host, state, last_used: now, discovery });
    }

    /// The first look-up of a host has ended.
    fn settle(&mut self, key: &HostKey) {
        let Some(entry) = self.hosts.get_mut(key) else { return };
        let set = entry.host.shared.endpoints.load();
        let result = if set.endpoints.is_empty() {
            let detail = entry.host.shared.lookups.failure();
            let detail = detail.map_or_else(String::new, |detail| detail.as_str().to_owned());
            Err(LookupError::new(set.failure.unwrap_or(Reason::DnsFailed), detail))
        } else {
            Ok(entry.host.clone())
        };
        let state = match &result {
            Ok(_) => HostState::Ready,
            Err(failure) => HostState::Failed(failure.clone(), Instant::now() + self.negative),
        };
        if result.is_err() {
            entry.discovery = None;
        }
        if let HostState::Looking(waiting) = std::mem::replace(&mut entry.state, state) {
            for reply in waiting {
                send(reply, result.clone());
            }
        }
    }

    /// False if every host is being looked up.
    fn make_room(&mut self) -> bool {
        self.collect_use();
        let rank = |entry: &HostEntry| match entry.state {
            HostState::Looking(_) => None,
            HostState::Failed(..) => Some((0, entry.last_used)),
            HostState::Ready => Some((1, entry.last_used)),
        };
        let oldest = self
            .hosts
            .iter()
            .filter_map(|(key, entry)| Some((rank(entry)?, key)))
            .min_by_key(|(rank, _)| *rank);
        let Some(key) = oldest.map(|(_, key)| key.clone()) else { return false };
        self.evict(&key);
        true
    }

    fn collect_use(&mut self) {
        let now = Instant::now();
        for entry in self.hosts.values_mut() {
            if entry.host.used.swap(false, Relaxed) {
                entry.last_used = now;
            }
        }
    }

    fn evict(&mut self, key: &HostKey) {
        let Some(entry) = self.hosts.remove(key) else { return };
        entry.host.evicted.store(true, Relaxed);
        if !matches!(entry.state, HostState::Ready) {
            return;
        }
        self.retired.push_back((Instant::now(), entry.host));
        if self.retired.len() > self.max_hosts {
            self.retire_one();
        }
    }

    fn retire_one(&mut self) {
        if let Some((_, host)) = self.retired.pop_front() {
            host.shared.replace_endpoints(Vec::new(), None);
        }
    }

    fn sweep(&mut self) {
        let now = Instant::now();
        while self.retired.front().is_some_and(|(since, _)| now.duration_since(*since) >= SWEEP) {
            self.retire_one();
        }
        self.collect_use();
        let over = |entry: &HostEntry| match entry.state {
            HostState::Looking(_) => false,
            HostState::Failed(_, until) => now >= until,
            HostState::Ready => now.duration_since(entry.last_used) >= IDLE,
        };
        let over: Vec<HostKey> =
            self.hosts.iter().filter(|(_, entry)| over(entry)).map(|(key, _)| key.clone()).collect();
        for key in &over {
            self.evict(key);
        }
    }
}

/// The request that asked may have been cancelled.
fn send(reply: HostWaiter, result: Result<Arc<Host>, LookupError>) {
    let _ = reply.send(result);
}
