//! Options of the HTTP connection manager: protocols, headers, paths, time limits.

use crate::plan::PlannedListener;
use crate::remark::Remarks;
use crate::tree::Node;
use crate::value::{ConfigValue, YamlMap};

use super::words;

pub(super) fn options(config: &Node, out: &mut PlannedListener, remarks: &mut Remarks) {
    match config.str("codec_type") {
        Some("HTTP1" | "http1" | "1") => out.keys.set("protocol", "http1"),
        Some("HTTP2" | "http2" | "2") => out.keys.set("protocol", "http2"),
        Some("HTTP3" | "3") => remarks.point(&config.at, "attache has no HTTP/3."),
        _ => out.keys.set("protocol", "http"),
    }
    if config.get("scoped_routes").is_some() {
        remarks.point(
            &config.at,
            "attache has no scoped routes: in each route, match the header that chose the scope.",
        );
    }
    let common = config.down(&["common_http_protocol_options"]);
    let proven = out.keys.get("tls").is_some();
    let mut http = out.keys.child("http");
    forwarded(config, &mut http, remarks);
    // Envoy's parser of HTTP/1 knows a list of methods.
    let any = config.down(&["http_protocol_options"]).is("allow_custom_methods");
    if !any && speaks_h1(config) {
        http.set("methods", "known");
    }
    if !config.down(&["http2_protocol_options"]).is("allow_connect") {
        http.set("extended_connect", false);
    }
    underscores(common, &mut http);
    times(config, common, &mut http);
    let limits = limits(config, common, remarks);
    if !limits.is_empty() {
        http.set("limits", limits);
    }
    let path = path(config, remarks);
    if !path.is_empty() {
        http.set("path", path);
    }
    if !config.is("normalize_path") {
        remarks.note(
            &config.at,
            "`.` and `..` in paths are resolved before routes are matched. `http: { path: { dot_segments: false } }` leaves them.",
        );
    }
    if config.is_false("generate_request_id") {
        http.set("request_id", false);
    }
    if config.is("use_remote_address") && !config.is("preserve_external_request_id") {
        http.set("trust_request_id", false);
    }
    if let Some(via) = config.str("via") {
        http.set("via", via);
    }
    client_certificates(config, proven, &mut http, remarks);
    let own = upgrades(config.list("upgrade_configs"), Vec::new());
    // A listener has one value. If a further chain has a different value, its routes get their own key.
    if http.get("upgrades").is_none() {
        http.set("upgrades", said(&own));
    }
    for upgrade in config.list("upgrade_configs").iter().filter(|one| is_connect(one)) {
        remarks.point(
            &upgrade.at,
            "CONNECT is carried by an upstream with `address: authority` (a forward proxy) or `tcp://`, not by routes to HTTP upstreams.",
        );
    }
}

/// `x-forwarded-for` and `x-forwarded-proto` of requests.
fn forwarded(config: &Node, http: &mut YamlMap, remarks: &mut Remarks) {
    // Envoy adds the client's address only with `use_remote_address`.
    let remote = config.is("use_remote_address");
    let trusts = !remote || config.number("xff_num_trusted_hops").is_some_and(|hops| hops > 0.0);
    let mut forwarded = http.child("forwarded");
    forwarded.set("x_forwarded", if remote && !config.is("skip_xff_append") { "append" } else { "pass" });
    // Envoy always writes the scheme, and replaces the scheme that an untrusted client sends.
    forwarded.set("x_forwarded_proto", if trusts { "append" } else { "replace" });
    drop(forwarded);
    if config.number("xff_num_trusted_hops").is_some_and(|hops| hops > 0.0) {
        remarks.soft(&config.at, "the import has no trusted hops: attache takes the client's address from the connection. Behind a load balancer use `proxy_protocol`.");
    }
}

fn underscores(common: &Node, http: &mut YamlMap) {
    match common.str("headers_with_underscores_action") {
        Some("REJECT_REQUEST" | "1") => http.child("header_names").set("underscores", "reject"),
        Some("DROP_HEADER" | "2") => {
            let mut names = http.child("header_names");
            // If several chains differ, all requests get the strictest setting.
            if names.get("underscores").is_none() {
                names.set("underscores", "drop");
            }
        }
        _ => {}
    }
}

/// How long connections and heads may take.
fn times(config: &Node, common: &Node, http: &mut YamlMap) {
    if let Some(time) = common.get("idle_timeout").and_then(words::seconds).filter(|time| *time > 0.0) {
        http.set("idle_timeout", words::duration(time));
    }
    if let Some(time) =
        config.get("request_headers_timeout").and_then(words::seconds).filter(|time| *time > 0.0)
    {
        http.set("header_timeout", words::duration(time));
    }
    if let Some(time) =
        common.get("max_connection_duration").and_then(words::seconds).filter(|time| *time > 0.0)
    {
        http.set("max_connection_age", words::duration(time));
    }
}

