//! Access rules of a listener or route: complete, and nothing that could only let everybody in.

use super::{Targets, authorizer, framing::framing, jwt};
use crate::{
    diagnostic::{Place, Problems},
    model::{
        AccessConditions, AccessRule, Authorization, AuthorizerUse, ClaimCondition, HeaderCondition,
        ListenProtocol, Listener, ProxyProtocolIn,
    },
    raw::{self, At, OneOrMany, Txt},
};

/// What a listener lets rules know of its clients.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sight {
    protocol: ListenProtocol,
    /// Any client may claim any address.
    claimed_addresses: bool,
    /// Clients are asked for a certificate, or what is said of that is wrong.
    identities: bool,
    /// A client may do without one.
    optional: bool,
    /// The listener verifies tokens.
    tokens: bool,
    /// Its clients may do without one.
    optional_tokens: bool,
    /// An authorizer is asked by the listener.
    external: bool,
    /// The rules are a route's.
    route: bool,
}

impl Sight {
    pub(crate) fn new(listener: &Listener, identities: bool, optional: bool) -> Self {
        Self {
            protocol: listener.protocol,
            claimed_addresses: listener.proxy_protocol == ProxyProtocolIn::Optional,
            identities,
            optional,
            tokens: false,
            optional_tokens: false,
            external: false,
            route: false,
        }
    }

    /// For the routes of a listener with these rules.
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
    raw: At<raw::Authorization>,
    whose: &str,
    sight: Sight,
    targets: &Targets,
    problems: &mut Problems,
) -> Authorization {
    let At { at, value: raw, wrong, .. } = raw;
    let trusted = raw.trusted_proxies.map(OneOrMany::into_vec).unwrap_or_default();
    let trusted: Vec<_> = trusted.into_iter().map(|network| network.0.0).collect();
    let asked = raw.jwt.is_some();
    let tokens = asked || sight.tokens || wrong.iter().any(|key| key == "jwt");
    let jwt = raw.jwt.and_then(|raw| jwt::used(raw.value, &targets.issuers, problems));
    let asks = raw.external.is_some() || wrong.iter().any(|key| key == "external");
    let external = raw.external.and_then(|raw| {
        let over = sight.route.then_some(sight.external);
        authorizer::used(raw, over, &targets.authorizers, problems)
    });
    let optional = jwt.as_ref().map_or(sight.optional_tokens, |jwt| !jwt.required);
    if raw.deny.is_none()
        && raw.allow.is_none()
        && wrong.is_empty()
        && !asks
        && (!asked || (optional && !sight.route))
    {
        problems.wrong(
            at,
            "these rules let everybody do everything",
            "name what is refused in `deny`, or what is allowed in `allow` (`allow: []` allows nothing)",
        );
    }
    let trusts = !trusted.is_empty() || wrong.iter().any(|key| key == "trusted_proxies");
    let mut rules = |list: Vec<At<raw::AccessRule>>, kind: &str| -> Vec<AccessRule> {
        list.into_iter()
            .enumerate()
            .map(|(index, raw)| {
                let checks = Checks { sight, trusts, denies: kind == "deny", tokens, optional };
                rule(raw, || format!("{whose}/{kind}/{index}"), checks, problems)
            })
            .collect()
    };
    let deny = raw.deny.map(|deny| rules(deny.value, "deny")).unwrap_or_default();
    let allow = raw.allow.map(|allow| rules(allow.value, "allow"));
    let mut names: Vec<&str> = Vec::new();
    for rule in deny.iter().chain(allow.iter().flatten()) {
        if names.contains(&&*rule.name) {
            let message = format!("a second rule is called `{}`", rule.name);
            problems.wrong(at, message, "give each rule a name of its own");
        }
        names.push(&rule.name);
    }
    Authorization {
        dry_run: raw.dry_run.unwrap_or(false),
        trusted_proxies: trusted,
        line: at.line,
        jwt,
        external,
        deny,
        allow,
    }
}

/// What is known where a rule stands.
#[derive(Clone, Copy)]
struct Checks {
    sight: Sight,
    /// There are trusted proxies.
    trusts: bool,
    denies: bool,
    /// Tokens are verified.
    tokens: bool,
    /// A client may do without one.
    optional: bool,
}

fn rule(
    raw: At<raw::AccessRule>,
    name: impl FnOnce() -> String,
    checks: Checks,
    problems: &mut Problems,
) -> AccessRule {
    let whole = raw.whole();
    let At { at, value: raw, .. } = raw;
    // A condition in `not` decides the other way round: of an `allow` it is what denies.
    let when = conditions(raw.when, checks, checks.denies, problems);
    let unless = raw.not.map(|not| conditions(*not.value, checks, !checks.denies, problems));
    let unless = unless.unwrap_or_default();
    opaque(&when, &unless, at, checks, problems);
    if whole && !checks.denies && when.is_empty() && unless.is_empty() {
        problems.wrong(
            at,
            "this rule allows everything to everybody",
            "say who or what it is for (`identity: \"*\"` is whoever proved an identity), or leave `allow` out",
        );
    }
    AccessRule { name: raw.name.map_or_else(|| name().into(), |name| name.0.0), when, unless, line: at.line }
}

