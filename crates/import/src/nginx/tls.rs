//! TLS of an address: its certificates, and what it asks of clients.

use crate::plan::{ClientCertDemand, PlannedListener};
use crate::remark::Remarks;
use crate::tree::FileLine;
use crate::value::{ConfigValue, YamlMap};

use super::{NginxImport, listen::Listen, tokens::Directive};

/// Finds the directive of a name that holds for a server: its own, else that of `http`.
type DirectiveFinder<'g, 'd> = &'g dyn Fn(&str) -> Option<&'d Directive>;

/// Reads TLS of an address. Returns the reason if everything behind it must be refused.
pub(super) fn tls(
    all: &[(Directive, Listen)],
    out: &mut PlannedListener,
    remarks: &mut Remarks,
    cx: &NginxImport,
) -> Option<(FileLine, String)> {
    let mut refused = None;
    let mut asked: Vec<ClientCertDemand> = Vec::new();
    for (server, _) in all {
        let get =
            |name: &str| server.last(name).or_else(|| cx.http.iter().rev().find(|one| one.name() == name));
        let mut tls = out.keys.child("tls");
        certificate(&get, &mut tls);
        let wanted = client_certificates(server, &get, remarks);
        asked.push(wanted);
        if wanted != ClientCertDemand::Nothing
            && let Err(why) = client_roots(server, &get, &mut tls)
        {
            refused = Some(why);
        }
        if let Some(crl) = get("ssl_crl") {
            tls.set("crls", crl.word(1));
        }
        versions(&get, &mut tls, remarks);
    }
    let mut tls = out.keys.child("tls");
    if tls.get("certificate").is_none() {
        remarks.point(&all[0].0.at, "the config has no certificate: set its files.");
        tls.set("certificate", "/etc/attache/tls.crt");
        tls.set("key", "/etc/attache/tls.key");
    }
    let most = asked.iter().copied().max().unwrap_or(ClientCertDemand::Nothing);
    if most == ClientCertDemand::Optional {
        tls.set("client_optional", true);
    }
    if asked.iter().any(|one| *one != most) {
        remarks.point(
            &all[0].0.at,
            "all servers of this address now require clients' certificates as the strictest server does. Give each server its own address.",
        );
    }
    refused
}

/// Adds a server's certificate: the first is `certificate`, the others stand in `certificates`.
fn certificate(get: DirectiveFinder<'_, '_>, tls: &mut YamlMap) {
    let (Some(certificate), Some(key)) = (get("ssl_certificate"), get("ssl_certificate_key")) else { return };
    if tls.get("certificate").is_none() {
        tls.set("certificate", certificate.word(1));
        tls.set("key", key.word(1));
    } else if tls.get("certificate") != Some(&certificate.word(1).into()) {
        let mut more = match tls.get("certificates") {
            Some(ConfigValue::List(list)) => list.clone(),
            _ => Vec::new(),
        };
        let mut map = YamlMap::default();
        map.set("certificate", certificate.word(1));
        map.set("key", key.word(1));
        more.push(map.into());
        tls.set("certificates", ConfigValue::List(more));
    }
}

fn client_certificates(
    server: &Directive,
    get: DirectiveFinder<'_, '_>,
    remarks: &mut Remarks,
) -> ClientCertDemand {
    match get("ssl_verify_client").map(|one| one.word(1)) {
        Some("on") => ClientCertDemand::Required,
        Some("optional") => ClientCertDemand::Optional,
        Some("optional_no_ca") => {
            remarks.soft(
                &server.at,
                "nginx requested clients' certificates without verifying them; attache doesn't request them.",
            );
            ClientCertDemand::Nothing
        }
        _ => ClientCertDemand::Nothing,
    }
}

/// The roots of clients' certificates. `Err`: why everything behind the address must be refused.
fn client_roots(
    server: &Directive,
    get: DirectiveFinder<'_, '_>,
    tls: &mut YamlMap,
) -> Result<(), (FileLine, String)> {
    let ca = get("ssl_client_certificate").or_else(|| get("ssl_trusted_certificate"));
    let Some(ca) = ca else {
        return Err((server.at.clone(), "clients must show a certificate, and the config has no roots for it. Set `client_ca`; then replace the refusal".to_owned()));
    };
    if tls.get("client_ca").is_some_and(|known| *known != ca.word(1).into()) {
        return Err((ca.at.clone(), "another server of this address verifies clients with other roots. Give each server its own address; then replace the refusal".to_owned()));
    }
    tls.set("client_ca", ca.word(1));
    Ok(())
}

fn versions(get: DirectiveFinder<'_, '_>, tls: &mut YamlMap, remarks: &mut Remarks) {
    if let Some(versions) = get("ssl_protocols") {
        let has = |word: &str| versions.words.iter().any(|own| own == word);
        if has("TLSv1") || has("TLSv1.1") {
            remarks.soft(&versions.at, "attache has no TLS 1.0 and 1.1: 1.2 is the lowest version.");
        } else if has("TLSv1.3") && !has("TLSv1.2") {
            tls.set("min_version", "1.3");
        }
    }
    if let Some(ciphers) = get("ssl_ciphers") {
        remarks.soft(
            &ciphers.at,
            "attache uses the cipher suites of rustls, which are all safe; no key chooses them.",
        );
    }
}
