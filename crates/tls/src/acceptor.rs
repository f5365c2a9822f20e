//! TLS on a listener.

use std::sync::Arc;

use attache_config::model::TlsServer;
use attache_telemetry::Reason;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::Error;

/// Terminates TLS by one listener's settings. Cheap to clone; connections made after a rotation see the new certificate.
#[derive(Clone)]
pub struct Acceptor {
    inner: TlsAcceptor,
}

/// A connection whose handshake is done and whose client may talk.
#[derive(Debug)]
pub struct Accepted<T> {
    /// The plaintext side.
    pub stream: TlsStream<T>,
    /// The name that the client asked for.
    pub sni: Option<Arc<str>>,
    /// What ALPN gave: `h2`, `http/1.1` or nothing.
    pub alpn: Option<Vec<u8>>,
    /// The client's verified subject alternative names, URIs first.
    pub identities: Arc<[Arc<str>]>,
}

impl Acceptor {
    /// Reads what the settings name; `alpn` is preferred in this order.
    pub fn new(_settings: &TlsServer, _alpn: &[&[u8]]) -> Result<Self, Error> {
        Err(Error::new(Reason::TlsNoIdentity, "not read yet"))
    }

    /// Handshakes, and refuses clients that may not talk.
    pub async fn accept<T>(&self, io: T) -> Result<Accepted<T>, Error>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = self.inner.accept(io).await?;
        let (_, session) = stream.get_ref();
        let sni = session.server_name().map(Arc::from);
        let alpn = session.alpn_protocol().map(<[u8]>::to_vec);
        Ok(Accepted { stream, sni, alpn, identities: Arc::from([]) })
    }
}
