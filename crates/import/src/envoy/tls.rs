//! TLS of listeners and clusters: certificates, roots, names and versions, from files, inline texts, or SDS files.

use crate::plan::PlannedListener;
use crate::remark::{Impact, Remarks};
use crate::tree::{FileLine, Node};
use crate::value::{ConfigValue, YamlMap};

use super::{EnvoyImport, resources, words};

/// The TLS context of a chain or cluster, of v3 or v2.
fn context(node: &Node) -> Option<&Node> {
    if let Some(context) = node.get("tls_context") {
        return Some(context);
    }
    let socket = node.get("transport_socket")?;
    let mut config = words::config(socket);
    let kind = words::extension(socket);
    if matches!(kind.as_str(), "upstream_proxy_protocol_transport" | "proxy_protocol_upstream_transport") {
        config = words::config(config.get("transport_socket")?);
    }
    let raw = kind.contains("raw_buffer")
        && words::last(config.str("@type").unwrap_or_default()) == "RawBuffer"
        || kind == "raw_buffer";
    (!raw).then_some(config)
}

pub(crate) fn is_downstream(chain: &Node) -> bool {
    context(chain).is_some()
}

const LISTENER_KNOWN: &[&str] = &[
    "common_tls_context",
    "require_client_certificate",
    "disable_stateless_session_resumption",
    "disable_stateful_session_resumption",
    "session_timeout",
    "require_sni",
    "full_scan_certs_on_sni_mismatch",
    "prefer_client_ciphers",
    "session_ticket_keys",
    "session_ticket_keys_sds_secret_config",
];

/// Certificates and roots of a listener. False if the result would accept more clients than the original: then the
/// chain is left out.
pub(crate) fn downstream(
    chain: &Node,
    listener: &mut PlannedListener,
    remarks: &mut Remarks,
    cx: &EnvoyImport,
) -> bool {
    let Some(context) = context(chain) else { return true };
    let common = context.down(&["common_tls_context"]);
    remarks.rest(
        context,
        "TLS of the listener",
        LISTENER_KNOWN,
        &[("ocsp_staple_policy", Impact::Soft, "give the response's file as `ocsp`.")],
    );
    let mut tls = listener.keys.child("tls");
    if !certificates(chain, common, &mut tls, remarks, cx) {
        return false;
    }
    versions(common, &mut tls, remarks);
    drop(tls);
    let Some(clients) = client_certificates(context, common, remarks, cx) else {
        forget(listener);
        return false;
    };
    listener_agrees(listener, &clients, &chain.at, remarks)
}

/// Adds the certificates of a chain to those of the listener. False where none is in a file that is here.
fn certificates(
    chain: &Node,
    common: &Node,
    tls: &mut YamlMap,
    remarks: &mut Remarks,
    cx: &EnvoyImport,
) -> bool {
    let mut pairs = pairs(common, remarks, cx);
    if pairs.is_empty() {
        remarks.point(&chain.at, "the import found no file with the certificate of this chain, so the chain is left out. Set `tls.certificate` and `tls.key`.");
        return false;
    }
    if tls.get("certificate").is_none() {
        let (certificate, key) = pairs.remove(0);
        tls.set("certificate", certificate);
        tls.set("key", key);
    }
    let mut more = match tls.get("certificates") {
        Some(ConfigValue::List(list)) => list.clone(),
        _ => Vec::new(),
    };
    pairs.retain(|(certificate, _)| tls.get("certificate") != Some(&ConfigValue::from(certificate.as_str())));
    for (certificate, key) in pairs {
        let mut map = YamlMap::default();
        map.set("certificate", certificate);
        map.set("key", key);
        if !more.contains(&ConfigValue::Map(map.clone())) {
            more.push(ConfigValue::Map(map));
        }
    }
    if !more.is_empty() {
        tls.set("certificates", ConfigValue::List(more));
        remarks.note(&chain.at, "a certificate is chosen by the names in it, not by its chain.");
    }
    true
}

