//! Each kind of rule, and attempts to bypass it.

use crate::{
    AccessPolicy, Decision, Facts, Truth,
    testing::{allowed, client, config, policy, request},
};
use attache_wire::{ConnectProtocol, RequestHead};

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";

fn passes(policy: &AccessPolicy, request: &RequestHead) -> bool {
    allowed(policy, request, &client("192.0.2.7:999", WEB))
}

fn get(target: &str) -> RequestHead {
    request("GET", target, &[])
}

/// A WebSocket over HTTP/2.
fn extended(target: &str) -> RequestHead {
    let mut parts = get(target);
    parts.method = http::Method::CONNECT;
    parts.protocol = Some(ConnectProtocol::from_static("websocket"));
    parts
}

#[test]
fn denials_come_first_and_with_an_allow_the_rest_is_denied() {
    let policy = policy("allow: [{ path: /v1/* }]\ndeny: [{ name: no-writes, methods: [DELETE] }]");
    assert!(passes(&policy, &get("/v1/x")));
    assert!(!passes(&policy, &get("/v2/x")));
    assert!(!passes(&policy, &request("DELETE", "/v1/x", &[])));
    let parts = request("DELETE", "/v1/x", &[]);
    let client = client("192.0.2.7:9", "");
    let facts = Facts::of_request(&parts, &client);
    let decision = policy.decide(&facts);
    assert_eq!(decision.rule().map(|name| &**name), Some("no-writes"));
    assert_eq!(decision.to_string(), "denied by rule `no-writes` (line 10)");
}

#[test]
fn an_empty_allow_denies_everything_and_so_does_an_empty_rule_of_deny() {
    assert!(!passes(&policy("allow: []"), &get("/")));
    assert!(passes(&policy("allow: [{ path: /* }]"), &get("/")));
    assert!(!passes(&policy("deny: [{}]"), &get("/")));
}

#[test]
fn every_key_of_a_rule_must_match_and_of_a_list_one() {
    let policy = policy(
        "allow: [{ identity: ['spiffe://cluster.local/ns/*/sa/web', 'dns:x.y'], methods: [GET, HEAD], path: /a/* }]",
    );
    assert!(passes(&policy, &get("/a/b")));
    assert!(passes(&policy, &request("HEAD", "/a", &[])));
    assert!(!passes(&policy, &request("POST", "/a", &[])));
    assert!(!passes(&policy, &get("/b")));
    assert!(!allowed(&policy, &get("/a/b"), &client("192.0.2.7:1", "spiffe://cluster.local/ns/shop/sa/db")));
    assert!(!allowed(&policy, &get("/a/b"), &client("192.0.2.7:1", "")));
}

#[test]
fn conditions_in_not_exclude_requests() {
    let policy = policy("allow: [{ client: 192.0.2.0/24, not: { client: 192.0.2.128/25, path: /admin/* } }]");
    assert!(allowed(&policy, &get("/"), &client("192.0.2.7:1", "")));
    assert!(!allowed(&policy, &get("/"), &client("192.0.2.200:1", "")));
    assert!(!allowed(&policy, &get("/admin/x"), &client("192.0.2.7:1", "")));
    assert!(!allowed(&policy, &get("/%61dmin%2Fx"), &client("192.0.2.7:1", "")), "in doubt");
    assert!(!allowed(&policy, &get("/"), &client("", "")), "a Unix socket has no network");
    let deny = self::policy("deny: [{ client: 10.0.0.0/8 }]");
    assert!(!allowed(&deny, &get("/"), &client("", "")), "it could be any");
}

#[test]
fn only_a_proven_identity_counts() {
    let anybody = policy("allow: [{ identity: '*' }]");
    assert!(passes(&anybody, &get("/")));
    assert!(!allowed(&anybody, &get("/"), &client("192.0.2.7:1", "")));
    let nobody = policy("allow: [{ not: { identity: '*' } }]");
    assert!(!passes(&nobody, &get("/")));
    let claimed =
        request("GET", "/", &[("x-forwarded-client-cert", "URI=spiffe://cluster.local/ns/shop/sa/web")]);
    let web = policy("allow: [{ identity: 'spiffe://cluster.local/ns/shop/sa/web' }]");
    assert!(!allowed(&web, &claimed, &client("192.0.2.7:1", "")), "anyone can write a header");
    for other in ["spiffe://cluster.local/ns/shop/sa/web/x", "spiffe://cluster.local.evil/ns/shop/sa/web"] {
        assert!(!allowed(&web, &get("/"), &client("192.0.2.7:1", other)), "{other}");
    }
}

