//! One listener: its sockets, what it expects, and routes that fit to it.

use std::sync::Arc;

use super::{
    Targets,
    authorization::{ClientFacts, authorization},
    fallback,
    local_reply::local_reply,
    route, tls, web,
};
use crate::{
    diagnostic::{Place, Problems},
    index::FirstByKey,
    model::{
        Bind, ForwardClientCert, HttpServer, ListenProtocol, Listener, Match, Name, ProxyProtocolIn, Route,
        TlsMode, Upstream, Web,
    },
    section::{GivenKeys, ParsedSection},
    shapes::{NamedEntry, OneOrMany, Spanned, Text},
    text::Binds,
};

pub(crate) fn listener(
    entry: NamedEntry<Spanned<ParsedSection<Listener>>>,
    upstreams: &[Upstream],
    targets: &mut Targets,
    problems: &mut Problems,
) -> Option<Listener> {
    let at = entry.at;
    let (given, ParsedSection { section: mut listener, rest }) = entry.value.open();
    (listener.name, listener.line) = (entry.key.into(), at.line);
    listener.bind = binds(rest.bind?, rest.unix_mode.map(|mode| mode.0));
    if let (Some(at), false) =
        (given.key("unix_mode"), listener.bind.iter().any(|bind| matches!(bind, Bind::Unix { .. })))
    {
        problems.wrong(at, "`unix_mode` without a Unix socket in `bind`", "remove it, or bind `unix:PATH`");
    }
    let tls_place = given.key("tls");
    let tls = rest.tls.map_or(Ok(None), |tls| tls::server(tls, problems));
    // A mistake in `tls` alone must not make routes look wrong as well.
    let terminates = !matches!(tls, Ok(None));
    if let (true, ListenProtocol::Tls, Some(at)) = (terminates, listener.protocol, tls_place) {
        problems.wrong(
            at,
            "`protocol: tls` passes TLS through, `tls` terminates it",
            "remove one of them; `protocol: auto` with `tls` terminates",
        );
    }
    listener.http = http(rest.http, terminates, problems);
    listener.local_reply = rest.local_reply.map_or_else(Default::default, |raw| local_reply(raw, problems));

    let knows_clients = !matches!(&tls, Ok(tls) if tls.as_ref().is_none_or(|tls| tls.client_trust.is_none()));
    let optional = matches!(&tls, Ok(Some(tls)) if tls.client_optional || tls.mode == TlsMode::Permissive);
    let facts = ClientFacts::new(&listener, terminates, knows_clients, optional);
    let name = listener.name.clone();
    listener.authorization =
        rest.authorization.map(|raw| Arc::new(authorization(raw, &name, facts, targets, problems)));
    let facts = facts.of_routes(listener.authorization.as_deref());
    listener.web = web::web(rest.web, &Web::default(), problems);
    let mut routes = Routes {
        listener: &listener,
        terminates,
        knows_clients,
        over: route::ListenerContext { facts, web: &listener.web },
        names: FirstByKey::default(),
        matched: FirstByKey::default(),
        built: Vec::new(),
    };
    let all = rest.routes.unwrap_or_default();
    let nothing_given = all.is_empty() && rest.to.is_none();
    for (index, raw) in all.into_iter().enumerate() {
        routes.add(raw, index, targets, problems);
    }
    if let Some(to) = rest.to {
        let at = to.at;
        let (wrong, raw) = (to.wrong.clone(), route::all(to));
        routes.add(Spanned::new(at, wrong, raw), usize::MAX, targets, problems);
    }
    if nothing_given {
        // If the file has routes and all of them are wrong, default routes would hide the mistake.
        routes.built = fallback::routes(&listener.name, at, upstreams, targets, problems)?
            .into_iter()
            .map(|route| (route, at))
            .collect();
    }
    let (built, places): (Vec<Route>, Vec<Place>) = routes.built.into_iter().unzip();
    listener.routes = built;
    listener.tls = tls.ok().flatten();
    targets.set_traffic(&mut listener);
    super::traffic::unenforced(&listener, &places, tls_place, targets, problems);
    Some(listener)
}

fn binds(raw: OneOrMany<Spanned<Text<Binds>>>, unix_mode: Option<u32>) -> Vec<Bind> {
    let mut binds: Vec<Bind> = raw.into_vec().into_iter().flat_map(|bind| bind.value.0).collect();
    for bind in &mut binds {
        if let (Bind::Unix { mode, .. }, Some(given)) = (bind, unix_mode) {
            *mode = given;
        }
    }
    binds
}