/// The keys for clients' certificates. `None` if more clients could get in than before.
fn client_certificates(
    context: &Node,
    common: &Node,
    remarks: &mut Remarks,
    cx: &EnvoyImport,
) -> Option<YamlMap> {
    let mut clients = YamlMap::default();
    let Some(validation) = validation(common, cx) else {
        if common.get("validation_context_sds_secret_config").is_some() {
            remarks.point(&common.at, "the roots for clients' certificates come from a control plane: the chain is left out. Set `client_ca` to a file with them.");
            return None;
        }
        if context.is("require_client_certificate") {
            remarks.point(
                &context.at,
                "clients must show a certificate, which the original doesn't verify: the chain is left out. Set `client_ca` to the roots.",
            );
            return None;
        }
        return Some(clients);
    };
    if !clients_of(&validation, &mut clients, remarks) {
        return None;
    }
    let roots = clients.get("client_ca").is_some() || clients.get("client_ca_pem").is_some();
    if context.is("require_client_certificate") && !roots {
        remarks.point(
            &validation.at,
            "clients must show a certificate, and its roots are not in a file: the chain is left out. Set `client_ca` to the roots.",
        );
        return None;
    }
    if clients.get("client_ca").is_some() && !context.is("require_client_certificate") {
        if clients.get("allow").is_some() {
            remarks.note(
                &context.at,
                "a client without a certificate is refused, too, because `allow` lists the allowed identities.",
            );
        }
        clients.set("client_optional", true);
    }
    Some(clients)
}

/// Removes TLS from the listener if no chain has it: a chain that is left out must not open the others.
fn forget(listener: &mut PlannedListener) {
    if listener.chains.iter().all(|chain| chain.closed) {
        listener.keys.0.retain(|(key, _)| key != "tls");
    }
}

const CLIENTS: &[&str] = &["client_ca", "client_ca_pem", "client_optional", "allow", "crls"];

/// A listener has one setting for clients' certificates, not one for each chain.
fn listener_agrees(
    listener: &mut PlannedListener,
    clients: &YamlMap,
    at: &FileLine,
    remarks: &mut Remarks,
) -> bool {
    let before = listener.chains.iter().any(|chain| !chain.closed);
    let mut tls = listener.keys.child("tls");
    let same = CLIENTS.iter().all(|key| tls.get(key) == clients.get(key));
    if before && !same {
        remarks.point(
            at,
            "another chain of this listener requires certificates of other roots: this chain is left out. Give it its own listener.",
        );
        return false;
    }
    for (key, value) in &clients.0 {
        tls.set(key, value.clone());
    }
    true
}

/// The verification of clients. False if it can't be carried over.
fn clients_of(validation: &Node, clients: &mut YamlMap, remarks: &mut Remarks) -> bool {
    if let Some((key, value)) = validation
        .entries()
        .iter()
        .find(|(key, value)| !value.is_empty() && !VALIDATION.contains(&crate::tree::snake(key).as_str()))
    {
        remarks.point(
            &value.at,
            format!("attache lacks `{key}` for clients' certificates: the chain is left out. Use `client_ca` and `allow`."),
        );
        return false;
    }
    if validation.get("crl").is_some_and(|crl| crl.str("filename").is_none()) {
        remarks.point(&validation.at, "the revocation list is not in a file: the chain is left out. Write the list to a file, and set `crls` to it.");
        return false;
    }
    if let Some(file) = source(validation.get("trusted_ca"), remarks) {
        clients.set(if file.pem { "client_ca_pem" } else { "client_ca" }, file.text);
    }
    crls(validation, clients, remarks);
    let identities = identities(validation, remarks);
    let Some(identities) = identities else { return false };
    if !identities.is_empty() {
        clients.set("allow", identities.clone());
    }
    if validation.get("verify_certificate_hash").is_some()
        || validation.get("verify_certificate_spki").is_some()
    {
        remarks.point(&validation.at, "attache doesn't compare hashes of clients' certificates: the chain is left out. Use `allow` with their names.");
        return false;
    }
    if clients.get("client_ca").is_none() && clients.get("client_ca_pem").is_none() {
        return identities.is_empty() && validation.get("match_typed_subject_alt_names").is_none();
    }
    true
}

/// Keys of a validation context of clients that are read, or whose loss only refuses more clients.
const VALIDATION: &[&str] = &[
    "trusted_ca",
    "crl",
    "match_typed_subject_alt_names",
    "match_subject_alt_names",
    "verify_subject_alt_name",
    "verify_certificate_hash",
    "verify_certificate_spki",
    "system_root_certs",
    "watched_directory",
    "allow_expired_certificate",
    "trust_chain_verification",
    "only_verify_leaf_cert_crl",
];

/// Ways to verify an upstream that can't be carried over.
const UNVERIFIED: &[(&str, &str)] = &[
    (
        "verify_certificate_hash",
        "a hash of the whole certificate was compared; `pins` compares that of its key",
    ),
    ("custom_validator_config", "an extension verified the certificate"),
];

fn crls(validation: &Node, out: &mut YamlMap, remarks: &mut Remarks) {
    if let Some(node) = validation.get("crl") {
        match source(Some(node), remarks) {
            Some(file) if !file.pem => out.set("crls", file.text),
            _ => remarks.point(
                &node.at,
                "the revocation list is inline and is left out: write it to a file, and set `crls` to it.",
            ),
        }
    }
}

