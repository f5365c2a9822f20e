//! Routes, as the file would write them.

use serde_json::{Map, Value, json};

use super::{
    HIDDEN, authorization, load, names_a_credential,
    parts::{host, host_rewrite, name, path, range, san, value_pattern},
    strings, upstream, web,
};
use crate::{
    model::{
        Action, Config, Destination, Fault, Forward, HeaderEdits, LimitKey, Match, Part, PathRewrite, Policy,
        RateLimit, Route, Template, ValueMatch, Variable,
    },
    text::{show_duration, show_ratio, show_timeout},
};

pub(super) fn route(route: &Route, config: &Config) -> Value {
    let mut value = json!({
        "name": &*route.name,
        "line": route.line,
        "match": matcher(&route.matcher),
        "authorization": route.authorization.as_deref().map(|rules| authorization::authorization(rules, config)),
        "cors": web::cors(&route.web),
        "grpc_web": route.web.grpc_web,
        "compression": web::compression(&route.web),
        "headers": {
            "request": edits(&route.request_headers, config),
            "response": edits(&route.response_headers, config),
        },
    });
    let (key, action) = match &route.action {
        Action::Forward(to) => ("forward", forward(to, config)),
        Action::Redirect(to) => (
            "redirect",
            json!({
                "status": to.status.as_u16(),
                "scheme": to.scheme.as_deref(),
                "host": to.host.as_deref(),
                "path": to.path.as_deref(),
                "strip_query": to.strip_query,
            }),
        ),
        Action::Respond(with) => (
            "respond",
            json!({
                "status": with.status.as_u16(),
                "content_type": with.content_type.to_str().unwrap_or_default(),
                "body": String::from_utf8_lossy(&with.body),
            }),
        ),
    };
    if let Some(value) = value.as_object_mut() {
        value.insert(key.into(), action);
    }
    value
}

fn forward(to: &Forward, config: &Config) -> Value {
    json!({
        "to": to.to.iter().map(|to| destination(to, config)).collect::<Vec<_>>(),
        "rewrite": {
            "path": match &to.path {
                PathRewrite::Whole(path) => Some(&**path),
                _ => None,
            },
            "prefix": match &to.path {
                PathRewrite::Prefix(prefix) => Some(&**prefix),
                _ => None,
            },
            "host": host_rewrite(&to.host),
        },
        "mirror": to.mirrors.iter().map(|mirror| json!({
            "upstream": name(mirror.upstream, config),
            "ratio": show_ratio(mirror.ratio),
            "timeout": show_timeout(mirror.timeouts.request),
        })).collect::<Vec<_>>(),
        "rate_limit": to.rate_limit.as_ref().map(rate_limit),
        "global_rate_limit": to.global_rate_limit.as_deref().map(|limit| load::global_rate_limit(limit, config)),
        "fault": to.fault.as_ref().map(fault),
        "tls": if to.passthrough { "passthrough" } else { "terminate" },
    })
}

fn destination(to: &Destination, config: &Config) -> Value {
    let mut value = json!({ "upstream": name(to.upstream, config), "weight": to.weight });
    if let (Some(value), Value::Object(policy)) = (value.as_object_mut(), policy(&to.policy)) {
        value.extend(policy);
    }
    value
}

fn policy(policy: &Policy) -> Value {
    let timeouts = &policy.timeouts;
    json!({
        "timeout": show_timeout(timeouts.request),
        "timeout_bounds": if timeouts.whole { "the whole exchange" } else { "the time to the answer's head" },
        "idle_timeout": show_timeout(timeouts.idle),
        "credential": policy.credential.as_deref().map(upstream::credential),
        "deadline_header": policy.deadline_header.as_ref().map(http::HeaderName::as_str),
        "retry": policy.retry,
    })
}

