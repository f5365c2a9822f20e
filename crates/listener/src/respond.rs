//! Connects a protocol's server to the service: what the requests of one connection have in common, and the conversion of HTTP/2's requests
//! to [`HttpRequest`]s whose responses are recorded.
//!
//! The rule: if the service fails, only its own request is lost, however it fails. A panic is answered with 500 and the reason
//! `internal-error`, and the connection closes after it.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    rc::Rc,
    task::{Poll, ready},
};

use attache_config::model::HttpLimits;
use attache_http::{AnswerContext, AnswerStyle, Body, OnInformational, edit_local_reply};
use attache_telemetry::{Exchange, Reason, SharedText, metrics};
use attache_wire::{Request, Response, ValueRef, header::HOST};
use http::{Method, StatusCode};
use pin_project_lite::pin_project;

use crate::{
    HttpRequest, IdleHold, Protocol,
    exchange::{CountedBody, ExchangeReporter},
    reader::ServingContext,
    registry::OpenConnection,
    request::{EarlyRefusal, ListenerSettings},
    upgrade::OnUpgrade,
};

/// What the listener needs from the service that answers requests.
pub(crate) trait HttpService:
    tower::Service<HttpRequest, Response = Response<Body>, Error = Infallible, Future: Unpin> + Clone + 'static
{
}

impl<S> HttpService for S where
    S: tower::Service<HttpRequest, Response = Response<Body>, Error = Infallible, Future: Unpin>
        + Clone
        + 'static
{
}

/// One connection, for the handling of its requests.
pub(crate) struct RespondContext {
    reader: ServingContext,
    protocol: Protocol,
    /// HTTP/2: every request is refused for this reason. Boxed, because it is rare.
    deny: Option<Box<EarlyRefusal>>,
    requests: Cell<u64>,
}

impl RespondContext {
    pub(crate) fn new(reader: ServingContext, protocol: Protocol, deny: Option<EarlyRefusal>) -> Self {
        Self { deny: deny.map(Box::new), reader, protocol, requests: Cell::new(0) }
    }

    pub(crate) const fn reader(&self) -> &ServingContext {
        &self.reader
    }

    pub(crate) const fn live(&self) -> &Rc<OpenConnection> {
        &self.reader.live
    }

    /// Counts another request. Returns its number, from 1.
    pub(crate) fn begin(&self) -> u64 {
        let number = self.requests.get() + 1;
        self.requests.set(number);
        number
    }

    pub(crate) fn settings(&self) -> &ListenerSettings {
        &self.reader.settings
    }

    /// Whether the connection has had all the requests that it may have.
    pub(crate) fn is_used_up(&self) -> bool {
        let most = self.reader.settings.listener.http.limits.requests_per_connection;
        (most > 0 && self.requests.get() >= most) || (self.deny.is_some() && self.requests.get() > 0)
    }

    /// The refusal for the answer. It names the identity that was denied.
    pub(crate) fn explained(&self, refusal: EarlyRefusal) -> attache_http::Refusal {
        let mut told = attache_http::Refusal::from(refusal);
        if let (Reason::DeniedIdentity, Some(why)) = (refusal.reason, &self.reader.denied) {
            told.text = why.to_string().into();
        }
        told
    }

    /// The record of a request.
    pub(crate) fn record<B>(&self, request: &Request<B>, refused: bool) -> Rc<Exchange> {
        let exchange = self.reader.exchange(self.protocol.as_str());
        if !refused {
            // These are kept until the exchange is reported: the access log and the tap show what the client sent, and by then routing has
            // rewritten the request. What was read from an HTTP/1 connection is shared, not copied.
            let text = |part: &[u8]| match request.headers().shared(part) {
                Some(bytes) => SharedText::shared(bytes),
                None => SharedText::of(part),
            };
            exchange.method.replace(method_text(request.method()));
            exchange.path.replace(text(request.uri().path().as_bytes()));
            let host = match request.uri().authority() {
                Some(authority) => Some(authority.as_str().as_bytes()),
                None => request.headers().get(HOST).map(ValueRef::as_bytes),
            };
            exchange.host.replace(text(host.unwrap_or_default()));
        }
        exchange
    }

