//! `jwt_authn`: providers become issuers in `jwt`, and requirements become `jwt` in the `authorization` of routes.

use crate::access::{self, AccessEffect};
use crate::gate::{Gate, GateVerdict};
use crate::remark::{Impact, Remarks};
use crate::tree::{FileLine, Node};
use crate::value::{ConfigValue, YamlMap};

use super::{EnvoyImport, cluster, matcher, words};

/// A filter's providers, for its rules and for the settings of routes.
pub(crate) struct Tokens {
    at: FileLine,
    config: Node,
    /// Names of providers with the issuers that they became, or the reason why not.
    providers: Vec<(String, Result<String, String>)>,
    /// Headers that carried the payload to upstreams; attache removes them from requests.
    pub(crate) told: Vec<String>,
}

/// The key of the payload in the metadata. `None` if a provider has no key, or if two providers have different keys.
pub(crate) fn payload(filters: &[Node]) -> Option<String> {
    let mut keys = filters
        .iter()
        .filter(|filter| words::extension(filter) == "jwt_authn")
        .flat_map(|filter| words::config(filter).down(&["providers"]).entries())
        .map(|(_, provider)| provider.str("payload_in_metadata"));
    let first = keys.next()??;
    keys.all(|key| key == Some(first)).then(|| first.to_owned())
}

/// Reads a filter's providers.
pub(crate) fn read(config: &Node, at: &FileLine, remarks: &mut Remarks, cx: &mut EnvoyImport) -> Tokens {
    let mut tokens =
        Tokens { at: at.clone(), config: config.clone(), providers: Vec::new(), told: Vec::new() };
    remarks.rest(
        config,
        "`jwt_authn`",
        &["providers", "rules", "requirement_map", "bypass_cors_preflight", "filter_state_rules", "stat_prefix"],
        &[("strip_failure_response", Impact::Soft, "the answer to a token that is not valid has only `error=\"invalid_token\"` in `WWW-Authenticate`.")],
    );
    if config.is("bypass_cors_preflight") {
        remarks.note(at, "preflights need no token where `cors` answers them; without `cors` they do.");
    }
    for (name, provider) in config.down(&["providers"]).entries() {
        let issuer = issuer(name, provider, None, &mut tokens.told, remarks, cx);
        tokens.providers.push((name.clone(), issuer));
    }
    tokens
}

const PROVIDER: &[&str] = &[
    "issuer",
    "audiences",
    "require_expiration",
    "local_jwks",
    "remote_jwks",
    "forward",
    "from_headers",
    "from_params",
    "from_cookies",
    "forward_payload_header",
    "pad_forward_payload_header",
    "payload_in_metadata",
    "header_in_metadata",
    "failed_status_in_metadata",
    "clock_skew_seconds",
    "jwt_cache_config",
    "claim_to_headers",
    "normalize_payload_in_metadata",
];

/// Makes an issuer of a provider, or returns the reason why not.
fn issuer(
    name: &str,
    provider: &Node,
    audiences: Option<&Node>,
    told: &mut Vec<String>,
    remarks: &mut Remarks,
    cx: &mut EnvoyImport,
) -> Result<String, String> {
    let mut map = YamlMap::default();
    for (key, value) in provider.entries() {
        let key = crate::tree::snake(key);
        if !value.is_empty() && !PROVIDER.contains(&key.as_str()) {
            return Err(format!("attache lacks `{key}` of the provider `{name}`"));
        }
    }
    let Some(iss) = provider.str("issuer") else {
        return Err(format!(
            "the provider `{name}` accepts tokens of any issuer, and in attache each issuer needs a name"
        ));
    };
    map.set("issuer", iss);
    let list = audiences.unwrap_or(provider).list("audiences");
    let list: Vec<String> = list.iter().filter_map(Node::text).map(ToOwned::to_owned).collect();
    if !list.is_empty() {
        map.set("audiences", list);
    }
    map.set("keys", keys(name, provider, cx)?);
    if let Some(skew) = provider.number("clock_skew_seconds").filter(|skew| *skew > 0.0) {
        map.set("clock_skew", words::duration(skew));
    }
    let from = places(name, provider)?;
    if from != ["header:authorization"] {
        map.set("from", from);
    }
    let mut claims = YamlMap::default();
    for item in provider.list("claim_to_headers") {
        if let (Some(header), Some(claim)) = (item.str("header_name"), item.str("claim_name")) {
            claims.set(&header.to_ascii_lowercase(), claim);
        }
    }
    if !claims.is_empty() {
        map.set("claim_headers", claims);
    }
    if provider.is("forward") {
        map.set("forward", true);
    }
    if let Some(header) = provider.str("forward_payload_header") {
        told.push(header.to_ascii_lowercase());
        remarks.point(
            &provider.at,
            format!("a token's payload is not put into `{header}`, which is removed. Name the claims in `claim_headers`."),
        );
    }
    if !provider.is("require_expiration") {
        remarks.soft(
            &provider.at,
            format!("tokens of `{iss}` without `exp` are refused; the original let them last forever."),
        );
    }
    let key = crate::plan::name(&match audiences {
        Some(_) => format!("{name}-with-audiences"),
        None => name.to_owned(),
    });
    let mut issuers = cx.plan.top.child("jwt");
    let mut free = key.clone();
    let mut n = 2;
    while issuers.get(&free).is_some_and(|other| *other != ConfigValue::Map(map.clone())) {
        free = format!("{key}-{n}");
        n += 1;
    }
    issuers.set(&free, map);
    Ok(free)
}