fn rate_limit(limit: &RateLimit) -> Value {
    json!({
        "requests": limit.requests,
        "per": show_duration(limit.per),
        "burst": limit.burst,
        "by": match &limit.by {
            LimitKey::Route => "route".to_owned(),
            LimitKey::Client => "client".to_owned(),
            LimitKey::Identity => "identity".to_owned(),
            LimitKey::Header(name) => format!("header:{name}"),
        },
        "max_keys": limit.max_keys,
    })
}

fn fault(fault: &Fault) -> Value {
    json!({
        "header": fault.header.as_ref().map(|(name, value)| json!({ name.as_str(): value.as_deref() })),
        "delay": fault.delay,
        "response_rate": fault.response_rate,
        "abort": fault.abort,
    })
}

/// Only the parts that are there.
fn matcher(matcher: &Match) -> Value {
    let mut out = Map::new();
    let mut put = |key: &str, values: Vec<String>| {
        if !values.is_empty() {
            out.insert(key.to_owned(), values.into());
        }
    };
    put("host", matcher.hosts.iter().map(host).collect());
    put("path", matcher.path.iter().map(path).collect());
    put("methods", strings(&matcher.methods));
    put("sni", matcher.sni.iter().map(host).collect());
    put("identity", matcher.identities.iter().map(san).collect());
    put("destination", matcher.destination.iter().map(range).collect());
    for (key, matches) in [("headers", &matcher.headers), ("query", &matcher.query)] {
        if !matches.is_empty() {
            out.insert(key.to_owned(), Value::Object(matches.iter().map(value).collect()));
        }
    }
    Value::Object(out)
}

fn value(wanted: &ValueMatch) -> (String, Value) {
    let pattern = match &wanted.value {
        _ if names_a_credential(&wanted.name) => HIDDEN.to_owned(),
        pattern => value_pattern(pattern),
    };
    (wanted.name.to_string(), if wanted.not { format!("!{pattern}") } else { pattern }.into())
}

fn edits(edits: &HeaderEdits, config: &Config) -> Value {
    let pairs = |pairs: &[(http::HeaderName, Template)]| {
        let pair =
            |(name, to): &(http::HeaderName, Template)| json!({ name.as_str(): template(name, to, config) });
        pairs.iter().map(pair).collect::<Vec<_>>()
    };
    json!({ "remove": strings(&edits.remove), "set": pairs(&edits.set), "add": pairs(&edits.add) })
}

/// A header's value, unless it is a credential by its name or came by `!file`.
fn template(name: &http::HeaderName, template: &Template, config: &Config) -> String {
    // A template writes `%%` for one percent sign, so the two are compared without any.
    let plain = |text: &str| text.replace('%', "");
    let from_file = |part: &Part| match part {
        Part::Text(text) if !text.trim().is_empty() => {
            let text = plain(text);
            config
                .secrets
                .0
                .iter()
                .map(|secret| plain(secret))
                .any(|s| s.contains(&text) || text.contains(&s))
        }
        _ => false,
    };
    if names_a_credential(name.as_str()) || template.0.iter().any(from_file) {
        return HIDDEN.to_owned();
    }
    template
        .0
        .iter()
        .map(|part| match part {
            Part::Text(text) => text.to_string(),
            Part::Variable(variable) => format!("%{{{}}}", variable_name(variable)),
        })
        .collect()
}

fn variable_name(variable: &Variable) -> String {
    match variable {
        Variable::ClientAddress => "client.address".into(),
        Variable::ClientPort => "client.port".into(),
        Variable::ClientIdentity => "client.identity".into(),
        Variable::Host => "request.host".into(),
        Variable::Path => "request.path".into(),
        Variable::Method => "request.method".into(),
        Variable::RequestId => "request.id".into(),
        Variable::Scheme => "request.scheme".into(),
        Variable::Header(name) => format!("request.header.{name}"),
        Variable::Capture(name) => format!("capture.{name}"),
        Variable::Route => "route".into(),
        Variable::Upstream => "upstream".into(),
        Variable::Listener => "listener".into(),
    }
}
