//! One route: what it matches, the one thing that it does, and the changes that fit to that.

use std::sync::Arc;

use super::{
    Targets, affinity,
    authorization::{ClientFacts, authorization},
    credential::credential,
    framing::framing,
    global_limit, limits,
    policy::{PolicyLevel, WHOLE},
    web,
};
use crate::{
    diagnostic::{Place, Problems},
    model::{
        Action, Destination, DestinationsForm, Forward, HeaderEdits, HostRewrite, Match, Mirror, MirrorForm,
        PathPattern, PathRewrite, Redirect, Respond, Rewrite, Route, TemplatePart, Variable, Web,
    },
    section::{ParsedSection, Section, Shorthand},
    shapes::{OneOrMany, OrOff, Spanned, Text},
    suggest,
    text::{captures, named_captures},
};

/// A listener's `to`: a route that matches everything.
pub(crate) fn all(to: Spanned<DestinationsForm>) -> ParsedSection<Route> {
    let mut read = ParsedSection::<Route>::default();
    read.rest.to = Some(to);
    read
}

/// Settings of a route's listener.
#[derive(Clone, Copy)]
pub(crate) struct ListenerContext<'a> {
    pub(crate) facts: ClientFacts,
    pub(crate) web: &'a Web,
}

/// The routes of one entry of the file: one for each of its paths. An `index` after the last entry is that of the
/// listener's own `to`.
pub(crate) fn routes(
    raw: Spanned<ParsedSection<Route>>,
    listener: &str,
    index: usize,
    over: ListenerContext<'_>,
    targets: &mut Targets,
    problems: &mut Problems,
) -> Option<Vec<Route>> {
    let (given, ParsedSection { section: mut route, rest }) = raw.open();
    route.line = given.at.line;
    route.name = match rest.name {
        Some(name) => name.0,
        None if index == usize::MAX => format!("{listener}/to").into(),
        None => format!("{listener}/{index}").into(),
    };
    let paths = rest.r#match.map_or_else(Vec::new, |raw| matcher(raw.value, &mut route.matcher));
    let known = CapturedNames::of(&paths, !given.is_wrong("match"));

    let headers = rest.headers.map(|headers| headers.rest).unwrap_or_default();
    route.request_headers = edits(headers.request, &known, true, problems);
    route.response_headers = edits(headers.response, &known, false, problems);

    route.authorization = rest
        .authorization
        .map(|raw| Arc::new(authorization(raw, &route.name, over.facts, targets, problems)));
    route.web = web::web(rest.web, over.web, problems);
    let mut layer = PolicyLevel::new(&given, rest.policy);
    if let Some(raw) = rest.credential {
        let (given, value) = raw.open();
        let at = given.at;
        let credential = match value {
            OrOff::Off(_) => None,
            OrOff::On(value) => credential(given.map(|()| value), problems),
        };
        layer = layer.with_credential(credential, at);
    }
    let action = if let Some(to) = rest.to {
        let by_header = rest.forward.upstream_header.is_some();
        let split = targets.split(&to, Some(&layer), by_header, problems);
        forward(rest.forward, split, &given, &known, targets, problems).map(Action::Forward)
    } else if let Some(raw) = rest.redirect {
        redirect(raw, &known, problems).map(Action::Redirect)
    } else {
        rest.respond.and_then(|raw| respond(raw, problems)).map(Action::Respond)
    };
    route.action = action?;
    if paths.is_empty() {
        return Some(vec![route]);
    }
    let one = |path| Route { matcher: Match { path: Some(path), ..route.matcher.clone() }, ..route.clone() };
    Some(paths.into_iter().map(one).collect())
}

/// The handling of requests that go to `to`. If `to` is missing or wrong, the other keys are only checked.
fn forward(
    rest: <Forward as Section>::Rest,
    to: Option<Vec<Destination>>,
    given: &Spanned<()>,
    known: &CapturedNames,
    targets: &mut Targets,
    problems: &mut Problems,
) -> Option<Forward> {
    let mut forward = Forward { tls: rest.tls.unwrap_or_default(), ..Forward::default() };
    (forward.path, forward.host) = rewrite(rest.rewrite, known, problems);
    forward.mirrors = mirrors(rest.mirror, targets, problems);
    forward.rate_limit = rest.rate_limit.map(limits::rate_limit);
    forward.global_rate_limit =
        rest.global_rate_limit.and_then(|raw| global_limit::global_limit(raw, targets, problems));
    forward.fault = rest.fault.and_then(|raw| limits::fault(raw, problems));
    forward.to = to?;
    let to = &forward.to;
    if let Some(at) = given.key("upstream_header").filter(|_| forward.passes_tls()) {
        let help = "headers inside of the TLS can't be seen here: keep one of them";
        problems.wrong(at, "`upstream_header` together with `tls: passthrough`", help);
    }
    forward.upstream_header = rest.upstream_header.map(|header| {
        let at = given.place("upstream_header");
        Box::new(affinity::upstream_header(header.0, at, to, targets, problems))
    });
    forward.subset = rest.subset.map(|raw| affinity::subset(raw, to, targets, problems));
    forward.session_cookie =
        rest.session_cookie.map(|raw| affinity::session_cookie(raw, to, targets, problems));
    Some(forward)
}

/// Writes all conditions but the paths into `to`, and returns the paths.
fn matcher(ParsedSection { section, rest }: ParsedSection<Match>, to: &mut Match) -> Vec<PathPattern> {
    *to = section;
    to.methods.extend(rest.method.into_iter().flat_map(OneOrMany::into_vec).map(|method| method.0));
    rest.path.map(OneOrMany::into_vec).unwrap_or_default().into_iter().map(|path| path.0).collect()
}

