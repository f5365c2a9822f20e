//! One route: what it matches, the one thing that it does, and the changes that fit to that.

use std::sync::Arc;

use super::{
    Targets, affinity,
    authorization::{ClientFacts, authorization},
    credential::credential,
    framing::framing,
    global_limit, limits,
    policy::{Layer, WHOLE},
    web,
};
use crate::{
    diagnostic::{Place, Problems},
    model::{
        Action, Forward, HeaderEdits, HostRewrite, Match, Mirror, MirrorForm, Part, PathPattern, PathRewrite,
        Redirect, Respond, Rewrite, Route, RouteTls, To, Variable, Web,
    },
    section::{Read, Short},
    shapes::{At, OneOrMany, OrOff, Txt},
    suggest,
    text::{captures, named_captures},
};

/// A listener's `to`: a route that matches everything.
pub(crate) fn all(to: At<To>) -> Read<Route> {
    let mut read = Read::<Route>::default();
    read.rest.to = Some(to);
    read
}

/// What the listener around a route says.
#[derive(Clone, Copy)]
pub(crate) struct ListenerContext<'a> {
    pub(crate) facts: ClientFacts,
    pub(crate) web: &'a Web,
}

/// The routes of one entry of the file: one for each of its paths. `index` beyond all is the listener's own `to`.
pub(crate) fn routes(
    raw: At<Read<Route>>,
    listener: &str,
    index: usize,
    over: ListenerContext<'_>,
    targets: &mut Targets,
    problems: &mut Problems,
) -> Option<Vec<Route>> {
    let (given, Read { section: mut route, rest }) = raw.open();
    route.line = given.at.line;
    route.name = match rest.name {
        Some(name) => name.0,
        None if index == usize::MAX => format!("{listener}/to").into(),
        None => format!("{listener}/{index}").into(),
    };
    let paths = rest.r#match.map_or_else(Vec::new, |raw| matcher(raw, &mut route.matcher, problems));
    let known = Captures::of(&paths, !given.is_wrong("match"));

    let headers = rest.headers.map(|headers| headers.rest).unwrap_or_default();
    route.request_headers = edits(headers.request, &known, true, problems);
    route.response_headers = edits(headers.response, &known, false, problems);

    let does_one_thing = does_one_thing(&given, rest.to.as_ref().map(|to| to.at), problems);
    route.authorization = rest
        .authorization
        .map(|raw| Arc::new(authorization(raw, &route.name, over.facts, targets, problems)));
    route.web = web::web(rest.web, over.web, problems);
    let rewrite = rewrite(rest.rewrite, &known, problems);
    let mirrors = mirrors(rest.mirror, targets, problems);
    let rate_limit = rest.rate_limit.map(limits::rate_limit);
    let global_rate_limit =
        rest.global_rate_limit.and_then(|raw| global_limit::global_limit(raw, targets, problems));
    let fault = rest.fault.and_then(|raw| limits::fault(raw, problems));
    let mut layer = Layer::new(&given, rest.policy);
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
        targets.split(&to, Some(&layer), rest.upstream_header.is_some(), problems).map(|to| {
            let (path, host) = rewrite;
            let passthrough = rest.tls == Some(RouteTls::Passthrough);
            if let Some(at) = given.key("upstream_header").filter(|_| passthrough) {
                let help = "headers inside of the TLS can't be seen here: keep one of them";
                problems.wrong(at, "`upstream_header` together with `tls: passthrough`", help);
            }
            let named = rest.upstream_header.map(|header| {
                affinity::upstream_header(header.0, given.place("upstream_header"), &to, targets, problems)
            });
            let subset = rest.subset.map(|raw| affinity::subset(raw, &to, targets, problems));
            let session_cookie =
                rest.session_cookie.map(|raw| affinity::session_cookie(raw, &to, targets, problems));
            let base = Forward { path, host, mirrors, rate_limit, passthrough, ..Forward::new(to) };
            let base = Forward { upstream_header: named.map(Box::new), subset, session_cookie, ..base };
            Action::Forward(Forward { global_rate_limit, fault, ..base })
        })
    } else if let Some(raw) = rest.redirect {
        redirect(raw, &known, problems).map(Action::Redirect)
    } else {
        rest.respond.and_then(|raw| respond(raw, problems)).map(Action::Respond)
    };
    route.action = action.filter(|_| does_one_thing)?;
    if paths.is_empty() {
        return Some(vec![route]);
    }
    let one = |path| Route { matcher: Match { path: Some(path), ..route.matcher.clone() }, ..route.clone() };
    Some(paths.into_iter().map(one).collect())
}

/// Whether the route does exactly one thing, and what belongs to it. `to` is its place; that of a listener has no key in a route.
fn does_one_thing(given: &At<()>, to: Option<Place>, problems: &mut Problems) -> bool {
    let keys = [("to", to), ("redirect", given.key("redirect")), ("respond", given.key("respond"))];
    let actions: Vec<(&str, Place)> = keys.into_iter().filter_map(|(key, at)| Some((key, at?))).collect();
    if to.is_none() && !actions.is_empty() {
        for key in ONLY_FORWARDED {
            if let Some(at) = given.key(key) {
                problems.wrong(at, format!("`{key}` has no meaning here"), "it belongs to a route with `to`");
            }
        }
    }
    match actions.as_slice() {
        [_] => return true,
        [] if keys.iter().any(|(key, _)| given.is_wrong(key)) => {}
        [] => {
            let help = "give it one of `to`, `redirect` and `respond`";
            problems.wrong(given.at, "this route does nothing", help);
        }
        [(first, _), (second, at), ..] => {
            let help = "a route does one thing: remove one";
            problems.wrong(*at, format!("both `{first}` and `{second}`"), help);
        }
    }
    false
}

