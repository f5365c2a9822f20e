//! TLS on a listener.

use std::{
    future::poll_fn,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Weak},
};

use attache_config::model::{SanPattern, TlsServer, Trust};
use attache_telemetry::Reason;
use rustls::{
    HandshakeKind, ServerConfig,
    pki_types::UnixTime,
    server::{
        NoServerSessionStorage, ProducesTickets, ServerConnection, WebPkiClientVerifier,
        danger::ClientCertVerifier,
    },
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    Certificate, Error, HandshakeInfo,
    client_verifier::ClientVerifier,
    files::{FilesSnapshot, Sources},
    identity,
    live::{BuiltConfig, Follow, Reloadable},
    provider::{provider, versions},
    san,
    sni::{ByName, SHOWN},
    spiffe::{Workload, is_of},
    trust, words,
};

/// More root names than this are not listed to clients: the message would be larger than many expect.
const MAX_HINTS: usize = 32;

/// Terminates TLS by one listener's settings. Cheap to clone; connections made after a rotation see the new certificate.
///
/// Make one per listener and clone it into the workers: a client may use its ticket at another worker.
#[derive(Clone)]
pub struct Acceptor {
    live: Arc<Reloadable<ServerSetup>>,
    rules: Arc<ClientRules>,
}

struct ServerSetup {
    config: Arc<ServerConfig>,
    identities: Arc<ByName>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    /// The SPIFFE trust domain that clients must belong to.
    domain: Option<String>,
}

struct ClientRules {
    allow: Vec<SanPattern>,
    deny: Vec<SanPattern>,
}

/// A connection whose handshake is done and whose client is allowed.
#[derive(Debug)]
pub struct AcceptedConnection<T> {
    /// The plaintext side.
    pub stream: TlsStream<T>,
    /// The name that the client asked for.
    pub sni: Option<Arc<str>>,
    /// The protocol that ALPN chose: `h2`, `http/1.1` or nothing.
    pub alpn: Option<Vec<u8>>,
    /// The properties of the handshake.
    pub handshake: HandshakeInfo,
    /// The client's verified subject alternative names, URIs first.
    pub identities: Arc<[Arc<str>]>,
    /// The client's verified certificate, for [`xfcc`](crate::xfcc).
    pub client: Option<Arc<Certificate>>,
    /// The URI in the certificate that attache showed to the client: `By` of [`xfcc`](crate::xfcc).
    pub own_uri: Option<Arc<str>>,
}

/// The answer to a client's ALPN (RFC 7301).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Alpn {
    /// The first of the acceptor's own protocols that the client offers; a client that offers none of them is refused.
    #[default]
    Listed,
    /// This protocol.
    Only(Vec<u8>),
    /// No answer, as if attache did not know ALPN.
    Ignored,
}

/// The result of a handshake that succeeded.
#[derive(Debug)]
pub enum ClientAdmission<T> {
    /// The client is allowed.
    Admitted(AcceptedConnection<T>),
    /// The client is not allowed. The connection still works, so that an HTTP listener can explain this with a 403
    /// before it closes; bytes from this client must never be passed on.
    Denied {
        /// The connection and its client.
        connection: AcceptedConnection<T>,
        /// [`Reason::DeniedIdentity`], with the message for the client.
        error: Error,
    },
}

impl Acceptor {
    /// Reads the files that the settings name; `alpn` lists protocols in the order of preference.
    ///
    /// The error says which file is wrong and what to do. Every file must exist: a listener without an identity does
    /// not start, since a proxy that only looks ready takes traffic from proxies that really are.
    pub fn new(settings: &TlsServer, alpn: &[&[u8]]) -> Result<Self, Error> {
        Self::with_workload(settings, alpn, None)
    }

