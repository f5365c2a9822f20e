//! `attache status`: the state of attache on one screen. Its exit code is for scripts: 0 all is well, 1 no answer, 2 something is wrong.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    net::SocketAddr,
    process::ExitCode,
};

use serde_json::{Value, json};

use super::{
    failing::{failing, fails_in_a_row, is_outage},
    http,
    recent::{recent_changes, recent_failures, recent_warnings},
    text::{Colour, Paint, clean, field, list, millis, percent, rate, span, success_colour, table},
};
use crate::cli;

/// The exit code if something is wrong.
const TROUBLE: u8 = 2;
/// If a certificate expires sooner than this, in seconds, that is a problem.
const EXPIRES_SOON: u64 = 24 * 3600;

pub(crate) fn status(options: &cli::Status) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let get = |path: &str| -> Result<Value, Box<dyn std::error::Error>> {
        Ok(serde_json::from_str(&http::fetch(&options.admin.admin, "GET", path)?)?)
    };
    let seen = json!({
        "stats": get("/stats.json")?,
        "upstreams": get("/upstreams")?,
        "listeners": get("/listeners")?,
        "certificates": get("/certificates")?,
        "reloads": get("/reloads")?,
        "failures": get("/failures")?["groups"],
        "events": get("/events")?,
        "warnings": get("/warnings")?,
    });
    let (troubles, told) = troubles(&seen);
    let mut out = io::stdout();
    if options.format.is_json() {
        let mut seen = seen;
        if let Some(seen) = seen.as_object_mut() {
            seen.insert("troubles".into(), troubles.clone().into());
        }
        writeln!(out, "{seen:#}")?;
    } else {
        out.write_all(page(&seen, &troubles, &told, Paint::stdout()).as_bytes())?;
    }
    Ok(if troubles.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(TROUBLE) })
}