/// Keys that say something of what is sent on.
const ONLY_FORWARDED: [&str; 16] = [
    "body_size",
    "upgrades",
    "upstream_header",
    "subset",
    "session_cookie",
    "tls",
    "rewrite",
    "mirror",
    "timeout",
    "idle_timeout",
    "deadline_header",
    "retry",
    "credential",
    "rate_limit",
    "global_rate_limit",
    "fault",
];

/// What is matched without its paths goes into `to`; the paths.
fn matcher(raw: At<Read<Match>>, to: &mut Match, problems: &mut Problems) -> Vec<PathPattern> {
    let (given, Read { section, rest }) = raw.open();
    *to = section;
    let methods = given.key("methods").is_some();
    if let Some(at) = given.key("method").filter(|_| methods) {
        problems.wrong(at, "both `method` and `methods`", "they have the same meaning: keep one of them");
    }
    if let Some(method) = rest.method.filter(|_| !methods) {
        to.methods = method.into_vec().into_iter().map(|method| method.0).collect();
    }
    rest.path.map(OneOrMany::into_vec).unwrap_or_default().into_iter().map(|path| path.0).collect()
}

/// Names that every path of the route captures.
pub(super) struct Captures {
    names: Vec<String>,
    /// The paths are known; otherwise nothing is missed.
    sure: bool,
}

impl Captures {
    /// Whatever is named may be one.
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
    raw: Option<Read<HeaderEdits>>,
    captures: &Captures,
    request: bool,
    problems: &mut Problems,
) -> HeaderEdits {
    let Some(Read { section: mut edits, rest }) = raw else { return HeaderEdits::default() };
    for (given, to) in [(rest.set, &mut edits.set), (rest.add, &mut edits.add)] {
        for entry in given.map(|map| map.entries).unwrap_or_default() {
            let Ok(name) = http::HeaderName::from_bytes(entry.key.as_bytes()) else { continue };
            framing(&name, entry.at, request, problems);
            let At { at, value: Txt(template), .. } = entry.value;
            for part in &template.0 {
                if let Part::Variable(Variable::Capture(capture)) = part {
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
    raw: Option<At<Rewrite>>,
    captures: &Captures,
    problems: &mut Problems,
) -> (PathRewrite, HostRewrite) {
    let Some(raw) = raw else { return (PathRewrite::Keep, HostRewrite::Auto) };
    let (given, Rewrite { path, prefix, host }) = raw.open();
    let path = match (path, prefix) {
        (Some(_), Some(_)) => {
            problems.wrong(given.place("prefix"), "both `path` and `prefix`", "keep one of them");
            PathRewrite::Keep
        }
        (Some(path), None) => {
            captures.check_path(&path, given.place("path"), problems);
            PathRewrite::Whole(path)
        }
        (None, Some(prefix)) => {
            if prefix.contains('{') {
                let help = "use `path` with `{name}` instead";
                problems.wrong(given.place("prefix"), "a prefix has no captures", help);
            }
            // `/` for a prefix means that it is taken away; the rest begins with its own slash.
            PathRewrite::Prefix(prefix.trim_end_matches('/').into())
        }
        (None, None) => PathRewrite::Keep,
    };
    (path, host)
}

fn mirrors(raw: Option<At<MirrorForm>>, targets: &mut Targets, problems: &mut Problems) -> Vec<Mirror> {
    let Some(At { at, value, .. }) = raw else { return Vec::new() };
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

fn redirect(raw: At<Redirect>, captures: &Captures, problems: &mut Problems) -> Option<Redirect> {
    let (given, redirect) = raw.open();
    let status = redirect.status.as_u16();
    if !matches!(status, 301 | 302 | 303 | 307 | 308) {
        let at = given.place("status");
        problems.wrong(at, format!("{status} isn't a redirect"), "301, 302, 303, 307 or 308");
        return None;
    }
    if redirect.scheme.is_none() && redirect.host.is_none() && redirect.path.is_none() {
        if given.whole() {
            problems.wrong(
                given.at,
                "this redirects to the same URL",
                "give it a `scheme`, `host` or `path`",
            );
        }
        return None;
    }
    if let Some(path) = &redirect.path {
        captures.check_path(path, given.place("path"), problems);
    }
    Some(redirect)
}

fn respond(raw: Short<Respond>, problems: &mut Problems) -> Option<Respond> {
    let (given, Read { section: respond, .. }) = raw.0.open();
    let status = respond.status.as_u16();
    if let Some(at) = given.key("body").filter(|_| matches!(status, 204 | 205 | 304))
        && !respond.body.is_empty()
    {
        problems.wrong(at, format!("an answer with status {status} has no body"), "remove `body`");
        return None;
    }
    Some(respond)
}
