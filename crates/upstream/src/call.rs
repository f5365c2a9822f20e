//! One attempt of one request, as the layers from retry to connection see it.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    sync::Arc,
};

use attache_config::model::DestinationId;
use attache_http::{Body, Client, OnInformational};
use attache_telemetry::{Exchange, Reason};
use attache_wire::Request;
use http::Method;
use smallvec::SmallVec;
use tokio::time::Instant;

use crate::{Endpoint, attempt::Judges};

/// A request on its way to an upstream: the `Request` type of every tower service behind routing.
#[derive(Debug)]
pub struct Call {
    /// The request. Its URI is in origin-form with scheme and authority set (`http://host:port/path`); the
    /// connection's protocol decides how that is written.
    pub request: Request<Body>,
    /// What it asks of the upstream.
    pub wants: Wants,
    /// What the layers need to know beside it.
    pub context: CallContext,
    /// Who is told of the attempt's end beside its endpoint. Layers below the retries add themselves.
    pub judges: Judges,
    /// It goes out on a connection made for it, never on one of the pool. Set on the one attempt that follows a lost close race, where the
    /// pool's other connections to that endpoint may have been closed by the peer as well.
    pub fresh: bool,
}

/// What a call asks of an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// The answer to its request.
    Answer,
    /// A bare connection, for opaque bytes. Nothing of the request is sent. The answer is a 200 without a body that carries the
    /// connection: [`connected`](crate::connected) takes it out.
    Connection,
}

impl Call {
    /// A call for an answer.
    pub fn new(request: Request<Body>, context: CallContext) -> Self {
        Self { request, wants: Wants::Answer, context, judges: Judges::default(), fresh: false }
    }

    /// A call for a bare connection. `request` is a CONNECT's: balancing by a hash, limits and hosts read its head, and its body is
    /// never touched.
    pub fn connection(request: Request<Body>, context: CallContext) -> Self {
        Self { wants: Wants::Connection, ..Self::new(request, context) }
    }

    /// The same for a client that sent no request, but opaque bytes. In its place stands a CONNECT without headers.
    pub fn opaque(context: CallContext) -> Self {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = Method::CONNECT;
        Self::connection(request, context)
    }
}

/// What the layers behind routing need to know of a call. Cheap to clone for another attempt.
#[derive(Clone, Debug)]
pub struct CallContext {
    /// Who calls.
    pub client: Rc<Client>,
    /// The record that every layer writes to.
    pub exchange: Rc<Exchange>,
    /// Which of the route's destinations is meant.
    pub destination: DestinationId,
    /// A connection is made in case that the server speaks first: `max_requests` counts it when it does
    /// ([`Bare::count`](crate::Bare::count)).
    pub ahead: bool,
    /// Endpoints that attempts went to already; they are avoided while there are others.
    pub tried: Tried,
    /// Where the upstream's 1xx responses go; `None` drops them.
    pub on_informational: Option<OnInformational>,
    /// No attempt may begin or wait behind this instant.
    pub deadline: Option<Instant>,
    /// From when on it is the endpoint's failure that an attempt brought no answer: the route's deadline, or the attempt's own.
    pub overdue: Option<Overdue>,
}

/// From when on an attempt without an answer was too slow.
#[derive(Clone, Debug)]
pub struct Overdue {
    /// Whose patience ended: `request-timeout` or `per-try-timeout`.
    pub reason: Reason,
    due: Due,
}

/// When it is. As small as an instant: every call that waits keeps some.
#[derive(Clone, Debug)]
enum Due {
    At(Instant),
    /// The wait begins with the end of the request's body.
    AfterUpload(Rc<Progress>),
}

impl Overdue {
    /// The instant, or the earliest that it can be.
    pub(crate) fn earliest(&self) -> Option<Instant> {
        match &self.due {
            Due::At(at) => Some(*at),
            Due::AfterUpload(upload) => upload.due.get().or(upload.earliest),
        }
    }

    /// Whether an attempt that ends now was too slow.
    pub fn is_over(&self) -> bool {
        let at = match &self.due {
            Due::At(at) => Some(*at),
            Due::AfterUpload(upload) => upload.due.get(),
        };
        at.is_some_and(|at| at <= Instant::now())
    }
}

/// What a request's body says of itself to those who wait for the answer.
#[derive(Debug, Default)]
pub struct Progress {
    /// A frame went by since this was taken.
    pub active: Cell<bool>,
    /// It has ended, or nobody wants more of it.
    pub over: Cell<bool>,
    /// Until when the answer is waited for; `None` where that is not known before the body has ended.
    pub due: Cell<Option<Instant>>,
    /// The earliest that [`Self::due`] can be.
    pub earliest: Option<Instant>,
}

impl CallContext {
    /// A call without attempts and without a deadline.
    pub fn new(client: Rc<Client>, exchange: Rc<Exchange>) -> Self {
        Self {
            client,
            exchange,
            destination: DestinationId::default(),
            ahead: false,
            tried: Tried::default(),
            on_informational: None,
            deadline: None,
            overdue: None,
        }
    }

    /// Where nobody waits longer than `at`, from there on an attempt without an answer is overdue.
    pub fn overdue_at(&mut self, at: Instant, reason: Reason) {
        self.note_overdue(reason, Due::At(at));
    }

    /// The same where the wait begins with the end of the request's body.
    pub fn overdue_after(&mut self, upload: Rc<Progress>, reason: Reason) {
        self.note_overdue(reason, Due::AfterUpload(upload));
    }

    fn note_overdue(&mut self, reason: Reason, due: Due) {
        let new = Overdue { reason, due };
        let before = self.overdue.as_ref().and_then(Overdue::earliest);
        if before.is_none_or(|before| new.earliest().is_some_and(|new| new < before)) {
            self.overdue = Some(new);
        }
    }
}

/// The endpoints that the attempts of one request went to. Each attempt adds its own as it begins.
#[derive(Clone, Debug, Default)]
pub struct Tried(Rc<RefCell<SmallVec<[Arc<Endpoint>; 2]>>>);

impl Tried {
    /// Adds an endpoint that isn't there yet.
    pub fn push(&self, endpoint: &Arc<Endpoint>) {
        if !self.contains(endpoint) {
            self.0.borrow_mut().push(Arc::clone(endpoint));
        }
    }

    /// The last attempt's endpoint may be used again: the attempt failed by no doing of its own.
    pub fn forget_last(&self) {
        self.0.borrow_mut().pop();
    }

    /// Whether an attempt went there.
    pub fn contains(&self, endpoint: &Arc<Endpoint>) -> bool {
        self.0.borrow().iter().any(|tried| Arc::ptr_eq(tried, endpoint))
    }

    /// All of them, in the order of the attempts.
    pub fn to_vec(&self) -> Vec<Arc<Endpoint>> {
        self.0.borrow().to_vec()
    }

    /// Looks at all of them.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&[Arc<Endpoint>]) -> T) -> T {
        look(&self.0.borrow())
    }
}

/// A future in a box, made where it then stands. `Box::pin(async { … })` makes it elsewhere and copies all of its room, kilobytes that
/// nothing was written to yet: the allocation comes last there, and what the future holds must be dropped should it fail.
#[expect(clippy::inline_always, reason = "in a function of its own it would be copied after all")]
#[inline(always)]
pub fn boxed<F: Future>(make: impl FnOnce() -> F) -> Pin<Box<F>> {
    let room = Box::new_uninit();
    Box::into_pin(Box::write(room, make()))
}
