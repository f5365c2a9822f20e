//! Upstreams, as the file would write them.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{
    HIDDEN,
    parts::{host_rewrite, identity, range, san, trust},
    strings,
};
use crate::{
    model::{Address, Credential, EndpointSource, HealthCheck, Probe, Secret, Target, TlsClient, Upstream},
    text::show_duration,
};

pub(super) fn upstream(upstream: &Upstream) -> Value {
    let mut value = json!({
        "line": upstream.line,
        "address": match &upstream.address {
            Address::Endpoints(sources) => sources.iter().map(source).collect::<Vec<_>>().into(),
            Address::Authority { .. } => Value::from("authority"),
            Address::OriginalDestination => "original-destination".into(),
        },
        "protocol": upstream.protocol,
        "host": host_rewrite(&upstream.host),
        "tls": upstream.tls.as_ref().map(tls),
        "balance": upstream.balance,
        "connect_timeout": show_duration(upstream.connect_timeout),
        "handshake_timeout": show_duration(upstream.handshake_timeout),
        "pool": upstream.pool,
        "circuit_breaker": upstream.circuit_breaker,
        "outlier_ejection": upstream.outlier_ejection,
        "health_check": upstream.health_check.as_ref().map(health_check),
        "on_unhealthy": upstream.on_unhealthy,
        "credential": upstream.credential.as_deref().map(credential),
        "adaptive_concurrency": upstream.adaptive_concurrency,
        "queue": upstream.queue,
        "proxy_protocol": upstream.proxy_protocol,
        "source_address": upstream.source_address.map(|address| address.to_string()),
    });
    if let (Address::Authority { max_hosts, deny }, Some(value)) = (&upstream.address, value.as_object_mut())
    {
        value.insert("max_hosts".into(), (*max_hosts).into());
        value.insert("deny".into(), deny.iter().map(range).collect::<Vec<_>>().into());
    }
    value
}

/// Where the secret is, never what is in it.
pub(super) fn credential(credential: &Credential) -> Value {
    let mut value = json!({
        "existing": credential.existing,
        "may_come_late": credential.may_come_late,
        "health_checks": credential.health_checks,
        "insecure_send_in_clear": credential.in_clear,
    });
    let file = credential.secret.file().display().to_string();
    let (kind, secret) = match &credential.secret {
        Secret::Bearer(_) => ("bearer", json!({ "file": file })),
        Secret::Basic { user, .. } => ("basic", json!({ "user": **user, "password_file": file })),
        Secret::Header { name, .. } => ("header", json!({ "name": name.as_str(), "file": file })),
    };
    if let Some(value) = value.as_object_mut() {
        value.insert(kind.into(), secret);
    }
    value
}

fn source(source: &EndpointSource) -> Value {
    json!({
        "address": target(&source.target),
        "weight": source.weight,
        "priority": source.priority,
        "zone": source.zone.as_deref(),
    })
}

fn target(target: &Target) -> String {
    match target {
        Target::Dns { host, port } => format!("{host}:{port}"),
        Target::Srv { name } => format!("srv://{name}"),
        Target::Kubernetes(service) => service.to_string(),
        Target::Ip(address) => address.to_string(),
        Target::Unix(path) => format!("unix:{}", path.display()),
    }
}

fn tls(tls: &TlsClient) -> Value {
    json!({
        "name": tls.name.as_deref(),
        "ca": trust(&tls.trust),
        "peers": tls.peers.iter().map(san).collect::<Vec<_>>(),
        "identity": tls.identity.as_ref().map(identity),
        "spiffe": tls.spiffe,
        "min_version": tls.min_version,
        "crls": strings(tls.crls.iter().map(|path| path.display())),
        "pins": tls.pins.iter().map(hex).collect::<Vec<_>>(),
        "insecure_skip_verify": tls.insecure,
    })
}

/// A pin is the hash of a public key: nothing to hide.
fn hex(bytes: &[u8; 32]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn health_check(check: &HealthCheck) -> Value {
    let (path, host, tcp, grpc) = match &check.probe {
        Probe::Http { path, host } => (Some(&**path), host.as_deref(), Value::from(false), None),
        // What is sent may be a password (Redis' AUTH), and is not shown.
        Probe::Tcp { send, expect } => {
            let sent = (!send.is_empty()).then(|| format!("{HIDDEN} {} bytes", send.len()));
            (None, None, json!({ "send": sent, "expect": expect.len() }), None)
        }
        Probe::Grpc { service } => (None, None, Value::from(false), Some(&**service)),
    };
    json!({
        "path": path,
        "host": host,
        "tcp": tcp,
        "grpc": grpc,
        "port": check.port,
        "tls": check.tls,
        "interval": show_duration(check.interval),
        "unhealthy_interval": show_duration(check.unhealthy_interval),
        "timeout": show_duration(check.timeout),
        "healthy": check.healthy,
        "unhealthy": check.unhealthy,
    })
}
