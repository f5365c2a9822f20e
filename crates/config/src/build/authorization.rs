//! Access rules of a listener or route: they must be complete, and must not admit every client by mistake.

use std::net::IpAddr;

use super::{Targets, authorizer, framing::framing, jwt};
use crate::{
    diagnostic::{Place, Problems},
    index::FirstByKey,
    model::{
        AccessConditions, AccessRule, AddressMatch, Authorization, AuthorizerUse, HeaderCondition,
        ListenProtocol, Listener, ProxyProtocolIn, SourceLine,
    },
    section::ParsedSection,
    shapes::{Mapping, OneOrMany, Spanned, Text},
    text::{HeaderText, ValueText},
};

/// Facts about a listener's clients that its rules depend on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientFacts {
    protocol: ListenProtocol,
    /// Any client may claim any address.
    claimed_addresses: bool,
    /// The listener may receive TLS with a server name.
    server_names: bool,
    /// Clients are asked for a certificate, or the config of that is wrong.
    identities: bool,
    /// A client may connect without a certificate.
    optional: bool,
    /// The listener verifies tokens.
    tokens: bool,
    /// A request may come without a token.
    optional_tokens: bool,
    /// The listener asks an authorizer.
    external: bool,
    /// The rules belong to a route.
    route: bool,
}

impl ClientFacts {
    /// `terminates`: the listener has `tls`.
    pub(crate) fn new(listener: &Listener, terminates: bool, identities: bool, optional: bool) -> Self {
        let protocol = listener.protocol;
        Self {
            protocol,
            server_names: terminates || matches!(protocol, ListenProtocol::Auto | ListenProtocol::Tls),
            claimed_addresses: listener.proxy_protocol == ProxyProtocolIn::Optional,
            identities,
            optional,
            tokens: false,
            optional_tokens: false,
            external: false,
            route: false,
        }
    }

    /// The facts for the routes of a listener with these rules.
    pub(crate) fn of_routes(self, listener: Option<&Authorization>) -> Self {
        let jwt = listener.and_then(|rules| rules.jwt.as_ref());
        let optional_tokens = jwt.is_some_and(|jwt| !jwt.required);
        let external =
            listener.is_some_and(|rules| matches!(rules.external, Some(AuthorizerUse::Ask { .. })));
        Self { tokens: jwt.is_some(), optional_tokens, external, route: true, ..self }
    }
}

/// `whose` is the listener's or route's name.
pub(crate) fn authorization(
    raw: Spanned<ParsedSection<Authorization>>,
    whose: &str,
    facts: ClientFacts,
    targets: &Targets,
    problems: &mut Problems,
) -> Authorization {
    let (given, ParsedSection { section: mut rules, rest }) = raw.open();
    let asked = rest.jwt.is_some();
    let tokens = asked || facts.tokens || given.is_wrong("jwt");
    rules.jwt = rest.jwt.and_then(|raw| jwt::used(raw, &targets.issuers, problems));
    let asks = rest.external.is_some() || given.is_wrong("external");
    rules.external = rest.external.and_then(|raw| {
        let over = facts.route.then_some(facts.external);
        authorizer::used(raw, over, &targets.authorizers, problems)
    });
    let optional = rules.jwt.as_ref().map_or(facts.optional_tokens, |jwt| !jwt.required);
    if rest.deny.is_none()
        && rest.allow.is_none()
        && given.whole()
        && !asks
        && (!asked || (optional && !facts.route))
    {
        problems.wrong(
            given.at,
            "these rules allow everything to every client",
            "name what is refused in `deny`, or what is allowed in `allow` (`allow: []` allows nothing)",
        );
    }
    let trusts = !rules.trusted_proxies.is_empty() || given.is_wrong("trusted_proxies");
    if trust_everybody(&rules.trusted_proxies)
        && let Some(at) = given.key("trusted_proxies")
    {
        problems.wrong(
            at,
            "every client is a trusted proxy here, and can write any address into `X-Forwarded-For`",
            "name the networks of the proxies in front, and no other",
        );
    }
    let mut checked = |list: Vec<Spanned<ParsedSection<AccessRule>>>, kind: &str| -> Vec<AccessRule> {
        list.into_iter()
            .enumerate()
            .map(|(index, raw)| {
                let checks = RuleContext { facts, trusts, denies: kind == "deny", tokens, optional };
                rule(raw, || format!("{whose}/{kind}/{index}"), checks, problems)
            })
            .collect()
    };
    rules.deny = rest.deny.map(|deny| checked(deny, "deny")).unwrap_or_default();
    rules.allow = rest.allow.map(|allow| checked(allow, "allow"));
    let mut names = FirstByKey::default();
    for rule in rules.deny.iter().chain(rules.allow.iter().flatten()) {
        if names.keep(&*rule.name, ()).is_some() {
            let message = format!("another rule is already called `{}`", rule.name);
            problems.wrong(given.at, message, "give each rule a different name");
        }
    }
    rules.line = SourceLine(given.at.line);
    rules
}