#[test]
fn a_network_matches_the_connections_address_whatever_headers_say() {
    let policy = policy("allow: [{ client: [10.0.0.0/8, fd00::/8] }]");
    assert!(allowed(&policy, &get("/"), &client("10.1.2.3:1", "")));
    assert!(allowed(&policy, &get("/"), &client("[::ffff:10.1.2.3]:1", "")));
    assert!(allowed(&policy, &get("/"), &client("[fd00::1]:1", "")));
    let forged = request("GET", "/", &[("x-forwarded-for", "10.1.2.3"), ("forwarded", "for=10.1.2.3")]);
    assert!(!allowed(&policy, &forged, &client("11.1.2.3:1", "")));
}

#[test]
fn a_forwarded_client_is_accepted_only_from_trusted_proxies() {
    let policy = policy(
        "trusted_proxies: 10.0.0.0/8\nallow: [{ forwarded_client: 198.51.100.0/24 }]\ndeny: [{ forwarded_client: 203.0.113.0/24 }]",
    );
    let seen = |by: &str, entries: &str| {
        allowed(&policy, &request("GET", "/", &[("x-forwarded-for", entries)]), &client(by, ""))
    };
    assert!(seen("10.0.0.1:1", "198.51.100.7"));
    assert!(seen("10.0.0.1:1", "203.0.113.9, 198.51.100.7, 10.0.0.2"), "entries left of it are not trusted");
    assert!(!seen("10.0.0.1:1", "198.51.100.7, 203.0.113.9"));
    assert!(!seen("192.0.2.1:1", "198.51.100.7"), "not a trusted proxy");
    assert!(!seen("10.0.0.1:1", "unknown"), "in doubt it is denied");
    let doubled =
        request("GET", "/", &[("x-forwarded-for", "198.51.100.7"), ("x-forwarded-for", "203.0.113.9")]);
    assert!(!allowed(&policy, &doubled, &client("10.0.0.1:1", "")), "the last line is the nearest");
}

#[test]
fn a_rule_about_methods_can_not_be_bypassed_by_case_or_by_an_override() {
    let deny = policy("deny: [{ methods: [DELETE] }]");
    assert!(passes(&deny, &get("/")));
    assert!(!passes(&deny, &request("delete", "/", &[])));
    assert!(!passes(&deny, &request("Delete", "/", &[])));
    for name in ["X-HTTP-Method-Override", "x-http-method", "X-METHOD-OVERRIDE"] {
        assert!(!passes(&deny, &request("POST", "/", &[(name, "DELETE")])), "{name}");
        assert!(!passes(&deny, &request("POST", "/", &[(name, "delete")])), "{name}");
        assert!(passes(&deny, &request("POST", "/", &[(name, "PUT")])), "{name}");
    }
    for value in ["PUT, DELETE", "DELETE;x", "\"DELETE\"", "DELETE GET"] {
        assert!(!passes(&deny, &request("POST", "/", &[("x-http-method-override", value)])), "{value}");
    }
    for name in ["X_HTTP_METHOD_OVERRIDE", "x_http-method_override", "X_Http_Method", "x.http.method"] {
        assert!(!passes(&deny, &request("POST", "/", &[(name, "DELETE")])), "{name}");
    }
    assert!(passes(&deny, &request("POST", "/", &[("x_other", "DELETE")])));
    let allow = policy("allow: [{ methods: [POST] }]");
    assert!(passes(&allow, &request("POST", "/", &[])));
    assert!(!passes(&allow, &request("post", "/", &[])));
    assert!(!passes(&allow, &request("POST", "/", &[("x-http-method-override", "DELETE")])));
    // An undecided condition stays undecided, even if all others match.
    let both = policy("allow: [{ methods: [POST], path: /a, headers: { x-a: b } }]");
    assert!(passes(&both, &request("POST", "/a", &[("x-a", "b")])));
    assert!(!passes(&both, &request("POST", "/a", &[("x-a", "b"), ("x-http-method-override", "DELETE")])));
}

