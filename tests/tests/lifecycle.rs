//! Start and end, as supervisors and operators see them: drain, a supervisor's sockets and messages, an app that attache runs, a new
//! program that takes over.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::net::UnixDatagram,
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use attache_tests::{
    Attache, TestProcess, binary, curl, eventually, free_port, http_get, local, nginx, script_server, text,
};

/// nginx that answers with a text.
fn says(text: &str) -> (TestProcess, u16) {
    let port = free_port();
    let config = format!(
        "server {{ listen 127.0.0.1:{port}; keepalive_requests 1000000; location / {{ return 200 '{text}'; }} }}"
    );
    (nginx(&config, local(port)), port)
}

/// A client that keeps its connection, opens another when it was told that this one ends, and never sends a request twice.
#[derive(Default)]
struct SteadyClient {
    stop: AtomicBool,
    answered: AtomicUsize,
    told: AtomicUsize,
}

impl SteadyClient {
    /// Sends requests until it is stopped, or until nothing listens any more. Anything else that happens is a failure.
    fn run(&self, port: u16) {
        while !self.stop.load(Relaxed) {
            let Ok(stream) = TcpStream::connect(local(port)) else { return };
            stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            let mut stream = BufReader::new(stream);
            while !self.stop.load(Relaxed) {
                stream.get_mut().write_all(b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").unwrap();
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    assert!(stream.read_line(&mut head).unwrap() > 0, "closed after: {head:?}");
                }
                let head = head.to_ascii_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
                let mut body = vec![0; length.trim().parse().unwrap()];
                stream.read_exact(&mut body).unwrap();
                assert!(head.starts_with("http/1.1 200"), "{head}");
                self.answered.fetch_add(1, Relaxed);
                if head.contains("connection: close") {
                    self.told.fetch_add(1, Relaxed);
                    break;
                }
            }
        }
    }
}

#[test]
fn a_load_has_no_failure_while_the_program_drains() {
    let (_one, one) = says("one");
    let mut attache = Attache::start(&format!(
        "shutdown: {{ delay: 3s }}\nlisteners: {{ outbound: {{ bind: '127.0.0.1:$PORT' }} }}\nupstreams: {{ one: 'http://127.0.0.1:{one}' }}"
    ));
    let (load, url) = (SteadyClient::default(), attache.url("/"));
    thread::scope(|scope| {
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(|| load.run(attache.port))).collect();
        let h2load = scope.spawn(|| {
            // It ends before the delay does: a load balancer has noticed the drain by then.
            let arguments = ["--duration", "2", "--clients", "2", "--max-concurrent-streams", "8", &url];
            text(&Command::new("h2load").args(arguments).output().unwrap())
        });
        eventually("the load runs", || load.answered.load(Relaxed) > 100);
        attache.process.signal("TERM");
        eventually("it is not ready", || {
            http_get(local(attache.metrics), "/readyz").starts_with("HTTP/1.1 503")
        });
        let before = load.answered.load(Relaxed);
        eventually("it continues to serve", || load.answered.load(Relaxed) > before + 100);
        let said = h2load.join().unwrap();
        assert!(said.contains(" 0 failed, 0 errored, 0 timeout"), "{said}");
        // These end when nothing listens any more.
        clients.into_iter().for_each(|client| client.join().unwrap());
    });
    assert!(load.told.load(Relaxed) >= 4, "every client was told by a response");
    assert_eq!(attache.process.wait(), Some(0), "{}", attache.process.output());
}

#[test]
fn outbound_calls_are_possible_until_the_inbound_calls_have_ended() {
    let slow = free_port();
    let _slow = script_server("slow_server.py", local(slow), &["2"]);
    let (_one, one) = says("one");
    let inbound = free_port();
    let mut attache = Attache::start(&format!(
        "listeners:\n  outbound: {{ bind: '127.0.0.1:$PORT', to: one }}\n  inbound: {{ bind: '0.0.0.0:{inbound}', to: slow }}\n\
         upstreams: {{ one: 'http://127.0.0.1:{one}', slow: 'http://127.0.0.1:{slow}' }}"
    ));
    let running = thread::spawn(move || text(&curl(["--fail", &format!("http://127.0.0.1:{inbound}/")])));
    eventually("the inbound call runs", || attache.metric("attache_requests_in_flight", &["inbound"]) >= 1.0);
    attache.process.signal("TERM");
    eventually("no new client is accepted", || TcpStream::connect(local(inbound)).is_err());
    assert!(!running.is_finished());
    assert_eq!(text(&curl(["--fail", &attache.url("/")])), "one", "while the inbound call runs");
    assert_eq!(running.join().unwrap(), "slow answer");
    assert_eq!(attache.process.wait(), Some(0), "{}", attache.process.output());
}

