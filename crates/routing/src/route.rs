//! One compiled route: how it changes requests and responses.

use attache_authorization::AccessPolicy;
use attache_config::model::{
    Action, Destination, DestinationId, Forward, HostName, HostPattern, Listener, Mirror, Name, PathPattern,
    PathPolicy, Route, Traffic, Upgrades,
};
use attache_http::{Body, Refusal, set_path};
use attache_wire::{Fields, RequestHead, Response, ValueRef, header::HOST};
use http::{
    Method, Uri,
    uri::{Authority, Scheme},
};

use crate::{
    Captures, ReadyEdits, RequestFacts, TemplateContext, UpstreamHost,
    conditions::RouteConditions,
    edits::CompiledEdits,
    host,
    respond::DirectAnswer,
    rewrite::{CaptureNames, CompiledRewrite},
};

/// A place in the listener's list of routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RouteId(pub usize);

/// A route with all preparation done.
#[derive(Debug)]
pub struct CompiledRoute {
    /// Its index among the listener's routes.
    pub id: RouteId,
    /// The `route` label.
    pub name: Name,
    /// Line in the file.
    pub line: u32,
    pub(crate) conditions: RouteConditions,
    /// The pattern, if the route uses its captures.
    capturing: Option<PathPattern>,
    kind: RouteKind,
    request_edits: CompiledEdits,
    response_edits: CompiledEdits,
    policy: PathPolicy,
    pub(crate) authorization: Option<AccessPolicy>,
    /// Its host patterns, if some of them are `*`.
    hosts: Vec<HostPattern>,
    by_host: ByHost,
    names_connect: bool,
    upgrades: Upgrades,
    body_size: usize,
}

/// Whether a matching request names the route's upstream by its Host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ByHost {
    Always,
    Never,
    /// Some of the patterns are `*`.
    Sometimes,
}

impl ByHost {
    fn of(hosts: &[HostPattern]) -> Self {
        match hosts.iter().filter(|pattern| pattern.name != HostName::Any).count() {
            0 => Self::Never,
            named if named == hosts.len() => Self::Always,
            _ => Self::Sometimes,
        }
    }
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one for each route, made once; most of them forward")]
enum RouteKind {
    Forward { forward: Forward, bounds: Vec<u64>, rewrite: CompiledRewrite },
    Direct(DirectAnswer),
}

/// The action of a route, for the layers that execute it.
#[derive(Clone, Copy, Debug)]
pub enum RouteAction<'r> {
    /// Choose a destination ([`CompiledRoute::choose`]), prepare the request, send it.
    Forward(&'r Forward),
    /// Answer with [`CompiledRoute::respond`].
    Direct,
}

impl CompiledRoute {
    pub(crate) fn new(id: RouteId, route: &Route, listener: &Listener) -> Self {
        let pattern = route.matcher.path.as_ref();
        let names = CaptureNames::of(pattern);
        let edits = |edits| CompiledEdits::new(edits, &names, &route.name, &listener.name);
        let (request_edits, response_edits) = (edits(&route.request_headers), edits(&route.response_headers));
        let kind = match &route.action {
            Action::Forward(forward) => RouteKind::Forward {
                bounds: bounds(&forward.to),
                rewrite: CompiledRewrite::new(&forward.path, pattern),
                forward: forward.clone(),
            },
            Action::Redirect(redirect) => RouteKind::Direct(DirectAnswer::redirect(redirect, &names)),
            Action::Respond(respond) => RouteKind::Direct(DirectAnswer::respond_with(respond)),
        };
        let captures = request_edits.uses_captures()
            || response_edits.uses_captures()
            || match &kind {
                RouteKind::Forward { rewrite, .. } => rewrite.uses_captures(),
                RouteKind::Direct(direct) => direct.uses_captures(),
            };
        let by_host = ByHost::of(&route.matcher.hosts);
        Self {
            id,
            name: route.name.clone(),
            line: route.line,
            conditions: RouteConditions::new(&route.matcher, listener.http.query),
            capturing: pattern.filter(|_| captures).cloned(),
            kind,
            request_edits,
            response_edits,
            policy: listener.http.path,
            authorization: route.authorization.as_deref().map(AccessPolicy::new),
            by_host,
            hosts: if by_host == ByHost::Sometimes { route.matcher.hosts.clone() } else { Vec::new() },
            names_connect: route.matcher.names_connect(),
            body_size: route.body_size.unwrap_or(listener.http.limits.body_size),
            upgrades: route.upgrades.as_ref().unwrap_or(&listener.http.upgrades).clone(),
        }
    }

