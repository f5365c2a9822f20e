//! One request on one connection of any protocol.

use std::{rc::Rc, sync::Arc, time::Duration};

use attache_config::model::Name;
use attache_http::{Body, OnInformational};
use attache_wire::{Request, Response};
use http::{Method, StatusCode};

use super::{
    EndpointPool, form,
    h1::H1Connection,
    h1_body,
    h2::{self, H2Connection},
    h2_call, upgraded,
};
use crate::{Endpoint, Error, attempt::Attempt};

/// A connection that is ready for one request.
pub(crate) struct ReadyConnection {
    pub(super) home: Rc<EndpointPool>,
    pub(super) kind: PooledConnection,
    /// It was open before this call asked for it.
    pub(crate) reused: bool,
}

pub(super) enum PooledConnection {
    H1(Box<H1Connection>),
    H2(Rc<H2Connection>, h2::StreamPermit),
}

impl ReadyConnection {
    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.home.endpoint
    }

    /// The peer's identity, from its certificate.
    pub(crate) fn peer(&self) -> Option<&Name> {
        match &self.kind {
            PooledConnection::H1(connection) => connection.peer.as_ref(),
            PooledConnection::H2(connection, _) => connection.peer.as_ref(),
        }
    }

    /// It has carried no request yet, so the peer can't have closed it as idle.
    pub(crate) fn is_fresh(&self) -> bool {
        match &self.kind {
            PooledConnection::H1(connection) => connection.is_fresh(),
            PooledConnection::H2(..) => true,
        }
    }

    /// Whether the peer accepts extended CONNECT (RFC 8441).
    pub(crate) async fn takes_extended_connect(&self, limit: Duration) -> bool {
        match &self.kind {
            PooledConnection::H1(_) => false,
            PooledConnection::H2(connection, _) => connection.takes_extended_connect(limit).await,
        }
    }

    /// Sends the request and waits for the response's head. The call's part of the counts moves into the response.
    ///
    /// # Errors There is no response. If the connection was dead before anything was written to it, the request is
    /// still in `request`, unchanged; otherwise it was taken.
    pub(crate) async fn call(
        self,
        request: &mut Option<Request<Body>>,
        in_flight: &mut Option<Attempt>,
        on_informational: Option<&OnInformational>,
    ) -> Result<Response<Body>, Error> {
        let mut connection = match self.kind {
            PooledConnection::H1(connection) => connection,
            PooledConnection::H2(connection, lease) => {
                return h2_call::send(&connection, lease, request, in_flight, on_informational).await;
            }
        };
        let connect;
        {
            // Taken before the first wait, so that the future stays small.
            let mut taken = request.take().unwrap_or_default();
            connect = taken.method() == Method::CONNECT;
            form::http1(&mut taken);
            connection.begin(taken);
        }
        let parts = match connection.answer(on_informational).await {
            Ok(parts) => parts,
            Err(failed) => {
                *request = failed.request;
                return Err(failed.error);
            }
        };
        if let Some(in_flight) = in_flight {
            in_flight.spoken("1.1");
            in_flight.answered(parts.status, &parts.headers);
        }
        let status = parts.status;
        if status == StatusCode::SWITCHING_PROTOCOLS || (connect && status.is_success()) {
            let mut response = Response::from_parts(parts, Body::empty());
            upgraded::offer_h1(&mut response, connection.into_tunnel(), in_flight.take());
            return Ok(response);
        }
        Ok(h1_body::attach(parts, connection, self.home, in_flight.take()))
    }
}
