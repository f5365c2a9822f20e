//! What attache tells upstreams, and what it concludes from their responses: deadlines that are passed on, endpoints that are ejected for
//! their failure rate, and endpoints whose breaker closes again after a trial.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use attache_tests::{Attache, curl, eventually, local, raw, text};

/// What a server does with its n-th request, counted from 0.
type AnswerRule = dyn Fn(u64) -> u16 + Send + Sync;

/// A server that keeps every request head, in lower case. Status 0 means that it never answers.
struct RecordingServer {
    port: u16,
    heads: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
}

impl RecordingServer {
    fn start(answer: impl Fn(u64) -> u16 + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = Self { port, heads: Arc::default(), stop: Arc::default() };
        let (heads, stop) = (server.heads.clone(), server.stop.clone());
        let answer: Arc<AnswerRule> = Arc::new(answer);
        thread::spawn(move || {
            let count = Arc::new(AtomicU64::new(0));
            for stream in listener.incoming().flatten() {
                if stop.load(Relaxed) {
                    break;
                }
                let (heads, answer, count) = (heads.clone(), answer.clone(), count.clone());
                thread::spawn(move || serve(stream, &heads, &*answer, &count));
            }
        });
        server
    }

    fn requests(&self) -> usize {
        self.heads.lock().unwrap().len()
    }
}

impl Drop for RecordingServer {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        let _ = TcpStream::connect(local(self.port));
    }
}

fn serve(stream: TcpStream, heads: &Mutex<Vec<String>>, answer: &AnswerRule, count: &AtomicU64) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        heads.lock().unwrap().push(head.to_lowercase());
        let status = answer(count.fetch_add(1, Relaxed));
        if status == 0 {
            // Waits until the client gives up.
            let _ = stream.read_line(&mut head);
            return;
        }
        let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 2\r\n\r\nok");
        if stream.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn get(attache: &Attache, header: &str) -> String {
    let request = format!("GET / HTTP/1.1\r\nhost: orders\r\nconnection: close\r\n{header}\r\n");
    raw(local(attache.port), request.as_bytes())
}

fn millis(head: &str) -> Option<u64> {
    head.lines().find_map(|line| line.strip_prefix("x-deadline: "))?.parse().ok()
}

#[test]
fn a_callers_deadline_is_kept_and_passed_on_shortened() {
    // The first attempt fails after a while, so the second has less time left.
    let server = RecordingServer::start(|n| match n {
        0 => {
            thread::sleep(Duration::from_millis(100));
            503
        }
        1 => 200,
        _ => 0,
    });
    let attache = Attache::start(&format!(
        "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT' }} }}
upstreams:
  orders:
    address: 'http://127.0.0.1:{}'
    timeout: 60s
    deadline_header: x-deadline
    retry: {{ on: 503, attempts: 1 }}",
        server.port
    ));
    let answer = get(&attache, "x-deadline: 30000\r\n");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let told: Vec<_> = server.heads.lock().unwrap().iter().map(|head| millis(head).unwrap()).collect();
    assert!(told[0] <= 30_000 && told[1] + 100 <= told[0], "{told:?}");

    // A server that never answers: the caller's deadline of half a second ends the call, not the route's minute.
    let answer = get(&attache, "x-deadline: 500\r\n");
    assert!(answer.starts_with("HTTP/1.1 504") && answer.contains("request-timeout"), "{answer}");
    assert!(millis(&server.heads.lock().unwrap()[2]).unwrap() <= 500);
    // No work is done for a caller that no longer waits.
    let before = server.requests();
    let answer = get(&attache, "x-deadline: 0\r\n");
    assert!(answer.starts_with("HTTP/1.1 504"), "{answer}");
    assert_eq!(server.requests(), before);
    // If the caller names no deadline, the upstream gets the route's.
    let _given_up = thread::spawn({
        let port = attache.port;
        move || {
            let mut stream = TcpStream::connect(local(port)).unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nhost: orders\r\n\r\n").unwrap();
            thread::sleep(Duration::from_secs(1));
        }
    });
    eventually("the fourth request arrives", || server.requests() == 4);
    let told = millis(&server.heads.lock().unwrap()[3]).unwrap();
    assert!((30_001..=60_000).contains(&told), "{told}");
}

