//! Headers that a token's claims or an authorizer write (`claim_headers`, `upstream_headers`), and who else could write them.
//!
//! Where a token is verified, or an authorizer asked, attache removes what clients send under these names. Access rules
//! see the request before that, and a route without such a check passes the client's header on. Both would let a client
//! choose its identity: the first is an error, the second a warning.

use std::collections::HashMap;

use http::HeaderName;

use crate::{
    diagnostic::{Place, Problems},
    model::{Action, Authorization, AuthorizerUse, Config, Listener, Route, UpstreamId},
    yaml::{YamlKind, YamlNode},
};

pub(super) fn check(config: &Config, tree: &YamlNode, problems: &mut Problems) {
    let listeners = tree.get("listeners");
    for listener in &config.listeners {
        let node = listeners.and_then(|node| node.get(&listener.name));
        let of_listener = node.map_or_else(Place::default, |node| node.place);
        let routes = match node.and_then(|node| node.get("routes")).map(|node| &node.kind) {
            Some(YamlKind::Sequence(routes)) => routes.as_slice(),
            _ => &[],
        };
        let at = |index: usize| routes.get(index).map_or(of_listener, |node| node.place);
        let headers: Vec<IdentityHeaders<'_>> =
            listener.routes.iter().map(|route| IdentityHeaders::of(config, listener, route)).collect();
        if let Some(rules) = listener.authorization.as_deref() {
            let claimed = jwt_headers(config, Some(rules));
            check_rules(rules, &claimed, of_listener, problems);
        }
        for (index, (route, headers)) in listener.routes.iter().zip(&headers).enumerate() {
            if let Some(rules) = route.authorization.as_deref() {
                check_rules(rules, &headers.claimed, at(index), problems);
            }
        }
        check_routes(listener, &headers, at, problems);
    }
}

/// The identity headers that attache writes on a route.
struct IdentityHeaders<'c> {
    claimed: Vec<&'c HeaderName>,
    granted: &'c [HeaderName],
    to: Vec<UpstreamId>,
}

impl<'c> IdentityHeaders<'c> {
    fn of(config: &'c Config, listener: &Listener, route: &Route) -> Self {
        let (own, shared) = (route.authorization.as_deref(), listener.authorization.as_deref());
        let with_token = own.filter(|rules| rules.jwt.is_some()).or(shared);
        let external = own.and_then(|rules| rules.external.as_ref());
        let external = external.or_else(|| shared.and_then(|rules| rules.external.as_ref()));
        let granted = match external {
            Some(AuthorizerUse::Ask { authorizer, .. }) => config.authorizers.get(*authorizer),
            Some(AuthorizerUse::Off) | None => None,
        };
        let to = match &route.action {
            Action::Forward(forward) => forward.to.iter().map(|to| to.upstream).collect(),
            Action::Redirect(_) | Action::Respond(_) => Vec::new(),
        };
        Self {
            claimed: jwt_headers(config, with_token),
            granted: granted.map_or(&[], |authorizer| &authorizer.upstream_headers),
            to,
        }
    }

    fn all(&self) -> impl Iterator<Item = &'c HeaderName> {
        self.claimed.iter().copied().chain(self.granted)
    }
}

fn jwt_headers<'c>(config: &'c Config, rules: Option<&Authorization>) -> Vec<&'c HeaderName> {
    let used = rules.and_then(|rules| rules.jwt.as_ref()).map_or(&[][..], |jwt| &jwt.providers);
    let providers = used.iter().filter_map(|&index| config.jwt.get(index));
    providers.flat_map(|provider| provider.claim_headers.iter().map(|(name, _)| name)).collect()
}

/// Access rules about these headers would trust what the client writes there.
fn check_rules(rules: &Authorization, claimed: &[&HeaderName], at: Place, problems: &mut Problems) {
    if let Some(name) = rules.header_names().find(|name| claimed.contains(name)) {
        problems.wrong(
            at,
            format!("this rule checks `{name}`, but attache writes a claim of the token there only after the rules: they see the client's own value"),
            "check the claim itself: `claims: { sub: ann }`",
        );
    }
}

/// Another route to the same upstream lets clients write a header that the upstream trusts.
fn check_routes(
    listener: &Listener,
    headers: &[IdentityHeaders<'_>],
    at: impl Fn(usize) -> Place,
    problems: &mut Problems,
) {
    // Of each upstream, the headers that attache writes on some route to it, each with the first such route.
    let mut of_upstreams: HashMap<UpstreamId, Vec<(&HeaderName, usize)>> = HashMap::new();
    for (index, theirs) in headers.iter().enumerate() {
        for name in theirs.all() {
            for to in &theirs.to {
                let written = of_upstreams.entry(*to).or_default();
                if !written.iter().any(|(known, _)| *known == name) {
                    written.push((name, index));
                }
            }
        }
    }
    for (index, (route, own)) in listener.routes.iter().zip(headers).enumerate() {
        let edits = &route.request_headers;
        let is_written = |name: &HeaderName| {
            own.all().any(|own| own == name)
                || edits.remove.contains(name)
                || edits.set.iter().any(|(set, _)| set == name)
        };
        let written = own.to.iter().filter_map(|to| of_upstreams.get(to)).flatten();
        let found = written.filter(|(name, _)| !is_written(name)).min_by_key(|(_, other)| *other);
        if let Some((name, other)) =
            found.and_then(|(name, at)| Some((name, &listener.routes.get(*at)?.name)))
        {
            problems.warn(
                at(index),
                format!("clients can write `{name}` on this route; on `{other}`, which leads to the same upstream, only attache writes it"),
                format!("`headers: {{ request: {{ remove: {name} }} }}`, unless the upstream expects the client's here"),
            );
        }
    }
}
