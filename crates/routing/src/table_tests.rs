use attache_config::model::{Action, Match, Route, RouteTls, SanPattern, Traffic};
use attache_http::{AcceptedTraffic, Client, VerifiedIdentity};
use http::Method;

use crate::{
    RequestFacts, RouteTable, RouteVerdict, explain_tcp,
    testing::{client, listener, matching, range, request, route, value},
};

fn table(routes: &[(&str, &[&str], &str)]) -> RouteTable {
    let routes = routes.iter().map(|(name, hosts, path)| route(name, matching(hosts, path))).collect();
    RouteTable::new(&listener(routes))
}

fn found(table: &RouteTable, method: &str, target: &str, headers: &[(&str, &str)]) -> String {
    let request = request(method, target, headers);
    let client = Client::default();
    table
        .find_http(&RequestFacts::of(&request, &client))
        .map_or("-".into(), |matched| matched.route.name.to_string())
}

fn get(table: &RouteTable, target: &str) -> String {
    found(table, "GET", target, &[])
}

#[test]
fn one_table_serves_all_workers() {
    fn shared<T: Send + Sync>() {}
    shared::<RouteTable>();
}

/// A route's list of other routes may be as long as the list of all routes: 20,000 routes took 6.6 GB.
#[test]
fn a_route_for_http_keeps_no_list_of_other_routes() {
    let paths: Vec<String> = (0..100).map(|n| format!("/service-{n}/*")).collect();
    let routes: Vec<(&str, &[&str], &str)> = paths.iter().map(|path| ("r", &[][..], path.as_str())).collect();
    let table = table(&routes);
    assert_eq!(table.guards.iter().map(Vec::len).sum::<usize>(), 0);
    assert_eq!(table.guards.len(), 100);
}

#[test]
fn the_most_specific_host_wins() {
    let table = table(&[
        ("any", &[], "-"),
        ("prefix", &["orders.*"], "-"),
        ("longer-prefix", &["orders.shop.*"], "-"),
        ("suffix", &["*.internal"], "-"),
        ("longer-suffix", &["*.shop.internal"], "-"),
        ("exact", &["orders.shop.internal"], "-"),
        ("exact-port", &["orders.shop.internal:8443"], "-"),
        ("any-port", &["*:9000"], "-"),
        ("v6", &["2001:db8::1"], "-"),
    ]);
    for (host, expected) in [
        ("orders.shop.internal", "exact"),
        ("Orders.SHOP.internal.", "exact"),
        ("orders.shop.internal:80", "exact"),
        ("orders.shop.internal:8443", "exact-port"),
        ("a.shop.internal", "longer-suffix"),
        ("a.b.shop.internal", "longer-suffix"),
        ("shop.internal", "suffix"),
        ("internal", "any"),
        ("orders.shop.example", "longer-prefix"),
        ("orders.example", "prefix"),
        ("orders", "any"),
        ("orders:9000", "any-port"),
        ("[2001:DB8:0::1]:80", "v6"),
        ("", "any"),
    ] {
        assert_eq!(get(&table, &format!("{host}/")), expected, "{host}");
    }
}

#[test]
fn a_port_is_compared_with_the_schemes_default_where_the_request_has_none() {
    let table = table(&[("http", &["a:80"], "-"), ("https", &["a:443"], "-")]);
    assert_eq!(get(&table, "a/"), "http");
    assert_eq!(get(&table, "a:443/"), "https");
    assert_eq!(get(&table, "a:81/"), "-");
}

