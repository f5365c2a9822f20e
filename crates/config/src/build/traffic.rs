//! Whether a route's rules can be enforced for everything that may take it: HTTP, tunnels, opaque bytes.
//!
//! A rule about HTTP says nothing of bytes that aren't HTTP. Opaque bytes therefore go only where the config asks for
//! them ([`Traffic`]), and a config whose rules could never be enforced is refused or warned of here.

use std::{cell::LazyCell, collections::HashMap};

use super::Targets;
use crate::{
    diagnostic::{Place, Problems},
    model::{Action, Forward, ListenProtocol, Listener, PathRewrite, Route, TlsMode, Traffic, UpstreamId},
};

/// Checks one forwarding route against the protocols of its listener and its upstreams.
pub(super) fn fits(
    listener: &Listener,
    terminates: bool,
    route: &Route,
    forward: &Forward,
    at: Place,
    targets: &Targets,
    problems: &mut Problems,
) {
    let matcher = &route.matcher;
    let wants_http = matcher.asks_http();
    let protocol = listener.protocol;
    let opaque_listener = matches!(protocol, ListenProtocol::Tcp | ListenProtocol::Tls);
    let http_listener =
        matches!(protocol, ListenProtocol::Http | ListenProtocol::Http1 | ListenProtocol::Http2);
    if forward.passes_tls() {
        passthrough(route, terminates, at, problems);
    }
    let opaque = forward.to.iter().find(|to| targets.is_opaque(to.upstream));
    let http = forward.to.iter().find(|to| targets.is_http(to.upstream));
    if let Some(to) = http.filter(|_| opaque_listener || forward.passes_tls()) {
        problems.wrong(
            at,
            format!("`{}` speaks HTTP, and this route takes opaque bytes", targets.name(to.upstream)),
            "write `tcp://` or `tls://` in the upstream's address, or `protocol: auto` or `http` on the listener",
        );
    } else if let Some(to) = opaque
        .filter(|_| !forward.passes_tls() && !route.matcher.only_connects() && (wants_http || http_listener))
    {
        problems.wrong(
            at,
            format!("HTTP can't be routed to `{}`, which takes opaque bytes", targets.name(to.upstream)),
            "match `sni`, `destination` or `methods: CONNECT`, or give the upstream an `http` or `https` address",
        );
    } else if opaque.is_some() && !forward.to.iter().all(|to| targets.is_opaque(to.upstream)) {
        problems.wrong(
            at,
            "this split has upstreams for HTTP and for opaque bytes",
            "give all upstreams of a split HTTP addresses, or all of them `tcp://` or `tls://`",
        );
    }
    if opaque.is_some() || opaque_listener || forward.passes_tls() {
        for (key, given) in http_keys(route, forward) {
            if given {
                problems.warn(
                    at,
                    format!("`{key}` has no effect here: it is about HTTP, and these are opaque bytes"),
                    format!("remove `{key}`, or give the upstream an `http` or `https` address"),
                );
            }
        }
    }
}

fn passthrough(route: &Route, terminates: bool, at: Place, problems: &mut Problems) {
    let (message, help) = if !terminates {
        (
            "`tls: passthrough` on a listener without `tls`, which passes all TLS through anyway",
            "remove it: `protocol: auto` or `tls` and `sni` are enough",
        )
    } else if route.matcher.sni.is_empty() {
        (
            "`tls: passthrough` without `sni`: without decryption only the server name is known",
            "match the names: `match: { sni: db.internal }`",
        )
    } else if route.matcher.asks_http() || !route.matcher.identities.is_empty() {
        (
            "`tls: passthrough` together with a match on the encrypted content",
            "match `sni` and `destination` alone",
        )
    } else {
        return;
    };
    problems.wrong(at, message, help);
}

