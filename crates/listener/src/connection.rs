//! One connection from its first byte to its protocol's server: PROXY protocol, detect, terminate TLS, serve.
//!
//! The order is that of the bytes on the wire; what they are is found out by [`Fresh`].

use std::{pin::pin, rc::Rc, task::Poll};

use attache_http::Client;
use attache_telemetry::Exchange;

use crate::{
    Carried, Opaque,
    exchange::Finish,
    fresh::{End, Found, Fresh},
    http1, http2,
    live::{Entry, Live, Order},
    request::{Place, Settings},
    respond::HttpService,
    stream::Stream,
    transport::Protocol,
};

/// What carries opaque connections.
pub(crate) trait TcpService:
    tower::Service<Opaque, Response: Into<Carried>, Error = std::convert::Infallible> + Clone + 'static
{
}

impl<S> TcpService for S where
    S: tower::Service<Opaque, Response: Into<Carried>, Error = std::convert::Infallible> + Clone + 'static
{
}

/// What a connection's server needs to know of it.
pub(crate) struct Reader {
    pub(crate) settings: Rc<Settings>,
    pub(crate) client: Rc<Client>,
    pub(crate) live: Rc<Live>,
    /// Why the client may not talk, in words that name it.
    pub(crate) denied: Option<Box<str>>,
}

impl Reader {
    /// A record of this connection, or of a request on it.
    pub(crate) fn exchange(&self, protocol: &'static str) -> Exchange {
        let exchange = Exchange::new(self.settings.listener.name.clone(), protocol, self.client.address);
        // A counter that stays on this worker.
        *exchange.identity.borrow_mut() = self.client.identity();
        exchange
    }
}

/// Serves one connection to its end.
pub(crate) async fn run<H, T>(
    stream: Stream,
    client: Client,
    settings: Rc<Settings>,
    entry: Entry,
    place: Place,
    http: H,
    tcp: T,
) where
    H: HttpService,
    T: TcpService,
{
    let mut fresh = Fresh { settings, client, entry, stream, denied: None, bytes: Vec::new() };
    // Boxed: it is large and short, the connection's task is small and long.
    let mut found = Box::pin(fresh.protocol()).await;
    if matches!(&found, Ok(found) if found.silent) {
        let Some(stream) = first_to_speak(&mut fresh, tcp.clone()).await else { return };
        fresh.stream = stream;
        let spoken = async {
            let deadline = fresh.wait().await?;
            fresh.spoken(deadline).await
        };
        found = Box::pin(spoken).await;
    }
    match found {
        Ok(found) => fresh.serve(found, place, http, tcp).await,
        Err(End::Gone) => {}
        Err(End::Failed(protocol, reason, detail)) => {
            let listener = &fresh.settings.listener.name;
            tracing::debug!(%listener, %reason, detail, "a connection was closed");
            fresh.report(protocol, reason, detail);
        }
    }
}

/// Connects a client that says nothing to the server that may speak first. Gives the client back where it is the first after all, or
/// where nobody speaks.
async fn first_to_speak<T: TcpService>(fresh: &mut Fresh, tcp: T) -> Option<Stream> {
    let stream = std::mem::replace(&mut fresh.stream, Stream::gone());
    let reader = Reader {
        settings: fresh.settings.clone(),
        client: Rc::new(fresh.client.clone()),
        live: fresh.entry.live.clone(),
        denied: None,
    };
    // Boxed, as all that few connections need.
    match Box::pin(opaque(stream, reader, Found { silent: true, ..Protocol::Tcp.into() }, tcp)).await {
        Carried::Ended => None,
        Carried::Silent(stream) => Some(*stream),
    }
}

impl Fresh {
    async fn serve<H, T>(mut self, found: Found, place: Place, http: H, tcp: T)
    where
        H: HttpService,
        T: TcpService,
    {
        self.stream.unread(std::mem::take(&mut self.bytes).into());
        if let Some(hello) = &found.hello {
            self.client.sni.clone_from(&hello.sni);
        }
        let Self { settings, client, entry, stream, denied, .. } = self;
        let reader = Reader { settings, client: Rc::new(client), live: entry.live.clone(), denied };
        match found.protocol {
            // Boxed, once per connection: else one that has not spoken yet would be as large as the largest of these.
            Protocol::Http1 => Box::pin(http1::serve(stream, reader, http, found.deny, Some(place))).await,
            Protocol::Http2 => {
                Box::pin(http2::serve(stream, reader, http, found.deny)).await;
                drop(place);
            }
            Protocol::Tcp | Protocol::Tls => {
                Box::pin(opaque(stream, reader, found, tcp)).await;
                drop(place);
            }
        }
        drop(entry);
    }
}

async fn opaque<T: TcpService>(io: Stream, reader: Reader, found: Found, mut tcp: T) -> Carried {
    let Found { protocol, hello, silent, .. } = found;
    let exchange = reader.exchange(protocol.as_str());
    let Reader { settings, client, live, .. } = reader;
    // Its own timeout ends it, whoever carries it.
    live.sweepable.set(false);
    if let Some(sni) = &client.sni {
        sni.as_ref().clone_into(&mut exchange.host.borrow_mut());
    }
    let exchange = Rc::new(exchange);
    let mut finish = Finish::new(exchange.clone(), settings, live.clone());
    let opaque = Opaque { io, client, exchange: exchange.clone(), protocol, hello, silent };
    let mut carried = pin!(tcp.call(opaque));
    let ended = std::future::poll_fn(|cx| {
        live.register(cx);
        if live.order() == Order::Cut {
            return Poll::Ready(None);
        }
        carried.as_mut().poll(cx).map(Some)
    });
    let Some(Ok(carried)) = ended.await else { return Carried::Ended };
    let carried = carried.into();
    if matches!(carried, Carried::Silent(_)) {
        // Not an exchange yet: what the client says next begins one.
        exchange.handed_over.set(true);
        return carried;
    }
    finish.complete();
    if let Some(reason) = exchange.reason.get() {
        live.ends_by(reason);
    }
    carried
}
