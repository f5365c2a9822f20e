//! How a call gets a connection when none is free.
//!
//! Rules:
//! - If a new connection may be HTTP/2, one connection is made at a time, and all calls wait for it and for the peer's
//!   stream limit: many calls at once must not cause many connections, or many refused streams. If it fails, it fails
//!   for all waiting calls; each has its own retry. To a peer that allows fewer than [`SHARED_FROM`] streams, each call
//!   makes its own connection at once.
//! - If a peer allows no stream at all at the moment, calls wait for it.
//! - At `max_connections` an idle connection of any worker is closed to make room: see [`super::connection_limit`].
//! - An attempt that must not use the pool ([`fresh`](crate::Call::fresh)) gets a connection that was made after it
//!   began. Such attempts over HTTP/2 share that connection: a hundred streams of a lost connection must not become a
//!   hundred connections.
//!
//! `service::race` decides to which endpoint, and to which others in parallel, attache connects.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use attache_config::model::ProxyProtocolOut;
use attache_http::Client;
use attache_telemetry::{AttemptTrace, Reason};
use tokio::{
    sync::Notify,
    task::spawn_local,
    time::{Instant, timeout},
};

use super::{
    AlpnResult, ConnectionPool, EndpointPool,
    call::{PooledConnection, ReadyConnection},
    connection_limit::WaitingCall,
    h1::H1Connection,
    h2::H2Connection,
    owner::Owner,
};
use crate::{
    Endpoint, EndpointAddress, Error, SentPart,
    connect::{AlpnOffer, ConnectTimes, EndpointConnection, Tls, connect},
    limit::{ConnectionPermit, PendingPermit},
};

/// A peer must allow at least this many streams on one connection; otherwise calls don't wait for a shared connection,
/// but make one each.
const SHARED_FROM: usize = 4;

/// How often a call checks again while the peer allows no stream, in case of a missed notification.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// The protocol of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DialProtocol {
    Http1,
    Http2,
    /// The protocol that ALPN chooses.
    Alpn,
}

/// What a call requires of a connection.
pub(crate) struct ConnectionSpec<'a> {
    pub(crate) protocol: DialProtocol,
    pub(crate) tls: Option<&'a Tls>,
    /// The name to verify in the certificate, if neither the settings nor the endpoint have one.
    pub(crate) host: Option<&'a str>,
    pub(crate) client: &'a Client,
    pub(crate) deadline: Option<Instant>,
    /// Only a connection that was made after this instant may be used.
    pub(crate) fresh: Option<Instant>,
    /// The span of the attempt, where it is traced.
    pub(crate) traced: Option<&'a AttemptTrace>,
}

/// How a new connection is made.
pub(crate) struct DialOptions<'a> {
    pub(crate) tls: Option<&'a Tls>,
    pub(crate) offer: AlpnOffer,
    /// The name to verify in the certificate, if neither the settings nor the endpoint have one.
    pub(crate) host: Option<&'a str>,
    pub(crate) client: &'a Client,
    /// The span of the attempt, where it is traced.
    pub(crate) traced: Option<&'a AttemptTrace>,
}

/// A connection that is being made for all waiting calls.
#[derive(Default)]
pub(crate) struct SharedDial {
    failed: RefCell<Option<(Reason, String)>>,
    over: Notify,
}

/// Ends the dialing, also if the call that made it was cancelled: then one of the waiting calls dials.
struct DialingGuard(Rc<EndpointPool>, Rc<SharedDial>);

impl Drop for DialingGuard {
    fn drop(&mut self) {
        *self.0.dialing.borrow_mut() = None;
        self.1.over.notify_waiters();
    }
}

impl ConnectionSpec<'_> {
    fn owner(&self, pool: &ConnectionPool) -> Owner {
        let told = pool.shared.config.proxy_protocol != ProxyProtocolOut::Off;
        told.then_some((self.client.address, self.client.destination()))
    }

    fn offer(&self) -> AlpnOffer {
        if self.protocol == DialProtocol::Http1 { AlpnOffer::Http1 } else { AlpnOffer::Http }
    }

    /// Whether a new connection may be HTTP/2.
    fn may_share(&self, home: &EndpointPool) -> bool {
        if home.allowed.get().is_some_and(|allowed| allowed < SHARED_FROM) {
            return false;
        }
        match self.protocol {
            DialProtocol::Http1 => false,
            DialProtocol::Http2 => true,
            DialProtocol::Alpn => home.spoken.get() != Some(AlpnResult::Http1),
        }
    }
}

