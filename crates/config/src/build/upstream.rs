//! One upstream: its addresses agree about what is spoken, and its options fit to that.

use super::{
    credential::{Keeping, credential},
    fill, load,
    policy::Layer,
    target::Speaks,
    tls,
};
use crate::{
    diagnostic::{Place, Problems},
    model::{
        Address, Balance, CircuitBreaker, EndpointSource, HealthCheck, HostRewrite, OutlierEjection, Pool,
        Probe, Target, TlsClient, Upstream, UpstreamProtocol,
    },
    raw::{self, At, OrOff, Txt},
    text::{Scheme, Source},
};

pub(crate) fn upstream(
    entry: raw::Entry<raw::Upstream>,
    problems: &mut Problems,
) -> Option<(Upstream, Layer, Speaks)> {
    let line = entry.at.line;
    let mut upstream = Upstream { line, ..Upstream::new(entry.key, Address::OriginalDestination) };
    let raw = match entry.value {
        raw::Upstream::Address(address) => {
            let at = address.at;
            let (address, scheme) = addresses(vec![raw::AddressForm::Text(address)], None, problems)?;
            upstream.address = address;
            (upstream.protocol, upstream.tls) = spoken(scheme, None, None, &upstream.address, at, problems)?;
            let speaks = Speaks::of(&upstream, scheme);
            return Some((upstream, Layer::default(), speaks));
        }
        raw::Upstream::Full(raw) => raw.value,
    };
    let found = addresses(raw.address.into_vec(), Some((raw.max_hosts, raw.deny)), problems);
    let balance = raw.balance.map_or(Some(Balance::default()), |raw| balance(raw, problems));
    let tls_given = raw.tls.is_some();
    let mut right = true;
    let mut said = Scheme::Open;
    if let Some((address, scheme)) = found {
        (upstream.address, said) = (address, scheme);
        match spoken(scheme, raw.protocol, raw.tls, &upstream.address, entry.at, problems) {
            Some((protocol, tls)) => (upstream.protocol, upstream.tls) = (protocol, tls),
            None => right = false,
        }
    } else {
        if tls_given {
            // Only for what is wrong in it.
            let _ = tls::client(raw.tls, problems);
        }
        right = false;
    }
    if let Some(check) = raw.health_check {
        upstream.health_check = health_check(
            check,
            upstream.protocol,
            upstream.tls.is_some(),
            has_sockets(&upstream.address),
            problems,
        );
    }
    fill!(upstream, raw, connect_timeout, handshake_timeout);
    if let Some(host) = raw.host {
        upstream.host = host.value.0.0;
        let named = matches!(upstream.address, Address::Endpoints(_));
        if right && upstream.protocol == UpstreamProtocol::Tcp {
            problems.wrong(
                host.at,
                "opaque bytes have no Host header",
                "remove `host`, or use an HTTP scheme",
            );
        } else if right && !named && upstream.host == HostRewrite::Upstream {
            problems.wrong(
                host.at,
                "this upstream has no host of its own: it is whatever the request names",
                "remove `host`, or write the host itself",
            );
        }
    }
    if let Some(on_unhealthy) = raw.on_unhealthy {
        upstream.on_unhealthy = on_unhealthy.value;
    }
    upstream.proxy_protocol = raw.proxy_protocol.unwrap_or_default();
    upstream.source_address = raw.source_address.map(|address| address.0.0);
    if upstream.tls.as_ref().is_some_and(|tls| tls.identity.is_some() || tls.spiffe) {
        upstream.pool.max_age = Pool::MAX_IDENTITY_AGE;
    }
    if let Some(pool) = raw.pool {
        upstream.pool = pool.over(upstream.pool);
    }
    upstream.circuit_breaker = match raw.circuit_breaker {
        None => CircuitBreaker::default(),
        Some(OrOff::Off(_)) => CircuitBreaker::off(),
        Some(OrOff::On(breaker)) => breaker,
    };
    if let Some(OrOff::On(raw)) = raw.adaptive_concurrency {
        upstream.adaptive_concurrency = Some(load::adaptive(raw, problems));
    }
    if let Some(OrOff::On(raw)) = raw.queue {
        upstream.queue = Some(load::queue(raw, problems));
    }
    upstream.outlier_ejection = match raw.outlier_ejection {
        None => OutlierEjection::default(),
        Some(OrOff::Off(_)) => OutlierEjection::off(),
        Some(OrOff::On(ejection)) => ejection,
    };
    upstream.balance = balance?;
    let mut layer =
        Layer::new(raw.timeout, raw.idle_timeout, raw.retry).with_deadline_header(raw.deadline_header);
    if let Some(raw) = raw.credential {
        let at = raw.at;
        upstream.credential = credential(raw, problems);
        if let (Some(credential), true) = (&upstream.credential, right) {
            Keeping::of(&upstream).check(credential, &upstream.name, at, problems);
        }
        layer = layer.with_credential(upstream.credential.clone(), at);
    }
    let speaks = Speaks::of(&upstream, said);
    right.then_some((upstream, layer, speaks))
}

