//! A server and a client of this crate against each other and against the h2 crate, and raw frames against the server and the client.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod attack;
mod frames;
mod pair;
mod peers;

use std::{future::poll_fn, rc::Rc, time::Duration};

use attache_wire::{Fields, RequestHead, ResponseHead};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream},
    task::{LocalSet, spawn_local},
};

use crate::{
    Connection, Error, ErrorCode, FloodLimitExceeded, FrameHeader, Incoming, IncomingRequest, Meter,
    SendStream, Settings, StreamOpener, fuzzing::Unlimited,
};

const SETTINGS: Settings = Settings {
    streams: 100,
    window: 65_535,
    window_most: 1 << 20,
    head_size: 16 << 10,
    pending_resets: 1000,
    send_buffer: 64 << 10,
    extended_connect: true,
};

fn run(test: impl Future<Output = ()>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let bounded = async { tokio::time::timeout(Duration::from_secs(60), test).await.expect("it hangs") };
    LocalSet::new().block_on(&runtime, bounded);
}

fn socket() -> (DuplexStream, DuplexStream) {
    tokio::io::duplex(20_000)
}

/// Serves a connection to its end.
async fn serve<I: AsyncRead + AsyncWrite + Unpin + 'static>(io: I, settings: Settings) -> Result<(), Error> {
    let mut connection = Connection::server(io, settings, Box::new(Unlimited));
    let ended = poll_fn(|cx| {
        let polled = connection.poll(cx);
        while let Some(request) = connection.accept() {
            spawn_local(echo(request));
        }
        polled
    })
    .await;
    if ended.is_err() {
        let _ = tokio::time::timeout(Duration::from_millis(500), connection.linger()).await;
    }
    ended
}

/// The path of a request selects the server's reaction.
async fn echo(request: IncomingRequest) {
    let IncomingRequest { head, send, body, .. } = request;
    let mut fields = Fields::new();
    fields.insert("x-path", HeaderValue::from_str(head.uri.path()).unwrap());
    match head.uri.path() {
        "/cut" => {
            send.answer(StatusCode::OK, &fields, false);
            send_all(&send, Bytes::from_static(b"part"), false).await;
            send.reset(ErrorCode::INTERNAL_ERROR);
        }
        "/never" => poll_fn(|cx| send.poll_end(cx).map(|_| ())).await,
        "/hints" => {
            send.answer(StatusCode::EARLY_HINTS, &fields, false);
            send.answer(StatusCode::NO_CONTENT, &Fields::new(), true);
        }
        _ => {
            send.answer(StatusCode::OK, &fields, false);
            let mut body = Incoming::new(body);
            let mut trailers = HeaderMap::new();
            while let Some(Ok(frame)) = poll_fn(|cx| body.poll_frame(cx)).await {
                match frame.into_data() {
                    Ok(data) => send_all(&send, data, false).await,
                    Err(frame) => trailers = frame.into_trailers().unwrap(),
                }
            }
            trailers.insert("x-end", HeaderValue::from_static("yes"));
            send.trail(&trailers);
        }
    }
}

async fn send_all(send: &SendStream, mut data: Bytes, ends: bool) {
    while !data.is_empty() {
        let Ok(n) = poll_fn(|cx| send.poll_capacity(cx, data.len())).await else { return };
        let part = data.split_to(n);
        if !send.send(part, ends && data.is_empty()) {
            return;
        }
    }
}

/// Runs a client's connection.
fn call<I: AsyncRead + AsyncWrite + Unpin + 'static>(io: I, settings: Settings) -> StreamOpener {
    let (mut connection, caller) = Connection::client(io, settings, Box::new(Unlimited));
    spawn_local(async move { poll_fn(|cx| connection.poll(cx)).await });
    caller
}

fn post(path: &str) -> RequestHead {
    let mut head = RequestHead {
        method: http::Method::POST,
        uri: format!("http://h{path}").parse().unwrap(),
        version: http::Version::HTTP_2,
        ..RequestHead::default()
    };
    head.headers.insert("x-common", HeaderValue::from_static("the same each time"));
    head
}

/// Sends a body and reads the body of the response.
async fn exchange(
    caller: &StreamOpener,
    path: &str,
    body: Bytes,
) -> Result<(Box<ResponseHead>, Bytes, Option<HeaderMap>), Error> {
    let (send, received) = caller.open(&post(path), false)?;
    spawn_local(async move {
        send_all(&send, body, false).await;
        send.send(Bytes::new(), true);
    });
    let head = poll_fn(|cx| received.poll_head(cx)).await?;
    let (mut all, mut trailers) = (BytesMut::new(), None);
    let mut body = Incoming::new(received);
    while let Some(frame) = poll_fn(|cx| body.poll_frame(cx)).await {
        match frame?.into_data() {
            Ok(data) => all.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Ok((head, all.freeze(), trailers))
}
