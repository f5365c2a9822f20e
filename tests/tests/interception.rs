//! Transparent interception as a pod has it: the kernel redirects what the application sends, and attache reads from the socket
//! where it wanted to go. In a network namespace of its own, so that nothing of the machine is touched.
//!
//! Needs root (or CAP_NET_ADMIN and CAP_SYS_ADMIN): without it these tests fail, and say so.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests stand outside of them"
)]

use std::{
    fs,
    process::{Command, Output},
};

use attache_tests::{Process, binary, eventually, text};

/// The application's user, as an intercepted one: what it sends is redirected, what attache sends is not.
const APP: &str = "1000";
/// Where the original server is: addresses that only the namespace has.
const SERVERS: [(&str, &str); 2] = [("10.77.0.1", "10.77.0.1"), ("fd77::1", "[fd77::1]")];

/// A network namespace that ends with the process that holds it.
struct Namespace {
    holder: Process,
}

impl Namespace {
    fn new() -> Self {
        let id = text(&Command::new("id").arg("-u").output().expect("id"));
        assert_eq!(
            id.trim(),
            "0",
            "interception needs a network namespace, and that needs root: run this test as root, or leave it out with `--skip interception`"
        );
        for (tool, package) in
            [("/usr/sbin/nft", "nftables"), ("/usr/bin/unshare", "util-linux"), ("/usr/sbin/ip", "iproute2")]
        {
            assert!(
                fs::exists(tool).unwrap(),
                "{tool} is missing: run `cargo xtask setup` (Debian package {package})"
            );
        }
        let mut hold = Command::new("unshare");
        hold.args(["--net", "sleep", "infinity"]);
        let namespace = Self { holder: Process::start(&mut hold, tempfile::tempdir().unwrap()) };
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        eventually("the namespace is there", || {
            fs::read_link(format!("/proc/{}/ns/net", namespace.holder.id())).is_ok_and(|ns| ns != own)
        });
        let rules = format!(
            "ip link set lo up
             ip addr add 10.77.0.1/32 dev lo
             ip -6 addr add fd77::1/128 dev lo nodad
             nft add table inet attache
             nft 'add chain inet attache output {{ type nat hook output priority -100; }}'
             nft add rule inet attache output meta skuid {APP} tcp dport != 15001 meta l4proto tcp redirect to :15001"
        );
        text(&namespace.run("sh").args(["-ec", &rules]).output().expect("sh"));
        namespace
    }

    /// A program inside, as root.
    fn run(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.holder.id().to_string(), "--net", program]);
        command
    }

    /// A program inside, as the application's user.
    fn app(&self, program: &str, arguments: &[&str]) -> Output {
        let ids = [format!("--reuid={APP}"), format!("--regid={APP}")];
        let mut command = self.run("setpriv");
        command
            .args(ids)
            .arg("--clear-groups")
            .arg(program)
            .args(arguments)
            .output()
            .expect("setpriv (util-linux)")
    }

    fn start(&self, program: &str, arguments: &[&str]) -> Process {
        Process::start(self.run(program).args(arguments), tempfile::tempdir().unwrap())
    }

    fn curl(&self, arguments: &[&str]) -> Output {
        let always = ["--silent", "--show-error", "--noproxy", "*", "--max-time", "20"];
        self.app("curl", &[&always, arguments].concat())
    }

    /// Waits until something listens on a port inside.
    fn wait_for(&self, what: &Process, port: u16) {
        eventually(&format!("something listens on {port}: {}", what.output()), || {
            text(&self.run("ss").args(["-Hltn", &format!("sport = :{port}")]).output().unwrap())
                .lines()
                .count()
                > 0
        });
    }

    /// attache, as one of root's programs.
    fn attache(&self) -> Process {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("attache.yaml");
        fs::write(
            &file,
            "metrics: off
listeners:
  outbound: { bind: ['0.0.0.0:15001', '[::]:15001'], transparent: true, detect_timeout: 200ms, to: anywhere }
upstreams:
  anywhere: original-destination
",
        )
        .unwrap();
        let program = binary().display().to_string();
        let attache = Process::start(self.run(&program).arg("run").arg("-c").arg(&file), dir);
        self.wait_for(&attache, 15001);
        attache
    }
}

const HTTP_SERVER: &str = "
import http.server, socket, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f'{self.server.server_address[0]} heard {self.headers[\"host\"]} via {self.headers[\"via\"]}'.encode()
        self.send_response(200)
        self.send_header('content-length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET
Server((sys.argv[1], 8080), Answer).serve_forever()
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

#[test]
fn http_reaches_the_server_that_was_called() {
    let namespace = Namespace::new();
    let attache = namespace.attache();
    for (address, host) in SERVERS {
        let server = namespace.start("/usr/bin/python3", &["-c", HTTP_SERVER, address]);
        namespace.wait_for(&server, 8080);
        // The name says nothing of where it goes: the address that was dialled does.
        let resolve = format!("orders.internal:8080:{host}");
        let answer = namespace.curl(&["--resolve", &resolve, "http://orders.internal:8080/"]);
        let answer = text(&answer);
        assert_eq!(
            answer,
            format!("{address} heard orders.internal:8080 via 1.1 attache"),
            "{}",
            attache.output()
        );
    }
}

#[test]
fn a_server_that_speaks_first_is_heard_through_an_intercepted_connection() {
    let namespace = Namespace::new();
    let attache = namespace.attache();
    for (address, host) in SERVERS {
        let server = namespace.start("/usr/bin/python3", &["-c", GREETING_SERVER, address]);
        namespace.wait_for(&server, 2525);
        let answer = namespace.curl(&[&format!("telnet://{host}:2525")]);
        assert_eq!(text(&answer), format!("220 from {address}\r\n"), "{}", attache.output());
    }
}

#[test]
fn tls_is_passed_through_to_the_server_that_was_called() {
    let namespace = Namespace::new();
    let attache = namespace.attache();
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let made = rcgen::generate_simple_self_signed(["orders.internal".to_owned()]).unwrap();
    fs::write(&cert, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    // The application's user reads it.
    let (cert, key, at) =
        (cert.display().to_string(), key.display().to_string(), dir.path().display().to_string());
    text(&Command::new("chmod").args(["-R", "a+rX", &at]).output().unwrap());
    for (_, host) in SERVERS {
        let accept = format!("{host}:8443");
        let server = namespace
            .start("openssl", &["s_server", "-www", "-accept", &accept, "-cert", &cert, "-key", &key]);
        namespace.wait_for(&server, 8443);
        let resolve = format!("orders.internal:8443:{host}");
        // Only the server's own certificate is trusted: whoever terminated it would be found out.
        let url = "https://orders.internal:8443/";
        let answer = text(&namespace.curl(&["--cacert", &cert, "--resolve", &resolve, url]));
        assert!(answer.contains("s_server"), "{answer}\n{}", attache.output());
    }
}

#[test]
fn a_connection_that_was_not_redirected_is_refused_and_does_not_loop() {
    let namespace = Namespace::new();
    let attache = namespace.attache();
    for (_, host) in SERVERS {
        let answer = text(&namespace.curl(&["--include", &format!("http://{host}:15001/")]));
        let reason = answer.lines().find(|line| line.starts_with("x-attache-reason")).unwrap_or_default();
        assert!(
            reason.contains("loop-detected") || reason.contains("no-endpoint"),
            "{answer}\n{}",
            attache.output()
        );
    }
}