#[test]
fn an_endpoint_that_fails_now_and_then_is_ejected_by_its_rate() {
    // One in three requests fails, never two in a row; the other endpoints never fail.
    let good: Vec<_> = (0..4).map(|_| RecordingServer::start(|_| 200)).collect();
    let bad = RecordingServer::start(|n| if n.is_multiple_of(3) { 503 } else { 200 });
    let addresses: Vec<_> =
        good.iter().chain([&bad]).map(|server| format!("'http://127.0.0.1:{}'", server.port)).collect();
    let attache = Attache::start(&format!(
        "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT' }} }}
upstreams:
  orders:
    address: [{}]
    balance: round-robin
    outlier_ejection: {{ interval: 2s, success_rate: {{ request_volume: 5 }} }}",
        addresses.join(", ")
    ));
    let mut failed = 0;
    eventually("its rate is judged", || {
        for _ in 0..50 {
            failed += u64::from(get(&attache, "").starts_with("HTTP/1.1 503"));
        }
        attache.process.output().contains("endpoint ejected")
    });
    assert!(failed > 0);
    let log = attache.process.output();
    let line = log.lines().find(|line| line.contains("endpoint ejected")).unwrap();
    assert!(line.contains(&format!("127.0.0.1:{}", bad.port)) && line.contains("success rate"), "{line}");
    let before = bad.requests();
    (0..50).for_each(|_| assert!(get(&attache, "").starts_with("HTTP/1.1 200")));
    assert_eq!(bad.requests(), before, "it gets no requests while it is ejected");
}

#[test]
fn an_endpoint_s_breaker_closes_after_a_successful_trial() {
    let works = Arc::new(AtomicBool::new(false));
    let (told, good) = (works.clone(), RecordingServer::start(|_| 200));
    let bad = RecordingServer::start(move |_| if told.load(Relaxed) { 200 } else { 500 });
    let attache = Attache::start(&format!(
        "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT' }} }}
upstreams:
  orders:
    address: ['http://127.0.0.1:{}', 'http://127.0.0.1:{}']
    balance: round-robin
    outlier_ejection: off
    circuit_breaker: {{ endpoint_failures: {{ consecutive: 3, open: 300ms, open_max: 300ms, probes: 2 }} }}",
        good.port, bad.port
    ));
    let state = |state: &str| attache.metric("attache_upstream_endpoints", &[state]);
    let failed = || (0..20).filter(|_| get(&attache, "").starts_with("HTTP/1.1 500")).count();
    // Three failures in a row open the breaker; each half-open state costs one more failure.
    let first = failed();
    assert!(first >= 3 && bad.requests() == first, "{first}");
    eventually("the metric follows", || state("circuit-open") == 1.0 && state("healthy") == 1.0);
    eventually("a probe fails", || bad.requests() > first || failed() > 0);
    works.store(true, Relaxed);
    eventually("it is back in service", || {
        get(&attache, "");
        attache.metric("attache_upstream_transitions_total", &["endpoint-circuit", "to=\"closed\""]) == 1.0
    });
    assert_eq!(failed(), 0);
    eventually("the metric follows", || state("healthy") == 2.0);
    let before = bad.requests();
    (0..20).for_each(|_| drop(get(&attache, "")));
    assert!((9..=11).contains(&(bad.requests() - before)), "half of the requests again");
}

#[test]
fn a_fault_slows_a_response_down_and_loses_no_byte_of_it() {
    let server = RecordingServer::start(|_| 200);
    let attache = Attache::start(&format!(
        "listeners:
  outbound:
    bind: '127.0.0.1:$PORT'
    routes: [{{ to: orders, fault: {{ header: x-slow, response_rate: {{ limit: 1B }} }} }}]
upstreams: {{ orders: {{ address: 'http://127.0.0.1:{}' }} }}",
        server.port
    ));
    let took = |arguments: &[&str]| {
        let url = attache.url("/");
        let always = ["--write-out", " %{time_total}", &url];
        let answer = text(&curl(arguments.iter().copied().chain(always)));
        let (body, seconds) = answer.split_once(' ').unwrap();
        assert_eq!(body, "ok");
        seconds.parse::<f64>().unwrap()
    };
    // The first byte arrives at once, and the second one a second later.
    assert!(took(&["--header", "x-slow: 1"]) >= 0.95);
    took(&[]);
}