fn limits(config: &Node, common: &Node, remarks: &mut Remarks) -> YamlMap {
    let mut limits = YamlMap::default();
    if let Some(size) = config.number("max_request_headers_kb") {
        limits.set("headers_size", format!("{}KiB", (size as u64).clamp(8, 16 * 1024)));
    }
    if let Some(count) = common.number("max_headers_count").filter(|count| *count >= 1.0) {
        limits.set("headers_count", count as u64);
    }
    if let Some(count) = common.number("max_requests_per_connection").filter(|count| *count >= 1.0) {
        limits.set("requests_per_connection", count as u64);
    }
    let h2 = config.down(&["http2_protocol_options"]);
    if let Some(streams) = h2.number("max_concurrent_streams").filter(|streams| *streams >= 1.0) {
        limits.set("h2_streams", (streams as u64).min(1000));
    }
    if let Some(size) = h2.number("initial_stream_window_size") {
        limits.set("h2_stream_window", format!("{}B", (size as u64).clamp(65_535, 2_147_483_647)));
    }
    if h2.number("initial_connection_window_size").is_some() {
        remarks.soft(
            &config.at,
            "attache always uses the largest window for an HTTP/2 connection; the windows of streams limit the memory.",
        );
    }
    limits
}

fn path(config: &Node, remarks: &mut Remarks) -> YamlMap {
    let mut path = YamlMap::default();
    if config.is("merge_slashes") {
        path.set("merge_slashes", true);
    }
    match config.str("path_with_escaped_slashes_action") {
        Some("REJECT_REQUEST" | "2") => path.set("escaped_slashes", "reject"),
        Some("UNESCAPE_AND_FORWARD" | "4") => path.set("escaped_slashes", "decode"),
        Some("UNESCAPE_AND_REDIRECT" | "3") => {
            path.set("escaped_slashes", "decode");
            remarks.soft(&config.at, "escaped slashes are decoded, without a redirect.");
        }
        _ => {}
    }
    path
}

/// `X-Forwarded-Client-Cert`. `proven`: the listener terminates TLS.
fn client_certificates(config: &Node, proven: bool, http: &mut YamlMap, remarks: &mut Remarks) {
    if let Some(word) = config.str("forward_client_cert_details") {
        let word = match word {
            "0" => "sanitize".to_owned(),
            "1" => "forward-only".to_owned(),
            "2" => "append-forward".to_owned(),
            "3" => "sanitize-set".to_owned(),
            "4" => "always-forward-only".to_owned(),
            word => word.to_ascii_lowercase().replace('_', "-"),
        };
        if word != "sanitize-set" {
            http.set("forward_client_cert_details", word);
        }
        let current = config.down(&["set_current_client_cert_details"]);
        let all: Vec<String> = ["subject", "uri", "dns", "cert", "chain"]
            .iter()
            .filter(|key| current.is(key))
            .map(|key| (*key).to_owned())
            .collect();
        if !all.is_empty() && all.iter().all(|key| matches!(key.as_str(), "subject" | "uri" | "dns")) {
            http.set(
                "set_current_client_cert_details",
                ConfigValue::List(all.into_iter().map(ConfigValue::Text).collect()),
            );
        } else if !all.is_empty() {
            remarks
                .soft(&current.at, "attache doesn't put whole certificates into `X-Forwarded-Client-Cert`.");
        }
    } else if proven {
        http.set("forward_client_cert_details", "sanitize");
    }
}

/// Whether clients may use HTTP/1.
fn speaks_h1(config: &Node) -> bool {
    !matches!(config.str("codec_type"), Some("HTTP2" | "http2" | "2"))
}

fn is_connect(upgrade: &Node) -> bool {
    upgrade.str("upgrade_type").is_some_and(|word| word.to_ascii_lowercase().starts_with("connect"))
}

/// The protocols that these settings allow, over those that `base` allows.
pub(super) fn upgrades(list: &[Node], base: Vec<String>) -> Vec<String> {
    let mut out = base;
    for one in list.iter().filter(|one| !is_connect(one)) {
        let protocol = one.str("upgrade_type").unwrap_or("websocket").to_ascii_lowercase();
        out.retain(|known| *known != protocol);
        if !one.is_false("enabled") {
            out.push(protocol);
        }
    }
    out
}

/// The protocols in attache's notation.
pub(super) fn said(protocols: &[String]) -> ConfigValue {
    if protocols.is_empty() { "off".into() } else { protocols.to_vec().into() }
}
