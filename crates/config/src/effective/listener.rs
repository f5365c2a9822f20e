//! Listeners, as the file would write them.

use serde_json::{Value, json};

use super::{
    authorization,
    parts::{identity, san, trust},
    route, strings, web,
};
use crate::{
    model::{Config, Listener, TlsMode, TlsServer},
    text::show_duration,
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
        "http": listener.http,
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