/// True if the endpoint is the address at which the call came in. An intercepted connection came in at the address that
/// the client had chosen.
fn leads_back(to: &EndpointAddress, client: &Client) -> bool {
    match (to, client.local) {
        (EndpointAddress::Tcp(to), Some(local)) if client.original_destination.is_none() => {
            to.port() == local.port() && to.ip().to_canonical() == local.ip().to_canonical()
        }
        _ => false,
    }
}

impl ConnectionPool {
    /// A connection that exists already.
    pub(crate) fn ready(
        &self,
        home: &Rc<EndpointPool>,
        want: &ConnectionSpec<'_>,
    ) -> Option<ReadyConnection> {
        let owner = want.owner(self);
        if want.protocol != DialProtocol::Http1
            && let Some((connection, lease)) = home.lease_h2(owner, want.fresh)
        {
            return Some(ReadyConnection {
                home: Rc::clone(home),
                kind: PooledConnection::H2(connection, lease),
                reused: true,
            });
        }
        // An idle HTTP/1 connection can't be used: it has another protocol, or is not new.
        if want.protocol == DialProtocol::Http2 || want.fresh.is_some() {
            return None;
        }
        let connection = home.take_h1(owner)?;
        Some(ReadyConnection { home: Rc::clone(home), kind: PooledConnection::H1(connection), reused: true })
    }

    /// A connection: a new one, or one that this call waits for.
    pub(crate) async fn acquire(
        &self,
        home: &Rc<EndpointPool>,
        want: &ConnectionSpec<'_>,
    ) -> Result<ReadyConnection, Error> {
        let _pending = PendingPermit::take(&self.shared).map_err(|reason| self.refused(reason))?;
        let mut waiting = None;
        loop {
            if let Some(wire) = self.ready(home, want) {
                return Ok(wire);
            }
            let running = home.dialing.borrow().clone();
            if let Some(dialing) = running.filter(|_| want.may_share(home)) {
                dialing.over.notified().await;
                if let Some((reason, detail)) = &*dialing.failed.borrow() {
                    return Err(Error::with_source(*reason, SentPart::Nothing, detail.as_str()));
                }
                continue;
            }
            if want.protocol != DialProtocol::Http1 && home.is_held_back(want.owner(self), want.fresh) {
                // The call's own deadline ends it.
                let _ = timeout(CHECK_INTERVAL, self.tick.freed.notified()).await;
                continue;
            }
            let permit = match &waiting {
                None => self.permit_at_once(),
                Some(waiting) => self.permit_for(waiting),
            };
            if let Some(permit) = permit {
                drop(waiting);
                return self.make(home, want, permit).await;
            }
            match &waiting {
                None => waiting = Some(WaitingCall::begin(self)),
                Some(waiting) => waiting.turn(want.deadline).await?,
            }
        }
    }

    async fn make(
        &self,
        home: &Rc<EndpointPool>,
        want: &ConnectionSpec<'_>,
        permit: ConnectionPermit,
    ) -> Result<ReadyConnection, Error> {
        let dialing = want.may_share(home).then(|| {
            let dialing = Rc::new(SharedDial::default());
            *home.dialing.borrow_mut() = Some(Rc::clone(&dialing));
            DialingGuard(Rc::clone(home), dialing)
        });
        let made = self.speak(home, want, permit).await;
        if let (Some(dialing), Err(error)) = (&dialing, &made) {
            *dialing.1.failed.borrow_mut() = Some((error.reason, error.detail()));
        }
        if let Ok(ReadyConnection { home, kind: PooledConnection::H2(connection, _), .. }) = &made
            && connection.known_limit().is_none()
        {
            // The call that made it may continue; the others wait for the peer's stream limit. A peer that sends no
            // SETTINGS has not accepted the connection (RFC 9113 section 3.4), even if its kernel has.
            let (connection, home, limit) =
                (Rc::clone(connection), Rc::clone(home), self.shared.config.connect_timeout);
            spawn_local(async move {
                if timeout(limit, connection.settled()).await.is_err() {
                    connection.never_settled();
                }
                home.allowed.set(connection.known_limit().or(home.allowed.get()));
                drop(dialing);
            });
        }
        made
    }

