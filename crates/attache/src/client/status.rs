//! `attache status`: the state of attache on one screen. Its exit code is for scripts: 0 all is well, 1 no answer, 2 something is wrong.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    process::ExitCode,
};

use serde_json::{Value, json};

use super::{
    failing::is_outage,
    http,
    recent::{recent_changes, recent_failures, recent_warnings},
    text::{Colour, ColourMode, field, list, millis, percent, rate, span, success_colour, table},
    troubles::troubles,
};
use crate::cli;

/// The exit code if something is wrong.
const EXIT_OUTAGE: u8 = 2;

pub(crate) fn status(options: &cli::StatusArgs) -> Result<ExitCode, Box<dyn std::error::Error>> {
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
        out.write_all(page(&seen, &troubles, &told, ColourMode::stdout()).as_bytes())?;
    }
    Ok(if troubles.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_OUTAGE) })
}

fn page(seen: &Value, troubles: &[String], told: &[&Value], paint: ColourMode) -> String {
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
    out.push_str(&listeners(seen, paint));
    out.push('\n');
    out.push_str(&upstreams(seen, paint));
    section("failed or refused in the last 5 min", &recent_failures(seen, told), paint, &mut out);
    section("the log's last warnings", &recent_warnings(seen), paint, &mut out);
    section("changed in the last 15 min", &recent_changes(seen), paint, &mut out);
    out
}

/// Lines below a heading; nothing where there is no line.
fn section(heading: &str, lines: &[String], paint: ColourMode, out: &mut String) {
    if !lines.is_empty() {
        let _ = writeln!(out, "\n{}", paint.colour(Colour::Bold, heading));
    }
    for line in lines {
        let _ = writeln!(out, "  {line}");
    }
}

fn listeners(seen: &Value, paint: ColourMode) -> String {
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
    table(&["listener", "at", "connections"], &rows, paint)
}

fn upstreams(seen: &Value, paint: ColourMode) -> String {
    let upstreams = seen["upstreams"].as_array().map_or(&[][..], Vec::as_slice);
    let rows: Vec<_> = upstreams.iter().map(|upstream| row(upstream, &seen["stats"])).collect();
    table(&["upstream", "endpoints", "requests", "success", "p99", "breaker"], &rows, paint)
}

fn row(upstream: &Value, stats: &Value) -> Vec<(Colour, String)> {
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
        page(seen, &troubles, &told, ColourMode::none())
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
