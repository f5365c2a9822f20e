//! A new config while the old one serves: running work continues, later work uses the new config, and an invalid config changes nothing.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::symlink,
    process::{Command, Output},
    thread,
    time::Duration,
};

use attache_tests::{
    Attache, TestProcess, binary, curl, eventually, free_port, http_get, local, nginx, script_server, text,
};

/// Writes a new config over the old one, as an editor would.
fn rewrite(attache: &Attache, config: &str) {
    let text = format!(
        "metrics: 127.0.0.1:{}\n{}",
        attache.metrics,
        config.replace("$PORT", &attache.port.to_string())
    );
    let (new, file) = (attache.process.dir().join("new"), attache.process.dir().join("attache.yaml"));
    fs::write(&new, text).unwrap();
    fs::rename(new, file).unwrap();
}

fn reloads(attache: &Attache, outcome: &str) -> f64 {
    attache.metric("attache_config_reloads_total", &[outcome])
}

/// Writes a new config, starts a reload and waits until the config is used.
fn reload(attache: &Attache, config: &str) {
    let before = reloads(attache, "ok");
    rewrite(attache, config);
    attache.process.signal("HUP");
    eventually("the new config is in use", || reloads(attache, "ok") > before);
}

/// nginx that answers with a text.
fn says(text: &str) -> (TestProcess, u16) {
    let port = free_port();
    let server = nginx(
        &format!(
            "server {{ listen 127.0.0.1:{port}; keepalive_requests 1000000; location / {{ return 200 '{text}'; }} }}"
        ),
        local(port),
    );
    (server, port)
}

/// Keeps one HTTP/1 connection and sends requests on it.
struct KeepAliveClient(BufReader<TcpStream>);