/// Names that every path of the route captures.
pub(super) struct CapturedNames {
    names: Vec<String>,
    /// Every path is known. Otherwise no missing capture is reported.
    sure: bool,
}

impl CapturedNames {
    /// For unknown paths: any name may be a capture.
    pub(super) const fn unknown() -> Self {
        Self { names: Vec::new(), sure: false }
    }

    fn of(paths: &[PathPattern], sure: bool) -> Self {
        let mut all = paths.iter().map(captures);
        let first = all.next().unwrap_or_default();
        let rest: Vec<Vec<&str>> = all.collect();
        let common = first.into_iter().filter(|name| rest.iter().all(|names| names.contains(name)));
        Self { names: common.map(str::to_owned).collect(), sure }
    }

    fn check(&self, name: &str, at: Place, problems: &mut Problems) {
        if !self.sure || self.names.iter().any(|known| known == name) {
            return;
        }
        let names = self.names.iter().map(String::as_str);
        let help = suggest::instead(name, names, "the path captures", || {
            format!("capture it: `path: /…/{{{name}}}` in `match`")
        });
        problems.wrong(at, format!("the path of this route doesn't capture `{name}`"), help);
    }

    fn check_path(&self, path: &str, at: Place, problems: &mut Problems) {
        for name in named_captures(path).unwrap_or_default() {
            self.check(name, at, problems);
        }
    }
}

pub(super) fn edits(
    raw: Option<ParsedSection<HeaderEdits>>,
    captures: &CapturedNames,
    request: bool,
    problems: &mut Problems,
) -> HeaderEdits {
    let Some(ParsedSection { section: mut edits, rest }) = raw else { return HeaderEdits::default() };
    for (given, to) in [(rest.set, &mut edits.set), (rest.add, &mut edits.add)] {
        for entry in given.map(|map| map.entries).unwrap_or_default() {
            let Ok(name) = http::HeaderName::from_bytes(entry.key.as_bytes()) else { continue };
            framing(&name, entry.at, request, problems);
            let Spanned { at, value: Text(template), .. } = entry.value;
            for part in &template.0 {
                if let TemplatePart::Variable(Variable::Capture(capture)) = part {
                    captures.check(capture, at, problems);
                }
            }
            to.push((name, template));
        }
    }
    for name in rest.remove.map(OneOrMany::into_vec).unwrap_or_default() {
        framing(&name.value.0, name.at, request, problems);
        edits.remove.push(name.value.0);
    }
    edits
}

fn rewrite(
    raw: Option<Spanned<Rewrite>>,
    captures: &CapturedNames,
    problems: &mut Problems,
) -> (PathRewrite, HostRewrite) {
    let Some(raw) = raw else { return (PathRewrite::Keep, HostRewrite::Auto) };
    let (given, Rewrite { path, prefix, host }) = raw.open();
    let path = match (path, prefix) {
        (Some(path), _) => {
            captures.check_path(&path, given.place("path"), problems);
            PathRewrite::Whole(path)
        }
        (None, Some(prefix)) => {
            if prefix.contains('{') {
                let help = "use `path` with `{name}` instead";
                problems.wrong(given.place("prefix"), "a prefix has no captures", help);
            }
            // `/` removes the prefix: the rest of the path begins with its own slash.
            PathRewrite::Prefix(prefix.trim_end_matches('/').into())
        }
        (None, None) => PathRewrite::Keep,
    };
    (path, host)
}

fn mirrors(raw: Option<Spanned<MirrorForm>>, targets: &mut Targets, problems: &mut Problems) -> Vec<Mirror> {
    let Some(Spanned { at, value, .. }) = raw else { return Vec::new() };
    let wanted: Vec<(String, Place, f64)> = match value {
        MirrorForm::One(name) => vec![(name.0.to_string(), at, WHOLE)],
        MirrorForm::Shares(map) => {
            map.entries.into_iter().map(|entry| (entry.key, entry.at, entry.value.0)).collect()
        }
    };
    let mut mirrors = Vec::new();
    for (name, at, ratio) in wanted {
        if let Some(upstream) = targets.find(&name, at, problems) {
            if targets.is_opaque(upstream) {
                problems.wrong(at, format!("`{name}` takes opaque bytes"), "only HTTP requests are copied");
            }
            let timeouts = targets.policy(upstream, None, problems).timeouts;
            mirrors.push(Mirror { upstream, ratio, timeouts });
        }
    }
    mirrors
}

fn redirect(raw: Spanned<Redirect>, captures: &CapturedNames, problems: &mut Problems) -> Option<Redirect> {
    let (given, redirect) = raw.open();
    let status = redirect.status.as_u16();
    if !matches!(status, 301 | 302 | 303 | 307 | 308) {
        let at = given.place("status");
        problems.wrong(at, format!("{status} isn't a redirect"), "301, 302, 303, 307 or 308");
        return None;
    }
    if let Some(path) = &redirect.path {
        captures.check_path(path, given.place("path"), problems);
    }
    Some(redirect)
}

fn respond(raw: Shorthand<Respond>, problems: &mut Problems) -> Option<Respond> {
    let (given, ParsedSection { section: respond, .. }) = raw.0.open();
    let status = respond.status.as_u16();
    if let Some(at) = given.key("body").filter(|_| matches!(status, 204 | 205 | 304))
        && !respond.body.is_empty()
    {
        problems.wrong(at, format!("an answer with status {status} has no body"), "remove `body`");
        return None;
    }
    Some(respond)
}
