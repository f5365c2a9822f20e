//! The part of Envoy's admin API that scrapers, probes and scripts use, answered from attache's data.
//!
//! Only with `admin: { envoy_compatible: true }`. The formats are those of Envoy's v3. What attache doesn't have is left out, not invented.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use attache_telemetry::{METRICS_CONTENT_TYPE, NamingScheme};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    answer::{AdminAnswer, READ, json as as_json, method_not_allowed, reads, text, with_type},
    api::{AdminApi, set_level, writes},
    query,
};

const TYPE: &str = "type.googleapis.com/envoy.admin.v3";

/// The answer that Envoy would give; `None` for a path that Envoy doesn't have.
pub(crate) fn answer(
    api: &AdminApi,
    method: &Method,
    path: &str,
    asked: Option<&str>,
) -> Option<AdminAnswer> {
    let asked_for = |format: &str| {
        query::pairs(asked).unwrap_or_default().iter().any(|(key, value)| key == "format" && value == format)
    };
    Some(match path {
        "/logging" if writes(method) => logging(api, asked),
        "/logging" => method_not_allowed(method, "POST, PUT"),
        "/stats/prometheus" | "/stats" | "/clusters" | "/config_dump" | "/ready" | "/server_info"
            if !reads(method) =>
        {
            method_not_allowed(method, READ)
        }
        "/stats" if !asked_for("prometheus") => {
            super::envoy_stats::answer(&api.state.metrics.render_named(NamingScheme::Envoy), asked)
        }
        "/stats/prometheus" | "/stats" => {
            let page = api.state.metrics.render_named(NamingScheme::Envoy);
            with_type(StatusCode::OK, METRICS_CONTENT_TYPE, page)
        }
        "/ready" => match state(api) {
            "LIVE" => text(StatusCode::OK, "LIVE\n"),
            other => text(StatusCode::SERVICE_UNAVAILABLE, format!("{other}\n")),
        },
        "/server_info" => as_json(&server_info(api)),
        "/clusters" if asked_for("json") => as_json(&clusters_json(&api.proxy.upstreams())),
        "/clusters" => text(StatusCode::OK, clusters(&api.proxy.upstreams())),
        "/config_dump" => as_json(&config_dump(api)),
        _ => return None,
    })
}

/// Envoy's name for the state of the process.
fn state(api: &AdminApi) -> &'static str {
    let reasons = api.state.readiness.reasons();
    match () {
        () if reasons.is_empty() => "LIVE",
        () if reasons.contains("drain") => "DRAINING",
        () => "PRE_INITIALIZING",
    }
}

fn server_info(api: &AdminApi) -> Value {
    let up = SystemTime::now().duration_since(api.started).unwrap_or(Duration::ZERO).as_secs();
    json!({
        "version": format!("attache/{}", env!("CARGO_PKG_VERSION")),
        "state": state(api),
        "uptime_current_epoch": format!("{up}s"),
        "uptime_all_epochs": format!("{up}s"),
        "hot_restart_version": "disabled",
        "command_line_options": { "concurrency": api.proxy.config().get("workers").cloned().unwrap_or(Value::Null) },
        "node": { "id": "", "cluster": "", "user_agent_name": "attache" },
    })
}

fn name_of(value: &Value) -> &str {
    value.get("name").and_then(Value::as_str).unwrap_or_default()
}

fn endpoints(upstream: &Value) -> &[Value] {
    upstream.get("endpoints").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn words<'v>(value: &'v Value, keys: &[&str]) -> Option<&'v str> {
    keys.iter().find_map(|key| value.get(key).and_then(Value::as_str))
}

fn number(value: &Value, keys: &[&str]) -> u64 {
    keys.iter().find_map(|key| value.get(key).and_then(Value::as_u64)).unwrap_or(0)
}

/// Envoy's flags for an endpoint that isn't healthy.
fn flags(endpoint: &Value) -> &'static str {
    match words(endpoint, &["state"]).unwrap_or("healthy") {
        "healthy" => "healthy",
        "ejected" => "/failed_outlier_check",
        _ => "/failed_active_hc",
    }
}

