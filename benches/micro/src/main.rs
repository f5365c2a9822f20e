//! Measures the cost of each part of a request's handling: `attache-micro PART TIMES`, or without arguments a list of the parts.
//!
//! `cargo xtask instructions` runs each part twice under callgrind, a different number of times, and divides the difference. So the cost of
//! the start doesn't count, and the same program gives the same numbers on any machine, however busy it is. Run directly, it prints the
//! time per repetition, which is only useful for a comparison within one run.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark")]

use std::{
    env,
    fmt::Write,
    future::{Ready, ready},
    hint::black_box,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use attache_authorization::{AccessPolicy, Facts};
use attache_config::model::{Config, FailureBreaker, PathPolicy, Policy};
use attache_http::{
    Body, Client, Upgrade, Via, add_forwarded, check_request, normalize_uri, request_id, strip_request,
    strip_response,
};
use attache_resilience::{UpstreamState, stack};
use attache_routing::{RequestFacts, RouteTable};
use attache_telemetry::{Exchange, Metrics};
use attache_upstream::{
    Balancer, Call, CallContext, EndpointAddress, EndpointSpec, Error, SharedUpstream, circuit::Circuit,
};
use attache_wire::{
    HeadLimits, Request, RequestHead, Response,
    outbox::BodyEncoder,
    request::{self, TargetStrictness},
    response::{self, MethodKind},
    write,
};
use bytes::BytesMut;
use http::Version;
use tokio::time::Instant;
use tower::Service;

/// A part: it is prepared once and then repeated this many times.
type MeasuredPart = fn(u64);

const PARTS: &[(&str, MeasuredPart)] = &[
    ("route: one host", |times| route(1, times)),
    ("route: the middle one of 5,000 hosts", |times| route(5000, times)),
    ("rules: two with five conditions", rules),
    ("wire: read a request's head", read_request),
    ("wire: read a response's head", read_answer),
    ("wire: write a request's head", write_request),
    ("headers: a copy of nine, which the parts below include", copy),
    ("headers: check, path, id, hop-by-hop, forwarding, Via", request_headers),
    ("headers: hop-by-hop and Via of a response", response_headers),
    ("balance: least request of 3 endpoints", |times| balance(3, times)),
    ("balance: least request of 1,000 endpoints", |times| balance(1000, times)),
    ("breaker: admit and record", breaker),
    ("resilience: every layer with its defaults", layers),
    ("metrics: an exchange begins and ends", metrics),
];

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (Some(name), Some(times)) = (arguments.first(), arguments.get(1)) else {
        for (name, _) in PARTS {
            println!("{name}");
        }
        return;
    };
    let times: u64 = times.parse().unwrap();
    let (_, part) = PARTS.iter().find(|(known, _)| known == name).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    // Some parts read tokio's clock.
    let _inside = runtime.enter();
    fastrand::seed(1);
    let start = Instant::now();
    part(times);
    println!("{} ns", start.elapsed().as_nanos() / u128::from(times.max(1)));
}

fn config(routes: usize) -> Config {
    let mut text = "\
upstreams: { a: 'http://127.0.0.1:1' }
listeners:
  l:
    bind: 127.0.0.1:1
    routes:
"
    .to_owned();
    for i in 0..routes {
        writeln!(text, "      - {{ match: {{ host: svc-{i:04}.shop.internal, path: /v1/* }}, to: a }}")
            .unwrap();
    }
    attache_config::parse(&text, None, &|_| None).unwrap()
}

fn head(host: &str) -> BytesMut {
    let lines = [
        "GET /v1/items?limit=10 HTTP/1.1",
        &format!("Host: {host}"),
        "User-Agent: curl/8.5.0",
        "Accept: application/json",
        "Accept-Encoding: gzip, br",
        "Authorization: Bearer 0123456789abcdef",
        "Cookie: session=0123456789abcdef; theme=dark",
        "X-Tenant: blue",
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "Connection: keep-alive",
        "",
        "",
    ];
    BytesMut::from(lines.join("\r\n").as_str())
}

fn parts(host: &str) -> RequestHead {
    Rc::unwrap_or_clone(request::read(&mut head(host), &LIMITS, TargetStrictness::Strict).unwrap().unwrap().1)
}

const LIMITS: HeadLimits = HeadLimits { line: 8192, size: 65536, count: 100 };

const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1024\r\n\
    Date: Sat, 21 Nov 2026 12:00:00 GMT\r\nServer: nginx\r\nETag: \"0123456789\"\r\nConnection: keep-alive\r\n\r\n";

fn read_request(times: u64) {
    let head = head("orders.internal");
    let mut buf = BytesMut::with_capacity(1 << 14);
    for _ in 0..times {
        buf.reserve(head.len());
        buf.extend_from_slice(&head);
        black_box(request::read(&mut buf, &LIMITS, TargetStrictness::Strict).unwrap().unwrap());
    }
}

fn read_answer(times: u64) {
    let mut buf = BytesMut::with_capacity(1 << 14);
    for _ in 0..times {
        buf.reserve(ANSWER.len());
        buf.extend_from_slice(ANSWER.as_bytes());
        black_box(response::read(&mut buf, &LIMITS, MethodKind::Other).unwrap().unwrap());
    }
}

fn write_request(times: u64) {
    let (parts, mut out) = (parts("orders.internal"), BytesMut::with_capacity(1 << 14));
    for _ in 0..times {
        out.clear();
        write::request(&mut out, &parts.method, b"/v1/items?limit=10", &parts.headers, BodyEncoder::None);
        black_box(&out);
    }
}

