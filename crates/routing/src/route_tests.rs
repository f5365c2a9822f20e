use std::time::Duration;

use attache_config::model::{
    Action, Fault, FaultDelay, FaultRate, HeaderEdits, Hedge, HedgeAfter, HostRewrite, Mirror, Name,
    PathRewrite, Policy, Redirect, Respond, Retry, RetryOn, Route, Template, TemplatePart, Timeouts,
    UpstreamId, Variable,
};
use attache_http::{Client, VerifiedIdentity};
use attache_wire::RequestHead;
use http::{HeaderName, HeaderValue, StatusCode};

use crate::{
    Captures, RequestFacts, RouteTable, TemplateContext, UpstreamHost, explain,
    testing::{client, forward, listener, matching, request, route, upstream},
};

const UPSTREAM: &str = "orders-next";

/// Applies one route to one request. Returns the request as it is sent and the response's headers.
fn sent(route: Route, mut parts: RequestHead, client: &Client) -> Result<(RequestHead, Vec<String>), String> {
    let table = RouteTable::new(&listener(vec![route]));
    let facts = RequestFacts::of(&parts, client);
    let matched = table.find_http(&facts).expect("the route matches");
    let next = UpstreamHost::of(&upstream("next", "next.internal", 8443));
    let host = matched.route.host(&facts, &next);
    let ctx = TemplateContext { client, captures: &matched.captures, upstream: UPSTREAM, host };
    let edits =
        matched.route.prepare_request(&mut parts, &ctx).map_err(|refusal| refusal.text.into_owned())?;
    let mut down = attache_wire::Fields::new();
    down.insert("server", HeaderValue::from_static("nginx"));
    edits.apply(&mut down);
    let down = down.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    Ok((parts, down))
}

fn rewritten(pattern: &str, rewrite: PathRewrite, target: &str) -> Result<String, String> {
    let mut route = route("r", matching(&[], pattern));
    let mut to = forward(&[(0, 1)]);
    to.path = rewrite;
    route.action = Action::Forward(to);
    sent(route, request("GET", target, &[]), &Client::default())
        .map(|(parts, _)| parts.uri.path_and_query().unwrap().to_string())
}

#[test]
fn a_prefix_is_replaced_on_its_segment_boundary() {
    let prefix = |pattern: &str, with: &str, target: &str| {
        rewritten(pattern, PathRewrite::Prefix(with.into()), target).unwrap()
    };
    assert_eq!(prefix("/v1/*", "/api", "a/v1/x?q=/v1"), "/api/x?q=/v1");
    assert_eq!(prefix("/v1/*", "/api/", "a/v1/x"), "/api/x");
    assert_eq!(prefix("/v1/*", "/api/", "a/v1"), "/api/");
    assert_eq!(prefix("/v1/*", "/", "a/v1/x"), "/x");
    assert_eq!(prefix("/v1/*", "/", "a/v1"), "/");
    assert_eq!(prefix("/v1/*", "/", "a/v1/"), "/");
    assert_eq!(prefix("/*", "/api", "a/x"), "/api/x");
    assert_eq!(prefix("-", "/api", "a/x"), "/api/x");
    assert_eq!(prefix("/v1", "/api", "a/v1"), "/api");
}

#[test]
fn a_whole_path_takes_captures_by_name_and_by_number() {
    let whole = |pattern: &str, with: &str, target: &str| {
        rewritten(pattern, PathRewrite::Whole(with.into()), target).unwrap()
    };
    assert_eq!(whole("/users/{id}/{rest...}", "/{rest}/of/{id}", "a/users/7/x/y?q"), "/x/y/of/7?q");
    assert_eq!(whole("~^/v(?<n>[0-9]+)/([a-z]+)$", "/{2}/{n}/{1}", "a/v12/abc"), "/abc/12/12");
    assert_eq!(whole("/{id}", "no slash {id}?#{other}", "a/7"), "/no%20slash%207%3F%23%7Bother%7D");
}