impl KeepAliveClient {
    fn to(port: u16) -> Self {
        let stream = TcpStream::connect(local(port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Self(BufReader::new(stream))
    }

    /// The head and the body of the response.
    fn get(&mut self, path: &str) -> (String, String) {
        write!(self.0.get_mut(), "GET {path} HTTP/1.1\r\nhost: a.test\r\n\r\n").unwrap();
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(self.0.read_line(&mut head).unwrap() > 0, "closed after: {head}");
        }
        let length = head.to_ascii_lowercase().lines().find_map(|line| {
            line.strip_prefix("content-length: ").map(|n| n.trim().parse::<usize>().unwrap())
        });
        let mut body = vec![0; length.unwrap()];
        self.0.read_exact(&mut body).unwrap();
        (head, String::from_utf8(body).unwrap())
    }

    fn is_closed(&mut self) -> bool {
        matches!(self.0.fill_buf(), Ok([]))
    }
}

/// The number of requests that h2load counted: there must be some, and all must have succeeded.
fn all_succeeded(output: &Output) -> u64 {
    let said = text(output);
    let line = said.lines().find(|line| line.starts_with("requests:")).unwrap_or_default().to_owned();
    let status = said.lines().find(|line| line.starts_with("status codes:")).unwrap_or_default();
    let number = |what: &str| -> u64 {
        let part = line.split(", ").find(|part| part.ends_with(what)).unwrap_or_default();
        part.trim_start_matches("requests: ").split(' ').next().unwrap().parse().unwrap()
    };
    assert_eq!((number(" failed"), number(" errored"), number(" timeout")), (0, 0, 0), "{said}");
    assert!(status.contains(" 0 3xx, 0 4xx, 0 5xx"), "{said}");
    let done = number(" done");
    assert!(done > 100, "{said}");
    done
}

fn h2load(url: &str, arguments: &[&str]) -> Output {
    Command::new("h2load")
        .args(["--duration", "12", "--clients", "4"])
        .args(arguments)
        .arg(url)
        .output()
        .expect("h2load (run `cargo xtask setup`)")
}

#[test]
fn no_request_of_a_load_fails_across_twenty_reloads() {
    let ((_one, one), (_two, two)) = (says("one"), says("two"));
    let extra = free_port();
    let config = |n: usize| {
        let (address, other) = if n.is_multiple_of(2) { (one, two) } else { (two, one) };
        let listener = format!("  extra: {{ bind: '127.0.0.1:{extra}', to: a }}\n");
        format!(
            "reload: {{ watch: false }}\nlisteners:\n  outbound:\n    bind: 127.0.0.1:$PORT\n    routes:\n\
             \x20     - {{ match: {{ path: /v{n}/* }}, to: b }}\n      - {{ to: {} }}\n{}\
             upstreams:\n  a: {{ address: 'http://127.0.0.1:{address}', pool: {{ max_idle: {} }} }}\n  b: 'http://127.0.0.1:{other}'\n",
            if n.is_multiple_of(3) { "a" } else { "b" },
            if n % 2 == 1 { listener.as_str() } else { "" },
            100 + n / 4
        )
    };
    let attache = Attache::start(&config(0));
    let url = attache.url("/");
    thread::scope(|scope| {
        let loads: Vec<_> = [vec!["--h1"], vec!["--max-concurrent-streams", "8"]]
            .into_iter()
            .map(|arguments| {
                let url = &url;
                scope.spawn(move || h2load(url, &arguments))
            })
            .collect();
        // A new connection for every request.
        let fresh = scope.spawn(|| {
            let url = format!("{url}?[1-1500]");
            text(&curl(["--fail", "--header", "connection: close", "--output", "/dev/null", &url]));
        });
        for n in 1..=20 {
            reload(&attache, &config(n));
            if n % 2 == 1 {
                // Both the listener and the address of its upstream come from this reload.
                assert!(http_get(local(extra), "/").ends_with("two"));
            } else {
                eventually("the extra listener is gone", || TcpStream::connect(local(extra)).is_err());
            }
        }
        assert_eq!((reloads(&attache, "ok"), reloads(&attache, "failed")), (21.0, 0.0));
        for load in loads {
            let done = all_succeeded(&load.join().unwrap());
            println!("{done} requests");
        }
        fresh.join().unwrap();
    });
    let output = attache.process.output();
    assert!(
        output.contains("listener `extra` added") && output.contains("upstream `a` changed: address"),
        "{output}"
    );
}

#[test]
fn the_next_request_on_a_kept_connection_uses_the_new_routes() {
    let ((_one, one), (_two, two)) = (says("one"), says("two"));
    let config = |to: &str| {
        format!(
            "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT', to: {to} }} }}\n\
             upstreams: {{ one: 'http://127.0.0.1:{one}', two: 'http://127.0.0.1:{two}' }}"
        )
    };
    let attache = Attache::start(&config("one"));
    let mut kept = KeepAliveClient::to(attache.port);
    assert_eq!(kept.get("/").1, "one");
    let opened = attache.metric("attache_upstream_connections_total", &["upstream=\"one\""]);
    reload(&attache, &config("two"));
    assert_eq!(kept.get("/").1, "two");
    reload(&attache, &config("one"));
    let (head, body) = kept.get("/");
    assert!(body == "one" && !head.to_ascii_lowercase().contains("connection: close"), "{head}{body}");
    // The upstream that both configs have kept its connection.
    assert_eq!(attache.metric("attache_upstream_connections_total", &["upstream=\"one\""]), opened);
}

#[test]
fn an_invalid_config_changes_nothing_and_is_reported_with_its_place() {
    let (_one, one) = says("one");
    let good = format!(
        "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT', to: one }} }}\nupstreams: {{ one: 'http://127.0.0.1:{one}' }}"
    );
    let attache = Attache::start(&good);
    let mut kept = KeepAliveClient::to(attache.port);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let in_use = format!(
        "listeners: {{ outbound: {{ bind: ['127.0.0.1:$PORT', '127.0.0.1:{}'], to: two }} }}\nupstreams: {{ two: 'http://127.0.0.1:1' }}",
        taken.local_addr().unwrap().port()
    );
    let no_certificate = "listeners: { outbound: { bind: '127.0.0.1:$PORT', to: two, tls: { certificate: /none.crt, key: /none.key } } }\nupstreams: { two: 'http://127.0.0.1:1' }";
    let bad: [(&str, &[&str]); 3] = [
        ("listeners:\n  outbound: { bnid: 1 }\n", &["attache.yaml:3:15", "bnid", "bind"]),
        (&in_use, &["in use", "ss -tanp"]),
        (no_certificate, &["/none.crt"]),
    ];
    for (n, (text, words)) in bad.into_iter().enumerate() {
        // The file watch starts this reload, not a signal.
        rewrite(&attache, text);
        eventually("it was refused", || reloads(&attache, "failed") > n as f64);
        let output = attache.process.output();
        for word in words {
            assert!(output.contains(word), "{word} in {output}");
        }
        assert_eq!(kept.get("/").1, "one");
        assert_eq!(text_of(&attache), "one");
        let ready = http_get(local(attache.metrics), "/readyz");
        assert!(ready.starts_with("HTTP/1.1 200") && ready.contains("last reload failed: "), "{ready}");
        assert_eq!(attache.metric("attache_config_last_reload_successful", &[]), 0.0);
    }
    // A refused config is not tried again and again.
    thread::sleep(Duration::from_secs(2));
    assert_eq!(reloads(&attache, "failed"), 3.0);
    reload(&attache, &good);
    let ready = http_get(local(attache.metrics), "/readyz");
    assert!(ready.starts_with("HTTP/1.1 200") && !ready.contains("failed"), "{ready}");
}

fn text_of(attache: &Attache) -> String {
    text(&curl([&attache.url("/")]))
}

#[test]
fn a_swapped_config_map_is_followed_and_so_are_the_files_it_names() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let (port, metrics) = (free_port(), free_port());
    // As the kubelet lays a ConfigMap out: file -> ..data/file, ..data -> a folder with a time stamp as its name.
    let write = |folder: &str, body: &str| {
        fs::create_dir(at(folder)).unwrap();
        let text = format!(
            "metrics: 127.0.0.1:{metrics}\nlisteners:\n  outbound:\n    bind: 127.0.0.1:{port}\n    routes:\n\
             \x20     - {{ match: {{ path: /file }}, respond: {{ status: 200, body: !file {} }} }}\n\
             \x20     - respond: {{ status: 200, body: {body} }}\n",
            at("word").display()
        );
        fs::write(at(folder).join("attache.yaml"), text).unwrap();
    };
    fs::write(at("word"), "first").unwrap();
    write("..1", "one");
    symlink("..1", at("..data")).unwrap();
    symlink("..data/attache.yaml", at("attache.yaml")).unwrap();
    let mut command = Command::new(binary());
    command.args(["run", "-c"]).arg(at("attache.yaml"));
    let mut process = TestProcess::start(&mut command, tempfile::tempdir().unwrap());
    process.wait_for(local(metrics));
    let get = |path: &str| text(&curl([format!("http://127.0.0.1:{port}{path}")]));
    eventually("it serves", || TcpStream::connect(local(port)).is_ok());
    assert_eq!((get("/"), get("/file")), ("one".to_owned(), "first".to_owned()));

