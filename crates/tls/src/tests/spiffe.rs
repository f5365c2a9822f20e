//! The SPIFFE Workload API, served by a test's agent.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use attache_config::model::{SanPattern, TlsClient, TlsServer, Trust};
use attache_telemetry::Reason;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::{net::UnixListener, sync::mpsc, task::JoinHandle};

use super::{
    matrix::{H1, WEB},
    meet,
    pki::{CertificateAuthority, CertificatePair, PkiFiles},
    server,
};
use crate::{Acceptor, Connector, FileWatcher, Workload};

fn field(number: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = value.len();
    while length > 0x7f {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(value);
    out
}

/// An `X509SVIDResponse` with one SVID.
fn response(id: &str, pair: &CertificatePair, bundle: &[&CertificateAuthority]) -> Vec<u8> {
    let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec();
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    let bundle: Vec<u8> = bundle.iter().flat_map(|ca| der(&ca.pem)).collect();
    let svid = [
        field(1, id.as_bytes()),
        field(2, &der(&pair.certificate)),
        field(3, key.secret_der()),
        field(4, &bundle),
        field(5, b"a hint"),
    ];
    [field(1, &svid.concat()), field(7, b"a field of the future")].concat()
}

/// What the agent sends next.
enum AgentStep {
    Message(Vec<u8>),
    Status(&'static str),
}

struct ResponseChannel(mpsc::UnboundedReceiver<AgentStep>);

impl http_body::Body for ResponseChannel {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(ready!(self.0.poll_recv(context)).map(|say| {
            Ok(match say {
                AgentStep::Message(message) => {
                    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
                    Frame::data([&[0], &length[..], &message].concat().into())
                }
                AgentStep::Status(code) => {
                    let mut trailers = HeaderMap::new();
                    trailers.insert("grpc-status", HeaderValue::from_static(code));
                    Frame::trailers(trailers)
                }
            })
        }))
    }
}

/// Serves the socket. For every call a test gets the channel for its answers.
struct Agent {
    calls: mpsc::UnboundedReceiver<mpsc::UnboundedSender<AgentStep>>,
    task: JoinHandle<()>,
}

impl Agent {
    fn start(files: &PkiFiles) -> Self {
        let _ = std::fs::remove_file(files.path("agent.sock"));
        let listener = UnixListener::bind(files.path("agent.sock")).unwrap();
        let (called, calls) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let called = called.clone();
                connections.spawn(async move {
                    let service = service_fn(|request: Request<Incoming>| {
                        assert_eq!(request.uri().path(), "/SpiffeWorkloadAPI/FetchX509SVID");
                        assert_eq!(request.headers()["workload.spiffe.io"], "true");
                        assert_eq!(request.headers()["content-type"], "application/grpc");
                        let (say, said) = mpsc::unbounded_channel();
                        called.send(say).unwrap();
                        async { Ok::<_, Infallible>(Response::new(ResponseChannel(said))) }
                    });
                    let _ = http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(socket), service)
                        .await;
                });
            }
        });
        Self { calls, task }
    }

    /// Answers the next call with this message. The stream stays open until the returned sender is dropped.
    async fn answer(&mut self, message: Vec<u8>) -> mpsc::UnboundedSender<AgentStep> {
        let call = self.calls.recv().await.unwrap();
        call.send(AgentStep::Message(message)).unwrap();
        call
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn workload(files: &PkiFiles) -> Workload {
    Workload::new(&format!("unix://{}", files.arg("agent.sock"))).unwrap()
}

/// Both sides show their SVID and trust their trust domain.
fn settings(files: &PkiFiles, peer: &str) -> (TlsClient, TlsServer) {
    let mut client = super::client(files);
    client.trust = Trust::Spiffe;
    client.spiffe = true;
    client.peers = vec![SanPattern::Uri(peer.into())];
    let mut server = server(files, "unused");
    server.identities.clear();
    server.spiffe = true;
    server.client_trust = Some(Trust::Spiffe);
    (client, server)
}

async fn first(agent: &mut Agent, workload: &Workload, message: Vec<u8>) {
    let limit = Duration::from_secs(30);
    let (result, _call) = tokio::join!(workload.first(limit), agent.answer(message));
    result.unwrap();
}

async fn until(mut done: impl FnMut() -> bool) {
    while !done() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

const LIMIT: Duration = Duration::from_secs(30);

#[tokio::test]
async fn svids_and_bundles_are_streamed_and_outlive_their_agent() {
    let files = PkiFiles::new();
    let ca = CertificateAuthority::new("the CA");
    let mut agent = Agent::start(&files);
    let workload = workload(&files);
    first(&mut agent, &workload, response(WEB, &ca.issue(&[WEB]), &[&ca])).await;

    let (client, server) = settings(&files, "spiffe://cluster.local/ns/shop/**");
    let connector = Connector::with_workload(&client, H1, Some(&workload)).unwrap();
    let acceptor = Acceptor::with_workload(&server, H1, Some(&workload)).unwrap();
    let watcher = FileWatcher::default();
    watcher.follow(&connector);
    watcher.follow(&acceptor);
    let identity = async || {
        let (answer, accepted) = meet(&connector, "10.0.0.1", &acceptor).await;
        assert_eq!(answer.unwrap(), b"hello");
        accepted.unwrap().identities[0].to_string()
    };
    assert_eq!(identity().await, WEB);

    let following = tokio::spawn(workload.clone().run());
    let seen = workload.digest();
    let new_ca = CertificateAuthority::new("a new CA");
    let call = agent.answer(response(NEXT, &new_ca.issue(&[NEXT]), &[&new_ca, &ca])).await;
    tokio::time::timeout(LIMIT, until(|| workload.digest() != seen)).await.unwrap();
    watcher.look();
    watcher.look();
    assert_eq!(identity().await, NEXT);

    // A message that does not fit together ends the call, and changes nothing.
    let seen = workload.digest();
    call.send(AgentStep::Message(response(WEB, &new_ca.issue(&[NEXT]), &[&new_ca]))).unwrap();
    tokio::time::timeout(LIMIT, call.closed()).await.unwrap();
    assert_eq!(workload.digest(), seen);

    // The agent goes away and comes back.
    drop(agent);
    watcher.look();
    watcher.look();
    assert_eq!(identity().await, NEXT);
    let mut agent = Agent::start(&files);
    let third = agent.answer(response(WEB, &new_ca.issue(&[WEB]), &[&new_ca]));
    let _call = tokio::time::timeout(LIMIT, third).await.unwrap();
    tokio::time::timeout(LIMIT, until(|| workload.digest() != seen)).await.unwrap();
    watcher.look();
    watcher.look();
    assert_eq!(identity().await, WEB);
    assert_eq!(watcher.certificates().len(), 1);
    following.abort();
}

const NEXT: &str = "spiffe://cluster.local/ns/shop/sa/next";

#[tokio::test]
async fn another_trust_domain_is_not_trusted_although_its_authority_is_the_same() {
    let files = PkiFiles::new();
    let ca = CertificateAuthority::new("an authority of two domains");
    let mut agent = Agent::start(&files);
    let (ours, theirs) = (workload(&files), workload(&files));
    let other = "spiffe://other.domain/ns/shop/sa/web";
    first(&mut agent, &ours, response(WEB, &ca.issue(&[WEB]), &[&ca])).await;
    first(&mut agent, &theirs, response(other, &ca.issue(&[other]), &[&ca])).await;
    let (client, server) = settings(&files, other);

    let connector = Connector::with_workload(&client, H1, Some(&ours)).unwrap();
    let acceptor = Acceptor::with_workload(&server, H1, Some(&theirs)).unwrap();
    let (answer, _) = meet(&connector, "x", &acceptor).await;
    assert_eq!(answer, Err(Some(Reason::TlsNameMismatch)));

    let mut lax = client.clone();
    files.write("ca.pem", &ca.pem);
    lax.trust = Trust::Files(vec![files.path("ca.pem")]);
    let connector = Connector::with_workload(&lax, H1, Some(&ours)).unwrap();
    let (_, accepted) = meet(&connector, "x", &acceptor).await;
    assert_eq!(accepted.map(drop), Err(Reason::TlsUntrusted));
}

#[tokio::test]
async fn a_peer_is_verified_by_its_uri_if_the_config_says_so() {
    let files = PkiFiles::new();
    let ca = CertificateAuthority::new("the CA");
    files.write("ca.pem", &ca.pem);
    files.put("web", &ca.issue(&[WEB]));
    let acceptor = Acceptor::new(&server(&files, "web"), H1).unwrap();
    let mut client = super::client(&files);
    for (pattern, reason) in [
        (WEB, None),
        ("spiffe://cluster.local/ns/*/sa/web", None),
        ("spiffe://cluster.local/ns/shop/sa/other", Some(Reason::TlsNameMismatch)),
    ] {
        client.peers = vec![SanPattern::Uri(pattern.into())];
        let connector = Connector::new(&client, H1).unwrap();
        let (answer, _) = meet(&connector, "any.name", &acceptor).await;
        assert_eq!(answer.err().flatten(), reason, "{pattern}");
    }
    // The chain is still verified.
    files.write("ca.pem", &CertificateAuthority::new("another CA").pem);
    client.peers = vec![SanPattern::Uri(WEB.into())];
    let (answer, _) = meet(&Connector::new(&client, H1).unwrap(), "any.name", &acceptor).await;
    assert_eq!(answer, Err(Some(Reason::TlsUntrusted)));
}

#[tokio::test]
async fn the_message_of_an_agent_that_refuses_the_workload_is_shown() {
    let files = PkiFiles::new();
    let mut agent = Agent::start(&files);
    let workload = workload(&files);
    let refusing = async {
        while let Some(call) = agent.calls.recv().await {
            call.send(AgentStep::Status("7")).unwrap();
        }
    };
    let error = tokio::select! {
        result = workload.first(Duration::from_secs(2)) => result.unwrap_err().to_string(),
        () = refusing => unreachable!(),
    };
    assert!(error.contains("permission denied: no identity is registered"), "{error}");
}

#[test]
fn settings_that_need_a_missing_workload_api_fail_with_advice() {
    let files = PkiFiles::new();
    let (client, server) = settings(&files, WEB);
    for error in [
        Connector::new(&client, H1).map(drop).unwrap_err().to_string(),
        Acceptor::new(&server, H1).map(drop).unwrap_err().to_string(),
    ] {
        assert!(error.contains("set SPIFFE_ENDPOINT_SOCKET"), "{error}");
    }
    for endpoint in ["", "tcp://127.0.0.1:1", "unix:relative", "/run/agent.sock"] {
        assert!(Workload::new(endpoint).is_err(), "{endpoint}");
    }
    let workload = Workload::new("unix:///run/spire/agent.sock").unwrap();
    assert_eq!(workload.socket(), std::path::Path::new("/run/spire/agent.sock"));
}
