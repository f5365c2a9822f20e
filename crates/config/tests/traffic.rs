//! Rules that can't be enforced are an error or a warning, with their line and a remedy.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use attache_config::model::{Action, Traffic};

fn said(text: &str) -> String {
    match attache_config::parse(text, None, &|_| None) {
        Ok(config) => config.warnings.iter().map(ToString::to_string).collect(),
        Err(found) => format!("refused: {found}"),
    }
}

fn listener(text: &str, upstream: &str) -> String {
    said(&format!("listeners: {{ in: {{ bind: '127.0.0.1:1', {text} }} }}\nupstreams: {{ app: {upstream} }}"))
}

const TLS: &str = "tls: { certificate: c.pem, key: k.pem, client_ca: ca.pem";

#[test]
fn a_config_with_rules_that_can_not_be_enforced_is_refused() {
    for (text, upstream, words) in [
        ("protocol: tcp, to: app", "'http://a:1'", "`app` speaks HTTP, and this route takes opaque bytes"),
        ("protocol: tls, to: app", "'https://a'", "`app` speaks HTTP"),
        ("protocol: http, to: app", "'tcp://a:1'", "HTTP can't be routed to `app`"),
        ("routes: [{ match: { path: /* }, to: app }]", "'tcp://a:1'", "HTTP can't be routed to `app`"),
        ("routes: [{ match: { sni: a.b }, tls: passthrough, to: app }]", "'tcp://a:1'", "without `tls`"),
        (&format!("{TLS} }}, routes: [{{ tls: passthrough, to: app }}]"), "'tcp://a:1'", "without `sni`"),
        (
            &format!("{TLS} }}, routes: [{{ match: {{ sni: a.b, path: /x }}, tls: passthrough, to: app }}]"),
            "'tcp://a:1'",
            "together with a match on the encrypted",
        ),
        (
            &format!("{TLS} }}, routes: [{{ match: {{ sni: a.b }}, tls: passthrough, to: app }}]"),
            "'https://a'",
            "speaks HTTP",
        ),
    ] {
        let said = listener(text, upstream);
        assert!(said.starts_with("refused: ") && said.contains(words), "{text}: {said}");
    }
}

#[test]
fn a_rule_that_allows_everything_to_everybody_is_refused() {
    for rules in ["allow: [{}]", "allow: [{ name: all }]", "allow: [{ not: {} }, { methods: GET }]"] {
        let said = listener(&format!("authorization: {{ {rules} }}, to: app"), "'http://a:1'");
        assert!(
            said.starts_with("refused: ") && said.contains("allows everything to every client"),
            "{rules}: {said}"
        );
    }
    for rules in ["allow: []", "deny: [{}]", "allow: [{ not: { path: /x } }]"] {
        let said = listener(&format!("authorization: {{ {rules} }}, to: app"), "'http://a:1'");
        assert!(!said.contains("every client"), "{rules}: {said}");
    }
}

#[test]
fn a_rule_that_can_be_bypassed_causes_a_warning() {
    for (text, upstream, words) in [
        (
            &*format!("{TLS}, mode: permissive, allow: a.b }}, to: app"),
            "'http://a:1'",
            "`allow` with `mode: permissive`",
        ),
        (
            "protocol: tcp, routes: [{ to: app, headers: { request: { set: { x: y } } } }]",
            "'tcp://a:1'",
            "`headers` has no effect here",
        ),
        ("protocol: tcp, to: app", "authority", "opaque bytes name none"),
        (
            "transparent: true, routes: [{ match: { path: /x }, respond: 403 }], to: app",
            "original-destination",
            "opaque bytes to `app` are refused",
        ),
        (
            "routes: [{ match: { path: /x }, respond: 403 }], to: app",
            "authority",
            "this rule doesn't apply to CONNECT",
        ),
    ] {
        let said = listener(text, upstream);
        assert!(said.contains("warning: ") && said.contains(words) && said.contains(":1:"), "{text}: {said}");
    }
}

#[test]
fn rules_that_can_be_enforced_cause_no_warning() {
    for (text, upstream) in [
        (
            &*format!(
                "{TLS} }}, routes: [{{ match: {{ sni: a.b }}, tls: passthrough, to: app }}], protocol: tcp"
            ),
            "'tcp://a:1'",
        ),
        ("protocol: tcp, to: app", "'srv://_a._tcp.b'"),
        ("protocol: tls, to: app", "authority"),
        ("transparent: true, to: app", "original-destination"),
        ("protocol: http, routes: [{ match: { methods: CONNECT }, to: app }]", "'tcp://a:1'"),
        (&format!("{TLS}, mode: permissive }}, to: app"), "'http://a:1'"),
        ("protocol: auto, to: app", "'unix:/run/a.sock'"),
    ] {
        assert_eq!(listener(text, upstream), "", "{text}");
    }
}

#[test]
fn each_route_says_what_its_upstreams_are_meant_for() {
    for (protocol, upstream, traffic) in [
        ("auto", "'http://a:1'", Traffic::Http),
        ("auto", "'h2c://a:1'", Traffic::Http),
        ("auto", "'tcp://a:1'", Traffic::Opaque),
        ("tcp", "'tls://a:1'", Traffic::Opaque),
        ("auto", "'srv://_a._tcp.b'", Traffic::Http),
        ("tcp", "'srv://_a._tcp.b'", Traffic::Opaque),
        ("auto", "'unix+tcp:/run/a'", Traffic::Opaque),
        ("auto", "authority", Traffic::Named),
        ("auto", "original-destination", Traffic::Original),
        ("auto", "{ address: original-destination, protocol: http1 }", Traffic::Http),
        ("auto", "{ address: original-destination, protocol: tcp }", Traffic::Opaque),
        ("tcp", "original-destination", Traffic::Opaque),
    ] {
        let text = format!(
            "listeners: {{ in: {{ bind: '127.0.0.1:1', protocol: {protocol}, to: app }} }}\nupstreams: {{ app: {upstream} }}"
        );
        let config = attache_config::parse(&text, None, &|_| None).unwrap_or_else(|found| panic!("{found}"));
        let Action::Forward(forward) = &config.listeners[0].routes[0].action else { panic!("it forwards") };
        assert_eq!(forward.traffic, traffic, "{protocol} {upstream}");
    }
}
