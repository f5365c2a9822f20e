//! Envoy's statistics under Envoy's names: `cluster.orders.upstream_rq_total: 7`.
//!
//! They are made from the metrics page with Envoy's series. Histograms are only on that page.

use std::{collections::BTreeMap, fmt::Write as _};

use http::StatusCode;
use regex::Regex;
use serde_json::json;

use crate::{
    answer::{AdminAnswer, json as as_json, text},
    query,
};

/// Envoy's scopes, by the prefixes of names in Prometheus' text.
const SCOPES: &[(&str, &str)] = &[
    ("envoy_cluster_", "cluster"),
    ("envoy_http_", "http"),
    ("envoy_listener_", "listener"),
    ("envoy_tcp_", "tcp"),
    ("envoy_server_", "server"),
];

/// The answer to `/stats`, with `filter` (a regular expression that may match any part of a name), `usedonly` and `format=json`.
pub(super) fn answer(page: &str, asked: Option<&str>) -> AdminAnswer {
    let pairs = query::pairs(asked).unwrap_or_default();
    let value = |key: &str| pairs.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
    let filter = match value("filter").map(Regex::new).transpose() {
        Ok(filter) => filter,
        Err(error) => return text(StatusCode::BAD_REQUEST, format!("Invalid regex: \"{error}\"\n")),
    };
    let used_only = value("usedonly").is_some();
    let mut all = stats(page);
    all.retain(|name, value| {
        filter.as_ref().is_none_or(|filter| filter.is_match(name)) && (*value > 0 || !used_only)
    });
    if value("format") == Some("json") {
        let all: Vec<_> = all.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
        return as_json(&json!({ "stats": all }));
    }
    let mut out = String::new();
    for (name, value) in all {
        // Writing to a String never fails.
        let _ = writeln!(out, "{name}: {value}");
    }
    text(StatusCode::OK, out)
}

/// The counters and gauges of a page, by Envoy's names.
fn stats(page: &str) -> BTreeMap<String, u64> {
    let mut out = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with("envoy_")) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        // On this page, gauges are whole numbers.
        let Ok(value) = value.parse::<f64>() else { continue };
        let Some((start, scope)) = SCOPES.iter().find(|(start, _)| name.starts_with(start)) else { continue };
        let label = |wanted: &str| {
            // Names in the config and statuses need no escapes.
            labels
                .split(',')
                .find_map(|pair| pair.strip_prefix(wanted)?.strip_prefix("=\""))
                .map(|rest| rest.trim_end_matches(['"', '}']))
        };
        if label("le").is_some() || name.ends_with("_sum") || name.ends_with("_count") {
            continue;
        }
        let mut own = name[start.len()..].to_owned();
        if let Some(class) = label("envoy_response_code_class") {
            own = format!("{}_{class}xx", own.trim_end_matches("_xx"));
        } else if let Some(code) = label("envoy_response_code") {
            own = format!("{own}_{code}");
        }
        let which = [
            "envoy_cluster_name",
            "envoy_http_conn_manager_prefix",
            "envoy_listener_address",
            "envoy_tcp_prefix",
        ];
        let name = match which.iter().find_map(|name| label(name)) {
            Some(which) => format!("{scope}.{which}.{own}"),
            None => format!("{scope}.{own}"),
        };
        *out.entry(name).or_insert(0) += value.max(0.0).round() as u64;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# TYPE envoy_cluster_upstream_rq_total counter
envoy_cluster_upstream_rq_total{envoy_cluster_name=\"orders.shop\"} 7
envoy_cluster_upstream_rq_xx{envoy_cluster_name=\"orders.shop\",envoy_response_code_class=\"2\"} 6
envoy_cluster_upstream_rq{envoy_cluster_name=\"orders.shop\",envoy_response_code=\"200\"} 6
envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name=\"orders.shop\",le=\"+Inf\"} 7
envoy_cluster_upstream_rq_time_sum{envoy_cluster_name=\"orders.shop\"} 7
envoy_http_downstream_cx_active{envoy_http_conn_manager_prefix=\"out\"} 0
envoy_server_live 1
attache_requests_total{listener=\"out\"} 7
";

    #[test]
    fn series_have_the_names_that_envoy_gives_them() {
        let all: Vec<_> = stats(PAGE).into_iter().collect();
        let all: Vec<_> = all.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        assert_eq!(
            all,
            [
                ("cluster.orders.shop.upstream_rq_200", 6),
                ("cluster.orders.shop.upstream_rq_2xx", 6),
                ("cluster.orders.shop.upstream_rq_total", 7),
                ("http.out.downstream_cx_active", 0),
                ("server.live", 1),
            ]
        );
    }

    #[test]
    fn filter_and_usedonly_select_series() {
        let body = |asked: &str| answer(PAGE, Some(asked)).into_body();
        assert_eq!(body("filter=downstream"), "http.out.downstream_cx_active: 0\n");
        assert_eq!(body("filter=downstream&usedonly"), "");
        assert_eq!(body("filter=%5Eserver%5C."), "server.live: 1\n");
        let all: serde_json::Value = serde_json::from_str(&body("format=json&usedonly")).unwrap_or_default();
        assert_eq!(all["stats"].as_array().map(Vec::len), Some(4), "{all}");
        assert_eq!(answer(PAGE, Some("filter=(")).status(), StatusCode::BAD_REQUEST);
    }
}
