//! TLS in both directions: a certificate has its key, and who may come is only asked of those who show a certificate.

use std::sync::Arc;

use crate::{
    diagnostic::{Place, Problems},
    model::{Identity, TlsClient, TlsMode, TlsServer, TlsVersion, Trust},
    raw::{self, At, OneOrMany, Txt},
    text::{Authority, File, Pem},
};

pub(crate) fn client(
    raw: Option<At<raw::TlsClient>>,
    problems: &mut Problems,
) -> Result<TlsClient, Reported> {
    let Some(At { value: raw, wrong, .. }) = raw else {
        return Ok(TlsClient {
            name: None,
            trust: Trust::System,
            peers: Vec::new(),
            identity: None,
            spiffe: false,
            min_version: TlsVersion::default(),
            pins: Vec::new(),
            crls: Vec::new(),
            insecure: false,
        });
    };
    let identity = identity(raw.certificate, raw.key, None, &wrong, problems);
    let trust = trust(raw.ca, raw.ca_pem, "ca", problems);
    let insecure = raw.insecure_skip_verify.as_ref().is_some_and(|insecure| insecure.value);
    if let Some(At { at, value: true, .. }) = raw.insecure_skip_verify {
        problems.warn(
            at,
            "the peer's certificate isn't verified: whoever answers is believed",
            "name the authority with `ca` instead",
        );
    }
    let spiffe = raw.spiffe.as_ref().is_some_and(|spiffe| spiffe.value);
    if let (Some(At { at, value: true, .. }), Ok(Some(_))) = (raw.spiffe, &identity) {
        problems.wrong(
            at,
            "both `spiffe` and a certificate from files",
            "a client shows one certificate: keep one",
        );
    }
    // Who shows an SVID talks to those who show one.
    let trust = trust?.unwrap_or(if spiffe { Trust::Spiffe } else { Trust::System });
    Ok(TlsClient {
        name: raw.name.map(|name| name.0.0),
        trust,
        peers: raw
            .peers
            .map(OneOrMany::into_vec)
            .unwrap_or_default()
            .into_iter()
            .map(|san| san.0.0)
            .collect(),
        identity: identity?,
        spiffe,
        min_version: raw.min_version.unwrap_or_default(),
        pins: raw.pins.map(OneOrMany::into_vec).unwrap_or_default().into_iter().map(|pin| pin.0.0).collect(),
        crls: files(raw.crls),
        insecure,
    })
}

/// What is wrong has been said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reported;

/// `None` is `mode: off`.
pub(crate) fn server(
    raw: At<raw::TlsServer>,
    problems: &mut Problems,
) -> Result<Option<TlsServer>, Reported> {
    let At { at, wrong, value: raw, .. } = raw;
    let mode = match raw.mode {
        Some(raw::TlsMode::Off) => return Ok(None),
        Some(raw::TlsMode::Permissive) => TlsMode::Permissive,
        Some(raw::TlsMode::Strict) | None => TlsMode::Strict,
    };
    let first = identity(raw.certificate, raw.key, raw.ocsp, &wrong, problems);
    let others = raw.certificates.unwrap_or_default().into_iter().map(|raw| Identity {
        certificate: raw.certificate.0.0,
        key: raw.key.0.0,
        ocsp: raw.ocsp.map(|ocsp| ocsp.0.0),
    });
    let first_is_right = first.is_ok();
    let spiffe = raw.spiffe.unwrap_or(false);
    let identities: Vec<Identity> = first.ok().flatten().into_iter().chain(others).collect();
    if identities.is_empty()
        && !spiffe
        && first_is_right
        && !wrong.iter().any(|key| key.starts_with("certificate"))
    {
        problems.wrong(
            at,
            "`tls` of a listener has no certificate",
            "`certificate: /certs/tls.crt` and `key: /certs/tls.key`, or `spiffe: true`",
        );
    }
    let client_trust = trust(raw.client_ca, raw.client_ca_pem, "client_ca", problems);
    let verifies = !matches!(client_trust, Ok(None));
    let needs_clients = [
        ("allow", raw.allow.as_ref().map(|allow| allow.at)),
        ("deny", raw.deny.as_ref().map(|deny| deny.at)),
        ("crls", raw.crls.as_ref().map(|crls| crls.at)),
        ("client_optional", raw.client_optional.as_ref().filter(|optional| optional.value).map(|o| o.at)),
    ];
    for (key, at) in needs_clients {
        if let Some(at) = at.filter(|_| !verifies && !wrong.iter().any(|key| key.starts_with("client_ca"))) {
            problems.wrong(
                at,
                format!("`{key}` without `client_ca`: no client is asked for a certificate"),
                "name who signs the clients' certificates: `client_ca: /certs/ca.crt`",
            );
        }
    }
    let sans = |list: Option<At<OneOrMany<Txt<crate::text::SanText>>>>| {
        let list = list.map(|list| list.value.into_vec()).unwrap_or_default();
        list.into_iter().map(|san| san.0.0).collect::<Vec<_>>()
    };
    if identities.is_empty() && !spiffe {
        return Err(Reported);
    }
    Ok(Some(TlsServer {
        identities,
        spiffe,
        mode,
        client_trust: client_trust?,
        client_optional: raw.client_optional.is_some_and(|optional| optional.value),
        allow: sans(raw.allow),
        deny: sans(raw.deny),
        min_version: raw.min_version.unwrap_or_default(),
        crls: files(raw.crls.map(|crls| crls.value)),
    }))
}

