//! Transparent interception as in a pod: after `attache intercept` the kernel redirects connections, and attache reads their original
//! destination from the socket. The tests run in network namespaces of their own, so they don't change the machine.
//!
//! They need root (or CAP_NET_ADMIN and CAP_SYS_ADMIN); without it they fail and say so.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "the lint does not see that these are helpers of tests"
)]

use std::{fs, process::Output};

use attache_tests::{
    TestProcess, binary, eventually,
    pki::Pki,
    pods::{APP, ATTACHE, Pod, pods, readable},
    text,
};

/// A server that answers with the called address, the request, and the client.
const HTTP_SERVER: &str = "
import http.server, socket, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        heard = {name: self.headers[name] for name in ('host', 'via', 'x-forwarded-client-cert')}
        body = f'{self.server.server_address[0]} heard {heard[\"host\"]} via {heard[\"via\"]} from {heard[\"x-forwarded-client-cert\"]}'.encode()
        self.send_response(200)
        self.send_header('content-length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET
Server((sys.argv[1], int(sys.argv[2])), Answer).serve_forever()
";

const GREETING_SERVER: &str = "
import socket, sys
family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET
s = socket.socket(family); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind((sys.argv[1], 2525)); s.listen()
while True:
    c, _ = s.accept()
    c.sendall(b'220 from ' + sys.argv[1].encode() + b'\\r\\n')
    c.close()
";

const UDP_SERVER: &str = "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('10.77.0.2', 53))
data, peer = s.recvfrom(512); s.sendto(b'heard ' + data, peer)
";

const CALLS_ANYWHERE: &str = "
listeners:
  outbound: { bind: 'localhost:15001', transparent: true, detect_timeout: 200ms, to: anywhere }
upstreams:
  anywhere: original-destination
";

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
const ORDERS: &str = "spiffe://cluster.local/ns/shop/sa/orders";

/// A pod whose calls are intercepted, one whose calls aren't, and the attache in the first.
fn intercepted() -> (Pod, Pod, TestProcess) {
    let (client, server) = pods();
    text(&client.intercept(&[]));
    let attache = client.attache(CALLS_ANYWHERE);
    (client, server, attache)
}

fn http_server(pod: &Pod, address: &str, port: u16) -> TestProcess {
    let server = pod.start("/usr/bin/python3", &["-c", HTTP_SERVER, address, &port.to_string()]);
    let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    pod.wait_for(&server, &format!("{host}:{port}"));
    server
}

fn fails(output: &Output) -> String {
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Both pods with an attache, mutual TLS between them.
struct PodMesh {
    client: Pod,
    server: Pod,
    _pki: Pki,
    _processes: Vec<TestProcess>,
}

/// `app_at` are addresses in the called pod that the application listens on, port 8080.
fn mesh(app_at: &[&str]) -> PodMesh {
    let (client, server) = pods();
    let pki = Pki::new();
    let ca = pki.ca("ca");
    pki.issue(&ca, "web", &[WEB]);
    pki.issue(&ca, "orders", &[ORDERS]);
    readable(pki.dir());
    text(&client.intercept(&[]));
    text(&server.intercept(&[]));
    let at = pki.at("");
    let mut processes = vec![
        client.attache(&format!(
            "
listeners:
  outbound: {{ bind: 'localhost:15001', transparent: true, to: mesh }}
upstreams:
  mesh:
    address: original-destination
    tls: {{ ca: {at}/ca.crt, certificate: {at}/web.crt, key: {at}/web.key, peers: {ORDERS} }}
"
        )),
        server.attache(&format!(
            "
listeners:
  outbound: {{ bind: 'localhost:15001', transparent: true, to: app }}
  inbound:
    bind: ['0.0.0.0:15006', '[::]:15006']
    transparent: true
    tls: {{ certificate: {at}/orders.crt, key: {at}/orders.key, client_ca: {at}/ca.crt, allow: '{WEB}' }}
    to: app
upstreams:
  app: original-destination
"
        )),
    ];
    processes.extend(app_at.iter().map(|address| http_server(&server, address, 8080)));
    PodMesh { client, server, _pki: pki, _processes: processes }
}

#[test]
fn an_unmodified_client_reaches_an_unmodified_server_through_mutual_tls_and_the_server_sees_the_client() {
    let PodMesh { client, server, .. } = &mesh(&["10.77.0.2", "fd77::2"]);
    for (address, host) in server.addresses() {
        let url = format!("http://{host}:8080/");
        let answer = text(&client.curl(&[&url]));
        assert!(answer.starts_with(&format!("{address} heard {host}:8080 via 1.1 attache")), "{answer}");
        assert!(
            answer.contains(&format!("URI={WEB}")) && answer.contains(&format!("By={ORDERS}")),
            "{answer}"
        );
        // A client without a certificate reaches nothing. attache's own user is not redirected, so this is such a client.
        let stranger = client.curl_as(ATTACHE, &["--include", &url]);
        assert!(!String::from_utf8_lossy(&stranger.stdout).contains("heard"), "{stranger:?}");
    }
}

#[test]
fn the_application_reaches_itself_without_attache() {
    let PodMesh { server, .. } = &mesh(&["10.77.0.2", "fd77::2", "127.0.0.1"]);
    for host in ["10.77.0.2", "[fd77::2]", "127.0.0.1"] {
        let answer = text(&server.curl(&[&format!("http://{host}:8080/")]));
        assert!(answer.ends_with("via None from None"), "{answer}");
    }
}

#[test]
fn no_client_gets_out_through_the_inbound_listener() {
    let (client, server) = pods();
    text(&server.intercept(&[]));
    // The worst case: the outbound listener is bound to all addresses, and the inbound listener accepts plaintext.
    let attache = server.attache(
        "
listeners:
  outbound: { bind: ['0.0.0.0:15001', '[::]:15001'], transparent: true, to: anywhere }
  inbound: { bind: ['0.0.0.0:15006', '[::]:15006'], transparent: true, to: app }
upstreams:
  app: original-destination
  anywhere: original-destination
",
    );
    for (_, host) in server.addresses() {
        for port in [15001, 15006] {
            let answer = text(&client.curl(&["--include", &format!("http://{host}:{port}/")]));
            let reason = answer.lines().find(|line| line.starts_with("x-attache-reason")).unwrap_or_default();
            let expected = if port == 15001 { "loop-detected" } else { "no-endpoint" };
            assert!(reason.contains(expected), "{answer}\n{}", attache.output());
        }
    }
}

#[test]
fn running_it_twice_is_like_once_and_remove_restores_the_old_state() {
    let (client, server, attache) = intercepted();
    let _app = http_server(&server, server.v4, 8080);
    let url = format!("http://{}:8080/", server.v4);
    for backend in ["netlink", "nft", "iptables"] {
        text(&client.intercept(&["--remove"]));
        let before = client.ruleset();
        assert!(!before.contains("redirect"), "{before}");
        let plain = text(&client.curl(&[&url]));
        assert!(plain.contains("via None"), "{plain}");

        text(&client.intercept(&["--backend", backend]));
        let once = client.ruleset();
        assert!(once.contains("15001") && once.contains("15006"), "{once}");
        text(&client.intercept(&["--backend", backend]));
        assert_eq!(client.ruleset(), once, "{backend}");
        let through = text(&client.curl(&[&url]));
        assert!(through.contains("via 1.1 attache"), "{backend}: {through}\n{}", attache.output());
    }
    text(&client.intercept(&["--remove"]));
    text(&client.intercept(&["--remove"]));
    assert!(text(&client.curl(&[&url])).contains("via None"));
}

#[test]
fn iptables_of_both_kinds_has_the_rules_once_whatever_it_had_before() {
    let (pod, _) = pods();
    let program = binary().display().to_string();
    for kind in ["nft", "legacy"] {
        let folder = tempfile::tempdir().unwrap();
        for family in ["iptables", "ip6tables"] {
            for tool in ["save", "restore"] {
                let original = format!("/usr/sbin/{family}-{kind}-{tool}");
                std::os::unix::fs::symlink(original, folder.path().join(format!("{family}-{tool}"))).unwrap();
            }
        }
        let intercept = |arguments: &[&str]| {
            let mut command = pod.run(0, "env");
            command.arg(format!("PATH={}", folder.path().display())).arg(&program).arg("intercept");
            text(&command.args(arguments).output().unwrap())
        };
        let saved = |family: &str| {
            let save = format!("/usr/sbin/{family}-{kind}-save");
            let all = text(&pod.run(0, &save).args(["-t", "nat"]).output().unwrap());
            all.lines().filter(|line| line.contains("ATTACHE")).collect::<Vec<_>>().join("\n")
        };
        intercept(&["--backend=iptables", "--exclude-outbound-ports=5432"]);
        intercept(&["--backend=iptables"]);
        for family in ["iptables", "ip6tables"] {
            let rules = saved(family);
            assert!(!rules.contains("5432"), "{kind} {family}: {rules}");
            assert_eq!(rules.matches("-A OUTPUT").count(), 1, "{kind} {family}: {rules}");
            assert_eq!(rules.matches("-A PREROUTING").count(), 1, "{kind} {family}: {rules}");
        }
        intercept(&["--remove"]);
        for family in ["iptables", "ip6tables"] {
            assert_eq!(saved(family), "", "{kind} {family}");
        }
    }
}

#[test]
fn netlink_and_nft_load_the_same_rules_and_dry_run_shows_them() {
    let (pod, _) = pods();
    let every: &[&str] = &[
        "--proxy-uid=1337,1338",
        "--proxy-gid=7",
        "--exclude-uids=0",
        "--exclude-gids=12",
        "--exclude-interfaces=cali*,eth7",
        "--exclude-outbound-ports=5432,9000-9100",
        "--exclude-outbound-cidrs=10.0.0.0/9,169.254.169.254,fd00::/7,fe80::1,0.0.0.0/0,::/0",
        "--include-outbound-ports=80,1-7",
        "--include-outbound-cidrs=10.77.0.0/24",
        "--exclude-inbound-ports=22",
        "--include-inbound-ports=8080,1-100",
    ];
    for options in [&[][..], every, &["--no-outbound"], &["--no-inbound", "--outbound-port=4140"]] {
        text(&pod.intercept(options));
        let netlink = pod.ruleset();
        let dry = text(&pod.intercept(&[&["--dry-run"], options].concat()));
        assert_eq!(pod.ruleset(), netlink, "a dry run changes nothing");
        text(&pod.intercept(&["--remove"]));
        assert!(!pod.ruleset().contains("attache"), "{}", pod.ruleset());
        text(&pod.intercept(&[&["--backend=nft"], options].concat()));
        assert_eq!(pod.ruleset(), netlink);
        // `nft` accepts the output of the dry run.
        text(&pod.intercept(&["--remove"]));
        let script = tempfile::NamedTempFile::new().unwrap();
        fs::write(script.path(), dry).unwrap();
        text(&pod.run(0, "nft").arg("-f").arg(script.path()).output().unwrap());
        assert_eq!(pod.ruleset(), netlink);
    }
}

#[test]
fn excluded_destinations_are_called_directly_and_those_not_included_too() {
    let (client, server, attache) = intercepted();
    let _apps: Vec<TestProcess> = server
        .addresses()
        .iter()
        .flat_map(|(address, _)| [8080, 8081].map(|port| http_server(&server, address, port)))
        .collect();
    let goes = |v6: bool, port: u16| {
        let (_, host) = &server.addresses()[usize::from(v6)];
        let answer = text(&client.curl(&[&format!("http://{host}:{port}/")]));
        if answer.contains("via 1.1 attache") { "through" } else { "straight" }
    };
    for backend in ["netlink", "iptables"] {
        for (options, v4_8080, v6_8080, v4_8081) in [
            (&[][..], "through", "through", "through"),
            (&["--exclude-outbound-ports=8081"], "through", "through", "straight"),
            (&["--exclude-outbound-ports=8081-9000"], "through", "through", "straight"),
            (&["--exclude-outbound-cidrs=10.77.0.0/24"], "straight", "through", "straight"),
            (&["--exclude-outbound-cidrs=fd77::/16"], "through", "straight", "through"),
            (&["--exclude-interfaces=eth*"], "straight", "straight", "straight"),
            (&["--exclude-uids=1000"], "straight", "straight", "straight"),
            (&["--exclude-gids=1000"], "straight", "straight", "straight"),
            (&["--include-outbound-ports=8081"], "straight", "straight", "through"),
            (&["--include-outbound-cidrs=fd77::2"], "straight", "through", "straight"),
            (&["--no-outbound"], "straight", "straight", "straight"),
        ] {
            text(&client.intercept(&["--remove"]));
            text(&client.intercept(&[&["--backend", backend], options].concat()));
            let found = [goes(false, 8080), goes(true, 8080), goes(false, 8081)];
            assert_eq!(found, [v4_8080, v6_8080, v4_8081], "{backend} {options:?}\n{}", attache.output());
        }
    }
}

#[test]
fn an_excluded_inbound_port_is_called_without_attache() {
    let (client, server) = pods();
    let attache = server.attache(
        "
listeners:
  inbound: { bind: ['0.0.0.0:15006', '[::]:15006'], transparent: true, to: app }
upstreams:
  app: original-destination
",
    );
    let _apps = [8080, 8081].map(|port| http_server(&server, server.v4, port));
    for backend in ["netlink", "iptables"] {
        text(&server.intercept(&["--remove"]));
        text(&server.intercept(&["--backend", backend, "--exclude-inbound-ports", "8081"]));
        for (port, via) in [(8080, "via 1.1 attache"), (8081, "via None")] {
            let answer = text(&client.curl(&[&format!("http://{}:{port}/", server.v4)]));
            assert!(answer.contains(via), "{backend} {port}: {answer}\n{}", attache.output());
        }
        // For example a kubelet's probe, or a scrape.
        let ready = client.curl(&["--fail", &format!("http://{}:15090/readyz", server.v4)]);
        assert!(ready.status.success(), "{ready:?}");
    }
}

#[test]
fn dns_over_udp_is_untouched() {
    let (client, server) = pods();
    text(&client.intercept(&[]));
    let mut echo = server.run(0, "/usr/bin/python3");
    let _echo = TestProcess::start(echo.args(["-c", UDP_SERVER]), tempfile::tempdir().unwrap());
    eventually("the server listens", || {
        let listens = server.run(0, "ss").args(["-Hlun", "sport = :53"]).output();
        text(&listens.unwrap()).lines().count() > 0
    });
    let ask = "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(10)
s.sendto(b'a question', ('10.77.0.2', 53)); print(s.recv(512).decode())
";
    let answer = client.run(APP, "/usr/bin/python3").args(["-c", ask]).output().unwrap();
    assert_eq!(text(&answer), "heard a question\n");
}

#[test]
fn without_the_capability_the_error_names_the_missing_one() {
    let (pod, _) = pods();
    let program = binary().display().to_string();
    for backend in ["auto", "netlink", "nft", "iptables"] {
        let refused = pod.run(APP, &program).args(["intercept", "--backend", backend]).output().unwrap();
        let said = fails(&refused);
        assert!(said.contains("CAP_NET_ADMIN is needed"), "{backend}: {said}");
    }
    let nowhere = || {
        let mut command = pod.run(0, "env");
        command.arg("PATH=/nowhere").arg(&program);
        command
    };
    for backend in ["nft", "iptables"] {
        let without = nowhere().args(["intercept", "--backend", backend]).output();
        let said = fails(&without.unwrap());
        assert!(said.contains("is not there: install it, or use `--backend netlink`"), "{said}");
    }
    // One capability is enough.
    let mut alone = pod.run(0, "setpriv");
    alone.args([
        "--bounding-set=-all,+net_admin",
        "--inh-caps=-all",
        "--no-new-privs",
        &program,
        "intercept",
    ]);
    text(&alone.output().unwrap());
    // By default no program is needed: it works in an image that contains nothing else.
    let without = nowhere().arg("intercept").output();
    text(&without.unwrap());
    let without = nowhere().args(["intercept", "--remove"]).output();
    text(&without.unwrap());
}

#[test]
fn http_reaches_the_server_that_was_called() {
    let (client, server, attache) = intercepted();
    for (address, host) in server.addresses() {
        let _app = http_server(&server, address, 8080);
        // The name doesn't say where the connection goes: the called address does.
        let resolve = format!("orders.internal:8080:{host}");
        let answer = text(&client.curl(&["--resolve", &resolve, "http://orders.internal:8080/"]));
        let expected = format!("{address} heard orders.internal:8080 via 1.1 attache from None");
        assert_eq!(answer, expected, "{}", attache.output());
    }
}

#[test]
fn a_server_that_sends_first_works_through_an_intercepted_connection() {
    let (client, server, attache) = intercepted();
    for (address, host) in server.addresses() {
        let greeter = server.start("/usr/bin/python3", &["-c", GREETING_SERVER, address]);
        server.wait_for(&greeter, &format!("{host}:2525"));
        let answer = client.curl(&[&format!("telnet://{host}:2525")]);
        assert_eq!(text(&answer), format!("220 from {address}\r\n"), "{}", attache.output());
    }
}

#[test]
fn tls_is_passed_through_to_the_server_that_was_called() {
    let (client, server, attache) = intercepted();
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let made = rcgen::generate_simple_self_signed(["orders.internal".to_owned()]).unwrap();
    fs::write(&cert, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    readable(dir.path());
    let (cert, key) = (cert.display().to_string(), key.display().to_string());
    for (_, host) in server.addresses() {
        let accept = format!("{host}:8443");
        let page =
            server.start("openssl", &["s_server", "-www", "-accept", &accept, "-cert", &cert, "-key", &key]);
        server.wait_for(&page, &accept);
        let resolve = format!("orders.internal:8443:{host}");
        // Only the server's own certificate is trusted, so terminated TLS would be noticed.
        let url = "https://orders.internal:8443/";
        let answer = text(&client.curl(&["--cacert", &cert, "--resolve", &resolve, url]));
        assert!(answer.contains("s_server"), "{answer}\n{}", attache.output());
    }
}

#[test]
fn a_connection_that_was_not_redirected_is_refused_and_does_not_loop() {
    let (client, _server, attache) = intercepted();
    for host in ["127.0.0.1", "[::1]"] {
        let answer = text(&client.curl(&["--include", &format!("http://{host}:15001/")]));
        let reason = answer.lines().find(|line| line.starts_with("x-attache-reason")).unwrap_or_default();
        assert!(reason.contains("no-endpoint"), "{answer}\n{}", attache.output());
    }
}
