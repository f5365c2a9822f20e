//! One route: what it matches, the one thing that it does, and the changes that fit to that.

use std::sync::Arc;

use super::{
    Targets,
    authorization::{Sight, authorization},
    credential::credential,
    framing::framing,
    global_limit, limits,
    policy::{Layer, WHOLE},
    web,
};
use crate::{
    diagnostic::{Place, Problems},
    model::{
        Action, Forward, HeaderEdits, HostRewrite, Match, Mirror, Name, Part, PathPattern, PathRewrite,
        Redirect, Respond, Route, Template, Traffic, ValueMatch, Variable, Web,
    },
    raw::{self, At, MirrorForm, OneOrMany, OrOff, RespondForm, Txt},
    suggest,
    text::{HeaderText, TemplateText, ValueText, captures, named_captures},
};

impl raw::Route {
    /// A listener's `to`: a route that matches everything.
    pub(crate) fn all(to: At<raw::To>) -> Self {
        Self {
            name: None,
            r#match: None,
            to: Some(to),
            tls: None,
            redirect: None,
            respond: None,
            timeout: None,
            idle_timeout: None,
            deadline_header: None,
            retry: None,
            credential: None,
            authorization: None,
            cors: None,
            grpc_web: None,
            compression: None,
            rewrite: None,
            headers: None,
            mirror: None,
            rate_limit: None,
            global_rate_limit: None,
            fault: None,
        }
    }
}

/// What the listener around a route says.
#[derive(Clone, Copy)]
pub(crate) struct Over<'a> {
    pub(crate) sight: Sight,
    pub(crate) web: &'a Web,
}

/// The routes of one entry of the file: one for each of its paths. `index` beyond all is the listener's own `to`.
pub(crate) fn routes(
    raw: At<raw::Route>,
    listener: &str,
    index: usize,
    over: Over<'_>,
    targets: &mut Targets,
    problems: &mut Problems,
) -> Option<Vec<Route>> {
    let At { at, wrong, value: raw, .. } = raw;
    let name: Name = match &raw.name {
        Some(name) => name.value.0.0.clone(),
        None if index == usize::MAX => format!("{listener}/to").into(),
        None => format!("{listener}/{index}").into(),
    };
    let mut right = true;
    let (matcher, paths) = match raw.r#match {
        Some(matches) => matcher(matches.value, problems),
        None => (Match::default(), Vec::new()),
    };
    let known = Captures::of(&paths, !wrong.iter().any(|key| key == "match"));

    let headers = raw.headers.map(|headers| headers.value);
    let (request, response) = headers.map_or((None, None), |headers| (headers.request, headers.response));
    let request_headers = edits(request, &known, true, problems);
    let response_headers = edits(response, &known, false, problems);

    let actions = [
        ("to", raw.to.as_ref().map(|to| to.at)),
        ("redirect", raw.redirect.as_ref().map(|redirect| redirect.at)),
        ("respond", raw.respond.as_ref().map(|respond| respond.at)),
    ];
    let given: Vec<(&str, Place)> = actions.into_iter().filter_map(|(key, at)| Some((key, at?))).collect();
    match given.as_slice() {
        [_] => {}
        [] if wrong.iter().any(|key| matches!(key.as_str(), "to" | "redirect" | "respond")) => right = false,
        [] => {
            problems.wrong(at, "this route does nothing", "give it one of `to`, `redirect` and `respond`");
            right = false;
        }
        [(first, _), (second, at), ..] => {
            problems.wrong(
                *at,
                format!("both `{first}` and `{second}`"),
                "a route does one thing: remove one",
            );
            right = false;
        }
    }
    let forwards = raw.to.is_some();
    let only_forwarded = [
        ("tls", raw.tls.as_ref().map(|x| x.at)),
        ("rewrite", raw.rewrite.as_ref().map(|x| x.at)),
        ("mirror", raw.mirror.as_ref().map(|x| x.at)),
        ("timeout", raw.timeout.as_ref().map(|x| x.at)),
        ("idle_timeout", raw.idle_timeout.as_ref().map(|x| x.at)),
        ("deadline_header", raw.deadline_header.as_ref().map(|x| x.at)),
        ("retry", raw.retry.as_ref().map(|x| x.at)),
        ("credential", raw.credential.as_ref().map(|x| x.at)),
        ("rate_limit", raw.rate_limit.as_ref().map(|x| x.at)),
        ("global_rate_limit", raw.global_rate_limit.as_ref().map(|x| x.at)),
        ("fault", raw.fault.as_ref().map(|x| x.at)),
    ];
    for (key, at) in only_forwarded {
        if let Some(at) = at.filter(|_| !forwards && !given.is_empty()) {
            problems.wrong(at, format!("`{key}` has no meaning here"), "it belongs to a route with `to`");
        }
    }

    let passthrough = raw.tls.as_ref().is_some_and(|tls| tls.value == raw::RouteTls::Passthrough);
    let authorization = raw
        .authorization
        .map(|raw| Arc::new(authorization(raw.map(|raw| *raw), &name, over.sight, targets, problems)));
    let web = web::web(raw.cors, raw.grpc_web, raw.compression, over.web, problems);
    let rewrite = rewrite(raw.rewrite, &known, problems);
    let mirrors = mirrors(raw.mirror, targets, problems);
    let rate_limit = raw.rate_limit.map(|raw| limits::rate_limit(raw.value));
    let global_rate_limit =
        raw.global_rate_limit.and_then(|raw| global_limit::global_limit(*raw.value, targets, problems));
    let fault = raw.fault.and_then(|raw| limits::fault(raw, problems));
    let mut layer =
        Layer::new(raw.timeout, raw.idle_timeout, raw.retry).with_deadline_header(raw.deadline_header);
    if let Some(At { at, wrong, value, .. }) = raw.credential {
        let credential = match value {
            OrOff::Off(_) => None,
            OrOff::On(value) => credential(At::new(at, wrong, value), problems),
        };
        layer = layer.with_credential(credential, at);
    }
    let action = if let Some(to) = raw.to {
        targets.split(&to, Some(&layer), problems).map(|to| {
            let (path, host) = rewrite;
            Action::Forward(Forward {
                to,
                path,
                host,
                mirrors,
                rate_limit,
                global_rate_limit,
                fault,
                traffic: Traffic::default(),
                passthrough,
            })
        })
    } else if let Some(raw) = raw.redirect {
        redirect(raw, &known, problems).map(Action::Redirect)
    } else {
        raw.respond.and_then(|raw| respond(raw, problems)).map(Action::Respond)
    };
    let action = action.filter(|_| right)?;
    let line = at.line;
    let one = |path: Option<PathPattern>| Route {
        name: name.clone(),
        matcher: Match { path, ..matcher.clone() },
        action: action.clone(),
        authorization: authorization.clone(),
        web: web.clone(),
        request_headers: request_headers.clone(),
        response_headers: response_headers.clone(),
        line,
    };
    if paths.is_empty() {
        Some(vec![one(None)])
    } else {
        Some(paths.into_iter().map(|path| one(Some(path))).collect())
    }
}

