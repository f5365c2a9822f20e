//! Listeners, as the file would write them.

use serde_json::{Value, json};

use super::{HIDDEN, authorization, route, strings, web};
use crate::{
    model::{Config, HttpServer, Identity, Listener, SanPattern, TlsMode, TlsServer, Trust},
    text::{show_duration, show_size, show_timeout},
};

pub(super) fn listener(listener: &Listener, config: &Config) -> Value {
    json!({
        "bind": strings(&listener.bind),
        "protocol": listener.protocol,
        "server_first_ports": listener.server_first_ports,
        "detect_timeout": show_duration(listener.detect_timeout),
        "proxy_protocol": listener.proxy_protocol,
        "transparent": listener.transparent,
        "tls": listener.tls.as_ref().map(tls),
        "http": http(&listener.http),
        "authorization": listener.authorization.as_deref().map(|rules| authorization::authorization(rules, config)),
        "cors": web::cors(&listener.web),
        "grpc_web": listener.web.grpc_web,
        "compression": web::compression(&listener.web),
        "max_connections": listener.max_connections,
        "tcp_idle_timeout": show_duration(listener.tcp_idle_timeout),
        "tcp_splice": listener.tcp_splice,
        "routes": listener.routes.iter().map(|route| route::route(route, config)).collect::<Vec<_>>(),
    })
}

fn http(http: &HttpServer) -> Value {
    let (limits, path) = (&http.limits, &http.path);
    json!({
        "limits": {
            "request_line": show_size(limits.request_line as u64),
            "headers_size": show_size(limits.headers_size as u64),
            "headers_count": limits.headers_count,
            "h2_streams": limits.h2_streams,
            "h2_pending_resets": limits.h2_pending_resets,
            "h2_flood_rate": limits.h2_flood_rate,
            "h2_flood_burst": limits.h2_flood_burst,
            "h2_flood_per_client": limits.h2_flood_per_client,
            "h2_stream_window": show_size(limits.h2_stream_window.into()),
            "h2_stream_window_max": show_size(limits.h2_stream_window_max.into()),
            "h2_send_buffer": show_size(limits.h2_send_buffer as u64),
            "requests_per_connection": limits.requests_per_connection,
        },
        "header_timeout": show_duration(http.header_timeout),
        "idle_timeout": show_duration(http.idle_timeout),
        "write_timeout": show_timeout(http.write_timeout),
        "half_close": http.half_close,
        "target": http.target,
        "forwarded": {
            "x_forwarded": http.forwarded.x_forwarded,
            "rfc7239": http.forwarded.rfc7239,
        },
        "path": {
            "dot_segments": path.dot_segments,
            "decode_unreserved": path.decode_unreserved,
            "merge_slashes": path.merge_slashes,
            "escaped_slashes": path.escaped_slashes,
            "parameters": path.parameters,
        },
        "via": http.via.as_deref().unwrap_or("off"),
        "request_id": http.request_id,
        "trust_request_id": http.trust_request_id,
        "reason_header": http.reason_header,
        "max_connection_age": show_timeout(http.max_connection_age),
        "forward_client_cert_details": http.client_cert,
        "set_current_client_cert_details": http.client_cert_details,
    })
}

fn tls(tls: &TlsServer) -> Value {
    json!({
        "certificates": tls.identities.iter().map(identity).collect::<Vec<_>>(),
        "spiffe": tls.spiffe,
        "mode": match tls.mode {
            TlsMode::Strict => "strict",
            TlsMode::Permissive => "permissive",
        },
        "client_ca": tls.client_trust.as_ref().map(trust),
        "client_optional": tls.client_optional,
        "allow": tls.allow.iter().map(san).collect::<Vec<_>>(),
        "deny": tls.deny.iter().map(san).collect::<Vec<_>>(),
        "min_version": tls.min_version,
        "crls": strings(tls.crls.iter().map(|path| path.display())),
    })
}

/// Where the key is, never what is in it.
pub(super) fn identity(identity: &Identity) -> Value {
    json!({
        "certificate": identity.certificate.display().to_string(),
        "key": identity.key.display().to_string(),
        "ocsp": identity.ocsp.as_ref().map(|path| path.display().to_string()),
    })
}

pub(super) fn trust(trust: &Trust) -> Value {
    match trust {
        Trust::System => "system".into(),
        Trust::Spiffe => "spiffe".into(),
        Trust::Files(files) => strings(files.iter().map(|path| path.display())).into(),
        Trust::Inline(_) => format!("{HIDDEN} PEM in the config").into(),
    }
}

pub(super) fn san(pattern: &SanPattern) -> String {
    match pattern {
        SanPattern::Dns(name) => format!("dns:{name}"),
        SanPattern::Uri(uri) => uri.to_string(),
        SanPattern::Subject(_) => pattern.to_string(),
    }
}
