//! One connection, from its first byte to the server of its protocol: PROXY protocol, detect, terminate TLS, serve.
//!
//! The order is that of the bytes on the wire. [`NewConnection`] finds out what they are.

use std::{
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
};

use attache_http::Client;

use crate::{
    OpaqueConnection, OpaqueOutcome,
    exchange::ExchangeReporter,
    http1, http2,
    new_connection::{Detected, EarlyEnd, NewConnection},
    reader::ServingContext,
    registry::{ConnectionOrder, RegistryEntry},
    request::{ListenerPermit, ListenerSettings},
    respond::HttpService,
    stream::ClientStream,
    transport::Protocol,
};

/// The service that carries opaque connections.
pub(crate) trait TcpService:
    tower::Service<OpaqueConnection, Response: Into<OpaqueOutcome>, Error = std::convert::Infallible>
    + Clone
    + 'static
{
}

impl<S> TcpService for S where
    S: tower::Service<OpaqueConnection, Response: Into<OpaqueOutcome>, Error = std::convert::Infallible>
        + Clone
        + 'static
{
}

/// One connection, served to its end by polling it.
///
/// It is only as large as its present state. A client that has sent nothing costs no future at all, and the future that detects the
/// protocol is dropped before the protocol's server starts.
pub(crate) struct ServedConnection<H, T> {
    state: ServedConnectionState<H, T>,
    // This is dropped after the state: a connection has ended when none of its tasks runs any more.
    _entry: RegistryEntry,
}

enum ServedConnectionState<H, T> {
    /// Waits for the client's first byte, without a time limit.
    Silent(Box<ConnectionStart<H, T>>),
    /// Detects what the client speaks.
    Looking(ServingFuture<Option<DetectionOutcome<H, T>>>),
    /// The protocol's server has the connection.
    Serving(ServingFuture<()>),
    Ended,
}

type ServingFuture<T> = Pin<Box<dyn Future<Output = T>>>;
type DetectionOutcome<H, T> = (Box<ConnectionStart<H, T>>, Detected);

/// What a connection starts with.
struct ConnectionStart<H, T> {
    fresh: NewConnection,
    place: ListenerPermit,
    http: H,
    tcp: T,
}

impl<H: HttpService, T: TcpService> ServedConnection<H, T> {
    pub(crate) fn new(
        stream: ClientStream,
        client: Client,
        settings: Rc<ListenerSettings>,
        entry: RegistryEntry,
        place: ListenerPermit,
        http: H,
        tcp: T,
    ) -> Self {
        let live = entry.live.clone();
        let fresh = NewConnection { settings, client, live, stream, denied: None, bytes: Vec::new() };
        let waits = fresh.may_wait();
        let begin = Box::new(ConnectionStart { fresh, place, http, tcp });
        let state = if waits {
            ServedConnectionState::Silent(begin)
        } else {
            ServedConnectionState::Looking(Box::pin(begin.look()))
        };
        Self { state, _entry: entry }
    }
}

// Nothing needs to stay in place: each future is boxed.
impl<H, T> Unpin for ServedConnection<H, T> {}

impl<H: HttpService, T: TcpService> Future for ServedConnection<H, T> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        loop {
            this.state = match &mut this.state {
                ServedConnectionState::Silent(begin) => {
                    let spoke = ready!(begin.fresh.poll_first(cx));
                    match std::mem::replace(&mut this.state, ServedConnectionState::Ended) {
                        ServedConnectionState::Silent(begin) if spoke => {
                            ServedConnectionState::Looking(Box::pin(begin.look()))
                        }
                        _ => ServedConnectionState::Ended,
                    }
                }
                ServedConnectionState::Looking(look) => match ready!(look.as_mut().poll(cx)) {
                    Some((begin, found)) => ServedConnectionState::Serving(begin.serve(found)),
                    None => ServedConnectionState::Ended,
                },
                ServedConnectionState::Serving(server) => {
                    ready!(server.as_mut().poll(cx));
                    ServedConnectionState::Ended
                }
                ServedConnectionState::Ended => return Poll::Ready(()),
            };
        }
    }
}

