//! One connection from its first byte to its protocol's server: PROXY protocol, detect, terminate TLS, serve.
//!
//! The order is that of the bytes on the wire. A connection that waits for its first byte holds no buffer; what detection reads is
//! put back in front, so that a first request that came whole costs one read.

use std::{io, pin::pin, rc::Rc, task::Poll, time::Duration};

use attache_config::model::{ListenProtocol, ProxyProtocolIn, TlsMode};
use attache_http::Client;
use attache_telemetry::{Admitted, Exchange, Reason, Side, metrics};
use http::HeaderValue;
use tokio::{
    io::AsyncReadExt,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    Opaque,
    detect::{self, Verdict},
    exchange::Finish,
    http1, http2,
    live::{Entry, Live, Order},
    proxy_protocol,
    request::{Place, Refusal, Settings},
    respond::HttpService,
    stream::Stream,
    transport::{ClientHello, Protocol},
};

/// The PROXY protocol asks for at least 3 s (section 2.2).
const PROXY_TIMEOUT: Duration = Duration::from_secs(5);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Room for a first request or a ClientHello in one read.
const FIRST_READ: usize = 4096;
/// Bytes that detection looks at before it takes a connection for opaque.
const MAX_DETECT: usize = 32 << 10;
const PLAINTEXT: Refusal =
    Refusal { reason: Reason::PlaintextDenied, rule: "This listener speaks only TLS; connect with https." };
const IDENTITY: Refusal = Refusal {
    reason: Reason::DeniedIdentity,
    rule: "The identity in your certificate may not talk to this listener.",
};

/// What carries opaque connections.
pub(crate) trait TcpService:
    tower::Service<Opaque, Response = (), Error = std::convert::Infallible> + Clone + 'static
{
}

impl<S> TcpService for S where
    S: tower::Service<Opaque, Response = (), Error = std::convert::Infallible> + Clone + 'static
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

