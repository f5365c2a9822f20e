//! HAProxy's `bind`: addresses and TLS.

use std::borrow::Cow;

use crate::plan::{ClientCertDemand, PlannedListener};
use crate::remark::Remarks;
use crate::value::{ConfigValue, YamlMap};

use super::{keywords, tokens::ConfigLine};

/// Reads an address, with its TLS. Returns the reason if everything behind it must be refused.
pub(super) fn bind(
    line: &ConfigLine,
    binds: &mut Vec<String>,
    out: &mut PlannedListener,
    remarks: &mut Remarks,
) -> Option<Cow<'static, str>> {
    addresses(line, binds, remarks);
    if line.has("accept-proxy") {
        out.keys.set("proxy_protocol", "require");
    }
    if let Some(mode) = line.after("mode").filter(|mode| mode.bytes().all(|b| (b'0'..b'8').contains(&b))) {
        out.keys.set("unix_mode", format!("0{}", mode.trim_start_matches('0')));
    }
    if let Some(word) = keywords::unknown_of_bind(line.rest(2)) {
        let what = format!(
            "this import doesn't know the option `{word}` of an address, which may refuse clients. Find out what it does"
        );
        return Some(what.into());
    }
    if line.has("transparent") {
        remarks.point(&line.at, "attache has no `transparent` binding; `transparent: true` gets the original destination of a redirected connection from the kernel.");
    }
    if !line.has("ssl") {
        if out.keys.get("tls").is_some() {
            out.keys.child("tls").set("mode", "permissive");
        }
        return None;
    }
    let plain = !binds.is_empty() && out.keys.get("tls").is_none() && binds.len() > 1;
    let mut tls = out.keys.child("tls");
    let first = tls.get("certificate").is_none();
    if plain {
        tls.set("mode", "permissive");
    }
    certificate(line, &mut tls, remarks);
    if let Err(why) = client_certificates(line, first, &mut tls, remarks) {
        return Some(why.into());
    }
    tls_options(line, &mut tls, remarks);
    None
}

fn addresses(line: &ConfigLine, binds: &mut Vec<String>, remarks: &mut Remarks) {
    for address in line.word(1).split(',') {
        let address = address.trim_start_matches("ipv4@").trim_start_matches("ipv6@");
        if let Some(path) =
            address.strip_prefix("unix@").or_else(|| address.starts_with('/').then_some(address))
        {
            binds.push(format!("unix:{path}"));
        } else if address.contains('$')
            || address.contains('@')
            || address.rsplit(':').next().is_some_and(|port| port.contains('-'))
        {
            remarks.point(&line.at, format!("the address `{address}` is left out: attache has no variables, ranges of ports or other address families there."));
        } else if let Some(port) = address.strip_prefix("*:").or_else(|| address.strip_prefix(":::")) {
            binds.push(format!(":{port}"));
        } else if address.matches(':').count() > 1 && !address.starts_with('[') {
            let (host, port) = address.rsplit_once(':').unwrap_or((address, "80"));
            binds.push(format!("[{host}]:{port}"));
        } else {
            binds.push(address.to_owned());
        }
    }
}

fn certificate(line: &ConfigLine, tls: &mut YamlMap, remarks: &mut Remarks) {
    match line.after("crt") {
        Some(file) if tls.get("certificate").is_none() => {
            tls.set("certificate", file);
            tls.set("key", file);
            if file.ends_with('/') {
                remarks.soft(&line.at, "a folder of certificates is not read: list them in `certificates`.");
            } else {
                remarks.note(&line.at, "certificate and key are in one file, which is read for both.");
            }
        }
        Some(_) => {}
        None => remarks.point(
            &line.at,
            "the config has no certificate of this address: set `certificate`, `key` and `certificates`.",
        ),
    }
    if tls.get("certificate").is_none() {
        tls.set("certificate", "/etc/attache/tls.crt");
        tls.set("key", "/etc/attache/tls.key");
    }
}

/// The demand for clients' certificates. `first`: no earlier address of the listener has TLS. `Err`: why everything
/// behind the address must be refused.
fn client_certificates(
    line: &ConfigLine,
    first: bool,
    tls: &mut YamlMap,
    remarks: &mut Remarks,
) -> Result<(), &'static str> {
    if line.has("crt-list") {
        return Err(
            "the file of `crt-list` is not read, and it may require clients' certificates. Set `certificates`, and `client_ca` if it does",
        );
    }
    let asked = demanded(tls);
    let wanted = match line.after("verify") {
        Some("required") => ClientCertDemand::Required,
        Some("optional") => ClientCertDemand::Optional,
        _ => ClientCertDemand::Nothing,
    };
    let files: Vec<String> = ["ca-file", "ca-verify-file"]
        .iter()
        .filter_map(|key| line.after(key))
        .map(ToOwned::to_owned)
        .collect();
    let file = (!files.is_empty()).then(|| ConfigValue::from(files));
    if wanted != ClientCertDemand::Nothing {
        match (file, tls.get("client_ca")) {
            (None, _) if wanted == ClientCertDemand::Required => {
                return Err(
                    "clients must show a certificate, and there is no `ca-file` with its roots. Set `client_ca`",
                );
            }
            (Some(file), Some(known)) if *known != file => {
                return Err(
                    "another address of this listener verifies clients with other roots. Give each address its own listener",
                );
            }
            (Some(file), _) => tls.set("client_ca", file),
            (None, _) => {}
        }
    }
    if !first && asked != wanted {
        remarks.point(
            &line.at,
            "a listener has one rule for clients' certificates: it is that of its strictest address.",
        );
    }
    if asked.max(wanted) == ClientCertDemand::Optional && tls.get("client_ca").is_some() {
        tls.set("client_optional", true);
    } else {
        tls.0.retain(|(key, _)| key != "client_optional");
    }
    Ok(())
}

fn tls_options(line: &ConfigLine, tls: &mut YamlMap, remarks: &mut Remarks) {
    if let Some(file) = line.after("crl-file") {
        tls.set("crls", file);
    }
    if line.after("ssl-min-ver") == Some("TLSv1.3") || line.has("force-tlsv13") || line.has("no-tlsv12") {
        tls.set("min_version", "1.3");
    } else if line.after("ssl-min-ver").is_some_and(|version| version != "TLSv1.2") {
        remarks
            .point(&line.at, "clients with TLS 1.1 or older are refused: attache's lowest version is 1.2.");
    }
    if line.has("strict-sni") {
        remarks.point(&line.at, "`strict-sni` is left out: if no certificate has the requested name, the client gets the first certificate; in the original the handshake failed.");
    }
    if line.has("maxconn") {
        remarks.soft(
            &line.at,
            "`maxconn` of one address is left out: `max_connections` limits the whole listener.",
        );
    }
    if line.has("generate-certificates") {
        remarks.point(
            &line.at,
            "attache makes no certificates for requested names: list certificates in `certificates`.",
        );
    }
    if line.has("ciphers") || line.has("ciphersuites") || line.has("curves") {
        remarks.soft(&line.at, "attache uses the cipher suites and curves of rustls, which are all safe.");
    }
}

/// The demand for clients' certificates that the listener's TLS already has.
fn demanded(tls: &YamlMap) -> ClientCertDemand {
    match (tls.get("client_ca"), tls.get("client_optional")) {
        (None, _) => ClientCertDemand::Nothing,
        (Some(_), Some(_)) => ClientCertDemand::Optional,
        (Some(_), None) => ClientCertDemand::Required,
    }
}
