//! The way back: an upstream's response, a tunnel, or the reason for an answer of attache.

use std::rc::Rc;

use attache_authorization::external::Denial;
use attache_config::model::{Destination, HeaderNames};
use attache_http::{
    AnswerContext, AnswerStyle, Body, Refusal, TargetForm, Upgrade, answer, answer_as_told, edit_local_reply,
    may_have_trailers, strip_response,
};
use attache_listener::{IdleHold, OnUpgrade};
use attache_routing::ReadyEdits;
use attache_telemetry::{Class, Exchange, Reason};
use attache_upstream::{Error, SentPart, connected};
use attache_web::ResponsePlan;
use attache_wire::{Fields, Response, ResponseHead, header::CONTENT_LENGTH};
use http::{HeaderName, StatusCode};

use super::{ListenerStack, ask::Ask, session::RequestSession, tunnel::TunnelContext};

/// What the way back needs to know about a request.
pub(super) struct RequestShape {
    pub(super) form: TargetForm,
    pub(super) ask: Ask,
    pub(super) version: http::Version,
}

/// What the response needs to know about its request.
pub(super) struct AnswerNeeds {
    pub(super) asker: AnswerContext,
    pub(super) exchange: Rc<Exchange>,
    pub(super) back: ResponseContext,
    /// What a browser needs. Boxed, because it is rare.
    pub(super) web: Option<Box<ResponsePlan>>,
}

/// What the way back of an upstream's response needs.
pub(super) struct ResponseContext {
    pub(super) shape: RequestShape,
    pub(super) edits: ReadyEdits,
    /// Fields that no trailer may have.
    pub(super) withheld: Rc<[HeaderName]>,
    /// The client's side of an upgrade or a CONNECT, and its tunnel. Boxed, because it is rare.
    pub(super) switched: Option<Box<(OnUpgrade, TunnelContext)>>,
    /// The client's session with an endpoint. Boxed, because it is rare.
    pub(super) session: Option<Box<RequestSession>>,
}

/// Why there is no response from an upstream.
pub(super) struct CallFailure {
    pub(super) reason: Reason,
    pub(super) detail: String,
    pub(super) retry_after: Option<std::time::Duration>,
    /// The answer's status, if it isn't the reason's status.
    pub(super) status: Option<StatusCode>,
    pub(super) headers: Option<Box<Fields>>,
    /// The answer that an authorizer has chosen for the client.
    pub(super) denial: Option<Box<Denial>>,
}

impl From<Refusal> for CallFailure {
    #[cold]
    fn from(refusal: Refusal) -> Self {
        Self { reason: refusal.reason, detail: refusal.text.into_owned(), ..Self::from(refusal.reason) }
    }
}

impl From<Error> for CallFailure {
    #[cold]
    fn from(error: Error) -> Self {
        let detail = error.detail();
        let Error { reason, retry_after, status, headers, .. } = error;
        Self { reason, detail, retry_after, status, headers, denial: None }
    }
}

impl From<Reason> for CallFailure {
    #[cold]
    fn from(reason: Reason) -> Self {
        Self { reason, detail: String::new(), retry_after: None, status: None, headers: None, denial: None }
    }
}

impl ListenerStack {
    /// The result of a call, for the client.
    pub(super) fn answered(
        &self,
        sent: Result<Response<Body>, Error>,
        sending: AnswerNeeds,
    ) -> Response<Body> {
        let AnswerNeeds { asker, exchange, back, web } = sending;
        let response = self.returned(sent, asker, back, &exchange);
        self.send_off(response, web, &exchange)
    }

    /// The result of a call, before the headers for browsers are added.
    pub(super) fn returned(
        &self,
        sent: Result<Response<Body>, Error>,
        asker: AnswerContext,
        back: ResponseContext,
        exchange: &Rc<Exchange>,
    ) -> Response<Body> {
        let finished = sent.and_then(|response| {
            exchange.time_to_head.set(Some(exchange.start.elapsed()));
            if self.metrics.tapped() {
                exchange.see_response(response.headers());
            }
            self.finish(response, back, exchange)
        });
        finished.unwrap_or_else(|error| {
            let mut failure = CallFailure::from(error);
            if failure.reason.is(Class::Timeout) {
                failure.detail = [failure.detail, exchange.waited_for()].join("; ");
            }
            self.answer(failure, asker, exchange)
        })
    }

