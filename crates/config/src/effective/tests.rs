use std::fs;

use super::*;
use crate::{load, parse};

fn effective(text: &str) -> Value {
    parse(text, None, &|_| None).unwrap_or_else(|found| panic!("{found}")).effective()
}

#[test]
fn a_line_becomes_everything_that_it_means() {
    let config = effective("upstreams: { orders: https://orders.internal:8443 }");
    assert_eq!(config["listeners"]["outbound"]["bind"][0], "127.0.0.1:15001");
    assert_eq!(config["admin"]["bind"], "127.0.0.1:15000");
    let route = &config["listeners"]["outbound"]["routes"][0];
    assert_eq!(route["forward"]["to"][0]["upstream"], "orders");
    assert_eq!(route["forward"]["to"][0]["retry"]["on"][0], "connect-failure");
    let orders = &config["upstreams"]["orders"];
    assert_eq!(orders["address"][0]["address"], "orders.internal:8443");
    assert_eq!(orders["tls"]["ca"], "system");
    assert_eq!(orders["pool"]["idle_timeout"], "1m");
    assert_eq!(orders["outlier_ejection"]["max_percent"], "10%");
}

#[test]
fn no_secret_is_shown_wherever_it_stands() {
    let dir = tempfile::tempdir().unwrap();
    let secrets = ["hunter2", "s3cr%%t-value", "q", "match-me", "a body nobody may read", "inline"];
    for (index, secret) in secrets.iter().enumerate() {
        fs::write(dir.path().join(format!("s{index}")), format!("{secret}\n")).unwrap();
    }
    let file = dir.path().join("attache.yaml");
    fs::write(
        &file,
        r"
listeners:
  outbound:
    bind: 127.0.0.1:15001
    routes:
      - name: secret
        match: { path: /a, headers: { x-which: !file s3, authorization: Basic dTpw } }
        to: orders
        headers:
          request:
            set:
              x-plain: !file s0
              x-percent: !file s1
              x-short: !file s2
              authorization: Bearer written-in-the-file
              x-api-key: also-written
              x-shown: shown
          response:
            add: { set-cookie: sid=written }
      - match: { path: /b }
        respond: { status: 200, body: !file s4 }
upstreams:
  orders:
    address: https://orders.internal
    tls:
      ca_pem: |
        -----BEGIN CERTIFICATE-----
        VGhlIFBFTSBvZiBhIENBIGlzIG5vIHNlY3JldCwgYnV0IGlzIG5vdCBzaG93bg==
        -----END CERTIFICATE-----
",
    )
    .unwrap();
    let config = load(&file, &|_| None).unwrap_or_else(|found| panic!("{found}"));
    let text = config.effective().to_string();
    for hidden in
        ["hunter2", "s3cr", "\"q\"", "match-me", "nobody", "dTpw", "written", "VGhlIFBFTSBv", "also"]
    {
        assert!(!text.contains(hidden), "{hidden} in {text}");
    }
    assert!(text.contains(r#""x-shown":"shown""#) && text.contains(HIDDEN), "{text}");
    let debug = format!("{:?}", config.secrets);
    assert_eq!(debug, "Secrets(5)");
}

/// Every key of the reference is in the effective config: a new key is not forgotten here.
#[test]
fn every_key_of_an_upstream_is_shown() {
    let config = effective(
        "upstreams: { a: { address: authority, tls: {}, health_check: { tcp: true }, adaptive_concurrency: {}, queue: {} } }",
    );
    let schema = crate::schema();
    for (definition, shown) in [
        ("Upstream", &config["upstreams"]["a"]),
        ("Pool", &config["upstreams"]["a"]["pool"]),
        ("OutlierEjection", &config["upstreams"]["a"]["outlier_ejection"]),
        ("CircuitBreaker", &config["upstreams"]["a"]["circuit_breaker"]),
        ("Balance", &config["upstreams"]["a"]["balance"]),
        ("HealthCheck", &config["upstreams"]["a"]["health_check"]),
        ("Listener", &config["listeners"]["outbound"]),
        ("HttpServer", &config["listeners"]["outbound"]["http"]),
        ("HttpLimits", &config["listeners"]["outbound"]["http"]["limits"]),
        ("Dns", &config["dns"]),
        ("Overload", &config["overload"]),
        ("AdaptiveConcurrency", &config["upstreams"]["a"]["adaptive_concurrency"]),
        ("MinRtt", &config["upstreams"]["a"]["adaptive_concurrency"]["min_rtt"]),
        ("Queue", &config["upstreams"]["a"]["queue"]),
    ] {
        let keys = schema["$defs"][definition]["properties"].as_object();
        let keys = keys.unwrap_or_else(|| panic!("no {definition} in the schema"));
        for key in keys.keys() {
            // These keys are shown in each destination with the route's values, or as a part of another value.
            let elsewhere = [
                "timeout",
                "idle_timeout",
                "deadline_header",
                "retry",
                "unix_mode",
                "to",
                "max_hosts",
                "deny",
            ];
            assert!(
                shown.get(key).is_some() || elsewhere.contains(&key.as_str()),
                "{definition}: {key} is missing"
            );
        }
    }
}
