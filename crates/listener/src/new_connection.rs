//! A connection whose protocol is unknown: it reads the PROXY protocol header, terminates TLS, and looks at the first bytes inside.
//!
//! A connection that waits for its first byte holds no buffer. Bytes that are read here are put back in front of the stream, so a first
//! request that arrives at once costs one read.

use std::{
    future::poll_fn,
    io,
    mem::MaybeUninit,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use attache_config::model::{ListenProtocol, ProxyProtocolIn, TlsMode};
use attache_http::{AcceptedTraffic, Client, VerifiedIdentity};
use attache_telemetry::{CertificateSide, Exchange, IdentityCheckResult, Reason, metrics};
use attache_tls::Alpn;
use attache_wire::proxy_protocol;
use http::HeaderValue;
use tokio::{
    io::{AsyncRead as _, ReadBuf},
    time::{Instant, timeout, timeout_at},
};

use crate::{
    detect::{self, DetectionResult},
    registry::{ConnectionOrder, OpenConnection},
    request::{EarlyRefusal, HEADER_TIMEOUT, ListenerSettings},
    stream::ClientStream,
    transport::{ClientHello, Protocol},
};

/// How long a client may take for its header. The PROXY protocol demands at least 3 s (section 2.2).
const PROXY_TIMEOUT: Duration = Duration::from_secs(5);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Room for a first request or a ClientHello in one read.
const FIRST_READ: usize = 4096;
/// The most bytes that detection reads. If the protocol is still unknown then, the HTTP parser refuses the bytes; if no route accepts HTTP,
/// they are opaque.
const MAX_DETECT: usize = 32 << 10;
const PLAINTEXT: EarlyRefusal =
    EarlyRefusal::new(Reason::PlaintextDenied, "This listener speaks only TLS; connect with https.");
const IDENTITY: EarlyRefusal = EarlyRefusal::new(
    Reason::DeniedIdentity,
    "The identity in your certificate is not allowed to use this listener.",
);

/// Why a connection ended before it had a protocol.
pub(crate) enum EarlyEnd {
    /// The client left, or was told to leave.
    Gone,
    /// It failed: the protocol, the reason, and the details.
    Failed(&'static str, Reason, String),
}

impl From<io::Error> for EarlyEnd {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

/// What detection found.
pub(crate) struct Detected {
    pub(crate) protocol: Protocol,
    /// The ClientHello of TLS that is passed through.
    pub(crate) hello: Option<ClientHello>,
    /// Every request is refused with this.
    pub(crate) deny: Option<EarlyRefusal>,
    /// Neither side has sent anything. The connection may be opaque with a server that sends first, or HTTP on a connection that was opened
    /// ahead of use.
    pub(crate) silent: bool,
}

impl From<Protocol> for Detected {
    fn from(protocol: Protocol) -> Self {
        Self { protocol, hello: None, deny: None, silent: false }
    }
}

impl From<(Protocol, Option<ClientHello>)> for Detected {
    fn from((protocol, hello): (Protocol, Option<ClientHello>)) -> Self {
        Self { hello, ..protocol.into() }
    }
}

/// A connection whose protocol is still being detected.
pub(crate) struct NewConnection {
    pub(crate) settings: Rc<ListenerSettings>,
    pub(crate) client: Client,
    pub(crate) live: Rc<OpenConnection>,
    pub(crate) stream: ClientStream,
    /// Why the client is not allowed.
    pub(crate) denied: Option<Box<str>>,
    /// Bytes that were read from the stream and not put back yet.
    pub(crate) bytes: Vec<u8>,
}

impl NewConnection {
    /// Reports a connection that ended before its protocol was known.
    pub(crate) fn report(&self, protocol: &'static str, reason: Reason, detail: String) {
        let exchange = Exchange::new(self.settings.listener.name.clone(), protocol, self.client.address);
        if let Some(sni) = &self.client.sni {
            exchange.host.replace(sni.as_ref().into());
        }
        *exchange.identity.borrow_mut() = self.client.identity();
        exchange.fail(reason, detail);
        self.live.ends_by(reason);
        (self.settings.on_finish)(&exchange);
    }

    /// Whether the client's first byte has no time limit, and the server doesn't send first.
    pub(crate) fn may_wait(&self) -> bool {
        let listener = &self.settings.listener;
        if listener.proxy_protocol != ProxyProtocolIn::Off || self.is_server_first() {
            return false;
        }
        let encrypted = self.settings.tls.is_some() && !self.is_permissive();
        encrypted || listener.protocol != ListenProtocol::Auto || !self.takes().opaque
    }

    /// Waits for the client's first bytes. Returns whether any came before the client left or an order ended the wait.
    pub(crate) fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        self.poll_more(cx).map(|read| matches!(read, Ok(1..)))
    }

    /// Reads once. Returns 0 at the end of the client's bytes, and an error if an order ends the wait.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, EarlyEnd>> {
        // The buffer is on the stack: an accepted socket counts as readable at first, and a connection that waits must not hold a buffer.
        let mut space = [MaybeUninit::uninit(); FIRST_READ];
        let mut buf = ReadBuf::uninit(&mut space);
        self.live.register(cx);
        // As long as nothing has arrived, a drain or the idle sweep ends the wait; after that only a cut does.
        let ends_at = if self.bytes.is_empty() { ConnectionOrder::Finish } else { ConnectionOrder::Cut };
        match Pin::new(&mut self.stream).poll_read(cx, &mut buf) {
            Poll::Pending if self.live.order() >= ends_at => Poll::Ready(Err(EarlyEnd::Gone)),
            Poll::Pending => Poll::Pending,
            Poll::Ready(read) => {
                self.bytes.extend_from_slice(buf.filled());
                Poll::Ready(read.map(|()| buf.filled().len()).map_err(EarlyEnd::from))
            }
        }
    }

    /// Whether a listener with TLS also accepts plaintext.
    ///
    /// Plaintext proves no identity. If `allow` demands one, plaintext is refused as on a strict listener.
    fn is_permissive(&self) -> bool {
        let tls = self.settings.listener.tls.as_ref();
        tls.is_some_and(|tls| tls.mode == TlsMode::Permissive && tls.allow.is_empty())
    }

    /// Looks at the first bytes, and terminates TLS.
    pub(crate) async fn protocol(&mut self) -> Result<Detected, EarlyEnd> {
        let listener = self.settings.listener.clone();
        if listener.proxy_protocol != ProxyProtocolIn::Off {
            self.proxy_header(listener.proxy_protocol == ProxyProtocolIn::Require).await?;
        }
        let Some(tls) = self.settings.tls.clone() else {
            if self.is_server_first() {
                return Ok(Protocol::Tcp.into());
            }
            return self.detect().await;
        };
        let plaintext = self.is_permissive();
        if plaintext && self.is_server_first() {
            return Ok(Protocol::Tcp.into());
        }
        let waits = plaintext && listener.protocol == ListenProtocol::Auto && self.takes().opaque;
        let deadline = waits.then(|| Instant::now() + listener.detect_timeout);
        match self.first(deadline).await? {
            Some(0x16) => {}
            _ if plaintext => return self.detect().await,
            _ => return self.refuse_plaintext().await,
        }
        let hello = self.hello().await?;
        if let Some(sni) = hello.as_ref().and_then(|hello| hello.sni.clone())
            && self.settings.passes_tls
        {
            let client = Client { sni: Some(sni), ..self.client.clone() };
            if (self.settings.takes)(&client).opaque {
                return Ok((Protocol::Tls, hello).into());
            }
        }
        let chosen = self.alpn(hello);
        let (alpn, denied) = self.handshake(&tls, chosen).await?;
        let found = match (listener.protocol, alpn.as_deref()) {
            (ListenProtocol::Tcp, _) => Protocol::Tcp.into(),
            (_, Some(b"h2")) => Protocol::Http2.into(),
            (_, Some(b"http/1.1" | b"http/1.0")) => Protocol::Http1.into(),
            _ => self.detect().await?,
        };
        match (denied, found.protocol) {
            (None, _) => Ok(found),
            // The client gets a 403 with the reason; its bytes are not parsed.
            (Some(error), Protocol::Http1 | Protocol::Http2) => {
                self.denied = Some(format!("{} ({})", IDENTITY.rule, why(&error)).into());
                Ok(Detected { deny: Some(IDENTITY), ..found })
            }
            (Some(error), _) => Err(EarlyEnd::Failed("tls", error.reason, why(&error))),
        }
    }

    async fn refuse_plaintext(&mut self) -> Result<Detected, EarlyEnd> {
        let deadline = Instant::now() + self.settings.listener.detect_timeout;
        match self.verdict(Some(deadline), |b| detect::auto(b, usize::MAX)).await? {
            Some((Protocol::Http1, _)) => Ok(Detected { deny: Some(PLAINTEXT), ..Protocol::Http1.into() }),
            found => Err(EarlyEnd::Failed(
                found.map_or(Protocol::Tcp, |(protocol, _)| protocol).as_str(),
                Reason::PlaintextDenied,
                "the first byte is not that of TLS".into(),
            )),
        }
    }

    fn takes(&self) -> AcceptedTraffic {
        (self.settings.takes)(&self.client)
    }

    /// Whether the server sends first, so that nothing of the client is waited for.
    fn is_server_first(&self) -> bool {
        let listener = &self.settings.listener;
        let port = self.client.original_destination().map(|original| original.port());
        listener.protocol == ListenProtocol::Tcp
            || (listener.protocol == ListenProtocol::Auto
                && port.is_some_and(|port| listener.server_first_ports.contains(&port))
                && self.takes().opaque)
    }

    async fn detect(&mut self) -> Result<Detected, EarlyEnd> {
        let listener = self.settings.listener.clone();
        match listener.protocol {
            ListenProtocol::Tcp => Ok(Protocol::Tcp.into()),
            // The servers of these protocols refuse everything else.
            ListenProtocol::Http1 => self.first(None).await.map(|_| Protocol::Http1.into()),
            ListenProtocol::Http2 => self.first(None).await.map(|_| Protocol::Http2.into()),
            ListenProtocol::Http => self.detect_http(detect::http).await,
            ListenProtocol::Tls => {
                let deadline = self.first(None).await?.map(|_| Instant::now() + HANDSHAKE_TIMEOUT);
                match self.verdict(deadline, detect::tls).await? {
                    Some((Protocol::Tls, hello)) => Ok((Protocol::Tls, hello).into()),
                    found => Err(EarlyEnd::Failed(
                        found.map_or(Protocol::Tcp, |(protocol, _)| protocol).as_str(),
                        Reason::PlaintextDenied,
                        "the connection does not begin with a TLS ClientHello".into(),
                    )),
                }
            }
            ListenProtocol::Auto => self.detect_auto().await,
        }
    }

    /// Detects for `protocol: auto`, according to the kinds of routes that this connection can reach.
    async fn detect_auto(&mut self) -> Result<Detected, EarlyEnd> {
        let takes = self.takes();
        if !takes.opaque {
            // The HTTP parser decides about all bytes, whenever they arrive, except about TLS that may be passed through.
            return self.detect_http(detect::http_or_tls).await;
        }
        let deadline = Instant::now() + self.settings.listener.detect_timeout;
        let max_line = self.settings.listener.http.limits.request_line;
        if !takes.http {
            let found = self.verdict(Some(deadline), |bytes| detect::auto(bytes, max_line)).await?;
            return Ok(self.within(found.unwrap_or((Protocol::Tcp, None))));
        }
        match self.first(Some(deadline)).await? {
            None => Ok(Detected { silent: true, ..Protocol::Tcp.into() }),
            Some(_) => self.spoken(deadline).await,
        }
    }

    /// Detects for `protocol: auto` if routes accept HTTP and opaque bytes, after the client has begun. Whatever could still be HTTP at the
    /// deadline is HTTP: a pause must not turn a request into bytes that no rule checks.
    pub(crate) async fn spoken(&mut self, deadline: Instant) -> Result<Detected, EarlyEnd> {
        let max_line = self.settings.listener.http.limits.request_line;
        let found = self.verdict(Some(deadline), |bytes| detect::auto_or_http(bytes, max_line)).await?;
        Ok(self.within(found.unwrap_or((Protocol::Http1, None))))
    }

    /// Waits for the client's first byte without a limit, as an idle connection waits for a request. Returns the deadline for the rest.
    pub(crate) async fn wait(&mut self) -> Result<Instant, EarlyEnd> {
        self.live.sweepable.set(true);
        self.first(None).await?;
        self.live.sweepable.set(false);
        Ok(Instant::now() + self.settings.listener.detect_timeout)
    }

    /// Detects HTTP; its server refuses everything else, because no route accepts opaque bytes. The timeout of the head begins with the
    /// first byte.
    async fn detect_http(&mut self, look: impl Fn(&[u8]) -> DetectionResult) -> Result<Detected, EarlyEnd> {
        self.wait().await?;
        let deadline = Instant::now() + self.settings.listener.http.header_timeout;
        let found = match self.verdict(Some(deadline), look).await? {
            Some((Protocol::Tls, _)) if self.client.tls => None,
            Some((Protocol::Tcp, _)) | None => None,
            found => found,
        };
        // The client stopped within a preface or a ClientHello. HTTP/1 answers that, and gives the client no more time.
        let late = found.is_none() && Instant::now() >= deadline;
        let found = Detected::from(found.unwrap_or((Protocol::Http1, None)));
        Ok(if late { Detected { deny: Some(HEADER_TIMEOUT), ..found } } else { found })
    }

    /// TLS inside the TLS that was terminated here belongs to the application.
    fn within(&self, (protocol, hello): (Protocol, Option<ClientHello>)) -> Detected {
        if protocol == Protocol::Tls && self.client.tls {
            Protocol::Tcp.into()
        } else {
            (protocol, hello).into()
        }
    }

    /// Reads the ClientHello before answering it, if something depends on it: whether TLS is passed through, and which protocol ALPN
    /// confirms.
    async fn hello(&mut self) -> Result<Option<ClientHello>, EarlyEnd> {
        let protocol = self.settings.listener.protocol;
        if !self.settings.passes_tls && !matches!(protocol, ListenProtocol::Tcp | ListenProtocol::Auto) {
            return Ok(None);
        }
        let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
        match self.verdict(Some(deadline), detect::tls).await? {
            Some((_, hello)) => Ok(hello),
            None => Err(EarlyEnd::Failed(
                "tls",
                Reason::TlsTimeout,
                "no complete ClientHello arrived within 10 s".into(),
            )),
        }
    }

    /// The answer to the client's ALPN. Usually it is the listener's own list. For opaque bytes the protocol inside is the affair of the
    /// client and the upstream: if the client offers one protocol, that one is confirmed; if it offers several, none is chosen (RFC 7301
    /// section 3.2).
    fn alpn(&self, hello: Option<ClientHello>) -> Alpn {
        let Some(mut hello) = hello else { return Alpn::Listed };
        let listener = &self.settings.listener;
        let is_http = |name: &Vec<u8>| matches!(name.as_slice(), b"h2" | b"http/1.1" | b"http/1.0");
        let opaque = match listener.protocol {
            ListenProtocol::Tcp => true,
            ListenProtocol::Auto if !hello.alpn.iter().any(is_http) => {
                let client = Client { tls: true, sni: hello.sni.clone(), ..self.client.clone() };
                (self.settings.takes)(&client).opaque
            }
            _ => false,
        };
        match (opaque, hello.alpn.as_mut_slice()) {
            (true, [only]) => Alpn::Only(std::mem::take(only)),
            (true, _) => Alpn::Ignored,
            (false, _) => Alpn::Listed,
        }
    }

    /// Reads until `look` has a result. `None` if it has none at the deadline, at the end of the client's bytes, or after [`MAX_DETECT`]
    /// bytes.
    async fn verdict(
        &mut self,
        deadline: Option<Instant>,
        look: impl Fn(&[u8]) -> DetectionResult,
    ) -> Result<Option<(Protocol, Option<ClientHello>)>, EarlyEnd> {
        loop {
            match look(&self.bytes) {
                DetectionResult::Is(protocol, hello) => return Ok(Some((protocol, hello))),
                DetectionResult::More if self.bytes.len() >= MAX_DETECT => return Ok(None),
                DetectionResult::More => {}
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
                return Ok(None);
            }
        }
    }

    /// The first byte; `None` if the deadline passed before it arrived.
    async fn first(&mut self, deadline: Option<Instant>) -> Result<Option<u8>, EarlyEnd> {
        if self.bytes.is_empty() {
            let read = match deadline {
                Some(deadline) => match timeout_at(deadline, self.more()).await {
                    Ok(read) => read?,
                    Err(_) => return Ok(None),
                },
                None => self.more().await?,
            };
            if read == 0 {
                return Err(EarlyEnd::Gone);
            }
        }
        Ok(self.bytes.first().copied())
    }

    /// Reads once. Returns 0 at the end of the client's bytes. If the future is dropped, no byte is lost.
    async fn more(&mut self) -> Result<usize, EarlyEnd> {
        let begun = !self.bytes.is_empty();
        match poll_fn(|cx| self.poll_more(cx)).await? {
            0 if !begun => Err(EarlyEnd::Gone),
            read => Ok(read),
        }
    }

    async fn proxy_header(&mut self, required: bool) -> Result<(), EarlyEnd> {
        let failed = |detail: &str| {
            Err(EarlyEnd::Failed("tcp", Reason::BadRequest, format!("PROXY protocol: {detail}")))
        };
        let deadline = Instant::now() + PROXY_TIMEOUT;
        loop {
            match proxy_protocol::read(&self.bytes) {
                proxy_protocol::ProxyHeaderResult::Header(header) => {
                    self.bytes.drain(..header.len);
                    if let Some((source, destination)) = header.addresses {
                        self.client.address = Some(source);
                        self.client.local = Some(destination);
                    }
                    return Ok(());
                }
                proxy_protocol::ProxyHeaderResult::None if required => {
                    return failed(
                        "the connection does not begin with a header: make the sender send one, or set `proxy_protocol: off`",
                    );
                }
                proxy_protocol::ProxyHeaderResult::None => return Ok(()),
                proxy_protocol::ProxyHeaderResult::Bad(what) => return failed(what),
                proxy_protocol::ProxyHeaderResult::More => {}
            }
            match timeout_at(deadline, self.more()).await {
                Ok(Ok(1..)) => {}
                Ok(Ok(0)) | Err(_) if !required => return Ok(()),
                Ok(Ok(0)) => return failed("the client left before the end of the header"),
                Ok(Err(end)) => return Err(end),
                Err(_) => return failed("no header arrived within 5 s"),
            }
        }
    }

    /// Performs the handshake. Returns the protocol that ALPN chose, and why the client is not allowed, if it is not.
    async fn handshake(
        &mut self,
        tls: &attache_tls::Acceptor,
        alpn: Alpn,
    ) -> Result<(Option<Vec<u8>>, Option<attache_tls::Error>), EarlyEnd> {
        let mut stream = std::mem::replace(&mut self.stream, ClientStream::gone());
        stream.unread(std::mem::take(&mut self.bytes).into());
        let live = self.live.clone();
        // Boxed: a handshake is large and short, and the connection's task is small and long.
        let mut accept = Box::pin(timeout(HANDSHAKE_TIMEOUT, tls.admit_with(stream, alpn)));
        let accepted = std::future::poll_fn(|cx| {
            live.register(cx);
            if live.order() == ConnectionOrder::Cut {
                return Poll::Ready(None);
            }
            accept.as_mut().poll(cx).map(Some)
        });
        let failed = |reason, detail| Err(EarlyEnd::Failed("tls", reason, detail));
        let accepted = match accepted.await {
            None => return Err(EarlyEnd::Gone),
            Some(Err(_)) => return failed(Reason::TlsTimeout, "the handshake took longer than 10 s".into()),
            Some(Ok(Err(error))) => return failed(error.reason, why(&error)),
            Some(Ok(Ok(admission))) => admission,
        };
        let (accepted, denied) = match accepted {
            attache_tls::ClientAdmission::Admitted(accepted) => (accepted, None),
            attache_tls::ClientAdmission::Denied { connection, error } => (connection, Some(error)),
        };
        let listener = self.settings.listener.clone();
        let attache_tls::HandshakeInfo { version, kind, key_exchange } = accepted.handshake;
        metrics().tls_handshake(CertificateSide::Listener, &listener.name, version, kind, key_exchange);
        let outcome = match (&denied, &accepted.client) {
            (Some(_), _) => IdentityCheckResult::Denied,
            (None, Some(_)) => IdentityCheckResult::Allowed,
            (None, None) => IdentityCheckResult::Anonymous,
        };
        metrics().tls_client(&listener.name, outcome);
        self.client.tls = true;
        self.client.sni = accepted.sni;
        let details = &listener.http.set_current_client_cert_details;
        self.client.proven = accepted.client.map(|client| {
            let element = attache_tls::xfcc::element(&client, accepted.own_uri.as_deref(), details);
            Box::new(VerifiedIdentity {
                identities: accepted.identities,
                uris: client.uris.len(),
                subject: client.subject.as_str().into(),
                certificate: HeaderValue::try_from(element).ok(),
            })
        });
        self.stream = accepted.stream.into();
        Ok((accepted.alpn, denied))
    }
}

/// The failure without its reason, which is logged beside it: first the library's message, then ours.
fn why(error: &attache_tls::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}