#[test]
fn the_most_specific_path_wins() {
    let table = table(&[
        ("none", &[], "-"),
        ("regex-1", &[], "~^/re.*$"),
        ("regex-2", &[], "~^/reg.*$"),
        ("prefix", &[], "/v1/*"),
        ("longer-prefix", &[], "/v1/orders/*"),
        ("everything", &[], "/*"),
        ("late-literal", &[], "/v1/{a}/{b}/items"),
        ("early-literal", &[], "/v1/orders/{b}/{c}"),
        ("rest", &[], "/files/{rest...}"),
        ("one-file", &[], "/files/{name}"),
        ("exact", &[], "/v1/orders/7/items"),
    ]);
    for (path, expected) in [
        ("/v1/orders/7/items", "exact"),
        ("/v1/orders/8/items", "early-literal"),
        ("/v1/users/8/items", "late-literal"),
        ("/v1/orders/8", "longer-prefix"),
        ("/v1/orders", "longer-prefix"),
        ("/v1/orders/", "longer-prefix"),
        ("/v1/ordersx", "prefix"),
        ("/v1", "prefix"),
        ("/v10", "everything"),
        ("/files/a", "one-file"),
        ("/files/a/b", "rest"),
        ("/files/", "rest"),
        ("/files", "everything"),
        // Even the shortest prefix comes before a regular expression.
        ("/regex", "everything"),
        ("/v1/../files/a", "one-file"),
    ] {
        assert_eq!(get(&table, &format!("a{path}")), expected, "{path}");
    }
}

#[test]
fn regular_expressions_are_tried_in_the_files_order() {
    let table = table(&[("none", &[], "-"), ("first", &[], "~^/re.*$"), ("second", &[], "~^/reg.*$")]);
    assert_eq!(get(&table, "a/regex"), "first");
    assert_eq!(get(&table, "a/other"), "none");
}

#[test]
fn a_host_without_a_route_for_the_path_falls_back_to_the_next() {
    let table = table(&[
        ("everything", &[], "-"),
        ("suffix", &["*.internal"], "/b"),
        ("exact", &["a.internal"], "/a"),
    ]);
    assert_eq!(get(&table, "a.internal/a"), "exact");
    assert_eq!(get(&table, "a.internal/b"), "suffix");
    assert_eq!(get(&table, "a.internal/c"), "everything");
}

#[test]
fn method_then_headers_then_query_then_file_order() {
    let with = |name: &str, methods: &[Method], headers: &[&str], query: &[&str]| {
        route(
            name,
            Match {
                methods: methods.to_vec(),
                headers: headers.iter().copied().map(value).collect(),
                query: query.iter().copied().map(value).collect(),
                ..Match::default()
            },
        )
    };
    let table = RouteTable::new(&listener(vec![
        with("plain", &[], &[], &[]),
        with("never", &[], &[], &[]),
        with("query", &[], &[], &["q=a b"]),
        with("header", &[], &["x"], &[]),
        with("headers", &[], &["x", "!y"], &[]),
        with("method", &[Method::POST], &[], &[]),
    ]));
    assert_eq!(found(&table, "POST", "a/?q=a+b", &[("x", "1")]), "method");
    assert_eq!(found(&table, "GET", "a/?q=a+b", &[("x", "1")]), "headers");
    assert_eq!(found(&table, "GET", "a/?q=a+b", &[("x", "1"), ("y", "1")]), "header");
    assert_eq!(found(&table, "GET", "a/?z&q=a%20b", &[]), "query");
    assert_eq!(found(&table, "GET", "a/?q=a%2", &[]), "plain");
}

#[test]
fn connect_and_asterisk_match_only_routes_without_a_path() {
    let table = table(&[("paths", &[], "/*"), ("hosts", &["a"], "-"), ("star", &["a"], "*")]);
    let client = Client::default();
    let find = |method, target: &'static str| {
        let mut parts = request("GET", "a/", &[]);
        parts.method = method;
        parts.uri = http::Uri::from_static(target);
        attache_http::check_request(&mut parts, false, true).unwrap();
        let matched = table.find_http(&RequestFacts::of(&parts, &client));
        matched.map_or("-".into(), |matched| matched.route.name.to_string())
    };
    assert_eq!(find(Method::CONNECT, "a:443"), "hosts");
    assert_eq!(find(Method::CONNECT, "b:443"), "-");
    assert_eq!(find(Method::OPTIONS, "*"), "star");
}