/// Subject alternative names in attache's notation. `None` if attache can't express one of them.
fn identities(validation: &Node, remarks: &mut Remarks) -> Option<Vec<String>> {
    let mut found = Vec::new();
    let all = ["match_typed_subject_alt_names", "match_subject_alt_names", "verify_subject_alt_name"];
    for item in all.iter().flat_map(|key| validation.list(key)) {
        let matcher = item.get("matcher").unwrap_or(item);
        if !matches!(item.str("san_type"), None | Some("DNS" | "URI" | "2" | "3")) {
            remarks.point(
                &item.at,
                "names of this type in a certificate are not compared: DNS names and URIs are.",
            );
            return None;
        }
        let pattern = if let Some(exact) =
            matcher.str("exact").or_else(|| if matcher.entries().is_empty() { matcher.text() } else { None })
        {
            Some(exact.to_owned())
        } else if let Some(prefix) = matcher.str("prefix") {
            (prefix.contains("://") && prefix.ends_with('/')).then(|| format!("{prefix}**"))
        } else if let Some(suffix) = matcher.str("suffix") {
            suffix.starts_with('.').then(|| format!("*{suffix}"))
        } else {
            None
        };
        match pattern.filter(|pattern| !pattern.contains(' ')) {
            Some(pattern) => found.push(pattern),
            None => {
                remarks.point(&item.at, "attache can't express this pattern of certificate names. Use exact names, `spiffe://DOMAIN/PATH/**` or `*.suffix`.");
                return None;
            }
        }
    }
    Some(found)
}

const CLUSTER_KNOWN: &[&str] = &[
    "common_tls_context",
    "sni",
    "allow_renegotiation",
    "max_session_keys",
    "auto_host_sni",
    "auto_sni_san_validation",
];

/// TLS of an upstream. `None` if there is none; false if attache can't verify the peer as strictly as the original.
pub(crate) fn upstream(
    cluster: &Node,
    keys: &mut YamlMap,
    remarks: &mut Remarks,
    cx: &EnvoyImport,
) -> Option<bool> {
    let context = context(cluster)?;
    let common = context.down(&["common_tls_context"]);
    remarks.rest(
        context,
        "TLS of the cluster",
        CLUSTER_KNOWN,
        &[("enforce_rsa_key_usage", Impact::Soft, "rustls decides which key usages it accepts.")],
    );
    let mut tls = YamlMap::default();
    if let Some(name) = context.str("sni") {
        tls.set("name", name);
    }
    let mut own = pairs(common, remarks, cx);
    if !own.is_empty() {
        let (certificate, key) = own.remove(0);
        tls.set("certificate", certificate);
        tls.set("key", key);
    }
    versions(common, &mut tls, remarks);
    let (believes, verified) = validation(common, cx)
        .map_or((false, true), |validation| verification(&validation, context, &mut tls, remarks));
    if common.get("validation_context_sds_secret_config").is_some() && !believes {
        remarks.point(&common.at, "the roots for this upstream come from a control plane; until `tls.ca` has them, attache uses the system's roots.");
    } else if !believes {
        remarks.soft(
            &context.at,
            "the original did not verify this peer; attache does, with the system's roots. If its root is private, set `tls.ca`.",
        );
    }
    if !tls.is_empty() {
        keys.set("tls", tls);
    }
    Some(verified)
}

/// The verification of an upstream: whether its roots are known, and whether it is as strict as the original.
fn verification(validation: &Node, context: &Node, tls: &mut YamlMap, remarks: &mut Remarks) -> (bool, bool) {
    let (mut believes, mut verified) = (false, true);
    for (key, why) in UNVERIFIED {
        if let Some(found) = validation.get(key).filter(|found| !found.is_empty()) {
            remarks.point(
                &found.at,
                format!("calls to this upstream fail: {why}. Write it as `tls` of the upstream."),
            );
            verified = false;
        }
    }
    if let Some(file) = source(validation.get("trusted_ca"), remarks) {
        tls.set(if file.pem { "ca_pem" } else { "ca" }, file.text);
        believes = true;
    }
    believes |= validation.get("system_root_certs").is_some();
    crls(validation, tls, remarks);
    verified &= validation.get("crl").is_none() || tls.get("crls").is_some();
    match identities(validation, remarks) {
        None => verified = false,
        Some(peers) if !peers.is_empty() => tls.set("peers", peers),
        Some(_) if believes && tls.get("ca").is_some() => remarks.note(
            &context.at,
            "the original accepted any name in the certificate of this peer. attache compares the name with the host: set `tls.name`, or list other names in `tls.peers`.",
        ),
        _ => {}
    }
    let pins: Vec<String> = validation
        .list("verify_certificate_spki")
        .iter()
        .filter_map(Node::text)
        .map(|pin| format!("sha256/{pin}"))
        .collect();
    if !pins.is_empty() {
        tls.set("pins", pins);
    }
    if validation.is("allow_expired_certificate")
        || validation.str("trust_chain_verification") == Some("ACCEPT_UNTRUSTED")
    {
        remarks.soft(
            &validation.at,
            "the original accepted expired or untrusted certificates; attache refuses them.",
        );
    }
    (believes, verified)
}

