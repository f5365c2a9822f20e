//! One attempt of one request, as the layers from retry to connection see it.

use std::{pin::Pin, rc::Rc};

use attache_http::Body;
use attache_wire::Request;
use http::Method;

use crate::{attempt::OutcomeReceivers, context::CallContext};

/// A request on its way to an upstream: the `Request` type of every tower service behind routing.
#[derive(Debug)]
pub struct Call {
    /// The request. Its URI is in origin-form with scheme and authority set (`http://host:port/path`); the connection's
    /// protocol decides how the target is written.
    pub request: Request<Body>,
    /// What it asks for.
    pub wants: CallKind,
    /// What the layers need to know beside it. Shared, since every layer moves the call, and a retry keeps this for its next attempt.
    pub context: Rc<CallContext>,
    /// Observers of the attempt's end, in addition to its endpoint. Layers below the retries add themselves.
    pub judges: OutcomeReceivers,
    /// It is sent on a connection that is made for it, never on one from the pool. This is set for the one attempt
    /// after a lost close race: the peer may also have closed the pool's other connections to that endpoint.
    pub fresh: bool,
}

/// What a call asks an upstream for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallKind {
    /// The answer to its request.
    Answer,
    /// A bare connection, for opaque bytes. Nothing of the request is sent. The answer is a 200 without a body that carries the
    /// connection: [`connected`](crate::connected) takes it out.
    Connection,
}

impl Call {
    /// A call for an answer.
    pub fn new(request: Request<Body>, context: impl Into<Rc<CallContext>>) -> Self {
        Self {
            request,
            wants: CallKind::Answer,
            context: context.into(),
            judges: OutcomeReceivers::default(),
            fresh: false,
        }
    }

    /// A call for a bare connection. `request` is a CONNECT's: balancing by a hash, limits and hosts read its head, and its body is
    /// never touched.
    pub fn connection(request: Request<Body>, context: impl Into<Rc<CallContext>>) -> Self {
        Self { wants: CallKind::Connection, ..Self::new(request, context) }
    }

    /// The same for a client that sends opaque bytes and no request. A CONNECT without headers stands for the request.
    pub fn opaque(context: impl Into<Rc<CallContext>>) -> Self {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = Method::CONNECT;
        Self::connection(request, context)
    }

    /// The context, to be changed for this call alone.
    pub fn context_mut(&mut self) -> &mut CallContext {
        Rc::make_mut(&mut self.context)
    }
}

/// A future in a box, made directly inside of the box. `Box::pin(async { … })` makes the future first and then copies
/// all of its memory, kilobytes to which nothing was written yet: it allocates last, because it must drop what the
/// future holds if the allocation fails.
#[expect(clippy::inline_always, reason = "in a function of its own it would be copied after all")]
#[inline(always)]
pub fn boxed<F>(make: impl FnOnce() -> F) -> Pin<Box<F>> {
    let room = Box::new_uninit();
    Box::into_pin(Box::write(room, make()))
}