#[test]
fn a_rule_about_paths_can_not_be_bypassed_by_a_spelling() {
    let deny = policy("deny: [{ path: [/admin/*, /secret] }]");
    assert!(passes(&deny, &get("/administrator")));
    for target in [
        "/admin",
        "/admin/",
        "/admin/x",
        "/ADMIN/x",
        "/%61dmin/x",
        "/./admin/x",
        "/x/../admin/x",
        "/x/%2e%2e/admin/x",
        "//admin/x",
        "/admin;v=1/x",
        "/admin%2Fx",
        "/%2561dmin",
        "/x/..;/admin",
        "/x/..%2Fadmin",
        "/x/..%5Cadmin",
        "/secret/",
        "/Secret",
        "/secret;x",
        "/secret%3Fx",
        "/admin%23x",
        "/admin%253fx",
        "/admin?x=/ok",
        "http://shop.test/admin",
    ] {
        assert!(!passes(&deny, &get(target)), "{target}");
    }
    let allow = policy("allow: [{ path: /public/* }]");
    assert!(passes(&allow, &get("/public/a%20b")));
    for target in
        ["/public/..%2Fadmin", "/public/..;/admin", "/public/%2e%2e%2fadmin", "/Public/x", "/public%2Fx"]
    {
        assert!(!passes(&allow, &get(target)), "{target}");
    }
    assert!(!passes(&allow, &request("OPTIONS", "*", &[])), "no path");
    assert!(!passes(&deny, &request("OPTIONS", "*", &[])), "in doubt");
}

#[test]
fn a_rule_about_paths_can_not_be_bypassed_by_a_header_that_names_another_path() {
    let deny = policy("deny: [{ path: /admin/* }]");
    let allow = policy("allow: [{ path: /public/* }]");
    for name in ["X-Original-URL", "x-rewrite-url", "X_Original_Url", "X_REWRITE_URL", "x.rewrite.url"] {
        let with = |target: &str, value: &str| request("GET", target, &[(name, value)]);
        for value in ["/admin", "/ADMIN/x?y", "/x/..%2fadmin", "http://shop.test/admin/", "admin", ""] {
            assert!(!passes(&deny, &with("/public", value)), "{name}: {value}");
            assert!(!passes(&allow, &with("/public", value)), "{name}: {value}");
        }
        assert!(!passes(&deny, &with("/admin", "/public")), "{name}");
        for value in ["/public/y", "https://shop.test/public?z=/admin"] {
            assert!(passes(&deny, &with("/public", value)), "{name}: {value}");
            assert!(passes(&allow, &with("/public", value)), "{name}: {value}");
        }
        let mut no_text = get("/public");
        let value = http::HeaderValue::from_bytes(b"/adm\xffin").unwrap();
        no_text.headers.append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
        assert!(!passes(&deny, &no_text) && !passes(&allow, &no_text), "{name}: bytes that are no text");
        let twice = request("GET", "/public", &[(name, "/public"), (name, "/admin")]);
        assert!(!passes(&allow, &twice), "{name}");
    }
}

#[test]
fn an_identity_is_compared_as_the_certificate_has_it() {
    let exact = policy(&format!("allow: [{{ identity: '{WEB}' }}]"));
    let any = policy("allow: [{ identity: 'spiffe://cluster.local/ns/*/sa/web' }]");
    let dns = policy("allow: [{ identity: 'dns:api.shop.svc' }]");
    let passes = |policy: &AccessPolicy, name: &str| allowed(policy, &get("/"), &client("192.0.2.7:9", name));
    assert!(passes(&exact, WEB) && passes(&any, WEB) && passes(&dns, "api.shop.svc"));
    // Scheme and trust domain are case-insensitive (SPIFFE-ID section 2), and so are DNS names.
    assert!(passes(&exact, "SPIFFE://Cluster.LOCAL/ns/shop/sa/web") && passes(&dns, "API.shop.svc"));
    for other in [
        "spiffe://cluster.local/ns/shop/sa/WEB",
        "spiffe://cluster.local/ns/shop/sa/web/",
        "spiffe://cluster.local/ns/shop/sa/web\0",
        "spiffe://cluster.local/ns/shop/sa/web\0.evil",
        "spiffe://cluster.local/ns/shop/sa/web?x",
        "spiffe://cluster.local/ns/shop/sa/web#x",
        "spiffe://cluster.local/ns/shop/sa/%77eb",
        "spiffe://cluster.local//ns/shop/sa/web",
        "spiffe://cluster.local/ns/shop/../shop/sa/web",
        "spiffe://cluster.local:443/ns/shop/sa/web",
        "spiffe://u@cluster.local/ns/shop/sa/web",
        " spiffe://cluster.local/ns/shop/sa/web",
        "spiffe://cluster.local/ns/shop/sa/web ",
        "spiffe://*/ns/shop/sa/web",
        "*",
        "",
    ] {
        assert!(!passes(&exact, other), "{other:?}");
    }
    for other in [
        "spiffe://cluster.local/ns/a/b/sa/web",
        "spiffe://cluster.local/ns//sa/web",
        "spiffe://cluster.local/ns/shop/sa/web/x",
        "spiffe://cluster.local/x/ns/shop/sa/web",
        "spiffe://cluster.local.evil/ns/shop/sa/web",
    ] {
        assert!(!passes(&any, other), "{other:?}");
    }
    for other in
        ["*.shop.svc", "*", "api.shop.svc.evil", "xapi.shop.svc", "api.shop.svc\0.evil", "api%2eshop.svc"]
    {
        assert!(!passes(&dns, other), "{other:?}");
    }
}

