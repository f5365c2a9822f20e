//! TLS that is terminated, refused or passed through.

use std::{path::PathBuf, sync::Arc};

use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer},
};

use super::*;

struct Files {
    _dir: tempfile::TempDir,
    certificate: PathBuf,
    key: PathBuf,
    der: CertificateDer<'static>,
}

fn files() -> Files {
    let made = rcgen::generate_simple_self_signed(["orders.internal".to_owned()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = (dir.path().join("c.pem"), dir.path().join("k.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    Files { _dir: dir, certificate, key, der: made.cert.der().clone() }
}

fn settings(files: &Files, mode: TlsMode) -> TlsServer {
    TlsServer {
        identities: vec![Identity {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
            ocsp: None,
        }],
        mode,
        ..TlsServer::default()
    }
}

fn server(files: &Files, mode: TlsMode) -> TestServer {
    let tls = settings(files, mode);
    let acceptor = attache_tls::Acceptor::new(&tls, &[b"h2", b"http/1.1"]).unwrap();
    let http = fun(|request: HttpRequest| async move {
        let sni = request.client.sni.clone().unwrap_or_else(|| "-".into());
        let said = format!("tls={} sni={sni} ", request.client.tls);
        if request.refused.is_some() {
            return answer(request).await;
        }
        text(200, format!("{said}{}", request.request.uri()))
    });
    start(Listener { tls: Some(tls), ..listener() }, Some(acceptor), http, fun(echo_bytes))
}

async fn connect(server: &TestServer, files: &Files, alpn: &[&[u8]]) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(files.der.clone()).unwrap();
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    let name = "orders.internal".try_into().unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, server.connect().await).await.unwrap()
}

#[test]
fn tls_is_terminated_and_the_protocol_inside_is_detected() {
    run(async {
        let files = files();
        let server = server(&files, TlsMode::Strict);
        for alpn in [&[b"http/1.1".as_slice()][..], &[]] {
            let mut client = connect(&server, &files, alpn).await;
            client.write_all(GET.as_bytes()).await.unwrap();
            read_until(&mut client, "tls=true sni=orders.internal /a").await;
        }
        let mut opaque = connect(&server, &files, &[]).await;
        opaque.write_all(b"*1\r\n").await.unwrap();
        read_until(&mut opaque, "*1\r\n").await;
        let h2 = connect(&server, &files, &[b"h2"]).await;
        let io = hyper_util::rt::TokioIo::new(h2);
        let (mut send, connection) = hyper::client::conn::http2::handshake(LocalExecutor, io).await.unwrap();
        tokio::task::spawn_local(connection);
        let request = http::Request::get("https://orders.internal/h2").body(String::new()).unwrap();
        let answer = send.send_request(request).await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.version()), (200, http::Version::HTTP_2));
    });
}

#[test]
fn inside_of_tls_bytes_are_http_if_no_route_is_opaque() {
    run(async {
        let files = files();
        let tls = settings(&files, TlsMode::Strict);
        let acceptor = attache_tls::Acceptor::new(&tls, &[b"h2", b"http/1.1"]).unwrap();
        let server = start_taking(
            AcceptedTraffic { http: true, opaque: false },
            Listener { tls: Some(tls), ..listener() },
            Some(acceptor),
            fun(answer),
            fun(|opaque: OpaqueConnection| async move { assert!(opaque.silent, "no route is opaque here") }),
        );
        for prefix in ["\r\n\r\n", "\n", "*1\r\n", "\x16\x03\x01"] {
            let mut client = connect(&server, &files, &[]).await;
            client.write_all(format!("{prefix}{LAST}").as_bytes()).await.unwrap();
            read_until(&mut client, "HTTP/1.1 400").await;
        }
        // Pauses longer than `detect_timeout`, before the request and within it.
        for pieces in [["", LAST], ["GE", &LAST[2..]]] {
            let mut client = connect(&server, &files, &[]).await;
            client.write_all(pieces[0].as_bytes()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(400)).await;
            client.write_all(pieces[1].as_bytes()).await.unwrap();
            read_until(&mut client, "GET /z []").await;
        }
        assert_eq!(server.finished(6).await.iter().filter(|done| done.protocol == "http1").count(), 6);
    });
}

#[test]
fn plaintext_is_refused_with_a_reason_by_a_strict_listener_and_served_by_a_permissive_one() {
    run(async {
        let files = files();
        let strict = server(&files, TlsMode::Strict);
        let answers = strict.ask(GET.repeat(2)).await;
        assert!(answers.starts_with("HTTP/1.1 403"), "{answers}");
        assert_eq!(answers.matches("HTTP/1.1").count(), 1);
        assert_eq!(strict.ask("*1\r\n$4\r\nPING\r\n").await, "");
        let done = strict.finished(2).await;
        assert!(done.iter().all(|d| d.reason == Some(Reason::PlaintextDenied)), "{done:?}");
        let permissive = server(&files, TlsMode::Permissive);
        assert!(permissive.ask(LAST).await.contains("tls=false sni=- /z"));
        let mut client = connect(&permissive, &files, &[]).await;
        client.write_all(GET.as_bytes()).await.unwrap();
        read_until(&mut client, "tls=true").await;
    });
}

#[test]
fn a_failed_handshake_is_counted_with_its_reason() {
    run(async {
        let files = files();
        let server = server(&files, TlsMode::Strict);
        let mut client = server.connect().await;
        client.write_all(b"\x16\x03\x01\0\x05\x01\0\0\x01\0").await.unwrap();
        let _ = client.read_to_end(&mut Vec::new()).await;
        let done = server.finished(1).await;
        assert_eq!((done[0].protocol, done[0].reason), ("tls", Some(Reason::TlsHandshakeFailed)));
    });
}

#[test]
fn tls_that_is_passed_through_is_routed_by_its_name_and_unchanged() {
    run(async {
        let files = files();
        let behind = server(&files, TlsMode::Strict);
        let to = behind.address;
        let relay = fun(move |mut opaque: OpaqueConnection| async move {
            assert_eq!(opaque.client.sni.as_deref(), Some("orders.internal"));
            let mut upstream = TcpStream::connect(to).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut opaque.io, &mut upstream).await;
        });
        let front = start(listener(), None, fun(answer), relay);
        let mut client = connect(&front, &files, &[b"http/1.1"]).await;
        client.write_all(LAST.as_bytes()).await.unwrap();
        read_until(&mut client, "tls=true sni=orders.internal /z").await;
        drop(client);
        let done = front.finished(1).await;
        assert_eq!((done[0].protocol, &*done[0].host), ("tls", "orders.internal"));
    });
}
