//! Authorizers that are asked by HTTP, where connections have no request to ask about.
//!
//! Opaque bytes and tunnels have no method, path or headers to send, so such an authorizer can't decide about them. attache refuses
//! each of them, so a route that takes nothing else could never carry anything.

use crate::{
    diagnostic::{Place, Problems},
    model::{Action, AuthorizerProtocol, AuthorizerUse, Config, ListenProtocol, Listener, Route, Traffic},
    yaml::{YamlKind, YamlNode},
};

pub(super) fn check(config: &Config, tree: &YamlNode, problems: &mut Problems) {
    for listener in &config.listeners {
        let node = tree.get("listeners").and_then(|node| node.get(&listener.name));
        let of_listener = node.map_or_else(Place::default, |node| node.place);
        let routes = match node.and_then(|node| node.get("routes")).map(|node| &node.kind) {
            Some(YamlKind::Sequence(routes)) => routes.as_slice(),
            _ => &[],
        };
        for (index, route) in listener.routes.iter().enumerate() {
            if let Some(name) = asked_by_http(config, listener, route).filter(|_| is_opaque(listener, route))
            {
                problems.wrong(
                    routes.get(index).map_or(of_listener, |node| node.place),
                    format!("this route takes opaque connections, and the authorizer `{name}` is asked by HTTP: it would refuse every connection"),
                    "`protocol: grpc` of the authorizer, which can be asked about connections; or `authorization: { external: off }` on this route",
                );
            }
        }
    }
}

/// The name of the authorizer that is asked about the route's requests, where it is asked by HTTP.
fn asked_by_http<'c>(config: &'c Config, listener: &Listener, route: &Route) -> Option<&'c str> {
    let external = |rules: &'_ Option<std::sync::Arc<crate::model::Authorization>>| {
        rules.as_ref().and_then(|rules| rules.external.clone())
    };
    let used = external(&route.authorization).or_else(|| external(&listener.authorization))?;
    let AuthorizerUse::Ask { authorizer, .. } = used else { return None };
    let authorizer = config.authorizers.get(authorizer)?;
    matches!(authorizer.protocol, AuthorizerProtocol::Http { .. }).then_some(&*authorizer.name)
}

/// It takes opaque connections and tunnels, and nothing else.
fn is_opaque(listener: &Listener, route: &Route) -> bool {
    let Action::Forward(forward) = &route.action else { return false };
    matches!(listener.protocol, ListenProtocol::Tcp | ListenProtocol::Tls)
        || forward.passes_tls()
        || forward.traffic == Traffic::Opaque
}

#[cfg(test)]
mod tests {
    fn said(listener: &str, protocol: &str) -> String {
        let text = format!(
            "listeners: {{ in: {{ bind: ':1', {listener} }} }}
authorizers: {{ z: {{ service: z, protocol: {protocol} }} }}
upstreams: {{ app: 'http://a', raw: 'tcp://a:1', z: 'h2c://b' }}"
        );
        match crate::parse(&text, None, &|_| None) {
            Ok(_) => String::new(),
            Err(found) => found.to_string(),
        }
    }

    #[test]
    fn an_authorizer_that_is_asked_by_http_is_asked_about_no_connection() {
        const ASKS: &str = "authorization: { external: z }";
        for listener in [
            format!("protocol: tcp, {ASKS}, to: raw"),
            format!("{ASKS}, to: raw"),
            format!("routes: [{{ match: {{ destination: 10.0.0.0/8 }}, to: raw, {ASKS} }}, {{ to: app }}]"),
            format!("protocol: tls, routes: [{{ match: {{ sni: a.test }}, to: raw, {ASKS} }}]"),
            format!("routes: [{{ match: {{ methods: CONNECT }}, to: raw, {ASKS} }}, {{ to: app }}]"),
        ] {
            let said = said(&listener, "http");
            assert!(said.contains("it would refuse every connection"), "{listener}: {said}");
            assert!(self::said(&listener, "grpc").is_empty(), "{listener}");
        }
        for listener in [
            format!("{ASKS}, to: app"),
            format!(
                "{ASKS}, routes: [{{ match: {{ destination: 10.0.0.0/8 }}, to: raw, authorization: {{ external: off }} }}], to: app"
            ),
        ] {
            assert_eq!(said(&listener, "http"), "", "{listener}");
        }
    }
}
