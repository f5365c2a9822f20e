//! Where an upstream is, and what its scheme says of it.

use std::net::SocketAddr;

use super::{
    NotationError,
    address::{host_name, split_port, unix_path},
    wrong,
};
use crate::model::{EndpointTarget, KubernetesPort, KubernetesService};

/// The scheme of an upstream's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// No scheme: HTTP or opaque bytes, as the listener receives them.
    Open,
    Http,
    H2c,
    Https,
    Tcp,
    Tls,
}

impl Scheme {
    fn of(word: &str) -> Option<Self> {
        Some(match word {
            "http" => Self::Http,
            "h2c" => Self::H2c,
            "https" => Self::Https,
            "tcp" => Self::Tcp,
            "tls" => Self::Tls,
            _ => return None,
        })
    }

    fn port(self) -> Option<u16> {
        match self {
            Self::Http | Self::H2c => Some(80),
            Self::Https => Some(443),
            Self::Open | Self::Tcp | Self::Tls => None,
        }
    }

    pub(crate) fn is_encrypted(self) -> bool {
        matches!(self, Self::Https | Self::Tls)
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Open => "none",
            Self::Http => "http",
            Self::H2c => "h2c",
            Self::Https => "https",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }
}

/// Schemes of other protocols, and what to write for them.
const OF_OTHERS: &[(&[&str], &str)] = &[
    (&["ws"], "`http`"),
    (&["wss"], "`https`"),
    (&["grpc", "http2"], "`h2c`, or `https` where it is encrypted"),
    (&["grpcs", "h2"], "`https`"),
    (
        &[
            "postgres",
            "postgresql",
            "mysql",
            "redis",
            "mongodb",
            "amqp",
            "kafka",
            "mqtt",
            "nats",
            "smtp",
            "ldap",
            "memcached",
        ],
        "`tcp`, or `tls` where attache encrypts it",
    ),
    (
        &["rediss", "amqps", "mqtts", "ldaps", "ssl"],
        "`tls` where attache encrypts it, or `tcp` where the application does",
    ),
];

/// The address of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum UpstreamAddress {
    Authority,
    OriginalDestination,
    At(Scheme, EndpointTarget),
}

pub(super) fn source(text: &str) -> Result<UpstreamAddress, NotationError> {
    match text {
        "authority" => return Ok(UpstreamAddress::Authority),
        "original-destination" => return Ok(UpstreamAddress::OriginalDestination),
        _ => {}
    }
    let Some((scheme, rest)) = text.split_once(':').filter(|(scheme, rest)| {
        rest.starts_with("//")
            || scheme.starts_with("unix")
            || *scheme == "srv"
            || scheme.starts_with("srv+")
            || scheme.starts_with("kubernetes")
    }) else {
        let slashes = |scheme: &&str| {
            let rest = text.strip_prefix(*scheme)?;
            rest.starts_with([':', '/']).then(|| rest.trim_start_matches([':', '/']))
        };
        let help = ["http", "https", "h2c", "tcp", "tls"]
            .iter()
            .find_map(|scheme| slashes(scheme).map(|rest| format!("`{scheme}://{rest}`?")));
        return wrong(
            "{} has no scheme, so its protocol isn't known",
            help.unwrap_or_else(|| {
                format!(
                    "`http://{text}`, `https://{text}`, `h2c://{text}`, `tcp://{text}` or `tls://{text}`?"
                )
            }),
        );
    };
    let (kind, spoken) = scheme.split_once('+').map_or((scheme, None), |(kind, spoken)| (kind, Some(spoken)));
    let unknown = || {
        let known = ["http", "https", "h2c", "tcp", "tls", "unix", "srv", "kubernetes"];
        let word = spoken.unwrap_or(kind);
        let near = crate::suggest::nearest(word, known).map(|near| format!("did you mean `{near}`?"));
        let other = OF_OTHERS.iter().find(|(theirs, _)| theirs.contains(&word));
        NotationError {
            what: format!("the scheme `{scheme}` isn't known"),
            help: other.map(|(_, ours)| format!("`{word}` is written {ours}")).or(near).unwrap_or_else(
                || "`http`, `https`, `h2c`, `tcp`, `tls`, `unix`, `srv` or `kubernetes`".into(),
            ),
        }
    };
    let spoken_scheme = match spoken {
        Some(spoken) => Scheme::of(spoken).ok_or_else(unknown)?,
        None => Scheme::Open,
    };
    match kind {
        "unix" => Ok(UpstreamAddress::At(spoken_scheme, EndpointTarget::Unix(unix_path(rest)?))),
        "srv" => srv(rest).map(|target| UpstreamAddress::At(spoken_scheme, target)),
        "kubernetes" => kubernetes(rest).map(|target| UpstreamAddress::At(spoken_scheme, target)),
        _ if spoken.is_some() => Err(unknown()),
        kind => {
            let scheme = Scheme::of(kind).ok_or_else(unknown)?;
            host_target(scheme, rest.strip_prefix("//").unwrap_or(rest))
        }
    }
}

