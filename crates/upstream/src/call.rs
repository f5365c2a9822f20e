//! One try of one request, as the layers from retry to connection see it.

use std::{pin::Pin, rc::Rc, sync::Arc};

use attache_http::{Body, Client, OnInformational};
use attache_telemetry::Exchange;
use http::Request;
use smallvec::SmallVec;

use crate::Endpoint;

/// A request on its way to an upstream: the `Request` type of every tower service behind routing.
#[derive(Debug)]
pub struct Call {
    /// The request. Its URI is in origin-form with scheme and authority set (`http://host:port/path`); the
    /// connection's protocol decides how that is written. In a box, since every layer passes it on.
    pub request: Box<Request<Body>>,
    /// What the layers need to know beside it.
    pub context: CallContext,
}

/// What the layers behind routing need to know of a call. Cheap to clone for another try.
#[derive(Clone, Debug)]
pub struct CallContext {
    /// Who calls.
    pub client: Rc<Client>,
    /// The record that every layer writes to.
    pub exchange: Rc<Exchange>,
    /// Endpoints that were tried already and are avoided while there are others.
    pub tried: SmallVec<[Arc<Endpoint>; 2]>,
    /// Where the upstream's 1xx responses go; `None` drops them.
    pub on_informational: Option<OnInformational>,
    /// No try may begin or wait behind this instant.
    pub deadline: Option<tokio::time::Instant>,
    /// From this instant on it is the endpoint's failure that a try brought no answer: the route's deadline, or the try's own. A
    /// caller that gives up sooner says nothing of the endpoint.
    pub blame_after: Option<tokio::time::Instant>,
}

impl CallContext {
    /// A call that was not tried yet and has no deadline.
    pub fn new(client: Rc<Client>, exchange: Rc<Exchange>) -> Self {
        Self {
            client,
            exchange,
            tried: SmallVec::new(),
            on_informational: None,
            deadline: None,
            blame_after: None,
        }
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