#[test]
fn an_http2_client_gets_goaway_twice_and_its_running_stream_finishes() {
    let slow = free_port();
    let _slow = script_server("slow_server.py", local(slow), &["1.5"]);
    let mut attache = Attache::start(&format!(
        "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT' }} }}\nupstreams: {{ slow: 'http://127.0.0.1:{slow}' }}"
    ));
    let mut stream = TcpStream::connect(local(attache.port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    // GET / of a.test on stream 1 (RFC 7541: three indexed fields and one literal).
    stream.write_all(b"\0\0\x0b\x01\x05\0\0\0\x01\x82\x86\x84\x41\x06a.test").unwrap();
    eventually("the request runs", || attache.metric("attache_requests_in_flight", &[]) >= 1.0);
    attache.process.signal("TERM");
    let (mut goaways, mut body) = (Vec::new(), Vec::new());
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).is_err() {
            break;
        }
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        stream.read_exact(&mut payload).unwrap();
        match (head[3], head[4]) {
            (0, _) => body.extend(payload),
            (4, 0) => stream.write_all(b"\0\0\0\x04\x01\0\0\0\0").unwrap(),
            (6, 0) => {
                stream.write_all(b"\0\0\x08\x06\x01\0\0\0\0").unwrap();
                stream.write_all(&payload).unwrap();
            }
            (7, _) => goaways.push((
                u32::from_be_bytes(payload[..4].try_into().unwrap()),
                u32::from_be_bytes(payload[4..8].try_into().unwrap()),
            )),
            _ => {}
        }
    }
    // RFC 9113 section 6.8: first the highest possible stream number; then, a round trip later, the last stream that is answered.
    assert_eq!(goaways, [(0x7fff_ffff, 0), (1, 0)]);
    assert_eq!(String::from_utf8(body).unwrap(), "slow answer");
    assert_eq!(attache.process.wait(), Some(0), "{}", attache.process.output());
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let slow = free_port();
    let _slow = script_server("slow_server.py", local(slow), &["60"]);
    let mut attache = Attache::start(&format!(
        "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT' }} }}\nupstreams: {{ slow: 'http://127.0.0.1:{slow}' }}"
    ));
    let url = attache.url("/");
    let cut = thread::spawn(move || curl([&url]).status.success());
    eventually("the request runs", || attache.metric("attache_requests_in_flight", &[]) >= 1.0);
    attache.process.signal("TERM");
    eventually("it drains", || attache.process.output().contains("draining"));
    attache.process.signal("INT");
    assert_eq!(attache.process.wait(), Some(1), "{}", attache.process.output());
    assert!(!cut.join().unwrap());
}

#[test]
fn a_supervisor_is_notified_of_start_reload_and_end_and_gets_keepalives() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let heard = UnixDatagram::bind(&path).unwrap();
    heard.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let next = |wanted: &str| loop {
        let mut buffer = [0; 1024];
        let read = heard.recv(&mut buffer).unwrap_or_else(|error| panic!("no {wanted}: {error}"));
        let said = String::from_utf8_lossy(&buffer[..read]).into_owned();
        if said.contains(wanted) {
            return said;
        }
    };
    let config =
        "listeners: { outbound: { bind: '127.0.0.1:$PORT', to: a } }\nupstreams: { a: 'http://127.0.0.1:1' }";
    let variables = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "200000")];
    let mut attache = Attache::start_with(config, &variables);
    next("READY=1");
    next("WATCHDOG=1");
    attache.process.signal("HUP");
    assert!(next("RELOADING=1").contains("MONOTONIC_USEC="));
    assert!(next("READY=1").contains("STATUS=serving"));
    attache.process.signal("TERM");
    next("STOPPING=1");
    assert_eq!(attache.process.wait(), Some(0));
}