fn client() -> Client {
    Client { address: Some(SocketAddr::from(([10, 0, 0, 7], 40_000))), ..Client::default() }
}

fn route(routes: usize, times: u64) {
    let config = config(routes);
    let table = RouteTable::new(&config.listeners[0]);
    let host = format!("svc-{:04}.shop.internal", routes / 2);
    let (mut parts, client) = (parts(&host), client());
    check_request(&mut parts, false, true).unwrap();
    for _ in 0..times {
        let facts = RequestFacts::of(black_box(&parts), &client);
        assert!(black_box(table.find_http(&facts)).is_some());
    }
}

const RULES: &str = "\
upstreams: { a: 'http://127.0.0.1:1' }
listeners:
  l:
    bind: 127.0.0.1:1
    to: a
    authorization:
      deny: [ { path: /admin/*, not: { client: 192.168.0.0/16 } } ]
      allow: [ { client: 10.0.0.0/8, methods: [GET, HEAD], path: /v1/* } ]
";

fn rules(times: u64) {
    let config = attache_config::parse(RULES, None, &|_| None).unwrap();
    let policy = AccessPolicy::new(config.listeners[0].authorization.as_ref().unwrap());
    let (mut parts, client) = (parts("orders.internal"), client());
    check_request(&mut parts, false, true).unwrap();
    for _ in 0..times {
        let facts = Facts::of_request(black_box(&parts), &client);
        assert!(black_box(policy.decide(&facts)).is_allowed());
    }
}

fn copy(times: u64) {
    let original = parts("orders.internal");
    for _ in 0..times {
        black_box(black_box(&original).clone());
    }
}

fn request_headers(times: u64) {
    let (original, client, via) = (parts("orders.internal"), client(), Via::new("attache").unwrap());
    let config = config(1);
    let forwarded = &config.listeners[0].http.forwarded;
    for _ in 0..times {
        let mut parts = original.clone();
        let form = check_request(&mut parts, false, true).unwrap();
        normalize_uri(&mut parts.uri, PathPolicy::default()).unwrap();
        request_id(&mut parts.headers, true, true);
        let upgrade = Upgrade::of(&parts);
        strip_request(&mut parts.headers, upgrade.as_ref(), form.is_proxied());
        add_forwarded(&mut parts.headers, forwarded, &client, "http", "orders.internal");
        via.add(&mut parts.headers, Version::HTTP_11);
        black_box(parts);
    }
}

fn response_headers(times: u64) {
    let read = response::read(&mut BytesMut::from(ANSWER), &LIMITS, MethodKind::Other);
    let original = read.unwrap().unwrap().1.headers;
    let via = Via::new("attache").unwrap();
    for _ in 0..times {
        let mut headers = original.clone();
        strip_response(&mut headers, false, false);
        via.add(&mut headers, Version::HTTP_11);
        black_box(headers);
    }
}

fn shared(endpoints: u16) -> Arc<SharedUpstream> {
    let config = config(1);
    let shared = SharedUpstream::new(Arc::new(config.upstreams[0].clone()));
    let address = |n| EndpointAddress::Tcp(SocketAddr::from(([10, 0, 0, 1], n)));
    shared.replace_endpoints((1..=endpoints).map(|n| EndpointSpec::new(address(n))).collect(), None);
    Arc::new(shared)
}

fn balance(endpoints: u16, times: u64) {
    let shared = shared(endpoints);
    let mut balancer = Balancer::new(&shared.config.balance, 1);
    for _ in 0..times {
        black_box(balancer.pick(&shared, None, &[]).unwrap());
    }
}

fn breaker(times: u64) {
    let circuit = Circuit::new(FailureBreaker::default(), "orders".into(), None, Instant::now());
    let now = Instant::now();
    for _ in 0..times {
        let ticket = circuit.admit().unwrap();
        circuit.record(black_box(&ticket), true, now);
    }
}

/// An upstream that responds at once.
#[derive(Clone)]
struct InstantUpstream;

impl Service<Call> for InstantUpstream {
    type Response = Response<Body>;
    type Error = Error;
    type Future = Ready<Result<Response<Body>, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        drop(call);
        ready(Ok(Response::new(Body::empty())))
    }
}

fn layers(times: u64) {
    let state = UpstreamState::new(shared(3));
    let mut stack = stack(&Policy::default(), &state, InstantUpstream);
    let (client, exchange) = (Rc::new(client()), Rc::new(Exchange::new("l".into(), "http1", None)));
    let context = CallContext::new(client, exchange);
    let mut cx = Context::from_waker(Waker::noop());
    let original = Rc::new(parts("orders.internal"));
    for _ in 0..times {
        let request = Request::from_parts(original.clone(), Body::empty());
        let call = Call::new(request, context.clone());
        let mut answer = std::pin::pin!(stack.call(call));
        assert!(answer.as_mut().poll(&mut cx).is_ready());
    }
}

fn metrics(times: u64) {
    let metrics = Metrics::new();
    let worker = metrics.worker();
    let exchange = Exchange::new("l".into(), "http1", None);
    exchange.route.replace(Some("r".into()));
    exchange.upstream.replace(Some("u".into()));
    exchange.status.set(200);
    exchange.handed_to_upstream();
    exchange.time_to_head.set(Some(Duration::from_millis(3)));
    for _ in 0..times {
        worker.request_started(&exchange);
        black_box(worker.request_finished(&exchange));
    }
}
