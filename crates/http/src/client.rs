//! Who is calling: what the accepted connection tells about the other side.

use std::{net::SocketAddr, sync::Arc};

use attache_config::model::CertificateNames;
use http::HeaderValue;

/// The downstream side of one connection, made once at accept and shared by its requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// Its address, that of the PROXY protocol header where one was read; `None` on Unix sockets.
    pub address: Option<SocketAddr>,
    /// The address it connected to (of the PROXY header, where one was read).
    pub local: Option<SocketAddr>,
    /// Where it wanted to go before the kernel redirected it (`SO_ORIGINAL_DST`).
    pub original_destination: Option<SocketAddr>,
    /// The TLS server name it asked for.
    pub sni: Option<Arc<str>>,
    /// Its connection to attache is encrypted.
    pub tls: bool,
    /// Verified subject alternative names of its certificate, URIs first; empty without one.
    pub identities: Arc<[Arc<str>]>,
    /// How many of `identities` are URIs; the others are DNS names.
    pub uris: usize,
    /// The subject of its verified certificate (RFC 4514); empty without one.
    pub subject: Arc<str>,
    /// Its verified certificate in the form for the application: the value of `X-Forwarded-Client-Cert`, made once for
    /// the connection. `None` without a certificate.
    pub certificate: Option<HeaderValue>,
}

impl Client {
    /// What patterns of identities are matched against.
    pub fn names(&self) -> CertificateNames<'_> {
        let (uris, dns) = self.identities.split_at_checked(self.uris).unwrap_or_default();
        CertificateNames { uris, dns, subject: &self.subject }
    }

    /// The name that it is known by: its first, or its subject; `None` where it has proven nothing.
    pub fn identity(&self) -> Option<Arc<str>> {
        let subject = || Some(&self.subject).filter(|subject| !subject.is_empty());
        self.identities.first().or_else(subject).cloned()
    }
}

/// What connections of one client may carry, by the routes that they could take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AcceptedTraffic {
    /// A route for HTTP could match.
    pub http: bool,
    /// A route takes opaque bytes of it.
    pub opaque: bool,
}