#[test]
fn sockets_of_a_supervisor_are_used_by_address_and_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let ports: Vec<_> = (0..4).map(|_| free_port()).collect();
    let [by_address, by_name, configured, metrics] = ports[..] else { unreachable!() };
    let file = dir.path().join("a.yaml");
    let config = format!(
        "metrics: 127.0.0.1:{metrics}\nworkers: 3\nlisteners:\n\
         \x20 one: {{ bind: '127.0.0.1:{by_address}', routes: [ {{ respond: {{ status: 200, body: one }} }} ] }}\n\
         \x20 two: {{ bind: '127.0.0.1:{configured}', routes: [ {{ respond: {{ status: 200, body: two }} }} ] }}\n"
    );
    fs::write(&file, config).unwrap();
    // As systemd does it: the sockets are descriptors 3 and 4 of the process that LISTEN_PID names.
    let activate = format!(
        "import os, socket\n\
         s = [socket.create_server(('127.0.0.1', p)) for p in ({by_address}, {by_name})]\n\
         d = [os.dup(x.fileno()) for x in s]\n\
         [x.close() for x in s]\n\
         [os.dup2(x, 3 + i) for i, x in enumerate([os.dup2(x, 10 + i, False) for i, x in enumerate(d)])]\n\
         os.environ.update(LISTEN_FDS='2', LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES='first:two')\n\
         os.execv({binary:?}, ['attache', 'run', '-c', {file:?}])\n",
        binary = binary().display().to_string(),
        file = file.display().to_string()
    );
    let mut command = Command::new("/usr/bin/python3");
    command.arg("-c").arg(activate);
    let mut process = TestProcess::start(&mut command, tempfile::tempdir().unwrap());
    process.wait_for(local(metrics));
    let get = |port: u16| http_get(local(port), "/");
    eventually("it serves", || get(by_address).ends_with("one"));
    for _ in 0..10 {
        assert!(get(by_address).ends_with("one") && get(by_name).ends_with("two"));
    }
    assert!(TcpStream::connect(local(configured)).is_err(), "the supervisor's socket is used for it");
}

/// Starts `attache run -c … -- sh -c SCRIPT`.
fn wrapped(config: &str, script: &str) -> (TestProcess, u16) {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let file = dir.path().join("attache.yaml");
    let text = format!("metrics: off\n{}", config.replace("$PORT", &port.to_string()));
    fs::write(&file, text).unwrap();
    let mut command = Command::new(binary());
    let script = script.replace("$PORT", &port.to_string());
    command.args(["run", "-c"]).arg(&file).args(["--", "sh", "-c", &script]);
    (TestProcess::start(&mut command, dir), port)
}

const ANSWERS: &str = "listeners: { outbound: { bind: '127.0.0.1:$PORT', routes: [ { respond: { status: 200, body: hello } } ] } }\n";

#[test]
fn an_app_is_started_when_calls_succeed_and_can_make_calls_until_it_has_ended() {
    let (mut process, _) = wrapped(
        ANSWERS,
        "curl -s --noproxy '' --fail http://127.0.0.1:$PORT/ && echo ' at its start'\n\
         trap 'sleep 1; curl -s --noproxy \"\" --fail http://127.0.0.1:$PORT/ && echo \" at its end\"; exit 7' TERM\n\
         trap 'echo heard HUP' HUP; trap 'echo heard USR1' USR1; trap 'echo heard USR2' USR2\n\
         echo runs; while :; do sleep 0.05; done",
    );
    eventually("the app runs", || process.output().contains("runs"));
    for signal in ["HUP", "USR1", "USR2"] {
        process.signal(signal);
        eventually("the app gets it", || process.output().contains(&format!("heard {signal}")));
    }
    process.signal("TERM");
    assert_eq!(process.wait(), Some(7), "{}", process.output());
    let output = process.output();
    assert!(output.contains("hello at its start") && output.contains("hello at its end"), "{output}");
    assert!(output.contains("the config has not changed"), "SIGHUP reloads too: {output}");
}

#[test]
fn an_app_that_ends_ends_attache_with_its_code() {
    let (mut process, _) = wrapped(ANSWERS, "exit 3");
    assert_eq!(process.wait(), Some(3), "{}", process.output());
    let (mut process, _) = wrapped(ANSWERS, "kill -9 $$");
    assert_eq!(process.wait(), Some(137), "{}", process.output());
    let output =
        Command::new(binary()).args(["run", "--", "/no/such/app"]).env_remove("ATTACHE_CONFIG").output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("/no/such/app can't be started"), "{said}");
    assert_eq!(output.status.code(), Some(127), "{said}");
}