    write("..2", "two");
    symlink("..2", at("..tmp")).unwrap();
    fs::rename(at("..tmp"), at("..data")).unwrap();
    fs::remove_dir_all(at("..1")).unwrap();
    eventually("the new ConfigMap is in use", || get("/") == "two");
    fs::write(at("word"), "second").unwrap();
    eventually("the new file is in use", || get("/file") == "second");
    assert!(!process.output().contains("not taken"), "{}", process.output());
}

#[test]
fn tunnels_survive_reloads_and_a_removed_listener_finishes_its_work() {
    let echo = free_port();
    let _ws = script_server("ws_server.py", local(echo), &[]);
    let slow = free_port();
    let _slow = script_server("slow_server.py", local(slow), &["2"]);
    let sink = TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp = sink.local_addr().unwrap();
    thread::spawn(move || {
        for stream in sink.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut reader = stream.try_clone().unwrap();
                let _ = std::io::copy(&mut reader, &mut stream);
            });
        }
    });
    let (tunnel, gone) = (free_port(), free_port());
    let config = |n: u32, with: bool| {
        let gone =
            if with { format!("  gone: {{ bind: '127.0.0.1:{gone}', to: slow }}\n") } else { String::new() };
        format!(
            "listeners:\n  outbound: {{ bind: '127.0.0.1:$PORT', routes: [ {{ match: {{ path: /v{n} }}, to: slow }}, {{ to: ws }} ] }}\n\
             \x20 tcp: {{ bind: '127.0.0.1:{tunnel}', protocol: tcp, to: tcp }}\n{gone}\
             upstreams:\n  ws: {{ address: 'http://127.0.0.1:{echo}', pool: {{ max_idle: {n} }} }}\n  tcp: 'tcp://{tcp}'\n  slow: 'http://127.0.0.1:{slow}'\n"
        )
    };
    let attache = Attache::start(&config(1, true));
    let mut opaque = Echo::open(local(tunnel));
    let mut websocket = upgraded(local(attache.port));
    opaque.check();
    let running = thread::spawn(move || text(&curl(["--fail", &format!("http://127.0.0.1:{gone}/")])));
    eventually("the slow request runs", || attache.metric("attache_requests_in_flight", &["gone"]) >= 1.0);
    reload(&attache, &config(2, false));
    assert!(!running.is_finished(), "the request ended before the listener was gone");
    eventually("the listener is gone", || TcpStream::connect(local(gone)).is_err());
    for n in 3..6 {
        opaque.check();
        websocket_echo(&mut websocket);
        reload(&attache, &config(n, false));
    }
    opaque.check();
    websocket_echo(&mut websocket);
    assert_eq!(running.join().unwrap(), "slow answer");
}

