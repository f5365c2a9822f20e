//! What `explain` prints for a config.

use attache_http::Client;

use crate::{RouteTable, explain, testing::request};

fn explained(config: &str, method: &str, url: &str, headers: &[(&str, &str)]) -> String {
    let config = attache_config::parse(config, None, &|_| None).unwrap();
    let table = RouteTable::new(&config.listeners[0]);
    explain(&table, &request(method, url, headers), &Client::default(), &config.upstreams).to_string()
}

const SHOP: &str = "listeners: { inbound: { bind: ':15006', cors: { origins: ['https://shop.test'] }, to: app,\n\
                    authorization: { allow: [{ identity: ['spiffe://shop/web'] }] } } }\n\
                    upstreams: { app: 'http://127.0.0.1:8080' }\n";

#[test]
fn a_preflight_meets_no_access_rules_and_the_request_behind_it_does() {
    let asks = [("origin", "https://shop.test"), ("access-control-request-method", "PUT")];
    let preflight = explained(SHOP, "OPTIONS", "app.test/v1", &asks);
    assert!(preflight.contains("\nanswer the preflight with 200"), "{preflight}");
    assert!(preflight.contains("this one is"), "{preflight}");
    for word in ["access rules of", "denied-by-rule", "to upstream"] {
        assert!(!preflight.contains(word), "{word} in {preflight}");
    }
    // Without a preflight's headers it is an ordinary request.
    for (method, headers) in [("OPTIONS", &asks[..1]), ("PUT", &asks[..1])] {
        let text = explained(SHOP, method, "app.test/v1", headers);
        assert!(text.contains("answered with denied-by-rule"), "{text}");
    }
}

#[test]
fn a_request_with_two_readings_must_pass_the_rules_of_both_routes() {
    const GUARDED: &str = "listeners: { inbound: { bind: ':15006', routes: [\n\
        { name: admin, match: { path: /admin/* }, to: app, authorization: { allow: [{ client: 10.0.0.0/8 }] } },\n\
        { name: same, match: { path: /open/* }, to: app } ], to: app } }\n\
        upstreams: { app: 'http://127.0.0.1:8080' }\n";
    let config = attache_config::parse(GUARDED, None, &|_| None).unwrap();
    let table = RouteTable::new(&config.listeners[0]);
    let client = Client::default();
    let other = |target: &str, headers: &[(&str, &str)]| {
        let request = request("GET", target, headers);
        let found = table.find_http(&crate::RequestFacts::of(&request, &client)).unwrap().route;
        table.other_rules(&request, &client, found).first().map(|route| route.name.to_string())
    };
    for target in [
        "a.test/x/..%2fadmin",
        "a.test/ADMIN/x",
        "a.test//admin",
        "a.test/%2561dmin",
        "a.test/open/..%5cadmin/x",
        "a.test/admin%3Fx",
        "a.test/%ff",
    ] {
        assert_eq!(other(target, &[]).as_deref(), Some("admin"), "{target}");
    }
    assert_eq!(other("a.test/open", &[("x-original-url", "/admin")]).as_deref(), Some("admin"));
    assert_eq!(other("a.test/admin/..%2fopen", &[]), None, "that route has no rules");
    for target in ["a.test/open/..%2fx", "a.test/Open/X/", "a.test/admin/A%20B/", "a.test/x//y"] {
        assert_eq!(other(target, &[]), None, "{target}");
    }
    // Another case is another reading as well. The rules of both routes must allow such a request.
    let at = |address: &str| {
        let client = Client { address: address.parse().ok(), ..Client::default() };
        explain(&table, &request("GET", "a.test/Admin/5", &[]), &client, &config.upstreams).to_string()
    };
    assert!(!at("10.1.2.3:4").contains("answered with denied-by-rule"), "{}", at("10.1.2.3:4"));
    assert!(at("9.9.9.9:4").contains("answered with denied-by-rule"), "{}", at("9.9.9.9:4"));
    let slash = GUARDED.replace("/admin/*", "~/admin/.*");
    let config = attache_config::parse(&slash, None, &|_| None).unwrap();
    let table = RouteTable::new(&config.listeners[0]);
    let request = request("GET", "a.test/admin/", &[]);
    let found = table.find_http(&crate::RequestFacts::of(&request, &client)).unwrap().route;
    assert_eq!(&*found.name, "admin");
    assert!(table.other_rules(&request, &client, found).is_empty(), "its own path, with its last slash");
    let text = explained(GUARDED, "GET", "a.test/x/..%2fadmin", &[]);
    assert!(text.contains("answered with denied-by-rule") && text.contains("another reading"), "{text}");
}