impl<H: HttpService, T: TcpService> ConnectionStart<H, T> {
    /// Detects what is spoken. `None` if the connection ended before that.
    async fn look(mut self: Box<Self>) -> Option<DetectionOutcome<H, T>> {
        let fresh = &mut self.fresh;
        let mut found = fresh.protocol().await;
        if matches!(&found, Ok(found) if found.silent) {
            fresh.stream = first_to_speak(fresh, self.tcp.clone()).await?;
            found = match fresh.wait().await {
                Ok(deadline) => fresh.spoken(deadline).await,
                Err(end) => Err(end),
            };
        }
        match found {
            Ok(found) => Some((self, found)),
            Err(EarlyEnd::Gone) => None,
            Err(EarlyEnd::Failed(protocol, reason, detail)) => {
                let listener = &fresh.settings.listener.name;
                tracing::debug!(%listener, %reason, detail, "a connection was closed");
                fresh.report(protocol, reason, detail);
                None
            }
        }
    }

    fn serve(self, found: Detected) -> ServingFuture<()> {
        let Self { fresh, place, http, tcp } = self;
        let NewConnection { settings, mut client, live, mut stream, denied, bytes } = fresh;
        stream.unread(bytes.into());
        if let Some(hello) = &found.hello {
            client.sni.clone_from(&hello.sni);
        }
        let reader = ServingContext { settings, client: Rc::new(client), live, denied };
        match found.protocol {
            Protocol::Http1 => Box::pin(http1::serve(stream, reader, http, found.deny, place)),
            Protocol::Http2 => Box::pin(async move {
                http2::serve(stream, reader, http, found.deny).await;
                drop(place);
            }),
            Protocol::Tcp | Protocol::Tls => Box::pin(async move {
                opaque(stream, reader, found, tcp).await;
                drop(place);
            }),
        }
    }
}

/// Connects a client that sends nothing to the server, which may send first. Returns the client if it does send first, or if neither side
/// sends.
async fn first_to_speak<T: TcpService>(fresh: &mut NewConnection, tcp: T) -> Option<ClientStream> {
    let stream = std::mem::replace(&mut fresh.stream, ClientStream::gone());
    let reader = ServingContext {
        settings: fresh.settings.clone(),
        client: Rc::new(fresh.client.clone()),
        live: fresh.live.clone(),
        denied: None,
    };
    // Boxed, because few connections need it.
    match Box::pin(opaque(stream, reader, Detected { silent: true, ..Protocol::Tcp.into() }, tcp)).await {
        OpaqueOutcome::Ended => None,
        OpaqueOutcome::Silent(stream) => Some(*stream),
    }
}

async fn opaque<T: TcpService>(
    io: ClientStream,
    reader: ServingContext,
    found: Detected,
    mut tcp: T,
) -> OpaqueOutcome {
    let Detected { protocol, hello, silent, .. } = found;
    let exchange = reader.exchange(protocol.as_str());
    let ServingContext { settings, client, live, .. } = reader;
    // From here on the carrier's own timeout ends it, whichever carrier it is.
    live.sweepable.set(false);
    if let Some(sni) = &client.sni {
        exchange.host.replace(sni.as_ref().into());
    }
    let mut finish = ExchangeReporter::new(exchange.clone(), settings, live.clone());
    let opaque = OpaqueConnection { io, client, exchange: exchange.clone(), protocol, hello, silent };
    let mut carried = pin!(tcp.call(opaque));
    let ended = std::future::poll_fn(|cx| {
        live.register(cx);
        if live.order() == ConnectionOrder::Cut {
            return Poll::Ready(None);
        }
        carried.as_mut().poll(cx).map(Some)
    });
    let Some(Ok(carried)) = ended.await else { return OpaqueOutcome::Ended };
    let carried = carried.into();
    if matches!(carried, OpaqueOutcome::Silent(_)) {
        // This is not an exchange yet: the client's next bytes start one.
        exchange.handed_over.set(true);
        return carried;
    }
    finish.complete();
    if let Some(reason) = exchange.reason.get() {
        live.ends_by(reason);
    }
    carried
}
