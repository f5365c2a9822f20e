//! Lines for [`status`](super::status) about calls that fail for their callers.

use serde_json::Value;

use super::{
    recent::cause,
    text::{field, list},
};

/// Whether callers of this row (a listener, a route, an upstream) have an outage now. The server's `metrics/outage.rs` has the rule.
pub(super) fn is_outage(row: &Value) -> bool {
    !row["outage"].is_null()
}

/// Whether every attempt at this endpoint has failed lately. No caller sees this if the calls are copies of requests, or if retries succeed
/// elsewhere.
pub(super) fn fails_in_a_row(endpoint: &Value) -> bool {
    /// So many failures without a success between them are not chance.
    const IN_A_ROW: u64 = 3;
    /// After so many seconds the last failure says nothing about now.
    const RECENT_SECONDS: u64 = 300;
    let ago = endpoint["last_failure"]["ago_seconds"].as_u64().unwrap_or(u64::MAX);
    endpoint["ejection"]["failures_in_a_row"].as_u64().unwrap_or(0) >= IN_A_ROW && ago <= RECENT_SECONDS
}

/// One line for each upstream, and for each listener and route whose failures no earlier line explains. Also returns the groups of failures
/// whose cause is in these lines.
pub(super) fn failing(seen: &Value) -> (Vec<String>, Vec<&Value>) {
    let groups = seen["failures"].as_array().map_or(&[][..], Vec::as_slice);
    let (mut lines, mut told): (Vec<String>, Vec<&Value>) = (Vec::new(), Vec::new());
    for (key, what) in [("upstreams", "upstream"), ("listeners", "listener"), ("routes", "route")] {
        for row in list(&seen["stats"], key).iter().filter(|row| is_outage(row)) {
            let name = field(row, what);
            // A group belongs to an upstream or a listener; for a route, only its last failure shows the cause.
            let is_mine = |group: &&Value| match what {
                "route" => field(&group["sample"], "route") == name,
                _ => field(group, what) == name,
            };
            // If all responses are a 4xx, earlier failures don't explain them.
            let by_answers = row["outage"]["client_errors"].as_u64().is_some_and(|count| count > 0);
            let explains = |group: &&Value| {
                !by_answers || group["status"].as_u64().is_some_and(|status| (400..500).contains(&status))
            };
            let worst = groups
                .iter()
                .filter(is_mine)
                .filter(explains)
                .max_by_key(|group| (group["failing"] == true, group["count"].as_u64().unwrap_or(0)));
            match worst {
                Some(worst) if !told.iter().any(|told| std::ptr::eq(*told, worst)) => {
                    lines.push(format!("{what} {name}: {}: {}", calls(&row["outage"]), cause(worst)));
                    told.push(worst);
                }
                // Clients that leave are not in a group.
                None if what == "upstream" => {
                    lines.push(format!("{what} {name}: {}", calls(&row["outage"])));
                }
                _ => {}
            }
        }
    }
    // A missing route is answered with a 4xx. That is no failure of the service, but it is one for the caller.
    for group in
        groups.iter().filter(|group| group["failing"] == true && field(group, "reason") == "no-route")
    {
        if told.iter().any(|told| std::ptr::eq(*told, group)) {
            continue;
        }
        lines.push(format!(
            "listener {}: {} found no route: {}",
            field(group, "listener"),
            if group["count"] == 1 { "a call".to_owned() } else { format!("{} calls", group["count"]) },
            cause(group)
        ));
        told.push(group);
    }
    (lines, told)
}

/// What happened to the calls of the outage.
fn calls(outage: &Value) -> String {
    let number = |key: &str| outage[key].as_u64().unwrap_or(0);
    let (requests, failed, window) = (number("requests"), number("failed"), field(outage, "window"));
    let waited = number("waited");
    if waited > failed {
        let whose = match requests {
            1 => "the only call".to_owned(),
            _ if waited == requests => format!("each of {requests} calls"),
            _ => format!("{waited} of {requests} calls"),
        };
        return format!("the client of {whose} waited and left without an answer in the last {window}");
    }
    if failed > 0 {
        let calls = match requests {
            1 => "the only call".to_owned(),
            _ => format!("{:.0} % of {requests} calls", failed as f64 / requests.max(1) as f64 * 100.0),
        };
        return format!("{calls} failed in the last {window}");
    }
    if number("client_errors") > 0 {
        return format!("each of {requests} answers was the upstream's own 4xx in the last {window}");
    }
    if number("refused") > 0 {
        return format!("each of {requests} calls was refused in the last {window}");
    }
    format!(
        "the client of each of {requests} calls left before there was an answer in the last {window}: the upstream is slower than \
         their timeouts; look at it, and compare their timeouts with the route's"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn outage(requests: u64, failed: u64, refused: u64, window: &str) -> Value {
        let given_up = requests - failed - refused;
        json!({ "requests": requests, "failed": failed, "refused": refused, "given_up": given_up, "window": window })
    }

    #[test]
    fn an_outage_of_a_route_is_shown_beside_a_healthy_upstream() {
        let seen = json!({
            "stats": {
                "upstreams": [{ "upstream": "orders", "outage": null }],
                "listeners": [{ "listener": "out", "outage": null }],
                "routes": [{ "listener": "out", "route": "out/0", "outage": null },
                           { "listener": "out", "route": "out/pay", "outage": outage(3, 3, 0, "3 min") }],
            },
            "failures": [{ "upstream": "orders", "listener": null, "cause": "status 500", "status": 500, "reason": null, "count": 3,
                "failing": false, "sample": { "route": "out/pay", "endpoint": "10.0.0.8:80", "detail": "" } }],
        });
        let (lines, told) = failing(&seen);
        assert_eq!(
            lines,
            [
                "route out/pay: 100 % of 3 calls failed in the last 3 min: status 500 at 10.0.0.8:80. The service itself answered so: look \
              at its log."
            ]
        );
        assert_eq!(told.len(), 1);
    }

    #[test]
    fn the_cause_of_an_upstream_is_not_repeated_for_its_listener_and_route() {
        let total = || outage(50, 50, 0, "10 s");
        let seen = json!({
            "stats": {
                "upstreams": [{ "upstream": "orders", "outage": total() }],
                "listeners": [{ "listener": "out", "outage": total() }],
                "routes": [{ "listener": "out", "route": "out/0", "outage": total() }],
            },
            "failures": [{ "upstream": "orders", "listener": null, "cause": "connect-refused", "reason": "connect-refused", "count": 50,
                "failing": true, "sample": { "route": "out/0" } }],
        });
        assert_eq!(
            failing(&seen).0,
            ["upstream orders: 100 % of 50 calls failed in the last 10 s: connect-refused"]
        );
    }

    #[test]
    fn calls_that_are_all_refused_or_given_up_are_an_outage() {
        let seen = json!({
            "stats": {
                "upstreams": [{ "upstream": "slow", "outage": outage(5, 0, 0, "5 min") }],
                "listeners": [{ "listener": "in", "outage": outage(9, 0, 9, "5 min") }],
            },
            "failures": [{ "upstream": null, "listener": "in", "cause": "denied-by-rule", "reason": "denied-by-rule", "count": 9,
                "failing": true, "sample": { "detail": "no rule allows it" } }],
        });
        let lines = failing(&seen).0;
        assert!(
            lines[0]
                .starts_with("upstream slow: the client of each of 5 calls left before there was an answer"),
            "{lines:?}"
        );
        assert_eq!(
            lines[1],
            "listener in: each of 9 calls was refused in the last 5 min: denied-by-rule (no rule allows it)"
        );
    }
}