type AuthorityKeys = (Option<At<u32>>, Option<At<raw::OneOrMany<Txt<crate::text::AddressRange>>>>);

/// The addresses, and the one scheme of them all.
fn addresses(
    forms: Vec<raw::AddressForm>,
    authority: Option<AuthorityKeys>,
    problems: &mut Problems,
) -> Option<(Address, Scheme)> {
    let several = forms.len() > 1;
    let (max_hosts, deny) = authority.unwrap_or_default();
    let mut sources: Vec<EndpointSource> = Vec::new();
    let mut first: Option<Scheme> = None;
    let mut right = true;
    for form in forms {
        let (address, weight, priority, zone) = match form {
            raw::AddressForm::Text(address) => (address, None, None, None),
            raw::AddressForm::Full(full) => (full.address, full.weight, full.priority, full.zone),
        };
        let at = address.at;
        let (scheme, target) = match address.value.0 {
            Source::Authority | Source::OriginalDestination if several => {
                problems.wrong(
                    at,
                    "this stands for any destination and can't be one of several addresses",
                    "make it an upstream of its own",
                );
                right = false;
                continue;
            }
            Source::Authority => {
                let max_hosts = max_hosts.map_or(Upstream::MAX_HOSTS, |most| most.value as usize);
                let deny = deny.map(|deny| deny.value.into_vec()).unwrap_or_default();
                let deny = deny.into_iter().flat_map(|range| range.0.0).collect();
                return Some((Address::Authority { max_hosts, deny }, Scheme::Open));
            }
            Source::OriginalDestination => {
                only_for_authority(max_hosts.map(|x| x.at), deny.map(|x| x.at), problems);
                return Some((Address::OriginalDestination, Scheme::Open));
            }
            Source::At(scheme, target) => (scheme, target),
        };
        match first {
            Some(first) if first != scheme => {
                problems.wrong(
                    at,
                    "the addresses of one upstream don't agree about what is spoken",
                    format!("the first says `{}`, this one `{}`", first.word(), scheme.word()),
                );
                right = false;
            }
            _ => first = Some(scheme),
        }
        sources.push(EndpointSource {
            target,
            weight: weight.unwrap_or(1),
            priority: priority.unwrap_or(0),
            zone: zone.map(|zone| zone.0.0),
        });
    }
    only_for_authority(max_hosts.map(|x| x.at), deny.map(|x| x.at), problems);
    let scheme = first.filter(|_| right)?;
    Some((Address::Endpoints(sources), scheme))
}

fn only_for_authority(max_hosts: Option<Place>, deny: Option<Place>, problems: &mut Problems) {
    for (key, at) in [("max_hosts", max_hosts), ("deny", deny)] {
        if let Some(at) = at {
            problems.wrong(at, format!("`{key}` has no meaning here"), "it belongs to `address: authority`");
        }
    }
}

/// What is spoken, and whether within TLS.
fn spoken(
    scheme: Scheme,
    protocol: Option<At<UpstreamProtocol>>,
    tls: Option<At<raw::TlsClient>>,
    address: &Address,
    at: Place,
    problems: &mut Problems,
) -> Option<(UpstreamProtocol, Option<TlsClient>)> {
    use UpstreamProtocol::{Auto, Http1, Http2, Tcp};
    let mut right = true;
    let of_scheme = match scheme {
        Scheme::Open | Scheme::Http | Scheme::Https => Auto,
        Scheme::H2c => Http2,
        Scheme::Tcp | Scheme::Tls => Tcp,
    };
    let spoken = match (of_scheme, protocol) {
        (of_scheme, None) => of_scheme,
        (Http2, Some(At { value: Auto, .. })) => Http2,
        (Tcp, Some(At { value: Auto | Tcp, .. })) => Tcp,
        (Tcp, Some(At { at, value: Http1 | Http2, .. })) => {
            let better = if scheme == Scheme::Tls { "https" } else { "http" };
            let message = format!("`{}://` is opaque bytes, this asks for HTTP", scheme.word());
            problems.wrong(at, message, format!("write `{better}://` in the address"));
            return None;
        }
        (_, Some(At { at, value: Tcp, .. })) if scheme != Scheme::Open => {
            let better = if scheme == Scheme::Https { "tls" } else { "tcp" };
            let message = format!("`{}://` is HTTP, this asks for opaque bytes", scheme.word());
            problems.wrong(at, message, format!("write `{better}://` in the address"));
            return None;
        }
        (Http2, Some(At { at, value: Http1, .. })) => {
            problems.wrong(at, "`h2c://` is HTTP/2, this asks for HTTP/1", "write `http://` in the address");
            return None;
        }
        (_, Some(At { value, .. })) => value,
    };
    if let Some(At { at, .. }) = &tls
        && matches!(scheme, Scheme::Http | Scheme::H2c | Scheme::Tcp)
    {
        let better = if scheme == Scheme::Tcp { "tls" } else { "https" };
        problems.wrong(
            *at,
            format!("`tls` for an address that says `{}://`, which is plaintext", scheme.word()),
            format!("write `{better}://` in the address, or remove `tls`"),
        );
        right = false;
    }
    let encrypted = scheme.is_encrypted() || tls.is_some();
    let place = tls.as_ref().map_or(at, |tls| tls.at);
    let tls = if encrypted { Some(tls::client(tls, problems).ok()?) } else { None };
    if tls.as_ref().is_some_and(|tls| tls.name.is_none() && !tls.insecure) && has_sockets(address) {
        problems.wrong(
            place,
            "TLS over a Unix socket has no name to verify",
            "name the host of the certificate: `tls: { name: orders.internal }`",
        );
        right = false;
    }
    right.then_some((spoken, tls))
}

