//! The last lines of `attache check`: what a listener does with Hosts, which Host its upstreams get, and what happens
//! to connections to an endpoint that turns unhealthy.

use attache_config::model::{Action, Bind, Config, HostRewrite, Listener, OnUnhealthy, UpstreamProtocol};

use crate::{UpstreamHost, named::KnownHosts, words::show_unhealthy};

/// A line for each listener whose routes are only for some hosts, one for each upstream that speaks HTTP, and one for
/// each upstream whose connections are closed when an endpoint turns unhealthy.
pub fn summary(config: &Config) -> Vec<String> {
    let listeners = config.listeners.iter().filter_map(only_some_hosts);
    let upstreams = config
        .upstreams
        .iter()
        .filter(|upstream| upstream.protocol != UpstreamProtocol::Tcp)
        .map(|upstream| format!("upstream {}: {}", upstream.name, UpstreamHost::of(upstream).describe()));
    let closing = config.upstreams.iter().filter(|upstream| upstream.on_unhealthy == OnUnhealthy::Close).map(
        |upstream| format!("upstream {}: unhealthy endpoints: {}", upstream.name, show_unhealthy(upstream)),
    );
    listeners.chain(upstreams).chain(closing).collect()
}

fn only_some_hosts(listener: &Listener) -> Option<String> {
    let forwards = listener.routes.iter().filter(|route| matches!(route.action, Action::Forward(_)));
    let of_requests = forwards.filter(|route| route.matcher.sni.is_empty());
    let hosts = KnownHosts::by(of_requests, |route| &route.matcher.hosts).only()?;
    let own = listener.bind.iter().find_map(|bind| match bind {
        Bind::Tcp(address) => Some(format!(", such as `localhost:{}`,", address.port())),
        Bind::Unix { .. } => None,
    });
    Some(format!(
        "listener {}: routes by Host: {hosts}; any other Host{} gets `no-route`",
        listener.name,
        own.unwrap_or_default()
    ))
}

impl UpstreamHost {
    /// The Host that the upstream gets, in words.
    pub fn describe(&self) -> String {
        match (&self.rule, &self.authority) {
            (HostRewrite::To(host), _) => format!("gets the Host `{host}`"),
            (HostRewrite::Upstream, Some(own)) => format!("gets its own Host, `{own}`"),
            (HostRewrite::Auto, Some(own)) if self.has_name => {
                format!("gets its own Host, `{own}`; a request that names the upstream keeps its Host")
            }
            (HostRewrite::Auto, Some(own)) => {
                format!("gets the request's Host; `{own}` replaces `localhost` and loopback addresses")
            }
            (HostRewrite::Preserve, _) | (_, None) => "gets the request's Host".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_summary_says_which_host_leads_where_and_which_host_is_sent() {
        let config = attache_config::parse(
            "upstreams: { orders: 'https://orders.test', users: { address: 'http://users.test', host: api.test },\n\
             app: 'http://127.0.0.1:8080', kept: { address: 'http://k.test', host: preserve },\n\
             db: { address: 'tcp://db:5432', on_unhealthy: close } }",
            None,
            &|_| None,
        );
        insta::assert_snapshot!(super::summary(&config.unwrap()).join("\n"), @r"
        listener outbound: routes by Host: `orders`, `orders.test`, `users`, `users.test`, `app`, `127.0.0.1`, `kept`, `k.test`; any other Host, such as `localhost:15001`, gets `no-route`
        upstream orders: gets its own Host, `orders.test`; a request that names the upstream keeps its Host
        upstream users: gets the Host `api.test`
        upstream app: gets the request's Host; `127.0.0.1:8080` replaces `localhost` and loopback addresses
        upstream kept: gets the request's Host
        upstream db: unhealthy endpoints: idle connections are closed, tunnels and opaque connections are reset (`on_unhealthy: close`)
        ");
    }
}