#[test]
fn connections_are_routed_by_server_name_and_original_destination() {
    let with = |name: &str, sni: &[&str], destinations: &[&str]| {
        route(
            name,
            Match {
                sni: sni.iter().copied().map(crate::testing::host).collect(),
                destination: destinations.iter().copied().map(range).collect(),
                ..Match::default()
            },
        )
    };
    let table = RouteTable::new(&listener(vec![
        route("http", matching(&["a"], "-")),
        with("rest", &[], &[]),
        with("net", &[], &["10.0.0.0/8"]),
        with("subnet", &[], &["10.1.0.0/16"]),
        with("port", &[], &["10.1.0.0/16:5432"]),
        with("any-name", &["*"], &[]),
        with("names", &["*.db.internal"], &[]),
        with("name", &["a.db.internal"], &["10.0.0.0/8"]),
    ]));
    for (destination, sni, expected) in [
        ("", "", "rest"),
        ("10.2.0.1:1", "", "net"),
        ("[::ffff:10.2.0.1]:1", "", "net"),
        ("10.1.0.1:1", "", "subnet"),
        ("10.1.0.1:5432", "", "port"),
        ("10.1.0.1:5432", "x", "any-name"),
        ("", "b.db.internal", "names"),
        ("", "A.db.internal", "names"),
        ("10.1.0.1:5432", "a.db.internal", "name"),
        ("[2001:db8::1]:5432", "", "rest"),
    ] {
        let client = client(destination, sni);
        let found = table.find_tcp(&client).map_or("-", |route| &route.name);
        assert_eq!(found, expected, "{destination} {sni}");
        let explained = explain_tcp(&table, &client, &[]);
        let wins = explained.candidates.iter().find(|candidate| candidate.verdict == RouteVerdict::Wins);
        assert_eq!(wins.map(|winner| &*winner.route), Some(expected));
    }
}

#[test]
fn a_route_for_an_identity_comes_before_one_for_everybody_and_only_that_identity_takes_it() {
    let of = |identity: &str| {
        let identities = match identity.strip_prefix("subject:") {
            Some(subject) => vec![SanPattern::Subject(subject.into())],
            None => vec![SanPattern::Uri(identity.into())],
        };
        Match { identities, ..matching(&[], "-") }
    };
    let table = RouteTable::new(&listener(vec![
        route("anybody", matching(&[], "-")),
        route("web", of("spiffe://cluster.local/ns/*/sa/web")),
        route("subject", of("subject:CN=cron")),
        route("path", matching(&[], "/v1/*")),
    ]));
    let nobody = Client::default();
    let web = client("", "");
    let cron = VerifiedIdentity { subject: "CN=cron,O=Shop".into(), ..VerifiedIdentity::default() };
    let cron = Client { proven: Some(Box::new(cron)), ..Client::default() };
    // A DNS name that looks like a URI is not a URI.
    let forged = Client { proven: VerifiedIdentity::names(web.identities().to_vec(), 0), ..client("", "") };
    for (client, http, tcp) in [
        (&nobody, "anybody", "anybody"),
        (&web, "web", "web"),
        (&cron, "subject", "subject"),
        (&forged, "anybody", "anybody"),
    ] {
        let request = request("GET", "a.internal/x", &[]);
        let found = table.find_http(&RequestFacts::of(&request, client)).unwrap();
        assert_eq!(&*found.route.name, http);
        assert_eq!(&*table.find_tcp(client).unwrap().name, tcp);
        let explained = explain_tcp(&table, client, &[]);
        assert_eq!(explained.outcome.unwrap().route, tcp);
    }
    let request = request("GET", "a.internal/v1/x", &[]);
    let found = table.find_http(&RequestFacts::of(&request, &web)).unwrap();
    assert_eq!(&*found.route.name, "path", "path before identity");
}

