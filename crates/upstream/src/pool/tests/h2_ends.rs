//! How much of a call a server has seen that closes its HTTP/2 connection at the moment when the call is sent.
//!
//! The test itself drives the server, without a turn of the runtime: the connection's task on attache's side does not
//! yet know what the server has done.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    pin::pin,
    task::{Poll, Waker},
};

use attache_http::Body;
use attache_telemetry::Reason;
use bytes::Bytes;
use http_body::Frame;

use super::{h2::h2, h2_frames::frame};
use crate::{Call, Error, SentPart, WorkerUpstream, testing::*};

/// `:status: 200` of the static table.
const OK: &[u8] = &[0x88];

/// A connection that has served one call, and its server's side.
async fn kept() -> (WorkerUpstream, TcpStream) {
    let (accepted, mut taken) = tokio::sync::mpsc::unbounded_channel();
    let server = serve(move |stream, _| {
        accepted.send(stream).unwrap();
        async {}
    })
    .await;
    let upstream = h2(&server, |_| {});
    let first = tokio::task::spawn_local(upstream.send(get("/")));
    let mut stream = taken.recv().await.unwrap().into_std().unwrap();
    stream.write_all(&frame(4, 0, 0, &[])).unwrap();
    settle().await;
    stream.write_all(&frame(1, 5, 1, OK)).unwrap();
    assert!(first.await.unwrap().is_ok());
    settle().await;
    drain(&mut stream);
    (upstream, stream)
}

fn drain(stream: &mut TcpStream) {
    let mut bytes = [0; 8192];
    while stream.read(&mut bytes).is_ok_and(|n| n > 0) {}
}

/// Closes with a reset, like a process that is killed while bytes are unread, or that sets SO_LINGER to 0.
fn reset(stream: TcpStream) {
    let stream = socket2::Socket::from(stream);
    stream.set_linger(Some(std::time::Duration::ZERO)).unwrap();
}

/// Sends a call until it waits for its answer, before the connection's task has run.
async fn meanwhile(upstream: &WorkerUpstream, call: Call, server: impl FnOnce()) -> Result<u16, Error> {
    let mut sent = pin!(upstream.send(call));
    let first = sent.as_mut().poll(&mut std::task::Context::from_waker(Waker::noop()));
    assert!(matches!(first, Poll::Pending));
    server();
    sent.await.map(|response| response.status().as_u16())
}

fn upload() -> Call {
    post(Body::full(Bytes::from_static(&[b'x'; 1000])))
}

#[tokio::test(flavor = "local")]
async fn a_call_of_which_nothing_was_written_when_the_peer_closed_may_be_sent_again() {
    let (upstream, stream) = kept().await;
    let error = meanwhile(&upstream, upload(), || reset(stream)).await.unwrap_err();
    assert_eq!((error.reason, error.sent, error.reused), (Reason::UpstreamReset, SentPart::Nothing, true));
}

#[tokio::test(flavor = "local")]
async fn a_call_that_was_written_may_have_been_processed() {
    let (upstream, mut stream) = kept().await;
    let call = tokio::task::spawn_local(upstream.send(upload()));
    settle().await;
    assert_eq!(stream.read(&mut [0; 9]).map_err(|error| error.kind()), Ok::<_, ErrorKind>(9));
    drop(stream);
    let error = call.await.unwrap().unwrap_err();
    assert_eq!((error.reason, error.sent), (Reason::UpstreamReset, SentPart::Request));
}

#[tokio::test(flavor = "local")]
async fn bytes_that_a_peer_sent_before_it_reset_its_connection_are_read() {
    // A GOAWAY: the second call is above the last stream that it names.
    let (upstream, mut stream) = kept().await;
    let call = tokio::task::spawn_local(upstream.send(upload()));
    settle().await;
    let goaway = frame(7, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]);
    let other = meanwhile(&upstream, upload(), || {
        stream.write_all(&goaway).unwrap();
        reset(stream);
    })
    .await
    .unwrap_err();
    assert!(other.sent <= SentPart::Refused, "{:?}", other.sent);
    let error = call.await.unwrap().unwrap_err();
    assert_eq!((error.reason, error.sent), (Reason::UpstreamRefusedStream, SentPart::Refused));

    // An answer, while the upload still runs and fails.
    let (upstream, mut stream) = kept().await;
    let (chunk, body) = tokio::sync::mpsc::unbounded_channel::<Bytes>();
    let body = Body::stream(Chunks(body));
    let call = tokio::task::spawn_local(upstream.send(post(body)));
    settle().await;
    stream.write_all(&frame(1, 5, 3, OK)).unwrap();
    reset(stream);
    chunk.send(Bytes::from_static(&[b'x'; 100])).unwrap();
    assert_eq!(call.await.unwrap().map(|response| response.status().as_u16()).ok(), Some(200));
}

struct Chunks(tokio::sync::mpsc::UnboundedReceiver<Bytes>);

impl http_body::Body for Chunks {
    type Data = Bytes;
    type Error = attache_http::BodyError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(cx).map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
    }
}
