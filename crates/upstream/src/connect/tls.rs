//! TLS origination: which protocols are offered by ALPN, and how long the handshake may take.

use std::{fmt, sync::Arc};

use attache_config::model::{self, UpstreamProtocol};
use attache_telemetry::{CertificateSide, Reason, metrics};
use attache_tls::{Connector, HandshakeInfo, Workload};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::client::TlsStream;

use crate::{Error, SentPart, connect::EndpointConnection};

/// The protocols that are offered by ALPN (RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlpnOffer {
    /// The upstream's `protocol`: with `auto` both, h2 first.
    Http,
    /// HTTP/1.1 alone: for upgrades, where HTTP/2 has no extended CONNECT.
    Http1,
    /// Nothing: opaque bytes.
    Opaque,
}

/// One upstream's TLS settings, read once by the control thread and shared by all workers.
#[derive(Clone)]
pub struct Tls {
    inner: Arc<TlsConnectors>,
}

struct TlsConnectors {
    http: Connector,
    http1: Connector,
    opaque: Connector,
}

impl Tls {
    /// Reads the files that the upstream's settings name; `None` if it has no TLS.
    pub fn new(config: &model::Upstream) -> Result<Option<Self>, attache_tls::Error> {
        Self::with_workload(config, None)
    }

    /// As [`new`](Self::new), for settings that may name the SPIFFE Workload API: its first SVID must have arrived.
    pub fn with_workload(
        config: &model::Upstream,
        workload: Option<&Workload>,
    ) -> Result<Option<Self>, attache_tls::Error> {
        let Some(settings) = &config.tls else { return Ok(None) };
        let http: &[&[u8]] = match config.protocol {
            UpstreamProtocol::Auto => &[b"h2", b"http/1.1"],
            UpstreamProtocol::Http1 => &[b"http/1.1"],
            UpstreamProtocol::Http2 => &[b"h2"],
            UpstreamProtocol::Tcp => &[],
        };
        let connector = Connector::with_workload(settings, http, workload)?;
        let inner = TlsConnectors {
            http1: connector.offering(&[b"http/1.1"]),
            opaque: connector.offering(&[]),
            http: connector,
        };
        Ok(Some(Self { inner: Arc::new(inner) }))
    }

    /// The one connector behind every offer, so that its files can be followed. [`Connector::offering`] makes another
    /// connector from it that shares files and sessions.
    pub fn connector(&self) -> &Connector {
        &self.inner.http
    }

    /// The peer's identity on a connection made by these settings; `None` if it was not verified.
    pub(crate) fn peer(&self, io: &EndpointConnection) -> Option<model::Name> {
        if self.inner.http.is_insecure() { None } else { io.peer() }
    }

    pub(super) async fn handshake<T>(
        &self,
        config: &model::Upstream,
        offer: AlpnOffer,
        name: &str,
        io: T,
    ) -> Result<TlsStream<T>, Error>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let connector = match offer {
            AlpnOffer::Http => &self.inner.http,
            AlpnOffer::Http1 => &self.inner.http1,
            AlpnOffer::Opaque => &self.inner.opaque,
        };
        let limit = config.handshake_timeout;
        let io = match timeout(limit, connector.connect(name, io)).await {
            Ok(Ok(io)) => io,
            Ok(Err(error)) => return Err(Error::with_source(error.reason, SentPart::Nothing, error)),
            Err(_) => {
                let why = format!("no TLS handshake within handshake_timeout ({limit:?})");
                return Err(Error::with_source(Reason::TlsTimeout, SentPart::Nothing, why));
            }
        };
        let HandshakeInfo { version, kind, key_exchange } = HandshakeInfo::of(io.get_ref().1);
        metrics().tls_handshake(CertificateSide::Upstream, &config.name, version, kind, key_exchange);
        let chosen = io.get_ref().1.alpn_protocol();
        if offer == AlpnOffer::Http && config.protocol == UpstreamProtocol::Http2 && chosen != Some(b"h2") {
            let why = "the peer did not choose h2, and `protocol: http2` allows nothing else";
            return Err(Error::with_source(Reason::TlsAlpn, SentPart::Nothing, why));
        }
        Ok(io)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}
