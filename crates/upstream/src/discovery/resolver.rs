//! From a name to addresses, as libc does it in a pod.
//!
//! 1. An IP literal is itself; `localhost` is loopback; a name of the hosts file is what the file says.
//! 2. A name with a final dot is looked up unchanged. Any other name is looked up unchanged first if it has at least
//!    `ndots` dots, then below each search domain in turn, and then unchanged if it was not yet. The first name with an
//!    address of a wanted family ends the search: A and AAAA records are never taken from two different names.
//! 3. After NXDOMAIN, an empty answer, SERVFAIL or REFUSED the next name is tried; no answer at all ends the search (as
//!    in glibc). Without any address the result is NXDOMAIN only if every name was NXDOMAIN.
//! 4. If a name has both families, addresses without a route are dropped: see `routes`.
//! 5. SRV names are searched in the same way: see `service`.
//!
//! `resolv.conf` is read again when it has changed; if it can't be read, its last content stays in use.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use attache_config::model::{self, Dns, DnsFamily, EndpointTarget};
use attache_telemetry::Reason;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

use super::{
    hosts::Hosts,
    lookup::{DiscoveredAddress, Lookup, LookupAnswer, LookupError, LookupGap},
    resolv_conf::ResolvConf,
    routes,
    servers::{LookupFailure, Servers},
};

/// After one family has answered, how much longer attache waits for the other.
const OTHER_FAMILY: Duration = Duration::from_secs(1);
/// How long an answer of the hosts file is valid, in seconds.
const HOSTS_TTL: u32 = 5;

/// The resolver of the control thread. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Resolver {
    pub(super) inner: Arc<ResolverState>,
}

#[derive(Debug)]
pub(super) struct ResolverState {
    pub(super) dns: Dns,
    hosts: Hosts,
    /// Whether there is a route; used if a name has both families.
    route: fn(IpAddr) -> bool,
    setup: Mutex<(Option<SystemTime>, Arc<ResolverSettings>)>,
}

/// The combined settings of resolv.conf and the config.
#[derive(Debug)]
pub(super) struct ResolverSettings {
    pub(super) servers: Servers,
    search: Vec<String>,
    ndots: usize,
}

/// One name's addresses.
#[derive(Clone, Debug)]
pub(super) struct ResolvedAddresses {
    pub(super) ips: Vec<IpAddr>,
    pub(super) ttl: u32,
    pub(super) gaps: Vec<(Option<bool>, LookupError)>,
}

type FamilyAnswer = Result<(Vec<IpAddr>, u32), LookupFailure>;

impl Resolver {
    /// A resolver by the config, with `/etc/hosts`. Without a readable `resolv.conf` and without configured servers it
    /// asks 127.0.0.1, as libc does.
    ///
    /// Errors: hickory's, if it can't be set up.
    pub fn new(dns: &Dns) -> std::io::Result<Self> {
        Self::with(dns, Path::new("/etc/hosts"), routes::exists)
    }

    /// The same with another hosts file and another view of the machine's routes.
    pub(super) fn with(dns: &Dns, hosts: &Path, route: fn(IpAddr) -> bool) -> std::io::Result<Self> {
        let text = std::fs::read_to_string(&dns.resolv_conf).or_else(|error| {
            // If the config names servers, the file isn't needed.
            if dns.servers.is_empty() {
                tracing::warn!(file = %dns.resolv_conf.display(), %error, "resolv.conf not read; asking 127.0.0.1");
            }
            Ok::<_, std::io::Error>(String::new())
        })?;
        let setup = ResolverSettings::new(dns, &ResolvConf::parse(&text))?;
        let setup = Mutex::new((modified(&dns.resolv_conf), Arc::new(setup)));
        Ok(Self {
            inner: Arc::new(ResolverState { dns: dns.clone(), hosts: Hosts::new(hosts), route, setup }),
        })
    }

    /// The addresses of a host name, with the name that it must prove in TLS.
    async fn host(&self, host: &str, port: u16) -> Result<LookupAnswer, LookupError> {
        let name: model::Name = host.strip_suffix('.').unwrap_or(host).into();
        let addresses = self.addresses(host).await.map_err(|miss| failure(host, miss))?;
        Ok(answer(addresses, &name, &name, port, 1, 0))
    }

