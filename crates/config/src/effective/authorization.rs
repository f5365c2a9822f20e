//! Access rules, as the file would write them.

use serde_json::{Map, Value, json};

use super::{HIDDEN, names_a_credential, parts, strings};
use crate::{
    model::{
        AccessConditions, AccessRule, Authorization, Authorizer, AuthorizerProtocol, AuthorizerUse,
        ClaimCondition, Config, HeaderCondition, HeaderMatch, IdentityMatch, JwtKeys, JwtProvider,
        TokenPlace, ValuePattern,
    },
    text::{show_duration, show_size},
};

pub(super) fn authorization(authorization: &Authorization, config: &Config) -> Value {
    let rules = |rules: &Vec<AccessRule>| rules.iter().map(rule).collect::<Vec<_>>();
    json!({
        "line": authorization.line,
        "deny": rules(&authorization.deny),
        "allow": authorization.allow.as_ref().map(rules),
        "jwt": authorization.jwt.as_ref().map(|jwt| json!({
            "issuers": jwt.providers.iter().filter_map(|&at| Some(&*config.jwt.get(at)?.name)).collect::<Vec<_>>(),
            "required": jwt.required,
        })),
        "external": authorization.external.as_ref().map(|external| self::external(external, config)),
        "dry_run": authorization.dry_run,
        "trusted_proxies": authorization.trusted_proxies.iter().map(parts::range).collect::<Vec<_>>(),
    })
}

fn external(external: &AuthorizerUse, config: &Config) -> Value {
    match external {
        AuthorizerUse::Off => "off".into(),
        AuthorizerUse::Ask { authorizer, context, body } => json!({
            "authorizer": config.authorizers.get(*authorizer).map(|authorizer| &*authorizer.name),
            "context": context.iter().map(|(key, value)| (key.to_string(), Value::from(&**value))).collect::<Map<_, _>>(),
            "body": body,
        }),
    }
}

pub(super) fn authorizer(authorizer: &Authorizer, config: &Config) -> Value {
    let (protocol, prefix) = match &authorizer.protocol {
        AuthorizerProtocol::Grpc => ("grpc", None),
        AuthorizerProtocol::Http { path_prefix } => ("http", Some(&**path_prefix)),
    };
    json!({
        "service": parts::name(authorizer.service, config),
        "protocol": protocol,
        "path_prefix": prefix,
        "timeout": show_duration(authorizer.timeout),
        "failure_mode": authorizer.failure_mode,
        "request_headers": names(&authorizer.request_headers),
        "upstream_headers": strings(&authorizer.upstream_headers),
        "denial_headers": names(&authorizer.denial_headers),
        "response_headers": names(&authorizer.response_headers),
        "body": authorizer.body.map(|body| json!({ "max": show_size(body.max as u64), "partial": body.partial })),
    })
}

fn names(names: &[HeaderMatch]) -> Vec<String> {
    let name = |name: &HeaderMatch| match name {
        HeaderMatch::Exact(name) => name.to_string(),
        HeaderMatch::Prefix(prefix) => format!("{prefix}*"),
    };
    names.iter().map(name).collect()
}

/// Only the parts that are there.
fn rule(rule: &AccessRule) -> Value {
    let mut out = Map::new();
    out.insert("name".into(), (*rule.name).into());
    out.insert("line".into(), rule.line.into());
    out.extend(conditions(&rule.when));
    if !rule.unless.is_empty() {
        out.insert("not".into(), Value::Object(conditions(&rule.unless)));
    }
    Value::Object(out)
}

fn conditions(of: &AccessConditions) -> Map<String, Value> {
    let mut out = Map::new();
    let mut put = |key: &str, values: Vec<String>| {
        if !values.is_empty() {
            out.insert(key.to_owned(), values.into());
        }
    };
    put("identity", of.identities.iter().map(identity).collect());
    put("client", of.clients.iter().map(parts::range).collect());
    put("forwarded_client", of.forwarded_clients.iter().map(parts::range).collect());
    put("port", strings(&of.ports));
    put("sni", of.sni.iter().map(parts::host).collect());
    put("host", of.hosts.iter().map(parts::host).collect());
    put("methods", strings(&of.methods));
    put("path", of.paths.iter().map(parts::path).collect());
    if !of.headers.is_empty() {
        out.insert("headers".into(), Value::Object(of.headers.iter().map(header).collect()));
    }
    if !of.claims.is_empty() {
        out.insert("claims".into(), Value::Object(of.claims.iter().map(claim).collect()));
    }
    out
}

fn identity(identity: &IdentityMatch) -> String {
    match identity {
        IdentityMatch::Verified => "*".into(),
        IdentityMatch::Name(name) => parts::san(name),
    }
}

fn claim(claim: &ClaimCondition) -> (String, Value) {
    (claim.name.to_string(), values(&claim.any, false))
}

fn header(header: &HeaderCondition) -> (String, Value) {
    let hidden = names_a_credential(header.name.as_str());
    (header.name.to_string(), values(&header.any, hidden))
}

fn values(any: &[(ValuePattern, bool)], hidden: bool) -> Value {
    let values = any.iter().map(|(value, not)| {
        let pattern = if hidden { HIDDEN.to_owned() } else { parts::value_pattern(value) };
        if *not { format!("!{pattern}") } else { pattern }
    });
    values.collect::<Vec<_>>().into()
}

pub(super) fn jwt(provider: &JwtProvider, config: &Config) -> Value {
    json!({
        "issuer": &*provider.issuer,
        "audiences": strings(&provider.audiences),
        "keys": match &provider.keys {
            JwtKeys::Inline(set) => json!({ "inline": &**set }),
            JwtKeys::File(path) => json!({ "file": path.display().to_string() }),
            JwtKeys::Remote { upstream, path, refresh, timeout } => json!({
                "upstream": parts::name(*upstream, config),
                "path": &**path,
                "refresh": show_duration(*refresh),
                "timeout": show_duration(*timeout),
            }),
        },
        "clock_skew": show_duration(provider.clock_skew),
        "from": provider.from.iter().map(|place| match place {
            TokenPlace::Header(name, _) => format!("header:{name}"),
            TokenPlace::Cookie(name) => format!("cookie:{name}"),
            TokenPlace::Query(name) => format!("query:{name}"),
        }).collect::<Vec<_>>(),
        "claim_headers": provider.claim_headers.iter().map(|(name, claim)| {
            (name.to_string(), Value::from(&**claim))
        }).collect::<Map<_, _>>(),
        "forward": provider.forward,
    })
}
