//! Which Host an upstream gets.
//!
//! A route (`rewrite.host`) or the upstream (`host`) may set it. If neither does, the host that the request names
//! decides:
//!
//! 1. A request without a Host (HTTP/1.0) gets the upstream's own authority: every further hop needs one (RFC 9112
//!    section 3.2).
//! 2. A Host that only names this machine (`localhost`, `127.0.0.1`) names attache: the upstream's own replaces it.
//! 3. A request that named the upstream (its name or a host of its addresses) or its route (`match.host`) keeps its Host.
//! 4. Any other request gets the upstream's own Host, if the upstream has a name, since name-based APIs and ingresses
//!    answer only their own name. An upstream that is only an IP address, a socket or `localhost` has no such name: it
//!    gets the client's Host, as an application behind attache expects.

use std::net::IpAddr;

use attache_config::model::{Address, EndpointTarget, HostRewrite, Name, Upstream};
use attache_http::CanonicalHost;

use crate::RequestFacts;

/// The Host of one upstream, ready for use.
#[derive(Debug)]
pub struct UpstreamHost {
    pub(crate) rule: HostRewrite,
    pub(crate) authority: Option<Name>,
    /// The names by which a request can name it, in the form in which hosts are compared.
    names: Vec<Box<str>>,
    /// True if one of its addresses has a name that others know.
    pub(crate) has_name: bool,
}

impl UpstreamHost {
    /// For an upstream of the config.
    pub fn of(upstream: &Upstream) -> Self {
        let sources = match &upstream.address {
            Address::Endpoints(sources) => sources.as_slice(),
            Address::Authority { .. } | Address::OriginalDestination => &[],
        };
        let mut names: Vec<Box<str>> = Vec::new();
        let mut has_name = false;
        let hosts = sources.iter().flat_map(|source| match &source.target {
            EndpointTarget::Dns { host, .. } => vec![host.to_string()],
            EndpointTarget::Srv { name } => vec![name.to_string()],
            EndpointTarget::Kubernetes(service) => {
                let host = service.host();
                let short = host.trim_end_matches(".svc").to_owned();
                vec![format!("{host}.cluster.local"), short, host.to_string()]
            }
            EndpointTarget::Ip(address) => vec![address.ip().to_string()],
            EndpointTarget::Unix(_) => Vec::new(),
        });
        for host in hosts.chain([upstream.name.to_string()]) {
            if let Some(host) = CanonicalHost::new(&host) {
                names.push(host.as_str().into());
            }
        }
        for source in sources {
            has_name |= match &source.target {
                EndpointTarget::Dns { host, .. } => {
                    CanonicalHost::new(host).is_some_and(|host| !is_this_machine(&host))
                }
                EndpointTarget::Srv { .. } | EndpointTarget::Kubernetes(_) => true,
                EndpointTarget::Ip(_) | EndpointTarget::Unix(_) => false,
            };
        }
        Self { rule: upstream.host.clone(), authority: upstream.authority(), names, has_name }
    }

    /// The Host of a request; `None` keeps its own. `matched`: the request's route was found by its Host.
    pub(crate) fn sent<'a>(
        &'a self,
        route: &'a HostRewrite,
        request: &RequestFacts<'_>,
        matched: bool,
    ) -> Option<&'a str> {
        let rule = if *route == HostRewrite::Auto { &self.rule } else { route };
        let own = self.authority.as_deref();
        match (rule, &request.host) {
            (HostRewrite::To(host), _) => Some(host),
            (HostRewrite::Upstream, _) | (_, None) => own,
            (HostRewrite::Preserve, Some(_)) => None,
            (HostRewrite::Auto, Some(host)) => {
                let asked = is_this_machine(host)
                    || (self.has_name && !matched && !self.names.iter().any(|name| **name == *host.as_str()));
                if asked { own } else { None }
            }
        }
    }
}

/// True for a name of this machine. It doesn't name an upstream: the application uses it for the attache beside it.
fn is_this_machine(host: &CanonicalHost<'_>) -> bool {
    let name = host.as_str();
    if name == "localhost" || name.ends_with(".localhost") {
        return true;
    }
    // Only a text that looks like an address is parsed as one, because this runs once for each request.
    let looks = host.is_v6() || name.as_bytes().first().is_some_and(u8::is_ascii_digit);
    looks
        && name.parse::<IpAddr>().is_ok_and(|address| {
            let address = address.to_canonical();
            address.is_loopback() || address.is_unspecified()
        })
}

