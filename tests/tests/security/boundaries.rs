//! Who may reach what: identities, this proxy's own ports, and TLS that is not decrypted here.

use std::{
    io::{Read, Write},
    net::{TcpListener, UdpSocket},
    process::{Command, Stdio},
    thread,
};

use attache_tests::{Attache, curl, eventually, local, pki::Pki, raw, text};

use super::LenientUpstream;

#[test]
fn if_identities_are_required_plaintext_has_none() {
    let (app, pki) = (LenientUpstream::start(), Pki::new());
    let ca = pki.ca("ca");
    pki.issue(&ca, "api", &["api.test"]);
    let attache = |allow: &str| {
        Attache::start(&format!(
            "listeners: {{ in: {{ bind: '127.0.0.1:$PORT', tls: {{ certificate: {at}/api.crt, key: {at}/api.key, client_ca: {at}/ca.crt, mode: permissive {allow} }} }} }}
upstreams: {{ app: 'http://127.0.0.1:{}' }}",
            app.port,
            at = pki.dir().display()
        ))
    };
    let get = b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let strict = attache(", allow: 'spiffe://shop/web'");
    let answer = raw(local(strict.port), get);
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("plaintext-denied"), "{answer}");
    assert_eq!(raw(local(strict.port), b"*1\r\n$4\r\nPING\r\n"), "");
    assert_eq!(app.seen(), "");
    assert!(
        strict.process.output().contains("`allow` with `mode: permissive`"),
        "{}",
        strict.process.output()
    );
    let open = attache("");
    assert!(raw(local(open.port), get).starts_with("HTTP/1.1 200"));
}

/// An address of this machine that other machines can reach, if it has one.
fn own_address() -> Option<std::net::IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("203.0.113.1:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_loopback())
}

