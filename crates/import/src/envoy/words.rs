//! Envoy's names and units.

use crate::tree::{Node, NodeKind};

/// The header with the scheme of a request.
pub(super) const PROTO: &str = "x-forwarded-proto";

/// The kind of an extension whose config comes by discovery (`config_discovery`), so that its effect is unknown.
pub(crate) const DISCOVERED: &str = "config_discovery";

/// `type.googleapis.com/envoy.extensions.filters.http.router.v3.Router` is `Router`.
pub(crate) fn last(url: &str) -> &str {
    url.rsplit(['.', '/']).next().unwrap_or(url)
}

/// The type of an extension's config, as it stands in the file.
pub(crate) fn given_type(node: &Node) -> &str {
    let config = given(node);
    let url = config.str("@type").unwrap_or_default();
    if url.ends_with("TypedStruct") { config.str("type_url").unwrap_or_default() } else { url }
}

/// The kind of an extension, by the type of its config or by its name: `envoy.filters.http.lua`, `envoy.lua` and
/// `type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua` are all `lua`.
pub(crate) fn extension(node: &Node) -> String {
    // The config comes by discovery, so its name does not say what it does.
    if node.get("config_discovery").is_some() {
        return DISCOVERED.to_owned();
    }
    let url = given_type(node);
    // The type's name is too general, such as `Config`: the filter's own name is more exact.
    let plain = matches!(last(url), "Config" | "CacheConfig" | "FilterConfig" | "ProxyProtocol");
    if !url.is_empty() && !plain && !url.ends_with("Struct") && !url.ends_with("Empty") {
        return word(last(url));
    }
    word(last(node.str("name").unwrap_or_default()))
}

/// The kind of a filter by one of Envoy's names: `envoy.filters.http.lua` is `lua`.
pub(crate) fn kind_of(name: &str) -> String {
    word(last(name))
}

/// `HttpConnectionManager` is `http_connection_manager`; the names of v2 are those of v3.
fn word(name: &str) -> String {
    let snake = crate::tree::snake(name);
    let snake = snake.trim_start_matches('_');
    match snake {
        "r_b_a_c" => "rbac",
        "jwt_authentication" => "jwt_authn",
        "h_t_t_p_fault" | "http_fault" => "fault",
        "h_t_t_p_router" => "router",
        "rate_limit" => "ratelimit",
        "local_rate_limit" => "local_ratelimit",
        "original_dst" | "original_destination" => "original_dst",
        "ext_authorization" => "ext_authz",
        "o_auth2" | "oauth2" => "oauth2",
        other => return other.to_owned(),
    }
    .to_owned()
}

/// The config of an extension, under any of its keys. A typed struct holds it one level deeper.
pub(crate) fn config(node: &Node) -> &Node {
    let config = given(node);
    if config.str("@type").is_some_and(|url| url.ends_with("TypedStruct"))
        && let Some(inner) = config.get("value")
    {
        return inner;
    }
    config
}

/// The config of an extension as it stands in the file.
fn given(node: &Node) -> &Node {
    let found = ["typed_config", "config", "deprecated_v1"].iter().find_map(|key| node.get(key));
    found.unwrap_or_else(|| node.down(&["typed_config"]))
}

/// Seconds of a duration: `0.25s`, `{ seconds: 1, nanos: 5 }`, or a number of seconds.
pub(crate) fn seconds(node: &Node) -> Option<f64> {
    let _ = node.text();
    match &node.kind {
        NodeKind::Scalar(text) => text.strip_suffix('s').unwrap_or(text).parse().ok(),
        NodeKind::Map(_) => {
            let seconds = node.number("seconds").unwrap_or(0.0);
            Some(seconds + node.number("nanos").unwrap_or(0.0) / 1e9)
        }
        NodeKind::List(_) => None,
    }
}

/// A duration in attache's notation.
pub(crate) fn duration(seconds: f64) -> String {
    let micros = (seconds * 1e6).round().max(0.0) as u64;
    match micros {
        0 => "0s".to_owned(),
        n if n % 3_600_000_000 == 0 => format!("{}h", n / 3_600_000_000),
        n if n % 60_000_000 == 0 => format!("{}m", n / 60_000_000),
        n if n % 1_000_000 == 0 => format!("{}s", n / 1_000_000),
        n if n % 1000 == 0 => format!("{}ms", n / 1000),
        n => format!("{n}us"),
    }
}

/// A percent or fractional percent as a share from 0 to 1.
pub(crate) fn share(node: &Node) -> Option<f64> {
    if let Some(inner) = node.get("default_value") {
        return share(inner);
    }
    if let Some(text) = node.str("value") {
        return text.parse::<f64>().ok().map(|percent| percent / 100.0);
    }
    if matches!(node.kind, NodeKind::Scalar(_))
        && let Some(text) = node.text()
    {
        return text.parse::<f64>().ok().map(|percent| percent / 100.0);
    }
    let of = match node.str("denominator").unwrap_or("HUNDRED") {
        "TEN_THOUSAND" | "1" => 10_000.0,
        "MILLION" | "2" => 1_000_000.0,
        _ => 100.0,
    };
    Some(node.number("numerator").unwrap_or(0.0) / of)
}

/// A share in attache's notation.
pub(crate) fn percent(share: f64) -> String {
    let text = format!("{:.4}", share * 100.0);
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}
