//! One upstream that attache itself asks.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    time::Duration,
};

use attache_config::model::Name;
use attache_http::{Body, Client};
use attache_telemetry::Exchange;
use attache_upstream::{Call, CallContext, Error};
use attache_wire::{
    Fields, Request, Response, Value,
    header::{CONTENT_TYPE, GRPC_STATUS, TE},
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use http_body::Body as _;
use prost::Message;

use crate::{
    frame::{frame, unframe},
    timeout,
};

type Sent = Pin<Box<dyn Future<Output = Result<Response<Body>, Error>>>>;

/// An upstream with its layers, ready for calls of attache's own.
pub struct Service {
    name: Name,
    authority: Name,
    send: RefCell<Box<dyn FnMut(Call) -> Sent>>,
}

/// An answer that was read whole.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its fields.
    pub headers: Fields,
    /// Its body.
    pub body: Vec<u8>,
    /// Its trailers; empty where there are none.
    pub trailers: HeaderMap,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Service {
    /// `name` is the upstream's, `authority` what it is called in requests, `service` its layers.
    pub fn new<S>(name: Name, authority: Name, mut service: S) -> Self
    where
        S: tower::Service<Call, Response = Response<Body>, Error = Error> + 'static,
        S::Future: 'static,
    {
        Self { name, authority, send: RefCell::new(Box::new(move |call| Box::pin(service.call(call)))) }
    }

    /// The upstream's name.
    pub const fn name(&self) -> &Name {
        &self.name
    }

    /// What the upstream is called in requests: host and, where it isn't the scheme's, port.
    pub const fn authority(&self) -> &Name {
        &self.authority
    }

    /// Calls a gRPC method (`/package.Service/Method`). `who` asks, for logs and traces; it waits `within`, and takes
    /// no answer of more than `longest` bytes.
    ///
    /// # Errors
    /// Why there is no answer, in words for the operator: a failure of the upstream, a status other than 0, no answer in time.
    pub async fn unary<A: Message + Default>(
        &self,
        method: &str,
        question: &impl Message,
        who: &Name,
        within: Duration,
        longest: usize,
    ) -> Result<A, String> {
        let mut request = Request::new(Body::full(frame(question)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri(method)?;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        timeout::set(headers, within);
        let answer = self.send(request, "http2", who, within, longest).await?;
        if answer.status != StatusCode::OK {
            return Err(format!("status {}", answer.status));
        }
        let in_head = || answer.headers.get(GRPC_STATUS).map(Value::to_header_value);
        let status = answer.trailers.get("grpc-status").cloned().or_else(in_head);
        match status.as_ref().map(HeaderValue::as_bytes) {
            Some(b"0") => {
                unframe(&answer.body).ok_or_else(|| "the answer is not the expected message".into())
            }
            Some(status) => Err(format!("grpc-status {}", status.escape_ascii())),
            None => Err("no grpc-status".into()),
        }
    }

    /// Sends an HTTP request, whose URI has this service's authority ([`Self::uri`]). As in [`Self::unary`], but any status is an answer.
    ///
    /// # Errors
    /// Why there is no answer, in words for the operator.
    pub async fn ask(
        &self,
        request: Request<Body>,
        who: &Name,
        within: Duration,
        longest: usize,
    ) -> Result<Answer, String> {
        self.send(request, "http1", who, within, longest).await
    }

    /// The URI of a path (and query) at this service.
    ///
    /// # Errors
    /// The path is none.
    pub fn uri(&self, path: &str) -> Result<Uri, String> {
        format!("http://{}{path}", self.authority).parse().map_err(|error| format!("{path}: {error}"))
    }

    async fn send(
        &self,
        request: Request<Body>,
        protocol: &'static str,
        who: &Name,
        within: Duration,
        longest: usize,
    ) -> Result<Answer, String> {
        let exchange = Exchange::new(who.clone(), protocol, None);
        let context = CallContext::new(Rc::new(Client::default()), Rc::new(exchange));
        let answered = tokio::time::timeout(within, async {
            let sent = (self.send.borrow_mut())(Call::new(request, context));
            let response = sent.await.map_err(|error| format!("{}: {}", error.reason, error.detail()))?;
            read(response, longest).await
        });
        answered.await.unwrap_or_else(|_| Err(format!("no answer within {within:?}")))
    }
}

async fn read(response: Response<Body>, longest: usize) -> Result<Answer, String> {
    let (mut parts, mut content) = response.into_parts();
    let (mut body, mut trailers) = (Vec::new(), HeaderMap::new());
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut content).poll_frame(cx)).await {
        match frame.map_err(|error| error.to_string())?.into_data() {
            Ok(data) if body.len() + data.len() > longest => return Err("the answer is too long".into()),
            Ok(data) => body.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
        }
    }
    Ok(Answer { status: parts.status, headers: std::mem::take(&mut parts.headers), body, trailers })
}
