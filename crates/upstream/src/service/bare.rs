//! The result of a call for [a connection](crate::CallKind::Connection): the connection, and its part of the counts.

use std::{fmt, rc::Rc, sync::Arc};

use attache_http::Body;
use attache_telemetry::{Reason, metrics};
use attache_wire::Response;

use super::ServiceState;
use crate::{
    CallContext, Endpoint, Error, SentPart,
    connect::EndpointConnection,
    limit::{Charge, ConnectionPermit, UnhealthyNotice},
};

/// A bare connection, which counts as a running call until it is dropped.
#[derive(Debug)]
pub struct BareConnection {
    /// The connection.
    pub io: EndpointConnection,
    /// Dropped with it.
    pub guard: BareConnectionCharge,
}

/// The part of the counts that a bare connection holds until it is dropped, and how to replace the connection.
pub struct BareConnectionCharge {
    pub(super) charge: Option<Charge>,
    pub(super) permit: ConnectionPermit,
    /// `None` once a side has sent a byte.
    pub(super) again: Option<Reconnect>,
}

/// The data for another connection for the same client.
pub(super) struct Reconnect {
    pub(super) inner: Rc<ServiceState>,
    pub(super) context: CallContext,
    pub(super) hash: Option<u64>,
}

impl fmt::Debug for BareConnectionCharge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BareConnectionCharge").field("charge", &self.charge).finish_non_exhaustive()
    }
}

impl BareConnectionCharge {
    /// Learns when the connection is to be closed.
    pub fn closer(&self) -> UnhealthyNotice {
        self.charge.as_ref().map_or_else(UnhealthyNotice::default, Charge::closer)
    }

    /// A connection to an endpoint that this call hasn't tried yet, in place of one that ended before it was used.
    /// `None` if there is no such endpoint.
    pub async fn elsewhere(&mut self) -> Option<EndpointConnection> {
        let Self { charge, permit, again } = self;
        let Reconnect { inner, context, hash } = again.as_ref()?;
        let charge = charge.as_mut()?;
        let other = inner.another(charge.endpoint(), *hash, context, false)?;
        let connect = |endpoint: Arc<Endpoint>| async {
            let (io, permit) = inner.bare(context, &endpoint, None).await?;
            Ok((io, permit, endpoint))
        };
        let made = Box::pin(inner.race(&other, *hash, context, &mut None, connect)).await;
        let (io, new, endpoint) = made.ok()?;
        context.exchange.tried_again(Reason::UpstreamReset);
        metrics().retry(&charge.shared().config.name, Reason::UpstreamReset);
        context.exchange.endpoint.replace(Some(Arc::clone(&endpoint.label)));
        *context.exchange.peer.borrow_mut() = inner.tls.as_ref().and_then(|tls| tls.peer(&io));
        charge.moved_to(&endpoint);
        *permit = new;
        Some(io)
    }
}

impl BareConnection {
    /// Both sides send bytes now: a connection that was made [ahead](CallContext::ahead) of its use is counted from now
    /// on.
    ///
    /// # Errors `overflow-requests` if the upstream is at its limit of calls.
    pub fn count(&mut self) -> Result<(), Error> {
        self.guard.again = None;
        let Some(charge) = &mut self.guard.charge else { return Ok(()) };
        charge.count().map_err(|reason| {
            metrics().overflow(&charge.shared().config.name, reason);
            Error::new(reason, SentPart::Nothing)
        })
    }
}

/// The connection in the answer to [`CallKind::Connection`]; `None` if the answer has none, or it was taken before.
pub fn connected(response: &mut Response<Body>) -> Option<BareConnection> {
    response.head_mut().carried.take()?.downcast().ok().map(|bare| *bare)
}