fn http(
    given: Option<Spanned<GivenKeys<HttpServer>>>,
    terminates: bool,
    problems: &mut Problems,
) -> HttpServer {
    let base = if terminates { HttpServer::behind_tls() } else { HttpServer::default() };
    let Some(given) = given else { return base };
    let at = given.key("forward_client_cert_details");
    let http = given.value.over(base);
    if let (Some(at), ForwardClientCert::AlwaysForwardOnly) = (at, http.forward_client_cert_details) {
        problems.warn(
            at,
            "every client of this listener can claim any identity in `X-Forwarded-Client-Cert`",
            "`append-forward` trusts only clients with a verified certificate",
        );
    }
    http
}

/// The routes of one listener so far.
struct Routes<'a> {
    listener: &'a Listener,
    terminates: bool,
    /// Clients are asked for a certificate, or the config of that is wrong.
    knows_clients: bool,
    over: route::ListenerContext<'a>,
    names: FirstByKey<Name, ()>,
    /// For each match, the line of the first route that has it.
    matched: FirstByKey<Match, u32>,
    built: Vec<(Route, Place)>,
}

impl Routes<'_> {
    fn add(
        &mut self,
        raw: Spanned<ParsedSection<Route>>,
        index: usize,
        targets: &mut Targets,
        problems: &mut Problems,
    ) -> Option<()> {
        let (at, whole) = (raw.at, !raw.is_wrong("match"));
        let name_place = raw.key("name");
        let match_place = raw.key("match").unwrap_or(at);
        let routes = route::routes(raw, &self.listener.name, index, self.over, targets, problems)?;
        let first = routes.first()?;
        if self.names.keep(first.name.clone(), ()).is_some() {
            let message = format!("another route is already called `{}`", first.name);
            problems.wrong(name_place.unwrap_or(at), message, "give each route a different name");
        }
        // A route that lost a wrong part of its match would seem to match more than it does.
        if !whole {
            return None;
        }
        self.fits(first, match_place, targets, problems);
        for route in routes {
            if let Some(earlier) = self.matched.keep(route.matcher.clone(), route.line) {
                problems.warn(
                    match_place,
                    "this route never matches",
                    format!("the route in line {earlier} matches the same"),
                );
            }
            self.built.push((route, at));
        }
        Some(())
    }

    /// Checks that the listener can see what the route matches, and that it can do what the route says.
    fn fits(&self, route: &Route, at: Place, targets: &Targets, problems: &mut Problems) {
        let matcher = &route.matcher;
        let wants_http = matcher.asks_http();
        let answers = !matches!(route.action, crate::model::Action::Forward(_));
        let protocol = self.listener.protocol;
        match protocol {
            ListenProtocol::Tcp | ListenProtocol::Tls if wants_http || answers => problems.wrong(
                at,
                "this route is about HTTP requests, and its listener takes opaque bytes",
                "`protocol: auto` or `protocol: http` on the listener",
            ),
            ListenProtocol::Tcp if !matcher.sni.is_empty() && !self.terminates => problems.wrong(
                at,
                "`sni` with `protocol: tcp`: such a listener doesn't read the server name",
                "`protocol: tls` on the listener",
            ),
            ListenProtocol::Http | ListenProtocol::Http1 | ListenProtocol::Http2
                if !matcher.sni.is_empty() && !self.terminates =>
            {
                problems.warn(
                    at,
                    "`sni` never matches here: the listener takes plaintext HTTP",
                    "`protocol: auto` passes TLS through, `tls` terminates it",
                );
            }
            _ if !matcher.sni.is_empty() && wants_http && !self.terminates => problems.warn(
                at,
                "this never matches: TLS that is passed through shows its `sni`, but no request",
                "terminate it with `tls` on the listener, or match `sni` alone",
            ),
            _ => {}
        }
        if !matcher.identities.is_empty() && !self.knows_clients {
            problems.warn(
                at,
                "`identity` never matches here, because no client is asked for a certificate",
                "`tls` with `client_ca` on the listener",
            );
        }
        if !matcher.destination.is_empty()
            && !self.listener.transparent
            && self.listener.proxy_protocol == ProxyProtocolIn::Off
        {
            problems.warn(
                at,
                "`destination` never matches here: connections aren't intercepted",
                "`transparent: true` on the listener",
            );
        }
        if let crate::model::Action::Forward(forward) = &route.action {
            super::traffic::fits(self.listener, self.terminates, route, forward, at, targets, problems);
        }
    }
}