/// An opaque connection to a server that sends back what it gets.
struct Echo(TcpStream);

impl Echo {
    fn open(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).unwrap())
    }

    fn check(&mut self) {
        self.0.write_all(b"ping").unwrap();
        let mut back = [0; 4];
        self.0.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"ping");
    }
}

/// A WebSocket (RFC 6455) to the echo server.
fn upgraded(address: SocketAddr) -> BufReader<TcpStream> {
    let mut stream = BufReader::new(TcpStream::connect(address).unwrap());
    stream
        .get_mut()
        .write_all(
            b"GET / HTTP/1.1\r\nhost: a.test\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
              sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .unwrap();
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(stream.read_line(&mut head).unwrap() > 0, "closed after: {head}");
    }
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    stream
}

/// Sends one masked text frame and reads the server's response to it.
fn websocket_echo(stream: &mut BufReader<TcpStream>) {
    // A mask of zeros leaves the text unchanged (section 5.3).
    stream.get_mut().write_all(&[0x81, 0x84, 0, 0, 0, 0, b'p', b'i', b'n', b'g']).unwrap();
    let mut head = [0; 2];
    stream.read_exact(&mut head).unwrap();
    let mut payload = vec![0; usize::from(head[1])];
    stream.read_exact(&mut payload).unwrap();
    assert!(head[0] == 0x81 && payload.ends_with(b"ping"), "{head:?} {payload:?}");
}

#[test]
fn connections_whose_settings_changed_are_told_to_end_and_others_stay() {
    let (_one, one) = says("one");
    let config = |max_connections: u32, headers: u32| {
        format!(
            "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT', to: one, max_connections: {max_connections}, http: {{ limits: {{ headers_count: {headers} }} }} }} }}\n\
             upstreams: {{ one: 'http://127.0.0.1:{one}' }}"
        )
    };
    let attache = Attache::start(&config(100, 50));
    let (mut idle, mut busy) = (KeepAliveClient::to(attache.port), KeepAliveClient::to(attache.port));
    assert_eq!((idle.get("/").1, busy.get("/").1), ("one".to_owned(), "one".to_owned()));
    reload(&attache, &config(99, 50));
    let (head, _) = idle.get("/");
    assert!(!head.to_ascii_lowercase().contains("connection: close"), "{head}");
    reload(&attache, &config(99, 60));
    assert!(idle.is_closed(), "an idle connection ends");
    assert!(busy.is_closed());
    // The socket was never closed.
    assert_eq!(text_of(&attache), "one");
}

#[test]
fn the_access_log_is_opened_again_on_sigusr1_and_moves_with_the_config() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let config = |file: &str| {
        format!(
            "access_log: {}\nlisteners: {{ outbound: {{ bind: '127.0.0.1:$PORT', routes: [ {{ respond: {{ status: 200, body: hi }} }} ] }} }}\n",
            at(file).display()
        )
    };
    let attache = Attache::start(&config("a.log"));
    let lines = |file: &str| fs::read_to_string(at(file)).unwrap_or_default().lines().count();
    text_of(&attache);
    eventually("a line", || lines("a.log") == 1);
    fs::rename(at("a.log"), at("a.1")).unwrap();
    attache.process.signal("USR1");
    eventually("the file exists again", || at("a.log").exists());
    text_of(&attache);
    eventually("a line in the new file", || lines("a.log") == 1 && lines("a.1") == 1);
    reload(&attache, &config("b.log"));
    text_of(&attache);
    eventually("a line in the other file", || lines("b.log") == 1 && lines("a.log") == 1);
}
