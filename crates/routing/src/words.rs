//! The words of `explain`.

use std::time::Duration;

use attache_config::model::{
    AddressMatch, Fault, HeaderEdits, HostName, HostPattern, OnUnhealthy, PathPattern, Policy, Retry,
    RetryMethods, Segment, Upstream,
};

pub(crate) fn percent(ratio: f64) -> String {
    // 33.3 %, but 50 % without `.0`.
    format!("{} %", (ratio * 1000.0).round() / 10.0)
}

pub(crate) fn show_timeouts(policy: &Policy) -> String {
    let timeouts = &policy.timeouts;
    let request = if timeouts.whole { "request" } else { "answer's head" };
    let named = [
        (request, timeouts.request),
        ("each attempt", policy.retry.per_try_timeout),
        ("idle", timeouts.idle),
    ];
    let set = named.iter().filter(|(_, time)| !time.is_zero());
    let parts: Vec<_> = set.map(|(name, time)| format!("{name} {}", show_duration(*time))).collect();
    if parts.is_empty() { "none".into() } else { parts.join(", ") }
}

/// A duration as the config writes it: `5m`, `1h`, `250ms`.
fn show_duration(time: Duration) -> String {
    match (time.as_secs(), time.subsec_nanos()) {
        (seconds, 0) if seconds >= 3600 && seconds % 3600 == 0 => format!("{}h", seconds / 3600),
        (seconds, 0) if seconds >= 60 && seconds % 60 == 0 => format!("{}m", seconds / 60),
        _ => format!("{time:?}"),
    }
}

pub(crate) fn show_retries(retry: &Retry) -> String {
    if retry.attempts == 0 {
        return "off".into();
    }
    let on: Vec<_> = retry.on.iter().map(ToString::to_string).collect();
    let methods = match retry.methods {
        RetryMethods::Idempotent => "idempotent methods",
        RetryMethods::All => "all methods",
    };
    let times = if retry.attempts == 1 { "once".into() } else { format!("up to {} times", retry.attempts) };
    let hedge =
        retry.hedge.as_ref().map(|hedge| format!(", hedged after {}", hedge.after)).unwrap_or_default();
    format!("{times} on {} ({methods}, budget {}){hedge}", on.join(", "), percent(retry.budget))
}

/// Adaptive concurrency and the queue; empty if neither is on.
pub(crate) fn show_admission(upstream: &Upstream) -> String {
    let adaptive = upstream.adaptive_concurrency.as_ref().map(|adaptive| {
        let lowest = adaptive.min_rtt.min_concurrency;
        format!("{lowest} to {} at once, by latency", adaptive.max_concurrency_limit)
    });
    let queue = upstream.queue.as_ref().map(|queue| {
        let (interval, target) = (show_duration(queue.interval), show_duration(queue.target));
        format!(
            "up to {} wait for {interval}, or {target} in a standing queue, by `{}`",
            queue.max, queue.priority_header
        )
    });
    let parts: Vec<_> = adaptive.into_iter().chain(queue).collect();
    parts.join("; ")
}

/// Header changes as the config says them.
pub fn show_edits(edits: &HeaderEdits) -> Vec<String> {
    let remove = edits.remove.iter().map(|name| format!("remove {name}"));
    let set = edits.set.iter().map(|(name, value)| format!("set {name}: {value}"));
    let add = edits.add.iter().map(|(name, value)| format!("add {name}: {value}"));
    remove.chain(set).chain(add).collect()
}

/// What happens to the connections to an endpoint that turns unhealthy (`on_unhealthy`); empty if no endpoint can turn
/// unhealthy.
pub(crate) fn show_unhealthy(upstream: &Upstream) -> &'static str {
    match upstream.on_unhealthy {
        OnUnhealthy::Close => {
            "idle connections are closed, tunnels and opaque connections are reset (`on_unhealthy: close`)"
        }
        OnUnhealthy::Keep if upstream.health_check.is_some() => {
            "open connections stay, only new calls go elsewhere (`on_unhealthy: keep`)"
        }
        OnUnhealthy::Keep => "",
    }
}

pub(crate) fn show_fault(fault: &Fault) -> String {
    let share = |share: f64| if share < 1.0 { format!(" {} of", percent(share)) } else { String::new() };
    let mut parts = Vec::new();
    if let Some(delay) = &fault.delay {
        parts.push(format!("delays{} them by {}", share(delay.share), show_duration(delay.time)));
    }
    if let Some(abort) = &fault.abort {
        parts.push(format!("answers{} them with {}", share(abort.share), abort.status.as_u16()));
    }
    if let Some(rate) = &fault.response_rate {
        parts.push(format!("slows{} their responses to {} bytes a second", share(rate.share), rate.limit));
    }
    let which = match &fault.header {
        None => String::new(),
        Some((name, None)) => format!(", of requests with {name},"),
        Some((name, Some(value))) => format!(", of requests with {name}: {value},"),
    };
    format!("a fault{which} {}", parts.join(", "))
}

pub(crate) fn show_host(pattern: &HostPattern) -> String {
    let name = match &pattern.name {
        HostName::Any => "*".into(),
        HostName::Exact(name) => name.to_string(),
        HostName::Suffix(suffix) => format!("*{suffix}"),
        HostName::Prefix(prefix) => format!("{prefix}*"),
    };
    match pattern.port {
        Some(port) => format!("`{name}:{port}`"),
        None => format!("`{name}`"),
    }
}

pub(crate) fn show_range(range: &AddressMatch) -> String {
    match range.port {
        Some(port) => format!("{}/{} port {port}", range.network, range.prefix),
        None => format!("{}/{}", range.network, range.prefix),
    }
}

pub(crate) fn show_path(pattern: &PathPattern) -> String {
    match pattern {
        PathPattern::Exact(path) => format!("`{path}`"),
        PathPattern::Prefix(prefix) => format!("`{}/*`", prefix.strip_suffix('/').unwrap_or(prefix)),
        PathPattern::Regex(regex) => format!("`~{regex}`"),
        PathPattern::Template(segments) => {
            let segment = |segment: &Segment| match segment {
                Segment::Literal(text) => format!("/{text}"),
                Segment::Capture(name) => format!("/{{{name}}}"),
                Segment::Rest(name) => format!("/{{{name}...}}"),
            };
            format!("`{}`", segments.iter().map(segment).collect::<String>())
        }
    }
}