/// True if these networks together contain every IPv4 address, or every IPv6 address.
fn trust_everybody(networks: &[AddressMatch]) -> bool {
    let ends = |range: &AddressMatch| {
        let (first, bits) = match range.network {
            IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32),
            IpAddr::V6(v6) => (v6.to_bits(), 128),
        };
        let others = u128::MAX.checked_shr(128 - bits + u32::from(range.prefix)).unwrap_or(0);
        (first, first | others)
    };
    let all = |is_v4: bool, last: u128| {
        let mut ranges: Vec<_> =
            networks.iter().filter(|range| range.network.is_ipv4() == is_v4).map(ends).collect();
        ranges.sort_unstable();
        // The first address that no network so far contains.
        let mut next = Some(0);
        for (first, end) in ranges {
            next = next.and_then(|next| {
                if first <= next { end.max(next.saturating_sub(1)).checked_add(1) } else { Some(next) }
            });
        }
        next.is_none_or(|next| next > last)
    };
    all(true, u128::from(u32::MAX)) || all(false, u128::MAX)
}

/// Facts about the place of a rule.
#[derive(Clone, Copy)]
struct RuleContext {
    facts: ClientFacts,
    /// There are trusted proxies.
    trusts: bool,
    denies: bool,
    /// Tokens are verified.
    tokens: bool,
    /// A request may come without a token.
    optional: bool,
}

fn rule(
    raw: Spanned<ParsedSection<AccessRule>>,
    name: impl FnOnce() -> String,
    checks: RuleContext,
    problems: &mut Problems,
) -> AccessRule {
    let (given, ParsedSection { section: mut rule, rest }) = raw.open();
    // A condition in `not` has the opposite effect: in a rule of `allow` it denies.
    conditions(&mut rule.when, rest.when.headers, &given, checks, checks.denies, problems);
    if let Some(not) = rest.not {
        let (given, ParsedSection { section, rest }) = not.open();
        rule.unless = section;
        conditions(&mut rule.unless, rest.headers, &given, checks, !checks.denies, problems);
    }
    opaque(&rule.when, &rule.unless, given.at, checks, problems);
    if given.whole() && !checks.denies && rule.when.is_empty() && rule.unless.is_empty() {
        problems.wrong(
            given.at,
            "this rule allows everything to every client",
            "say who or what it is for (`identity: \"*\"` is every client with a verified identity), or leave `allow` out",
        );
    }
    if rule.name.is_empty() {
        rule.name = name().into();
    }
    rule.line = SourceLine(given.at.line);
    rule
}

/// `refuses`: a condition that is met here refuses the request.
fn conditions(
    of: &mut AccessConditions,
    headers: Option<Mapping<HeaderText, OneOrMany<Text<ValueText>>>>,
    given: &Spanned<()>,
    checks: RuleContext,
    refuses: bool,
    problems: &mut Problems,
) {
    if let Some(at) = given.key("identity") {
        identities(at, checks.facts, refuses, problems);
    }
    if let Some(at) = given.key("client").filter(|_| checks.facts.claimed_addresses) {
        problems.wrong(
            at,
            "with `proxy_protocol: optional` any client can claim any address",
            "`proxy_protocol: require` (or `off`) on the listener",
        );
    }
    if let Some(at) = given.key("sni").filter(|_| !checks.facts.server_names) {
        let message = if refuses {
            "this rule is in doubt for every client, so it refuses all: this listener gets no TLS"
        } else {
            "this never matches: this listener gets no TLS"
        };
        problems.warn(at, message, "`host` for the Host of a request, or `tls` on the listener");
    }
    if let Some(at) = given.key("forwarded_client").filter(|_| !checks.trusts) {
        problems.wrong(
            at,
            "any client can write any address into `X-Forwarded-For`",
            "name the proxies whose entries are trusted: `trusted_proxies: 10.0.0.0/8`",
        );
    }
    for entry in headers.map(|headers| headers.entries).unwrap_or_default() {
        // The checker has refused every invalid name.
        let Ok(name) = http::HeaderName::from_bytes(entry.key.as_bytes()) else { continue };
        if name == http::header::HOST {
            problems.wrong(entry.at, "the Host header isn't matched here", "`host` of the rule");
        } else {
            framing(&name, entry.at, false, problems);
        }
        let any = entry.value.into_vec().into_iter().map(|value| value.0).collect();
        of.headers.push(HeaderCondition { name, any });
    }
    for at in ["claims", "claim_texts", "claim_items"].into_iter().filter_map(|key| given.key(key)) {
        if !checks.tokens {
            problems.wrong(
                at,
                "no token is verified here, so there are no claims",
                "`jwt: { issuers: … }` in `authorization`, or in that of the listener",
            );
        } else if refuses && checks.optional {
            problems.warn(
                at,
                "a client avoids this rule by sending no token",
                "`jwt: { required: true }`, or list the allowed ones in `allow`",
            );
        }
    }
}

