//! What clients see, and what upstreams get, while upstreams fail under load.
//!
//! The load consists of plain threads with one kept connection each. Every run is limited by a count, or by a time after which it stops
//! earlier; it never has to meet a deadline.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use attache_tests::{Attache, TestProcess, eventually, free_port_on, local, nginx};

/// How many responses have each status; 0 means an end without a response.
#[derive(Clone, Debug, Default, PartialEq)]
struct AnswerCounts(BTreeMap<u16, u64>);

impl AnswerCounts {
    fn all(&self) -> u64 {
        self.0.values().sum()
    }

    fn failed(&self) -> u64 {
        self.all() - self.0.get(&200).copied().unwrap_or_default()
    }
}

/// Runs `clients` connections at once, each with `each` requests one after the other, or fewer if `until` comes first.
fn load(attache: &Attache, clients: u64, each: u64, until: Instant, request: &'static [u8]) -> AnswerCounts {
    let address = local(attache.port);
    let run = move || {
        let mut answers = AnswerCounts::default();
        let mut kept: Option<BufReader<TcpStream>> = None;
        for _ in 0..each {
            if Instant::now() >= until {
                break;
            }
            let status = ask(&mut kept, address, request).unwrap_or_default();
            *answers.0.entry(status).or_default() += 1;
        }
        answers
    };
    let running: Vec<_> = (0..clients).map(|_| thread::spawn(run)).collect();
    let mut sum = AnswerCounts::default();
    for client in running {
        for (status, n) in client.join().unwrap().0 {
            *sum.0.entry(status).or_default() += n;
        }
    }
    sum
}

/// Sends one request on the kept connection, or on a new one. Returns the status of its response, which was read completely.
fn ask(kept: &mut Option<BufReader<TcpStream>>, address: SocketAddr, request: &[u8]) -> Option<u16> {
    let mut stream = match kept.take() {
        Some(stream) => stream,
        None => BufReader::new(TcpStream::connect(address).ok()?),
    };
    stream.get_mut().write_all(request).ok()?;
    let head = head(&mut stream)?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let mut body = vec![0; length(&head)];
    stream.read_exact(&mut body).ok()?;
    if !head.contains("connection: close") {
        *kept = Some(stream);
    }
    Some(status)
}

/// Reads a head up to its empty line, in lower case; `None` if the other side closed instead.
fn head(stream: &mut impl BufRead) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    Some(head.to_lowercase())
}

fn length(head: &str) -> usize {
    let value = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    value.map_or(0, |value| value.parse().unwrap())
}

/// An upstream that answers every request with the result of `answer` for the request's number. With `false` it closes the connection right
/// after the response, without announcing it.
struct NumberedUpstream {
    port: u16,
    requests: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl NumberedUpstream {
    fn start(answer: fn(u64) -> (u16, bool), takes: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let upstream = Self { port, requests: Arc::default(), stop: Arc::default() };
        let (requests, stop) = (upstream.requests.clone(), upstream.stop.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Relaxed) {
                    break;
                }
                let requests = requests.clone();
                thread::spawn(move || serve(stream.unwrap(), &requests, answer, takes));
            }
        });
        upstream
    }

    fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }
}

impl Drop for NumberedUpstream {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        let _ = TcpStream::connect(local(self.port));
    }
}

fn serve(stream: TcpStream, requests: &AtomicU64, answer: fn(u64) -> (u16, bool), takes: Duration) {
    let mut stream = BufReader::new(stream);
    while let Some(head) = head(&mut stream) {
        let mut body = vec![0; length(&head)];
        if stream.read_exact(&mut body).is_err() {
            return;
        }
        let n = requests.fetch_add(1, Relaxed);
        let (status, stays) = answer(n);
        thread::sleep(takes);
        let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 2\r\n\r\nok");
        if stream.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
        if !stays {
            // Long enough for the next request to be under way, or to have arrived unread.
            thread::sleep(Duration::from_micros(mix(n) % 200));
            return;
        }
    }
}

