//! A brown-out: an upstream becomes slower the more requests it has at once, and it gets more than it can process. With adaptive
//! concurrency it still answers as many as it can in time; without, it works on calls whose callers have left.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use attache_tests::{Attache, local};

/// How many requests it can process at once without becoming slower.
const SLOTS: f64 = 8.0;
/// How long one request takes then.
const BASE: Duration = Duration::from_millis(20);
const SLICE: Duration = Duration::from_millis(5);
const CLIENTS: usize = 64;
const RUN: Duration = Duration::from_secs(6);

/// A server with this many slots. Above them every request slows down all others, by the square of their number (they wait for each other's
/// locks and displace each other from the caches). It doesn't notice when a client has left.
fn server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let running = Arc::new(AtomicU64::new(0));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, running) = (stream.unwrap(), running.clone());
            thread::spawn(move || serve(stream, &running));
        }
    });
    port
}

fn serve(stream: TcpStream, running: &AtomicU64) {
    let mut stream = BufReader::new(stream);
    while head(&mut stream).is_some() {
        running.fetch_add(1, Relaxed);
        let mut done = 0.0;
        while done < 1.0 {
            let begin = Instant::now();
            thread::sleep(SLICE);
            let crowd = (running.load(Relaxed) as f64 / SLOTS).max(1.0);
            done += begin.elapsed().as_secs_f64() / (BASE.as_secs_f64() * crowd * crowd);
        }
        running.fetch_sub(1, Relaxed);
        if stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").is_err() {
            return;
        }
    }
}

fn head(stream: &mut impl BufRead) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    Some(head.to_lowercase())
}

/// Sends one request on the kept connection, or on a new one. Returns whether it was answered with 200.
fn ask(kept: &mut Option<BufReader<TcpStream>>, port: u16) -> Option<bool> {
    let mut stream = match kept.take() {
        Some(stream) => stream,
        None => BufReader::new(TcpStream::connect(local(port)).ok()?),
    };
    stream.get_mut().write_all(b"GET / HTTP/1.1\r\nhost: orders\r\n\r\n").ok()?;
    let head = head(&mut stream)?;
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    *kept = Some(stream);
    Some(head.starts_with("http/1.1 200"))
}

/// Runs clients that send the next request at once after a response, and after a short wait when one failed. Returns the counts of good and
/// of other responses.
fn run(feature: &str) -> (u64, u64, Attache) {
    let attache = Attache::start(&format!(
        "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT' }} }}
upstreams: {{ orders: {{ address: 'http://127.0.0.1:{}', timeout: 500ms, retry: off{feature} }} }}",
        server()
    ));
    let port = attache.port;
    let until = Instant::now() + RUN;
    let client = move || {
        let (mut kept, mut good, mut other) = (None, 0, 0);
        while Instant::now() < until {
            if ask(&mut kept, port) == Some(true) {
                good += 1;
            } else {
                other += 1;
                thread::sleep(Duration::from_millis(100));
            }
        }
        (good, other)
    };
    let clients: Vec<_> = (0..CLIENTS).map(|_| thread::spawn(client)).collect();
    let ends = clients.into_iter().map(|client| client.join().unwrap());
    let (good, other) = ends.fold((0, 0), |(good, other), (g, o)| (good + g, other + o));
    (good, other, attache)
}

#[test]
fn adaptive_concurrency_keeps_the_goodput_of_an_upstream_that_gets_too_much() {
    let (without, failed, _) = run("");
    let (with, refused, attache) = run(", adaptive_concurrency: {}");
    let seconds = RUN.as_secs_f64();
    println!(
        "brown-out, {CLIENTS} clients for {SLOTS} slots: {:.0} good answers a second without ({failed} failed), {:.0} with ({refused} refused), {:.1} times as many",
        without as f64 / seconds,
        with as f64 / seconds,
        with as f64 / (without as f64).max(1.0)
    );
    assert!(with >= 2 * without && with > 100, "{with} {without}");
    let blocked = attache.metric("attache_upstream_overflow_total", &["reason=\"overflow-adaptive\""]);
    assert!(blocked > 0.0);
    let limit = attache.metric("attache_upstream_concurrency_limit", &["upstream=\"orders\""]);
    assert!(limit >= 3.0 && limit < CLIENTS as f64, "{limit}");
    assert!(attache.metric("attache_upstream_min_round_trip_time_seconds", &["orders"]) > 0.01);
}