#[cfg(test)]
mod tests {
    use attache_config::model::Config;
    use attache_http::Client;

    use super::*;
    use crate::{RouteTable, testing::request};

    fn config(text: &str) -> Config {
        attache_config::parse(text, None, &|_| None).unwrap()
    }

    /// The Host that is sent if a request names `host`.
    fn sent(text: &str, host: &str) -> String {
        let config = config(text);
        let parts = request("GET", &format!("{host}/x"), &[]);
        let client = Client::default();
        let facts = RequestFacts::of(&parts, &client);
        let table = RouteTable::new(&config.listeners[0]);
        let Some(matched) = table.find_http(&facts) else { return "no-route".to_owned() };
        let (_, to) = matched.route.choose(0).unwrap();
        let upstream = UpstreamHost::of(&config.upstreams[to.upstream.0]);
        matched.route.host(&facts, &upstream).unwrap_or(host).to_owned()
    }

    #[test]
    fn a_request_that_does_not_name_its_upstream_gets_the_upstreams_own_host() {
        let two_lines = "upstreams: { orders: 'https://orders.internal:8443' }";
        for host in ["localhost:15001", "127.0.0.1:15001", "[::1]:15001", "attache:15001", "shop.example", ""]
        {
            assert_eq!(sent(two_lines, host), "orders.internal:8443", "{host}");
        }
        assert_eq!(sent("upstreams: { orders: 'https://orders.internal' }", "localhost"), "orders.internal");
        assert_eq!(sent("upstreams: { o: 'http://localhost:9000' }", "localhost:15001"), "localhost:9000");
        assert_eq!(sent("upstreams: { o: 'http://127.0.0.1:9000' }", "localhost:15001"), "127.0.0.1:9000");
        assert_eq!(sent("upstreams: { o: 'http://[::1]:9000' }", "127.0.0.1:15001"), "[::1]:9000");
    }

    #[test]
    fn a_request_that_names_its_upstream_keeps_its_host() {
        let two_lines = "upstreams: { orders: 'https://orders.internal:8443' }";
        for host in ["orders.internal", "ORDERS.internal.", "orders.internal:99", "orders"] {
            assert_eq!(sent(two_lines, host), host);
        }
        let routed = "listeners: { o: { bind: ':1', routes: [{ match: { host: '*.shop.example' }, to: orders }] } }\n\
                      upstreams: { orders: 'https://orders.internal:8443' }";
        assert_eq!(sent(routed, "eu.shop.example"), "eu.shop.example");
        let mixed = routed.replace("'*.shop.example'", "['*.shop.example', '*']");
        assert_eq!(sent(&mixed, "eu.shop.example"), "eu.shop.example");
        assert_eq!(sent(&mixed, "other.example"), "orders.internal:8443");
        assert_eq!(sent("upstreams: { any: authority }", "shop.example"), "shop.example");
    }

    #[test]
    fn an_application_behind_attache_sees_the_host_that_its_callers_used() {
        for address in
            ["http://127.0.0.1:8080", "http://localhost:8080", "unix:/run/app.sock", "http://10.0.0.9"]
        {
            assert_eq!(sent(&format!("upstreams: {{ app: '{address}' }}"), "shop.example"), "shop.example");
        }
    }

    #[test]
    fn a_host_in_the_config_is_used_and_the_routes_takes_precedence() {
        let with = |host: &str, rewrite: &str| {
            format!(
                "listeners: {{ o: {{ bind: ':1', routes: [{{ to: orders, rewrite: {{ path: /y{rewrite} }} }}] }} }}\n\
                 upstreams: {{ orders: {{ address: 'https://orders.internal', host: '{host}' }} }}"
            )
        };
        assert_eq!(sent(&with("preserve", ""), "localhost:1"), "localhost:1");
        assert_eq!(sent(&with("preserve", ""), ""), "orders.internal");
        assert_eq!(sent(&with("upstream", ""), "orders.internal:9"), "orders.internal");
        assert_eq!(sent(&with("api.example:8", ""), "orders.internal"), "api.example:8");
        assert_eq!(sent(&with("api.example", ", host: preserve"), "a"), "a");
        assert_eq!(sent(&with("preserve", ", host: b.example"), "a"), "b.example");
    }
}