#[test]
fn a_rewritten_path_obeys_the_listeners_policy_too() {
    let whole =
        |pattern: &str, with: &str, target: &str| rewritten(pattern, PathRewrite::Whole(with.into()), target);
    // Each is harmless alone; together they are a `..` segment.
    assert_eq!(whole("~^/a(.)x(.)$", "/a/{1}{2}/b", "a/a.x."), Ok("/b".into()));
    assert!(whole("~^/a(.)x(.)$", "/{1}{2}/b", "a/a.x.").is_err());
}

#[test]
fn the_host_is_kept_taken_from_the_upstream_or_set() {
    let host = |rewrite: HostRewrite, target: &str| {
        let mut route = route("r", matching(&[], "-"));
        let mut to = forward(&[(0, 1)]);
        to.host = rewrite;
        route.action = Action::Forward(to);
        let (parts, _) = sent(route, request("GET", target, &[]), &Client::default()).unwrap();
        (parts.uri.to_string(), parts.headers.get("host").unwrap().to_str().unwrap().to_owned())
    };
    let same = |uri: &str, host: &str| (uri.to_owned(), host.to_owned());
    assert_eq!(host(HostRewrite::Preserve, "a:81/x"), same("http://a:81/x", "a:81"));
    assert_eq!(host(HostRewrite::Upstream, "a/x"), same("http://next.internal:8443/x", "next.internal:8443"));
    assert_eq!(host(HostRewrite::To("b:1".into()), "a/x"), same("http://b:1/x", "b:1"));
    // HTTP/1.0 without a host: the next hop needs one.
    assert_eq!(host(HostRewrite::Preserve, "/x"), same("http://next.internal:8443/x", "next.internal:8443"));
}

fn template(parts: &[TemplatePart]) -> Template {
    Template(parts.to_vec())
}

fn variable(name: &'static str, variable: Variable) -> (HeaderName, Template) {
    (HeaderName::from_static(name), template(&[TemplatePart::Variable(variable)]))
}

#[test]
fn header_changes_use_the_request_before_its_rewrite() {
    let mut route = route("orders", matching(&[], "/v1/{id}"));
    let mut to = forward(&[(0, 1)]);
    to.path = PathRewrite::Whole("/new".into());
    to.host = HostRewrite::Upstream;
    route.action = Action::Forward(to);
    route.request_headers = HeaderEdits {
        remove: vec![HeaderName::from_static("x-gone")],
        set: vec![
            variable("x-address", Variable::ClientAddress),
            variable("x-port", Variable::ClientPort),
            variable("x-identity", Variable::ClientIdentity),
            variable("x-host", Variable::Host),
            variable("x-path", Variable::Path),
            variable("x-method", Variable::Method),
            variable("x-scheme", Variable::Scheme),
            variable("x-id", Variable::RequestId),
            variable("x-copy", Variable::Header(HeaderName::from_static("x-gone"))),
            variable("x-capture", Variable::Capture("id".into())),
            variable("x-route", Variable::Route),
            variable("x-upstream", Variable::Upstream),
            variable("x-listener", Variable::Listener),
            variable("x-spoofed", Variable::Header(HeaderName::from_static("x-absent"))),
        ],
        add: vec![(
            HeaderName::from_static("x-list"),
            template(&[
                TemplatePart::Text("<".into()),
                TemplatePart::Variable(Variable::Capture("id".into())),
                TemplatePart::Text(">".into()),
            ]),
        )],
    };
    route.response_headers = HeaderEdits {
        remove: vec![HeaderName::from_static("server")],
        set: vec![variable("x-asked", Variable::Path)],
        add: Vec::new(),
    };
    let headers = [("x-gone", "old"), ("x-list", "first"), ("x-request-id", "id-1"), ("x-spoofed", "admin")];
    let (parts, down) = sent(route, request("GET", "a:81/v1/7", &headers), &client("", "")).unwrap();
    let mut lines: Vec<_> = parts
        .headers
        .iter()
        .filter(|(name, _)| *name != "x-request-id")
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    lines.sort();
    assert_eq!(
        lines,
        [
            "host: next.internal:8443",
            "x-address: 10.1.2.3",
            "x-capture: 7",
            "x-copy: old",
            "x-host: a:81",
            "x-id: id-1",
            "x-identity: spiffe://cluster.local/ns/shop/sa/web",
            "x-list: <7>",
            "x-list: first",
            "x-listener: outbound",
            "x-method: GET",
            "x-path: /v1/7",
            "x-port: 4567",
            "x-route: orders",
            "x-scheme: http",
            "x-upstream: orders-next",
        ]
    );
    assert_eq!(parts.uri, "http://next.internal:8443/new");
    assert_eq!(down, ["x-asked: /v1/7"]);
}