    /// The last step of every response: it adds what a browser needs, and notes the response as the client gets it.
    pub(super) fn send_off(
        &self,
        mut response: Response<Body>,
        web: Option<Box<ResponsePlan>>,
        exchange: &Exchange,
    ) -> Response<Body> {
        if let Some(web) = web {
            let coding;
            (response, coding) = web.finish(response);
            if let (Some(coding), Some(route)) = (coding, &*exchange.route.borrow()) {
                self.metrics.compressed(&self.listener.name, route, coding.as_str());
            }
        }
        self.observer.response(exchange, response.headers());
        response
    }

    pub(super) fn answer(
        &self,
        failure: CallFailure,
        asker: AnswerContext,
        exchange: &Exchange,
    ) -> Response<Body> {
        exchange.fail(failure.reason, failure.detail);
        let style =
            AnswerStyle { details: self.listener.http.reason_header, retry_after: failure.retry_after };
        let mut response = answer(failure.reason, asker, style, exchange);
        if let Some(status) = failure.status.filter(|_| !asker.is_grpc()) {
            *response.status_mut() = status;
            exchange.status.set(status.as_u16());
        }
        if let Some(headers) = failure.headers {
            response.headers_mut().replace_by(&headers);
        }
        if let Some(denial) = failure.denial {
            let Denial { status, headers, body, .. } = *denial;
            let is_empty = body.is_empty();
            answer_as_told(&mut response, asker, status, headers, body);
            if is_empty {
                // An HTTP authorizer that was asked with HEAD has sent no body, and doesn't say how long the body would be.
                response.headers_mut().remove(CONTENT_LENGTH);
            }
            exchange.status.set(response.status().as_u16());
        }
        edit_local_reply(&self.listener.local_reply.headers, exchange, response.headers_mut());
        response
    }

    fn finish(
        &self,
        mut response: Response<Body>,
        back: ResponseContext,
        exchange: &Exchange,
    ) -> Result<Response<Body>, Error> {
        let ResponseContext { shape, edits, withheld, switched, session } = back;
        let switched = switched.map(|switched| *switched);
        if shape.ask == Ask::Connect {
            // `CONNECT host:port`: a tunnel of bytes (RFC 9110 section 9.3.6).
            let (Some(upstream), Some((client, tunnel))) = (connected(&mut response), switched) else {
                exchange.fail(Reason::InternalError, "a tunnel without a connection");
                return Err(Error::new(Reason::InternalError, SentPart::Nothing));
            };
            self.tunnels.connected(client, upstream, tunnel);
            return Ok(Response::new(Body::empty()));
        }
        let status = response.status();
        let switching = match &shape.ask {
            Ask::Upgrade(Upgrade::Http1(_)) => status == StatusCode::SWITCHING_PROTOCOLS,
            Ask::Upgrade(_) => status.is_success(),
            Ask::Http | Ask::Connect | Ask::Opaque => false,
        };
        let (mut parts, mut body) = response.into_parts();
        if switching && let Some((client, tunnel)) = switched {
            // The client gets the head without its extensions.
            let mut upstream = Response::new(std::mem::take(&mut body));
            upstream.head_mut().carried = parts.carried.take();
            self.tunnels.upgraded(client, upstream, tunnel);
        }
        if may_have_trailers(parts.version, &parts.headers) {
            body = body.without_trailers(&withheld, HeaderNames::default());
        }
        self.arrive(&mut parts, switching, shape.form.is_proxied(), edits);
        if let Some(session) = session {
            session.tell(exchange, &mut parts.headers);
        }
        Ok(Response::from_parts(parts, body))
    }

    pub(super) fn tunnel(
        &self,
        destination: &Destination,
        exchange: Rc<Exchange>,
        hold: Option<IdleHold>,
    ) -> TunnelContext {
        let idle = destination.policy.timeouts.idle;
        TunnelContext { idle, exchange, hold, on_finish: self.on_finish.clone() }
    }

    fn arrive(&self, parts: &mut ResponseHead, switching: bool, proxied: bool, edits: ReadyEdits) {
        let upstream_version = parts.version;
        // RFC 9110 section 15.5.22: a 426 must name the protocol.
        let upgrade = switching || parts.status == StatusCode::UPGRADE_REQUIRED;
        strip_response(&mut parts.headers, upgrade, proxied);
        if let Some(via) = &self.via {
            via.add(&mut parts.headers, upstream_version);
        }
        edits.apply(&mut parts.headers);
        // The response has the client's version, whatever version the upstream used.
        parts.version = http::Version::HTTP_11;
    }
}