fn list<T>(raw: Option<At<OneOrMany<Txt<T>>>>) -> Vec<T> {
    raw.map(|raw| raw.value.into_vec()).unwrap_or_default().into_iter().map(|item| item.0).collect()
}

/// The match without its paths, and the paths.
fn matcher(raw: raw::Match, problems: &mut Problems) -> (Match, Vec<PathPattern>) {
    if let (Some(_), Some(method)) = (&raw.methods, &raw.method) {
        problems.wrong(method.at, "both `method` and `methods`", "they mean the same: keep one of them");
    }
    let matcher = Match {
        hosts: list(raw.host).into_iter().map(|host| host.0).collect(),
        path: None,
        methods: list(raw.methods.or(raw.method)).into_iter().map(|method| method.0).collect(),
        headers: raw
            .headers
            .map(|headers| values(headers.value, str::to_ascii_lowercase))
            .unwrap_or_default(),
        query: raw.query.map(|query| values(query.value, str::to_owned)).unwrap_or_default(),
        sni: list(raw.sni).into_iter().map(|host| host.0).collect(),
        identities: list(raw.identity).into_iter().map(|san| san.0).collect(),
        destination: list(raw.destination).into_iter().flat_map(|range| range.0).collect(),
    };
    (matcher, list(raw.path).into_iter().map(|path| path.0).collect())
}

fn values<K>(map: raw::Map<K, Txt<ValueText>>, name: fn(&str) -> String) -> Vec<ValueMatch> {
    let entries = map.entries.into_iter();
    entries
        .map(|entry| {
            let ValueText { value, not } = entry.value.0;
            ValueMatch { name: name(&entry.key).into(), value, not }
        })
        .collect()
}

/// Names that every path of the route captures.
struct Captures {
    names: Vec<String>,
    /// The paths are known; otherwise nothing is missed.
    sure: bool,
}

impl Captures {
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
        let names = || self.names.iter().map(String::as_str);
        let help = match suggest::nearest(name, names()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if self.names.is_empty() => format!("capture it: `path: /…/{{{name}}}` in `match`"),
            None => format!("the path captures {}", suggest::list(names(), "and")),
        };
        problems.wrong(at, format!("the path of this route doesn't capture `{name}`"), help);
    }

    fn check_path(&self, path: &At<Txt<crate::text::PathValue>>, problems: &mut Problems) -> Name {
        let text = path.value.0.0.clone();
        for name in named_captures(&text).unwrap_or_default() {
            self.check(name, path.at, problems);
        }
        text
    }
}

