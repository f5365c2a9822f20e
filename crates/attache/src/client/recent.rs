//! Lines for [`status`](super::status) about the recent past: failures, changes of state, and the log's warnings.

use serde_json::Value;

use super::text::{clean, field, span};

/// The cause of a kind of failure, and what to check.
pub(super) fn cause(group: &Value) -> String {
    let sample = &group["sample"];
    let detail = clean(field(sample, "detail"), 200);
    let detail = if detail.is_empty() { String::new() } else { format!(" ({detail})") };
    let endpoint =
        sample["endpoint"].as_str().map_or_else(String::new, |at| format!(" at {}", clean(at, 60)));
    let todo = match field(group, "what_to_do") {
        // Without a reason, the response came from the service itself.
        "" if group["status"].as_u64().is_some() => "The service itself answered so: look at its log.",
        todo => todo,
    };
    let todo = if todo.is_empty() { String::new() } else { format!(". {todo}") };
    format!("{}{endpoint}{detail}{todo}", field(group, "cause"))
}

/// One line for each kind of failure of the last minutes, with its cause. This includes calls that were refused because of the client,
/// which are no problem of this attache, and few failures among many successes. The causes of the groups in `told` are already shown above.
pub(super) fn recent_failures(seen: &Value, told: &[&Value]) -> Vec<String> {
    const RECENT_SECONDS: u64 = 300;
    const MAX_ROWS: usize = 12;
    let groups = seen["failures"].as_array().map_or(&[][..], Vec::as_slice);
    let ago = |group: &Value| group["last_ago_seconds"].as_u64().unwrap_or(u64::MAX);
    let lately: Vec<_> = groups.iter().filter(|group| ago(group) <= RECENT_SECONDS).collect();
    let mut lines: Vec<String> = lately
        .iter()
        .take(MAX_ROWS)
        .map(|group| {
            let (upstream, listener) = (field(group, "upstream"), field(group, "listener"));
            let whose = if upstream.is_empty() {
                format!("listener {listener}")
            } else {
                format!("upstream {upstream}")
            };
            let sample = &group["sample"];
            let request = match field(sample, "method") {
                "" => format!("{} connection", field(sample, "protocol")),
                method => clean(&format!("{method} {}{}", field(sample, "host"), field(sample, "path")), 80),
            };
            format!(
                "{whose}: {} in all, {} ago, {request}: {}",
                group["count"],
                span(ago(group)),
                if told.iter().any(|told| std::ptr::eq(*told, *group)) {
                    format!("{}, as said above", field(group, "cause"))
                } else {
                    cause(group)
                }
            )
        })
        .collect();
    if lately.len() > MAX_ROWS {
        lines.push(format!("and {} more kinds: `GET /failures`", lately.len() - MAX_ROWS));
    }
    lines
}

/// One line for each change of state of the last quarter of an hour. Kinds of failures have a separate list.
pub(super) fn recent_changes(seen: &Value) -> Vec<String> {
    const RECENT_SECONDS: u64 = 900;
    const MAX_ROWS: usize = 8;
    let ago = |event: &Value| event["last_ago_seconds"].as_u64().unwrap_or(u64::MAX);
    let events = seen["events"].as_array().map_or(&[][..], Vec::as_slice);
    let lately: Vec<_> = events
        .iter()
        .filter(|event| ago(event) <= RECENT_SECONDS && field(event, "kind") != "failures")
        .collect();
    let mut lines: Vec<String> = lately
        .iter()
        .take(MAX_ROWS)
        .map(|event| {
            let whose = match (field(event, "whose"), field(event, "endpoint")) {
                ("", _) => "this attache".to_owned(),
                (whose, "") => whose.to_owned(),
                (whose, endpoint) => format!("{whose}, endpoint {endpoint}"),
            };
            let because = clean(field(event, "because"), 120);
            let because = if because.is_empty() { because } else { format!(" ({because})") };
            let times = match event["count"].as_u64() {
                Some(count) if count > 1 => format!(", {count} times"),
                _ => String::new(),
            };
            format!(
                "{whose}: {} {}{because}, {} ago{times}",
                field(event, "kind"),
                field(event, "what"),
                span(ago(event))
            )
        })
        .collect();
    if lately.len() > MAX_ROWS {
        lines.push(format!("and {} more changes: `GET /events`", lately.len() - MAX_ROWS));
    }
    lines
}

/// One line for each of the log's warnings of the last day, without those that another list shows.
pub(super) fn recent_warnings(seen: &Value) -> Vec<String> {
    const RECENT_SECONDS: u64 = 24 * 3600;
    const MAX_ROWS: usize = 6;
    const SAID: &[&str] = &[
        "attache_telemetry::outages",
        "attache_upstream::outlier",
        "attache_upstream::circuit",
        "attache_upstream::health",
        "attache::proxy::reload",
    ];
    let ago = |warning: &Value| warning["last_ago_seconds"].as_u64().unwrap_or(u64::MAX);
    let warnings = seen["warnings"].as_array().map_or(&[][..], Vec::as_slice);
    warnings
        .iter()
        .filter(|warning| ago(warning) <= RECENT_SECONDS)
        .filter(|warning| !SAID.iter().any(|target| field(warning, "target").starts_with(target)))
        .take(MAX_ROWS)
        .map(|warning| {
            let times = match warning["count"].as_u64() {
                Some(count) if count > 1 => format!(", {count} times"),
                _ => String::new(),
            };
            let text: Vec<_> = field(warning, "text").lines().map(str::trim).collect();
            format!("{} ago{times}: {}", span(ago(warning)), clean(&text.join(" "), 300))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn recent_changes_are_shown_with_endpoint_and_reason() {
        let seen = json!({ "events": [
            { "kind": "ejection", "whose": "upstream orders", "endpoint": "10.0.0.9:80", "what": "ejected", "count": 3,
              "because": "5 failures in a row, the last: 502", "last_ago_seconds": 12 },
            { "kind": "failures", "whose": "upstream orders", "what": "calls fail: 502", "count": 1, "last_ago_seconds": 12 },
            { "kind": "config", "whose": "", "endpoint": null, "what": "loaded", "because": "", "count": 1, "last_ago_seconds": 61 },
            { "kind": "config", "whose": "", "what": "loaded", "count": 1, "last_ago_seconds": 901 },
        ] });
        assert_eq!(
            recent_changes(&seen),
            [
                "upstream orders, endpoint 10.0.0.9:80: ejection ejected (5 failures in a row, the last: 502), 12s ago, 3 times",
                "this attache: config loaded, 1m 1s ago"
            ]
        );
    }

    #[test]
    fn warnings_are_one_line_each_without_those_of_another_list() {
        let seen = json!({ "warnings": [
            { "target": "attache_telemetry::access_log::writer", "text": "the access log can't be written error=No space", "count": 1, "last_ago_seconds": 7200 },
            { "target": "attache_upstream::outlier", "text": "endpoint ejected", "count": 1, "last_ago_seconds": 1 },
            { "target": "attache_tls::live", "text": "changed files:\n  web.crt: no PEM", "count": 2, "last_ago_seconds": 3 },
            { "target": "attache::run", "text": "old", "count": 1, "last_ago_seconds": 90_000 },
        ] });
        assert_eq!(
            recent_warnings(&seen),
            [
                "2h ago: the access log can't be written error=No space",
                "3s ago, 2 times: changed files: web.crt: no PEM"
            ]
        );
    }
}