/// `refuses`: what holds here refuses a request.
fn conditions(
    raw: raw::AccessConditions,
    checks: Checks,
    refuses: bool,
    problems: &mut Problems,
) -> AccessConditions {
    if let Some(identity) = &raw.identity {
        identities(identity.at, checks.sight, refuses, problems);
    }
    if let Some(client) = raw.client.as_ref().filter(|_| checks.sight.claimed_addresses) {
        problems.wrong(
            client.at,
            "with `proxy_protocol: optional` any client can claim any address",
            "`proxy_protocol: require` (or `off`) on the listener",
        );
    }
    if let Some(forwarded) = raw.forwarded_client.as_ref().filter(|_| !checks.trusts) {
        problems.wrong(
            forwarded.at,
            "any client can write any address into `X-Forwarded-For`",
            "name the proxies whose entries are believed: `trusted_proxies: 10.0.0.0/8`",
        );
    }
    let headers = raw.headers.map(|headers| headers.value.entries).unwrap_or_default();
    let headers: Vec<_> = headers
        .into_iter()
        .filter_map(|entry| {
            // The checker lets no other name in.
            let name = http::HeaderName::from_bytes(entry.key.as_bytes()).ok()?;
            if name == http::header::HOST {
                problems.wrong(entry.at, "the Host header isn't matched here", "`host` of the rule");
            } else {
                framing(&name, entry.at, false, problems);
            }
            let any = entry.value.into_vec().into_iter().map(|value| (value.0.value, value.0.not)).collect();
            Some(HeaderCondition { name, any })
        })
        .collect();
    let claims = raw.claims.map(|claims| {
        if !checks.tokens {
            problems.wrong(
                claims.at,
                "no token is verified here, so there are no claims",
                "`jwt: { issuers: … }` in `authorization`, or in that of the listener",
            );
        } else if refuses && checks.optional {
            problems.warn(
                claims.at,
                "whoever is refused here needs only to send no token",
                "`jwt: { required: true }`, or say in `allow` who may",
            );
        }
        claims.value.entries
    });
    let claims = claims.unwrap_or_default().into_iter().map(|entry| ClaimCondition {
        name: entry.key.into(),
        any: entry.value.into_vec().into_iter().map(|value| (value.0.value, value.0.not)).collect(),
    });
    AccessConditions {
        headers,
        claims: claims.collect(),
        identities: list(raw.identity).into_iter().map(|identity| identity.0).collect(),
        clients: list(raw.client).into_iter().map(|network| network.0).collect(),
        forwarded_clients: list(raw.forwarded_client).into_iter().map(|network| network.0).collect(),
        ports: raw.port.map(|port| port.value.into_vec()).unwrap_or_default(),
        sni: list(raw.sni).into_iter().map(|host| host.0).collect(),
        hosts: list(raw.host).into_iter().map(|host| host.0).collect(),
        methods: list(raw.methods).into_iter().map(|method| method.0).collect(),
        paths: list(raw.path).into_iter().map(|path| path.0).collect(),
    }
}

fn list<T>(raw: Option<At<OneOrMany<Txt<T>>>>) -> Vec<T> {
    raw.map(|raw| raw.value.into_vec()).unwrap_or_default().into_iter().map(|item| item.0).collect()
}

/// A client that shows no certificate is nobody: whom a rule refuses by name would only have to keep silent.
fn identities(at: Place, sight: Sight, refuses: bool, problems: &mut Problems) {
    const HELP: &str = "`tls` with `client_ca` on the listener";
    match (sight.identities, refuses) {
        (false, true) => {
            problems.wrong(at, "this refuses nobody: no client is asked for a certificate", HELP);
        }
        (false, false) => {
            problems.warn(at, "this never matches: no client is asked for a certificate", HELP);
        }
        (true, true) if sight.optional => problems.wrong(
            at,
            "whoever is refused here needs only to show no certificate",
            "`client_optional: false`, or say in `allow` who may",
        ),
        (true, _) => {}
    }
}

/// Rules about HTTP on a listener that sees no HTTP.
fn opaque(
    when: &AccessConditions,
    unless: &AccessConditions,
    at: Place,
    checks: Checks,
    problems: &mut Problems,
) {
    if !matches!(checks.sight.protocol, ListenProtocol::Tcp | ListenProtocol::Tls) {
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
