//! The program, as a person or a supervisor sees it: its commands, its messages, its start and end.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use attache_tests::{Attache, binary, curl, eventually, free_port, local, nginx, script_server, text};

fn run(arguments: &[&str]) -> (bool, String, String) {
    let output = Command::new(binary()).args(arguments).env_remove("ATTACHE_CONFIG").output().unwrap();
    (
        output.status.success(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[test]
fn help_and_version_describe_the_program() {
    let (ok, help, _) = run(&["--help"]);
    assert!(ok && help.contains("localhost:15001") && help.contains("attache demo"), "{help}");
    let (ok, version, _) = run(&["--version"]);
    assert!(ok && version.starts_with("attache 0."), "{version}");
}

#[test]
fn check_shows_every_mistake_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bad.yaml");
    fs::write(
        &file,
        "listeners:\n  outbound:\n    bnid: 127.0.0.1:15001\n    routes:\n      - { to: ordes, timeout: fast }\nupstreams:\n  orders: https://orders.internal\n",
    )
    .unwrap();
    let (ok, out, err) = run(&["check", &file.display().to_string()]);
    let all = format!("{out}{err}");
    assert!(!ok, "{all}");
    for part in ["bad.yaml:3:5", "bnid", "bind", "bad.yaml:5:", "fast"] {
        assert!(all.contains(part), "{part} in {all}");
    }
    let (ok, _, err) = run(&["run", "-c", &dir.path().join("none.yaml").display().to_string()]);
    assert!(!ok && err.contains("none.yaml"), "{err}");
}

#[test]
fn check_finds_every_file_that_run_would_refuse_and_run_reports_each_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("files.yaml");
    fs::write(
        &file,
        "admin: off\nmetrics: off\naccess_log: /nosuch/folder/a.log\nlisteners:\n  in:\n    bind: 127.0.0.1:1\n    \
         tls: { certificate: /nosuch.crt, key: /nosuch.key }\n    to: o\nupstreams: { o: 'http://127.0.0.1:1' }\n",
    )
    .unwrap();
    let path = file.display().to_string();
    for arguments in [["check", "-c", path.as_str()], ["run", "-c", path.as_str()]] {
        let (ok, out, err) = run(&arguments);
        assert!(!ok, "{out}{err}");
        for part in ["files.yaml:3:13", "files.yaml:7:25", "files.yaml:7:43"] {
            assert!(err.contains(part), "{part} in {err}");
        }
        for said in ["/nosuch.crt: No such file", "/nosuch.key: No such file", "the folder /nosuch/folder"] {
            assert_eq!(err.matches(said).count(), 1, "{said} in {err}");
        }
    }
    assert!(run(&["check", "--without-files", &path]).0);
}

#[test]
fn check_finds_addresses_keys_of_tokens_revocation_lists_and_sockets_that_run_would_refuse() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("around.yaml");
    fs::write(dir.path().join("keys"), "{}").unwrap();
    fs::write(dir.path().join("revoked.crl"), [0x30, 0x03, 0x02, 0x01, 0x00]).unwrap();
    fs::write(dir.path().join("enc.key"), "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n")
        .unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    fs::write(
        &file,
        format!(
            "admin: off\nmetrics: 127.0.0.1:{port}\njwt: {{ i: {{ issuer: x, keys: {{ file: {at}/keys }} }} }}\n\
             dns: {{ resolv_conf: /nosuch/resolv.conf }}\noverload: {{ cgroup: /nosuch/group }}\nlisteners:\n  in:\n    bind: [192.0.2.7:80, unix:{at}/file]\n    \
             tls: {{ spiffe: true }}\n    to: o\nupstreams:\n  o: {{ address: https://a.test, tls: {{ certificate: {at}/file, key: {at}/enc.key, crls: {at}/revoked.crl }} }}\n",
            at = dir.path().display()
        ),
    )
    .unwrap();
    let path = file.display().to_string();
    let (ok, _, err) = run(&["check", &path]);
    assert!(!ok);
    for part in [
        "around.yaml:2:10",
        "is in use by",
        "around.yaml:3:38",
        "no JWK set",
        // A warning is printed too.
        "accepted for any audience",
        "around.yaml:4:21",
        "around.yaml:5:21",
        "around.yaml:8:12",
        "no interface has the address 192.0.2.7",
        "not a socket",
        "around.yaml:9:5",
        "SPIFFE_ENDPOINT_SOCKET",
        "the key is encrypted",
        "not a revocation list",
    ] {
        assert!(err.contains(part), "{part} in {err}");
    }
    assert!(run(&["check", "--without-files", &path]).0);
}