fn balance(raw: At<raw::BalanceForm>, problems: &mut Problems) -> Option<Balance> {
    let whole = raw.whole();
    let (balance, hash) = match raw.value {
        raw::BalanceForm::Algorithm(algorithm) => (Balance { algorithm, ..Balance::default() }, None),
        raw::BalanceForm::Full(full) => (full.value.clone(), full.key("hash")),
    };
    match (balance.algorithm.hashes(), hash) {
        (false, Some(at)) => {
            problems.wrong(
                at,
                "`hash` with an algorithm that hashes nothing",
                "`algorithm: ring-hash` or `maglev`",
            );
            return None;
        }
        (true, None) if !whole => return None,
        (true, None) => {
            problems.wrong(
                raw.at,
                "consistent hashing doesn't say what is hashed",
                "`balance: { algorithm: maglev, hash: header:x-user }`, or `cookie:NAME`, `source`, `path`",
            );
            return None;
        }
        _ => {}
    }
    Some(balance)
}

fn opaque(form: raw::TcpForm) -> Probe {
    let raw::TcpForm::Bytes(bytes) = form else { return Probe::connection() };
    let expect = bytes.expect.map(raw::OneOrMany::into_vec).unwrap_or_default();
    Probe::Tcp {
        send: bytes.send.map(|send| send.0.0).unwrap_or_default(),
        expect: expect.into_iter().map(|part| part.0.0).collect(),
    }
}

fn has_sockets(address: &Address) -> bool {
    matches!(address, Address::Endpoints(sources)
        if sources.iter().any(|source| matches!(source.target, Target::Unix(_))))
}

fn health_check(
    raw: At<raw::HealthCheck>,
    protocol: UpstreamProtocol,
    has_tls: bool,
    sockets: bool,
    problems: &mut Problems,
) -> Option<HealthCheck> {
    let whole = raw.whole();
    let At { at, value: raw, .. } = raw;
    let tcp = raw.tcp.filter(|tcp| !matches!(tcp.value, raw::TcpForm::Connection(false)));
    let kinds =
        usize::from(raw.path.is_some()) + usize::from(tcp.is_some()) + usize::from(raw.grpc.is_some());
    if kinds == 0 && !whole {
        return None;
    }
    if kinds != 1 {
        let what = if kinds == 0 {
            "a health check asks for nothing"
        } else {
            "a health check asks for several things"
        };
        problems.wrong(at, what, "exactly one of `path: /healthz`, `tcp: true` and `grpc: SERVICE`");
        return None;
    }
    let http = raw.path.as_ref().map(|path| path.at).or(raw.grpc.as_ref().map(|grpc| grpc.at));
    if let Some(at) = http.filter(|_| protocol == UpstreamProtocol::Tcp && raw.port.is_none()) {
        problems.wrong(
            at,
            "the upstream takes opaque bytes, not HTTP",
            "`tcp: true`, or the `port` of it that takes HTTP",
        );
    }
    if let Some(tls) = raw.tls.as_ref().filter(|tls| tls.value && !has_tls) {
        problems.wrong(
            tls.at,
            "the upstream has no TLS that a probe could use",
            "remove it, or give the upstream `tls`",
        );
    }
    let host = raw.host;
    let probe = if let Some(path) = raw.path {
        Probe::Http { path: path.value.0.0, host: host.map(|host| host.value.0.0) }
    } else {
        if let Some(host) = host {
            problems.wrong(host.at, "`host` has no meaning here", "it belongs to a health check by `path`");
        }
        match raw.grpc {
            Some(service) => Probe::Grpc { service: service.value.into() },
            None => tcp.map_or_else(Probe::connection, |tcp| opaque(tcp.value)),
        }
    };
    let mut check = HealthCheck::new(probe);
    if let Some(port) = raw.port {
        if sockets {
            problems.wrong(port.at, "a Unix socket has no other port", "remove `port`");
        }
        check.port = Some(port.value);
    }
    check.tls = raw.tls.is_none_or(|tls| tls.value);
    let place = raw.timeout.as_ref().map_or(at, |timeout| timeout.at);
    fill!(check, raw, interval, timeout, healthy, unhealthy);
    check.unhealthy_interval = raw.unhealthy_interval.map_or(check.interval, |interval| interval.0.0);
    if check.timeout > check.interval {
        problems.warn(
            place,
            "a probe may still run when the next one is due",
            format!("`timeout` is {:?}, `interval` is {:?}", check.timeout, check.interval),
        );
    }
    Some(check)
}
