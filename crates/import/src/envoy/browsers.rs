//! What browsers need: CORS and compression.

use crate::remark::Remarks;
use crate::tree::Node;
use crate::value::{ConfigValue, YamlMap};

use super::{matcher, words};

const CORS_KNOWN: &[&str] = &[
    "allow_origin_string_match",
    "allow_origin",
    "allow_origin_regex",
    "allow_methods",
    "allow_headers",
    "expose_headers",
    "max_age",
    "allow_credentials",
    "filter_enabled",
    "shadow_enabled",
    "allow_private_network_access",
    "forward_not_matching_preflights",
    "enabled",
];

/// A CORS policy. `None` if no part of it can be carried over.
pub(crate) fn cors(policy: &Node, remarks: &mut Remarks) -> Option<YamlMap> {
    let share = |key: &str| policy.get(key).map(|node| words::share(node).unwrap_or(0.0));
    if share("filter_enabled").is_some_and(|share| share < 1.0) {
        if share("filter_enabled").is_some_and(|share| share > 0.0) {
            remarks.point(
                &policy.at,
                "in the original CORS was on for a share of the requests only, so it is left out.",
            );
        }
        return None;
    }
    remarks.rest(policy, "CORS", CORS_KNOWN, &[]);
    let credentials = policy.is("allow_credentials");
    let origins = origins(policy, credentials, remarks);
    if origins.is_empty() {
        return None;
    }
    let mut map = YamlMap::default();
    map.set(
        "origins",
        if origins.iter().any(|origin| origin == "*") { vec!["*".to_owned()] } else { origins },
    );
    methods_and_headers(policy, &mut map, remarks);
    if credentials {
        map.set("credentials", true);
    }
    if let Some(age) = policy.number("max_age").filter(|age| *age >= 0.0) {
        map.set("max_age", words::duration(age));
    }
    if policy.is("allow_private_network_access") {
        map.set("private_network", true);
    }
    if !policy.is_false("forward_not_matching_preflights") {
        remarks.note(
            &policy.at,
            "preflights of foreign origins are answered without permission, and not sent to the application.",
        );
    }
    Some(map)
}

/// The origins that may read answers.
fn origins(policy: &Node, credentials: bool, remarks: &mut Remarks) -> Vec<String> {
    let mut origins = Vec::new();
    for item in policy
        .list("allow_origin_string_match")
        .iter()
        .chain(policy.list("allow_origin"))
        .chain(policy.list("allow_origin_regex"))
    {
        // In Envoy a matcher that matches `*` matches every origin.
        let said = if takes_star(item) { Ok(Some("*".to_owned())) } else { origin(item) };
        match said {
            Ok(Some(pattern)) if credentials && everybody(&pattern) => {
                remarks.point(
                    &item.at,
                    "this origin is left out: it allows every page to act with the user's credentials. List the allowed origins.",
                );
            }
            Ok(Some(pattern)) => {
                if !origins.contains(&pattern) {
                    origins.push(pattern);
                }
            }
            Ok(None) => remarks
                .note(&item.at, "this origin is left out, because no browser sends an origin in this form."),
            Err(matcher::Untranslatable(why)) => {
                remarks.point(&item.at, format!("this origin is left out: {why}."));
            }
        }
    }
    origins
}

/// The methods and headers that pages may use and read.
fn methods_and_headers(policy: &Node, map: &mut YamlMap, remarks: &mut Remarks) {
    let words = |key: &str| -> Vec<String> {
        let text = policy.str(key).unwrap_or_default();
        text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(ToOwned::to_owned).collect()
    };
    let methods = words("allow_methods");
    if !methods.is_empty() {
        map.set("methods", methods);
    }
    let headers = words("allow_headers");
    if !headers.is_empty() {
        map.set("headers", headers.into_iter().map(|name| name.to_ascii_lowercase()).collect::<Vec<_>>());
    }
    let mut expose = words("expose_headers");
    if expose.iter().any(|name| name == "*") {
        expose.retain(|name| name != "*");
        remarks.soft(
            &policy.at,
            "`expose_headers: *` is left out: name the headers that pages may read in `expose`.",
        );
    }
    if !expose.is_empty() {
        map.set("expose", expose.into_iter().map(|name| name.to_ascii_lowercase()).collect::<Vec<_>>());
    }
}

/// An origin in attache's notation. `Ok(None)`: no browser sends it.
fn origin(item: &Node) -> Result<Option<String>, matcher::Untranslatable> {
    let own = item.text().filter(|_| item.entries().is_empty());
    if let Some(exact) = own.or_else(|| item.str("exact").filter(|_| !item.is("ignore_case"))) {
        if exact == "*" || exact == "null" {
            return Ok(Some(exact.to_owned()));
        }
        let canonical = exact.split_once("://").is_some_and(|(scheme, rest)| {
            let own_port =
                (scheme == "https" && rest.ends_with(":443")) || (scheme == "http" && rest.ends_with(":80"));
            !rest.is_empty()
                && !own_port
                && rest
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-:[]_".contains(&b))
                && scheme.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+.-".contains(&b))
        });
        return Ok(canonical.then(|| exact.to_owned()));
    }
    let pattern = matcher::string(item)?;
    Ok(Some(match pattern.strip_prefix('~') {
        Some(_) => pattern,
        None => match (pattern.strip_suffix('*'), pattern.strip_prefix('*')) {
            (Some(prefix), _) => format!("~{}.*", regex::escape(prefix)),
            (_, Some(suffix)) => format!("~.*{}", regex::escape(suffix)),
            _ => format!("~{}", regex::escape(pattern.trim_start_matches('='))),
        },
    }))
}