/// Numbers without a pattern that the turns of requests could follow (`SplitMix64`).
fn mix(n: u64) -> u64 {
    let mut z = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn after(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: orders\r\n\r\n";

/// How many requests the upstream got, how many the clients sent, and the seconds taken, while one response in two is an error.
fn storm(budget: &str) -> (u64, u64, f64) {
    let upstream = NumberedUpstream::start(
        |n| (if mix(n).is_multiple_of(2) { 200 } else { 503 }, true),
        Duration::from_millis(5),
    );
    let attache = Attache::start(&format!(
        "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT' }} }}
upstreams:
  orders:
    address: 'http://127.0.0.1:{}'
    retry: {{ attempts: 2, on: 5xx, budget: {budget} }}
    circuit_breaker: {{ max_retries: 1000 }}",
        upstream.port
    ));
    let start = Instant::now();
    let answers = load(&attache, 20, 150, after(30), GET);
    (answers.all(), upstream.requests(), start.elapsed().as_secs_f64())
}

#[test]
fn a_retry_storm_adds_no_more_load_than_the_budget() {
    let (sent, got, seconds) = storm("20%");
    let floor = 3.0 * (seconds + 1.0);
    let added = got - sent;
    // A fifth of the running requests may be retries: that is a quarter of the other requests.
    let most = sent as f64 * 0.25 + floor;
    println!("budget 20 %: {sent} requests became {got} in {seconds:.1} s");
    assert!(added > 0 && (added as f64) <= most, "{added} of {sent} in {seconds} s");

    // This shows that the budget is the cause: without a limit, the same failures add three attempts to every four requests.
    let (sent, got, _) = storm("0%");
    println!("no budget: {sent} requests became {got}");
    assert!((got - sent) as f64 > sent as f64 * 0.4, "{got} of {sent}: there is no retry storm");
}

/// Three quick endpoints and a slow one, whose responses have status 203. Returns the responses after a first load, and the hedges that
/// won.
fn tail(hedge: &str) -> (AnswerCounts, f64) {
    let quick: Vec<_> =
        (0..3).map(|_| NumberedUpstream::start(|_| (200, true), Duration::from_millis(1))).collect();
    let slow = NumberedUpstream::start(|_| (203, true), Duration::from_millis(400));
    let addresses: Vec<_> =
        quick.iter().chain([&slow]).map(|one| format!("'http://127.0.0.1:{}'", one.port)).collect();
    let attache = Attache::start(&format!(
        "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT' }} }}
upstreams:
  orders:
    address: [{}]
    balance: round-robin
    retry: {{ hedge: {hedge}, budget: 100% }}",
        addresses.join(", ")
    ));
    load(&attache, 8, 10, after(30), GET);
    let answers = load(&attache, 8, 50, after(60), GET);
    // The attempt that lost was cancelled, and that did not count against its endpoint.
    assert_eq!(attache.metric("attache_upstream_ejections_total", &[]), 0.0);
    assert_eq!(attache.metric("attache_upstream_endpoints", &["healthy"]), 4.0);
    (answers, attache.metric("attache_upstream_hedges_total", &["won"]))
}

#[test]
fn hedging_removes_the_slow_tail() {
    let slow = |answers: &AnswerCounts| answers.0.get(&203).copied().unwrap_or_default();
    let (alone, won) = tail("off");
    assert_eq!(won, 0.0);
    assert!(slow(&alone) * 5 >= alone.all(), "{alone:?}: a quarter of the responses is slow");
    let (hedged, won) = tail("{ after: p70, min_samples: 40 }");
    println!(
        "slow answers: {} of {} alone, {} of {} hedged",
        slow(&alone),
        alone.all(),
        slow(&hedged),
        hedged.all()
    );
    assert_eq!(hedged.all(), 400);
    assert!(slow(&hedged) * 50 <= hedged.all(), "{hedged:?}: less than 2 % are slow");
    assert!(won >= 50.0, "{won}");
}

#[test]
fn hedges_add_no_more_load_than_the_budget() {
    let run = |budget: &str| {
        let upstreams = [(); 2].map(|()| NumberedUpstream::start(|_| (200, true), Duration::from_millis(40)));
        let [a, b] = upstreams.each_ref().map(|one| one.port);
        let attache = Attache::start(&format!(
            "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT' }} }}
upstreams:
  orders:
    address: ['http://127.0.0.1:{a}', 'http://127.0.0.1:{b}']
    retry: {{ hedge: 10ms, budget: {budget} }}"
        ));
        let start = Instant::now();
        let answers = load(&attache, 20, 40, after(60), GET);
        let got: u64 = upstreams.iter().map(NumberedUpstream::requests).sum();
        assert_eq!(answers.failed(), 0);
        (answers.all(), got - answers.all(), start.elapsed().as_secs_f64())
    };
    let (sent, added, seconds) = run("20%");
    println!("hedges: {sent} requests, {added} more in {seconds:.1} s");
    assert!(added > 0 && added as f64 <= sent as f64 * 0.25 + 3.0 * (seconds + 1.0), "{added} of {sent}");
    // Each request is slow enough for a hedge: the budget limited the hedges.
    let (sent, added, _) = run("100%");
    println!("hedges without a bound: {sent} requests, {added} more");
    assert!(added as f64 > sent as f64 * 0.4, "{added} of {sent}");
}

const fn loopback(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, last)
}

fn endpoint(last: u8, port: u16) -> TestProcess {
    let ip = loopback(last);
    let server =
        format!("server {{ listen {ip}:{port}; keepalive_requests 1000000; return 200 'from {last}'; }}");
    nginx(&server, SocketAddr::new(IpAddr::V4(ip), port))
}

#[test]
fn an_outage_of_one_of_three_endpoints_costs_only_the_requests_under_way() {
    let port = free_port_on(loopback(31));
    let (lost, _second, _third) = (endpoint(31, port), endpoint(32, port), endpoint(33, port));
    let attache = Attache::start(&format!(
        "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT' }} }}
upstreams:
  orders:
    address: ['http://127.0.0.31:{port}', 'http://127.0.0.32:{port}', 'http://127.0.0.33:{port}']
    balance: round-robin
    retry: off"
    ));
    let clients = 8;
    let run = |each| load(&attache, clients, each, after(60), GET);
    assert_eq!(run(100).failed(), 0);

    // Without retries, requests that were under way when their endpoint died are lost; later ones aren't.
    drop(lost);
    let before = run(50);
    println!("outage: {} errors of {}", before.failed(), before.all());
    assert!(before.failed() <= clients, "{before:?}");
    assert_eq!(run(50).failed(), 0);

    // A connection that no caller waits for brings the endpoint back.
    let _back = endpoint(31, port);
    let mut failed = 0;
    let mut kept = None;
    eventually("the endpoint is used again", || {
        failed += run(10).failed();
        let mut body = String::new();
        for _ in 0..6 {
            body += &said(&mut kept, local(attache.port));
        }
        body.contains("from 31")
    });
    assert_eq!(failed, 0, "errors on recovery");
    assert_eq!(run(100).failed(), 0);
}

const POST: &[u8] = b"POST / HTTP/1.1\r\nhost: orders\r\ncontent-length: 2\r\n\r\nhi";

#[test]
fn with_nine_of_ten_endpoints_refusing_no_caller_gets_an_error() {
    let port = free_port_on(loopback(41));
    let _alive = endpoint(41, port);
    // Nothing listens at the other addresses.
    let dead: Vec<_> = (42..=50).map(|last| format!("'http://127.0.0.{last}:{port}'")).collect();
    for balance in ["least-request", "round-robin"] {
        let attache = Attache::start(&format!(
            "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT' }} }}
upstreams:
  orders: {{ address: ['http://127.0.0.41:{port}', {}], balance: {balance} }}",
            dead.join(", ")
        ));
        for request in [GET, POST] {
            let answers = load(&attache, 8, 250, after(60), request);
            assert_eq!(answers.failed(), 0, "{balance}: {answers:?}");
        }
        let failed = attache.metric("attache_upstream_connection_failures_total", &["connect-refused"]);
        println!("{balance}: 4000 requests, {failed} connections that failed");
        // Each worker may try each of them once, at the same moment; then they are tried less and less often.
        assert!(failed <= 9.0 * 16.0, "{failed}");
    }
}

fn said(kept: &mut Option<BufReader<TcpStream>>, address: SocketAddr) -> String {
    let stream = kept.get_or_insert_with(|| BufReader::new(TcpStream::connect(address).unwrap()));
    stream.get_mut().write_all(GET).unwrap();
    let mut body = vec![0; length(&head(stream).unwrap())];
    stream.read_exact(&mut body).unwrap();
    String::from_utf8(body).unwrap()
}

#[test]
fn a_connection_that_the_upstream_closes_while_it_is_used_never_causes_an_error() {
    // One response in four is the last on its connection, without announcing that. A POST, which must not be sent twice, fails here.
    let upstream = NumberedUpstream::start(|n| (200, !mix(n).is_multiple_of(4)), Duration::ZERO);
    let attache = Attache::start(&format!(
        "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT' }} }}
upstreams: {{ orders: {{ address: 'http://127.0.0.1:{}', retry: off }} }}",
        upstream.port
    ));
    let start = Instant::now();
    let gets = load(&attache, 8, 6_250, after(15), GET);
    // A body that was sent on the lost connection is sent again.
    let puts = load(
        &attache,
        8,
        6_250,
        after(15),
        b"PUT / HTTP/1.1\r\nhost: orders\r\ncontent-length: 4\r\n\r\nbody",
    );
    println!("close races: {} GET, {} PUT in {:.1} s", gets.all(), puts.all(), start.elapsed().as_secs_f64());
    assert_eq!((gets.failed(), puts.failed()), (0, 0), "{gets:?} {puts:?}");
}