    pub(super) async fn addresses(&self, host: &str) -> Result<ResolvedAddresses, LookupFailure> {
        let mut found = match self.inner.local(host) {
            Some(local) => local,
            None => self.by_dns(host).await,
        };
        if let Ok(addresses) = &mut found {
            self.keep_reachable(addresses);
        }
        found
    }

    pub(super) fn keep_reachable(&self, addresses: &mut ResolvedAddresses) {
        if self.inner.dns.family == DnsFamily::Auto {
            routes::keep_reachable(&mut addresses.ips, self.inner.route);
        }
    }

    async fn by_dns(&self, host: &str) -> Result<ResolvedAddresses, LookupFailure> {
        let setup = self.inner.setup();
        let family = self.inner.dns.family;
        let mut misses = LookupFailures::default();
        for name in setup.candidates(host)? {
            match setup.families(&name, family).await {
                Ok(addresses) => return Ok(addresses),
                Err(miss) => misses.add(miss)?,
            }
        }
        Err(misses.worst())
    }
}

impl Lookup for Resolver {
    async fn lookup(&self, target: &EndpointTarget) -> Result<LookupAnswer, LookupError> {
        match target {
            EndpointTarget::Dns { host, port } => self.host(host, *port).await,
            EndpointTarget::Srv { name } => self.service(name).await,
            EndpointTarget::Ip(address) => Ok(literal(*address)),
            EndpointTarget::Unix(path) => {
                Err(LookupError::new(Reason::DnsFailed, format!("{} is no name", path.display())))
            }
            // Its endpoints come from the API server: see `kubernetes`.
            EndpointTarget::Kubernetes(service) => {
                Err(LookupError::new(Reason::DnsFailed, format!("{service} is no name")))
            }
        }
    }
}

fn literal(address: SocketAddr) -> LookupAnswer {
    let name: model::Name = address.ip().to_string().into();
    let ips = vec![address.ip()];
    answer(ResolvedAddresses { ips, ttl: u32::MAX, gaps: Vec::new() }, &name, &name, address.port(), 1, 0)
}

impl ResolverState {
    /// The addresses of a name that needs no DNS.
    fn local(&self, host: &str) -> Option<Result<ResolvedAddresses, LookupFailure>> {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Some(Ok(ResolvedAddresses { ips: vec![ip], ttl: u32::MAX, gaps: Vec::new() }));
        }
        let ips = wanted(self.hosts.find(host)?, self.dns.family);
        let none = ips.is_empty();
        Some(if none {
            Err(LookupFailure::NoData)
        } else {
            Ok(ResolvedAddresses { ips, ttl: HOSTS_TTL, gaps: Vec::new() })
        })
    }

    pub(super) fn setup(&self) -> Arc<ResolverSettings> {
        let stamp = modified(&self.dns.resolv_conf);
        let mut setup = self.setup.lock().unwrap_or_else(PoisonError::into_inner);
        if stamp.is_some() && setup.0 != stamp {
            let read = std::fs::read_to_string(&self.dns.resolv_conf);
            match read.and_then(|text| ResolverSettings::new(&self.dns, &ResolvConf::parse(&text))) {
                Ok(new) => {
                    tracing::info!(file = %self.dns.resolv_conf.display(), servers = ?new.servers, "resolv.conf has changed");
                    setup.1 = Arc::new(new);
                }
                Err(error) => {
                    tracing::warn!(file = %self.dns.resolv_conf.display(), %error, "changed resolv.conf not used");
                }
            }
            setup.0 = stamp;
        }
        setup.1.clone()
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|meta| meta.modified()).ok()
}

