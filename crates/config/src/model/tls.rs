//! TLS in both directions.

use super::prelude::*;

section! {
    "`tls` of an upstream"
    /// TLS to an upstream.
    pub struct TlsClient: Eq {
        /// The server name that is sent (SNI) and that the certificate must have. By default the host of the address; for an
        /// `authority` upstream that of the request.
        name: Option<Name> as Optional<Host> = None,
        /// Identities of which the peer must have one. `name` is then only sent (SNI) and not verified: for peers that have a SPIFFE ID and
        /// no DNS name.
        peers: Vec<SanPattern> as List<SanText> = Vec::new(),
        /// Trusted authorities: PEM files, followed when they change; `system`; or `spiffe`, the own trust domain's bundle from the
        /// SPIFFE Workload API. By default `system`, and `spiffe` with `spiffe: true`.
        #[schema(default = ())]
        ca(OneOrMany<Text<AuthorityText>>) in trust: Trust = Trust::System,
        /// The same as PEM text.
        ca_pem(Text<Pem>),
        /// Own certificate chain, PEM, leaf first, for peers that ask for one.
        #[schema(examples = ["/certs/tls.crt"])]
        certificate(Text<File>),
        /// Key of `certificate`, PEM.
        #[schema(examples = ["/certs/tls.key"])]
        key(Text<File>),
        /// The own certificate is the X.509-SVID of the SPIFFE Workload API, in place of `certificate` and `key`.
        spiffe: bool = false,
        /// Lowest version.
        min_version: TlsVersion = TlsVersion::default(),
        /// SHA-256 of the public key (SubjectPublicKeyInfo) of the peer's certificate; one of them must match.
        pins: Vec<[u8; 32]> as List<Pin> = Vec::new(),
        /// Files of revocation lists for the peer's certificate, which then must cover every certificate of its chain but the root.
        #[schema(examples = ["/certs/revoked.crl"])]
        crls: Vec<PathBuf> as List<File> = Vec::new(),
        /// attache verifies nothing and trusts every peer. Use it only for tests.
        insecure_skip_verify in insecure: bool = false,
    }
    holds {
        /// Own certificate and key; `None` with `spiffe`.
        identity: Option<Identity> = None,
    }
    shows Self::show_identity
    rules {
        needs [certificate] [key] "`{}` without `key`" "add `key:` beside it";
        needs [key] [certificate] "`{}` without `certificate`" "add `certificate:` beside it";
        excludes [ca_pem] [ca] "both `ca` and `{}`" "keep one of them";
        excludes [spiffe] [certificate] "both `{}` and a certificate from files"
            "a client shows one certificate: keep one";
    }
}

impl TlsClient {
    fn show_identity(&self, shown: &mut Object<String, Value>) {
        shown.insert("identity".into(), json!(self.identity));
    }
}

section! {
    "`tls` of a listener"
    /// TLS on a listener.
    pub struct TlsServer: Eq {
        /// Certificate chain, PEM, leaf first, followed when it changes.
        #[schema(examples = ["/certs/tls.crt"])]
        certificate(Text<File>),
        /// Key of `certificate`, PEM (PKCS#8, PKCS#1 or SEC1).
        #[schema(examples = ["/certs/tls.key"])]
        key(Text<File>),
        /// OCSP response to staple, DER.
        #[schema(examples = ["/certs/ocsp.der"])]
        ocsp(Text<File>),
        /// More certificates. attache chooses one by the server name, and the first of all if none matches.
        certificates in identities: Vec<Identity> = Vec::new(),
        /// attache shows the X.509-SVID of the SPIFFE Workload API if no certificate has the requested name. With it,
        /// no other certificate is needed.
        spiffe: bool = false,
        /// Whether plaintext is accepted too.
        mode: TlsMode = TlsMode::Strict,
        /// Who signs the clients' certificates: PEM files, `system`, or `spiffe` (the own trust domain's bundle from the SPIFFE
        /// Workload API). With it, clients must show a certificate.
        client_ca(OneOrMany<Text<AuthorityText>>) in client_trust: Option<Trust> = None,
        /// The same as PEM text.
        client_ca_pem(Text<Pem>),
        /// A client without a certificate is accepted too, unless `allow` names identities.
        client_optional: bool = false,
        /// Identities of which a client must have one: `spiffe://DOMAIN/PATH` or another URI (`*` is one segment, a final `/**`
        /// the rest), a DNS name, or `subject:CN=web,O=Shop` (attributes of the subject). Without it, every verified client is accepted.
        allow: Vec<SanPattern> as List<SanText> = Vec::new(),
        /// Identities that are refused, before `allow` is checked.
        deny: Vec<SanPattern> as List<SanText> = Vec::new(),
        /// Lowest version.
        min_version: TlsVersion = TlsVersion::default(),
        /// Files of revocation lists.
        #[schema(examples = ["/certs/revoked.crl"])]
        crls: Vec<PathBuf> as List<File> = Vec::new(),
    }
    rules unless mode "off" {
        needs [certificate] [key] "`{}` without `key`" "add `key:` beside it";
        needs [key, ocsp] [certificate] "`{}` without `certificate`" "add `certificate:` beside it";
        excludes [client_ca_pem] [client_ca] "both `client_ca` and `{}`" "keep one of them";
        needs [allow, deny, crls, client_optional] [client_ca, client_ca_pem]
            "`{}` without `client_ca`: no client is asked for a certificate"
            "name who signs the clients' certificates: `client_ca: /certs/ca.crt`";
    }
}

/// Whether a TLS listener takes plaintext.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    /// Only TLS.
    #[default]
    Strict,
    /// TLS, and plaintext told apart by the first byte. If `allow` names identities, plaintext is refused, because it proves no identity.
    Permissive,
    /// Only plaintext, as if there were no `tls`.
    Off,
}

section! {
    "a certificate"
    /// A certificate and its key.
    pub struct Identity: Eq {
        /// Certificate chain, PEM, leaf first.
        certificate: PathBuf as File = PathBuf::new(),
        /// Its key, PEM.
        #[schema(examples = ["/certs/tls.key"])]
        key: PathBuf as File = PathBuf::new(),
        /// OCSP response to staple, DER.
        #[schema(examples = ["/certs/ocsp.der"])]
        ocsp: Option<PathBuf> as Optional<File> = None,
    }
    requires certificate, key
}

/// Trusted authorities.
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

/// The kind of trust, never its certificates.
impl Serialize for Trust {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::System => "system".serialize(serializer),
            Self::Spiffe => "spiffe".serialize(serializer),
            Self::Files(files) => files.serialize(serializer),
            Self::Inline(_) => format!("{HIDDEN} PEM in the config").serialize(serializer),
        }
    }
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
