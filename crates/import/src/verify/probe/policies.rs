//! Makes requests from the policies in front of a route: access rules, tokens, an authorization service, CORS,
//! compression, gRPC-Web.

use crate::path::PlannedPath;
use crate::plan::PlannedRule;
use crate::value::{ConfigValue, YamlMap};

use super::super::DENIED;
use super::{PlannedProbe, host_samples, paths, values};

/// An origin that no config names.
const FOREIGN: &str = "https://stranger.example";

/// Headers of answers that the policies of these rules decide about.
pub(crate) fn watched(rules: &[&PlannedRule], down: &mut Vec<String>) {
    let mut add = |names: &[&str]| {
        for name in names {
            if !down.iter().any(|known| known == name) {
                down.push((*name).to_owned());
            }
        }
    };
    if rules.iter().any(|rule| rule.keys.get("cors").is_some()) {
        add(&[
            "access-control-allow-origin",
            "access-control-allow-credentials",
            "access-control-expose-headers",
            "access-control-max-age",
        ]);
    }
    if rules.iter().any(|rule| rule.keys.get("compression").is_some()) {
        add(&["content-encoding"]);
    }
}

/// Adds requests for one rule. They are made from `right`, which matches the rule.
pub(crate) fn of_rule(
    rule: &PlannedRule,
    right: &PlannedProbe,
    own: &[(String, String)],
    out: &mut Vec<PlannedProbe>,
) {
    let with = |headers: &[(&str, &str)]| {
        let mut probe = right.clone();
        for (name, value) in headers {
            probe.headers.retain(|(known, _)| known != name);
            probe.headers.push(((*name).to_owned(), (*value).to_owned()));
        }
        probe
    };
    for (name, value) in own {
        out.push(with(&[(name, value)]));
    }
    if let Some(ConfigValue::Map(map)) = rule.keys.get("authorization") {
        if map.get("external").is_some() {
            out.push(with(&[("authorization", DENIED)]));
            out.push(with(&[("authorization", "Basic dXNlcjpwYXNz")]));
        }
        if map.get("jwt").is_some() {
            for token in [
                "Bearer none",
                "Bearer a.b.c",
                "Bearer eyJhbGciOiJub25lIn0.eyJpc3MiOiJpIn0.",
                "Basic dXNlcjpwYXNz",
            ] {
                out.push(with(&[("authorization", token)]));
            }
        }
        for key in ["deny", "allow"] {
            let Some(ConfigValue::List(items)) = map.get(key) else { continue };
            for item in items {
                if let ConfigValue::Map(item) = item {
                    access(item, right, out);
                }
            }
        }
    }
    if let Some(ConfigValue::Map(cors)) = rule.keys.get("cors") {
        let mut origins: Vec<String> =
            texts(cors.get("origins")).iter().filter_map(|origin| sample(origin)).collect();
        origins.push(FOREIGN.to_owned());
        for origin in &origins {
            out.push(with(&[("origin", origin)]));
            if origin != FOREIGN {
                let mut asks = with(&[("origin", origin), ("access-control-request-method", "GET")]);
                "OPTIONS".clone_into(&mut asks.method);
                // This header has no meaning in an answer to a preflight.
                asks.watched_down.retain(|name| name != "access-control-expose-headers");
                out.push(asks);
            }
        }
    }
    if rule.keys.get("compression").is_some() {
        for accepts in ["gzip", "br", "zstd", "identity", "gzip;q=0", "deflate"] {
            out.push(with(&[("accept-encoding", accepts)]));
        }
    }
    if rule.keys.get("grpc_web").is_some() {
        for kind in ["application/grpc-web", "application/grpc-web+proto", "application/grpc-web-text"] {
            let mut call = with(&[("content-type", kind), ("te", "trailers")]);
            "POST".clone_into(&mut call.method);
            let body = if kind.ends_with("text") { "AAAAAAA=" } else { "\0\0\0\0\0" };
            body.clone_into(&mut call.body);
            out.push(call);
        }
    }
}

/// An origin that matches a pattern.
fn sample(pattern: &str) -> Option<String> {
    if pattern == "*" {
        return Some("https://any.example".to_owned());
    }
    match pattern.strip_prefix('~') {
        Some(regex) => super::sample::of(regex, true),
        None => Some(pattern.replace('*', "one")),
    }
}

pub(crate) fn texts(value: Option<&ConfigValue>) -> Vec<String> {
    match value {
        Some(ConfigValue::Text(text) | ConfigValue::Raw(text)) => vec![text.clone()],
        Some(ConfigValue::List(items)) => items.iter().flat_map(|item| texts(Some(item))).collect(),
        _ => Vec::new(),
    }
}

/// Requests that match a rule, and some that almost match it.
fn access(rule: &YamlMap, right: &PlannedProbe, out: &mut Vec<PlannedProbe>) {
    let mut sides = vec![rule];
    if let Some(ConfigValue::Map(not)) = rule.get("not") {
        sides.push(not);
    }
    let mut fits = right.clone();
    for side in sides {
        if let Some(ConfigValue::Map(headers)) = side.get("headers") {
            for (name, value) in &headers.0 {
                for pattern in texts(Some(value)) {
                    let (fit, others) = values(&pattern);
                    for value in std::iter::once(fit).chain(others) {
                        let mut probe = right.clone();
                        probe.headers.retain(|(known, _)| known != name);
                        if let Some(value) = value.clone() {
                            probe.headers.push((name.clone(), value));
                        }
                        out.push(probe);
                    }
                }
                if let Some(pattern) = texts(Some(value)).first()
                    && let Some(value) = values(pattern).0
                {
                    fits.headers.retain(|(known, _)| known != name);
                    fits.headers.push((name.clone(), value));
                }
            }
        }
        for pattern in texts(side.get("path")) {
            let path = match (pattern.strip_prefix('~'), pattern.strip_suffix("/*")) {
                (Some(regex), _) => PlannedPath::Regex(regex.to_owned()),
                (_, Some(prefix)) => PlannedPath::Segments(prefix.to_owned()),
                _ => PlannedPath::Exact(pattern.clone()),
            };
            for target in paths(&path) {
                out.push(PlannedProbe { target: target.clone(), ..right.clone() });
                out.push(PlannedProbe { target, ..fits.clone() });
            }
        }
        for method in texts(side.get("methods")) {
            out.push(PlannedProbe { method: method.clone(), ..right.clone() });
            fits.method = method;
        }
        for host in texts(side.get("host")) {
            for host in host_samples(&host) {
                out.push(PlannedProbe { host, ..right.clone() });
            }
        }
    }
    out.push(fits);
}
