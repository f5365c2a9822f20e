//! Whole files: every example of the documentation is valid, and means what the text beside it says.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::needless_raw_string_hashes,
    clippy::format_push_string,
    reason = "tests"
)]

mod policy;

use attache_config::{model::*, parse};

fn config(text: &str) -> Config {
    parse(text, None, &|_| None).unwrap_or_else(|found| panic!("{found}"))
}

const DESIGN: &str = r#"
listeners:
  outbound:
    bind: 127.0.0.1:15001
    protocol: auto                    # http1, http2, tls and opaque TCP told apart by the first bytes
    routes:
      - match: { host: orders.internal, path: /v1/*, methods: [GET, HEAD] }
        to: { orders: 95%, orders-next: 5% }
        timeout: 2s
        retry: { attempts: 2, per_try_timeout: 500ms, on: [connect-failure, reset, 503], budget: 20% }
      - match: { sni: "*.db.internal" }           # TLS passed through, not terminated
        to: database
  inbound:
    bind: 0.0.0.0:15006
    tls: { certificate: /certs/tls.crt, key: /certs/tls.key, client_ca: /certs/ca.crt, mode: strict,
           allow: ["spiffe://cluster.local/ns/shop/sa/web"] }
    to: app
upstreams:
  app: http://127.0.0.1:8080
  orders:
    address: https://orders.internal:8443         # a DNS name is looked up, every answer is an endpoint
    balance: least-request                        # peak-ewma, round-robin, ring-hash, maglev, random
    health_check: { path: /healthz, interval: 5s }
    circuit_breaker: { max_connections: 1024, max_pending: 1024, max_requests: 1024, max_retries: 3 }
    outlier_ejection: { consecutive_5xx: 5, base: 30s, max_percent: 10% }
  orders-next: https://orders-next.internal:8443
  database: srv://_postgres._tcp.db.internal
"#;

#[test]
fn the_design_example_is_right() {
    let config = config(DESIGN);
    assert_eq!(config.warnings, []);
    assert_eq!(config.listeners.len(), 2);
}

fn with(text: &str, env: &[(&str, &str)]) -> Result<Config, attache_config::Diagnostics> {
    let env: Vec<(String, String)> = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    parse(text, None, &|name| env.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone()))
}

fn forward(route: &Route) -> &Forward {
    match &route.action {
        Action::Forward(forward) => forward,
        other => panic!("{other:?}"),
    }
}

fn hosts(route: &Route) -> Vec<String> {
    let patterns = route.matcher.hosts.iter().chain(&route.matcher.sni);
    patterns
        .map(|host| match (&host.name, host.port) {
            (HostName::Exact(name), None) => name.to_string(),
            (HostName::Exact(name), Some(port)) => format!("{name}:{port}"),
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn every_example_is_right_and_without_a_warning() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config");
    let mut count = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let config = attache_config::load(&path, &|_| None).unwrap_or_else(|found| panic!("{found}"));
            assert_eq!(config.warnings, [], "{}", path.display());
            count += 1;
        }
    }
    assert!(count >= 8);
}

#[test]
fn the_embedded_default_is_a_forward_proxy_on_loopback() {
    let config = Config::forward_proxy();
    let [listener] = config.listeners.as_slice() else { panic!("{config:?}") };
    assert_eq!(listener.bind, [Bind::Tcp("127.0.0.1:15001".parse().unwrap())]);
    assert_eq!(listener.protocol, ListenProtocol::Auto);
    assert!(matches!(config.upstreams[0].address, Address::Authority { max_hosts: 1024, .. }));
    assert_eq!(forward(&listener.routes[0]).to[0].upstream, UpstreamId(0));
}

#[test]
fn one_upstream_gets_everything() {
    let config = config("upstreams: { orders: https://orders.internal:8443 }");
    let listener = &config.listeners[0];
    assert_eq!(&*listener.name, "outbound");
    assert_eq!(listener.bind, [Bind::Tcp("127.0.0.1:15001".parse().unwrap())]);
    assert_eq!(listener.routes.len(), 1);
    assert_eq!(listener.routes[0].matcher, Match::default());
    assert_eq!(*forward(&listener.routes[0]).to[0].policy, Policy::default());
    assert!(config.upstreams[0].tls.is_some());
}

#[test]
fn several_upstreams_are_told_apart_by_host() {
    let config = config(
        "upstreams: { orders: https://orders.internal, a: http://same:1, b: http://same:2, db: tcp://db.internal:5432, rest: authority }",
    );
    let routes = &config.listeners[0].routes;
    assert_eq!(hosts(&routes[0]), ["orders", "orders.internal"]);
    assert_eq!(hosts(&routes[1]), ["a", "same:1"]);
    assert_eq!(hosts(&routes[2]), ["b", "same:2"]);
    assert!(routes[3].matcher.hosts.is_empty());
    assert_eq!(hosts(&routes[3]), ["db", "db.internal"]);
    assert_eq!(routes[4].matcher, Match::default());
}

#[test]
fn a_listener_may_have_routes_and_a_rest() {
    let config = config(DESIGN);
    let outbound = &config.listeners[0];
    let split: Vec<(usize, u32)> =
        forward(&outbound.routes[0]).to.iter().map(|to| (to.upstream.0, to.weight)).collect();
    assert_eq!(split, [(1, 95), (2, 5)]);
    let inbound = &config.listeners[1];
    assert_eq!(inbound.http.forwarded.x_forwarded, ForwardedMode::Append);
    assert_eq!(outbound.http.forwarded.x_forwarded, ForwardedMode::Pass);
    let tls = inbound.tls.as_ref().unwrap();
    assert_eq!(tls.allow, [SanPattern::Uri("spiffe://cluster.local/ns/shop/sa/web".into())]);
    assert_eq!(tls.client_trust, Some(Trust::Files(vec!["/certs/ca.crt".into()])));
}

#[test]
fn several_paths_are_several_routes_of_one_name() {
    let config = config(
        "listeners: { a: { bind: ':1', routes: [{ name: both, match: { path: [/a, /b/*] }, to: x }] } }
upstreams: { x: http://x }",
    );
    let routes = &config.listeners[0].routes;
    assert_eq!(routes.len(), 2);
    assert!(routes.iter().all(|route| &*route.name == "both"));
}

#[test]
fn a_variable_cannot_bring_structure_with_it() {
    let text = "upstreams: { a: { address: http://a, balance: { zone: \"${ZONE}\" } } }\nworkers: ${N}";
    let evil = "x }, tls: { insecure_skip_verify: true";
    let config = with(text, &[("ZONE", evil), ("N", "3")]).unwrap();
    assert_eq!(config.upstreams[0].balance.zone.as_deref(), Some(evil));
    assert_eq!(config.workers, Some(3));
    assert!(with(text, &[("ZONE", "a"), ("N", "many")]).is_err());
    assert!(with("workers: ${N:-2}\nupstreams: { a: http://a }", &[("N", "")]).unwrap().workers == Some(2));
}

#[test]
fn two_dollars_are_one_and_a_dollar_alone_is_itself() {
    let text = r#"
listeners: { a: { bind: ":1", routes: [{ match: { path: "~/a$" }, respond: { status: 200, body: "$${X} $5 $" } }] } }"#;
    let config = with(text, &[]).unwrap();
    let Action::Respond(respond) = &config.listeners[0].routes[0].action else { panic!() };
    assert_eq!(&*respond.body, b"${X} $5 $");
}

#[test]
fn a_file_tag_reads_the_file_and_never_shows_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("attache.yaml");
    std::fs::write(folder.path().join("secret"), "s3cret\n").unwrap();
    let load = |text: &str| {
        std::fs::write(&path, text).unwrap();
        attache_config::load(&path, &|_| None)
    };
    let route = "listeners: { a: { bind: ':1', to: x, routes: [{ to: x, match: { host: h }, headers: { request: { set: { authorization: !file secret } } } }] } }";
    let config = load(&format!("{route}\nupstreams: {{ x: http://x }}")).unwrap();
    let (_, template) = &config.listeners[0].routes[0].request_headers.set[0];
    assert_eq!(template.0, [TemplatePart::Text("s3cret".into())]);
    let found = load("workers: !file secret\nupstreams: { x: http://x }").unwrap_err().to_string();
    assert!(found.contains("the file's content") && !found.contains("s3cret"), "{found}");
    assert!(load("workers: !file missing\nupstreams: { x: http://x }").is_err());
}

#[test]
fn anchors_and_merge_keys_work() {
    let config = config(
        r"
x-base: &base { connect_timeout: 3s, balance: random }
upstreams:
  a: { <<: *base, address: http://a, balance: round-robin }
  b: { <<: [*base], address: http://b }
",
    );
    let balance: Vec<&Algorithm> =
        config.upstreams.iter().map(|upstream| &upstream.balance.algorithm).collect();
    assert_eq!(balance, [&Algorithm::RoundRobin, &Algorithm::Random]);
    assert!(config.upstreams.iter().all(|upstream| upstream.connect_timeout.as_secs() == 3));
}

#[test]
fn aliases_do_not_expand_without_end() {
    let mut text = "x-0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n".to_owned();
    for level in 1..30 {
        let item = format!("*a{}", level - 1);
        text += &format!("x-{level}: &a{level} [{}]\n", vec![item; 9].join(", "));
    }
    let found = parse(&text, None, &|_| None).unwrap_err().to_string();
    assert!(found.contains("more than 100000 nodes"), "{found}");
    let deep = format!("upstreams: {}{}", "[".repeat(5000), "]".repeat(5000));
    assert!(parse(&deep, None, &|_| None).is_err());
    let mut chain = "x-0: &a0 [1]\n".to_owned();
    for level in 1..500 {
        chain += &format!("x-{level}: &a{level} [*a{}]\n", level - 1);
    }
    assert!(parse(&chain, None, &|_| None).unwrap_err().to_string().contains("levels deep"));
}

#[test]
fn an_svid_stands_in_for_files() {
    let config = config(
        r"
listeners:
  inbound: { bind: ':15006', tls: { spiffe: true, client_ca: spiffe, allow: 'spiffe://d/web' }, to: x }
upstreams:
  x: { address: https://x, tls: { spiffe: true, peers: ['spiffe://d/x'] } }
",
    );
    let server = config.listeners[0].tls.as_ref().unwrap();
    assert!(server.spiffe && server.identities.is_empty());
    assert_eq!(server.client_trust, Some(Trust::Spiffe));
    let client = config.upstreams[0].tls.as_ref().unwrap();
    assert!(client.spiffe && client.trust == Trust::Spiffe && client.identity.is_none());
    assert_eq!(client.peers, [SanPattern::Uri("spiffe://d/x".into())]);
}

#[test]
fn where_identities_are_proven_connections_have_a_maximum_age() {
    let config = config(
        r"
listeners:
  plain: { bind: ':1', to: x }
  tls: { bind: ':2', tls: { certificate: /c, key: /k }, to: x }
  short: { bind: ':3', tls: { certificate: /c, key: /k }, http: { max_connection_age: 5m }, to: x }
  never: { bind: ':4', tls: { certificate: /c, key: /k }, http: { max_connection_age: 0s }, to: x }
upstreams:
  x: https://x
  own: { address: https://x, tls: { certificate: /c, key: /k } }
  svid: { address: https://x, tls: { spiffe: true }, pool: { max_age: 10m } }
",
    );
    let ages = config.listeners.iter().map(|listener| listener.http.max_connection_age.as_secs());
    assert_eq!(ages.collect::<Vec<_>>(), [0, 3600, 300, 0]);
    let ages = config.upstreams.iter().map(|upstream| upstream.pool.max_age.as_secs());
    assert_eq!(ages.collect::<Vec<_>>(), [0, 3600, 600]);
}
