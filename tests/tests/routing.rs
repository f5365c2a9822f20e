//! Routes in the real program: what they match, change, answer, split, copy and limit.

use attache_tests::{Attache, curl, eventually, free_port, local, nginx, text};

/// An nginx that answers with its name and the request, and counts requests in its log.
fn named(name: &str, port: u16) -> attache_tests::TestProcess {
    nginx(
        &format!(
            "log_format brief '$request $http_host';
             server {{ listen 127.0.0.1:{port}; access_log $DIR/access.log brief; location / {{ return 200 '{name} $request_uri $host [$http_x_client] [$http_x_secret] $http_via'; }} }}"
        ),
        local(port),
    )
}

/// Servers that answer with `one`, `two` and `three`, and their ports.
fn three_servers() -> ([u16; 3], Vec<attache_tests::TestProcess>) {
    let ports = [(); 3].map(|()| free_port());
    let servers = ["one", "two", "three"].iter().zip(ports).map(|(name, port)| named(name, port)).collect();
    (ports, servers)
}

fn lines(server: &attache_tests::TestProcess) -> Vec<String> {
    let log = std::fs::read_to_string(server.dir().join("access.log")).unwrap_or_default();
    log.lines().map(str::to_owned).collect()
}

#[test]
fn the_most_specific_route_wins_and_rewrites() {
    let (a, b) = (free_port(), free_port());
    let (_a, _b) = (named("a", a), named("b", b));
    let attache = Attache::start(&format!(
        "listeners:
  outbound:
    bind: 127.0.0.1:$PORT
    routes:
      - {{ match: {{ host: '*.shop.test' }}, to: b }}
      - match: {{ host: orders.shop.test, path: '/users/{{id}}/{{rest...}}' }}
        to: a
        rewrite: {{ path: '/v2/{{id}}/{{rest}}', host: upstream }}
        headers:
          request: {{ set: {{ x-client: '%{{client.address}}' }}, remove: x-secret }}
          response: {{ set: {{ x-route: '%{{route}}' }}, remove: server }}
        name: users
      - {{ match: {{ host: orders.shop.test, path: /old/* }}, redirect: {{ status: 308, path: /new }} }}
      - {{ match: {{ host: orders.shop.test, path: /teapot }}, respond: {{ status: 418, body: short and stout }} }}
      - {{ match: {{ host: orders.shop.test, methods: [DELETE] }}, respond: 405 }}
      - {{ match: {{ host: orders.shop.test, headers: {{ x-beta: '1' }} }}, to: b }}
      - {{ match: {{ host: orders.shop.test }}, to: a }}
upstreams:
  a: http://127.0.0.1:{a}
  b: http://127.0.0.1:{b}"
    ));
    let ask = |arguments: &[&str], path: &str| {
        let url = attache.url(path);
        let all =
            ["-i", "-H", "Host: orders.shop.test"].iter().chain(arguments).copied().chain([url.as_str()]);
        text(&curl(all.collect::<Vec<_>>()))
    };
    let rewritten = ask(&["-H", "x-secret: hush"], "/users/7/a/b?q=1");
    assert!(rewritten.contains("a /v2/7/a/b?q=1 127.0.0.1 [127.0.0.1] [] 1.1 attache"), "{rewritten}");
    assert!(
        rewritten.contains("x-route: users") && !rewritten.to_lowercase().contains("server: nginx"),
        "{rewritten}"
    );
    let redirect = ask(&[], "/old/x?q=1");
    assert!(
        redirect.starts_with("HTTP/1.1 308")
            && redirect.contains("location: http://orders.shop.test/new?q=1"),
        "{redirect}"
    );
    let teapot = ask(&[], "/teapot");
    assert!(teapot.starts_with("HTTP/1.1 418") && teapot.ends_with("short and stout"), "{teapot}");
    assert!(ask(&["-X", "DELETE"], "/").starts_with("HTTP/1.1 405"));
    assert!(ask(&["-H", "x-beta: 1"], "/x").contains("\r\n\r\nb /x"));
    assert!(ask(&[], "/x").contains("\r\n\r\na /x"));
    let other = text(&curl(["-H", "Host: any.shop.test", &attache.url("/x")]));
    assert!(other.starts_with("b /x"), "{other}");
    let none = text(&curl(["-i", "-H", "Host: nobody.test", &attache.url("/x")]));
    assert!(none.starts_with("HTTP/1.1 404") && none.contains("x-attache-reason: no-route"), "{none}");
}

#[test]
fn a_split_follows_its_weights() {
    let (a, b) = (free_port(), free_port());
    let (_a, _b) = (named("a", a), named("b", b));
    let attache = Attache::start(&format!(
        "listeners:
  outbound: {{ bind: '127.0.0.1:$PORT', to: {{ a: 75%, b: 25% }} }}
upstreams:
  a: http://127.0.0.1:{a}
  b: http://127.0.0.1:{b}"
    ));
    let answers = text(&curl(["--http1.1", &attache.url("/[1-1000]")]));
    let of_b = answers.matches("b /").count();
    // Eight standard deviations of a fair split: the test fails for wrong weights, not by chance.
    assert!((140..=360).contains(&of_b), "{of_b} of 1000 went to b");
}

#[test]
fn a_mirror_gets_a_copy_and_its_failures_cost_nothing() {
    let (a, b) = (free_port(), free_port());
    let (_a, mirror) = (named("a", a), named("mirror", b));
    let attache = Attache::start(&format!(
        "listeners:
  outbound:
    bind: 127.0.0.1:$PORT
    routes:
      - {{ match: {{ path: /lost/* }}, to: a, mirror: {{ gone: 100% }} }}
      - {{ match: {{ path: /* }}, to: a, mirror: {{ copy: 100% }} }}
upstreams:
  a: http://127.0.0.1:{a}
  copy: http://127.0.0.1:{b}
  gone: http://127.0.0.1:{}",
        free_port()
    ));
    let body = "x".repeat(200_000);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &body).unwrap();
    let upload = format!("@{}", file.path().display());
    assert!(text(&curl(["-H", "Host: h", &attache.url("/get")])).starts_with("a /get"));
    assert!(
        text(&curl(["-H", "Host: h", "--data-binary", &upload, &attache.url("/post")]))
            .starts_with("a /post")
    );
    assert!(
        text(&curl(["-H", "Host: h", "--data-binary", &upload, &attache.url("/lost/x")]))
            .starts_with("a /lost/x")
    );
    eventually("both copies arrive, marked", || {
        let lines = lines(&mirror);
        ["GET /get HTTP/1.1 h-shadow", "POST /post HTTP/1.1 h-shadow"]
            .iter()
            .all(|copy| lines.iter().any(|l| l == copy))
    });
    assert!(!lines(&mirror).iter().any(|line| line.contains("/lost")));
}

#[test]
fn a_rate_limit_answers_429_and_a_fault_its_status() {
    let a = free_port();
    let _a = named("a", a);
    let attache = Attache::start(&format!(
        "listeners:
  outbound:
    bind: 127.0.0.1:$PORT
    routes:
      - {{ match: {{ path: /limited }}, to: a, rate_limit: {{ requests: 2, per: 1h }} }}
      - {{ match: {{ path: /broken }}, to: a, fault: {{ abort: {{ status: 503, share: 100% }} }} }}
upstreams: {{ a: 'http://127.0.0.1:{a}' }}"
    ));
    let codes = text(&curl(["-o", "/dev/null", "-w", "%{http_code} ", &attache.url("/limited?[1-4]")]));
    assert!(codes.contains("200") && codes.trim_end().ends_with("429"), "{codes}");
    let limited = text(&curl(["-i", &attache.url("/limited")])).to_lowercase();
    assert!(
        limited.contains("x-attache-reason: rate-limited") && limited.contains("retry-after:"),
        "{limited}"
    );
    let broken = text(&curl(["-i", &attache.url("/broken")]));
    assert!(
        broken.starts_with("HTTP/1.1 503") && broken.contains("x-attache-reason: fault-injected\r\n"),
        "{broken}"
    );
}

#[test]
fn a_request_that_would_come_back_is_refused() {
    let attache = Attache::start(
        "listeners: { outbound: { bind: '127.0.0.1:$PORT', to: anywhere } }\nupstreams: { anywhere: authority }",
    );
    let answer = text(&curl(["-i", &attache.url("/")]));
    assert!(answer.starts_with("HTTP/1.1 508") && answer.contains("loop-detected"), "{answer}");
}

#[test]
fn all_answers_of_attache_have_the_headers_that_the_listener_adds() {
    let a = free_port();
    let _a = named("a", a);
    let attache = Attache::start(&format!(
        "listeners:
  outbound:
    bind: 127.0.0.1:$PORT
    local_reply:
      headers:
        remove: [ratelimit-reset, x-attache-reason]
        set: {{ strict-transport-security: max-age=60, x-by: '%{{listener}}/%{{route}} %{{request.id}}', cache-control: private }}
    routes:
      - {{ name: limited, match: {{ path: /limited }}, to: a, rate_limit: {{ requests: 1, per: 1h }} }}
      - {{ name: gone, match: {{ path: /gone }}, to: gone }}
      - {{ name: denied, match: {{ path: /denied }}, to: a, authorization: {{ deny: [{{ methods: GET }}] }} }}
      - {{ name: fine, match: {{ path: /fine }}, to: a }}
upstreams: {{ a: 'http://127.0.0.1:{a}', gone: 'http://127.0.0.1:{}' }}",
        free_port()
    ));
    let url = |path: &str| attache.url(path);
    text(&curl([&url("/limited")]));
    let ask = |path: &str, more: &[&str]| {
        let all = ["-i", "-H", "x-request-id: seven"].iter().chain(more).copied();
        text(&curl(all.chain([url(path).as_str()]).collect::<Vec<_>>())).to_lowercase()
    };
    let http2 = ["--http2-prior-knowledge"];
    let grpc = ["-H", "content-type: application/grpc", "-d", ""];
    for (path, status, route, more) in [
        ("/limited", "429", "limited", &[][..]),
        ("/gone", "503", "gone", &[]),
        ("/denied", "403", "denied", &[]),
        ("/denied", "403", "denied", &http2),
        ("/gone", "200", "gone", &grpc),
        ("/nowhere", "404", "", &[]),
    ] {
        let answer = ask(path, more);
        assert!(answer.split(' ').nth(1) == Some(status), "{path}: {answer}");
        for line in [
            "strict-transport-security: max-age=60\r\n",
            "cache-control: private\r\n",
            &format!("x-by: outbound/{route} seven\r\n"),
        ] {
            assert_eq!(answer.matches(line).count(), 1, "{path}: {line}: {answer}");
        }
        assert!(
            !answer.contains("x-attache-reason") && !answer.contains("ratelimit-reset"),
            "{path}: {answer}"
        );
    }
    assert!(ask("/limited", &[]).contains("ratelimit-limit: 1"));
    assert!(!ask("/fine", &[]).contains("x-by:"), "an upstream's response is not changed");
    // A request that can't be parsed.
    let broken = attache_tests::raw(local(attache.port), b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
    assert!(broken.contains("400 ") && broken.contains("x-by: outbound/"), "{broken}");
}

#[test]
fn a_route_picks_a_subset_of_the_endpoints_and_an_empty_one_is_refused() {
    let ([one, two, three], mut servers) = three_servers();
    let attache = Attache::start(&format!(
        "listeners:
  outbound:
    bind: 127.0.0.1:$PORT
    routes:
      - {{ match: {{ path: /v2 }}, to: app, subset: {{ labels: {{ version: v2 }} }}, retry: 3 }}
      - {{ match: {{ path: /both }}, to: app, subset: {{ labels: {{ version: v1, tier: gold }} }} }}
      - {{ match: {{ path: /all }}, to: app }}
upstreams:
  app:
    address:
      - {{ address: 'http://127.0.0.1:{one}', labels: {{ version: v1 }} }}
      - {{ address: 'http://127.0.0.1:{two}', labels: {{ version: v1, tier: gold }} }}
      - {{ address: 'http://127.0.0.1:{three}', labels: {{ version: v2 }} }}
"
    ));
    let ask = |path: &str| text(&curl([&attache.url(&format!("{path}?[1-30]"))]));
    assert_eq!(ask("/v2").matches("three /v2").count(), 30);
    assert_eq!(ask("/both").matches("two /both").count(), 30);
    let all = ask("/all");
    assert!(["one /", "two /", "three /"].iter().all(|name| all.contains(name)), "{all}");
    // The endpoint of the subset has ended: no other endpoint is used instead.
    drop(servers.remove(2));
    let answer = text(&curl(["-i", &attache.url("/v2")]));
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
}

#[test]
fn a_session_s_cookie_keeps_a_client_at_one_endpoint_and_can_not_lead_elsewhere() {
    const KEY: &str = "a-secret-that-nobody-else-could-know";
    let ([one, two, three], mut servers) = three_servers();
    let new = KEY.replace("secret", "newer-secret");
    let attache = Attache::start(&format!(
        "listeners:
  outbound:
    bind: 127.0.0.1:$PORT
    routes:
      - {{ match: {{ path: /shop/* }}, to: app, session_cookie: {{ name: sid, key: {KEY}, path: /shop, ttl: 1h }}, retry: 3 }}
      - {{ match: {{ path: /strict/* }}, to: app, session_cookie: {{ name: sid, key: [{new}, {KEY}], strict: true }} }}
upstreams:
  app: {{ address: ['http://127.0.0.1:{one}', 'http://127.0.0.1:{two}', 'http://127.0.0.1:{three}'], balance: round-robin }}
"
    ));
    let ask = |path: &str, cookie: &str| {
        let header = format!("Cookie: {cookie}");
        text(&curl(["-i", "-H", &header, &attache.url(path)]))
    };
    let set = |answer: &str| {
        let line = answer.lines().find_map(|line| line.strip_prefix("set-cookie: "))?;
        Some(line.trim().to_owned())
    };
    let body = |answer: &str| answer.split_once("\r\n\r\n").unwrap().1.split(' ').next().unwrap().to_owned();
    let first = ask("/shop/a", "other=1");
    let given = set(&first).unwrap_or_else(|| panic!("{first}"));
    let (pair, rest) = given.split_once("; ").unwrap();
    assert_eq!(rest, "Path=/shop; Max-Age=3600; HttpOnly; SameSite=Lax");
    assert!(!given.contains("127"), "it contains no address: {given}");
    for _ in 0..12 {
        let next = ask("/shop/b", &format!("a=b; {pair}; c=d"));
        assert_eq!((body(&next), set(&next)), (body(&first), None), "{next}");
    }
    // A value that attache has not made is not a session: the client gets a new session, with one of the same endpoints. The same is true
    // of a value that was changed.
    let changed =
        if pair.ends_with('A') { pair.replace('A', "B") } else { format!("{}A", &pair[..pair.len() - 1]) };
    for odd in [
        "sid=127.0.0.1:22",
        "sid=ffffffffffffffff",
        "sid=",
        "SID=0000000000000000",
        "sid=MTI3LjAuMC4xOjIy",
        &changed,
    ] {
        for path in ["/shop/a", "/strict/a"] {
            let answer = ask(path, odd);
            assert!(answer.starts_with("HTTP/1.1 200") && set(&answer).is_some(), "{path} {odd}: {answer}");
        }
    }
    // If two cookies have the same name, the first counts: browsers send the one with the longer path first.
    let twice = ask("/shop/a", &format!("{pair}; {changed}"));
    assert_eq!((body(&twice), set(&twice)), (body(&first), None), "{twice}");
    // The first key of the other route is newer, and its second key made this cookie.
    assert!(ask("/strict/a", pair).starts_with("HTTP/1.1 200"));
    // Its endpoint has ended: the session moves, and a strict session ends.
    let at = ["one", "two", "three"].iter().position(|name| *name == body(&first)).unwrap();
    drop(servers.remove(at));
    let moved = ask("/shop/a", pair);
    assert!(moved.starts_with("HTTP/1.1 200") && body(&moved) != body(&first), "{moved}");
    let now = set(&moved).unwrap_or_else(|| panic!("{moved}"));
    assert_ne!(now.split_once(';').unwrap().0, pair);
    let strict = ask("/strict/a", pair);
    assert!(strict.starts_with("HTTP/1.1 503"), "{strict}");
}
