//! One upstream: all its addresses have the same protocol, and its options fit that protocol.

use super::{
    credential::{Confidentiality, credential},
    load,
    policy::PolicyLevel,
    target::Payload,
    tls,
};
use crate::{
    diagnostic::{Place, Problems},
    model::{
        Address, Balance, EndpointSource, EndpointTarget, HealthCheck, HealthCheckKind, HostRewrite, Pool,
        TcpBytes, TcpForm, TlsClient, Upstream, UpstreamProtocol,
    },
    section::{ParsedSection, Shorthand},
    shapes::{NamedEntry, OneOrMany, OrOff, Spanned, Text},
    text::{AddressRange, Scheme, UpstreamAddress},
};

pub(crate) fn upstream(
    entry: NamedEntry<Shorthand<Upstream>>,
    problems: &mut Problems,
) -> Option<(Upstream, PolicyLevel, Payload)> {
    let (given, ParsedSection { section: mut upstream, rest }) = entry.value.0.open();
    (upstream.name, upstream.line) = (entry.key.into(), entry.at.line);
    let found = addresses(rest.address?.into_vec(), rest.max_hosts, rest.deny, &given, problems);
    let balance = rest.balance.map_or(Some(Balance::default()), |raw| balance(raw, problems));
    let mut right = true;
    let mut scheme = Scheme::Open;
    // Problems of the upstream as a whole are reported at its address.
    let at = if given.key("address") == Some(given.at) { given.at } else { entry.at };
    if let Some((address, found)) = found {
        (upstream.address, scheme) = (address, found);
        let protocol = given.key("protocol").zip(rest.protocol);
        match spoken(scheme, protocol, rest.tls, &upstream.address, at, problems) {
            Some((protocol, tls)) => (upstream.protocol, upstream.tls) = (protocol, tls),
            None => right = false,
        }
    } else {
        if rest.tls.is_some() {
            // Read only to report its problems.
            let _ = tls::client(rest.tls, problems);
        }
        right = false;
    }
    if let Some(check) = rest.health_check {
        upstream.health_check = Some(health_check(check, &upstream, problems));
    }
    if let Some(at) = given.key("host").filter(|_| right) {
        let named = matches!(upstream.address, Address::Endpoints(_));
        if upstream.protocol == UpstreamProtocol::Tcp {
            problems.wrong(at, "opaque bytes have no Host header", "remove `host`, or use an HTTP scheme");
        } else if !named && upstream.host == HostRewrite::Upstream {
            problems.wrong(
                at,
                "this upstream has no fixed host: the request names it",
                "remove `host`, or write the host itself",
            );
        }
    }
    if upstream.tls.as_ref().is_some_and(|tls| tls.identity.is_some() || tls.spiffe) {
        upstream.pool.max_age = Pool::MAX_IDENTITY_AGE;
    }
    if let Some(pool) = rest.pool {
        upstream.pool = pool.over(upstream.pool);
    }
    if let Some(OrOff::On(raw)) = rest.adaptive_concurrency {
        upstream.adaptive_concurrency = Some(load::adaptive(raw, problems));
    }
    if let Some(OrOff::On(raw)) = rest.queue {
        upstream.queue = Some(load::queue(raw, problems));
    }
    upstream.balance = balance?;
    let mut layer = PolicyLevel::new(&given, rest.policy);
    if let Some(raw) = rest.credential {
        let at = raw.at;
        upstream.credential = credential(raw, problems);
        if let (Some(credential), true) = (&upstream.credential, right) {
            Confidentiality::of(&upstream).check(credential, &upstream.name, at, problems);
        }
        layer = layer.with_credential(upstream.credential.clone(), at);
    }
    let payload = Payload::of(&upstream, scheme);
    right.then_some((upstream, layer, payload))
}

/// The addresses, and the one scheme of them all.
fn addresses(
    forms: Vec<Shorthand<EndpointSource>>,
    max_hosts: Option<u32>,
    deny: Option<OneOrMany<Text<AddressRange>>>,
    given: &Spanned<()>,
    problems: &mut Problems,
) -> Option<(Address, Scheme)> {
    let several = forms.len() > 1;
    let mut sources: Vec<EndpointSource> = Vec::new();
    let mut first: Option<Scheme> = None;
    let mut right = true;
    for Shorthand(form) in forms {
        let ParsedSection { section: mut source, rest } = form.value;
        let Spanned { at, value: Text(address), .. } = rest.address?;
        let scheme = match address {
            UpstreamAddress::Authority | UpstreamAddress::OriginalDestination if several => {
                problems.wrong(
                    at,
                    "this stands for any destination and can't be one of several addresses",
                    "make it a separate upstream",
                );
                right = false;
                continue;
            }
            UpstreamAddress::Authority => {
                let max_hosts = max_hosts.map_or(Upstream::MAX_HOSTS, |most| most as usize);
                let deny = deny.map(OneOrMany::into_vec).unwrap_or_default();
                let deny = deny.into_iter().flat_map(|range| range.0).collect();
                return Some((Address::Authority { max_hosts, deny }, Scheme::Open));
            }
            UpstreamAddress::OriginalDestination => {
                only_for_authority(given, problems);
                return Some((Address::OriginalDestination, Scheme::Open));
            }
            UpstreamAddress::At(scheme, target) => {
                source.target = target;
                scheme
            }
        };
        match first {
            Some(first) if first != scheme => {
                problems.wrong(
                    at,
                    "the addresses of one upstream have different protocols",
                    format!("the first says `{}`, this one `{}`", first.word(), scheme.word()),
                );
                right = false;
            }
            _ => first = Some(scheme),
        }
        sources.push(source);
    }
    only_for_authority(given, problems);
    let scheme = first.filter(|_| right)?;
    Some((Address::Endpoints(sources), scheme))
}

