//! The problems that `attache status` reports.

use std::{fmt::Write as _, net::SocketAddr};

use serde_json::Value;

use super::{
    failing::{failing, fails_in_a_row},
    text::{clean, field, list, span},
};

/// If a certificate expires sooner than this, in seconds, that is a problem.
const EXPIRES_SOON: u64 = 24 * 3600;

/// One line for each problem; outages of callers come first. Also returns the groups of failures whose cause is in
/// these lines.
pub(super) fn troubles(seen: &Value) -> (Vec<String>, Vec<&Value>) {
    let (mut troubles, told) = failing(seen);
    for why in list(&seen["stats"], "not_ready") {
        troubles.push(format!("not ready: {}", why.as_str().unwrap_or_default()));
    }
    for upstream in seen["upstreams"].as_array().into_iter().flatten() {
        of_upstream(upstream, &told, &mut troubles);
    }
    troubles.extend(list(&seen["certificates"], "certificates").iter().filter_map(expiring));
    for what in list(&seen["stats"], "degraded") {
        troubles.push(clean(what.as_str().unwrap_or_default(), 400));
    }
    troubles.extend(refused_reload(seen));
    (troubles, told)
}

/// `told`: the groups of failures that are reported already.
fn of_upstream(upstream: &Value, told: &[&Value], troubles: &mut Vec<String>) {
    let name = field(upstream, "name");
    // If calls fail because of a state, the line about the calls is enough.
    let is_told = |reason: &str| {
        !reason.is_empty()
            && told.iter().any(|group| field(group, "upstream") == name && field(group, "reason") == reason)
    };
    if field(&upstream["breaker"], "state") == "open" {
        let why = field(&upstream["breaker"], "because");
        troubles.push(format!("upstream {name}: its breaker is open ({why})"));
    }
    if upstream["usable"] == 0 && field(upstream, "kind") != "on-demand" {
        let why = field(upstream, "no_endpoint_because");
        if !is_told(why) {
            let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
            troubles.push(format!("upstream {name}: no endpoint can be used{why}"));
        }
    }
    of_endpoints(upstream, told, troubles);
    for lookup in list(upstream, "dns") {
        let reason = field(&lookup["failure"], "reason");
        if !reason.is_empty() && !is_told(reason) {
            let detail = clean(field(&lookup["failure"], "detail"), 200);
            let detail = if detail.is_empty() { detail } else { format!(" ({detail})") };
            let serving = if upstream["usable"].as_u64().is_some_and(|usable| usable > 0) {
                "; the endpoints of the last good answer stay in use"
            } else {
                ""
            };
            troubles.push(format!(
                "upstream {name}: looking up {} fails: {reason}{detail}{serving}. {}",
                field(lookup, "name"),
                field(&lookup["failure"], "what_to_do")
            ));
        }
    }
}

fn of_endpoints(upstream: &Value, told: &[&Value], troubles: &mut Vec<String>) {
    let name = field(upstream, "name");
    let is_outage = told.iter().any(|group| field(group, "upstream") == name);
    for endpoint in list(upstream, "endpoints") {
        let (address, state) = (field(endpoint, "address"), field(endpoint, "state"));
        if state == "unreachable" && has_healthy_twin(upstream, address) {
            continue;
        }
        if state == "healthy" {
            if fails_in_a_row(endpoint) && !is_outage {
                troubles.push(in_a_row(name, endpoint));
            }
            continue;
        }
        let why = field(endpoint, "state_because");
        let why = if why.is_empty() { String::new() } else { format!(": {}", clean(why, 80)) };
        let what = match state {
            "unhealthy" => "; send the same request as `health_check` to the endpoint, with `curl`",
            _ => "",
        };
        troubles.push(format!("upstream {name}: endpoint {address} is {state}{why}{what}"));
    }
    // If requests name the hosts, one failing host is an outage for its callers, even if calls to other hosts succeed.
    let hosts = list(upstream, "hosts").iter().flat_map(|host| list(host, "endpoints"));
    for endpoint in hosts.filter(|endpoint| fails_in_a_row(endpoint) && !is_outage) {
        troubles.push(in_a_row(name, endpoint));
    }
}

/// A certificate that expires soon.
fn expiring(certificate: &Value) -> Option<String> {
    let left = certificate["expires_in_seconds"].as_u64().unwrap_or(0);
    if left >= EXPIRES_SOON {
        return None;
    }
    let (side, name) = (field(certificate, "side"), field(certificate, "name"));
    let when = if left == 0 { "has expired".to_owned() } else { format!("expires in {}", span(left)) };
    let file = field(certificate, "file");
    let file = if file.is_empty() { String::new() } else { format!(" ({file})") };
    Some(format!("{side} {name}: its certificate{file} {when}: renew it"))
}

/// The last reload, if it was refused.
fn refused_reload(seen: &Value) -> Option<String> {
    let last = seen["reloads"].as_array()?.first()?;
    if last["ok"] != false {
        return None;
    }
    let mut trouble = "the config file was refused, and the last good one stays in use:".to_owned();
    for line in field(last, "error").lines().filter(|line| !line.trim().is_empty()).take(12) {
        let _ = write!(trouble, "\n    {}", clean(line, 200));
    }
    Some(trouble)
}

fn in_a_row(upstream: &str, endpoint: &Value) -> String {
    let last = &endpoint["last_failure"];
    format!(
        "upstream {upstream}: endpoint {} failed {} times in a row, the last time {} ago: {}",
        field(endpoint, "address"),
        endpoint["ejection"]["failures_in_a_row"],
        span(last["ago_seconds"].as_u64().unwrap_or(0)),
        field(last, "reason")
    )
}

/// `localhost` has an IPv6 address and an IPv4 address, and a server often listens on only one of them. So the upstream can still be
/// reached.
fn has_healthy_twin(upstream: &Value, address: &str) -> bool {
    let loopback = |address: &str| address.parse::<SocketAddr>().ok().filter(|at| at.ip().is_loopback());
    let Some(own) = loopback(address) else { return false };
    list(upstream, "endpoints").iter().any(|endpoint| {
        field(endpoint, "state") == "healthy"
            && loopback(field(endpoint, "address"))
                .is_some_and(|other| other.port() == own.port() && other.is_ipv4() != own.is_ipv4())
    })
}
