//! TLS in both directions: a certificate has its key, and rules about clients need a client certificate.

use std::sync::Arc;

use crate::{
    diagnostic::Problems,
    model::{Identity, TlsClient, TlsMode, TlsServer, Trust},
    section::ParsedSection,
    shapes::{OneOrMany, Spanned, Text},
    text::{Authority, AuthorityText, File, Pem},
};

pub(crate) fn client(
    raw: Option<Spanned<ParsedSection<TlsClient>>>,
    problems: &mut Problems,
) -> Result<TlsClient, AlreadyReported> {
    let Some(raw) = raw else { return Ok(TlsClient::default()) };
    let (given, ParsedSection { section: mut tls, rest }) = raw.open();
    tls.identity = identity(rest.certificate, rest.key, None);
    let trust = trust(&given, rest.ca, rest.ca_pem, "ca", problems);
    if let Some(at) = given.key("insecure_skip_verify").filter(|_| tls.insecure) {
        problems.warn(
            at,
            "the peer's certificate isn't verified: any peer is trusted",
            "name the authority with `ca` instead",
        );
    }
    // If attache shows its own SVID, peers need an SVID of the same trust domain.
    tls.trust = trust?.unwrap_or(if tls.spiffe { Trust::Spiffe } else { Trust::System });
    Ok(tls)
}

/// The value is wrong, and the problem was reported.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AlreadyReported;

/// `None` is `mode: off`.
pub(crate) fn server(
    raw: Spanned<ParsedSection<TlsServer>>,
    problems: &mut Problems,
) -> Result<Option<TlsServer>, AlreadyReported> {
    let (given, ParsedSection { section: mut tls, rest }) = raw.open();
    if tls.mode == TlsMode::Off {
        return Ok(None);
    }
    tls.identities.splice(0..0, identity(rest.certificate, rest.key, rest.ocsp));
    let certificate_is_wrong = ["certificate", "key", "certificates"].iter().any(|key| given.is_wrong(key));
    if tls.identities.is_empty() && !tls.spiffe && !certificate_is_wrong {
        problems.wrong(
            given.at,
            "`tls` of a listener has no certificate",
            "`certificate: /certs/tls.crt` and `key: /certs/tls.key`, or `spiffe: true`",
        );
    }
    let client_trust = trust(&given, rest.client_ca, rest.client_ca_pem, "client_ca", problems);
    if tls.identities.is_empty() && !tls.spiffe {
        return Err(AlreadyReported);
    }
    tls.client_trust = client_trust?;
    Ok(Some(tls))
}

fn identity(
    certificate: Option<Text<File>>,
    key: Option<Text<File>>,
    ocsp: Option<Text<File>>,
) -> Option<Identity> {
    Some(Identity { certificate: certificate?.0, key: key?.0, ocsp: ocsp.map(|ocsp| ocsp.0) })
}

/// `None` if the file gives neither key.
fn trust(
    given: &Spanned<()>,
    authorities: Option<OneOrMany<Text<AuthorityText>>>,
    pem: Option<Text<Pem>>,
    key: &str,
    problems: &mut Problems,
) -> Result<Option<Trust>, AlreadyReported> {
    match (authorities, pem) {
        (Some(authorities), _) => {
            let list: Vec<Authority> = authorities.into_vec().into_iter().map(|one| one.0).collect();
            match list.as_slice() {
                [Authority::System] => return Ok(Some(Trust::System)),
                [Authority::Spiffe] => return Ok(Some(Trust::Spiffe)),
                _ => {}
            }
            let mut files = Vec::new();
            for authority in list {
                let Authority::File(file) = authority else {
                    problems.wrong(
                        given.place(key),
                        format!("`{key}` mixes files with `system` or `spiffe`"),
                        "one word, or files; a file with this name is written `./system`",
                    );
                    return Err(AlreadyReported);
                };
                files.push(file);
            }
            Ok(Some(Trust::Files(files)))
        }
        (None, Some(pem)) => Ok(Some(Trust::Inline(Arc::from(&*pem.0)))),
        (None, None) => Ok(None),
    }
}