#[test]
fn no_value_begins_a_new_line() {
    let mut route = route("r", matching(&[], "-"));
    route.request_headers.set = vec![variable("x-identity", Variable::ClientIdentity)];
    let evil =
        Client { proven: VerifiedIdentity::names(["spiffe://a\r\nx-admin: 1\0"], 0), ..Client::default() };
    let (parts, _) = sent(route, request("GET", "a/", &[]), &evil).unwrap();
    assert_eq!(parts.headers.get("x-identity").unwrap(), "spiffe://ax-admin: 1");
    assert!(!parts.headers.contains_key("x-admin"));
}

fn answered(
    action: Action,
    pattern: &str,
    parts: &RequestHead,
) -> attache_wire::Response<attache_http::Body> {
    let mut route = route("r", matching(&[], pattern));
    route.action = action;
    route.response_headers.set = vec![variable("x-route", Variable::Route)];
    let client = Client::default();
    let table = RouteTable::new(&listener(vec![route]));
    let matched = table.find_http(&RequestFacts::of(parts, &client)).unwrap();
    let ctx = TemplateContext { client: &client, captures: &matched.captures, upstream: "", host: None };
    let response = matched.route.respond(parts, &ctx).unwrap();
    assert_eq!(response.headers().get("x-route").unwrap(), "r");
    response
}

#[test]
fn a_redirect_keeps_what_it_does_not_name() {
    let to = |change: fn(&mut Redirect), pattern: &str, target: &str| {
        let mut redirect =
            Redirect { status: StatusCode::FOUND, scheme: None, host: None, path: None, strip_query: false };
        change(&mut redirect);
        let response = answered(Action::Redirect(redirect), pattern, &request("GET", target, &[]));
        assert_eq!(response.status(), 302);
        response.headers().get("location").unwrap().to_str().unwrap().to_owned()
    };
    assert_eq!(to(|r| r.scheme = Some("https".into()), "-", "a:8080/x?q"), "https://a/x?q");
    assert_eq!(to(|r| r.host = Some("b:1".into()), "-", "a:8080/x?q"), "http://b:1/x?q");
    assert_eq!(to(|r| r.path = Some("/n/{id}".into()), "/o/{id}", "a:8080/o/7?q"), "http://a:8080/n/7?q");
    assert_eq!(to(|r| r.strip_query = true, "-", "[::1]:80/x?q"), "http://[::1]:80/x");
    assert_eq!(to(|r| r.path = Some("/x y?\r\n".into()), "-", "a/"), "http://a/x%20y%3F%0D%0A");
}

#[test]
fn a_redirect_without_a_host_never_leads_to_another_host() {
    let redirect = Redirect {
        status: StatusCode::FOUND,
        scheme: Some("https".into()),
        host: None,
        path: None,
        strip_query: false,
    };
    let response = answered(Action::Redirect(redirect), "-", &request("GET", "//evil.example/x", &[]));
    assert_eq!(response.headers().get("location").unwrap(), "/evil.example/x");
}

#[test]
fn a_direct_answer_has_its_body_except_where_none_may_be() {
    let respond = |status: u16| {
        Action::Respond(Respond {
            status: StatusCode::from_u16(status).unwrap(),
            body: b"closed".to_vec().into(),
            content_type: HeaderValue::from_static("text/plain"),
        })
    };
    let length = |response: &attache_wire::Response<attache_http::Body>| {
        http_body::Body::size_hint(response.body()).exact()
    };
    let get = answered(respond(503), "-", &request("GET", "a/", &[]));
    assert_eq!((get.status().as_u16(), length(&get)), (503, Some(6)));
    let head = answered(respond(200), "-", &request("HEAD", "a/", &[]));
    assert_eq!(
        (head.headers().get("content-length").unwrap().to_str().unwrap(), length(&head)),
        ("6", Some(0))
    );
    assert_eq!(length(&answered(respond(204), "-", &request("GET", "a/", &[]))), Some(0));
}