    async fn speak(
        &self,
        home: &Rc<EndpointPool>,
        want: &ConnectionSpec<'_>,
        permit: ConnectionPermit,
    ) -> Result<ReadyConnection, Error> {
        let settings = &self.shared.config.pool;
        let how = DialOptions {
            tls: want.tls,
            offer: want.offer(),
            host: want.host,
            client: want.client,
            traced: want.traced,
        };
        let (io, permit) = self.dial(&home.endpoint, permit, &how).await?;
        let http2 = match want.protocol {
            DialProtocol::Http1 => false,
            DialProtocol::Http2 => true,
            DialProtocol::Alpn => {
                let http2 = io.alpn() == Some(b"h2");
                home.spoken.set(Some(if http2 { AlpnResult::Http2 } else { AlpnResult::Http1 }));
                http2
            }
        };
        let owner = want.owner(self);
        let peer = want.tls.and_then(|tls| tls.peer(&io));
        let kind = if http2 {
            let freed = Arc::clone(&self.tick.freed);
            let connection =
                H2Connection::new(io, permit, settings, owner, peer, freed, home.allowed.get().unwrap_or(1));
            let lease = connection.first_lease();
            home.keep_h2(Rc::clone(&connection));
            PooledConnection::H2(connection, lease)
        } else {
            PooledConnection::H1(H1Connection::new(io, permit, settings, owner, peer))
        };
        Ok(ReadyConnection { home: Rc::clone(home), kind, reused: false })
    }

    /// Connects. The connection counts as open until its permit is dropped.
    pub(crate) async fn dial(
        &self,
        to: &Endpoint,
        mut permit: ConnectionPermit,
        how: &DialOptions<'_>,
    ) -> Result<(EndpointConnection, ConnectionPermit), Error> {
        let config = &*self.shared.config;
        if leads_back(&to.address, how.client) {
            let text =
                "the endpoint is the address on which attache received this call: attache would call itself";
            return Err(Error::with_source(Reason::Loop, SentPart::Nothing, text));
        }
        let (times, span) = (ConnectTimes::begin(), how.traced.map(|attempt| attempt.connecting(&to.label)));
        let made = connect(to, config, how.tls, how.offer, how.host, how.client, &times).await;
        let (connected, secured) = (times.connected.get(), times.secured.get());
        self.metrics.upstream_connect_times(&config.name, connected, secured);
        if let Some(span) = span {
            span.ended(connected, secured, made.as_ref().map(|_| ()).map_err(|error| error.reason));
        }
        let io =
            made.inspect_err(|error| self.metrics.upstream_connection(&config.name, Err(error.reason)))?;
        permit.opened(&self.metrics);
        Ok((io, permit))
    }

    /// A usable endpoint of the same name and the other address family.
    pub(crate) fn sibling(&self, of: &Endpoint) -> Option<Arc<Endpoint>> {
        let host = of.host.as_ref()?;
        let is_v4 = |endpoint: &Endpoint| match &endpoint.address {
            EndpointAddress::Tcp(address) => Some(address.is_ipv4()),
            EndpointAddress::Unix(_) => None,
        };
        let family = is_v4(of)?;
        let set = self.shared.endpoints.load();
        let sibling = set.endpoints.iter().find(|other| {
            other.host.as_ref() == Some(host) && is_v4(other) == Some(!family) && other.usable()
        });
        sibling.map(Arc::clone)
    }

    /// Makes a connection ahead of need and puts it into the pool.
    pub(crate) async fn preconnect(
        &self,
        home: &Rc<EndpointPool>,
        want: &ConnectionSpec<'_>,
    ) -> Result<(), Error> {
        let permit =
            ConnectionPermit::take(&self.shared).map_err(|reason| Error::new(reason, SentPart::Nothing))?;
        let wire = self.make(home, want, permit).await?;
        if let PooledConnection::H1(connection) = wire.kind {
            wire.home.park(connection);
        }
        Ok(())
    }

    /// Whether `preconnect` needs another connection to this endpoint.
    pub(crate) fn wants_more(&self, home: &EndpointPool) -> bool {
        home.h2.borrow().is_empty() && home.idle.borrow().len() < self.shared.config.pool.preconnect
    }
}
