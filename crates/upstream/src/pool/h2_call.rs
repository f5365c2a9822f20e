//! One call on an HTTP/2 connection: head out, body out as the peer's windows allow, head in.
//!
//! Until the response's head arrives, the call itself moves its request's body. If the body is not sent by then (a
//! bidirectional gRPC stream, an early answer), a task continues, so that a client that does not read can't stop its
//! own upload.

use std::{
    cell::Cell,
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use attache_http::{Body, BodyError, OnInformational};
use attache_http2::{ErrorCode, Http2Tunnel, SendStream};
use attache_telemetry::Reason;
use attache_wire::{Request, Response};
use bytes::Bytes;
use http::Method;
use http_body::Body as _;
use tokio::task::spawn_local;

use super::{
    form,
    h2::{H2Connection, StreamPermit, explain},
    h2_body::{self, AbortOnDrop, H2UploadEnd},
    outgoing::broken_body,
    upgraded,
};
use crate::{Error, SentPart, attempt::Attempt};

/// Sends a request and waits for the response's head.
pub(super) async fn send(
    connection: &H2Connection,
    lease: StreamPermit,
    request: &mut Option<Request<Body>>,
    in_flight: &mut Option<Attempt>,
    on_informational: Option<&OnInformational>,
) -> Result<Response<Body>, Error> {
    let (received, reused, mut upload);
    let (tunnel, ends);
    {
        // Taken before the first wait, so that the future stays small.
        let mut request = request.take().unwrap_or_default();
        if let Err(error) = form::http2(&mut request, connection.tls) {
            return Err(Error::with_source(Reason::BadRequest, SentPart::Nothing, error));
        }
        tunnel = request.method() == Method::CONNECT;
        ends = request.body().is_end_stream() && !tunnel;
        let (head, body) = request.into_parts();
        let stream;
        (stream, received, reused) = connection.open(&head, ends)?;
        upload = H2Upload { stream, body, rest: Bytes::new(), ends: false };
    }
    let mut uploaded = if ends || tunnel { H2UploadEnd::Whole } else { H2UploadEnd::Running };
    let answer = poll_fn(|cx| {
        if uploaded == H2UploadEnd::Running
            && let Poll::Ready(end) = upload.poll(cx)
        {
            uploaded = end.map_err(|body| broken_body(&body, SentPart::Request))?;
        }
        if let Some(pass_on) = on_informational {
            while let Some(interim) = received.interim() {
                // A 100 is not passed on: the body is already being sent.
                pass_on.call(interim.status, interim.headers);
            }
        }
        received.poll_head(cx).map_err(|error| explain(error, connection.sent(received.id())))
    })
    .await;
    let head = match answer {
        Ok(head) => head,
        Err(error) => {
            upload.stream.reset(ErrorCode::CANCEL);
            return Err(error.on_reused_connection(reused));
        }
    };
    if let Some(in_flight) = in_flight {
        in_flight.spoken("2");
        in_flight.answered(head.status, &head.headers);
    }
    if tunnel && head.status.is_success() {
        let mut response = Response::from_parts(head, Body::empty());
        upgraded::offer_h2(&mut response, Http2Tunnel::new(upload.stream, received), lease, in_flight.take());
        return Ok(response);
    }
    let response = Response::from_parts(head, received);
    let state = Rc::new(Cell::new(uploaded));
    let task = (uploaded == H2UploadEnd::Running && !response.body().is_ended()).then(|| {
        let state = Rc::clone(&state);
        let task = spawn_local(async move {
            match poll_fn(|cx| upload.poll(cx)).await {
                Ok(end) => state.set(end),
                Err(_) => upload.stream.reset(ErrorCode::CANCEL),
            }
        });
        AbortOnDrop(task.abort_handle())
    });
    Ok(h2_body::attach(response, lease, in_flight.take(), state, task))
}

/// A request's body that is being sent.
struct H2Upload {
    stream: SendStream,
    body: Body,
    /// Taken from the body and not yet covered by the peer's windows.
    rest: Bytes,
    /// `rest` is the last of it.
    ends: bool,
}

impl H2Upload {
    /// Sends as much as there is and as the windows allow. The body is polled again only after its last frame was sent,
    /// so that back-pressure reaches the client. The error is that of the request's own body.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<H2UploadEnd, BodyError>> {
        loop {
            if !self.rest.is_empty() {
                // The stream is closed; the response's side knows why.
                let Ok(room) = ready!(self.stream.poll_capacity(cx, self.rest.len())) else {
                    return Poll::Ready(Ok(H2UploadEnd::Unwanted));
                };
                let part = self.rest.split_to(room);
                let last = self.ends && self.rest.is_empty();
                if !self.stream.send(part, last) {
                    return Poll::Ready(Ok(H2UploadEnd::Unwanted));
                }
                if last {
                    return Poll::Ready(Ok(H2UploadEnd::Whole));
                }
                continue;
            }
            if self.stream.poll_end(cx).is_ready() {
                return Poll::Ready(Ok(H2UploadEnd::Unwanted));
            }
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => {
                    return Poll::Ready(Ok(ended(self.stream.send(Bytes::new(), true))));
                }
            };
            match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => {
                    self.rest = data;
                    self.ends = self.body.is_end_stream();
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        return Poll::Ready(Ok(ended(self.stream.trail(&trailers))));
                    }
                }
            }
        }
    }
}

const fn ended(sent: bool) -> H2UploadEnd {
    if sent { H2UploadEnd::Whole } else { H2UploadEnd::Unwanted }
}