#[test]
fn a_split_follows_its_weights_exactly() {
    let mut split = route("r", matching(&[], "-"));
    split.action = Action::Forward(forward(&[(0, 95), (1, 0), (2, 5)]));
    let table = RouteTable::new(&listener(vec![split]));
    let route = &table.routes()[0];
    let mut counts = [0_u32; 3];
    for step in 0..10_000_u32 {
        let roll = (u64::from(step) * (1 << 32) / 10_000) as u32;
        counts[route.choose(roll).unwrap().1.upstream.0] += 1;
    }
    // A roll just below a bound may be rounded to either side.
    assert!(counts[0].abs_diff(9500) <= 1 && counts[1] == 0 && counts[2].abs_diff(500) <= 1, "{counts:?}");
    assert_eq!(route.choose(0).unwrap().1.upstream, UpstreamId(0));
    assert_eq!(route.choose(u32::MAX).unwrap().1.upstream, UpstreamId(2));
}

#[test]
fn mirrors_get_their_share() {
    let copies = [(1, 1.0), (2, 0.5), (3, 0.0)].map(|(id, ratio)| Mirror {
        upstream: UpstreamId(id),
        ratio,
        timeouts: Timeouts::default(),
    });
    let at = |roll: f64| crate::mirrors(&copies, || roll).map(|mirror| mirror.upstream.0).collect::<Vec<_>>();
    assert_eq!(at(0.0), [1, 2]);
    assert_eq!(at(0.5), [1]);
    assert_eq!(at(0.999), [1]);
}

#[test]
fn captures_are_made_only_for_routes_that_use_them() {
    let plain = route("plain", matching(&[], "/v1/{id}"));
    let table = RouteTable::new(&listener(vec![plain]));
    let parts = request("GET", "a/v1/7", &[]);
    let matched = table.find_http(&RequestFacts::of(&parts, &Client::default())).unwrap().captures;
    assert_eq!(matched, Captures::default());
}