#[test]
fn a_token_or_authorizer_that_was_not_asked_for_is_refused_in_doubt() {
    let config = "listeners: { in: { bind: ':1', authorization: { jwt: { issuers: corp } }, routes: [\n\
        { name: open, match: { path: /open/* }, to: app, authorization: { jwt: { issuers: corp, required: false } } },\n\
        { name: asked, match: { path: /asked/* }, to: app, authorization: { external: z } },\n\
        { name: rest, to: app } ] } }\n\
        jwt: { corp: { issuer: i, audiences: shop, keys: { file: /k } } }\n\
        authorizers: { z: { service: z } }\n\
        upstreams: { app: 'http://a', z: 'h2c://z' }";
    let refused = |target: &str| {
        let text = explained(config, "GET", &format!("a.test{target}"), &[]);
        text.contains("that this route doesn't ask for") && text.contains("answered with denied-by-rule")
    };
    for target in ["/open/..%2fx", "/OPEN/../x/..%2fAsked", "/open/%ff", "/Asked/x"] {
        assert!(refused(target), "{target}");
    }
    // In these cases the other route asks for nothing more.
    for target in ["/open/x", "/open/A%20b", "/asked/..%2fx", "/asked/x/"] {
        assert!(!refused(target), "{target}");
    }
}

#[test]
fn connections_to_an_unhealthy_endpoint_are_explained_if_an_endpoint_can_turn_unhealthy() {
    let of = |keys: &str| {
        explained(
            &format!("upstreams: {{ a: {{ address: 'http://a.test', {keys} }} }}"),
            "GET",
            "a.test/",
            &[],
        )
    };
    assert!(of("on_unhealthy: close").contains("unhealthy endpoints: idle connections are closed"));
    assert!(of("health_check: { path: / }").contains("unhealthy endpoints: open connections stay"));
    assert!(!of("connect_timeout: 1s").contains("unhealthy endpoints"));
}

#[test]
fn a_subset_is_explained_by_its_addresses_and_its_fallback() {
    let of = |fallback: &str| {
        let config = format!(
            "listeners: {{ in: {{ bind: ':15006', routes: [{{ to: a, subset: {{ labels: {{ version: v2 }}{fallback} }} }}] }} }}\n\
             upstreams: {{ a: {{ address: [{{ address: 'http://a-v1', labels: {{ version: v1 }} }}, {{ address: 'http://a-v2', labels: {{ version: v2 }} }}] }} }}"
        );
        explained(&config, "GET", "a.test/", &[])
    };
    let refused = of("");
    let line = "only endpoints with version=v2: those of a-v2:80; if there are none, 503 empty-subset";
    assert!(refused.contains(line), "{refused}");
    assert!(of(", fallback: any").contains("if there are none, any endpoint"));
}

#[test]
fn the_upstream_that_a_header_names_is_shown_or_why_there_is_none() {
    let config = "listeners: { in: { bind: ':15006', routes: [{ upstream_header: x-upstream, to: [a, b] }] } }\n\
                  upstreams: { a: 'http://a.test', b: 'http://b.test' }";
    let named = explained(config, "GET", "a.test/", &[("x-upstream", "b")]);
    assert!(named.contains("forward to the upstream that `x-upstream` names"), "{named}");
    assert!(named.contains("100 % to upstream b") && named.contains("0 % to upstream a"), "{named}");
    for (headers, why) in [
        (&[][..], "the request has no `x-upstream`"),
        (&[("x-upstream", "B")], "`x-upstream` names none of the route's upstreams"),
        (&[("x-upstream", "a"), ("x-upstream", "b")], "the request has more than one `x-upstream`"),
    ] {
        let text = explained(config, "GET", "a.test/", headers);
        assert!(text.contains(&format!("refuse with no-upstream: {why}")), "{text}");
    }
}

#[test]
fn changes_of_attache_s_own_answers_are_shown_for_every_request() {
    let config = attache_config::parse(SHOP, None, &|_| None).unwrap();
    let table = RouteTable::new(&config.listeners[0]);
    let request = request("GET", "app.test/", &[]);
    let mut found = explain(&table, &request, &Client::default(), &config.upstreams);
    assert!(!found.to_string().contains("attache makes itself"));
    let edits = "listeners: { in: { bind: ':1', to: a, local_reply: { headers: { remove: [server], set: { x-by: '%{listener}' } } } } }\nupstreams: { a: 'http://a' }";
    let edits = attache_config::parse(edits, None, &|_| None).unwrap();
    found.local_reply = crate::show_edits(&edits.listeners[0].local_reply.headers);
    let text = found.to_string();
    assert!(text.contains("answered with denied-by-rule"), "{text}");
    assert!(text.contains("response header: remove server"), "{text}");
    assert!(text.contains("response header: set x-by: %{listener}"), "{text}");
}

#[test]
fn an_upgrade_that_is_not_allowed_is_refused_and_one_that_is_ignored_is_named() {
    const CHAT: &str = "listeners: { inbound: { bind: ':15006', http: { upgrades: off }, routes: [\n\
        { match: { path: /chat }, to: app, upgrades: websocket },\n\
        { match: { path: /plain }, to: app, upgrades: ignore } ], to: app } }\n\
        upstreams: { app: 'http://127.0.0.1:8080' }\n";
    let asks = [("connection", "upgrade"), ("upgrade", "websocket")];
    for (path, headers, expected) in [
        ("/chat", &asks[..], "to upstream"),
        ("/chat", &[], "upgrades: websocket"),
        ("/plain", &asks[..], "the upgrade is ignored"),
        ("/x", &asks[..], "refuse with upgrade-denied: `upgrades` allows off"),
        ("/x", &[], "upgrades: off"),
    ] {
        let text = explained(CHAT, "GET", &format!("app.test{path}"), headers);
        assert!(text.contains(expected), "{path} {expected}: {text}");
    }
}
