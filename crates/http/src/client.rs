//! The client of an accepted connection, and the facts that the connection shows about it.

use std::{net::SocketAddr, sync::Arc};

use attache_config::model::CertificateNames;
use http::HeaderValue;

/// The client of one connection. It is made once when the connection is accepted, and all requests of the connection share it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// Its address; the one in the PROXY protocol header, if there was one. `None` on Unix sockets.
    pub address: Option<SocketAddr>,
    /// The address that it connected to; the one in the PROXY protocol header, if there was one.
    pub local: Option<SocketAddr>,
    /// The address that the client connected to, before the kernel redirected the connection (`SO_ORIGINAL_DST`). Boxed,
    /// because only redirected connections have it.
    pub original_destination: Option<Box<SocketAddr>>,
    /// The TLS server name that it sent.
    pub sni: Option<Arc<str>>,
    /// Whether its connection to attache is encrypted.
    pub tls: bool,
    /// The identity that its certificate proves. Boxed, because most waiting connections have none.
    pub proven: Option<Box<VerifiedIdentity>>,
}

/// The names and the subject in a client's verified certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifiedIdentity {
    /// Subject alternative names, URIs first.
    pub identities: Arc<[Arc<str>]>,
    /// How many of `identities` are URIs; the others are DNS names, after the URIs.
    pub uris: usize,
    /// The subject (RFC 4514); may be empty.
    pub subject: Arc<str>,
    /// The certificate in the form for the application: the value of `X-Forwarded-Client-Cert`. It is made once for the connection.
    pub certificate: Option<HeaderValue>,
}

impl VerifiedIdentity {
    /// A client with these names, of which the first `uris` are URIs.
    pub fn names(identities: impl IntoIterator<Item: Into<Arc<str>>>, uris: usize) -> Option<Box<Self>> {
        let identities = identities.into_iter().map(Into::into).collect();
        Some(Box::new(Self { identities, uris, ..Self::default() }))
    }
}

impl Client {
    /// The address that the client connected to, before the kernel redirected the connection.
    pub fn original_destination(&self) -> Option<SocketAddr> {
        self.original_destination.as_deref().copied()
    }

    /// The destination of the client: the original one of a redirected connection, else the address that it connected to.
    pub fn destination(&self) -> Option<SocketAddr> {
        self.original_destination().or(self.local)
    }

    /// The verified names of its certificate, URIs first; empty without a certificate.
    pub fn identities(&self) -> &[Arc<str>] {
        self.proven.as_ref().map_or(&[], |proven| &proven.identities)
    }

    /// The names that patterns of identities are matched against.
    pub fn names(&self) -> CertificateNames<'_> {
        let Some(proven) = &self.proven else { return CertificateNames::default() };
        let (uris, dns) = proven.identities.split_at_checked(proven.uris).unwrap_or_default();
        CertificateNames { uris, dns, subject: &proven.subject }
    }

    /// The name that logs and metrics use for it: its first identity, or its subject. `None` if it has no verified certificate.
    pub fn identity(&self) -> Option<Arc<str>> {
        let proven = self.proven.as_ref()?;
        let subject = || Some(&proven.subject).filter(|subject| !subject.is_empty());
        proven.identities.first().or_else(subject).cloned()
    }

    /// The value of `X-Forwarded-Client-Cert` for its verified certificate.
    pub fn certificate(&self) -> Option<&HeaderValue> {
        self.proven.as_ref()?.certificate.as_ref()
    }
}

/// What the connections of one client may carry, according to the routes that could match them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AcceptedTraffic {
    /// A route for HTTP could match.
    pub http: bool,
    /// A route accepts opaque bytes from this client.
    pub opaque: bool,
}