/// A client without a certificate has no identity: a client that a rule refuses by identity could simply show no
/// certificate.
fn identities(at: Place, facts: ClientFacts, refuses: bool, problems: &mut Problems) {
    const HELP: &str = "`tls` with `client_ca` on the listener";
    match (facts.identities, refuses) {
        (false, true) => {
            problems.wrong(at, "this refuses no client, because no client is asked for a certificate", HELP);
        }
        (false, false) => {
            problems.warn(at, "this never matches, because no client is asked for a certificate", HELP);
        }
        (true, true) if facts.optional => problems.wrong(
            at,
            "a client avoids this rule by showing no certificate",
            "`client_optional: false`, or list the allowed ones in `allow`",
        ),
        (true, _) => {}
    }
}

/// Rules about HTTP on a listener that sees no HTTP.
fn opaque(
    when: &AccessConditions,
    unless: &AccessConditions,
    at: Place,
    checks: RuleContext,
    problems: &mut Problems,
) {
    if !matches!(checks.facts.protocol, ListenProtocol::Tcp | ListenProtocol::Tls) {
        return;
    }
    if when.needs_http() || unless.needs_http() {
        let message = if checks.denies {
            "this denies every connection: the listener takes opaque bytes, in which no request can be seen"
        } else {
            "this allows no connection: the listener takes opaque bytes, in which no request can be seen"
        };
        problems.warn(
            at,
            message,
            "`identity`, `client`, `port` and `sni` can be seen of opaque connections",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_name_is_asked_for_only_where_there_is_tls() {
        let warned = |listener: &str, kind: &str| {
            let text = format!(
                "listeners: {{ in: {{ bind: ':1', {listener}, authorization: {{ {kind}: [{{ sni: a.test }}] }}, to: a }} }}\nupstreams: {{ a: 'http://a' }}"
            );
            let config = crate::parse(&text, None, &|_| None).unwrap_or_else(|error| panic!("{error}"));
            config.warnings.iter().map(|found| found.message.clone()).collect::<Vec<_>>().join("\n")
        };
        assert!(warned("protocol: http", "deny").contains("refuses all: this listener gets no TLS"));
        assert!(warned("protocol: http2", "allow").contains("this never matches: this listener gets no TLS"));
        for listener in ["protocol: auto", "protocol: http, tls: { certificate: c, key: k }"] {
            assert_eq!(warned(listener, "deny"), "", "{listener}");
        }
    }

    #[test]
    fn networks_that_hold_every_address_trust_everybody() {
        let trusted = |networks: &[(&str, u8)]| {
            let range = |&(network, prefix): &(&str, u8)| AddressMatch {
                network: network.parse().unwrap(),
                prefix,
                port: None,
            };
            trust_everybody(&networks.iter().map(range).collect::<Vec<_>>())
        };
        assert!(trusted(&[("0.0.0.0", 0)]) && trusted(&[("::", 0)]));
        assert!(trusted(&[("10.0.0.0", 8), ("128.0.0.0", 1), ("0.0.0.0", 1)]));
        assert!(trusted(&[("0.0.0.0", 2), ("64.0.0.0", 2), ("128.0.0.0", 1)]));
        assert!(trusted(&[("8000::", 1), ("::", 1)]));
        for some in [
            &[][..],
            &[("0.0.0.0", 1)],
            &[("128.0.0.0", 1)],
            &[("0.0.0.0", 2), ("128.0.0.0", 1)],
            &[("0.0.0.0", 32), ("255.255.255.255", 32)],
            &[("::", 1), ("128.0.0.0", 1)],
            &[("10.0.0.0", 8), ("fd00::", 8)],
        ] {
            assert!(!trusted(some), "{some:?}");
        }
    }
}