/// Envoy tests whether each matcher of origins matches the text `*`.
fn takes_star(item: &Node) -> bool {
    let part = |key: &str| item.get(key).and_then(Node::text);
    let fits = [("prefix", "*"), ("suffix", "*"), ("contains", "*")];
    part("exact") == Some("*")
        || fits.iter().any(|(key, star)| part(key).is_some_and(|text| text == *star || text.is_empty()))
        || item
            .down(&["safe_regex"])
            .str("regex")
            .or_else(|| item.str("regex"))
            .and_then(|regex| regex::Regex::new(&format!("^(?:{regex})$")).ok())
            .is_some_and(|regex| regex.is_match("*"))
}

/// Whether a pattern matches the origins of unknown pages.
fn everybody(pattern: &str) -> bool {
    match pattern.strip_prefix('~') {
        None => pattern == "*" || pattern == "null",
        Some(regex) => regex::Regex::new(&format!("^(?:{regex})$")).map_or(true, |regex| {
            regex.is_match("https://attache-stranger.invalid") || regex.is_match("null")
        }),
    }
}

/// Envoy's default list of content types.
const TYPES: &[&str] = &[
    "application/javascript",
    "application/json",
    "application/xhtml+xml",
    "image/svg+xml",
    "text/css",
    "text/html",
    "text/plain",
    "text/xml",
];

/// A compressor of answers. `None`: it compresses none.
pub(crate) fn compressor(config: &Node, remarks: &mut Remarks) -> Option<YamlMap> {
    let library = config.down(&["compressor_library"]);
    let coding = match (config.get("compressor_library").is_some(), words::extension(library).as_str()) {
        (false, _) | (_, "gzip") => "gzip",
        (_, "brotli") => "br",
        (_, "zstd") => "zstd",
        (_, other) => {
            remarks.soft(
                &config.at,
                format!("attache lacks the coding `{other}`: `compression.codings` has zstd, br and gzip."),
            );
            return None;
        }
    };
    let ways = config.down(&["response_direction_config"]);
    let common = if ways.is_empty() { config } else { ways.down(&["common_config"]) };
    if config.has(&["request_direction_config", "common_config", "enabled"])
        && !config.down(&["request_direction_config", "common_config", "enabled"]).is_false("default_value")
    {
        remarks.point(&config.at, "requests are not compressed.");
    }
    if common.down(&["enabled"]).is_false("default_value") {
        return None;
    }
    if ways.get("uncompressible_response_codes").is_some() {
        remarks.soft(
            &ways.at,
            "`uncompressible_response_codes` is left out: attache compresses responses with every status.",
        );
    }
    if ways.is("disable_on_etag_header") {
        remarks.soft(
            &ways.at,
            "`disable_on_etag_header`: answers with an `ETag` are compressed, and a strong one becomes weak.",
        );
    }
    if ways.is("remove_accept_encoding_header") {
        remarks.soft(&ways.at, "`remove_accept_encoding_header` is left out: the application gets `Accept-Encoding`, and may compress responses itself.");
    }
    let mut types: Vec<String> = Vec::new();
    for kind in common.list("content_type").iter().filter_map(Node::text) {
        types.push(kind.to_ascii_lowercase());
    }
    if types.is_empty() {
        types = TYPES.iter().map(|kind| (*kind).to_owned()).collect();
    }
    types.retain(|kind| {
        kind.split_once('/').is_some_and(|(a, b)| !a.is_empty() && !b.is_empty())
            && !kind.contains([' ', ';'])
            && !kind.starts_with("application/grpc")
    });
    if types.is_empty() {
        return None;
    }
    let mut map = YamlMap::default();
    map.set("codings", vec![coding.to_owned()]);
    map.set("types", types);
    let least =
        common.number("min_content_length").or_else(|| config.number("content_length")).unwrap_or(30.0);
    map.set("min_size", format!("{}B", least as u64));
    Some(map)
}

/// Merges two compressors of one chain: the result has both codings. False if they differ otherwise.
pub(crate) fn also(known: &mut YamlMap, more: &YamlMap) -> bool {
    let mut same = known.clone();
    same.put("codings", more.get("codings").cloned());
    if same != *more {
        return false;
    }
    let list = |value: Option<&ConfigValue>| match value {
        Some(ConfigValue::List(items)) => items.clone(),
        Some(value) => vec![value.clone()],
        None => Vec::new(),
    };
    let mut codings = list(known.get("codings"));
    for coding in list(more.get("codings")) {
        if !codings.contains(&coding) {
            codings.push(coding);
        }
    }
    known.set("codings", ConfigValue::List(codings));
    true
}