fn versions(common: &Node, tls: &mut YamlMap, remarks: &mut Remarks) {
    let params = common.down(&["tls_params"]);
    match params.str("tls_minimum_protocol_version") {
        Some("TLSv1_3" | "4") => tls.set("min_version", "1.3"),
        Some("TLSv1_0" | "TLSv1_1" | "1" | "2") => {
            remarks.soft(&params.at, "attache has no TLS 1.0 and 1.1: 1.2 is the lowest version.");
        }
        _ => {}
    }
    if params.get("cipher_suites").is_some()
        || params.get("ecdh_curves").is_some()
        || params.get("signature_algorithms").is_some()
    {
        remarks.soft(&params.at, "attache uses the cipher suites, curves and signature algorithms of rustls, which are all safe; no key chooses them.");
    }
    if params.str("tls_maximum_protocol_version").is_some_and(|version| version != "TLSv1_3") {
        remarks.soft(&params.at, "attache has no highest version: it uses TLS 1.3 if the peer supports it.");
    }
    if common.get("custom_handshaker").is_some() || common.get("key_log").is_some() {
        remarks.soft(&common.at, "attache has no custom handshakers and no key logs.");
    }
}

/// Certificates with their keys.
fn pairs(common: &Node, remarks: &mut Remarks, cx: &EnvoyImport) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut sources: Vec<Node> = common.list("tls_certificates").to_vec();
    for reference in common.list("tls_certificate_sds_secret_configs") {
        match resources::secret(reference, cx) {
            Some(secret) if secret.get("tls_certificate").is_some() => sources.push(secret.down(&["tls_certificate"]).clone()),
            _ => remarks.point(
                &reference.at,
                "this certificate comes from a control plane (SDS). Write it to files, or use `spiffe: true`, which gets it from the SPIFFE Workload API.",
            ),
        }
    }
    for source_of in &sources {
        let certificate = source(source_of.get("certificate_chain"), remarks);
        let key = source(source_of.get("private_key"), remarks);
        if source_of.get("private_key_provider").is_some() {
            remarks.point(&source_of.at, "attache can't use keys in hardware: set the key's file.");
        }
        match (certificate, key) {
            (Some(certificate), Some(key)) if !certificate.pem && !key.pem => {
                found.push((certificate.text, key.text));
            }
            (Some(_), Some(_)) => {
                let folder = "/etc/attache/tls";
                remarks.soft(
                    &source_of.at,
                    format!("this certificate is inline in the original, and attache reads files: write it to {folder}.crt and {folder}.key."),
                );
                found.push((format!("{folder}.crt"), format!("{folder}.key")));
            }
            _ => {}
        }
    }
    found
}

fn validation(common: &Node, cx: &EnvoyImport) -> Option<Node> {
    if let Some(direct) = common.get("validation_context") {
        return Some(direct.clone());
    }
    let combined = common.down(&["combined_validation_context"]);
    let by_secret = common
        .get("validation_context_sds_secret_config")
        .or_else(|| combined.get("validation_context_sds_secret_config"))
        .and_then(|reference| resources::secret(reference, cx))
        .and_then(|secret| secret.get("validation_context").cloned());
    match (combined.get("default_validation_context"), by_secret) {
        (Some(default), Some(secret)) => {
            let mut both = default.clone();
            for (key, value) in secret.entries() {
                both.set(key, value.clone());
            }
            Some(both)
        }
        (Some(default), None) if combined.get("validation_context_sds_secret_config").is_none() => {
            Some(default.clone())
        }
        (None, Some(secret)) => Some(secret),
        _ => None,
    }
}

struct PemSource {
    text: String,
    pem: bool,
}

/// A data source: a file, an environment variable, or text.
fn source(node: Option<&Node>, remarks: &mut Remarks) -> Option<PemSource> {
    let node = node?;
    if let Some(file) = node.str("filename") {
        return Some(PemSource { text: file.to_owned(), pem: false });
    }
    if let Some(text) = node.str("inline_string") {
        return Some(PemSource { text: text.to_owned(), pem: true });
    }
    remarks.point(&node.at, "inline bytes and environment variables are not read: give a file.");
    None
}