#[test]
fn check_says_where_traces_go_if_the_environment_decides() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("traces.yaml");
    fs::write(&file, "tracing: {}\nupstreams: { o: 'http://127.0.0.1:1' }\n").unwrap();
    let (ok, out, _) = run(&["check", "--without-files", &file.display().to_string()]);
    assert!(ok && out.contains("tracing: spans are sent to http://localhost:4318/v1/traces"), "{out}");
}

#[test]
fn a_file_without_a_kubernetes_object_is_not_a_manifest() {
    let dir = tempfile::tempdir().unwrap();
    let (values, empty) = (dir.path().join("values.yaml"), dir.path().join("empty.yaml"));
    fs::write(&values, "metadata: { name: shop }\nspec: {}\n").unwrap();
    fs::write(&empty, "# nothing\n---\n").unwrap();
    let inject = |path: &Path| run(&["inject", "--image", "x/y:1", &path.display().to_string()]);
    let (ok, out, err) = inject(&values);
    assert!(!ok && out.is_empty() && err.contains("no Kubernetes object in it"), "{out}{err}");
    // A chart may render to nothing, and a folder may contain other files.
    assert!(inject(&empty).0);
    assert!(inject(dir.path()).0);
}

#[test]
fn the_schema_is_json_and_describes_the_examples_keys() {
    let (ok, schema, _) = run(&["schema"]);
    let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
    assert!(
        ok && schema["properties"]["listeners"].is_object() && schema["properties"]["upstreams"].is_object()
    );
}

#[test]
fn explain_says_which_route_and_why() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/http-routing.yaml");
    let (ok, out, err) =
        run(&["explain", "-c", &example.display().to_string(), "GET", "http://orders.internal/v1/x"]);
    assert!(ok && out.contains("orders"), "{out}{err}");
}

#[test]
fn explain_shows_the_route_of_a_tunnel_and_of_a_connection() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.yaml");
    let text = "listeners:
  in:
    bind: 127.0.0.1:1
    transparent: true
    routes:
      - { name: closed, match: { path: /admin, destination: 10.1.0.0/16 }, respond: 403 }
      - { name: db, match: { sni: db.test }, to: db }
      - { name: cache, match: { destination: ':6379' }, to: db }
      - { name: tunnel, match: { host: any.test }, to: any }
    to: app
upstreams: { app: 'http://127.0.0.1:2', db: 'tcp://127.0.0.1:3', any: authority }
";
    fs::write(&file, text).unwrap();
    for (arguments, words) in [
        (&["CONNECT", "a.test:80"][..], &["in/to", "refuse with connect-denied"][..]),
        (&["CONNECT", "any.test:80"], &["> tunnel", "open a tunnel"]),
        (&["--sni", "db.test"], &["server name db.test", "> db", "forward"]),
        (&["--sni", "other.test"], &["refuse with no-route: the bytes aren't HTTP"]),
        (&["--destination", "10.2.0.1:6379"], &["to 10.2.0.1:6379", "> cache"]),
        (&["--destination", "10.1.0.1:1", "GET", "/admin"], &["> closed", "403"]),
        (&["--destination", "10.2.0.1:1", "GET", "/admin"], &["> in/to"]),
    ] {
        let file = file.display().to_string();
        let (ok, out, err) = run(&[&["explain", "-c", &file], arguments].concat());
        assert!(ok && words.iter().all(|words| out.contains(words)), "{arguments:?}: {out}{err}");
    }
}

