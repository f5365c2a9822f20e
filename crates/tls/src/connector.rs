//! TLS to an upstream.

use std::{
    cell::Cell,
    future::poll_fn,
    net::IpAddr,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Weak},
    time::SystemTime,
};

use attache_config::model::{TlsClient, Trust};
use attache_telemetry::Reason;
use rustls::{
    ClientConfig, HandshakeKind, SignatureScheme,
    client::{ResolvesClientCert, Resumption},
    pki_types::{CertificateDer, DnsName, ServerName},
    sign::CertifiedKey,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    Certificate, Error,
    files::{FilesSnapshot, Sources},
    identity,
    live::{BuiltConfig, Follow, Reloadable},
    provider::{provider, versions},
    sessions::Sessions,
    spiffe::Workload,
    trust,
    verify::{PeerNames, ServerVerifier},
    words,
};

/// Originates TLS by one upstream's settings. Cheap to clone; connections made after a rotation use the new identity.
///
/// Make one per upstream and clone it into the workers: clones share their sessions. The lock around the sessions is
/// held only for a map access, a few times per handshake of some 170 us.
#[derive(Clone)]
pub struct Connector {
    live: Arc<Reloadable<ClientSetup>>,
    name: Option<Arc<str>>,
    alpn: Arc<[Vec<u8>]>,
    insecure: bool,
    /// The system's clock; tests have their own.
    pub(crate) now: fn() -> SystemTime,
}

struct ClientSetup {
    config: Arc<ClientConfig>,
    sessions: Arc<Sessions>,
}

impl Connector {
    /// Reads the files that the settings name; `alpn` is offered in this order.
    ///
    /// The error says which file is wrong and what to do.
    pub fn new(settings: &TlsClient, alpn: &[&[u8]]) -> Result<Self, Error> {
        Self::with_workload(settings, alpn, None)
    }

    /// As [`new`](Self::new), for settings that may name the SPIFFE Workload API: its first SVID must have arrived.
    pub fn with_workload(
        settings: &TlsClient,
        alpn: &[&[u8]],
        workload: Option<&Workload>,
    ) -> Result<Self, Error> {
        if settings.insecure {
            tracing::warn!(
                name = settings.name.as_deref().unwrap_or("the upstream's host"),
                "insecure_skip_verify: the upstream's certificate is NOT verified, anyone can read and change the traffic"
            );
        }
        Self::build(settings, alpn, workload)
    }

    /// For health checks inside the pod, as the kubelet sends them: no certificate is verified, and none is shown. Not
    /// for traffic.
    pub fn unverified(alpn: &[&[u8]]) -> Result<Self, Error> {
        let settings = TlsClient { insecure: true, ..TlsClient::default() };
        Self::build(&settings, alpn, None)
    }

    fn build(settings: &TlsClient, alpn: &[&[u8]], workload: Option<&Workload>) -> Result<Self, Error> {
        let mut files: Vec<PathBuf> = settings.identity.iter().flat_map(identity::files).collect();
        if !settings.insecure {
            files.extend_from_slice(trust::files(&settings.trust));
            files.extend_from_slice(&settings.crls);
        }
        let name = settings.name.clone();
        let insecure = settings.insecure;
        let settings = settings.clone();
        let uses = settings.spiffe || settings.trust == Trust::Spiffe;
        let sources = Sources { paths: files, workload: workload.filter(|_| uses).cloned() };
        let live = Reloadable::new(sources, Box::new(move |files| build(&settings, files)))?;
        Ok(Self { live, name, alpn: protocols(alpn), insecure, now: SystemTime::now })
    }

    /// The same connector with other protocols: files, identity and sessions are shared.
    pub fn offering(&self, alpn: &[&[u8]]) -> Self {
        Self { alpn: protocols(alpn), ..self.clone() }
    }