    /// The answer that replaces a 1xx response which the service returned as its final response.
    #[cold]
    pub(crate) fn unexpected_interim(&self, exchange: &Exchange) -> Response<Body> {
        exchange.fail(Reason::UpstreamProtocolError, "a 1xx answer without an Upgrade in the request");
        let listener = &self.reader.settings.listener;
        let style = AnswerStyle { details: listener.http.reason_header, retry_after: None };
        let mut answer =
            attache_http::answer(Reason::UpstreamProtocolError, AnswerContext::unknown(), style, exchange);
        edit_local_reply(&listener.local_reply.headers, exchange, answer.headers_mut());
        answer
    }
}

fn method_text(method: &Method) -> SharedText {
    match *method {
        Method::GET => SharedText::from_static("GET"),
        Method::POST => SharedText::from_static("POST"),
        Method::PUT => SharedText::from_static("PUT"),
        Method::HEAD => SharedText::from_static("HEAD"),
        Method::DELETE => SharedText::from_static("DELETE"),
        Method::PATCH => SharedText::from_static("PATCH"),
        Method::OPTIONS => SharedText::from_static("OPTIONS"),
        Method::CONNECT => SharedText::from_static("CONNECT"),
        _ => SharedText::from(method.as_str()),
    }
}

/// The service, for the requests of HTTP/2.
pub(crate) struct Http2Service<H> {
    http: RefCell<H>,
    context: Rc<RespondContext>,
}

impl<H> Http2Service<H> {
    pub(crate) fn new(http: H, context: Rc<RespondContext>) -> Self {
        Self { http: RefCell::new(http), context }
    }
}

/// Refuses an HTTP/2 request above the limits that HTTP/1 has: for the request line, as HTTP/1 would write it, and for the number of
/// fields. (`headers_size` is enforced when the fields are read.)
fn too_large<B>(request: &Request<B>, limits: &HttpLimits) -> Option<EarlyRefusal> {
    const REQUEST_LINE_OVERHEAD: usize = "  HTTP/1.1".len();
    let target = match request.uri().path_and_query() {
        Some(target) => target.as_str().len(),
        // The target of a CONNECT.
        None => request.uri().authority().map_or(0, |authority| authority.as_str().len()),
    };
    if request.method().as_str().len() + target + REQUEST_LINE_OVERHEAD > limits.request_line {
        return Some(EarlyRefusal::new(Reason::UriTooLong, "The request line is longer than allowed."));
    }
    (request.headers().len() > limits.headers_count)
        .then(|| EarlyRefusal::new(Reason::HeadersTooLarge, "There are more header fields than allowed."))
}

const HEADERS_TOO_LARGE: EarlyRefusal =
    EarlyRefusal::new(Reason::HeadersTooLarge, "The headers are larger than allowed.");

/// Refuses an HTTP/2 request that names two hosts. The default port of the scheme may be written or not (RFC 9113 section 8.3.1, RFC 3986
/// section 6.2.3).
fn two_hosts<B>(request: &Request<B>) -> Option<EarlyRefusal> {
    let authority = request.uri().authority()?;
    let mut hosts = request.headers().get_all(HOST);
    let port: &[u8] = match request.uri().scheme_str() {
        Some("http") => b":80",
        Some("https") => b":443",
        _ => b":",
    };
    let bare = |host| <[u8]>::strip_suffix(host, port).unwrap_or(host);
    let differs =
        hosts.any(|host| !bare(host.as_bytes()).eq_ignore_ascii_case(bare(authority.as_str().as_bytes())));
    differs.then(|| {
        EarlyRefusal::new(Reason::BadRequest, "The Host header and :authority name different hosts.")
    })
}

impl<H: HttpService> Http2Service<H> {
    /// The connection.
    pub(crate) fn live(&self) -> &Rc<OpenConnection> {
        self.context.live()
    }

    /// Reports a request that was reset because of its head.
    #[cold]
    pub(crate) fn refused(&self, why: &'static str) {
        let exchange = self.context.record(&Request::new(()), true);
        exchange.fail(Reason::BadRequest, why);
        (self.context.settings().on_finish)(&exchange);
    }