#[test]
fn a_rule_about_headers_can_not_be_bypassed_by_doubling_or_underscores() {
    let deny = policy("deny: [{ headers: { x-role: guest } }]");
    let with = |headers: &[(&str, &str)]| request("GET", "/", headers);
    assert!(passes(&deny, &with(&[("x-role", "admin")])));
    assert!(passes(&deny, &with(&[])));
    for headers in [
        &[("x-role", "guest")][..],
        &[("X-ROLE", "guest")],
        &[("x-role", "admin"), ("x-role", "guest")],
        &[("x-role", "guest"), ("x-role", "admin")],
        &[("x-role", "admin, guest")],
        &[("x-role", "admin"), ("x_role", "guest")],
        &[("x_role", "guest")],
        &[("x.role", "guest")],
        &[("x+role", "guest")],
    ] {
        assert!(!passes(&deny, &with(headers)), "{headers:?}");
    }
    let allow = policy("allow: [{ headers: { x-role: [admin, root] } }]");
    assert!(passes(&allow, &with(&[("x-role", "root")])));
    assert!(passes(&allow, &with(&[("x-role", "root"), ("x-role", "admin")])));
    for headers in [
        &[][..],
        &[("x-role", "Admin")],
        &[("x-role", "admin"), ("x-role", "guest")],
        &[("x-role", "admin, guest")],
        &[("x-role", "admin"), ("x_role", "guest")],
        &[("x_role", "admin")],
    ] {
        assert!(!passes(&allow, &with(headers)), "{headers:?}");
    }
    let text = policy("deny: [{ headers: { x-note: '~.*evil.*' } }]");
    let mut parts = get("/");
    parts.headers.insert("x-note", http::HeaderValue::from_bytes(b"evil\xff").unwrap());
    assert!(!passes(&text, &parts), "bytes that are no text");
}

#[test]
fn a_header_that_must_not_be_there_is_denied_when_in_doubt() {
    let policy = policy("allow: [{ headers: { x-debug: '!*' } }]");
    assert!(passes(&policy, &get("/")));
    assert!(!passes(&policy, &request("GET", "/", &[("x-debug", "")])));
    assert!(!passes(&policy, &request("GET", "/", &[("x_debug", "1")])));
}

#[test]
fn a_host_is_compared_in_one_form() {
    let policy = policy("deny: [{ host: admin.shop.test }]");
    for host in ["admin.shop.test", "ADMIN.shop.test", "admin.shop.test.", "admin.shop.test:8080"] {
        assert!(!passes(&policy, &request("GET", "/", &[("host", host)])), "{host}");
    }
    assert!(!passes(&policy, &request("GET", "http://Admin.Shop.test/", &[("host", "admin.shop.test")])));
    assert!(passes(&policy, &get("/")));
    // HTTP/1.0 without a Host: the upstream uses its default host, which could be any.
    let nameless: RequestHead = http::Request::get("/").body(()).unwrap().into_parts().0.into();
    assert!(!passes(&policy, &nameless));
    assert!(!passes(&self::policy("allow: [{ host: shop.test }]"), &nameless));
}

#[test]
fn a_tunnel_is_denied_by_every_rule_about_requests() {
    let tunnel = request("CONNECT", "shop.test:443", &[]);
    for deny in ["path: /admin/*", "methods: [DELETE]", "headers: { x-debug: '*' }"] {
        assert!(!passes(&policy(&format!("deny: [{{ {deny} }}]")), &tunnel), "{deny}");
    }
    for allow in ["path: /*", "methods: [GET]"] {
        assert!(!passes(&policy(&format!("allow: [{{ {allow} }}]")), &tunnel), "{allow}");
    }
    assert!(passes(&policy("allow: [{ methods: [CONNECT], host: shop.test }]"), &tunnel));
    assert!(!passes(&policy("deny: [{ host: shop.test }]"), &tunnel));
    assert!(passes(&policy("deny: [{ host: evil.test }]"), &tunnel), "its destination is visible");
}