#[test]
fn a_second_signal_kills_an_app_that_does_not_end() {
    let (mut process, _) = wrapped(ANSWERS, "trap '' TERM; echo runs; while :; do sleep 0.05; done");
    eventually("the app runs", || process.output().contains("runs"));
    process.signal("TERM");
    eventually("attache drains", || process.output().contains("draining"));
    // The same signal within 200 ms is one request: `timeout` sends it twice.
    process.signal("TERM");
    thread::sleep(Duration::from_millis(300));
    assert!(!process.output().contains("ended at once"), "{}", process.output());
    process.signal("TERM");
    assert_eq!(process.wait(), Some(1), "{}", process.output());
}

/// The process that took over. It is ended together with the test.
struct Successor(u32);

impl Successor {
    fn of(process: &TestProcess) -> Self {
        let pid = || -> Option<u32> {
            let output = process.output();
            let line = output.lines().find(|line| line.contains("a new process has taken over"))?;
            line.split("pid=").nth(1)?.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
        };
        eventually("a new process has taken over", || pid().is_some());
        Self(pid().unwrap())
    }

    fn runs(&self) -> bool {
        // It is no longer a child of any process here: a zombie counts as ended too.
        let status = fs::read_to_string(format!("/proc/{}/status", self.0)).unwrap_or_default();
        status.contains("State:") && !status.contains("State:\tZ")
    }

    fn signal(&self, name: &str) {
        let _ = Command::new("kill").arg(format!("-{name}")).arg(self.0.to_string()).status();
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        self.signal("KILL");
    }
}

#[test]
fn a_new_program_takes_over_under_load_without_a_failure() {
    let (_one, one) = says("one");
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("near.sock");
    let config = format!(
        "workers: 2\nlisteners: {{ outbound: {{ bind: ['127.0.0.1:$PORT', 'unix:{}'], to: one }} }}\nupstreams: {{ one: 'http://127.0.0.1:{one}' }}",
        socket.display()
    );
    let mut attache = Attache::start(&config);
    let (load, url) = (SteadyClient::default(), attache.url("/?[1-100000]"));
    let successor = thread::scope(|scope| {
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(|| load.run(attache.port))).collect();
        let mut others: Vec<_> = [vec!["--http2-prior-knowledge"], vec!["-H", "connection: close"]]
            .into_iter()
            .map(|arguments| {
                let mut command = Command::new("curl");
                command.args(["--silent", "--noproxy", "", "--fail", "--output", "/dev/null"]);
                command.args(arguments).arg(&url);
                TestProcess::start(&mut command, tempfile::tempdir().unwrap())
            })
            .collect();
        eventually("the load runs", || load.answered.load(Relaxed) > 100);
        attache.process.signal("USR2");
        let successor = Successor::of(&attache.process);
        assert_eq!(attache.process.wait(), Some(0), "{}", attache.process.output());
        let before = load.answered.load(Relaxed);
        eventually("the load continues", || load.answered.load(Relaxed) > before + 100);
        load.stop.store(true, Relaxed);
        clients.into_iter().for_each(|client| client.join().unwrap());
        for other in &mut others {
            // It still runs: `--fail` would have ended it.
            other.signal("TERM");
            assert_ne!(other.wait(), Some(22), "{}", other.output());
        }
        assert!(load.told.load(Relaxed) >= 4, "the old process told its clients");
        successor
    });
    assert!(successor.runs());
    assert!(http_get(local(attache.metrics), "/readyz").starts_with("HTTP/1.1 200"));
    let over_unix = curl(["--unix-socket", &socket.display().to_string(), "http://a.test/"]);
    assert_eq!(text(&over_unix), "one", "the path of the Unix socket still exists");
    successor.signal("TERM");
    let end = Instant::now() + Duration::from_secs(30);
    while successor.runs() {
        assert!(Instant::now() < end, "the new process ends like any other");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(!Path::new(&socket).exists(), "it removed the path");
}

#[test]
fn a_new_program_that_does_not_start_leaves_the_old_one_serving() {
    let (_one, one) = says("one");
    let attache = Attache::start(&format!(
        "reload: {{ watch: false }}\nlisteners: {{ outbound: {{ bind: '127.0.0.1:$PORT' }} }}\nupstreams: {{ one: 'http://127.0.0.1:{one}' }}"
    ));
    fs::write(attache.process.dir().join("attache.yaml"), "listeners: nonsense\n").unwrap();
    attache.process.signal("USR2");
    eventually("it is logged", || attache.process.output().contains("did not take over"));
    assert!(
        attache.process.output().contains("this process continues to serve"),
        "{}",
        attache.process.output()
    );
    assert_eq!(text(&curl([&attache.url("/")])), "one");
    assert!(http_get(local(attache.metrics), "/readyz").starts_with("HTTP/1.1 200"));
}