/// A table of these routes, whose traffic is `traffic`.
fn meant_for(traffic: Traffic, routes: Vec<Route>) -> RouteTable {
    let mut all = listener(routes);
    for route in &mut all.routes {
        if let Action::Forward(forward) = &mut route.action {
            forward.traffic = traffic;
        }
    }
    RouteTable::new(&all)
}

#[test]
fn opaque_bytes_take_no_route_that_is_for_http() {
    let opaque = |traffic| {
        let table = meant_for(traffic, vec![route("app", Match::default())]);
        let passed = client("", "a.b");
        (table.takes(&Client::default()), table.takes(&passed).opaque)
    };
    assert_eq!(opaque(Traffic::Http), (AcceptedTraffic { http: true, opaque: false }, false));
    assert_eq!(opaque(Traffic::Opaque), (AcceptedTraffic { http: false, opaque: true }, true));
    assert_eq!(opaque(Traffic::Original), (AcceptedTraffic { http: true, opaque: true }, true));
    // Only TLS names a host.
    assert_eq!(opaque(Traffic::Named), (AcceptedTraffic { http: true, opaque: false }, true));
}

#[test]
fn opaque_bytes_bypass_no_rule_of_the_same_upstream() {
    let at = |destination: &str, path: &str| Match {
        destination: vec![range(destination)],
        ..matching(&[], path)
    };
    let mut closed = route("closed", at("10.1.0.0/16", "/admin/*"));
    closed.action = Action::Respond(attache_config::model::Respond {
        status: http::StatusCode::FORBIDDEN,
        body: [].into(),
        content_type: attache_config::model::Respond::CONTENT_TYPE,
    });
    let mut edited = route("edited", at("10.2.0.0/16", "-"));
    edited.request_headers.remove.push(http::header::COOKIE);
    let elsewhere = {
        let mut elsewhere = route("elsewhere", at("10.3.0.0/16", "/v1/*"));
        elsewhere.action = Action::Forward(crate::testing::forward(&[(7, 1)]));
        elsewhere
    };
    let table = meant_for(Traffic::Original, vec![closed, edited, elsewhere, route("any", Match::default())]);
    let taken = |destination: &str| table.find_tcp(&client(destination, "")).map_or("-", |route| &route.name);
    assert_eq!(taken("10.0.0.1:1"), "any");
    assert_eq!(taken("10.1.0.1:1"), "-", "past a path that is closed");
    assert_eq!(taken("10.2.0.1:1"), "-", "past what the route removes");
    assert_eq!(taken("10.3.0.1:1"), "any", "another upstream's rules are its own");
    let told = explain_tcp(&table, &client("10.1.0.1:1", ""), &[]).outcome.unwrap();
    assert!(told.action.starts_with("refuse with no-route: "), "{}", told.action);
}

#[test]
fn tls_is_passed_through_by_routes_that_say_so_and_no_other_traffic_takes_them() {
    let sni = |name: &str| Match { sni: vec![crate::testing::host(name)], ..Match::default() };
    let mut through = route("through", sni("db.internal"));
    if let Action::Forward(forward) = &mut through.action {
        forward.tls = RouteTls::Passthrough;
    }
    let mut listener = listener(vec![through, route("inside", sni("*")), route("rest", Match::default())]);
    listener.tls = Some(attache_config::model::TlsServer::default());
    let table = RouteTable::new(&listener);
    assert!(table.passes_tls());
    let taken = |sni: &str, tls: bool| {
        let client = Client { tls, ..client("", sni) };
        table.find_tcp(&client).map_or("-".to_owned(), |route| route.name.to_string())
    };
    assert_eq!(taken("db.internal", false), "through");
    assert_eq!(taken("db.internal", true), "inside");
    assert_eq!(taken("other.internal", false), "-");
    assert_eq!(taken("other.internal", true), "inside");
    let decrypted = Client { tls: true, ..client("", "db.internal") };
    let request = request("GET", "db.internal/", &[]);
    let matched = table.find_http(&RequestFacts::of(&request, &decrypted)).unwrap();
    assert_eq!(&*matched.route.name, "inside");
}
