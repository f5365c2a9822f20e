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
    /// Boxed, since only redirected connections have it.
    pub original_destination: Option<Box<SocketAddr>>,
    /// The TLS server name it asked for.
    pub sni: Option<Arc<str>>,
    /// Its connection to attache is encrypted.
    pub tls: bool,
    /// What it has proven by its certificate. Boxed, since most connections that wait have none.
    pub proven: Option<Box<Proven>>,
}

/// What a verified certificate says of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proven {
    /// Subject alternative names, URIs first.
    pub identities: Arc<[Arc<str>]>,
    /// How many of `identities` are URIs; the others are DNS names.
    pub uris: usize,
    /// The subject (RFC 4514); may be empty.
    pub subject: Arc<str>,
    /// The certificate in the form for the application: the value of `X-Forwarded-Client-Cert`, made once for the connection.
    pub certificate: Option<HeaderValue>,
}

impl Proven {
    /// These names, of which so many are URIs.
    pub fn names(identities: impl IntoIterator<Item: Into<Arc<str>>>, uris: usize) -> Option<Box<Self>> {
        let identities = identities.into_iter().map(Into::into).collect();
        Some(Box::new(Self { identities, uris, ..Self::default() }))
    }
}

impl Client {
    /// Where it wanted to go before the kernel redirected it.
    pub fn original_destination(&self) -> Option<SocketAddr> {
        self.original_destination.as_deref().copied()
    }

    /// Where it wanted to go: its original destination, or else the address it connected to.
    pub fn destination(&self) -> Option<SocketAddr> {
        self.original_destination().or(self.local)
    }

    /// The verified names of its certificate, URIs first; empty without one.
    pub fn identities(&self) -> &[Arc<str>] {
        self.proven.as_ref().map_or(&[], |proven| &proven.identities)
    }

    /// What patterns of identities are matched against.
    pub fn names(&self) -> CertificateNames<'_> {
        let Some(proven) = &self.proven else { return CertificateNames::default() };
        let (uris, dns) = proven.identities.split_at_checked(proven.uris).unwrap_or_default();
        CertificateNames { uris, dns, subject: &proven.subject }
    }

    /// The name that it is known by: its first, or its subject; `None` where it has proven nothing.
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

/// What connections of one client may carry, by the routes that they could take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AcceptedTraffic {
    /// A route for HTTP could match.
    pub http: bool,
    /// A route takes opaque bytes of it.
    pub opaque: bool,
}