#[test]
fn a_websocket_is_a_get_in_both_versions() {
    let upgrade = request("GET", "/chat", &[("connection", "upgrade"), ("upgrade", "websocket")]);
    let allow = policy("allow: [{ methods: [GET], path: /chat }]");
    assert!(passes(&allow, &upgrade));
    assert!(passes(&allow, &extended("/chat")));
    assert!(!passes(&allow, &extended("/admin")));
    assert!(!passes(&policy("deny: [{ methods: [CONNECT] }]"), &extended("/chat")));
    assert!(!passes(&policy("allow: [{ methods: [CONNECT] }]"), &extended("/chat")), "in doubt");
    assert!(!passes(&policy("deny: [{ path: /chat }]"), &extended("/chat")));
}

#[test]
fn opaque_bytes_are_denied_by_every_rule_that_needs_a_request() {
    let client = client("10.1.2.3:1", "");
    let opaque = |rules: &str| policy(rules).decide(&Facts::of_connection(&client)).is_allowed();
    for rule in [
        "path: /*",
        "methods: [GET]",
        "host: '*'",
        "headers: { x-a: '!*' }",
        "identity: '*'",
        "sni: '*.shop.test'",
    ] {
        assert!(!opaque(&format!("deny: [{{ {rule} }}]")), "deny {rule}");
        assert!(!opaque(&format!("allow: [{{ {rule} }}]")), "allow {rule}");
        assert!(!opaque(&format!("allow: [{{ client: 10.0.0.0/8, not: {{ {rule} }} }}]")), "not {rule}");
    }
    assert!(opaque("allow: [{ client: 10.0.0.0/8, port: 8443 }]"));
    assert!(!opaque("allow: [{ client: 10.0.0.0/8, port: 80 }]"));
    assert!(!opaque("deny: [{ client: 10.0.0.0/8 }]"));
    assert!(opaque("deny: [{ client: 11.0.0.0/8 }]"));
}

#[test]
fn an_opaque_connection_whose_tls_was_terminated_has_an_identity() {
    let mut client = client("10.1.2.3:1", WEB);
    let by_name =
        policy(&format!("allow: [{{ identity: '{WEB}' }}]\ndeny: [{{ identity: 'dns:bad.test' }}]"));
    assert!(by_name.decide(&Facts::of_connection(&client)).is_allowed());
    client.sni = Some("db.shop.test".into());
    let by_sni = policy("allow: [{ sni: '*.shop.test' }]");
    assert!(by_sni.decide(&Facts::of_connection(&client)).is_allowed());
}

#[test]
fn an_unsure_denial_says_so() {
    let policy = policy("deny: [{ name: admin, path: /admin }]");
    let parts = get("/Admin");
    let client = client("10.1.2.3:1", "");
    let facts = Facts::of_request(&parts, &client);
    let decision = policy.decide(&facts);
    assert!(matches!(decision, Decision::Denied(Some(_), Truth::Unsure)));
    assert!(decision.to_string().contains("can't be told"), "{decision}");
}

#[test]
fn explain_names_the_rule_that_decides_and_why_the_others_do_not() {
    let policy = policy(
        "deny: [{ name: no-admin, path: /admin/* }]\nallow: [{ name: db, client: 10.0.0.0/8 }, { name: web, methods: GET }]",
    );
    let (parts, client) = (get("/v1"), client("192.0.2.7:1", ""));
    let all = policy.explain(&Facts::of_request(&parts, &client));
    let told: Vec<_> = all.iter().map(|one| (one.name.as_str(), one.decides, one.why.as_str())).collect();
    assert_eq!(
        told,
        [
            ("no-admin", false, "`path` doesn't match"),
            ("db", false, "`client` doesn't match"),
            ("web", true, "")
        ]
    );
}

#[test]
fn rules_are_equal_whatever_their_line_in_the_file() {
    let a = config("allow: [{ path: /a }]");
    let b = config("# moved\nallow: [{ path: /a }]");
    assert_eq!(a.listeners[0].authorization, b.listeners[0].authorization);
}