    /// As [`new`](Self::new), for settings that may name the SPIFFE Workload API: its first SVID must have arrived.
    pub fn with_workload(
        settings: &TlsServer,
        alpn: &[&[u8]],
        workload: Option<&Workload>,
    ) -> Result<Self, Error> {
        if settings.client_trust.is_none() && !(settings.allow.is_empty() && settings.deny.is_empty()) {
            return Err(Error::trust(
                "`allow` and `deny` need `client_ca`: without it no client has a verified name",
            ));
        }
        let mut files: Vec<PathBuf> = settings.identities.iter().flat_map(identity::files).collect();
        files.extend_from_slice(&settings.crls);
        files.extend(settings.client_trust.iter().flat_map(trust::files).cloned());
        let rules = ClientRules { allow: settings.allow.clone(), deny: settings.deny.clone() };
        let alpn: Vec<Vec<u8>> = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        // The ticketer outlives every reload, so that a renewed certificate does not cause a full handshake of each
        // client.
        let tickets =
            rustls::crypto::aws_lc_rs::Ticketer::new().map_err(|error| Error::identity(error.to_string()))?;
        let settings = settings.clone();
        let uses = settings.spiffe || settings.client_trust == Some(Trust::Spiffe);
        let sources = Sources { paths: files, workload: workload.filter(|_| uses).cloned() };
        let live = Reloadable::new(sources, Box::new(move |files| build(&settings, &alpn, &tickets, files)))?;
        Ok(Self { live, rules: Arc::new(rules) })
    }

    /// Does the handshake, and closes the connection of a client that is not allowed ([`Reason::DeniedIdentity`]).
    pub async fn accept<T>(&self, io: T) -> Result<AcceptedConnection<T>, Error>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        match self.admit(io).await? {
            ClientAdmission::Admitted(accepted) => Ok(accepted),
            ClientAdmission::Denied { error, .. } => Err(error),
        }
    }

    /// Does the handshake, and keeps the connection of a client that is not allowed, for a protocol that can tell the
    /// client so.
    pub async fn admit<T>(&self, io: T) -> Result<ClientAdmission<T>, Error>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        self.admit_with(io, Alpn::Listed).await
    }

    /// As [`admit`](Self::admit), where the answer to the client's ALPN depends on what it offers.
    pub async fn admit_with<T>(&self, io: T, alpn: Alpn) -> Result<ClientAdmission<T>, Error>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let server = &self.live.current().config;
        let mut config = server.config.clone();
        match alpn {
            Alpn::Listed => {}
            // A copy of pointers, for one connection of opaque bytes.
            Alpn::Only(protocol) => Arc::make_mut(&mut config).alpn_protocols = vec![protocol],
            Alpn::Ignored => Arc::make_mut(&mut config).alpn_protocols = Vec::new(),
        }
        let mut handshake = TlsAcceptor::from(config).accept(io);
        let (mut shown, mut untrusted) = (None, None);
        let result = poll_fn(|context| {
            SHOWN.set(None);
            let polled = Pin::new(&mut handshake).poll(context);
            shown = SHOWN.get().or(shown);
            if polled.is_ready() {
                untrusted = words::take_untrusted();
            }
            polled
        })
        .await;
        let stream = result.map_err(|error| Error::accepting(error, untrusted))?;
        let (_, session) = stream.get_ref();
        server.verify_resumed(session)?;
        let client = match session.peer_certificates().and_then(|chain| chain.first()) {
            Some(leaf) => {
                let leaf =
                    Certificate::parse(leaf).map_err(|error| Error::new(Reason::TlsUntrusted, error))?;
                Some(Arc::new(leaf))
            }
            None => None,
        };
        if let (Some(client), Some(domain)) = (&client, &server.domain)
            && !is_of(client, domain)
        {
            let why = format!("client {:?} has no SPIFFE ID of spiffe://{domain}", client.name());
            return Err(Error::new(Reason::TlsUntrusted, why));
        }
        let own = shown.and_then(|at| server.identities.get(at));
        let accepted = AcceptedConnection {
            handshake: HandshakeInfo::of(session),
            sni: session.server_name().map(Arc::from),
            alpn: session.alpn_protocol().map(<[u8]>::to_vec),
            identities: client.as_ref().map_or_else(|| Arc::from([]), |client| client.identities()),
            own_uri: own.and_then(|own| own.leaf.uris.first().cloned()),
            client,
            stream,
        };
        Ok(match san::refusal(accepted.client.as_deref(), &self.rules.allow, &self.rules.deny) {
            None => ClientAdmission::Admitted(accepted),
            Some(why) => ClientAdmission::Denied {
                connection: accepted,
                error: Error::new(Reason::DeniedIdentity, why),
            },
        })
    }

    /// attache's own certificates in use, for their expiry.
    pub fn certificates(&self) -> Vec<Arc<Certificate>> {
        self.live.current().certificates.clone()
    }

    pub(crate) fn follow(&self) -> Weak<dyn Follow> {
        let live: Arc<dyn Follow> = self.live.clone();
        Arc::downgrade(&live)
    }
}