    /// The header changes in both directions for a request, for `explain`.
    pub(crate) fn edits(&self, request: &RequestHead, ctx: &TemplateContext<'_>) -> (ReadyEdits, ReadyEdits) {
        (self.request_edits.ready(request, ctx), self.response_edits.ready(request, ctx))
    }

    /// The traffic that the route's upstreams accept; a route that answers by itself is for HTTP.
    pub const fn traffic(&self) -> Traffic {
        match &self.kind {
            RouteKind::Forward { forward, .. } => forward.traffic,
            RouteKind::Direct(_) => Traffic::Http,
        }
    }

    /// True if the listener terminates TLS, but not for this route.
    pub const fn passes_through(&self) -> bool {
        matches!(&self.kind, RouteKind::Forward { forward, .. } if forward.passes_tls())
    }

    /// True if a CONNECT becomes a tunnel here: the route's method or its upstreams ask for tunnels.
    pub const fn takes_connect(&self) -> bool {
        self.names_connect || matches!(self.traffic(), Traffic::Named | Traffic::Opaque)
    }

    /// Protocols that its requests may switch to: its own, or the listener's.
    pub const fn upgrades(&self) -> &Upgrades {
        &self.upgrades
    }

    /// The largest request body in bytes: the route's own limit or the listener's; 0 means no limit.
    pub const fn body_size(&self) -> usize {
        self.body_size
    }

    pub(crate) fn capture(&self, path: &str) -> Captures {
        self.capturing.as_ref().map_or_else(Captures::default, |pattern| Captures::of(pattern, path))
    }

    /// The route's access rules, in addition to the listener's.
    pub const fn authorization(&self) -> Option<&AccessPolicy> {
        self.authorization.as_ref()
    }

    /// The route's action.
    pub fn step(&self) -> RouteAction<'_> {
        match &self.kind {
            RouteKind::Forward { forward, .. } => RouteAction::Forward(forward),
            RouteKind::Direct(_) => RouteAction::Direct,
        }
    }

    /// The destination of a split for a random number over all of `u32`; `None` for a route that doesn't forward.
    pub fn choose(&self, roll: u32) -> Option<(DestinationId, &Destination)> {
        let RouteKind::Forward { forward, bounds, .. } = &self.kind else { return None };
        let at = if forward.to.len() == 1 {
            0
        } else {
            let total = u128::from(*bounds.last()?);
            let point = ((u128::from(roll) * total) >> 32) as u64;
            bounds.partition_point(|&bound| bound <= point)
        };
        forward.to.get(at).map(|destination| (DestinationId(at), destination))
    }

    /// The destination of a request, by the header that names it or else by a random number.
    ///
    /// # Errors
    /// Why the request names none of the route's upstreams. `None` for a route that doesn't forward.
    pub fn choose_for(
        &self,
        headers: &Fields,
        roll: u32,
    ) -> Result<(DestinationId, &Destination), Option<String>> {
        let RouteKind::Forward { forward, .. } = &self.kind else { return Err(None) };
        let Some(by) = forward.upstream_header.as_deref() else { return self.choose(roll).ok_or(None) };
        let header = &by.header;
        let mut lines = headers.get_all(header).map(ValueRef::as_bytes);
        let why = match (lines.next(), lines.next()) {
            (None, _) => format!("the request has no `{header}`"),
            // Two programs could read two different ones.
            (Some(_), Some(_)) => format!("the request has more than one `{header}`"),
            (Some(named), None) => match by.names.iter().position(|name| name.as_bytes() == named) {
                Some(at) => {
                    let to = forward.to.get(at).ok_or(None)?;
                    return Ok((DestinationId(at), to));
                }
                None => format!("`{header}` names none of the route's upstreams"),
            },
        };
        Err(Some(why))
    }

