//! Asks another service whether a request or a connection is allowed, after the rules have allowed it.
//!
//! Only listeners with an authorizer use this code: it waits for an answer, and other listeners need no future for that. The question is
//! made from a copy of the request, so that the authorizer sees what the upstream will see (the client, no hop-by-hop fields, the token's
//! claims). The client's request stays unchanged until the authorizer has answered with its changes.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use attache_authorization::{
    AccessPolicy,
    external::{
        AllowedChanges, AuthorizerQuestion, AuthorizerVerdict, BodyExcerpt, Denial, ExternalAuthorizer,
    },
};
use attache_config::model::{AuthorizerBody, AuthorizerFailure, AuthorizerUse, Name};
use attache_http::{AnswerContext, Body, BodyError, Client};
use attache_listener::{IdleHold, OnUpgrade};
use attache_routing::CompiledRoute;
use attache_telemetry::{Exchange, Reason};
use attache_upstream::CallContext;
use attache_web::ResponsePlan;
use attache_wire::{Request, RequestHead, Response, header::EXPECT};
use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::timeout;

use super::{
    ListenerStack,
    ask::Ask,
    authorizer_answer::{AuthorizerAnswer, unavailable},
    entry::{CheckedRequest, EntryProgress, EntryResult},
    exit::{CallFailure, RequestShape},
};

/// Which authorizer is asked, and by which rules.
pub(super) struct AuthorizerCheck<'r> {
    external: Option<&'r Rc<ExternalAuthorizer>>,
    context: &'r [(Name, Name)],
    body: bool,
    policy: &'r AccessPolicy,
    route: Option<&'r CompiledRoute>,
}

impl ListenerStack {
    /// Serves a request on a listener with an authorizer.
    pub(super) async fn serve_asked(
        self: Rc<Self>,
        request: Request<Body>,
        context: Rc<CallContext>,
        upgrade: Option<OnUpgrade>,
        hold: Option<IdleHold>,
        asker: AnswerContext,
    ) -> Result<Response<Body>, Infallible> {
        let exchange = context.exchange.clone();
        let (mut added, mut web) = (None, None);
        let begun = self.begin_asked(request, context, upgrade, hold, &mut added, &mut web).await;
        let mut response = match begun {
            Ok(EntryProgress::Call { route, call, back }) => {
                let sent = route.call(call).await;
                self.returned(sent, asker, back, &exchange)
            }
            Ok(EntryProgress::Answer(response)) => response,
            Err(failure) => self.answer(failure, asker, &exchange),
        };
        if let Some(granted) = added {
            granted.apply_to_response(response.headers_mut());
        }
        Ok(self.send_off(response, web, &exchange))
    }