#[test]
fn commands_can_print_their_result_as_one_json_document() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let two = write(
        "two.yaml",
        "listeners: { a: { bind: ':1', to: app }, b: { bind: ':2', to: app } }\nupstreams: { app: 'http://127.0.0.1:2' }\n",
    );
    let nginx = write(
        "nginx.conf",
        "server {\n  listen 80;\n  location / {\n    proxy_pass http://127.0.0.1:8080;\n  }\n}\n",
    );
    let nowhere = free_port().to_string();
    let json = |arguments: &[&str]| -> (bool, serde_json::Value) {
        let (ok, out, err) = run(arguments);
        (ok, serde_json::from_str(&out).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {out}{err}")))
    };

    let (ok, explained) = json(&["explain", "-o", "json", "-c", &two, "GET", "http://app/"]);
    assert!(ok && explained[0]["listener"] == "a" && explained[1]["listener"] == "b", "{explained}");
    let (ok, refused) =
        json(&["explain", "--json", "-c", &two, "-H", "content-length: x", "GET", "http://app/"]);
    assert!(ok && refused[1]["refused"]["reason"] == "bad-request", "{refused}");

    let (_, imported) = json(&["import", "-o", "json", &nginx]);
    assert!(imported["config"].as_str().is_some_and(|text| text.contains("listeners:")), "{imported}");
    assert!(imported["exit_code"].is_number() && imported["remarks"].is_array(), "{imported}");

    let (ok, waited) = json(&["wait-ready", "-o", "json", "--timeout", "50ms", "--address", &nowhere]);
    assert!(
        !ok && waited["ready"] == false && waited["not_ready"].to_string().contains("refused"),
        "{waited}"
    );

    let (ok, would) = json(&["intercept", "--dry-run", "-o", "json", "--backend", "nft"]);
    assert!(ok && would["would_do"].is_array(), "{would}");

    let (ok, demo) = json(&["demo", "--seconds", "1", "-o", "json"]);
    assert!(ok && demo["app"]["calls"].as_u64() > Some(0) && demo["servers"].is_array(), "{demo}");
}

#[test]
fn every_example_config_is_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config");
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "yaml") {
            let (ok, out, err) = run(&["check", "--without-files", &path.display().to_string()]);
            assert!(ok, "{}\n{out}{err}", path.display());
            let request =
                ["explain", "-c", &path.display().to_string(), "GET", "http://orders.internal/v1/x"];
            let (ok, out, err) = run(&request);
            assert!(ok && out.contains("listener"), "{}\n{out}{err}", path.display());
            count += 1;
        }
    }
    assert!(count >= 6, "{count} examples");
}

#[test]
fn the_help_of_inject_shows_every_default() {
    let (ok, help, _) = run(&["inject", "--help"]);
    let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for default in ["[default: native]", "[default: explicit]", "[default: info]"] {
        assert!(ok && words.contains(default), "{default} in {help}");
    }
}

#[test]
fn the_demo_ends_with_a_summary_of_the_proxy_s_actions() {
    let (ok, out, err) = run(&["demo", "--seconds", "7"]);
    assert!(ok && out.contains("the app saw") && out.contains("flaky"), "{out}{err}");
}

#[test]
fn a_port_in_use_is_reported_with_a_remedy() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.yaml");
    let port = taken.local_addr().unwrap().port();
    fs::write(&file, format!("metrics: off\nlisteners: {{ outbound: {{ bind: '127.0.0.1:{port}' }} }}\nupstreams: {{ a: 'http://127.0.0.1:1' }}\n")).unwrap();
    let (ok, _, err) = run(&["run", "-c", &file.display().to_string()]);
    assert!(!ok && err.contains(&port.to_string()) && err.contains("in use"), "{err}");
}

#[test]
fn sigterm_loses_no_request_that_was_accepted() {
    let port = free_port();
    let _slow = script_server("slow_server.py", local(port), &["1.5"]);
    let mut attache = Attache::start(&format!(
        "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT' }} }}\nupstreams: {{ slow: 'http://127.0.0.1:{port}' }}"
    ));
    let clients: Vec<_> = ["--http1.1", "--http2-prior-knowledge"]
        .into_iter()
        .map(|version| {
            let url = attache.url("/");
            thread::spawn(move || text(&curl([version, "--fail", &url])))
        })
        .collect();
    eventually("both requests run", || attache.metric("attache_requests_in_flight", &[]) >= 2.0);
    attache.process.signal("TERM");
    for client in clients {
        assert_eq!(client.join().unwrap(), "slow answer");
    }
    assert_eq!(attache.process.wait(), Some(0), "{}", attache.process.output());
}

#[test]
fn each_half_of_an_opaque_connection_is_closed_separately() {
    let port = free_port();
    let upstream = std::net::TcpListener::bind(local(port)).unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = upstream.accept().unwrap();
        let mut all = String::new();
        stream.read_to_string(&mut all).unwrap();
        stream.write_all(format!("got {} bytes", all.len()).as_bytes()).unwrap();
    });
    let attache = Attache::start(&format!(
        "listeners: {{ tcp: {{ bind: '127.0.0.1:$PORT', protocol: tcp }} }}\nupstreams: {{ a: 'tcp://127.0.0.1:{port}' }}"
    ));
    let mut client = TcpStream::connect(local(attache.port)).unwrap();
    client.write_all(&[b'x'; 100_000]).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "got 100000 bytes");
    server.join().unwrap();
}