impl ResolverSettings {
    fn new(dns: &Dns, conf: &ResolvConf) -> std::io::Result<Self> {
        let defaults = Dns::default();
        let mut servers = dns.servers.clone();
        if servers.is_empty() {
            servers = conf.servers.iter().map(|&ip| SocketAddr::new(ip, 53)).collect();
        }
        if servers.is_empty() {
            servers.push(SocketAddr::from(([127, 0, 0, 1], 53)));
        }
        // The config's values take precedence; those of resolv.conf apply where the config has its defaults.
        let timeout = conf.timeout.filter(|_| dns.timeout == defaults.timeout).unwrap_or(dns.timeout);
        let attempts = conf.attempts.filter(|_| dns.attempts == defaults.attempts).unwrap_or(dns.attempts);
        Ok(Self {
            servers: Servers::new(&servers, timeout, attempts).map_err(std::io::Error::other)?,
            search: match &dns.search {
                Some(search) => search.iter().map(ToString::to_string).collect(),
                None => conf.search.clone(),
            },
            ndots: dns.ndots.unwrap_or(conf.ndots).into(),
        })
    }

    /// The absolute names that `host` may mean, in order.
    pub(super) fn candidates(&self, host: &str) -> Result<Vec<Name>, LookupFailure> {
        let absolute = |name: &str| {
            let mut name = Name::from_str_relaxed(name).ok()?;
            name.set_fqdn(true);
            Some(name)
        };
        let (bare, final_dot) = host.strip_suffix('.').map_or((host, false), |bare| (bare, true));
        let as_is = absolute(bare).filter(|_| !bare.is_empty());
        let as_is = as_is.ok_or_else(|| LookupFailure::Unreachable(format!("{host:?} is not a DNS name")))?;
        if final_dot {
            return Ok(vec![as_is]);
        }
        let first = bare.matches('.').count() >= self.ndots;
        let mut names: Vec<Name> =
            self.search.iter().filter_map(|domain| absolute(&format!("{bare}.{domain}"))).collect();
        if first {
            names.insert(0, as_is);
        } else {
            names.push(as_is);
        }
        Ok(names)
    }

    async fn families(&self, name: &Name, family: DnsFamily) -> Result<ResolvedAddresses, LookupFailure> {
        match family {
            DnsFamily::V4Only => combine(Some(self.family(name, false).await), None),
            DnsFamily::V6Only => combine(None, Some(self.family(name, true).await)),
            DnsFamily::V4Preferred => match self.family(name, false).await {
                Ok(v4) => combine(Some(Ok(v4)), None),
                Err(miss) => combine(Some(Err(miss)), Some(self.family(name, true).await)),
            },
            DnsFamily::V6Preferred => match self.family(name, true).await {
                Ok(v6) => combine(None, Some(Ok(v6))),
                Err(miss) => combine(Some(self.family(name, false).await), Some(Err(miss))),
            },
            DnsFamily::Auto => {
                let (mut v4, mut v6) =
                    (std::pin::pin!(self.family(name, false)), std::pin::pin!(self.family(name, true)));
                tokio::select! {
                    found = &mut v4 => {
                        let other = other_family(name, &found, v6).await;
                        combine(Some(found), Some(other))
                    }
                    found = &mut v6 => {
                        let other = other_family(name, &found, v4).await;
                        combine(Some(other), Some(found))
                    }
                }
            }
        }
    }

    async fn family(&self, name: &Name, v6: bool) -> FamilyAnswer {
        let kind = if v6 { RecordType::AAAA } else { RecordType::A };
        let records = self.servers.ask(name, kind).await?;
        let ips: Vec<IpAddr> =
            records.answers.iter().filter_map(ip).filter(|ip| ip.is_ipv6() == v6).collect();
        // The TTLs of aliases count as well: the answer is valid only as long as each record of the chain.
        let ttl = records.answers.iter().map(|record| record.ttl).min().unwrap_or(0);
        if ips.is_empty() { Err(LookupFailure::NoData) } else { Ok((ips, ttl)) }
    }
}

/// Waits for the second family; without a limit if the first had no addresses.
async fn other_family(
    name: &Name,
    first: &FamilyAnswer,
    second: impl Future<Output = FamilyAnswer>,
) -> FamilyAnswer {
    if first.is_err() {
        return second.await;
    }
    let late = |_| {
        Err(LookupFailure::Timeout(format!(
            "one address family of {name} came {OTHER_FAMILY:?} after the other"
        )))
    };
    tokio::time::timeout(OTHER_FAMILY, second).await.unwrap_or_else(late)
}