    /// The Host of a request to `upstream`; `None` keeps the request's own.
    pub fn host<'a>(&'a self, request: &RequestFacts<'_>, upstream: &'a UpstreamHost) -> Option<&'a str> {
        let RouteKind::Forward { forward, .. } = &self.kind else { return None };
        let matched = match self.by_host {
            ByHost::Always => true,
            ByHost::Never => false,
            ByHost::Sometimes => self.hosts.iter().any(|pattern| {
                pattern.name != HostName::Any && host::matches(pattern, request.host.as_ref(), request.port)
            }),
        };
        upstream.sent(&forward.host, request, matched)
    }

    /// Prepares a request for the chosen upstream: path, host, headers. Returns the changes to the response's headers,
    /// whose values come from the request before these changes. Hop-by-hop and forwarding headers are the caller's
    /// task.
    ///
    /// # Errors
    /// `bad-request` if a rewritten path breaks the listener's path policy.
    pub fn prepare_request(
        &self,
        request: &mut RequestHead,
        ctx: &TemplateContext<'_>,
    ) -> Result<ReadyEdits, Refusal> {
        let request_edits = self.request_edits.ready(request, ctx);
        let response_edits = self.response_edits.ready(request, ctx);
        if let RouteKind::Forward { rewrite, .. } = &self.kind {
            // A CONNECT names a destination: it has no path, and another host would be another destination.
            let tunnel = request.method == Method::CONNECT && request.protocol.is_none();
            if !tunnel {
                if request.uri.path().starts_with('/')
                    && let Some(path) = rewrite.apply(request.uri.path(), ctx.captures, self.policy)?
                {
                    set_path(&mut request.uri, path)?;
                }
                if let Some(host) = ctx.host {
                    set_host(request, host);
                }
            }
        }
        request_edits.apply_to_request(&mut request.headers);
        Ok(response_edits)
    }

    /// The answer of a route that redirects or answers directly; `None` if it forwards.
    pub fn respond(&self, request: &RequestHead, ctx: &TemplateContext<'_>) -> Option<Response<Body>> {
        let RouteKind::Direct(direct) = &self.kind else { return None };
        let mut response = direct.respond(request, ctx.captures);
        self.response_edits.ready(request, ctx).apply(response.headers_mut());
        Some(response)
    }
}

/// The mirrors that get a copy of a request. `roll` is called once for each mirror, and returns a number in `0.0..1.0`.
pub fn mirrors(mirrors: &[Mirror], mut roll: impl FnMut() -> f64) -> impl Iterator<Item = &Mirror> {
    mirrors.iter().filter(move |mirror| roll() < mirror.ratio)
}

/// The end of each destination's share.
fn bounds(to: &[Destination]) -> Vec<u64> {
    to.iter()
        .scan(0, |sum, destination| {
            *sum += u64::from(destination.weight);
            Some(*sum)
        })
        .collect()
}

/// Gives a request another host. A host that is not a valid authority changes nothing; the parser refuses such hosts.
fn set_host(request: &mut RequestHead, host: &str) {
    // A copy, since clones of a value that all workers share would share a counter.
    let Ok(authority) = Authority::try_from(host) else { return };
    let mut parts = std::mem::take(&mut request.uri).into_parts();
    parts.authority = Some(authority);
    parts.scheme.get_or_insert(Scheme::HTTP);
    if let Ok(uri) = Uri::from_parts(parts) {
        request.uri = uri;
        let _ = request.headers.try_insert(HOST, host.as_bytes());
    }
}

#[cfg(test)]
#[path = "route_tests.rs"]
mod tests;
