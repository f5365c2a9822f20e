//! Between hyper and the service: a request becomes an [`HttpRequest`], its answer gets its record.
//!
//! The rule: the service may fail in any way without more than its own request being lost. A panic is an answer of 500 with the
//! reason `internal-error`, and the connection closes after it.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    io::Write as _,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Poll, ready},
};

use attache_config::model::HttpLimits;
use attache_http::{AnswerStyle, Asker, Body, OnInformational};
use attache_telemetry::{Exchange, Reason, metrics};
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE},
};
use hyper::body::Incoming;
use pin_project_lite::pin_project;

use crate::{
    Hold, HttpRequest,
    connection::Reader,
    exchange::{Finish, Received, Sent},
    http1::{Shared, Switch},
    live::{Live, Order},
    request::{Refusal, Settings},
};

/// What the listener asks of the service that answers requests.
pub(crate) trait HttpService:
    tower::Service<HttpRequest, Response = Response<Body>, Error = Infallible> + Clone + 'static
{
}

impl<S> HttpService for S where
    S: tower::Service<HttpRequest, Response = Response<Body>, Error = Infallible> + Clone + 'static
{
}

/// One connection, for its requests.
pub(crate) struct Context {
    reader: Reader,
    protocol: &'static str,
    /// HTTP/1: what the guard knows.
    shared: Option<Arc<Shared>>,
    /// HTTP/2: every request is refused for this.
    deny: Option<Refusal>,
    requests: Cell<u64>,
    /// HTTP/1: the request whose answer has not begun; 1xx responses go to it alone.
    open: Cell<u64>,
    tunnel: RefCell<Option<Finish>>,
}

impl Context {
    pub(crate) fn new(
        reader: Reader,
        protocol: &'static str,
        shared: Option<Arc<Shared>>,
        deny: Option<Refusal>,
    ) -> Self {
        Self {
            deny,
            reader,
            protocol,
            shared,
            requests: Cell::new(0),
            open: Cell::new(0),
            tunnel: RefCell::new(None),
        }
    }

    pub(crate) fn live(&self) -> &Live {
        &self.reader.live
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.reader.settings
    }

    /// The connection has had all the requests that it may have.
    pub(crate) fn is_used_up(&self) -> bool {
        let most = self.reader.settings.listener.http.limits.requests_per_connection;
        (most > 0 && self.requests.get() >= most) || (self.deny.is_some() && self.requests.get() > 0)
    }

    /// A refusal for the answer: who is denied is told by name.
    fn explained(&self, refusal: Refusal) -> attache_http::Refusal {
        let mut told = attache_http::Refusal::from(refusal);
        if let (Reason::DeniedIdentity, Some(why)) = (refusal.reason, &self.reader.denied) {
            told.text = why.to_string().into();
        }
        told
    }

    /// The tunnel that the connection became has ended.
    pub(crate) fn end_tunnel(&self) {
        if let Some(mut finish) = self.tunnel.take() {
            if self.reader.live.order() != Order::Cut {
                finish.complete();
            }
            drop(finish);
        }
    }

    fn record(&self, request: &Request<Incoming>, refused: bool) -> Rc<Exchange> {
        let exchange = Rc::new(self.reader.exchange(self.protocol));
        if !refused {
            // Three small allocations, kept until the exchange is reported: the access log and the tap show what the client sent,
            // and by then routing has rewritten the request.
            request.method().as_str().clone_into(&mut exchange.method.borrow_mut());
            request.uri().path().clone_into(&mut exchange.path.borrow_mut());
            let host = match request.uri().authority() {
                Some(authority) => Some(authority.as_str()),
                None => request.headers().get(HOST).and_then(|host| host.to_str().ok()),
            };
            host.unwrap_or_default().clone_into(&mut exchange.host.borrow_mut());
        }
        exchange
    }

    /// Where this request's 1xx responses go.
    fn on_informational(self: &Rc<Self>, ordinal: u64, version: Version) -> Option<OnInformational> {
        let shared = self.shared.clone()?;
        // RFC 9110 section 15.2: never to an HTTP/1.0 client.
        if version < Version::HTTP_11 {
            return None;
        }
        let context = self.clone();
        // One allocation per request: it knows its request, so that a late 1xx of an abandoned try can't reach the next.
        Some(OnInformational::new(move |status, headers| {
            if context.open.get() == ordinal && status.is_informational() && status.as_u16() > 101 {
                shared.inform(|out| write_informational(out, status, headers));
                context.reader.live.wake();
            }
        }))
    }
}