/// One line for each problem; outages of callers come first. Also returns the groups of failures whose cause is in these lines.
fn troubles(seen: &Value) -> (Vec<String>, Vec<&Value>) {
    let (mut troubles, told) = failing(seen);
    for why in list(&seen["stats"], "not_ready") {
        troubles.push(format!("not ready: {}", why.as_str().unwrap_or_default()));
    }
    for upstream in seen["upstreams"].as_array().into_iter().flatten() {
        let name = field(upstream, "name");
        // If calls fail because of a state, the line about the calls is enough.
        let is_told = |reason: &str| {
            !reason.is_empty()
                && told
                    .iter()
                    .any(|group| field(group, "upstream") == name && field(group, "reason") == reason)
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
        for endpoint in list(upstream, "endpoints") {
            let (address, state) = (field(endpoint, "address"), field(endpoint, "state"));
            if state == "unreachable" && has_healthy_twin(upstream, address) {
                continue;
            }
            if state == "healthy" {
                let is_outage = told.iter().any(|group| field(group, "upstream") == name);
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
        let is_outage = told.iter().any(|group| field(group, "upstream") == name);
        for endpoint in hosts.filter(|endpoint| fails_in_a_row(endpoint) && !is_outage) {
            troubles.push(in_a_row(name, endpoint));
        }
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
    for certificate in list(&seen["certificates"], "certificates") {
        let left = certificate["expires_in_seconds"].as_u64().unwrap_or(0);
        if left < EXPIRES_SOON {
            let (side, name) = (field(certificate, "side"), field(certificate, "name"));
            let when =
                if left == 0 { "has expired".to_owned() } else { format!("expires in {}", span(left)) };
            let file = field(certificate, "file");
            let file = if file.is_empty() { String::new() } else { format!(" ({file})") };
            troubles.push(format!("{side} {name}: its certificate{file} {when}: renew it"));
        }
    }
    for what in list(&seen["stats"], "degraded") {
        troubles.push(clean(what.as_str().unwrap_or_default(), 400));
    }
    if let Some(last) = seen["reloads"].as_array().and_then(|all| all.first())
        && last["ok"] == false
    {
        let mut trouble = "the config file was refused, and the last good one stays in use:".to_owned();
        for line in field(last, "error").lines().filter(|line| !line.trim().is_empty()).take(12) {
            let _ = write!(trouble, "\n    {}", clean(line, 200));
        }
        troubles.push(trouble);
    }
    (troubles, told)
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

fn page(seen: &Value, troubles: &[String], told: &[&Value], paint: Paint) -> String {
    let stats = &seen["stats"];
    let lately = &stats["total"]["last_10s"];
    let ready = list(stats, "not_ready").is_empty();
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{} {}, up {}, {}",
        paint.colour(Colour::Bold, "attache"),
        field(stats, "version"),
        span(stats["uptime_seconds"].as_u64().unwrap_or(0)),
        if ready { paint.colour(Colour::Good, "ready") } else { paint.colour(Colour::Bad, "not ready") },
    );
    if !troubles.is_empty() {
        let _ = writeln!(out, "\n{}", paint.colour(Colour::Bad, "look at this first"));
        for trouble in troubles {
            let _ = writeln!(out, "  {trouble}");
        }
        out.push('\n');
    }
    let _ = writeln!(
        out,
        "{}, success {}, p50 {}, p90 {}, p99 {} (last 10 s)\n",
        rate(&lately["per_second"]),
        paint.colour(success_colour(&lately["success_rate"]), &percent(&lately["success_rate"])),
        millis(&lately["p50_ms"]),
        millis(&lately["p90_ms"]),
        millis(&lately["p99_ms"]),
    );
    let listeners = seen["listeners"].as_array().map_or(&[][..], Vec::as_slice);
    let rows: Vec<_> = listeners
        .iter()
        .map(|listener| {
            let at: Vec<_> = list(listener, "bind").iter().filter_map(Value::as_str).collect();
            vec![
                (Colour::Plain, field(listener, "name").to_owned()),
                (Colour::Plain, at.join(", ")),
                (Colour::Plain, listener["connections"]["open"].to_string()),
            ]
        })
        .collect();
    out.push_str(&table(&["listener", "at", "connections"], &rows, paint));
    out.push('\n');
    let upstreams = seen["upstreams"].as_array().map_or(&[][..], Vec::as_slice);
    let rows: Vec<_> = upstreams
        .iter()
        .map(|upstream| {
            let name = field(upstream, "name");
            let counted = list(stats, "upstreams").iter().find(|row| field(row, "upstream") == name);
            let lately = counted.map_or(&Value::Null, |row| &row["last_10s"]);
            let (usable, all) = (upstream["usable"].as_u64().unwrap_or(0), list(upstream, "endpoints").len());
            let breaker = field(&upstream["breaker"], "state");
            let fails = counted.is_some_and(is_outage);
            let endpoints = match field(upstream, "kind") {
                // If every call to an endpoint fails, it doesn't count as healthy, whatever the health check says.
                _ if fails => (Colour::Bad, format!("{usable}/{all} failing")),
                "on-demand" => (Colour::Plain, format!("{} hosts", list(upstream, "hosts").len())),
                _ if usable as usize == all && all > 0 => (Colour::Good, format!("{usable}/{all}")),
                _ if usable > 0 => (Colour::Warn, format!("{usable}/{all}")),
                _ => (Colour::Bad, format!("{usable}/{all}")),
            };
            vec![
                (Colour::Plain, name.to_owned()),
                endpoints,
                (Colour::Plain, rate(&lately["per_second"])),
                (success_colour(&lately["success_rate"]), percent(&lately["success_rate"])),
                (Colour::Plain, millis(&lately["p99_ms"])),
                (if breaker == "open" { Colour::Bad } else { Colour::Plain }, breaker.to_owned()),
            ]
        })
        .collect();
    out.push_str(&table(&["upstream", "endpoints", "requests", "success", "p99", "breaker"], &rows, paint));
    let failures = recent_failures(seen, told);
    if !failures.is_empty() {
        let _ = writeln!(out, "\n{}", paint.colour(Colour::Bold, "failed or refused in the last 5 min"));
        for line in failures {
            let _ = writeln!(out, "  {line}");
        }
    }
    let warnings = recent_warnings(seen);
    if !warnings.is_empty() {
        let _ = writeln!(out, "\n{}", paint.colour(Colour::Bold, "the log's last warnings"));
        for line in warnings {
            let _ = writeln!(out, "  {line}");
        }
    }
    let changes = recent_changes(seen);
    if !changes.is_empty() {
        let _ = writeln!(out, "\n{}", paint.colour(Colour::Bold, "changed in the last 15 min"));
        for line in changes {
            let _ = writeln!(out, "  {line}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen() -> Value {
        json!({
            "stats": {
                "version": "0.1.0", "uptime_seconds": 90_000, "not_ready": [],
                "total": { "last_10s": { "per_second": 812.4, "success_rate": 0.998, "p50_ms": 1.24, "p90_ms": 3.6, "p99_ms": 18.2 } },
                "upstreams": [{ "upstream": "orders", "last_10s": { "per_second": 812.4, "success_rate": 0.998, "p99_ms": 18.2 } }],
            },
            "listeners": [{ "name": "outbound", "bind": ["127.0.0.1:15001"], "connections": { "open": 12 } }],
            "upstreams": [{
                "name": "orders", "kind": "configured", "usable": 1, "breaker": { "state": "closed" },
                "endpoints": [
                    { "address": "10.0.0.8:80", "state": "healthy" },
                    { "address": "10.0.0.9:80", "state": "ejected", "state_because": "5 failures in a row, the last: 502" },
                ],
            }],
            "certificates": { "certificates": [
                { "side": "listener", "name": "inbound", "expires_in_seconds": 3600 },
            ] },
            "reloads": [],
        })
    }

    fn shown(seen: &Value) -> String {
        let (troubles, told) = troubles(seen);
        page(seen, &troubles, &told, Paint::none())
    }

    #[test]
    fn the_state_fits_on_one_screen() {
        let seen = seen();
        insta::assert_snapshot!(shown(&seen), @r"
        attache 0.1.0, up 1d 1h, ready

        look at this first
          upstream orders: endpoint 10.0.0.9:80 is ejected: 5 failures in a row, the last: 502
          listener inbound: its certificate expires in 1h: renew it

        812/s, success 99.80 %, p50 1.2 ms, p90 3.6 ms, p99 18 ms (last 10 s)

        listener               at  connections
        outbound  127.0.0.1:15001           12

        upstream  endpoints  requests  success    p99  breaker
        orders          1/2     812/s  99.80 %  18 ms   closed
        ");
    }

    #[test]
    fn a_total_outage_comes_first_and_is_a_problem_even_if_every_endpoint_is_healthy() {
        let mut seen = seen();
        seen["certificates"] = json!({});
        seen["stats"]["upstreams"] = json!([{ "upstream": "orders",
            "last_10s": { "requests": 50, "failed": 50, "per_second": 5.0, "success_rate": 0.0 },
            "outage": { "requests": 50, "failed": 50, "refused": 0, "given_up": 0, "window": "10 s" } }]);
        seen["upstreams"] = json!([{ "name": "orders", "kind": "configured", "usable": 1, "breaker": { "state": "off" },
            "endpoints": [{ "address": "127.0.0.1:1", "state": "healthy" }] }]);
        seen["failures"] = json!([{ "upstream": "orders", "cause": "connect-refused", "reason": "connect-refused", "count": 50,
            "failing": true, "last_ago_seconds": 1, "what_to_do": "Is the service running?",
            "sample": { "endpoint": "127.0.0.1:1", "detail": "Connection refused (os error 111)" } }]);
        let text = shown(&seen);
        let first = text.find(
            "look at this first\n  upstream orders: 100 % of 50 calls failed in the last 10 s: connect-refused at 127.0.0.1:1 \
             (Connection refused (os error 111)). Is the service running?\n",
        );
        assert!(first.is_some_and(|first| first < text.find("1/1 failing").unwrap_or(0)), "{text}");
        // The cause is shown once.
        assert!(
            text.ends_with(
                "upstream orders: 50 in all, 1s ago,  connection: connect-refused, as said above\n"
            ),
            "{text}"
        );
        assert_eq!(text.matches("Is the service running?").count(), 1, "{text}");
    }

    #[test]
    fn recent_refusals_are_shown_with_their_cause_and_are_no_problem() {
        let mut seen = seen();
        seen["certificates"] = json!({});
        seen["upstreams"] = json!([]);
        seen["failures"] = json!([
            { "listener": "inbound", "upstream": null, "cause": "denied-by-rule", "reason": "denied-by-rule", "count": 3,
              "last_ago_seconds": 4, "what_to_do": "The access log names the rule.",
              "sample": { "method": "GET", "host": "shop", "path": "/admin\u{1b}", "endpoint": null, "detail": "no rule allows it" } },
            { "listener": "inbound", "upstream": null, "cause": "bad-request", "count": 1, "last_ago_seconds": 301, "sample": {} },
        ]);
        assert!(troubles(&seen).0.is_empty());
        let text = shown(&seen);
        let line = "\nfailed or refused in the last 5 min\n  listener inbound: 3 in all, 4s ago, GET shop/admin\\u{1b}: denied-by-rule \
                    (no rule allows it). The access log names the rule.\n";
        assert!(text.ends_with(line), "{text}");
    }

    #[test]
    fn responses_that_are_all_4xx_are_a_problem_with_a_remedy() {
        let mut seen = seen();
        seen["certificates"] = json!({});
        seen["upstreams"] = json!([]);
        let outage = json!({ "requests": 7, "failed": 0, "refused": 0, "given_up": 0, "waited": 0, "client_errors": 7, "window": "20 s" });
        seen["stats"]["upstreams"] = json!([{ "upstream": "orders", "outage": outage }]);
        seen["failures"] = json!([{ "upstream": "orders", "reason": null, "status": 421, "cause": "status 421", "count": 7, "last_ago_seconds": 1,
            "what_to_do": "Set `host`.", "sample": { "endpoint": "10.0.0.8:80" } }]);
        assert_eq!(
            troubles(&seen).0,
            [
                "upstream orders: each of 7 answers was the upstream's own 4xx in the last 20 s: status 421 at 10.0.0.8:80. Set `host`."
            ]
        );
    }

    #[test]
    fn an_older_state_in_use_and_a_host_whose_calls_all_fail_are_problems() {
        let mut seen = seen();
        seen["certificates"] = json!({});
        seen["stats"]["degraded"] = json!(["the access log can't be written (No space left on device)"]);
        let endpoint = json!({ "address": "10.0.0.8:80", "state": "healthy", "ejection": { "failures_in_a_row": 4 },
            "last_failure": { "reason": "connect-refused", "ago_seconds": 2 } });
        seen["upstreams"] = json!([{ "name": "internet", "kind": "on-demand", "usable": 0, "breaker": {},
            "hosts": [{ "endpoints": [endpoint] }] }]);
        assert_eq!(
            troubles(&seen).0,
            [
                "upstream internet: endpoint 10.0.0.8:80 failed 4 times in a row, the last time 2s ago: connect-refused",
                "the access log can't be written (No space left on device)",
            ]
        );
    }

    #[test]
    fn a_server_on_one_of_the_two_addresses_of_localhost_is_no_problem() {
        let mut seen = seen();
        seen["certificates"] = json!({});
        let upstream = |state: &str, other: &str| {
            json!([{ "name": "orders", "usable": 1, "breaker": {}, "endpoints": [
                { "address": "[::1]:8000", "state": "unreachable" }, { "address": other, "state": state }] }])
        };
        for (state, other, is_trouble) in [
            ("healthy", "127.0.0.1:8000", false),
            ("healthy", "127.0.0.1:8001", true),
            ("ejected", "127.0.0.1:8000", true),
            ("healthy", "10.0.0.8:8000", true),
        ] {
            seen["upstreams"] = upstream(state, other);
            assert_eq!(!troubles(&seen).0.is_empty(), is_trouble, "{state} {other}");
        }
    }

    #[test]
    fn an_upstream_that_can_not_be_used_and_an_open_breaker_are_problems() {
        let mut seen = seen();
        seen["certificates"] = json!({});
        seen["upstreams"] = json!([{
            "name": "orders", "usable": 0, "no_endpoint_because": "dns-nxdomain", "endpoints": [],
            "breaker": { "state": "open", "because": "20 failures in a row" },
            "dns": [{ "name": "orders.test:80", "failure": {
                "reason": "dns-failed", "detail": "SERVFAIL from 10.0.0.2", "what_to_do": "Ask it." } }],
        }]);
        seen["reloads"] = json!([{ "ok": false }]);
        let lines = troubles(&seen).0;
        assert_eq!(lines.len(), 4, "{lines:?}");
        let lookup =
            "upstream orders: looking up orders.test:80 fails: dns-failed (SERVFAIL from 10.0.0.2). Ask it.";
        assert!(lines.iter().any(|line| line == lookup), "{lines:?}");
    }
}
