//! Serves the pages of both ports with attache's small server ([`attache_rpc::server`]): one request per connection.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use attache_rpc::server::{Incoming, RpcServer, ServerLimits, ServerSocket};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::Frame;

use crate::{
    answer::{self, AdminAnswer},
    tap::{self, TapLines},
};

/// How a request is answered.
pub(crate) enum AdminReply {
    /// With this complete answer.
    Whole(AdminAnswer),
    /// With the result of this future.
    Later(Pin<Box<dyn Future<Output = AdminAnswer> + Send>>),
    /// With lines, for as long as the client reads them.
    Stream(TapLines),
}

impl From<AdminAnswer> for AdminReply {
    fn from(answer: AdminAnswer) -> Self {
        Self::Whole(answer)
    }
}

/// The body of an answer.
enum Outgoing {
    Whole(Bytes),
    Stream(TapLines),
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Stream(lines) => lines.poll(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self {
            Self::Whole(bytes) => http_body::SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(_) => http_body::SizeHint::default(),
        }
    }
}

/// Answers until `shutdown` completes, then gives running answers a short time to finish.
pub(crate) async fn run<A>(socket: impl Into<ServerSocket>, answer: A, shutdown: impl Future<Output = ()>)
where
    A: Fn(&Request<Incoming>) -> AdminReply + Send + Sync + 'static,
{
    let server = RpcServer::new("admin", ServerLimits::default());
    let answered = server.run(
        socket,
        move |request, permit| {
            let reply = answer(&request);
            if matches!(reply, AdminReply::Stream(_)) {
                permit.long_lived();
            }
            async move { Ok::<_, Infallible>(outgoing(reply).await) }
        },
        shutdown,
    );
    answered.await;
}

async fn outgoing(reply: AdminReply) -> Response<Outgoing> {
    match reply {
        AdminReply::Whole(answer) => answer.map(|text| Outgoing::Whole(text.into())),
        AdminReply::Later(answer) => answer.await.map(|text| Outgoing::Whole(text.into())),
        AdminReply::Stream(lines) => {
            let head = answer::with_type(StatusCode::OK, tap::CONTENT_TYPE, String::new());
            let mut response = head.map(|_| Outgoing::Stream(lines));
            // Tells proxies not to buffer the stream.
            response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            response
        }
    }
}