fn files(list: Option<OneOrMany<Txt<File>>>) -> Vec<std::path::PathBuf> {
    list.map(OneOrMany::into_vec).unwrap_or_default().into_iter().map(|file| file.0.0).collect()
}

/// `None` isn't given.
fn identity(
    certificate: Option<At<Txt<File>>>,
    key: Option<At<Txt<File>>>,
    ocsp: Option<At<Txt<File>>>,
    wrong: &[String],
    problems: &mut Problems,
) -> Result<Option<Identity>, Reported> {
    match (certificate, key, ocsp) {
        (Some(certificate), Some(key), ocsp) => Ok(Some(Identity {
            certificate: certificate.value.0.0,
            key: key.value.0.0,
            ocsp: ocsp.map(|ocsp| ocsp.value.0.0),
        })),
        (None, None, None) => Ok(None),
        _ if wrong.iter().any(|key| key == "certificate" || key == "key") => Err(Reported),
        (Some(only), None, _) => one_of_two(only.at, "certificate", "key", problems),
        (None, Some(only), _) => one_of_two(only.at, "key", "certificate", problems),
        (None, None, Some(only)) => one_of_two(only.at, "ocsp", "certificate", problems),
    }
}

fn one_of_two<T>(at: Place, there: &str, missing: &str, problems: &mut Problems) -> Result<T, Reported> {
    problems.wrong(at, format!("`{there}` without `{missing}`"), format!("add `{missing}:` beside it"));
    Err(Reported)
}

/// `None` isn't given.
fn trust(
    authorities: Option<At<OneOrMany<Txt<Authority>>>>,
    pem: Option<At<Txt<Pem>>>,
    key: &str,
    problems: &mut Problems,
) -> Result<Option<Trust>, Reported> {
    match (authorities, pem) {
        (Some(_), Some(pem)) => {
            problems.wrong(pem.at, format!("both `{key}` and `{key}_pem`"), "keep one of them");
            Err(Reported)
        }
        (Some(authorities), None) => {
            let at = authorities.at;
            let list: Vec<Authority> = authorities.value.into_vec().into_iter().map(|one| one.0).collect();
            match list.as_slice() {
                [Authority::System] => return Ok(Some(Trust::System)),
                [Authority::Spiffe] => return Ok(Some(Trust::Spiffe)),
                _ => {}
            }
            let mut files = Vec::new();
            for authority in list {
                let Authority::File(file) = authority else {
                    problems.wrong(
                        at,
                        format!("`{key}` mixes files with `system` or `spiffe`"),
                        "one word, or files; a file itself called so is `./system`",
                    );
                    return Err(Reported);
                };
                files.push(file);
            }
            Ok(Some(Trust::Files(files)))
        }
        (None, Some(pem)) => Ok(Some(Trust::Inline(Arc::from(&*pem.value.0.0)))),
        (None, None) => Ok(None),
    }
}