#[test]
fn a_server_that_sends_first_works() {
    let upstream = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = upstream.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in upstream.incoming() {
            let mut stream = stream.unwrap();
            stream.write_all(b"220 welcome\r\n").unwrap();
            thread::sleep(Duration::from_secs(20));
        }
    });
    let attache = Attache::start(&format!(
        "listeners: {{ smtp: {{ bind: '127.0.0.1:$PORT', protocol: auto, detect_timeout: 200ms }} }}\nupstreams: {{ a: 'tcp://127.0.0.1:{port}' }}"
    ));
    let mut client = TcpStream::connect(local(attache.port)).unwrap();
    let mut greeting = [0; 13];
    client.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"220 welcome\r\n");
}

#[test]
fn unix_sockets_work_at_both_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (near, far) = (dir.path().join("near.sock"), dir.path().join("far.sock"));
    let port = free_port();
    let _server = nginx(
        &format!(
            "server {{ listen unix:{}; listen 127.0.0.1:{port}; return 200 'over a socket'; }}",
            far.display()
        ),
        local(port),
    );
    let attache = Attache::start(&format!(
        "listeners: {{ outbound: {{ bind: ['127.0.0.1:$PORT', 'unix:{}'] }} }}\nupstreams: {{ a: 'unix:{}' }}",
        near.display(),
        far.display()
    ));
    assert_eq!(text(&curl([&attache.url("/")])), "over a socket");
    assert_eq!(
        text(&curl(["--unix-socket", &near.display().to_string(), "http://anything/"])),
        "over a socket"
    );
}

#[test]
fn the_proxy_protocol_is_read_and_written() {
    let upstream = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = upstream.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        let (mut stream, _) = upstream.accept().unwrap();
        let mut buffer = [0; 1024];
        let mut seen = String::new();
        while !seen.contains("hello") {
            let n = stream.read(&mut buffer).unwrap();
            assert!(n > 0, "{seen}");
            seen.push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
        seen
    });
    let attache = Attache::start(&format!(
        "listeners: {{ tcp: {{ bind: '127.0.0.1:$PORT', protocol: tcp, proxy_protocol: require }} }}
upstreams: {{ a: {{ address: 'tcp://127.0.0.1:{port}', proxy_protocol: v1 }} }}"
    ));
    let mut client = TcpStream::connect(local(attache.port)).unwrap();
    client.write_all(b"PROXY TCP4 192.0.2.7 192.0.2.8 1234 443\r\nhello").unwrap();
    let seen = server.join().unwrap();
    assert!(seen.starts_with("PROXY TCP4 192.0.2.7 ") && seen.ends_with("\r\nhello"), "{seen}");
}

#[test]
fn wait_ready_ends_when_the_proxy_is_ready_and_fails_when_it_never_is() {
    let (ok, _, err) = run(&["wait-ready", "--timeout", "150ms", "--address", &free_port().to_string()]);
    assert!(!ok && err.contains("not ready") && err.contains("150ms"), "{err}");

    let dir = tempfile::tempdir().unwrap();
    let (port, metrics, dns) = (free_port(), free_port(), free_port());
    // No DNS server answers, so the start waits for its first look-up as long as allowed: the command is started first.
    let config = format!(
        "metrics: 127.0.0.1:{metrics}\ndns: {{ servers: 127.0.0.1:{dns}, timeout: 300ms, attempts: 1 }}\n\
         listeners: {{ outbound: {{ bind: 127.0.0.1:{port}, to: slow }} }}\nupstreams: {{ slow: http://slow.test:80 }}\n"
    );
    let file = dir.path().join("attache.yaml");
    fs::write(&file, config).unwrap();
    let mut waiting =
        Command::new(binary()).args(["wait-ready", "--address", &metrics.to_string()]).spawn().unwrap();
    let mut proxy = Command::new(binary()).arg("run").arg("-c").arg(&file).spawn().unwrap();
    let status = waiting.wait().unwrap();
    let ready = attache_tests::http_get(local(metrics), "/readyz");
    proxy.kill().unwrap();
    proxy.wait().unwrap();
    assert!(status.success() && ready.starts_with("HTTP/1.1 200"), "{status} {ready}");
}
