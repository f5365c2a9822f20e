//! One question to the DNS servers, in libc's order.
//!
//! Servers are asked one after the other, beginning with the one that answered last, in `attempts` rounds, each for at
//! most `timeout`. An answer, NXDOMAIN or an empty answer ends the query. After SERVFAIL, REFUSED, no answer or a
//! closed port, the next server is asked (hickory's own pool ends at the first SERVFAIL, hence one hickory resolver for
//! each server). hickory repeats a query over TCP if the UDP answer is truncated. Nothing is cached: only the server
//! decides when a TTL ends.
//!
//! A record counts only if it has the queried name, or a name that its aliases lead to: other records don't answer the
//! query (RFC 5452 section 6).

use std::{
    io,
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use hickory_resolver::{
    Resolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig},
    net::{DnsError, NetError},
    proto::{
        op::ResponseCode,
        rr::{Name, RData, Record, RecordType},
    },
};

use super::runtime::Runtime;

/// Why a query returned no records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LookupFailure {
    /// No such name.
    Nxdomain,
    /// The name exists, but it has no records of this type.
    NoData,
    /// Servers answered with an error.
    Error(String),
    /// No server answered in time.
    Timeout(String),
    /// No server could be reached, or the name is not valid in a query.
    Unreachable(String),
}

/// An answer's records.
#[derive(Debug)]
pub(super) struct Records {
    pub(super) answers: Vec<Record>,
    pub(super) additionals: Vec<Record>,
}

/// The servers of one configuration.
pub(super) struct Servers {
    list: Vec<(SocketAddr, Resolver<Runtime>, Runtime)>,
    /// The server that answered last.
    current: AtomicUsize,
    attempts: usize,
    timeout: Duration,
}

impl std::fmt::Debug for Servers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.list.iter().map(|(address, ..)| address)).finish()
    }
}

impl Servers {
    pub(super) fn new(
        addresses: &[SocketAddr],
        timeout: Duration,
        attempts: usize,
    ) -> Result<Self, NetError> {
        let server = |&address: &SocketAddr| {
            let connection = |mut connection: ConnectionConfig| {
                connection.port = address.port();
                connection
            };
            let connections = vec![connection(ConnectionConfig::udp()), connection(ConnectionConfig::tcp())];
            let server = NameServerConfig::new(address.ip(), true, connections);
            let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
            let runtime = Runtime::default();
            let mut builder = Resolver::builder_with_config(config, runtime.clone());
            let options = builder.options_mut();
            options.timeout = timeout;
            options.attempts = 0;
            options.cache_size = 0;
            options.use_hosts_file = ResolveHosts::Never;
            Ok((address, builder.build()?, runtime))
        };
        let servers = addresses.iter().map(server).collect::<Result<_, NetError>>()?;
        Ok(Self { list: servers, current: AtomicUsize::new(0), attempts: attempts.max(1), timeout })
    }

    /// Asks for `name`, which is absolute.
    pub(super) async fn ask(&self, name: &Name, kind: RecordType) -> Result<Records, LookupFailure> {
        let mut miss = LookupFailure::Unreachable("no DNS server is configured".into());
        let first = self.current.load(Relaxed);
        for turn in 0..self.attempts * self.list.len() {
            let at = (first + turn) % self.list.len();
            let Some((address, server, runtime)) = self.list.get(at) else { break };
            let next = match server.lookup(name.clone(), kind).await {
                Ok(lookup) => {
                    self.current.store(at, Relaxed);
                    let (answers, additionals) =
                        (of_question(name, lookup.answers()), lookup.additionals().to_vec());
                    if answers.is_empty() {
                        return Err(LookupFailure::NoData);
                    }
                    return Ok(Records { answers, additionals });
                }
                Err(NetError::Dns(DnsError::NoRecordsFound(none))) => match none.response_code {
                    ResponseCode::NXDomain => {
                        self.current.store(at, Relaxed);
                        return Err(LookupFailure::Nxdomain);
                    }
                    ResponseCode::NoError => {
                        self.current.store(at, Relaxed);
                        return Err(LookupFailure::NoData);
                    }
                    code => LookupFailure::Error(format!("{} from {address} for {name} {kind}", word(code))),
                },
                Err(NetError::Dns(DnsError::ResponseCode(code))) => {
                    LookupFailure::Error(format!("{} from {address} for {name} {kind}", word(code)))
                }
                Err(NetError::Timeout) => LookupFailure::Timeout(format!(
                    "no answer from {address} in {:?} for {name} {kind}",
                    self.timeout
                )),
                Err(error) => LookupFailure::Unreachable(match runtime.failure() {
                    Some(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                        format!("refused by {address}, asked for {name} {kind}: no DNS server listens there")
                    }
                    Some(error) => format!("{address}, asked for {name} {kind}: {error}"),
                    None => format!("{address}, asked for {name} {kind}: {error}"),
                }),
            };
            // The most informative failure is reported: first an error answer, then no answer at all.
            if next.rank() > miss.rank() || turn == 0 {
                miss = next;
            }
        }
        Err(miss)
    }
}

/// The records of `name` and of what its aliases lead to.
fn of_question(name: &Name, records: &[Record]) -> Vec<Record> {
    let mut owners = vec![name];
    let mut at = 0;
    while let Some(owner) = owners.get(at).copied() {
        for record in records.iter().filter(|record| record.name == *owner) {
            if let RData::CNAME(alias) = &record.data
                && !owners.contains(&&alias.0)
            {
                owners.push(&alias.0);
            }
        }
        at += 1;
    }
    records.iter().filter(|record| owners.contains(&&record.name)).cloned().collect()
}

/// The code's name in the protocol, as `dig` prints it.
fn word(code: ResponseCode) -> String {
    match code {
        ResponseCode::FormErr => "FORMERR".into(),
        ResponseCode::ServFail => "SERVFAIL".into(),
        ResponseCode::NotImp => "NOTIMP".into(),
        ResponseCode::Refused => "REFUSED".into(),
        code => format!("code {} ({code})", u16::from(code)),
    }
}

impl LookupFailure {
    /// How informative it is, compared with others.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::Nxdomain => 0,
            Self::NoData => 1,
            Self::Unreachable(_) => 2,
            Self::Timeout(_) => 3,
            Self::Error(_) => 4,
        }
    }
}
