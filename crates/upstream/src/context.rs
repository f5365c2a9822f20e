//! What the layers behind routing know of a call beside its request.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use attache_config::model::DestinationId;
use attache_http::{Client, OnInformational};
use attache_telemetry::{Exchange, Reason};
use smallvec::SmallVec;
use tokio::time::Instant;

use crate::{
    Affinity, Endpoint,
    overdue::{BodyProgress, Overdue, OverdueAt},
};

/// What the layers behind routing need to know of a call. Cheap to clone for another attempt.
#[derive(Clone, Debug)]
pub struct CallContext {
    /// The client of the call.
    pub client: Rc<Client>,
    /// The record that every layer writes to.
    pub exchange: Rc<Exchange>,
    /// The chosen destination of the route.
    pub destination: DestinationId,
    /// The endpoints that it may go to, and the preferred one; `None` leaves the choice to the balancer.
    pub affinity: Option<Rc<Affinity>>,
    /// The connection is made in case the server speaks first: `max_requests` counts it when it does
    /// ([`BareConnection::count`](crate::BareConnection::count)).
    pub ahead: bool,
    /// Endpoints that attempts went to already; they are avoided while there are others.
    pub tried: TriedEndpoints,
    /// Where the upstream's 1xx responses go; `None` drops them.
    pub on_informational: Option<OnInformational>,
    /// No attempt may begin or wait after this instant.
    pub deadline: Option<Instant>,
    /// The instant after which an attempt without an answer is a failure of the endpoint: the route's deadline, or the
    /// attempt's own.
    pub overdue: Option<Overdue>,
}

impl CallContext {
    /// A call without attempts and without a deadline.
    pub fn new(client: Rc<Client>, exchange: Rc<Exchange>) -> Self {
        Self {
            client,
            exchange,
            destination: DestinationId::default(),
            affinity: None,
            ahead: false,
            tried: TriedEndpoints::default(),
            on_informational: None,
            deadline: None,
            overdue: None,
        }
    }

    /// The caller waits until `at` at most: after it an attempt without an answer is overdue.
    pub fn overdue_at(&mut self, at: Instant, reason: Reason) {
        self.note_overdue(reason, OverdueAt::At(at));
    }

    /// The same where the wait begins with the end of the request's body.
    pub fn overdue_after(&mut self, upload: Rc<BodyProgress>, reason: Reason) {
        self.note_overdue(reason, OverdueAt::AfterUpload(upload));
    }

    fn note_overdue(&mut self, reason: Reason, due: OverdueAt) {
        let new = Overdue { reason, due };
        let before = self.overdue.as_ref().and_then(Overdue::earliest);
        if before.is_none_or(|before| new.earliest().is_some_and(|new| new < before)) {
            self.overdue = Some(new);
        }
    }
}

/// The endpoints that the attempts of one request went to. Each attempt adds its own as it begins.
#[derive(Clone, Debug, Default)]
pub struct TriedEndpoints(Rc<RefCell<SmallVec<[Arc<Endpoint>; 2]>>>);

impl TriedEndpoints {
    /// Adds an endpoint that isn't there yet.
    pub fn push(&self, endpoint: &Arc<Endpoint>) {
        if !self.contains(endpoint) {
            self.0.borrow_mut().push(Arc::clone(endpoint));
        }
    }

    /// Allows the endpoint of the last attempt again: it did not cause the failure.
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

    /// Calls `look` with all of them.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&[Arc<Endpoint>]) -> T) -> T {
        look(&self.0.borrow())
    }
}
