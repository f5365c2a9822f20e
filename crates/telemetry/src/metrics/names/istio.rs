//! Istio's standard metrics. A listener whose name begins with `inbound` reports as the destination, and all others report as the source.
//!
//! attache doesn't count who the other side is, so the labels of its workload are `unknown`, Istio's own value for this. A service is named
//! after the upstream.
//!
//! As in Istio, the destination reports `connection_security_policy`, and for the source it is `unknown`. A listener that accepts both TLS
//! and plaintext has both values: there the scheme of a request decides. Durations have no scheme, so for them it is `unknown`.

use super::{EXACT, Families, IdentityProof, PageSample, REQUEST_SIZE, RESPONSE_SIZE, histogram};

const UNKNOWN: &str = "unknown";

fn policy(sample: &PageSample<'_>, proofs: &[(String, IdentityProof)]) -> &'static str {
    let listener = sample.label("listener");
    let proof = proofs.iter().find(|(name, _)| name == listener).map(|(_, proof)| *proof);
    match (proof, sample.label("scheme")) {
        (Some(IdentityProof::Everybody), _) | (Some(IdentityProof::WithTls), "https") => "mutual_tls",
        (Some(IdentityProof::Nobody), _) | (Some(IdentityProof::WithTls), "http") => "none",
        _ => UNKNOWN,
    }
}

/// The labels of a sample, as far as attache knows them. `workload` and `namespace` are attache's own.
fn labels<'a>(
    sample: &'a PageSample<'_>,
    workload: &'a str,
    namespace: &'a str,
    proofs: &[(String, IdentityProof)],
) -> Vec<(&'static str, &'a str)> {
    let inbound = sample.label("listener").starts_with("inbound");
    let other = (UNKNOWN, UNKNOWN);
    let (source, destination) =
        if inbound { (other, (workload, namespace)) } else { ((workload, namespace), other) };
    let upstream = sample.label("upstream");
    let service = match (inbound, upstream.is_empty()) {
        (true, _) => workload,
        (false, true) => UNKNOWN,
        (false, false) => upstream,
    };
    let (service_name, service_namespace) = match service.split_once('.') {
        Some((name, rest)) if !inbound => (name, rest.split('.').next().unwrap_or(UNKNOWN)),
        _ => (service, if inbound { namespace } else { UNKNOWN }),
    };
    let protocol = match sample.label("protocol") {
        "grpc" => "grpc",
        "tcp" => "tcp",
        _ => "http",
    };
    vec![
        ("reporter", if inbound { "destination" } else { "source" }),
        ("source_workload", source.0),
        ("source_workload_namespace", source.1),
        ("source_canonical_service", source.0),
        ("source_app", source.0),
        ("source_principal", UNKNOWN),
        ("destination_workload", destination.0),
        ("destination_workload_namespace", destination.1),
        ("destination_canonical_service", destination.0),
        ("destination_app", destination.0),
        ("destination_principal", UNKNOWN),
        ("source_cluster", UNKNOWN),
        ("destination_cluster", UNKNOWN),
        ("destination_service", service),
        ("destination_service_name", service_name),
        ("destination_service_namespace", service_namespace),
        ("request_protocol", protocol),
        ("connection_security_policy", if inbound { policy(sample, proofs) } else { UNKNOWN }),
    ]
}

pub(super) fn families(
    samples: &[PageSample<'_>],
    workload: &str,
    namespace: &str,
    proofs: &[(String, IdentityProof)],
    out: &mut Families,
) {
    let tag = concat!("attache-", env!("CARGO_PKG_VERSION"));
    out.add("gauge", "istio_build", &[("component", "proxy"), ("tag", tag)], 1.0);
    let workload = if workload.is_empty() { UNKNOWN } else { workload };
    let namespace = if namespace.is_empty() { UNKNOWN } else { namespace };
    for sample in samples {
        let tcp = sample.label("protocol") == "tcp";
        let mut labels = labels(sample, workload, namespace, proofs);
        let (code, flags) = (sample.label("code"), sample.label("reason"));
        if !tcp {
            labels.push(("response_code", if code.is_empty() { "0" } else { code }));
        }
        let with_flags = |labels: &[(&'static str, &str)]| {
            let mut labels: Vec<(&'static str, String)> =
                labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
            labels.push(("response_flags", if flags.is_empty() { "-".to_owned() } else { flags.to_owned() }));
            labels
        };
        match sample.name {
            // Requests of HTTP have a series for each single status.
            "attache_requests_total" if matches!(sample.label("protocol"), "http1" | "http2") => {}
            EXACT | "attache_requests_total" => {
                let labels = with_flags(&labels);
                let labels: Vec<(&str, &str)> =
                    labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
                if tcp {
                    out.add("counter", "istio_tcp_connections_opened_total", &labels, sample.value);
                    out.add("counter", "istio_tcp_connections_closed_total", &labels, sample.value);
                } else {
                    out.add("counter", "istio_requests_total", &labels, sample.value);
                }
            }
            "attache_received_bytes_total" if tcp => {
                out.add("counter", "istio_tcp_received_bytes_total", &labels, sample.value);
            }
            "attache_sent_bytes_total" if tcp => {
                out.add("counter", "istio_tcp_sent_bytes_total", &labels, sample.value);
            }
            name => {
                if let Some(suffix) = histogram(name, "attache_request_duration_seconds").filter(|_| !tcp) {
                    out.milliseconds("istio_request_duration_milliseconds", sample, suffix, &labels);
                } else if let Some(suffix) = histogram(name, REQUEST_SIZE) {
                    out.bytes("istio_request_bytes", sample, suffix, &labels);
                } else if let Some(suffix) = histogram(name, RESPONSE_SIZE) {
                    out.bytes("istio_response_bytes", sample, suffix, &labels);
                }
            }
        }
    }
}