fn edits(
    raw: Option<raw::HeaderEdits>,
    captures: &Captures,
    request: bool,
    problems: &mut Problems,
) -> HeaderEdits {
    let Some(raw) = raw else { return HeaderEdits::default() };
    let mut list = |map: Option<raw::Map<HeaderText, At<Txt<TemplateText>>>>| {
        let mut found = Vec::new();
        for entry in map.map(|map| map.entries).unwrap_or_default() {
            let Ok(name) = http::HeaderName::from_bytes(entry.key.as_bytes()) else { continue };
            framing(&name, entry.at, request, problems);
            let Template(parts) = &entry.value.value.0.0;
            for part in parts {
                if let Part::Variable(Variable::Capture(capture)) = part {
                    captures.check(capture, entry.value.at, problems);
                }
            }
            found.push((name, entry.value.value.0.0));
        }
        found
    };
    let (set, add) = (list(raw.set), list(raw.add));
    let remove = raw.remove.map(OneOrMany::into_vec).unwrap_or_default();
    let remove = remove
        .into_iter()
        .map(|name| {
            framing(&name.value.0.0, name.at, request, problems);
            name.value.0.0
        })
        .collect();
    HeaderEdits { remove, set, add }
}

fn rewrite(
    raw: Option<At<raw::Rewrite>>,
    captures: &Captures,
    problems: &mut Problems,
) -> (PathRewrite, HostRewrite) {
    let Some(At { value: raw, .. }) = raw else { return (PathRewrite::Keep, HostRewrite::Auto) };
    let path = match (raw.path, raw.prefix) {
        (Some(_), Some(prefix)) => {
            problems.wrong(prefix.at, "both `path` and `prefix`", "keep one of them");
            PathRewrite::Keep
        }
        (Some(path), None) => PathRewrite::Whole(captures.check_path(&path, problems)),
        (None, Some(prefix)) => {
            if prefix.value.0.0.contains('{') {
                problems.wrong(prefix.at, "a prefix captures nothing", "use `path` with `{name}` instead");
            }
            // `/` for a prefix means that it is taken away; the rest begins with its own slash.
            PathRewrite::Prefix(prefix.value.0.0.trim_end_matches('/').into())
        }
        (None, None) => PathRewrite::Keep,
    };
    (path, raw.host.map_or(HostRewrite::Auto, |host| host.0.0))
}

fn mirrors(raw: Option<At<MirrorForm>>, targets: &mut Targets, problems: &mut Problems) -> Vec<Mirror> {
    let Some(At { at, value, .. }) = raw else { return Vec::new() };
    let wanted: Vec<(String, Place, f64)> = match value {
        MirrorForm::One(name) => vec![(name.0.0.to_string(), at, WHOLE)],
        MirrorForm::Shares(map) => {
            map.entries.into_iter().map(|entry| (entry.key, entry.at, entry.value.0.0)).collect()
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

fn redirect(raw: At<raw::Redirect>, captures: &Captures, problems: &mut Problems) -> Option<Redirect> {
    let whole = raw.whole();
    let At { at, value: raw, .. } = raw;
    let mut status = Redirect::STATUS;
    if let Some(given) = raw.status {
        match http::StatusCode::from_u16(given.value) {
            Ok(code) if matches!(given.value, 301 | 302 | 303 | 307 | 308) => status = code,
            _ => {
                let message = format!("{} isn't a redirect", given.value);
                problems.wrong(given.at, message, "301, 302, 303, 307 or 308");
                return None;
            }
        }
    }
    if raw.scheme.is_none() && raw.host.is_none() && raw.path.is_none() {
        if !whole {
            return None;
        }
        problems.wrong(
            at,
            "this redirects to where the request already is",
            "give it a `scheme`, `host` or `path`",
        );
        return None;
    }
    Some(Redirect {
        status,
        scheme: raw.scheme.map(|scheme| scheme.0.0),
        host: raw.host.map(|host| host.0.0),
        path: raw.path.map(|path| captures.check_path(&path, problems)),
        strip_query: raw.strip_query.unwrap_or(false),
    })
}

fn respond(raw: At<RespondForm>, problems: &mut Problems) -> Option<Respond> {
    let (status, body, content_type) = match raw.value {
        RespondForm::Status(status) => (status, None, None),
        RespondForm::Full(full) => (full.status, full.body, full.content_type),
    };
    if let Some(body) = &body
        && matches!(status, 204 | 205 | 304)
        && !body.value.is_empty()
    {
        problems.wrong(body.at, format!("an answer with status {status} has no body"), "remove `body`");
        return None;
    }
    let status = http::StatusCode::from_u16(status).ok()?;
    Some(Respond {
        status,
        body: Arc::from(body.map(|body| body.value.into_bytes()).unwrap_or_default()),
        content_type: content_type.map_or(Respond::CONTENT_TYPE, |media| media.0.0),
    })
}