/// Keys of a route that change or copy HTTP, and whether they are given.
fn http_keys(route: &Route, forward: &Forward) -> [(&'static str, bool); 9] {
    [
        ("headers", !(route.request_headers.is_empty() && route.response_headers.is_empty())),
        ("session_cookie", forward.session_cookie.is_some()),
        ("upstream_header", forward.upstream_header.is_some()),
        ("rewrite", forward.path != PathRewrite::Keep || forward.host.changes()),
        ("cors", route.web.cors.is_some()),
        ("grpc_web", route.web.grpc_web),
        ("compression", route.web.compression.is_some()),
        ("mirror", !forward.mirrors.is_empty()),
        ("credential", forward.to.iter().any(|to| to.policy.credential.is_some())),
    ]
}

/// Rules that the listener as a whole can't enforce.
pub(super) fn unenforced(
    listener: &Listener,
    places: &[Place],
    tls_place: Option<Place>,
    targets: &Targets,
    problems: &mut Problems,
) {
    if let (Some(tls), Some(at)) = (&listener.tls, tls_place)
        && tls.mode == TlsMode::Permissive
        && !tls.allow.is_empty()
    {
        problems.warn(
            at,
            "`allow` with `mode: permissive`: plaintext proves no identity, so all of it is refused with `plaintext-denied`",
            "`mode: strict` has the same effect; or remove `allow`, and match `identity` in routes",
        );
    }
    let protocol = listener.protocol;
    let of_bytes = LazyCell::new(|| GuardedRoute::of(listener, |_| true));
    let of_tunnels = LazyCell::new(|| {
        GuardedRoute::of(listener, |route| route.matcher.path.is_some() || !route.matcher.headers.is_empty())
    });
    for (route, at) in listener.routes.iter().zip(places) {
        let Action::Forward(forward) = &route.action else { continue };
        let name = || forward.to.first().map_or("", |to| targets.name(to.upstream));
        match forward.traffic {
            Traffic::Named if protocol == ListenProtocol::Tcp => problems.warn(
                *at,
                format!("`{}` goes to the host that a request names, and opaque bytes name none", name()),
                "`protocol: tls` passes TLS through by its server name; or name the upstream's address",
            ),
            Traffic::Original if protocol == ListenProtocol::Auto && listener.transparent => {
                if let Some(guard) = of_bytes.first(forward).and_then(|guard| listener.routes.get(guard)) {
                    problems.warn(
                        *at,
                        format!(
                            "opaque bytes to `{}` are refused: they would bypass the rule about HTTP in line {}",
                            name(),
                            guard.line
                        ),
                        "where they are wanted, match their `destination` and send them to an `original-destination` upstream with `protocol: tcp`",
                    );
                }
            }
            Traffic::Named => {
                if let Some(at) = of_tunnels.first(forward).and_then(|guard| places.get(guard)) {
                    problems.warn(
                        *at,
                        format!(
                            "this rule doesn't apply to CONNECT: a tunnel to `{}` shows neither path nor headers",
                            name()
                        ),
                        "add a route that answers tunnels: `match: { methods: CONNECT }`, `respond: 403`",
                    );
                }
            }
            _ => {}
        }
    }
}

/// The first route of a listener that opaque bytes could bypass ([`Route::guards`]): of all upstreams, and of each one.
struct GuardedRoute {
    answers: Option<usize>,
    of_upstreams: HashMap<UpstreamId, usize>,
}

impl GuardedRoute {
    fn of(listener: &Listener, counts: impl Fn(&Route) -> bool) -> Self {
        let mut guards = Self { answers: None, of_upstreams: HashMap::new() };
        for (index, route) in listener.routes.iter().enumerate().filter(|(_, route)| counts(route)) {
            match &route.action {
                Action::Forward(forward) if route.is_about_http() => {
                    for to in &forward.to {
                        guards.of_upstreams.entry(to.upstream).or_insert(index);
                    }
                }
                Action::Forward(_) => {}
                Action::Redirect(_) | Action::Respond(_) => {
                    guards.answers.get_or_insert(index);
                }
            }
        }
        guards
    }

    /// The first route that the bytes of a forwarding route could bypass.
    fn first(&self, forward: &Forward) -> Option<usize> {
        let of_upstreams = forward.to.iter().filter_map(|to| self.of_upstreams.get(&to.upstream));
        of_upstreams.chain(&self.answers).copied().min()
    }
}