    async fn begin_asked(
        &self,
        mut request: Request<Body>,
        context: Rc<CallContext>,
        upgrade: Option<OnUpgrade>,
        hold: Option<IdleHold>,
        added: &mut Option<Box<AllowedChanges>>,
        web: &mut Option<Box<ResponsePlan>>,
    ) -> Result<EntryProgress<'_>, CallFailure> {
        let passed = match self.admit(&mut request, &context, web)? {
            EntryResult::Answer(response) => return Ok(EntryProgress::Answer(response)),
            EntryResult::Passed(passed) => passed,
        };
        // The authorizer gets the same head and body as the upstream.
        if let Some(web) = web {
            web.translate(&mut request);
        }
        let Some(asking) = self.asking(passed.route()) else {
            return self.depart(request, context, upgrade, hold, passed, None);
        };
        let limit = asking.external.and_then(|external| external.config().body);
        // As with Envoy, the authorizer learns nothing about the body of a request that has none, not even that it is complete.
        let has_body = passed.ask == Ask::Http && !request.body().is_end_stream();
        let excerpt = match limit.filter(|_| asking.body && has_body) {
            Some(limit) => {
                let idle = self.listener.http.idle_timeout;
                let (excerpt, body) = begin_of(std::mem::take(request.body_mut()), limit, idle).await?;
                *request.body_mut() = body;
                // The client was already told to send the body, so the upstream need not be asked.
                request.headers_mut().remove(EXPECT);
                Some(excerpt)
            }
            None => None,
        };
        let head = self.as_sent(request.head(), &passed, &context.client);
        let question = AuthorizerQuestion {
            client: &context.client,
            request: Some(&head),
            body: excerpt.as_ref(),
            context: asking.context,
            listener: &self.listener.name,
        };
        let mut asked = self.ask_external(&asking, &question, &context.exchange).await?;
        let begun = self.depart(request, context, upgrade, hold, passed, Some(&asked));
        *added = asked.granted.take().filter(|granted| granted.changes_response());
        begun
    }

    /// Allows an opaque connection to continue, or says why it may not.
    pub(super) async fn ask_about_connection(
        &self,
        client: &Client,
        route: &CompiledRoute,
        exchange: &Exchange,
    ) -> Result<(), CallFailure> {
        let Some(asking) = self.asking(Some(route)) else { return Ok(()) };
        let listener = &self.listener.name;
        let question =
            AuthorizerQuestion { client, request: None, body: None, context: asking.context, listener };
        self.ask_external(&asking, &question, exchange).await.map(drop)
    }

    /// Which authorizer is asked: the route's, or else the listener's.
    fn asking<'r>(&'r self, route: Option<&'r CompiledRoute>) -> Option<AuthorizerCheck<'r>> {
        let of_route = route.and_then(|route| Some((route.authorization()?, Some(route))));
        let of_listener = self.table.authorization().map(|policy| (policy, None));
        let mut both = of_route.into_iter().chain(of_listener);
        let (used, policy, route) =
            both.find_map(|(policy, route)| Some((policy.external()?, policy, route)))?;
        match used {
            AuthorizerUse::Off => None,
            AuthorizerUse::Ask { authorizer, context, body } => {
                let external = self.upstreams.authorizer(*authorizer);
                Some(AuthorizerCheck { external, context, body: *body, policy, route })
            }
        }
    }

    /// The request as the upstream would get it, before the route's own changes.
    fn as_sent(&self, request: &RequestHead, passed: &CheckedRequest<'_>, client: &Client) -> RequestHead {
        let mut head = request.clone();
        let shape = RequestShape { form: passed.form, ask: passed.ask.clone(), version: request.version };
        self.leave(&mut head, &shape, client);
        if let Some(token) = &passed.token {
            token.pass_on(self.upstreams.verifier(), &mut head);
        }
        head
    }

    async fn ask_external<'r>(
        &self,
        asking: &AuthorizerCheck<'r>,
        question: &AuthorizerQuestion<'_>,
        exchange: &Exchange,
    ) -> Result<AuthorizerAnswer<'r>, CallFailure> {
        // The config guarantees that there is one.
        let Some(external) = asking.external else { return Err(Reason::InternalError.into()) };
        let config = external.config();
        let count = |outcome| self.metrics.authorizer(&config.name, outcome);
        let refuse = |failure| self.refuse(failure, asking.policy, asking.route, exchange);
        let granted = match external.ask(question).await {
            Ok(AuthorizerVerdict::Granted(granted)) => {
                count("allowed");
                Some(granted)
            }
            Ok(AuthorizerVerdict::Denied(denial)) => {
                count("denied");
                refuse(denied(&config.name, denial))?;
                None
            }
            Err(why) if config.failure_mode == AuthorizerFailure::Open => {
                count("failed-open");
                tracing::debug!(authorizer = %config.name, why, "no answer: the request continues without one");
                None
            }
            Err(why) => {
                count("failed");
                refuse(unavailable(&config.name, &why))?;
                None
            }
        };
        Ok(AuthorizerAnswer { external, granted })
    }
}

fn denied(name: &Name, mut denial: Box<Denial>) -> CallFailure {
    let detail = match std::mem::take(&mut denial.detail) {
        said if said.is_empty() => format!("authorizer {name} denies the request"),
        said => format!("authorizer {name} denies the request: {said}"),
    };
    CallFailure { detail, denial: Some(denial), ..CallFailure::from(Reason::DeniedByAuthorizer) }
}

/// Waits for the beginning of a body. Returns it together with the whole body.
async fn begin_of(
    mut body: Body,
    limit: AuthorizerBody,
    idle: Duration,
) -> Result<(BodyExcerpt, Body), CallFailure> {
    let too_large = || {
        let detail = format!("the authorizer gets at most {} bytes", limit.max);
        CallFailure { detail, ..CallFailure::from(Reason::BodyTooLarge) }
    };
    if !limit.partial && body.size_hint().lower() > limit.max as u64 {
        return Err(too_large());
    }
    let (mut frames, mut bytes, mut partial) = (VecDeque::new(), BytesMut::new(), false);
    while !body.is_end_stream() {
        if limit.partial && bytes.len() >= limit.max {
            partial = true;
            break;
        }
        let next = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx));
        let frame = match timeout(idle, next).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(None) => break,
            Ok(Some(Err(error))) => {
                let reason = error.reason.unwrap_or(Reason::ClientClosed);
                return Err(CallFailure { detail: error.to_string(), ..CallFailure::from(reason) });
            }
            Err(_) => return Err(Reason::IdleTimeout.into()),
        };
        if let Some(data) = frame.data_ref() {
            let room = limit.max - bytes.len();
            if data.len() > room && !limit.partial {
                return Err(too_large());
            }
            partial |= data.len() > room;
            bytes.extend_from_slice(data.get(..room).unwrap_or(data));
        }
        frames.push_back(frame);
    }
    let excerpt = BodyExcerpt { bytes: bytes.freeze(), partial };
    let body = if frames.is_empty() { body } else { Body::stream(ReadAhead { frames, rest: body }) };
    Ok((excerpt, body))
}

/// A body whose beginning was read already.
struct ReadAhead {
    frames: VecDeque<Frame<Bytes>>,
    rest: Body,
}

impl http_body::Body for ReadAhead {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.frames.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let read: usize = self.frames.iter().filter_map(Frame::data_ref).map(Bytes::len).sum();
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(read as u64));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(read as u64));
        }
        hint
    }
}