fn keys(name: &str, provider: &Node, cx: &mut EnvoyImport) -> Result<YamlMap, String> {
    let mut keys = YamlMap::default();
    if let Some(local) = provider.get("local_jwks") {
        if let Some(file) = local.str("filename") {
            keys.set("file", file);
        } else if let Some(text) = local.str("inline_string") {
            if !text.contains("\"keys\"") || text.contains("\"oct\"") {
                return Err(format!(
                    "the keys of the provider `{name}` are not a set of public keys (RFC 7517)"
                ));
            }
            keys.set("inline", text);
        } else {
            return Err(format!("the keys of the provider `{name}` are neither in a file nor in the config"));
        }
        return Ok(keys);
    }
    let remote = provider.down(&["remote_jwks"]);
    let uri = remote.down(&["http_uri"]);
    let (Some(url), Some(cluster)) = (uri.str("uri"), uri.str("cluster")) else {
        return Err(format!("this import doesn't know the keys of the provider `{name}`"));
    };
    if cx.clusters.iter().all(|known| known.str("name") != Some(cluster)) {
        return Err(format!("the cluster `{cluster}` for the keys of `{name}` is not in this config"));
    }
    keys.set("upstream", cluster::used(cluster, cluster::ClusterUse::Http, cx));
    keys.set("path", path_of(url));
    super::duration(
        &mut keys,
        "timeout",
        uri.get("timeout").filter(|time| words::seconds(time).is_some_and(|time| time > 0.0)),
    );
    // Envoy's default is 10 minutes.
    let refresh = remote.get("cache_duration").and_then(words::seconds).unwrap_or(600.0);
    keys.set("refresh", words::duration(refresh.max(1.0)));
    Ok(keys)
}

/// The path of a URL, with its query.
pub(crate) fn path_of(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.find('/').and_then(|start| rest.get(start..)).unwrap_or("/").to_owned()
}

/// The places of tokens. By default Envoy reads `Authorization` and the parameter `access_token`.
fn places(name: &str, provider: &Node) -> Result<Vec<String>, String> {
    let mut from = Vec::new();
    for header in provider.list("from_headers") {
        let prefix = header.get("value_prefix").and_then(Node::text).unwrap_or_default();
        if !prefix.is_empty() && !prefix.eq_ignore_ascii_case("bearer ") {
            return Err(format!(
                "tokens of the provider `{name}` follow the prefix `{prefix}`; attache knows only `Bearer ` or no prefix"
            ));
        }
        if let Some(header) = header.str("name") {
            from.push(format!("header:{}", header.to_ascii_lowercase()));
        }
    }
    from.extend(
        provider.list("from_params").iter().filter_map(Node::text).map(|name| format!("query:{name}")),
    );
    from.extend(
        provider.list("from_cookies").iter().filter_map(Node::text).map(|name| format!("cookie:{name}")),
    );
    if from.is_empty() {
        from = vec!["header:authorization".to_owned(), "query:access_token".to_owned()];
    }
    Ok(from)
}

/// The meaning of a requirement.
#[derive(Default)]
struct Requirement {
    issuers: Vec<String>,
    missing: bool,
    failed: bool,
}

impl Tokens {
    /// The gate of the filter's rules: the first match decides; a request without a match needs no token.
    pub(crate) fn gate(&self, remarks: &mut Remarks, cx: &mut EnvoyImport) -> Gate {
        if self.config.get("filter_state_rules").is_some() {
            return Gate::closed(
                &self.at,
                "requirements for tokens were chosen by filter state here. Write them as `authorization` of routes; then replace the refusal.",
            );
        }
        let mut cases = Vec::new();
        for rule in self.config.list("rules") {
            if let Some(key) = rule.stranger(&["match", "requires", "requirement_name"]) {
                return Gate::closed(
                    &rule.at,
                    format!(
                        "this import doesn't know `{key}` of a rule about tokens. Find out what it does; then replace the refusal."
                    ),
                );
            }
            let when = match matcher::route(rule.down(&["match"])) {
                Ok(when) => when,
                Err(matcher::Untranslatable(why)) => {
                    return Gate::closed(
                        &rule.at,
                        format!(
                            "a rule about tokens can't be carried over: {why}. Write it as `authorization` of a route; then replace the refusal."
                        ),
                    );
                }
            };
            let requirement = match (rule.get("requires"), rule.str("requirement_name")) {
                (Some(requires), _) => Some(requires),
                (None, Some(name)) => match self.config.down(&["requirement_map"]).get(name) {
                    Some(requires) => Some(requires),
                    None => {
                        return Gate::closed(
                            &rule.at,
                            format!("the requirement `{name}` is not in this config."),
                        );
                    }
                },
                (None, None) => None,
            };
            let doubled = access::deny(&matcher::doubled(rule.down(&["match"])));
            let verdict = match (self.verdict(requirement, remarks, cx), doubled) {
                (GateVerdict::Pass, AccessEffect::Keys(deny)) => GateVerdict::With(deny),
                (GateVerdict::With(mut keys), AccessEffect::Keys(deny)) => {
                    access::merge(&mut keys, &deny);
                    GateVerdict::With(keys)
                }
                (verdict, _) => verdict,
            };
            cases.push((when, verdict));
        }
        Gate { at: self.at.clone(), cases, otherwise: GateVerdict::Pass, denied: "" }
    }

