//! SRV names (RFC 2782): services with ports, priorities and weights.
//!
//! The name is searched below the search domains like any other. Its targets are absolute names; their addresses come
//! from the answer's additional records, or from look-ups that run at the same time. A target that can't be looked up
//! is a gap, if another target can.

use std::{collections::BTreeMap, time::Duration};

use attache_config::model::{self, DnsFamily};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType, rdata::SRV};
use tokio::task::JoinSet;

use super::{
    lookup::{LookupAnswer, LookupError, LookupGap},
    resolver::{LookupFailures, ResolvedAddresses, Resolver, answer, failure, ip, wanted},
    servers::LookupFailure,
};

/// The most SRV targets that are used, and that are looked up at once.
const MAX_TARGETS: usize = 256;

impl Resolver {
    pub(super) async fn service(&self, service: &str) -> Result<LookupAnswer, LookupError> {
        let setup = self.inner.setup();
        let mut misses = LookupFailures::default();
        let candidates = setup.candidates(service).map_err(|miss| failure(service, miss))?;
        for name in candidates {
            match setup.servers.ask(&name, RecordType::SRV).await {
                Ok(records) => {
                    let services: Vec<(u32, SRV)> = records.answers.iter().filter_map(srv).collect();
                    if services.is_empty() {
                        misses.add(LookupFailure::NoData).map_err(|miss| failure(service, miss))?;
                        continue;
                    }
                    return self.targets(service, services, &records.additionals).await;
                }
                Err(miss) => misses.add(miss).map_err(|miss| failure(service, miss))?,
            }
        }
        Err(failure(service, misses.worst()))
    }

    /// The addresses of SRV targets: from the additional records if these have any, otherwise by look-ups that run at
    /// the same time.
    async fn targets(
        &self,
        service: &str,
        srvs: Vec<(u32, SRV)>,
        more: &[Record],
    ) -> Result<LookupAnswer, LookupError> {
        let host = source_domain(service);
        let ttl = srvs.iter().map(|(ttl, _)| *ttl).min().unwrap_or(0);
        // A target of "." says that there is no such service (RFC 2782).
        let srvs: Vec<SRV> =
            srvs.into_iter().map(|(_, srv)| srv).filter(|srv| !srv.target.is_root()).collect();
        let mut known: BTreeMap<Name, Result<ResolvedAddresses, LookupFailure>> = BTreeMap::new();
        let mut asked = JoinSet::new();
        for srv in srvs.iter().take(MAX_TARGETS) {
            if known.contains_key(&srv.target) {
                continue;
            }
            if let Some(mut addresses) = additional(more, &srv.target, self.inner.dns.family) {
                self.keep_reachable(&mut addresses);
                known.insert(srv.target.clone(), Ok(addresses));
                continue;
            }
            known.insert(srv.target.clone(), Err(LookupFailure::NoData));
            let (resolver, target) = (self.clone(), srv.target.clone());
            asked.spawn(async move {
                let mut absolute = target.clone();
                absolute.set_fqdn(true);
                (target, resolver.addresses(&absolute.to_string()).await)
            });
        }
        while let Some(done) = asked.join_next().await {
            if let Ok((target, addresses)) = done {
                known.insert(target, addresses);
            }
        }

        let mut whole =
            LookupAnswer { found: Vec::new(), ttl: Duration::from_secs(ttl.into()), gaps: Vec::new() };
        let mut misses = LookupFailures::default();
        for srv in &srvs {
            let text = srv.target.to_string();
            let name: model::Name = text.strip_suffix('.').unwrap_or(&text).into();
            match known.get(&srv.target) {
                Some(Ok(addresses)) => {
                    let part =
                        answer(addresses.clone(), &name, &host, srv.port, srv.weight.into(), srv.priority);
                    whole.ttl = whole.ttl.min(part.ttl);
                    whole.found.extend(part.found);
                    whole.gaps.extend(part.gaps);
                }
                Some(Err(miss)) => {
                    if miss.is_error() {
                        whole.gaps.push(LookupGap { name, v6: None, failure: failure(&text, miss.clone()) });
                    }
                    let _ = misses.add(miss.clone());
                }
                None => {}
            }
        }
        if whole.found.is_empty() {
            let mut failure = failure(service, misses.worst());
            failure.detail =
                format!("none of the {} SRV targets has an address: {}", srvs.len(), failure.detail);
            return Err(failure);
        }
        Ok(whole)
    }
}

fn srv(record: &Record) -> Option<(u32, SRV)> {
    match &record.data {
        RData::SRV(srv) => Some((record.ttl, srv.clone())),
        _ => None,
    }
}

/// A target's addresses in the additional records, if there are any of a wanted family.
fn additional(records: &[Record], target: &Name, family: DnsFamily) -> Option<ResolvedAddresses> {
    let of_target = || records.iter().filter(|record| record.name == *target);
    let ips = wanted(of_target().filter_map(ip).collect(), family);
    let ttl = of_target().map(|record| record.ttl).min()?;
    (!ips.is_empty()).then_some(ResolvedAddresses { ips, ttl, gaps: Vec::new() })
}

/// `_postgres._tcp.db.internal` is a service of `db.internal` (RFC 6125 section 6.2.1).
fn source_domain(service: &str) -> model::Name {
    let bare = service.strip_suffix('.').unwrap_or(service);
    let mut rest = bare;
    while let Some((label, tail)) = rest.split_once('.')
        && label.starts_with('_')
    {
        rest = tail;
    }
    rest.into()
}