    /// Does the handshake over `io` with a peer whose certificate must be for `name` (unless the settings name
    /// another): a DNS name, or an IP address, for which no server name is sent.
    ///
    /// With TLS 1.3 the peer checks attache's client certificate only after this has returned: pass errors of the first
    /// reads to [`reason_of`](crate::reason_of).
    pub async fn connect<T>(&self, name: &str, io: T) -> Result<TlsStream<T>, Error>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let name = server_name(self.name.as_deref().unwrap_or(name))?;
        let client = &self.live.current().config;
        let mut handshake =
            TlsConnector::from(client.config.clone()).with_alpn(self.alpn.to_vec()).connect(name, io);
        let (mut asked, mut untrusted) = (false, None);
        let result = poll_fn(|context| {
            ASKED.set(false);
            let polled = Pin::new(&mut handshake).poll(context);
            asked |= ASKED.get();
            if polled.is_ready() {
                untrusted = words::take_untrusted();
            }
            polled
        })
        .await;
        let stream = result.map_err(|error| Error::connecting(error, asked, untrusted))?;
        let (_, session) = stream.get_ref();
        if session.handshake_kind() == Some(HandshakeKind::Resumed)
            && !self.insecure
            && session
                .peer_certificates()
                .and_then(|chain| chain.first())
                .is_some_and(|leaf| has_expired(leaf, (self.now)()))
        {
            // The certificate was valid when the session began. The other sessions of that time have expired as well.
            client.sessions.forget();
            return Err(Error::new(
                Reason::TlsExpired,
                "the resumed session's certificate has expired meanwhile",
            ));
        }
        // A peer that leaves ALPN out speaks HTTP/1.1; anything else must be chosen (RFC 9113 section 3.2).
        let may_be_silent = self.alpn.is_empty() || self.alpn.iter().any(|protocol| protocol == b"http/1.1");
        if !may_be_silent && session.alpn_protocol().is_none() {
            return Err(Error::new(Reason::TlsAlpn, "the peer chose none of the offered protocols"));
        }
        Ok(stream)
    }

    /// True if nothing is verified, for the warning metric.
    pub fn is_insecure(&self) -> bool {
        self.insecure
    }

    /// attache's own certificate in use, for its expiry; empty if no identity is configured.
    pub fn certificates(&self) -> Vec<Arc<Certificate>> {
        self.live.current().certificates.clone()
    }

    pub(crate) fn follow(&self) -> Weak<dyn Follow> {
        let live: Arc<dyn Follow> = self.live.clone();
        Arc::downgrade(&live)
    }
}

fn build(settings: &TlsClient, files: &FilesSnapshot) -> Result<BuiltConfig<ClientSetup>, Error> {
    let roots = if settings.insecure { None } else { Some(trust::roots(&settings.trust, files)?) };
    let own = match &settings.identity {
        Some(own) => Some(identity::load(own, files)?),
        None if settings.spiffe => Some(files.svid().map_err(Error::identity)?.identity.clone()),
        None => None,
    };
    let peers = PeerNames { patterns: settings.peers.clone(), domain: trust::domain(&settings.trust, files) };
    let crls = if settings.insecure { Vec::new() } else { trust::crls(&settings.crls, files)? };
    let verifier = ServerVerifier::new(roots, crls, peers, &settings.pins)?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions(settings.min_version))
        .map_err(|error| Error::new(Reason::TlsVersion, error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(OwnCertificate(own.as_ref().map(|own| own.key.clone()))));
    // Sessions belong to this config: a session that was made with an old identity or old roots is never resumed.
    let sessions = Arc::new(Sessions::new());
    config.resumption = Resumption::store(sessions.clone());
    let config = ClientSetup { config: Arc::new(config), sessions };
    Ok(BuiltConfig { config, certificates: own.into_iter().map(|own| own.leaf).collect() })
}

fn protocols(alpn: &[&[u8]]) -> Arc<[Vec<u8>]> {
    alpn.iter().map(|protocol| protocol.to_vec()).collect()
}

fn has_expired(leaf: &CertificateDer<'_>, now: SystemTime) -> bool {
    Certificate::parse(leaf).is_ok_and(|leaf| leaf.not_after < now)
}

/// Accepts `[::1]` and a final dot, as in URLs.
fn server_name(name: &str) -> Result<ServerName<'static>, Error> {
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(ServerName::from(address));
    }
    DnsName::try_from(bare.strip_suffix('.').unwrap_or(bare).to_owned()).map(ServerName::DnsName).map_err(
        |_| {
            Error::new(
                Reason::TlsNameMismatch,
                format!("{name:?} is neither a DNS name nor an IP address: set `tls.name` to a name in the certificate"),
            )
        },
    )
}

thread_local! {
    /// Set while a handshake is polled, when the peer asks for attache's certificate. The library doesn't report this
    /// elsewhere, and the reason of a failure depends on it.
    static ASKED: Cell<bool> = const { Cell::new(false) };
}

#[derive(Debug)]
struct OwnCertificate(Option<Arc<CertifiedKey>>);

impl ResolvesClientCert for OwnCertificate {
    fn resolve(&self, _issuers: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        ASKED.set(true);
        self.0.clone()
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_accepted_as_urls_write_them() {
        let name = |text: &str| server_name(text).map(|name| name.to_str().into_owned()).ok();
        assert_eq!(name("orders.internal.").as_deref(), Some("orders.internal"));
        assert_eq!(name("[::1]").as_deref(), Some("::1"));
        assert_eq!(name("10.0.0.1").as_deref(), Some("10.0.0.1"));
        assert_eq!(name("no name"), None);
        assert_eq!(name(""), None);
    }
}