fn host_target(scheme: Scheme, rest: &str) -> Result<UpstreamAddress, NotationError> {
    if rest.contains('@') {
        return wrong("{} has a user or password", "set an `authorization` header on the route instead");
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.split(['/', '?']).next().is_some_and(|authority| authority.contains('#')) {
        return wrong("{} has a `#`", "a comment begins with a space and `#`");
    }
    if let Some((authority, path)) = rest.split_once(['/', '?', '#']) {
        return wrong(
            "{} has a path, an upstream has none",
            format!("`{}://{authority}`, and `rewrite: {{ prefix: /{path} }}` on the route", scheme.word()),
        );
    }
    let (host, port) = split_port(rest)?;
    if port == Some(0) {
        return wrong("{} has port 0", "a port from 1 to 65535");
    }
    let Some(port) = port.or(scheme.port()) else {
        return wrong("{} has no port", format!("`{}://{host}:PORT`", scheme.word()));
    };
    let target = if let Ok(address) = host.parse() {
        EndpointTarget::Ip(SocketAddr::new(address, port))
    } else {
        let name = host_name(host)?;
        // The final dot says that no search domain is tried: it is kept for the look-up.
        let host = if host.ends_with('.') { format!("{name}.").into() } else { name };
        EndpointTarget::Dns { host, port }
    };
    Ok(UpstreamAddress::At(scheme, target))
}

fn srv(rest: &str) -> Result<EndpointTarget, NotationError> {
    let name = rest.strip_prefix("//").unwrap_or(rest);
    let labels: Vec<&str> = name.split('.').collect();
    let [service, protocol, _, ..] = labels.as_slice() else {
        return wrong("{} isn't an SRV name", "such as `srv://_postgres._tcp.db.internal`");
    };
    if !service.starts_with('_') || !protocol.starts_with('_') {
        return wrong("{} isn't an SRV name", "`_SERVICE._PROTO.NAME`, both with an underscore (RFC 2782)");
    }
    if name.contains(':') {
        return wrong("{} has a port", "the SRV record says the port");
    }
    let checked = host_name(name)?;
    Ok(EndpointTarget::Srv { name: if name.ends_with('.') { format!("{checked}.").into() } else { checked } })
}

fn kubernetes(rest: &str) -> Result<EndpointTarget, NotationError> {
    const FORM: &str = "`kubernetes://SERVICE.NAMESPACE:PORT`, such as `kubernetes://orders.shop:http`";
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains(['/', '?', '#', '@']) {
        return wrong("{} has more than a Service and a port", FORM);
    }
    let Some((service, port)) = rest.split_once(':').filter(|(_, port)| !port.is_empty()) else {
        return wrong(
            "{} has no port",
            format!(
                "`kubernetes://{rest}:PORT`, the name of the Service's port or the number of the pods' port"
            ),
        );
    };
    // Two names that are the same for DNS are one name here.
    let short = service.strip_suffix('.').unwrap_or(service);
    let short =
        short.strip_suffix(".svc.cluster.local").or_else(|| short.strip_suffix(".svc")).unwrap_or(short);
    let Some((name, namespace)) = short.split_once('.') else {
        return wrong(
            "{} has no namespace",
            format!("`kubernetes://{service}.NAMESPACE:{port}`; `${{POD_NAMESPACE}}` is the pod's own"),
        );
    };
    for (what, label) in [("a Service's name", name), ("a namespace", namespace)] {
        if !is_label(label) {
            return wrong(format!("{{}}: `{label}` is not {what}"), FORM);
        }
    }
    let port = match port.parse::<u16>() {
        Ok(0) => return wrong("{} has port 0", "a port from 1 to 65535, or the name of the Service's port"),
        Ok(number) => KubernetesPort::Number(number),
        Err(_) if is_label(port) && port.bytes().any(|byte| byte.is_ascii_lowercase()) => {
            KubernetesPort::Name(port.into())
        }
        Err(_) => {
            return wrong(
                format!("{{}}: `{port}` isn't a port"),
                "a number from 1 to 65535, or the name of the Service's port",
            );
        }
    };
    Ok(EndpointTarget::Kubernetes(KubernetesService { name: name.into(), namespace: namespace.into(), port }))
}

/// A DNS label as Kubernetes' names are (RFC 1123 section 2.1, in lower case).
fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=63).contains(&text.len())
        && text.bytes().all(|byte| inner(byte) || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> UpstreamAddress {
        super::source(text).unwrap_or_else(|wrong| panic!("{text}: {wrong:?}"))
    }

    #[test]
    fn a_scheme_says_the_default_port() {
        let dns = |host: &str, port| EndpointTarget::Dns { host: host.into(), port };
        assert_eq!(
            source("https://Orders.internal"),
            UpstreamAddress::At(Scheme::Https, dns("orders.internal", 443))
        );
        assert_eq!(source("h2c://grpc:50051"), UpstreamAddress::At(Scheme::H2c, dns("grpc", 50051)));
        assert_eq!(
            source("http://[::1]"),
            UpstreamAddress::At(Scheme::Http, EndpointTarget::Ip("[::1]:80".parse().unwrap()))
        );
        assert_eq!(source("https://a.b.:1"), UpstreamAddress::At(Scheme::Https, dns("a.b.", 1)));
        assert!(super::source("tcp://db").is_err());
    }

    #[test]
    fn unix_and_srv_may_say_what_is_spoken() {
        let unix = || EndpointTarget::Unix("/run/app.sock".into());
        assert_eq!(source("unix:/run/app.sock"), UpstreamAddress::At(Scheme::Open, unix()));
        assert_eq!(source("unix:///run/app.sock"), UpstreamAddress::At(Scheme::Open, unix()));
        assert_eq!(source("unix+h2c:/run/app.sock"), UpstreamAddress::At(Scheme::H2c, unix()));
        let srv = EndpointTarget::Srv { name: "_a._tcp.b".into() };
        assert_eq!(source("srv+https://_a._tcp.b"), UpstreamAddress::At(Scheme::Https, srv));
    }

    #[test]
    fn a_service_of_kubernetes_has_a_namespace_and_a_port() {
        let service = |port| {
            EndpointTarget::Kubernetes(KubernetesService {
                name: "orders".into(),
                namespace: "shop".into(),
                port,
            })
        };
        let named = || service(KubernetesPort::Name("http".into()));
        assert_eq!(source("kubernetes://orders.shop:http"), UpstreamAddress::At(Scheme::Open, named()));
        assert_eq!(
            source("kubernetes+https://orders.shop.svc:http/"),
            UpstreamAddress::At(Scheme::Https, named())
        );
        assert_eq!(
            source("kubernetes://orders.shop.svc.cluster.local.:http"),
            UpstreamAddress::At(Scheme::Open, named())
        );
        let numbered = service(KubernetesPort::Number(8080));
        assert_eq!(source("kubernetes+tcp://orders.shop:8080"), UpstreamAddress::At(Scheme::Tcp, numbered));
        for (text, help) in [
            ("kubernetes://orders.shop", "`kubernetes://orders.shop:PORT`"),
            ("kubernetes://orders.shop:", "PORT"),
            ("kubernetes://orders:http", "NAMESPACE:http"),
            ("kubernetes://Orders.shop:http", "SERVICE.NAMESPACE:PORT"),
            ("kubernetes://a.b.c:http", "SERVICE.NAMESPACE:PORT"),
            ("kubernetes://.shop:http", "SERVICE.NAMESPACE:PORT"),
            ("kubernetes://orders.shop:0", "1 to 65535"),
            ("kubernetes://orders.shop:70000", "1 to 65535"),
            ("kubernetes://orders.shop:HTTP", "1 to 65535"),
            ("kubernetes://orders.shop:http/v1", "SERVICE.NAMESPACE:PORT"),
            ("kubernetes://u@orders.shop:http", "SERVICE.NAMESPACE:PORT"),
            ("kubernetes+ftp://orders.shop:http", "`kubernetes`"),
            ("kubernets://orders.shop:http", "`kubernetes`"),
            ("kubernetes:orders.shop", "PORT"),
        ] {
            let found = super::source(text).unwrap_err();
            assert!(found.help.contains(help), "{text}: {found:?}");
        }
    }

    #[test]
    fn an_address_that_could_be_read_in_two_ways_is_refused_with_a_way_out() {
        for (text, help) in [
            ("orders.internal:8443", "`https://orders.internal:8443`"),
            ("127.0.0.1:80", "`http://127.0.0.1:80`"),
            ("https://a/v1", "rewrite"),
            ("https://u:p@a", "authorization"),
            ("htps://a", "`https`"),
            ("http://münchen.de", "punycode"),
            ("http://1.2.3", "four parts"),
            ("http://::1", "brackets"),
            ("srv://postgres.tcp.x", "underscore"),
        ] {
            let found = super::source(text).unwrap_err();
            assert!(found.help.contains(help), "{text}: {found:?}");
        }
    }
}