impl ServerSetup {
    /// For a resumed session the library takes the client's certificate from the ticket, which may be up to 12 hours
    /// old. Since that verification the trusted authorities may have changed, and the certificate may have expired or
    /// been revoked.
    fn verify_resumed(&self, session: &ServerConnection) -> Result<(), Error> {
        let (Some(verifier), Some([leaf, rest @ ..]), Some(HandshakeKind::Resumed)) =
            (&self.verifier, session.peer_certificates(), session.handshake_kind())
        else {
            return Ok(());
        };
        let result = verifier.verify_client_cert(leaf, rest, UnixTime::now());
        let untrusted = words::take_untrusted();
        result.map_err(|error| {
            Error::accepting(std::io::Error::new(std::io::ErrorKind::InvalidData, error), untrusted)
        })?;
        Ok(())
    }
}

fn build(
    settings: &TlsServer,
    alpn: &[Vec<u8>],
    tickets: &Arc<dyn ProducesTickets>,
    files: &FilesSnapshot,
) -> Result<BuiltConfig<ServerSetup>, Error> {
    let mut loaded = settings
        .identities
        .iter()
        .map(|identity| identity::load(identity, files))
        .collect::<Result<Vec<_>, _>>()?;
    if settings.spiffe {
        loaded.push(files.svid().map_err(Error::identity)?.identity.clone());
    }
    if loaded.is_empty() {
        return Err(Error::identity("no certificate is configured: set `tls.certificate` and `tls.key`"));
    }
    let certificates = loaded.iter().map(|own| own.leaf.clone()).collect();
    let identities = Arc::new(ByName::new(loaded));
    let verifier = client_verifier(settings, files)?;
    let domain = settings.client_trust.as_ref().and_then(|trust| trust::domain(trust, files));
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions(settings.min_version))
        .map_err(|error| Error::new(Reason::TlsVersion, error))?
        .with_client_cert_verifier(verifier.clone().unwrap_or_else(WebPkiClientVerifier::no_client_auth))
        .with_cert_resolver(identities.clone());
    config.alpn_protocols = alpn.to_vec();
    // Sessions are stored only in the clients' tickets: they take no memory here, and any worker can resume any
    // session.
    config.ticketer = tickets.clone();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(BuiltConfig {
        config: ServerSetup { config: Arc::new(config), identities, verifier, domain },
        certificates,
    })
}

fn client_verifier(
    settings: &TlsServer,
    files: &FilesSnapshot,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, Error> {
    let Some(client_trust) = &settings.client_trust else { return Ok(None) };
    let roots = trust::roots(client_trust, files)?;
    let many = roots.len() > MAX_HINTS;
    let mut builder = WebPkiClientVerifier::builder_with_provider(roots, provider())
        .with_crls(trust::crls(&settings.crls, files)?);
    if many {
        builder = builder.clear_root_hint_subjects();
    }
    if settings.client_optional {
        builder = builder.allow_unauthenticated();
    }
    builder
        .build()
        .map(|verifier| Some(Arc::new(ClientVerifier(verifier)) as Arc<dyn ClientCertVerifier>))
        .map_err(|error| Error::trust(format!("client trust or revocation lists: {error}")))
}