fn only_for_authority(given: &Spanned<()>, problems: &mut Problems) {
    for key in ["max_hosts", "deny"] {
        if let Some(at) = given.key(key) {
            problems.wrong(at, format!("`{key}` has no meaning here"), "it belongs to `address: authority`");
        }
    }
}

/// The protocol, and whether it runs within TLS.
fn spoken(
    scheme: Scheme,
    protocol: Option<(Place, UpstreamProtocol)>,
    tls: Option<Spanned<ParsedSection<TlsClient>>>,
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
        (Http2, Some((_, Auto))) => Http2,
        (Tcp, Some((_, Auto | Tcp))) => Tcp,
        (Tcp, Some((at, Http1 | Http2))) => {
            let better = if scheme == Scheme::Tls { "https" } else { "http" };
            let message = format!("`{}://` is opaque bytes, `protocol` says HTTP", scheme.word());
            problems.wrong(at, message, format!("write `{better}://` in the address"));
            return None;
        }
        (_, Some((at, Tcp))) if scheme != Scheme::Open => {
            let better = if scheme == Scheme::Https { "tls" } else { "tcp" };
            let message = format!("`{}://` is HTTP, `protocol` says opaque bytes", scheme.word());
            problems.wrong(at, message, format!("write `{better}://` in the address"));
            return None;
        }
        (Http2, Some((at, Http1))) => {
            problems.wrong(
                at,
                "`h2c://` is HTTP/2, `protocol` says HTTP/1",
                "write `http://` in the address",
            );
            return None;
        }
        (_, Some((_, given))) => given,
    };
    if let Some(Spanned { at, .. }) = &tls
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

fn balance(raw: Shorthand<Balance>, problems: &mut Problems) -> Option<Balance> {
    let (given, ParsedSection { section: balance, .. }) = raw.0.open();
    let whole = given.whole();
    let hash = given.key("hash");
    match (balance.algorithm.hashes(), hash) {
        (false, Some(at)) => {
            problems.wrong(
                at,
                "`hash` with an algorithm that doesn't hash",
                "`algorithm: ring-hash` or `maglev`",
            );
            return None;
        }
        (true, None) if !whole => return None,
        (true, None) => {
            problems.wrong(
                given.at,
                "consistent hashing needs a key to hash",
                "`balance: { algorithm: maglev, hash: header:x-user }`, or `cookie:NAME`, `source`, `path`",
            );
            return None;
        }
        _ => {}
    }
    Some(balance)
}

fn has_sockets(address: &Address) -> bool {
    matches!(address, Address::Endpoints(sources)
        if sources.iter().any(|source| matches!(source.target, EndpointTarget::Unix(_))))
}

fn health_check(
    raw: Spanned<ParsedSection<HealthCheck>>,
    upstream: &Upstream,
    problems: &mut Problems,
) -> HealthCheck {
    let (given, ParsedSection { section: mut check, rest }) = raw.open();
    check.probe = match (rest.path, rest.grpc, rest.tcp) {
        (Some(path), ..) => HealthCheckKind::Http { path: path.0, host: rest.host.map(|host| host.0) },
        (_, Some(service), _) => HealthCheckKind::Grpc { service: service.into() },
        (.., Some(TcpForm::Bytes(TcpBytes { send, expect }))) => HealthCheckKind::Tcp { send, expect },
        (.., Some(TcpForm::Connection(true | false)) | None) => HealthCheckKind::connection(),
    };
    let http = given.key("path").or(given.key("grpc"));
    if let Some(at) = http.filter(|_| upstream.protocol == UpstreamProtocol::Tcp && check.port.is_none()) {
        problems.wrong(
            at,
            "the upstream takes opaque bytes, not HTTP",
            "`tcp: true`, or the `port` of it that takes HTTP",
        );
    }
    if let Some(at) = given.key("tls").filter(|_| check.tls && upstream.tls.is_none()) {
        problems.wrong(
            at,
            "the upstream has no TLS that a probe could use",
            "remove it, or give the upstream `tls`",
        );
    }
    if let Some(at) = given.key("port").filter(|_| has_sockets(&upstream.address)) {
        problems.wrong(at, "a Unix socket has no other port", "remove `port`");
    }
    if given.key("unhealthy_interval").is_none() {
        check.unhealthy_interval = check.interval;
    }
    if check.timeout > check.interval {
        problems.warn(
            given.place("timeout"),
            "a probe may still run when the next one is due",
            format!("`timeout` is {:?}, `interval` is {:?}", check.timeout, check.interval),
        );
    }
    check
}
