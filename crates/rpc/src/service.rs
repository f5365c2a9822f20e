//! An upstream of the config that attache itself calls, through all layers of that upstream.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    time::Duration,
};

use attache_config::model::Name;
use attache_wire::{
    Fields, Request, Response,
    header::{CONTENT_TYPE, TE},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use http_body::Body;
use prost::Message;

use crate::{
    grpc::{GrpcStatus, MessageDecoder, frame},
    timeout,
};

type AnswerFuture = Pin<Box<dyn Future<Output = Result<CallResponse, String>>>>;

/// What attache sends to the upstream.
#[derive(Debug)]
pub struct CallRequest {
    /// The request with its complete body.
    pub request: Request<Bytes>,
    /// The protocol that the upstream speaks, for logs and metrics: `http1` or `http2`.
    pub protocol: &'static str,
    /// The listener on whose behalf attache asks, for logs and traces.
    pub asker: Name,
}

/// An upstream of the config with its layers: pool, TLS, limits, breaker and ejection are those of its config.
pub struct UpstreamService {
    name: Name,
    authority: Name,
    /// Sends a question and reads at most this many bytes of the response.
    send: Box<dyn Fn(CallRequest, usize) -> AnswerFuture>,
}

/// A response that was read completely.
#[derive(Debug)]
pub struct CallResponse {
    /// Its status.
    pub status: StatusCode,
    /// Its fields.
    pub headers: Fields,
    /// Its body.
    pub body: Vec<u8>,
    /// Its trailers; empty if there are none.
    pub trailers: HeaderMap,
}

impl fmt::Debug for UpstreamService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamService").field("name", &self.name).finish_non_exhaustive()
    }
}

impl UpstreamService {
    /// `name` is the upstream's name, and `authority` its name in requests. `send` passes a request through the upstream's layers; its
    /// error says why there is no response.
    pub fn new<F, B>(name: Name, authority: Name, send: impl Fn(CallRequest) -> F + 'static) -> Self
    where
        F: Future<Output = Result<Response<B>, String>> + 'static,
        B: Body<Data = Bytes, Error: fmt::Display> + 'static,
    {
        let send = move |question, longest| -> AnswerFuture {
            let answered = send(question);
            Box::pin(async move { read(answered.await?, longest).await })
        };
        Self { name, authority, send: Box::new(send) }
    }

    /// The upstream's name.
    pub const fn name(&self) -> &Name {
        &self.name
    }

    /// The upstream's name in requests: its host, and its port if that isn't the default of the scheme.
    pub const fn authority(&self) -> &Name {
        &self.authority
    }

    /// Calls a gRPC method (`/package.Service/Method`) on behalf of `asker`, within a time. A response of more than `longest` bytes is an
    /// error.
    ///
    /// # Errors
    /// Why there is no response, as a text for the operator: the upstream failed, the status is not 0, or the time is over.
    pub async fn unary<A: Message + Default>(
        &self,
        method: &str,
        message: &impl Message,
        asker: &Name,
        within: Duration,
        longest: usize,
    ) -> Result<A, String> {
        let mut request = Request::new(frame(&message.encode_to_vec(), false));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri(method)?;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        timeout::set(headers, within);
        let answer = self.send(request, "http2", asker, within, longest).await?;
        if answer.status != StatusCode::OK {
            return Err(format!("status {}", answer.status));
        }
        GrpcStatus::check(&answer.headers.into(), &answer.trailers).map_err(|status| status.to_string())?;
        MessageDecoder::only(&answer.body).map_err(|bad| bad.to_string())
    }

    /// Sends an HTTP request. Its URI has this service's authority ([`Self::uri`]). Like [`Self::unary`], but a response with any status is
    /// a success.
    ///
    /// # Errors
    /// Why there is no response, as a text for the operator.
    pub async fn ask(
        &self,
        request: Request<Bytes>,
        asker: &Name,
        within: Duration,
        longest: usize,
    ) -> Result<CallResponse, String> {
        self.send(request, "http1", asker, within, longest).await
    }

    /// The URI of a path (with its query) at this service.
    ///
    /// # Errors
    /// The path is not valid in a URI.
    pub fn uri(&self, path: &str) -> Result<Uri, String> {
        format!("http://{}{path}", self.authority).parse().map_err(|error| format!("{path}: {error}"))
    }

    async fn send(
        &self,
        request: Request<Bytes>,
        protocol: &'static str,
        asker: &Name,
        within: Duration,
        longest: usize,
    ) -> Result<CallResponse, String> {
        let question = CallRequest { request, protocol, asker: asker.clone() };
        let answered = tokio::time::timeout(within, (self.send)(question, longest)).await;
        answered.unwrap_or_else(|_| Err(format!("no answer within {within:?}")))
    }
}

async fn read<B>(response: Response<B>, longest: usize) -> Result<CallResponse, String>
where
    B: Body<Data = Bytes, Error: fmt::Display>,
{
    let (mut parts, content) = response.into_parts();
    let mut content = pin!(content);
    let (mut body, mut trailers) = (Vec::new(), HeaderMap::new());
    while let Some(frame) = poll_fn(|cx| content.as_mut().poll_frame(cx)).await {
        match frame.map_err(|error| error.to_string())?.into_data() {
            Ok(data) if body.len() + data.len() > longest => return Err("the answer is too long".into()),
            Ok(data) => body.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
        }
    }
    Ok(CallResponse { status: parts.status, headers: std::mem::take(&mut parts.headers), body, trailers })
}