    /// The gate of a route that names a requirement of the map.
    pub(crate) fn of_route(&self, own: &Node, remarks: &mut Remarks, cx: &mut EnvoyImport) -> Gate {
        let otherwise = match own
            .str("requirement_name")
            .map(|name| self.config.down(&["requirement_map"]).get(name))
        {
            Some(Some(requires)) => self.verdict(Some(requires), remarks, cx),
            _ => GateVerdict::Refuse("this route's requirement for tokens is not in this config.".to_owned()),
        };
        Gate { at: own.at.clone(), cases: Vec::new(), otherwise, denied: "" }
    }

    fn verdict(
        &self,
        requirement: Option<&Node>,
        remarks: &mut Remarks,
        cx: &mut EnvoyImport,
    ) -> GateVerdict {
        let Some(requirement) = requirement.filter(|node| !node.is_empty()) else { return GateVerdict::Pass };
        let asked = match self.asked(requirement, remarks, cx) {
            Ok(asked) => asked,
            Err(why) => {
                return GateVerdict::Refuse(format!(
                    "attache can't verify the token that was required here: {why}. Write it as `jwt`; then replace the refusal."
                ));
            }
        };
        if asked.issuers.is_empty() {
            return GateVerdict::Refuse("the original required no token here.".to_owned());
        }
        if asked.failed {
            remarks.point(
                &requirement.at,
                "the original forwarded a request with an invalid token, without claims (`allow_missing_or_failed`); attache answers it with 401, and forwards requests without a token.",
            );
        }
        let mut jwt = YamlMap::default();
        jwt.set("issuers", asked.issuers);
        if asked.missing || asked.failed {
            jwt.set("required", false);
        }
        let mut keys = YamlMap::default();
        keys.set("jwt", jwt);
        GateVerdict::With(keys)
    }

    fn known(&self, name: &str) -> Result<String, String> {
        match self.providers.iter().find(|(known, _)| known == name) {
            Some((_, issuer)) => issuer.clone(),
            None => Err(format!("the provider `{name}` is not in this config")),
        }
    }

    fn asked(&self, node: &Node, remarks: &mut Remarks, cx: &mut EnvoyImport) -> Result<Requirement, String> {
        if node.entries().len() > 1 {
            return Err("a requirement has more than one kind".to_owned());
        }
        let all = || -> Result<Vec<String>, String> {
            self.providers.iter().map(|(_, issuer)| issuer.clone()).collect()
        };
        if let Some(name) = node.str("provider_name") {
            return Ok(Requirement { issuers: vec![self.known(name)?], ..Requirement::default() });
        }
        if let Some(both) = node.get("provider_and_audiences") {
            let name = both.str("provider_name").unwrap_or_default();
            self.known(name)?;
            let Some(provider) = self.config.down(&["providers"]).get(name) else {
                return Err("no provider".to_owned());
            };
            let own = issuer(name, provider, Some(both), &mut Vec::new(), remarks, cx)?;
            return Ok(Requirement { issuers: vec![own], ..Requirement::default() });
        }
        if node.get("allow_missing").is_some() {
            return Ok(Requirement { issuers: all()?, missing: true, failed: false });
        }
        if node.get("allow_missing_or_failed").is_some() {
            return Ok(Requirement { issuers: all()?, missing: true, failed: true });
        }
        if let Some(any) = node.get("requires_any") {
            let mut out = Requirement::default();
            for item in any.list("requirements") {
                // In a list with other requirements, these two only decide about requests without a valid token.
                if item.get("allow_missing").is_some() {
                    out.missing = true;
                } else if item.get("allow_missing_or_failed").is_some() {
                    out.failed = true;
                } else {
                    let inner = self.asked(item, remarks, cx)?;
                    out.issuers.extend(inner.issuers);
                    out.missing |= inner.missing;
                    out.failed |= inner.failed;
                }
            }
            out.issuers.dedup();
            return Ok(out);
        }
        if let Some(every) = node.get("requires_all") {
            if let [only] = every.list("requirements") {
                return self.asked(only, remarks, cx);
            }
            return Err(
                "the original required tokens of several issuers at once; in attache one valid token is enough".to_owned()
            );
        }
        Err("this import doesn't know this kind of requirement".to_owned())
    }
}
