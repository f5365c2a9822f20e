//! Helpers for tests of calls: an upstream of loopback endpoints, calls to it, and servers that send exactly what a
//! test tells them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may end on what it did not expect")]

use std::{
    cell::Cell,
    future::poll_fn,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
};

use attache_config::model::{self, Address};
use attache_http::{Body, BodyError, Client};
use attache_telemetry::Exchange;
use attache_wire::{Request, Response};
use bytes::Bytes;

use http_body::{Body as _, Frame};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::spawn_local,
    time::Duration,
};

use crate::{
    BareConnection, Call, CallContext, Endpoint, EndpointAddress, EndpointSet, EndpointSpec, Error,
    SharedUpstream, WorkerUpstream, connected,
};

/// A checked config with every default.
pub(crate) fn config() -> model::Upstream {
    model::Upstream::new("test", Address::OriginalDestination)
}

pub(crate) fn endpoint(address: SocketAddr, host: Option<&str>) -> Arc<Endpoint> {
    let spec = EndpointSpec::new(EndpointAddress::Tcp(address));
    Arc::new(Endpoint::new(EndpointSpec { host: host.map(Into::into), ..spec }))
}

pub(crate) fn shared(config: model::Upstream, endpoints: Vec<Arc<Endpoint>>) -> Arc<SharedUpstream> {
    let shared = SharedUpstream::new(Arc::new(config));
    for endpoint in &endpoints {
        shared.give_circuit(endpoint);
    }
    let index = Arc::new(crate::balance::BalanceIndex::build(&endpoints, &shared.config.balance));
    let set = EndpointSet { endpoints, generation: 1, index, ..EndpointSet::default() };
    shared.endpoints.store(Arc::new(set));
    Arc::new(shared)
}

/// An upstream that always picks the first endpoint that was not tried: each endpoint is the reserve of the one before.
pub(crate) fn upstream(config: model::Upstream, endpoints: Vec<Arc<Endpoint>>) -> WorkerUpstream {
    for (priority, endpoint) in (0..).zip(&endpoints) {
        endpoint.update(&EndpointSpec { priority, ..EndpointSpec::new(endpoint.address.clone()) });
    }
    WorkerUpstream::new(shared(config, endpoints), None)
}

/// An upstream of one server.
pub(crate) fn to(server: &CountingServer, change: impl FnOnce(&mut model::Upstream)) -> WorkerUpstream {
    let mut config = config();
    change(&mut config);
    upstream(config, vec![endpoint(server.address, None)])
}

/// The counts of connections and running requests.
pub(crate) fn counts(upstream: &WorkerUpstream) -> (u32, u32) {
    let shared = upstream.shared();
    (shared.connections.load(Relaxed), shared.active_requests.load(Relaxed))
}

pub(crate) fn context() -> CallContext {
    CallContext::new(Rc::new(Client::default()), Rc::new(Exchange::new("test".into(), "http1", None)))
}

pub(crate) fn call(request: impl Into<Request<Body>>) -> Call {
    Call::new(request.into(), context())
}

/// A bare connection for this call.
pub(crate) async fn bare(upstream: &WorkerUpstream, call: Call) -> Result<BareConnection, Error> {
    let mut response = upstream.send(call).await?;
    Ok(connected(&mut response).unwrap())
}

/// One for opaque bytes.
pub(crate) async fn opaque(upstream: &WorkerUpstream) -> Result<BareConnection, Error> {
    bare(upstream, Call::opaque(context())).await
}

pub(crate) fn get(path: &str) -> Call {
    call(http::Request::get(format!("http://service.example:80{path}")).body(Body::empty()).unwrap())
}

pub(crate) fn post(body: Body) -> Call {
    call(http::Request::post("http://service.example/upload").body(body).unwrap())
}

/// A body of these frames.
pub(crate) fn frames(frames: Vec<Result<Frame<Bytes>, BodyError>>) -> Body {
    struct TestFrames(std::vec::IntoIter<Result<Frame<Bytes>, BodyError>>);
    impl http_body::Body for TestFrames {
        type Data = Bytes;
        type Error = BodyError;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            Poll::Ready(self.0.next())
        }
    }
    Body::stream(TestFrames(frames.into_iter()))
}

#[expect(clippy::unnecessary_wraps, reason = "it stands beside frames that fail in one list")]
pub(crate) fn data(text: &'static str) -> Result<Frame<Bytes>, BodyError> {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

/// A body without an end that counts the bytes it gave.
pub(crate) fn endless(given: Rc<Cell<usize>>) -> Body {
    struct EndlessFrames(Rc<Cell<usize>>);
    impl http_body::Body for EndlessFrames {
        type Data = Bytes;
        type Error = BodyError;
        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            const CHUNK: &[u8] = &[b'x'; 16 << 10];
            self.0.set(self.0.get() + CHUNK.len());
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(CHUNK)))))
        }
    }
    Body::stream(EndlessFrames(given))
}

pub(crate) async fn frame(body: &mut Body) -> Option<Result<Frame<Bytes>, BodyError>> {
    poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
}

/// Reads a body to its end.
pub(crate) async fn read(body: Body) -> Result<(String, Option<http::HeaderMap>), BodyError> {
    let mut body = body;
    let (mut text, mut trailers) = (String::new(), None);
    while let Some(frame) = frame(&mut body).await {
        match frame?.into_data() {
            Ok(data) => text.push_str(&String::from_utf8_lossy(&data)),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
        if body.is_end_stream() {
            break;
        }
    }
    Ok((text, trailers))
}

/// The text of a response that must be whole.
pub(crate) async fn text(response: Response<Body>) -> String {
    read(response.into_body()).await.unwrap().0
}

/// A server on loopback that counts its connections.
pub(crate) struct CountingServer {
    pub(crate) address: SocketAddr,
    pub(crate) accepted: Rc<Cell<usize>>,
}

/// Runs `handle` for every connection, with its number from 1.
pub(crate) async fn serve<F, Fut>(handle: F) -> CountingServer
where
    F: Fn(TcpStream, usize) -> Fut + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    serve_on(listener, handle)
}

pub(crate) fn serve_on<F, Fut>(listener: TcpListener, handle: F) -> CountingServer
where
    F: Fn(TcpStream, usize) -> Fut + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let address = listener.local_addr().unwrap();
    let accepted = Rc::new(Cell::new(0));
    let count = Rc::clone(&accepted);
    spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.set(count.get() + 1);
            spawn_local(handle(stream, count.get()));
        }
    });
    CountingServer { address, accepted }
}

/// Reads one head, without a byte of what follows; `None` at the connection's end.
pub(crate) async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

/// Reads until this text has arrived.
pub(crate) async fn until(stream: &mut TcpStream, end: &str) -> Option<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end.as_bytes()) {
        bytes.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(bytes).unwrap())
}

/// A server that gives every request the same answer.
pub(crate) async fn answering(answer: &'static str) -> CountingServer {
    serve(move |mut stream, _| async move {
        while head(&mut stream).await.is_some() {
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await
}

/// A short answer that keeps the connection.
pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Lets everything else run, the network included.
pub(crate) async fn settle() {
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
