//! One call on an HTTP/2 connection: head out, body out as the peer's windows allow, head in.
//!
//! While the response's head has not come, the call itself moves its request's body. If the body is not through by
//! then (a bidirectional gRPC stream, an early answer), a task takes it over, so that a client that does not read cannot
//! stop its own upload.

use std::{
    cell::Cell,
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use attache_http::{Body, OnInformational};
use attache_http2::Tunnel;
use attache_telemetry::Reason;
use attache_wire::{Request, Response};
use bytes::Bytes;
use h2::SendStream;
use http::Method;
use http_body::Body as _;
use tokio::task::spawn_local;

use super::{
    form,
    h2::{H2, Lease, explain},
    h2_body::{self, AbortOnDrop},
    upgraded,
};
use crate::{Error, Sent, attempt::Attempt};

/// How a request's body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Uploaded {
    /// Not yet.
    Running,
    /// Sent whole.
    Whole,
    /// The peer wants no more of it.
    Unwanted,
}

/// Sends a request and waits for the response's head.
pub(super) async fn send(
    connection: &H2,
    lease: Lease,
    request: &mut Option<Request<Body>>,
    in_flight: &mut Option<Attempt>,
    on_informational: Option<&OnInformational>,
) -> Result<Response<Body>, Error> {
    let (mut answer, reused, mut upload);
    let (tunnel, ends);
    {
        // Gone before anything is waited for.
        let mut request = request.take().unwrap_or_default();
        if let Err(error) = form::http2(&mut request, connection.tls) {
            return Err(Error::with_source(Reason::BadRequest, Sent::Nothing, error));
        }
        tunnel = request.method() == Method::CONNECT;
        ends = request.body().is_end_stream() && !tunnel;
        let (head, body) = request.into_parts();
        let protocol = head.protocol.as_ref().map(|protocol| h2::ext::Protocol::from(protocol.as_str()));
        let mut head = http::Request::from_parts(Rc::unwrap_or_clone(head).into(), ());
        if let Some(protocol) = protocol {
            head.extensions_mut().insert(protocol);
        }
        let stream;
        (answer, stream, reused) = connection.open(head, ends)?;
        upload = Upload { stream, body, rest: Bytes::new(), ends: false };
    }
    let mut uploaded = if ends || tunnel { Uploaded::Whole } else { Uploaded::Running };
    let answer = poll_fn(|cx| {
        if uploaded == Uploaded::Running
            && let Poll::Ready(end) = upload.poll(cx)
        {
            uploaded = end.map_err(|reason| Error::new(reason, Sent::Request))?;
        }
        if let Some(pass_on) = on_informational {
            while let Poll::Ready(Some(Ok(response))) = answer.poll_informational(cx) {
                // 100 has done its work: the body is on its way.
                pass_on.call(response.status(), response.headers().into());
            }
        }
        let stream = answer.stream_id();
        Pin::new(&mut answer).poll(cx).map_err(|error| explain(error, connection.sent(stream)))
    })
    .await;
    let response = match answer {
        Ok(response) => response,
        Err(error) => {
            upload.stream.send_reset(h2::Reason::CANCEL);
            return Err(error.on_reused_connection(reused));
        }
    };
    let response = Response::from(response);
    if let Some(in_flight) = in_flight {
        in_flight.answered(response.status(), response.headers());
    }
    let reader = connection.reader(response.body().stream_id());
    if tunnel && response.status().is_success() {
        let (head, received) = response.into_parts();
        let mut response = Response::from_parts(head, Body::empty());
        let tunnel = Tunnel::new(upload.stream, received, reader);
        upgraded::offer_h2(&mut response, tunnel, lease, in_flight.take());
        return Ok(response);
    }
    let state = Rc::new(Cell::new(uploaded));
    let task = (uploaded == Uploaded::Running && !response.body().is_end_stream()).then(|| {
        let state = Rc::clone(&state);
        let task = spawn_local(async move {
            match poll_fn(|cx| upload.poll(cx)).await {
                Ok(end) => state.set(end),
                Err(_) => upload.stream.send_reset(h2::Reason::CANCEL),
            }
        });
        AbortOnDrop(task.abort_handle())
    });
    Ok(h2_body::attach(response, reader, lease, in_flight.take(), state, task))
}

/// A request's body on its way.
struct Upload {
    stream: SendStream<Bytes>,
    body: Body,
    /// Taken from the body and not yet covered by the peer's windows.
    rest: Bytes,
    /// `rest` is the last of it.
    ends: bool,
}

impl Upload {
    /// Sends what there is and what the windows allow. The body is not asked for more before what it gave has gone, so
    /// back-pressure reaches the client. An error is the reason why the request's own body failed.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Uploaded, Reason>> {
        loop {
            if self.stream.poll_reset(cx).is_ready() {
                return Poll::Ready(Ok(Uploaded::Unwanted));
            }
            if !self.rest.is_empty() {
                if self.stream.capacity() == 0 {
                    self.stream.reserve_capacity(self.rest.len());
                    match ready!(self.stream.poll_capacity(cx)) {
                        Some(Ok(_)) => continue,
                        // Closed: the response's side knows why.
                        Some(Err(_)) | None => return Poll::Ready(Ok(Uploaded::Unwanted)),
                    }
                }
                let n = self.stream.capacity().min(self.rest.len());
                let part = self.rest.split_to(n);
                let last = self.ends && self.rest.is_empty();
                if self.stream.send_data(part, last).is_err() {
                    return Poll::Ready(Ok(Uploaded::Unwanted));
                }
                if last {
                    return Poll::Ready(Ok(Uploaded::Whole));
                }
                continue;
            }
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => {
                    return Poll::Ready(Err(error.reason.unwrap_or(Reason::ClientClosed)));
                }
                None => {
                    let sent = self.stream.send_data(Bytes::new(), true);
                    return Poll::Ready(Ok(sent.map_or(Uploaded::Unwanted, |()| Uploaded::Whole)));
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
                        let sent = self.stream.send_trailers(trailers);
                        return Poll::Ready(Ok(sent.map_or(Uploaded::Unwanted, |()| Uploaded::Whole)));
                    }
                }
            }
        }
    }
}
