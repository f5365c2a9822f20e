//! The same reasons with OpenSSL at the other end.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use attache_config::model::{TlsClient, TlsServer, TlsVersion, Trust};
use attache_telemetry::Reason;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{
    answer, ask, client, identity,
    matrix::{H1, H2, NAME, WEB, files},
    pki::PkiFiles,
    server,
};
use crate::{Acceptor, Connector};

/// `openssl s_server` that answers HTTP, ended with the value.
struct OpensslServer {
    process: Child,
    address: SocketAddr,
}

impl OpensslServer {
    fn start(files: &PkiFiles, certificate: &str, more: &str) -> Self {
        let mut process = Command::new("openssl")
            .args(["s_server", "-accept", "127.0.0.1:0", "-www"])
            .args(["-cert", &files.arg(&format!("{certificate}.pem"))])
            .args(["-key", &files.arg(&format!("{certificate}.key"))])
            .args(more.split_whitespace().map(|arg| arg.replace("CERTS", &files.arg(""))))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let address = lines.find_map(|line| line.unwrap().strip_prefix("ACCEPT ")?.parse().ok()).unwrap();
        // Its output is read to the end, so that its messages never block it.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, address }
    }

    async fn ask(&self, settings: &TlsClient, alpn: &[&[u8]]) -> Result<Vec<u8>, Option<Reason>> {
        let connector = Connector::new(settings, alpn).unwrap();
        ask(&connector, NAME, TcpStream::connect(self.address).await.unwrap()).await
    }
}

impl Drop for OpensslServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const OLD: &str = "-cipher ALL:@SECLEVEL=0";

#[tokio::test]
async fn openssl_serves_us() {
    let files = files();
    for versions in ["-tls1_2", "-tls1_3", ""] {
        let peer = OpensslServer::start(&files, "orders", versions);
        let page = peer.ask(&client(&files), H1).await.unwrap();
        assert!(page.starts_with(b"HTTP/1.0 200"), "{versions}");
    }
}

#[tokio::test]
async fn sessions_of_an_openssl_server_are_resumed_in_both_versions() {
    use rustls::HandshakeKind;

    let files = files();
    for version in ["-tls1_2", "-tls1_3"] {
        let peer = OpensslServer::start(&files, "orders", version);
        let connector = Connector::new(&client(&files), H1).unwrap();
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let mut stream =
                connector.connect(NAME, TcpStream::connect(peer.address).await.unwrap()).await.unwrap();
            stream.write_all(super::REQUEST).await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
            assert_eq!(stream.get_ref().1.handshake_kind(), Some(expected), "{version}");
        }
    }
}

#[tokio::test]
async fn what_is_wrong_with_an_openssl_server_is_told_apart() {
    let files = files();
    for (certificate, more, alpn, reason) in [
        ("untrusted", "", H1, Reason::TlsUntrusted),
        ("elsewhere", "", H1, Reason::TlsNameMismatch),
        ("expired", "", H1, Reason::TlsExpired),
        ("future", "", H1, Reason::TlsNotYetValid),
        ("orders", &format!("-tls1_1 {OLD}"), H1, Reason::TlsVersion),
        ("orders", &format!("-tls1 {OLD}"), H1, Reason::TlsVersion),
        ("orders", "-alpn http/1.1", H2, Reason::TlsAlpn),
        ("orders", "", H2, Reason::TlsAlpn),
    ] {
        let peer = OpensslServer::start(&files, certificate, more);
        assert_eq!(peer.ask(&client(&files), alpn).await, Err(Some(reason)), "{certificate} {more}");
    }
    let peer = OpensslServer::start(&files, "orders", "-tls1_2");
    let mut strict = client(&files);
    strict.min_version = TlsVersion::V13;
    assert_eq!(peer.ask(&strict, H1).await, Err(Some(Reason::TlsVersion)));
}

#[tokio::test]
async fn an_openssl_server_that_refuses_our_client_certificate_is_understood_in_both_versions() {
    let files = files();
    for version in ["-tls1_2", "-tls1_3"] {
        let demand = format!("{version} -Verify 1 -verify_return_error -CAfile CERTSca.pem");
        let peer = OpensslServer::start(&files, "orders", &demand);
        for own in [None, Some("stranger"), Some("expired")] {
            let mut client = client(&files);
            client.identity = own.map(|own| identity(&files, own));
            let found = peer.ask(&client, H1).await;
            assert_eq!(found, Err(Some(Reason::TlsNoClientCertificate)), "{version} {own:?}");
        }
        let mut client = client(&files);
        client.identity = Some(identity(&files, "web"));
        assert!(peer.ask(&client, H1).await.is_ok(), "{version}");
    }
}