/// The limits of an upstream under Envoy's names.
fn limits(upstream: &Value) -> impl Iterator<Item = (&'static str, u64)> + '_ {
    let names = [
        ("max_connections", "connections"),
        ("max_pending_requests", "pending"),
        ("max_requests", "requests"),
        ("max_retries", "retries"),
    ];
    names.into_iter().filter_map(|(envoy, own)| {
        Some((envoy, upstream.pointer(&format!("/limits/{own}/limit")).and_then(Value::as_u64)?))
    })
}

fn running(endpoint: &Value) -> u64 {
    number(endpoint, &["active", "requests", "active_requests"])
}

fn clusters(upstreams: &Value) -> String {
    let mut out = String::new();
    for upstream in upstreams.as_array().into_iter().flatten() {
        let name = name_of(upstream);
        // Writing to a String never fails.
        let _ = writeln!(out, "{name}::observability_name::{name}");
        for (envoy, limit) in limits(upstream) {
            let _ = writeln!(out, "{name}::default_priority::{envoy}::{limit}");
        }
        let _ = writeln!(out, "{name}::added_via_api::false");
        for endpoint in endpoints(upstream) {
            let address = words(endpoint, &["address"]).unwrap_or_default();
            let lines = [
                ("cx_active", number(endpoint, &["connections"]).to_string()),
                ("rq_active", running(endpoint).to_string()),
                ("hostname", words(endpoint, &["host", "name"]).unwrap_or_default().to_owned()),
                ("health_flags", flags(endpoint).to_owned()),
                ("weight", number(endpoint, &["weight"]).max(1).to_string()),
                ("region", String::new()),
                ("zone", words(endpoint, &["zone"]).unwrap_or_default().to_owned()),
                ("sub_zone", String::new()),
                ("canary", "false".to_owned()),
                ("priority", number(endpoint, &["priority"]).to_string()),
            ];
            for (key, value) in lines {
                let _ = writeln!(out, "{name}::{address}::{key}::{value}");
            }
        }
    }
    out
}

fn socket(address: &str) -> Value {
    match address.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => {
            json!({ "socket_address": { "address": host.trim_matches(['[', ']']), "port_value": port.parse::<u16>().unwrap_or(0) } })
        }
        _ => json!({ "pipe": { "path": address } }),
    }
}

fn clusters_json(upstreams: &Value) -> Value {
    let statuses = upstreams.as_array().into_iter().flatten().map(|upstream| {
        let hosts = endpoints(upstream).iter().map(|endpoint| {
            let mut health = json!({});
            if let Some(map) = health.as_object_mut() {
                match flags(endpoint) {
                    "healthy" => map.insert("eds_health_status".into(), "HEALTHY".into()),
                    "/failed_outlier_check" => map.insert("failed_outlier_check".into(), true.into()),
                    _ => map.insert("failed_active_health_check".into(), true.into()),
                };
            }
            // In protobuf's JSON, 64-bit numbers are strings.
            let gauge =
                |name: &str, value: u64| json!({ "type": "GAUGE", "name": name, "value": value.to_string() });
            let zone = words(endpoint, &["zone"]);
            json!({
                "address": socket(words(endpoint, &["address"]).unwrap_or_default()),
                "stats": [
                    gauge("cx_active", number(endpoint, &["connections"])),
                    gauge("rq_active", running(endpoint)),
                ],
                "health_status": health,
                "weight": number(endpoint, &["weight"]).max(1),
                "locality": zone.map_or_else(|| json!({}), |zone| json!({ "zone": zone })),
            })
        });
        let thresholds: serde_json::Map<String, Value> =
            limits(upstream).map(|(name, limit)| (name.to_owned(), limit.into())).collect();
        json!({
            "name": name_of(upstream),
            "host_statuses": hosts.collect::<Vec<_>>(),
            "circuit_breakers": { "thresholds": [thresholds] },
            "observability_name": name_of(upstream),
        })
    });
    json!({ "cluster_statuses": statuses.collect::<Vec<_>>() })
}

/// The config at the places where tools look for listeners and clusters. attache's own config is complete in the metadata of `bootstrap`.
fn config_dump(api: &AdminApi) -> Value {
    let config = api.proxy.config();
    let names = |key: &str| -> Vec<String> {
        config
            .get(key)
            .and_then(Value::as_object)
            .map(|map| map.keys().cloned().collect())
            .unwrap_or_default()
    };
    let listeners: Vec<Value> =
        names("listeners").iter().map(|name| json!({ "listener": { "name": name } })).collect();
    let clusters: Vec<Value> =
        names("upstreams").iter().map(|name| json!({ "cluster": { "name": name } })).collect();
    json!({ "configs": [
        { "@type": format!("{TYPE}.BootstrapConfigDump"),
          "bootstrap": { "node": { "user_agent_name": "attache", "metadata": { "attache": config } } } },
        { "@type": format!("{TYPE}.ClustersConfigDump"), "static_clusters": clusters },
        { "@type": format!("{TYPE}.ListenersConfigDump"), "static_listeners": listeners },
    ] })
}

/// Answers `POST /logging?level=debug`. Without a level it returns the present one.
fn logging(api: &AdminApi, asked: Option<&str>) -> AdminAnswer {
    let pairs = query::pairs(asked).unwrap_or_default();
    if let Some((_, level)) = pairs.iter().find(|(key, _)| key == "level") {
        let level = match level.as_str() {
            "warning" => "warn",
            "critical" => "error",
            other => other,
        };
        let answer = set_level(api.log.as_ref(), Some(&format!("level={level}")));
        if answer.status() != StatusCode::OK {
            return answer;
        }
    } else if !pairs.is_empty() {
        return text(
            StatusCode::BAD_REQUEST,
            "levels of single loggers are a filter here: POST /log?level=info,attache_upstream=debug\n",
        );
    }
    match &api.log {
        Some(log) => text(StatusCode::OK, format!("active loggers:\n  attache: {}\n", log.get())),
        None => text(StatusCode::NOT_FOUND, "the log belongs to the program that this proxy is part of\n"),
    }
}
