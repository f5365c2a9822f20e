//! A refusal that comes after the handshake, as an HTTP client sees it.

use attache_config::model::{TlsVersion, Trust};
use attache_telemetry::Reason;
use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper::client::conn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::DuplexStream;
use tokio_rustls::client::TlsStream;

use super::{
    client,
    matrix::{H1, H2, NAME, files},
    server,
};
use crate::{Acceptor, Connector, reason_of};

/// A handshake that is finished for attache, with a server that will refuse attache because it shows no certificate.
async fn refused(alpn: &[&[u8]]) -> (TlsStream<DuplexStream>, DuplexStream) {
    let files = files();
    let mut server = server(&files, "orders");
    server.client_trust = Some(Trust::Files(vec![files.path("ca.pem")]));
    server.min_version = TlsVersion::V13;
    let connector = Connector::new(&client(&files), alpn).unwrap();
    let acceptor = Acceptor::new(&server, alpn).unwrap();
    // The peer's side stays open for now, as on a network on which the refusal still travels.
    let (ours, mut theirs) = tokio::io::duplex(64 << 10);
    let (stream, accepted) = tokio::join!(connector.connect(NAME, ours), acceptor.accept(&mut theirs));
    assert_eq!(accepted.map(drop).unwrap_err().reason, Reason::TlsNoClientCertificate);
    (stream.unwrap(), theirs)
}

fn request() -> Request<Empty<Bytes>> {
    Request::get("https://orders.internal/").body(Empty::new()).unwrap()
}

#[tokio::test]
async fn a_late_refusal_is_found_in_an_http1_clients_error() {
    let (io, _peer) = refused(H1).await;
    let io = TokioIo::new(io);
    let (mut sender, connection) = conn::http1::handshake(io).await.unwrap();
    let (response, ended) = tokio::join!(sender.send_request(request()), connection);
    let found: Vec<_> =
        [response.err(), ended.err()].iter().flatten().map(|error| reason_of(error)).collect();
    assert!(found.contains(&Some(Reason::TlsNoClientCertificate)), "{found:?}");
}

#[tokio::test]
async fn a_late_refusal_is_found_in_an_http2_clients_error() {
    let (io, _peer) = refused(H2).await;
    let io = TokioIo::new(io);
    match conn::http2::handshake(TokioExecutor::new(), io).await {
        Err(error) => assert_eq!(reason_of(&error), Some(Reason::TlsNoClientCertificate)),
        Ok((mut sender, connection)) => {
            let (response, ended) = tokio::join!(sender.send_request(request()), connection);
            let errors: Vec<_> = [response.err(), ended.err()].into_iter().flatten().collect();
            let found: Vec<_> = errors.iter().map(|error| reason_of(error)).collect();
            assert!(found.contains(&Some(Reason::TlsNoClientCertificate)), "{errors:?}");
        }
    }
}