    /// Passes a request on. `headers_too_large`: its fields are above the limit, and it is refused. `body` makes the body that is passed on
    /// from the body that was received.
    pub(crate) fn answer<B>(
        &self,
        request: Request<B>,
        headers_too_large: bool,
        body: impl FnOnce(B, &Rc<Exchange>) -> Body,
        on_informational: OnInformational,
        upgrade: Option<OnUpgrade>,
    ) -> Http2Respond<H::Future> {
        let context = &self.context;
        context.begin();
        let limits = &context.settings().listener.http.limits;
        let denied = context.deny.as_deref().copied();
        let headers = headers_too_large.then_some(HEADERS_TOO_LARGE);
        let refused =
            denied.or(headers).or_else(|| two_hosts(&request)).or_else(|| too_large(&request, limits));
        if let Some(refusal) = denied {
            // The connection is closed after the answer.
            context.reader.live.ends_by(refusal.reason);
        }
        let exchange = context.record(&request, refused.is_some());
        let finish = ExchangeReporter::new(
            exchange.clone(),
            context.reader.settings.clone(),
            context.reader.live.clone(),
        );
        let method = request.method().clone();
        let version = request.version();
        let request = if refused.is_some() {
            let mut stand_in = Request::new(Body::empty());
            *stand_in.version_mut() = version;
            stand_in
        } else {
            let (head, came) = request.into_parts();
            let body = body(came, &exchange);
            Request::from_parts(head, body)
        };
        let client = context.reader.client.clone();
        let hold = (method == Method::CONNECT).then(|| IdleHold::new(context.reader.live.clone()));
        let refused = refused.map(|refusal| context.explained(refusal));
        let on_informational = Some(on_informational);
        let request = HttpRequest { request, client, exchange, on_informational, refused, upgrade, hold };
        let future = catch_unwind(AssertUnwindSafe(|| self.http.borrow_mut().call(request))).ok();
        Http2Respond { future, finish: Some(finish), context: context.clone(), method }
    }
}

pin_project! {
    /// The response to one request.
    pub(crate) struct Http2Respond<F> {
        // `None` after it has answered or panicked.
        #[pin]
        future: Option<F>,
        finish: Option<ExchangeReporter>,
        context: Rc<RespondContext>,
        method: Method,
    }
}

impl<F> Future for Http2Respond<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>>,
{
    type Output = Result<Response<CountedBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let polled = match this.future.as_mut().as_pin_mut() {
            Some(future) => catch_unwind(AssertUnwindSafe(|| future.poll(cx))).ok(),
            None => None,
        };
        let mut answer = if let Some(polled) = polled {
            let Ok(answer) = ready!(polled);
            // The future is no longer needed, and would keep the request's memory.
            this.future.set(None);
            answer
        } else {
            let Some(finish) = this.finish.as_ref() else { return Poll::Pending };
            panicked(&finish.exchange, &this.context.reader)
        };
        let Some(finish) = this.finish.take() else { return Poll::Pending };
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            // HTTP/2 has no status 101 (RFC 9113 section 8.6).
            answer = this.context.unexpected_interim(&finish.exchange);
        }
        let status = answer.status();
        if finish.exchange.status.get() == 0 {
            finish.exchange.status.set(status.as_u16());
        }
        if http_body::Body::is_end_stream(answer.body()) {
            finish.exchange.ended_by_head(answer.headers());
        }
        Poll::Ready(Ok(
            answer.map(|body| CountedBody::new(body, finish, *this.method == Method::HEAD, status))
        ))
    }
}

/// The answer for a panic. It is made here, because the service that makes all other answers is what failed.
pub(crate) fn panicked(exchange: &Exchange, reader: &ServingContext) -> Response<Body> {
    exchange.fail(Reason::InternalError, "the request's handling panicked");
    metrics().panic_caught();
    if exchange.protocol == "http1" {
        // In HTTP/2, only the stream ends.
        reader.live.ends_by(Reason::InternalError);
    }
    let listener = &reader.settings.listener;
    tracing::error!(listener = %listener.name, "the handling of a request panicked; the request was answered with 500");
    let style = AnswerStyle { details: listener.http.reason_header, retry_after: None };
    let mut answer = attache_http::answer(Reason::InternalError, AnswerContext::unknown(), style, exchange);
    edit_local_reply(&listener.local_reply.headers, exchange, answer.headers_mut());
    answer
}