fn write_informational(out: &mut Vec<u8>, status: StatusCode, headers: &HeaderMap) {
    let reason = status.canonical_reason().unwrap_or("Informational");
    let _ = write!(out, "HTTP/1.1 {} {reason}\r\n", status.as_str());
    for (name, value) in headers {
        if ![CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE].contains(name) {
            out.extend_from_slice(name.as_str().as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// The service as hyper wants it.
pub(crate) struct Service<H> {
    http: RefCell<H>,
    context: Rc<Context>,
}

impl<H> Service<H> {
    pub(crate) fn new(http: H, context: Rc<Context>) -> Self {
        Self { http: RefCell::new(http), context }
    }
}

/// An HTTP/2 request beyond the limits that the guard keeps for HTTP/1: of the request line, as HTTP/1 would write it, and of the
/// number of fields. (`headers_size` is kept by the h2 crate.)
fn too_large(request: &Request<Incoming>, limits: &HttpLimits) -> Option<Refusal> {
    const AROUND: usize = "  HTTP/1.1".len();
    let target = match request.uri().path_and_query() {
        Some(target) => target.as_str().len(),
        // CONNECT.
        None => request.uri().authority().map_or(0, |authority| authority.as_str().len()),
    };
    if request.method().as_str().len() + target + AROUND > limits.request_line {
        return Some(Refusal {
            reason: Reason::UriTooLong,
            rule: "The request line is longer than allowed.",
        });
    }
    (request.headers().len() > limits.headers_count).then_some(Refusal {
        reason: Reason::HeadersTooLarge,
        rule: "There are more header fields than allowed.",
    })
}

/// An HTTP/2 request that names two hosts; HTTP/1's are the guard's to refuse.
fn two_hosts(request: &Request<Incoming>) -> Option<Refusal> {
    let authority = request.uri().authority()?;
    let mut hosts = request.headers().get_all(HOST).iter();
    // RFC 9113 section 8.3.1.
    let differs = hosts.any(|host| !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()));
    differs.then_some(Refusal {
        reason: Reason::BadRequest,
        rule: "The Host header and :authority name different hosts.",
    })
}

impl<H: HttpService> hyper::service::Service<Request<Incoming>> for Service<H> {
    type Response = Response<Sent>;
    type Error = Infallible;
    type Future = Respond<H::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let context = &self.context;
        let ordinal = context.requests.get() + 1;
        context.requests.set(ordinal);
        let refused = if let Some(shared) = &context.shared {
            shared.refused(ordinal)
        } else {
            let limits = &context.settings().listener.http.limits;
            context.deny.or_else(|| two_hosts(&request)).or_else(|| too_large(&request, limits))
        };
        if let Some(refusal) = refused.filter(|_| context.shared.is_some() || context.deny.is_some()) {
            // The connection is closed after the answer.
            context.reader.live.ends_by(refusal.reason);
        }
        let exchange = context.record(&request, refused.is_some());
        let finish =
            Finish::new(exchange.clone(), context.reader.settings.clone(), context.reader.live.clone());
        let method = request.method().clone();
        let version = request.version();
        // As the guard's `may_switch`: only an answer to such a request decides about the bytes after it.
        let may_switch = context.shared.is_some()
            && (method == Method::CONNECT
                || (version == Version::HTTP_11 && request.headers().contains_key(UPGRADE)));
        let on_informational = context.on_informational(ordinal, version);
        context.open.set(ordinal);
        let request = if refused.is_some() {
            let mut stand_in = Request::new(Body::empty());
            *stand_in.version_mut() = version;
            stand_in
        } else {
            request.map(|body| match &context.shared {
                Some(shared) => Received::body(body, &exchange, || shared.clone()),
                None => Received::body(body, &exchange, || ()),
            })
        };
        let client = context.reader.client.clone();
        // HTTP/1 connections that became a tunnel are followed by their guard.
        let hold = (context.shared.is_none() && method == Method::CONNECT)
            .then(|| Hold::new(context.reader.live.clone()));
        let (close, refused) = (refused.is_some(), refused.map(|refusal| context.explained(refusal)));
        let request = HttpRequest { request, client, exchange, on_informational, refused, hold };
        let future = catch_unwind(AssertUnwindSafe(|| self.http.borrow_mut().call(request))).ok();
        Respond {
            future,
            answer: None,
            finish: Some(finish),
            context: context.clone(),
            method,
            may_switch,
            close,
        }
    }
}

pin_project! {
    /// One request's answer.
    pub(crate) struct Respond<F> {
        // `None` once it has answered, or panicked.
        #[pin]
        future: Option<F>,
        // An answer that waits for 1xx responses to be written before it.
        answer: Option<Response<Body>>,
        finish: Option<Finish>,
        context: Rc<Context>,
        method: Method,
        may_switch: bool,
        close: bool,
    }
}

impl<F> Future for Respond<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>>,
{
    type Output = Result<Response<Sent>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let mut answer = if let Some(answer) = this.answer.take() {
            answer
        } else {
            let polled = match this.future.as_mut().as_pin_mut() {
                Some(future) => catch_unwind(AssertUnwindSafe(|| future.poll(cx))).ok(),
                None => None,
            };
            if let Some(polled) = polled {
                let Ok(answer) = ready!(polled);
                // What it was made of has no use any more, and keeps the request's memory.
                this.future.set(None);
                if this.context.shared.is_some() {
                    // Its turn comes after the requests that are there already: answers of one turn of the runtime go out together, and
                    // clients are woken less often. Where nothing else is ready, that is now.
                    *this.answer = Some(answer);
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                answer
            } else {
                *this.close = true;
                let Some(finish) = this.finish.as_ref() else { return Poll::Pending };
                panicked(&finish.exchange, &this.context.reader)
            }
        };
        if let Some(shared) = &this.context.shared {
            if shared.has_informational() {
                // The guard writes them at its next flush, and wakes.
                *this.answer = Some(answer);
                return Poll::Pending;
            }
            this.context.open.set(0);
            // hyper would pass an upstream's HTTP/1.0 on.
            *answer.version_mut() = Version::HTTP_11;
            let ends = this.context.is_used_up() || this.context.reader.live.order() >= Order::LastCall;
            if *this.close || ends {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
        }
        let status = answer.status();
        let Some(mut finish) = this.finish.take() else { return Poll::Pending };
        if finish.exchange.status.get() == 0 {
            finish.exchange.status.set(status.as_u16());
        }
        if *this.may_switch
            && let Some(shared) = &this.context.shared
        {
            let connected = *this.method == Method::CONNECT && status.is_success();
            if connected || status == StatusCode::SWITCHING_PROTOCOLS {
                shared.set_switch(Switch::Switched);
                *this.context.tunnel.borrow_mut() = Some(finish);
                return Poll::Ready(Ok(answer.map(Sent::detached)));
            }
            shared.set_switch(Switch::Declined);
            // The guard may hold the next request: nothing else would make hyper read again.
            cx.waker().wake_by_ref();
        }
        if status == StatusCode::SWITCHING_PROTOCOLS {
            // Nobody asked: hyper would take the connection for a tunnel.
            finish.exchange.fail(Reason::UpstreamProtocolError, "101 without an Upgrade in the request");
            finish.exchange.status.set(502);
            finish.complete();
            let (mut parts, _) = answer.into_parts();
            parts.status = StatusCode::BAD_GATEWAY;
            parts.headers.clear();
            let answer = Response::from_parts(parts, Body::empty());
            return Poll::Ready(Ok(answer.map(|body| Sent::new(body, finish, this.method, status))));
        }
        Poll::Ready(Ok(answer.map(|body| Sent::new(body, finish, this.method, status))))
    }
}

/// The answer of last resort, made here because the service that makes answers is what failed.
fn panicked(exchange: &Exchange, reader: &Reader) -> Response<Body> {
    exchange.fail(Reason::InternalError, "the request's handling panicked");
    metrics().panic_caught();
    if exchange.protocol == "http1" {
        // HTTP/2 ends the stream alone.
        reader.live.ends_by(Reason::InternalError);
    }
    let listener = &reader.settings.listener;
    tracing::error!(listener = %listener.name, "a request's handling panicked; it was answered with 500");
    let style = AnswerStyle { details: listener.http.reason_header, retry_after: None };
    attache_http::answer(Reason::InternalError, Asker::unknown(), style, exchange)
}