/// The result of both families together; `None` is a family that was not asked for.
fn combine(v4: Option<FamilyAnswer>, v6: Option<FamilyAnswer>) -> Result<ResolvedAddresses, LookupFailure> {
    let mut all = ResolvedAddresses { ips: Vec::new(), ttl: u32::MAX, gaps: Vec::new() };
    let mut misses = LookupFailures::default();
    for (is_v6, family) in [(false, v4), (true, v6)] {
        match family {
            None => {}
            Some(Ok((ips, ttl))) => {
                all.ips.extend(ips);
                all.ttl = all.ttl.min(ttl);
            }
            Some(Err(miss)) => {
                if miss.is_error() {
                    all.gaps.push((Some(is_v6), failure("", miss.clone())));
                }
                misses.all.push(miss);
            }
        }
    }
    if all.ips.is_empty() { Err(misses.worst()) } else { Ok(all) }
}

/// The failures of one look-up.
#[derive(Default)]
pub(super) struct LookupFailures {
    all: Vec<LookupFailure>,
}

impl LookupFailures {
    /// Adds a failure. The error ends the search.
    pub(super) fn add(&mut self, miss: LookupFailure) -> Result<(), LookupFailure> {
        match miss {
            LookupFailure::Timeout(_) | LookupFailure::Unreachable(_) => Err(miss),
            _ => {
                self.all.push(miss);
                Ok(())
            }
        }
    }

    pub(super) fn worst(self) -> LookupFailure {
        self.all.into_iter().max_by_key(LookupFailure::rank).unwrap_or(LookupFailure::NoData)
    }
}

impl LookupFailure {
    /// True if the failure doesn't show whether the record exists.
    pub(super) fn is_error(&self) -> bool {
        !matches!(self, Self::Nxdomain | Self::NoData)
    }
}

pub(super) fn failure(name: &str, miss: LookupFailure) -> LookupError {
    match miss {
        LookupFailure::Nxdomain => {
            LookupError::new(Reason::DnsNxdomain, format!("{name} does not exist (NXDOMAIN)"))
        }
        LookupFailure::NoData => {
            LookupError::new(Reason::DnsFailed, format!("{name} exists but has no such record"))
        }
        LookupFailure::Error(detail) | LookupFailure::Unreachable(detail) => {
            LookupError::new(Reason::DnsFailed, detail)
        }
        LookupFailure::Timeout(detail) => LookupError::new(Reason::DnsTimeout, detail),
    }
}

pub(super) fn answer(
    from: ResolvedAddresses,
    name: &model::Name,
    host: &model::Name,
    port: u16,
    weight: u32,
    priority: u16,
) -> LookupAnswer {
    let found = |ip| DiscoveredAddress {
        address: SocketAddr::new(ip, port),
        name: name.clone(),
        host: host.clone(),
        weight,
        priority,
        zone: None,
    };
    let gap = |(v6, failure)| LookupGap { name: name.clone(), v6, failure };
    LookupAnswer {
        found: from.ips.into_iter().map(found).collect(),
        ttl: Duration::from_secs(from.ttl.into()),
        gaps: from.gaps.into_iter().map(gap).collect(),
    }
}

pub(super) fn ip(record: &Record) -> Option<IpAddr> {
    match &record.data {
        RData::A(a) => Some(a.0.into()),
        RData::AAAA(aaaa) => Some(aaaa.0.into()),
        _ => None,
    }
}

pub(super) fn wanted(mut ips: Vec<IpAddr>, family: DnsFamily) -> Vec<IpAddr> {
    let any = |v6| ips.iter().any(|ip: &IpAddr| ip.is_ipv6() == v6);
    let only = match family {
        DnsFamily::Auto => None,
        DnsFamily::V4Only => Some(false),
        DnsFamily::V6Only => Some(true),
        DnsFamily::V4Preferred => Some(!any(false)),
        DnsFamily::V6Preferred => Some(any(true)),
    };
    ips.retain(|ip| only.is_none_or(|v6| v6 == ip.is_ipv6()));
    ips
}
