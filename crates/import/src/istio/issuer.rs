//! An issuer of tokens: a rule of RequestAuthentication becomes an entry of `jwt`.

use crate::plan::{Plan, PlannedUpstream};
use crate::remark::Remarks;
use crate::tree::Node;
use crate::value::{ConfigValue, YamlMap};

const JWT_RULE: &[&str] = &[
    "issuer",
    "audiences",
    "jwks",
    "jwks_uri",
    "from_headers",
    "from_params",
    "from_cookies",
    "output_payload_to_header",
    "output_claim_to_headers",
    "forward_original_token",
    "timeout",
];

/// Adds the issuer of a rule to the plan, and returns its name. `Err`: why its tokens can't be verified.
pub(super) fn issuer(rule: &Node, plan: &mut Plan, remarks: &mut Remarks) -> Result<String, String> {
    let issuer = rule.str("issuer").ok_or("it has no issuer")?;
    let unknown = |key: &str| !JWT_RULE.contains(&crate::tree::snake(key).as_str());
    if let Some((key, _)) = rule.entries().iter().find(|(key, value)| !value.is_empty() && unknown(key)) {
        return Err(format!("this import doesn't know `{key}`"));
    }
    let name = crate::plan::name(issuer.split_once("://").map_or(issuer, |(_, rest)| rest));
    let mut map = YamlMap::default();
    map.set("issuer", issuer);
    let audiences: Vec<String> =
        rule.list("audiences").iter().filter_map(Node::text).map(ToOwned::to_owned).collect();
    if !audiences.is_empty() {
        map.set("audiences", audiences);
    }
    map.set("keys", keys(rule, &name, plan)?);
    map.set("from", places(rule)?);
    let mut claims = YamlMap::default();
    for item in rule.list("output_claim_to_headers") {
        if let (Some(header), Some(claim)) = (item.str("header"), item.str("claim")) {
            claims.set(&header.to_ascii_lowercase(), claim);
        }
    }
    if !claims.is_empty() {
        map.set("claim_headers", claims);
    }
    if let Some(header) = rule.str("output_payload_to_header") {
        return Err(format!(
            "its payload is put into `{header}`, which attache can't do: list the claims in `claim_headers`"
        ));
    }
    if rule.is("forward_original_token") {
        map.set("forward", true);
    }
    remarks.soft(
        &rule.at,
        format!("tokens of `{issuer}` without `exp` are refused; Istio lets them last forever."),
    );
    let mut all = plan.top.child("jwt");
    let mut free = name.clone();
    let mut n = 2;
    while all.get(&free).is_some_and(|other| *other != ConfigValue::Map(map.clone())) {
        free = format!("{name}-{n}");
        n += 1;
    }
    all.set(&free, map);
    Ok(free)
}

/// Where the issuer's keys are: in the config, or behind a URL, which becomes an upstream.
fn keys(rule: &Node, name: &str, plan: &mut Plan) -> Result<YamlMap, String> {
    let mut keys = YamlMap::default();
    if let Some(text) = rule.str("jwks") {
        if !text.contains("\"keys\"") || text.contains("\"oct\"") {
            return Err("its keys are not a set of public keys (RFC 7517)".to_owned());
        }
        keys.set("inline", text);
    } else if let Some(url) = rule.str("jwks_uri") {
        let (scheme, rest) = url.split_once("://").ok_or("the address of its keys is not a URL")?;
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        if !matches!(scheme, "http" | "https") || authority.is_empty() || authority.contains('@') {
            return Err("the address of its keys is not a URL of http or https".to_owned());
        }
        let upstream = crate::plan::name(&format!("keys-of-{name}"));
        let port =
            if authority.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())) {
                String::new()
            } else {
                format!(":{}", if scheme == "https" { 443 } else { 80 })
            };
        let mut own = YamlMap::default();
        own.set("address", format!("{scheme}://{authority}{port}"));
        if !plan.upstreams.iter().any(|known| known.name == upstream) {
            plan.upstreams.push(PlannedUpstream {
                name: upstream.clone(),
                keys: own,
                ..PlannedUpstream::default()
            });
        }
        keys.set("upstream", upstream);
        keys.set("path", rest.find('/').and_then(|start| rest.get(start..)).unwrap_or("/"));
        keys.set("refresh", "20m");
    } else {
        return Err("its keys are found by OpenID discovery, which attache lacks: set `jwksUri`".to_owned());
    }
    Ok(keys)
}

/// The places of a request that can have a token.
fn places(rule: &Node) -> Result<Vec<String>, String> {
    let mut from = Vec::new();
    for header in rule.list("from_headers") {
        let prefix = header.get("prefix").and_then(Node::text).unwrap_or_default();
        if !prefix.is_empty() && !prefix.eq_ignore_ascii_case("bearer ") {
            return Err(format!(
                "its tokens follow the prefix `{prefix}`; attache knows only `Bearer ` or no prefix"
            ));
        }
        from.extend(header.str("name").map(|name| format!("header:{}", name.to_ascii_lowercase())));
    }
    from.extend(rule.list("from_params").iter().filter_map(Node::text).map(|name| format!("query:{name}")));
    from.extend(rule.list("from_cookies").iter().filter_map(Node::text).map(|name| format!("cookie:{name}")));
    Ok(if from.is_empty() {
        vec!["header:authorization".to_owned(), "query:access_token".to_owned()]
    } else {
        from
    })
}
