//! TLS in both directions.

use std::{fmt, path::PathBuf, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Name, SanPattern};

/// TLS to an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsClient {
    /// SNI and the name that the certificate must be for; `None` is the upstream's host (or, for an
    /// `authority` upstream, the request's).
    pub name: Option<Name>,
    /// Who is believed.
    pub trust: Trust,
    /// Names of which one must be the peer's, in place of `name` (which is then only SNI). For
    /// peers that have a SPIFFE ID and no DNS name. Empty verifies `name`.
    pub peers: Vec<SanPattern>,
    /// Own certificate and key.
    pub identity: Option<Identity>,
    /// The own certificate is the X.509-SVID of the SPIFFE Workload API; `identity` is then `None`. Default false.
    pub spiffe: bool,
    /// Lowest version. Default 1.2.
    pub min_version: TlsVersion,
    /// SHA-256 of the peer's SubjectPublicKeyInfo, one of which must be the leaf's; empty pins nothing.
    pub pins: Vec<[u8; 32]>,
    /// Revocation lists for the peers' certificates.
    pub crls: Vec<PathBuf>,
    /// `insecure_skip_verify: true`: nothing is verified. Loud by name, by log and by metric.
    pub insecure: bool,
}

/// TLS on a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsServer {
    /// Certificates, picked by SNI; the first where none fits. At least one, unless `spiffe`.
    pub identities: Vec<Identity>,
    /// The X.509-SVID of the SPIFFE Workload API is shown where no certificate of `identities` has the name asked
    /// for. Default false.
    pub spiffe: bool,
    /// Whether plaintext is accepted too.
    pub mode: TlsMode,
    /// Who signs the clients' certificates; `None` asks for none.
    pub client_trust: Option<Trust>,
    /// A client without a certificate is let in all the same, unless `allow` names anyone. Default false.
    pub client_optional: bool,
    /// Names of which one must be the client's; empty lets every verified client in.
    pub allow: Vec<SanPattern>,
    /// Names that are refused, before `allow` is looked at.
    pub deny: Vec<SanPattern>,
    /// Lowest version. Default 1.2.
    pub min_version: TlsVersion,
    /// Revocation lists.
    pub crls: Vec<PathBuf>,
}

/// Whether a TLS listener takes plaintext.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TlsMode {
    /// Only TLS.
    #[default]
    Strict,
    /// TLS, and plaintext told apart by the first byte.
    Permissive,
}

/// A certificate chain and its key, followed when the files change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// PEM chain, leaf first.
    pub certificate: PathBuf,
    /// PEM key (PKCS#8, PKCS#1, SEC1).
    pub key: PathBuf,
    /// DER OCSP response to staple.
    pub ocsp: Option<PathBuf>,
}

/// Who is believed.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum Trust {
    /// The system's roots (or `SSL_CERT_FILE`, `SSL_CERT_DIR`).
    #[default]
    System,
    /// PEM files, followed when they change.
    Files(Vec<PathBuf>),
    /// PEM in the config itself.
    Inline(Arc<str>),
    /// The own trust domain's bundle from the SPIFFE Workload API. Peers need a SPIFFE ID of that trust domain.
    Spiffe,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("System"),
            Self::Files(files) => f.debug_tuple("Files").field(files).finish(),
            Self::Inline(_) => f.write_str("Inline(..)"),
            Self::Spiffe => f.write_str("Spiffe"),
        }
    }
}

/// Lowest TLS version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    #[default]
    #[serde(rename = "1.2")]
    V12,
    /// TLS 1.3 (RFC 8446).
    #[serde(rename = "1.3")]
    V13,
}