/// Why a connection ended before it had a protocol.
enum End {
    /// The client left, or was told to.
    Gone,
    /// For this reason.
    Failed(&'static str, Reason, String),
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

/// A connection that is still being looked at.
struct Fresh {
    settings: Rc<Settings>,
    client: Client,
    entry: Entry,
    stream: Stream,
    /// Why the client may not talk.
    denied: Option<Box<str>>,
    /// Read from the stream, and not put back yet.
    bytes: Vec<u8>,
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
    let listener = fresh.settings.listener.clone();
    // Boxed: it is large and short, the connection's task is small and long.
    let found = Box::pin(fresh.protocol()).await;
    match found {
        Ok((protocol, hello, deny)) => fresh.serve(protocol, hello, deny, place, http, tcp).await,
        Err(End::Gone) => {}
        Err(End::Failed(protocol, reason, detail)) => {
            tracing::debug!(listener = %listener.name, %reason, detail, "a connection was closed");
            fresh.report(protocol, reason, detail);
        }
    }
}

impl Fresh {
    fn report(&self, protocol: &'static str, reason: Reason, detail: String) {
        let exchange = Exchange::new(self.settings.listener.name.clone(), protocol, self.client.address);
        if let Some(sni) = &self.client.sni {
            sni.as_ref().clone_into(&mut exchange.host.borrow_mut());
        }
        *exchange.identity.borrow_mut() = self.client.identity();
        exchange.fail(reason, detail);
        self.entry.live.ends_by(reason);
        (self.settings.on_finish)(&exchange);
    }

    /// Looks at the first bytes, and terminates TLS.
    async fn protocol(&mut self) -> Result<(Protocol, Option<ClientHello>, Option<Refusal>), End> {
        let listener = self.settings.listener.clone();
        if listener.proxy_protocol != ProxyProtocolIn::Off {
            self.proxy_header(listener.proxy_protocol == ProxyProtocolIn::Require).await?;
        }
        // `detect_timeout` counts from here for everything that may turn out to be opaque.
        let deadline = match listener.protocol {
            ListenProtocol::Auto => Some(Instant::now() + listener.detect_timeout),
            _ => None,
        };
        let Some(tls) = self.settings.tls.clone() else {
            if self.is_server_first() {
                return Ok((Protocol::Tcp, None, None));
            }
            let (protocol, hello) = self.detect(deadline).await?;
            return Ok((protocol, hello, None));
        };
        let strict = listener.tls.as_ref().is_none_or(|tls| tls.mode == TlsMode::Strict);
        if !strict && self.is_server_first() {
            return Ok((Protocol::Tcp, None, None));
        }
        let Some(first) = self.first(if strict { None } else { deadline }).await? else {
            return Ok((Protocol::Tcp, None, None));
        };
        if first != 0x16 {
            if !strict {
                let (protocol, hello) = self.detect(deadline).await?;
                return Ok((protocol, hello, None));
            }
            let deadline = Instant::now() + listener.detect_timeout;
            let is_http = self.verdict(Some(deadline), |b| detect::auto(b, usize::MAX)).await?;
            return match is_http {
                (Protocol::Http1, _) => Ok((Protocol::Http1, None, Some(PLAINTEXT))),
                (protocol, _) => Err(End::Failed(
                    protocol.as_str(),
                    Reason::PlaintextDenied,
                    "the first byte is not that of TLS".into(),
                )),
            };
        }
        let (alpn, denied) = self.handshake(&tls).await?;
        let protocol = match alpn.as_deref() {
            Some(b"h2") => Protocol::Http2,
            Some(b"http/1.1" | b"http/1.0") => Protocol::Http1,
            _ => {
                let deadline = deadline.map(|_| Instant::now() + listener.detect_timeout);
                self.detect(deadline).await?.0
            }
        };
        match (denied, protocol) {
            (None, _) => Ok((protocol, None, None)),
            // Told why with a 403; nothing of what it sends is looked at.
            (Some(error), Protocol::Http1 | Protocol::Http2) => {
                self.denied = Some(format!("{} ({})", IDENTITY.rule, why(&error)).into());
                Ok((protocol, None, Some(IDENTITY)))
            }
            (Some(error), _) => Err(End::Failed("tls", error.reason, why(&error))),
        }
    }

    /// Nothing of the client is waited for.
    fn is_server_first(&self) -> bool {
        let listener = &self.settings.listener;
        let port = self.client.original_destination.map(|original| original.port());
        listener.protocol == ListenProtocol::Tcp
            || (listener.protocol == ListenProtocol::Auto
                && port.is_some_and(|port| listener.server_first_ports.contains(&port)))
    }

    async fn detect(&mut self, deadline: Option<Instant>) -> Result<(Protocol, Option<ClientHello>), End> {
        let listener = self.settings.listener.clone();
        let known = |protocol| Ok((protocol, None));
        match listener.protocol {
            ListenProtocol::Tcp => known(Protocol::Tcp),
            // Their servers refuse whatever else comes.
            ListenProtocol::Http1 => self.first(None).await.and(known(Protocol::Http1)),
            ListenProtocol::Http2 => self.first(None).await.and(known(Protocol::Http2)),
            ListenProtocol::Http => {
                let deadline = self.first(None).await?.map(|_| Instant::now() + listener.http.header_timeout);
                match self.verdict(deadline, detect::http).await? {
                    // A preface that does not go on: HTTP/1 has the answer for it.
                    (Protocol::Tcp | Protocol::Tls, _) => known(Protocol::Http1),
                    found => Ok(found),
                }
            }
            ListenProtocol::Tls => {
                let deadline = self.first(None).await?.map(|_| Instant::now() + HANDSHAKE_TIMEOUT);
                match self.verdict(deadline, detect::tls).await? {
                    (Protocol::Tls, hello) => Ok((Protocol::Tls, hello)),
                    (protocol, _) => Err(End::Failed(
                        protocol.as_str(),
                        Reason::PlaintextDenied,
                        "the connection does not begin with a TLS ClientHello".into(),
                    )),
                }
            }
            ListenProtocol::Auto => {
                let max_line = listener.http.limits.request_line;
                match self.verdict(deadline, |bytes| detect::auto(bytes, max_line)).await? {
                    // TLS inside of the TLS that was terminated here is the application's.
                    (Protocol::Tls, _) if self.client.tls => known(Protocol::Tcp),
                    found => Ok(found),
                }
            }
        }
    }

    /// Reads until `look` knows; what is still open at the deadline or the client's end is opaque.
    async fn verdict(
        &mut self,
        deadline: Option<Instant>,
        look: impl Fn(&[u8]) -> Verdict,
    ) -> Result<(Protocol, Option<ClientHello>), End> {
        loop {
            match look(&self.bytes) {
                Verdict::Is(protocol, hello) => return Ok((protocol, hello)),
                Verdict::More if self.bytes.len() >= MAX_DETECT => return Ok((Protocol::Tcp, None)),
                Verdict::More => {}
            }
            let more = self.more();
            let read = match deadline {
                Some(deadline) => match timeout_at(deadline, more).await {
                    Ok(read) => read?,
                    Err(_) => 0,
                },
                None => more.await?,
            };
            if read == 0 {
                return Ok((Protocol::Tcp, None));
            }
        }
    }

    /// The first byte; `None` when the deadline came before it.
    async fn first(&mut self, deadline: Option<Instant>) -> Result<Option<u8>, End> {
        if self.bytes.is_empty() {
            let read = match deadline {
                Some(deadline) => match timeout_at(deadline, self.more()).await {
                    Ok(read) => read?,
                    Err(_) => return Ok(None),
                },
                None => self.more().await?,
            };
            if read == 0 {
                return Err(End::Gone);
            }
        }
        Ok(self.bytes.first().copied())
    }

    /// Reads once; 0 at the client's end. Nothing is lost when it is given up half-way.
    async fn more(&mut self) -> Result<usize, End> {
        let live = self.entry.live.clone();
        let Self { stream, bytes, .. } = self;
        // While nothing has come, a drain or the idle sweep ends the wait; after that only the cut.
        let ends_at = if bytes.is_empty() { Order::Finish } else { Order::Cut };
        let read = async {
            stream.readable().await?;
            bytes.reserve(FIRST_READ);
            stream.read_buf(bytes).await
        };
        let mut read = pin!(read);
        let read = std::future::poll_fn(|cx| {
            live.register(cx);
            match read.as_mut().poll(cx) {
                Poll::Pending if live.order() >= ends_at => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
                Poll::Ready(read) => Poll::Ready(Some(read)),
            }
        });
        match read.await {
            Some(Ok(0)) if ends_at == Order::Finish => Err(End::Gone),
            Some(read) => Ok(read?),
            None => Err(End::Gone),
        }
    }

    async fn proxy_header(&mut self, required: bool) -> Result<(), End> {
        let failed =
            |detail: &str| Err(End::Failed("tcp", Reason::BadRequest, format!("PROXY protocol: {detail}")));
        let deadline = Instant::now() + PROXY_TIMEOUT;
        loop {
            match proxy_protocol::read(&self.bytes) {
                proxy_protocol::Read::Header(header) => {
                    self.bytes.drain(..header.len);
                    if let Some((source, destination)) = header.addresses {
                        self.client.address = Some(source);
                        self.client.local = Some(destination);
                    }
                    return Ok(());
                }
                proxy_protocol::Read::None if required => {
                    return failed("the connection does not begin with a header");
                }
                proxy_protocol::Read::None => return Ok(()),
                proxy_protocol::Read::Bad(what) => return failed(what),
                proxy_protocol::Read::More => {}
            }
            match timeout_at(deadline, self.more()).await {
                Ok(Ok(1..)) => {}
                Ok(Ok(0)) | Err(_) if !required => return Ok(()),
                Ok(Ok(0)) => return failed("the client left before the header's end"),
                Ok(Err(end)) => return Err(end),
                Err(_) => return failed("no header came within 5 s"),
            }
        }
    }

    /// What ALPN gave, and why the client may not talk, if it may not.
    async fn handshake(
        &mut self,
        tls: &attache_tls::Acceptor,
    ) -> Result<(Option<Vec<u8>>, Option<attache_tls::Error>), End> {
        let mut stream = std::mem::replace(&mut self.stream, Stream::gone());
        stream.unread(std::mem::take(&mut self.bytes).into());
        let live = self.entry.live.clone();
        // Boxed: a handshake is large and short, the connection's task is small and long.
        let mut accept = Box::pin(timeout(HANDSHAKE_TIMEOUT, tls.admit(stream)));
        let accepted = std::future::poll_fn(|cx| {
            live.register(cx);
            if live.order() == Order::Cut {
                return Poll::Ready(None);
            }
            accept.as_mut().poll(cx).map(Some)
        });
        let failed = |reason, detail| Err(End::Failed("tls", reason, detail));
        let accepted = match accepted.await {
            None => return Err(End::Gone),
            Some(Err(_)) => return failed(Reason::TlsTimeout, "the handshake took longer than 10 s".into()),
            Some(Ok(Err(error))) => return failed(error.reason, why(&error)),
            Some(Ok(Ok(admission))) => admission,
        };
        let (accepted, denied) = match accepted {
            attache_tls::Admission::Admitted(accepted) => (accepted, None),
            attache_tls::Admission::Denied { connection, error } => (connection, Some(error)),
        };
        let listener = self.settings.listener.clone();
        let attache_tls::Handshake { version, resumed, key_exchange } = accepted.handshake;
        metrics().tls_handshake(Side::Listener, &listener.name, version, resumed, key_exchange);
        let outcome = match (&denied, &accepted.client) {
            (Some(_), _) => Admitted::Denied,
            (None, Some(_)) => Admitted::Allowed,
            (None, None) => Admitted::Anonymous,
        };
        metrics().tls_client(&listener.name, outcome);
        self.client.tls = true;
        self.client.sni = accepted.sni;
        self.client.identities = accepted.identities;
        if let Some(client) = &accepted.client {
            self.client.uris = client.uris.len();
            self.client.subject = client.subject.as_str().into();
        }
        let details = &listener.http.client_cert_details;
        let element = accepted
            .client
            .map(|client| attache_tls::xfcc::element(&client, accepted.own_uri.as_deref(), details));
        self.client.certificate = element.and_then(|element| HeaderValue::try_from(element).ok());
        self.stream = accepted.stream.into();
        Ok((accepted.alpn, denied))
    }

    async fn serve<H, T>(
        mut self,
        protocol: Protocol,
        hello: Option<ClientHello>,
        deny: Option<Refusal>,
        place: Place,
        http: H,
        tcp: T,
    ) where
        H: HttpService,
        T: TcpService,
    {
        self.stream.unread(std::mem::take(&mut self.bytes).into());
        if let Some(hello) = &hello {
            self.client.sni.clone_from(&hello.sni);
        }
        let Self { settings, client, entry, stream, denied, .. } = self;
        let reader = Reader { settings, client: Rc::new(client), live: entry.live.clone(), denied };
        match protocol {
            // Boxed, once per connection: else one that has not spoken yet would be as large as the largest of these.
            Protocol::Http1 => Box::pin(http1::serve(stream, reader, http, deny, Some(place))).await,
            Protocol::Http2 => {
                Box::pin(http2::serve(stream, reader, http, deny)).await;
                drop(place);
            }
            Protocol::Tcp | Protocol::Tls => {
                Box::pin(opaque(stream, reader, protocol, hello, tcp)).await;
                drop(place);
            }
        }
        drop(entry);
    }
}

/// The failure without its reason, which stands beside it: the library's words, and ours behind them.
fn why(error: &attache_tls::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

async fn opaque<T: TcpService>(
    io: Stream,
    reader: Reader,
    protocol: Protocol,
    hello: Option<ClientHello>,
    mut tcp: T,
) {
    let exchange = reader.exchange(protocol.as_str());
    let Reader { settings, client, live, .. } = reader;
    // Its own timeout ends it, whoever carries it.
    live.sweepable.set(false);
    if let Some(sni) = &client.sni {
        sni.as_ref().clone_into(&mut exchange.host.borrow_mut());
    }
    let exchange = Rc::new(exchange);
    let mut finish = Finish::new(exchange.clone(), settings, live.clone());
    let mut carried = pin!(tcp.call(Opaque { io, client, exchange: exchange.clone(), protocol, hello }));
    let ended = std::future::poll_fn(|cx| {
        live.register(cx);
        if live.order() == Order::Cut {
            return Poll::Ready(false);
        }
        carried.as_mut().poll(cx).map(|_| true)
    });
    if ended.await {
        finish.complete();
        if let Some(reason) = exchange.reason.get() {
            live.ends_by(reason);
        }
    }
}