/// Runs `openssl s_client` against attache's acceptor. Returns the acceptor's result, and the program's output.
async fn visit(files: &PkiFiles, settings: &TlsServer, more: &str) -> (Result<Vec<String>, Reason>, String) {
    let acceptor = Acceptor::new(settings, H1).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut command = Command::new("openssl");
    command
        .args(["s_client", "-connect", &address, "-CAfile", &files.arg("ca.pem"), "-servername", NAME])
        .args(["-verify_return_error", "-ign_eof"])
        .args(more.split_whitespace().map(|arg| arg.replace("CERTS", &files.arg(""))))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let printed = tokio::task::spawn_blocking(move || {
        use std::io::Write;
        let mut process = command.spawn().unwrap();
        let mut stdin = process.stdin.take().unwrap();
        // The program may have ended already; only the acceptor's result matters.
        let _ = stdin.write_all(super::REQUEST);
        let output = process.wait_with_output().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    });
    let (socket, _) = listener.accept().await.unwrap();
    let accepted = answer(&acceptor, socket).await;
    let names = accepted.map(|accepted| accepted.identities.iter().map(ToString::to_string).collect());
    (names, printed.await.unwrap())
}

#[tokio::test]
async fn openssl_connects_to_attache_with_and_without_a_certificate() {
    let files = files();
    let (names, printed) = visit(&files, &server(&files, "orders"), "-alpn h2,http/1.1").await;
    assert_eq!(names, Ok(Vec::new()));
    assert!(printed.contains("Verification: OK") && printed.contains("ALPN protocol: http/1.1"), "{printed}");

    let mut server = server(&files, "orders");
    server.client_trust = Some(Trust::Files(vec![files.path("ca.pem")]));
    for version in ["-tls1_2", "-tls1_3"] {
        let own = format!("{version} -cert CERTSweb.pem -key CERTSweb.key");
        let (names, printed) = visit(&files, &server, &own).await;
        assert_eq!(names, Ok(vec![WEB.to_owned(), "web.shop".to_owned()]), "{printed}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_an_openssl_client_is_told_apart() {
    let files = files();
    let mut mutual = server(&files, "orders");
    mutual.client_trust = Some(Trust::Files(vec![files.path("ca.pem")]));
    mutual.crls = vec![files.path("crl.pem")];
    for version in ["-tls1_2", "-tls1_3"] {
        for (own, reason) in [
            (None, Reason::TlsNoClientCertificate),
            (Some("stranger"), Reason::TlsUntrusted),
            (Some("expired"), Reason::TlsExpired),
            (Some("future"), Reason::TlsNotYetValid),
            (Some("revoked"), Reason::TlsRevoked),
        ] {
            let own = own.map(|own| format!("-cert CERTS{own}.pem -key CERTS{own}.key")).unwrap_or_default();
            let (found, printed) = visit(&files, &mutual, &format!("{version} {own}")).await;
            assert_eq!(found, Err(reason), "{version} {own} {printed}");
        }
    }
    let plain = server(&files, "orders");
    for (more, reason) in
        [(format!("-tls1_1 {OLD}"), Reason::TlsVersion), ("-alpn h2".to_owned(), Reason::TlsAlpn)]
    {
        let (found, printed) = visit(&files, &plain, &more).await;
        assert_eq!(found, Err(reason), "{more} {printed}");
    }
    let mut strict = server(&files, "orders");
    strict.min_version = TlsVersion::V13;
    assert_eq!(visit(&files, &strict, "-tls1_2").await.0, Err(Reason::TlsVersion));
    // A client that does not trust attache's certificate reports it.
    let (found, _) = visit(&files, &server(&files, "untrusted"), "").await;
    assert_eq!(found, Err(Reason::TlsHandshakeFailed));
}

#[tokio::test]
async fn a_stapled_ocsp_response_reaches_the_client() {
    let files = files();
    // This is not a valid response, but a SEQUENCE: OpenSSL shows what it received.
    files.write("orders.ocsp", [0x30, 0x03, 0x0a, 0x01, 0x01]);
    let mut server = server(&files, "orders");
    server.identities[0].ocsp = Some(files.path("orders.ocsp"));
    let (_, printed) = visit(&files, &server, "-status").await;
    assert!(printed.contains("OCSP Response Status: malformedrequest (0x1)"), "{printed}");
}
