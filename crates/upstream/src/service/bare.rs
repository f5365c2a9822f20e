//! What a call that [wants a connection](crate::Wants::Connection) gets: a connection, and what it holds of the breaker's counts.

use std::{fmt, rc::Rc, sync::Arc};

use attache_http::Body;
use attache_telemetry::{Reason, metrics};
use attache_wire::Response;

use super::Inner;
use crate::{
    CallContext, Endpoint, Error, SentPart,
    connect::Connection,
    limit::{Charge, Closer, ConnectionPermit},
};

/// A bare connection, with what it holds of the breaker's counts until it is dropped.
#[derive(Debug)]
pub struct Bare {
    /// The connection.
    pub io: Connection,
    /// Dropped with it.
    pub guard: Guard,
}

/// What a bare connection holds of the breaker's counts until it is dropped, and how another one is made in its place.
pub struct Guard {
    pub(super) charge: Option<Charge>,
    pub(super) permit: ConnectionPermit,
    /// `None` once a side has spoken.
    pub(super) again: Option<Reconnect>,
}

/// What another connection for the same client is made of.
pub(super) struct Reconnect {
    pub(super) inner: Rc<Inner>,
    pub(super) context: CallContext,
    pub(super) hash: Option<u64>,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("charge", &self.charge).finish_non_exhaustive()
    }
}

impl Guard {
    /// Learns when the connection is to be closed.
    pub fn closer(&self) -> Closer {
        self.charge.as_ref().map_or_else(Closer::default, Charge::closer)
    }

    /// A connection to an endpoint that wasn't asked yet, in place of one that has ended before it was used. `None` where there is none.
    pub async fn elsewhere(&mut self) -> Option<Connection> {
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

impl Bare {
    /// Both sides talk now: a connection that was made [ahead](CallContext::ahead) of its use is counted from here on.
    ///
    /// # Errors
    /// `overflow-requests` where the upstream has no room for one more call.
    pub fn count(&mut self) -> Result<(), Error> {
        self.guard.again = None;
        let Some(charge) = &mut self.guard.charge else { return Ok(()) };
        charge.count().map_err(|reason| {
            metrics().overflow(&charge.shared().config.name, reason);
            Error::new(reason, SentPart::Nothing)
        })
    }
}

/// The connection that the answer to [`CallKind::Connection`] carries; `None` where it carries none, or it was taken before.
pub fn connected(response: &mut Response<Body>) -> Option<Bare> {
    response.head_mut().carried.take()?.downcast().ok().map(|bare| *bare)
}