#[test]
fn explain_shows_every_step() {
    let named = |name: &str, line: u32, matcher| {
        let mut named = route(name, matcher);
        named.line = line;
        named
    };
    let mut split = named("orders", 12, matching(&["orders.internal"], "/v1/*"));
    let mut to = forward(&[(0, 95), (1, 5)]);
    to.path = PathRewrite::Prefix("/api".into());
    to.host = HostRewrite::To("api.internal".into());
    to.mirrors = vec![Mirror { upstream: UpstreamId(1), ratio: 0.1, timeouts: Timeouts::default() }];
    let on = vec![RetryOn::GrpcStatus(14), RetryOn::Header(HeaderName::from_static("x-retry"))];
    let hedge = Some(Hedge::new(HedgeAfter::Percentile(0.95)));
    let retry = Retry { on, hedge, attempts: 1, ..Retry::default() };
    to.to[1].policy = Policy { retry, ..Policy::default() }.into();
    to.fault = Some(Fault {
        header: Some((HeaderName::from_static("x-chaos"), None)),
        delay: Some(FaultDelay { share: 0.5, time: Duration::from_millis(300) }),
        abort: None,
        response_rate: Some(FaultRate { share: 1.0, limit: 1000 }),
    });
    split.action = Action::Forward(to);
    split.request_headers.set = vec![variable("x-client", Variable::ClientAddress)];
    split.response_headers.remove = vec![HeaderName::from_static("server")];
    let mut writes = named("writes", 20, matching(&["orders.internal"], "/v1/orders/{id}"));
    writes.matcher.methods = vec![http::Method::POST];
    let mut outbound = listener(vec![
        named("billing", 4, matching(&["billing.internal"], "-")),
        split,
        writes,
        named("wild", 26, matching(&["*.internal"], "-")),
        named("rest", 30, matching(&[], "-")),
    ]);
    outbound.line = 3;
    let table = RouteTable::new(&outbound);
    let mut upstreams = [upstream("orders", "orders.internal", 80), upstream(UPSTREAM, "next.internal", 80)];
    upstreams[0].line = 40;
    let explanation =
        explain(&table, &request("GET", "orders.internal/v1/orders/7?x=1", &[]), &client("", ""), &upstreams);
    insta::assert_snapshot!(explanation, @r"
    GET http://orders.internal/v1/orders/7?x=1
    listener outbound (line 3)

    routes, the most specific first:
      writes (line 20): no: the method is not POST
    > orders (line 12): yes: the most specific that matches
      wild (line 26): would match too, but: an exact host comes before a `*.suffix` host
      rest (line 30): would match too, but: an exact host comes before any host
      1 more route is for other hosts

    forward
      95 % to upstream orders (line 40)
        host: api.internal (in place of the request's)
        timeouts: answer's head 15s, idle 5m
        retries: up to 2 times on connect-failure, refused-stream, reset-before-headers (idempotent methods, budget 20 %)
      5 % to upstream orders-next
        host: api.internal (in place of the request's)
        timeouts: answer's head 15s, idle 5m
        retries: once on grpc:unavailable, header:x-retry (idempotent methods, budget 20 %), hedged after p95
      a fault, of requests with x-chaos, delays 50 % of them by 300ms, slows their responses to 1000 bytes a second
      a copy to upstream orders-next (10 %)
      path becomes /api/orders/7?x=1
      request header: set x-client: 10.1.2.3
      response header: remove server
    ");
}

#[test]
fn explain_shows_a_connection_and_a_redirect() {
    let mut database = route("database", attache_config::model::Match::default());
    database.matcher.sni = vec![crate::testing::host("*.db.internal")];
    database.line = 7;
    let mut moved = route("moved", matching(&["old"], "/o/{id}"));
    let path = Some("/n/{id}".into());
    moved.action = Action::Redirect(Redirect {
        status: StatusCode::FOUND,
        scheme: None,
        host: None,
        path,
        strip_query: false,
    });
    let table = RouteTable::new(&listener(vec![moved, database]));
    let upstreams = [upstream("postgres", "db.internal", 5432)];
    let client = client("10.0.0.1:5432", "a.db.internal");
    insta::assert_snapshot!(crate::explain_tcp(&table, &client, &upstreams), @r"
    connection to 10.0.0.1:5432 with server name a.db.internal
    listener outbound

    routes, the most specific first:
      moved: no: it is for HTTP requests
    > database (line 7): yes: the most specific that matches

    forward
      100 % to upstream postgres
    ");
    insta::assert_snapshot!(explain(&table, &request("GET", "old/o/7?q", &[]), &client, &upstreams), @r"
    GET http://old/o/7?q
    listener outbound

    routes, the most specific first:
    > moved: yes: the most specific that matches
      database (line 7): would match too, but: an exact host comes before any host

    redirect with 302 Found to http://old/n/7?q
    ");
}

#[test]
fn explain_shows_why_nothing_matches() {
    let mut picky = route("picky", matching(&["a"], "-"));
    picky.matcher.headers = vec![crate::testing::value("x-tenant=blue")];
    let table = RouteTable::new(&listener(vec![picky, route("path", matching(&[], "/v1/{id}"))]));
    let explanation = explain(&table, &request("GET", "a/x", &[]), &Client::default(), &[]);
    insta::assert_snapshot!(explanation, @r"
    GET http://a/x
    listener outbound

    routes, the most specific first:
      picky: no: the header x-tenant is not `blue`
      path: no: the path is not `/v1/{id}`

    no route matches: answered with no-route
      GET /x with the Host `a`: no route of listener `outbound` matches
    ");
}

#[test]
fn an_upstreams_own_name_leaves_out_the_usual_port() {
    let name = |host: &str, port| upstream("u", host, port).authority().map(|name: Name| name.to_string());
    assert_eq!(name("orders.internal.", 80).as_deref(), Some("orders.internal"));
    assert_eq!(name("orders.internal", 8080).as_deref(), Some("orders.internal:8080"));
}
