//! TLS in both directions: a certificate has its key, and rules about clients need a client certificate.

use std::sync::Arc;

use crate::{
    diagnostic::Problems,
    model::{Identity, TlsClient, TlsMode, TlsServer, Trust},
    section::Read,
    shapes::{At, OneOrMany, Txt},
    text::{Authority, AuthorityText, File, Pem},
};

pub(crate) fn client(
    raw: Option<At<Read<TlsClient>>>,
    problems: &mut Problems,
) -> Result<TlsClient, Reported> {
    let Some(raw) = raw else { return Ok(TlsClient::default()) };
    let (given, Read { section: mut tls, rest }) = raw.open();
    let identity = identity(&given, rest.certificate, rest.key, None, problems);
    let trust = trust(&given, rest.ca, rest.ca_pem, "ca", problems);
    if let Some(at) = given.key("insecure_skip_verify").filter(|_| tls.insecure) {
        problems.warn(
            at,
            "the peer's certificate isn't verified: any peer is trusted",
            "name the authority with `ca` instead",
        );
    }
    if let (Some(at), true, Ok(Some(_))) = (given.key("spiffe"), tls.spiffe, &identity) {
        problems.wrong(
            at,
            "both `spiffe` and a certificate from files",
            "a client shows one certificate: keep one",
        );
    }
    // With an own SVID, peers need one of the same trust domain.
    tls.trust = trust?.unwrap_or(if tls.spiffe { Trust::Spiffe } else { Trust::System });
    tls.identity = identity?;
    Ok(tls)
}

/// The problem was reported.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reported;

/// `None` is `mode: off`.
pub(crate) fn server(
    raw: At<Read<TlsServer>>,
    problems: &mut Problems,
) -> Result<Option<TlsServer>, Reported> {
    let (given, Read { section: mut tls, rest }) = raw.open();
    if tls.mode == TlsMode::Off {
        return Ok(None);
    }
    let first = identity(&given, rest.certificate, rest.key, rest.ocsp, problems);
    let first_is_right = first.is_ok();
    tls.identities.splice(0..0, first.ok().flatten());
    if tls.identities.is_empty()
        && !tls.spiffe
        && first_is_right
        && !given.wrong.iter().any(|key| key.starts_with("certificate"))
    {
        problems.wrong(
            given.at,
            "`tls` of a listener has no certificate",
            "`certificate: /certs/tls.crt` and `key: /certs/tls.key`, or `spiffe: true`",
        );
    }
    let client_trust = trust(&given, rest.client_ca, rest.client_ca_pem, "client_ca", problems);
    let verifies = !matches!(client_trust, Ok(None));
    for key in ["allow", "deny", "crls", "client_optional"] {
        let at = given.key(key).filter(|_| key != "client_optional" || tls.client_optional);
        if let Some(at) =
            at.filter(|_| !verifies && !given.wrong.iter().any(|key| key.starts_with("client_ca")))
        {
            problems.wrong(
                at,
                format!("`{key}` without `client_ca`: no client is asked for a certificate"),
                "name who signs the clients' certificates: `client_ca: /certs/ca.crt`",
            );
        }
    }
    if tls.identities.is_empty() && !tls.spiffe {
        return Err(Reported);
    }
    tls.client_trust = client_trust?;
    Ok(Some(tls))
}

/// `None` isn't given.
fn identity(
    given: &At<()>,
    certificate: Option<Txt<File>>,
    key: Option<Txt<File>>,
    ocsp: Option<Txt<File>>,
    problems: &mut Problems,
) -> Result<Option<Identity>, Reported> {
    let (there, missing) = match (certificate, key, ocsp) {
        (Some(certificate), Some(key), ocsp) => {
            let ocsp = ocsp.map(|ocsp| ocsp.0);
            return Ok(Some(Identity { certificate: certificate.0, key: key.0, ocsp }));
        }
        (None, None, None) => return Ok(None),
        _ if given.is_wrong("certificate") || given.is_wrong("key") => return Err(Reported),
        (Some(_), None, _) => ("certificate", "key"),
        (None, Some(_), _) => ("key", "certificate"),
        (None, None, Some(_)) => ("ocsp", "certificate"),
    };
    let at = given.place(there);
    problems.wrong(at, format!("`{there}` without `{missing}`"), format!("add `{missing}:` beside it"));
    Err(Reported)
}

/// `None` isn't given.
fn trust(
    given: &At<()>,
    authorities: Option<OneOrMany<Txt<AuthorityText>>>,
    pem: Option<Txt<Pem>>,
    key: &str,
    problems: &mut Problems,
) -> Result<Option<Trust>, Reported> {
    match (authorities, pem) {
        (Some(_), Some(_)) => {
            let pem = format!("{key}_pem");
            problems.wrong(given.place(&pem), format!("both `{key}` and `{pem}`"), "keep one of them");
            Err(Reported)
        }
        (Some(authorities), None) => {
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
                        "one word, or files; a file itself called so is `./system`",
                    );
                    return Err(Reported);
                };
                files.push(file);
            }
            Ok(Some(Trust::Files(files)))
        }
        (None, Some(pem)) => Ok(Some(Trust::Inline(Arc::from(&*pem.0)))),
        (None, None) => Ok(None),
    }
}
