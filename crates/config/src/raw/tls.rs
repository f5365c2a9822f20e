//! `tls:` in both directions.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{At, OneOrMany, Txt};
use crate::{
    model,
    text::{Authority, File, Host, Pem, Pin, SanText},
};

/// TLS to an upstream.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`tls` of an upstream")]
pub(crate) struct TlsClient {
    /// The name that is asked for (SNI) and that the certificate must be for. By default the host of the address; for an
    /// `authority` upstream that of the request.
    pub(crate) name: Option<Txt<Host>>,
    /// Identities of which the peer must have one, in place of `name`, which is then only asked for (SNI): for peers that have a
    /// SPIFFE ID and no DNS name.
    pub(crate) peers: Option<OneOrMany<Txt<SanText>>>,
    /// Who is believed: PEM files, followed when they change; `system`; or `spiffe`, the own trust domain's bundle from the
    /// SPIFFE Workload API. By default `system`, and `spiffe` with `spiffe: true`.
    pub(crate) ca: Option<At<OneOrMany<Txt<Authority>>>>,
    /// The same as PEM text.
    pub(crate) ca_pem: Option<At<Txt<Pem>>>,
    /// Own certificate chain, PEM, leaf first, for peers that ask for one.
    #[schemars(extend("examples" = ["/certs/tls.crt"]))]
    pub(crate) certificate: Option<At<Txt<File>>>,
    /// Key of `certificate`, PEM.
    #[schemars(extend("examples" = ["/certs/tls.key"]))]
    pub(crate) key: Option<At<Txt<File>>>,
    /// The own certificate is the X.509-SVID of the SPIFFE Workload API, in place of `certificate` and `key`.
    #[schemars(extend("default" = false))]
    pub(crate) spiffe: Option<At<bool>>,
    /// Lowest version.
    #[schemars(extend("default" = model::TlsVersion::default()))]
    pub(crate) min_version: Option<model::TlsVersion>,
    /// SHA-256 of the public key (SubjectPublicKeyInfo) of the peer's certificate, of which one must fit.
    pub(crate) pins: Option<OneOrMany<Txt<Pin>>>,
    /// Files of revocation lists for the peer's certificate, which then must cover every certificate of its chain but the root.
    #[schemars(extend("examples" = ["/certs/revoked.crl"]))]
    pub(crate) crls: Option<OneOrMany<Txt<File>>>,
    /// Nothing is verified: whoever answers is believed. Only for tests.
    #[schemars(extend("default" = false))]
    pub(crate) insecure_skip_verify: Option<At<bool>>,
}

/// TLS on a listener.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`tls` of a listener")]
pub(crate) struct TlsServer {
    /// Certificate chain, PEM, leaf first, followed when it changes.
    #[schemars(extend("examples" = ["/certs/tls.crt"]))]
    pub(crate) certificate: Option<At<Txt<File>>>,
    /// Key of `certificate`, PEM (PKCS#8, PKCS#1 or SEC1).
    #[schemars(extend("examples" = ["/certs/tls.key"]))]
    pub(crate) key: Option<At<Txt<File>>>,
    /// OCSP response to staple, DER.
    #[schemars(extend("examples" = ["/certs/ocsp.der"]))]
    pub(crate) ocsp: Option<At<Txt<File>>>,
    /// More certificates, picked by server name; the first of all where none fits.
    pub(crate) certificates: Option<Vec<Identity>>,
    /// The X.509-SVID of the SPIFFE Workload API is shown where no certificate has the name asked for; then none is needed.
    #[schemars(extend("default" = false))]
    pub(crate) spiffe: Option<bool>,
    /// Whether plaintext is accepted too.
    #[schemars(extend("default" = "strict"))]
    pub(crate) mode: Option<TlsMode>,
    /// Who signs the clients' certificates: PEM files, `system`, or `spiffe` (the own trust domain's bundle from the SPIFFE
    /// Workload API). With it, clients must show a certificate.
    pub(crate) client_ca: Option<At<OneOrMany<Txt<Authority>>>>,
    /// The same as PEM text.
    pub(crate) client_ca_pem: Option<At<Txt<Pem>>>,
    /// A client without a certificate is let in all the same, unless `allow` names anyone.
    #[schemars(extend("default" = false))]
    pub(crate) client_optional: Option<At<bool>>,
    /// Identities of which a client must have one: `spiffe://DOMAIN/PATH` or another URI (`*` is one segment, a final `/**`
    /// the rest), a DNS name, or `subject:CN=web,O=Shop` (attributes of the subject). Without it every verified client is let in.
    pub(crate) allow: Option<At<OneOrMany<Txt<SanText>>>>,
    /// Identities that are refused, before `allow` is looked at.
    pub(crate) deny: Option<At<OneOrMany<Txt<SanText>>>>,
    /// Lowest version.
    #[schemars(extend("default" = model::TlsVersion::default()))]
    pub(crate) min_version: Option<model::TlsVersion>,
    /// Files of revocation lists.
    #[schemars(extend("examples" = ["/certs/revoked.crl"]))]
    pub(crate) crls: Option<At<OneOrMany<Txt<File>>>>,
}

/// A certificate and its key.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "a certificate")]
pub(crate) struct Identity {
    /// Certificate chain, PEM, leaf first.
    pub(crate) certificate: Txt<File>,
    /// Its key, PEM.
    pub(crate) key: Txt<File>,
    /// OCSP response to staple, DER.
    pub(crate) ocsp: Option<Txt<File>>,
}

/// Whether a TLS listener takes plaintext.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TlsMode {
    /// Only TLS.
    Strict,
    /// TLS, and plaintext told apart by the first byte. Where `allow` names anyone, plaintext is refused: it proves no identity.
    Permissive,
    /// Only plaintext, as if there were no `tls`.
    Off,
}
