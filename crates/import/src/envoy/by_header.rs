//! Routes whose cluster a header of the request names (`cluster_header`).

use crate::plan::PlannedRule;
use crate::tree::Node;

use super::{EnvoyImport, cluster, filters, subsets};

/// Lets the header of the request name the upstream. False if the route must be refused.
pub(super) fn named(action: &Node, header: &str, rule: &mut PlannedRule, cx: &mut EnvoyImport) -> bool {
    if header.starts_with(':') || action.get("metadata_match").is_some() {
        rule.refuse(&action.at, format!("this route is refused: `{header}` chose the cluster, and its value has more than a name. Write a route for each cluster; then replace the refusal."));
        return false;
    }
    let header = header.to_ascii_lowercase();
    let mut names = Vec::new();
    for cluster in cx.clusters.clone() {
        let Some(name) = cluster.str("name") else { continue };
        if !subsets::is_whole(&cluster)
            || filters::deciding(cluster::http_options(&cluster).list("http_filters")).is_some()
        {
            rule.remarks.point(
                &cluster.at,
                format!("requests whose `{header}` is `{name}` are refused: this cluster has subsets, or its own filters."),
            );
            continue;
        }
        let upstream = cluster::used(name, cluster::ClusterUse::Http, cx);
        if upstream == name {
            names.push(upstream);
        } else {
            rule.remarks.point(
                &cluster.at,
                format!(
                    "requests whose `{header}` is `{name}` are refused, because the name of this upstream is now `{upstream}`."
                ),
            );
        }
    }
    if names.is_empty() {
        rule.refuse(
            &action.at,
            "this route is refused: a header chose the cluster, and no cluster could be carried over for it.",
        );
        return false;
    }
    rule.keys.set("to", names.clone());
    rule.keys.set("upstream_header", header.as_str());
    if rule.when.headers.iter().all(|(name, _)| *name != header) {
        // A request whose header names no cluster goes to the next rule, which answers as Envoy did.
        let names: Vec<String> = names.iter().map(|name| regex::escape(name)).collect();
        rule.when.headers.push((header, format!("~(?:{})", names.join("|"))));
    } else if unnamed(action) != 404 {
        rule.remarks.point(
            &action.at,
            format!("a request without the name of a cluster is answered 404, and not {}.", unnamed(action)),
        );
    }
    rule.targets = names;
    true
}

/// The status for a request whose header names no existing cluster.
pub(super) fn unnamed(action: &Node) -> u64 {
    match action.str("cluster_not_found_response_code") {
        Some("NOT_FOUND" | "1") => 404,
        Some("INTERNAL_SERVER_ERROR" | "2") => 500,
        _ => 503,
    }
}