#[test]
fn no_client_of_a_forward_proxy_reaches_the_proxy_s_own_ports() {
    let attache = Attache::start(
        "admin: 127.0.0.1:$ADMIN\nmetrics: 0.0.0.0:$METRICS\nlisteners: { out: { bind: '127.0.0.1:$PORT', to: any } }\nupstreams: { any: authority }",
    );
    let mut hosts: Vec<String> =
        ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0", "LOCALHOST", "127.0.0.1."]
            .map(str::to_owned)
            .into();
    hosts.extend(own_address().map(|ip| ip.to_string()));
    for port in [attache.admin, attache.metrics] {
        for host in &hosts {
            for head in [
                format!("GET http://{host}:{port}/metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
                format!(
                    "POST http://{host}:{port}/quitquitquit HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                ),
                format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
            ] {
                let answer = raw(local(attache.port), head.as_bytes());
                assert!(
                    answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 5"),
                    "{head}{answer}"
                );
            }
        }
    }
    let answer = raw(
        local(attache.port),
        format!("CONNECT 127.0.0.1:{} HTTP/1.1\r\nHost: x\r\n\r\n", attache.admin).as_bytes(),
    );
    assert!(answer.contains("denied-destination"), "{answer}");
    assert!(attache.metric("attache_requests_total", &["denied-destination"]) > 10.0);
}

/// An opaque server that sends back what it gets.
fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut space = [0; 1024];
                while let Ok(n @ 1..) = stream.read(&mut space) {
                    let said = [b"ECHO ", &space[..n]].concat();
                    if stream.write_all(&said).is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

/// What `openssl s_client` prints.
fn s_client(port: u16, name: &str, alpn: &[&str]) -> String {
    let mut client = Command::new("openssl");
    client.args(["s_client", "-connect", &format!("127.0.0.1:{port}"), "-servername", name, "-ign_eof"]);
    if !alpn.is_empty() {
        client.args(["-alpn", &alpn.join(",")]);
    }
    let mut child =
        client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(b"hello\n").unwrap();
    let mut out = child.stdout.take().unwrap();
    let (mut heard, mut space) = (String::new(), [0; 1024]);
    while !heard.contains("ECHO") {
        match out.read(&mut space) {
            Ok(n @ 1..) => heard.push_str(&String::from_utf8_lossy(&space[..n])),
            _ => break,
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    heard
}

#[test]
fn for_opaque_bytes_alpn_confirms_the_client_s_protocol() {
    let (pki, port) = (Pki::new(), echo());
    let ca = pki.ca("ca");
    pki.issue(&ca, "api", &["api.test"]);
    let attache = |protocol: &str, scheme: &str| {
        Attache::start(&format!(
            "listeners: {{ in: {{ bind: '127.0.0.1:$PORT', protocol: {protocol}, tls: {{ certificate: {at}/api.crt, key: {at}/api.key }} }} }}
upstreams: {{ app: '{scheme}://127.0.0.1:{port}' }}",
            at = pki.dir().display()
        ))
    };
    let tcp = attache("tcp", "tcp");
    for (alpn, chosen) in [
        (&["postgresql"][..], "ALPN protocol: postgresql"),
        (&["mqtt"], "ALPN protocol: mqtt"),
        (&["http/1.1"], "ALPN protocol: http/1.1"),
        (&["h2", "http/1.1"], "No ALPN negotiated"),
        (&[], "No ALPN negotiated"),
    ] {
        let heard = s_client(tcp.port, "api.test", alpn);
        assert!(heard.contains("ECHO hello") && heard.contains(chosen), "{alpn:?}: {heard}");
    }
    // An opaque protocol beside HTTP.
    let auto = attache("auto", "tcp");
    assert!(s_client(auto.port, "api.test", &["postgresql"]).contains("ECHO hello"));
    // If only HTTP is spoken, only HTTP is offered, in the right version.
    let app = LenientUpstream::start();
    let http1 = Attache::start(&format!(
        "listeners: {{ in: {{ bind: '127.0.0.1:$PORT', protocol: http1, tls: {{ certificate: {at}/api.crt, key: {at}/api.key }} }} }}
upstreams: {{ app: 'http://127.0.0.1:{}' }}",
        app.port,
        at = pki.dir().display()
    ));
    let url = format!("https://127.0.0.1:{}/", http1.port);
    assert_eq!(text(&curl(["-k", "-o", "/dev/null", "-w", "%{http_version}", &url])), "1.1");
    app.forget();
    let refused = s_client(http1.port, "api.test", &["postgresql"]);
    assert!(!refused.contains("ECHO"), "{refused}");
    assert_eq!(app.seen(), "");
}

#[test]
fn a_listener_that_terminates_tls_passes_one_name_through() {
    let (app, pki) = (LenientUpstream::start(), Pki::new());
    let ca = pki.ca("ca");
    pki.issue(&ca, "api", &["api.test"]);
    pki.issue_at(&ca, "db", &["db.test"], attache_tests::pki::Validity::Now, 0xDB);
    let port = attache_tests::free_port();
    let _db = attache_tests::pki::openssl_server(&pki, "db", port, "");
    let attache = Attache::start(&format!(
        "listeners:
  in:
    bind: 127.0.0.1:$PORT
    tls: {{ certificate: {at}/api.crt, key: {at}/api.key, client_ca: {at}/ca.crt, allow: nobody.test }}
    routes: [{{ match: {{ sni: db.test }}, tls: passthrough, to: db }}]
    to: app
upstreams: {{ app: 'http://127.0.0.1:{}', db: 'tcp://127.0.0.1:{port}' }}",
        app.port,
        at = pki.dir().display()
    ));
    let shown = |name: &str| attache_tests::pki::shown_serial(attache.port, name);
    assert_ne!(shown("db.test"), "");
    assert_eq!(shown("db.test"), attache_tests::pki::shown_serial(port, "db.test"));
    assert_ne!(shown("db.test"), shown("api.test"));
    eventually("the connection is logged", || {
        attache.metric("attache_requests_total", &["protocol=\"tls\"", "upstream=\"db\""]) > 0.0
    });
    assert_eq!(app.seen(), "");
}
