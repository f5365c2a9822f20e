//! Backends become upstreams.

use crate::plan::PlannedUpstream;
use crate::remark::Remarks;
use crate::secret;
use crate::value::{ConfigValue, YamlMap};

use super::{
    HaproxyImport,
    health::health,
    options::{self, ProxySide},
    server::{self, ServerLine},
    tokens::ConfigSection,
};

/// The upstream of a backend. `None` if the backend has no server.
pub(crate) fn used(name: &str, tcp: bool, cx: &mut HaproxyImport) -> Option<String> {
    if let Some((_, _, upstream)) = cx.used.iter().find(|(known, other, _)| known == name && *other == tcp) {
        return Some(upstream.clone());
    }
    let section = cx
        .sections
        .iter()
        .find(|other| other.name == name && matches!(other.kind.as_str(), "backend" | "listen"))?;
    section.lines.iter().find(|line| matches!(line.word(0), "server" | "server-template"))?;
    let other = cx.used.iter().any(|(known, ..)| known == name);
    let upstream = cx.names.of(&if other {
        format!("{name}-{}", if tcp { "tcp" } else { "http" })
    } else {
        name.to_owned()
    });
    cx.used.push((name.to_owned(), tcp, upstream.clone()));
    Some(upstream)
}

pub(crate) fn upstreams(cx: &mut HaproxyImport) {
    for (name, tcp, upstream) in cx.used.clone() {
        let Some(section) = cx
            .sections
            .iter()
            .find(|other| other.name == name && matches!(other.kind.as_str(), "backend" | "listen"))
        else {
            continue;
        };
        let mut out = PlannedUpstream { name: upstream, ..PlannedUpstream::default() };
        fill(section, tcp, &mut out);
        cx.plan.upstreams.push(out);
    }
}

/// Policies of a backend that attache has as keys of a route.
pub(crate) fn policies(section: &ConfigSection, keys: &mut YamlMap) {
    if let Some(line) = section.last("cookie").filter(|line| line.has("insert")) {
        keys.put("session_cookie", secret::session(line.word(1)));
    }
    if let Some(time) = section.timeout("server") {
        keys.set("timeout", time);
    }
    if let Some(time) = section.timeout("tunnel") {
        keys.set("idle_timeout", time);
    }
    if let Some(line) = section.last("retry-on") {
        let mut on = Vec::new();
        for word in line.rest(1) {
            match word.as_str() {
                "conn-failure" => on.push("connect-failure".to_owned()),
                "empty-response" | "junk-response" => on.push("reset-before-headers".to_owned()),
                "response-timeout" => on.push("reset".to_owned()),
                "all-retryable-errors" => {
                    on.extend(
                        ["connect-failure", "reset", "500", "502", "503", "504"].map(ToOwned::to_owned),
                    );
                }
                "none" => {}
                status if status.bytes().all(|b| b.is_ascii_digit()) => on.push(status.to_owned()),
                _ => {}
            }
        }
        on.dedup();
        if !on.is_empty() {
            keys.child("retry").set("on", on);
        }
    }
    if let Some(count) = section.last("retries").and_then(|line| line.word(1).parse::<u64>().ok()) {
        if count == 0 {
            keys.set("retry", "off");
        } else {
            keys.child("retry").set("attempts", count);
        }
    }
}

/// The servers of a backend that become endpoints.
#[derive(Default)]
struct Endpoints<'s> {
    servers: Vec<ServerLine<'s>>,
    /// The address of each, and its keys in the list of addresses.
    addresses: Vec<(String, YamlMap)>,
    /// The keys of `tls` that each asks for.
    tls: Vec<YamlMap>,
    /// The sum of `maxconn`.
    max_connections: u64,
}

fn fill(section: &ConfigSection, tcp: bool, out: &mut PlannedUpstream) {
    options::told(section, ProxySide::Back, &mut out.remarks);
    let endpoints = endpoints(section, out);
    let servers = endpoints.servers;
    let secure = servers.iter().any(|server| server.has("ssl"));
    let h2 = servers.iter().any(|server| server.value("proto") == Some("h2"));
    differ(&servers, &endpoints.tls, out);
    proxy_protocol(&servers, out);
    let scheme = match (tcp, secure, h2) {
        (true, false, _) => "tcp",
        (true, true, _) => "tls",
        (false, true, _) => "https",
        (false, false, true) => "h2c",
        (false, false, false) => "http",
    };
    let mut keys = YamlMap::default();
    keys.set("address", address(scheme, endpoints.addresses));
    if !tcp {
        keys.set("host", "preserve");
        let negotiates = servers
            .iter()
            .any(|server| server.value("alpn").is_some_and(|list| list.split(',').any(|one| one == "h2")));
        if secure && h2 {
            keys.set("protocol", "http2");
        } else if secure && !negotiates {
            keys.set("protocol", "http1");
        }
    }
    for (key, value) in std::mem::take(&mut out.keys).0 {
        keys.set(&key, value);
    }
    let tls = endpoints.tls.into_iter().find(|own| !own.is_empty()).unwrap_or_default();
    if !tls.is_empty() {
        keys.set("tls", tls);
    }
    if let Some(time) = section.timeout("connect") {
        keys.set("connect_timeout", time);
    }
    balance(section, &mut keys, &mut out.remarks);
    if endpoints.max_connections > 0 {
        keys.child("circuit_breaker").set("max_connections", endpoints.max_connections);
        out.remarks.note(
            &section.head.at,
            "the limit is the sum of the servers' `maxconn`; `max_pending` limits the waiting requests.",
        );
    }
    if servers.iter().any(|server| server.has("check")) {
        health(section, tcp, &servers, &mut keys, &mut out.remarks);
    }
    tell_lost(section, tcp, &mut out.remarks);
    out.keys = keys;
}

/// Reads the servers. Reports those that are left out.
fn endpoints<'s>(section: &'s ConfigSection, out: &mut PlannedUpstream) -> Endpoints<'s> {
    let mut all = Endpoints::default();
    for server in server::all(section) {
        if !server.told(&mut out.remarks) {
            continue;
        }
        if server.has("disabled") && !server.has("enabled") {
            out.remarks.soft(server.at, "a disabled server is left out.");
            continue;
        }
        if server.number("weight") == Some(0) {
            out.remarks.soft(server.at, "a server of weight 0 gets no new calls, and is left out.");
            continue;
        }
        if server.value("proto") == Some("fcgi") {
            out.remarks
                .point(server.at, format!("the server `{}` is left out: FastCGI is absent.", server.name));
            continue;
        }
        let Some(address) = normal(server.address) else {
            out.remarks.point(server.at, format!("the server `{}` is left out: its address is not an IP address or name with a port, and not a Unix socket.", server.name));
            continue;
        };
        let mut map = YamlMap::default();
        if let Some(weight) = server.number("weight") {
            map.set("weight", weight);
        }
        if server.has("backup") {
            map.set("priority", 1_u64);
        }
        all.max_connections += server.number("maxconn").unwrap_or(0);
        if server.value("on-marked-down") == Some("shutdown-sessions") {
            out.keys.set("on_unhealthy", "close");
        }
        let mut tls = YamlMap::default();
        if server.has("ssl") {
            server_tls(&server, &mut tls, &mut out.remarks);
        }
        all.tls.push(tls);
        all.addresses.push((address, map));
        all.servers.push(server);
    }
    all
}

/// The value of `address`: one address alone, or a list.
fn address(scheme: &str, endpoints: Vec<(String, YamlMap)>) -> ConfigValue {
    let mut list: Vec<ConfigValue> = Vec::new();
    for (address, mut map) in endpoints {
        let address = match address.strip_prefix("unix:") {
            Some(path) if scheme == "http" => format!("unix:{path}"),
            Some(path) => format!("unix+{scheme}:{path}"),
            None => format!("{scheme}://{address}"),
        };
        if map.is_empty() {
            list.push(address.into());
        } else {
            map.0.insert(0, ("address".to_owned(), address.into()));
            list.push(ConfigValue::Map(map));
        }
    }
    match list.len() {
        0 => ConfigValue::from(format!("{scheme}://nowhere.invalid:80")),
        1 if matches!(list[0], ConfigValue::Text(_)) => list.remove(0),
        _ => ConfigValue::List(list),
    }
}

/// The version of the PROXY protocol header that servers get, which is one for an upstream.
fn proxy_protocol(servers: &[ServerLine<'_>], out: &mut PlannedUpstream) {
    let version = |server: &ServerLine<'_>| {
        let second = ["send-proxy-v2", "send-proxy-v2-ssl", "send-proxy-v2-ssl-cn"];
        if server.has("send-proxy") {
            Some("v1")
        } else {
            second.iter().any(|word| server.has(word)).then_some("v2")
        }
    };
    let Some(first) = servers.first() else { return };
    if let Some(word) = servers.iter().find_map(version) {
        out.keys.set("proxy_protocol", word);
    }
    if let Some(other) = servers.iter().find(|other| version(other) != version(first)) {
        out.remarks.point(other.at, "the servers differ in the PROXY protocol; now all servers get the same header. Make an upstream for each kind.");
    }
}

/// Reports the lines of a backend that have no effect in attache.
fn tell_lost(section: &ConfigSection, tcp: bool, remarks: &mut Remarks) {
    if let Some(line) = section.last("cookie").filter(|line| !tcp && line.has("insert")) {
        remarks.note(&line.at, secret::KEY_REMARK);
    }
    if let Some(line) = section.last("cookie").filter(|line| !line.has("insert")) {
        remarks.point(&line.at, "the cookie that keeps clients with their server is left out: `balance: { algorithm: maglev, hash: cookie:NAME }` uses a cookie of the application.");
    }
    if let Some(line) = section.last("http-send-name-header") {
        remarks.point(&line.at, "the name of the server is not put into a header.");
    }
    if let Some(line) = section.last("source") {
        let what = if line.has("usesrc") {
            "servers saw the client's address as the source of connections; now they see attache's. The client's address is in `X-Forwarded-For`."
        } else {
            "the local address of calls is left out: set `source_address` of the upstream."
        };
        remarks.point(&line.at, what);
    }
    for word in ["stick", "stick-table"] {
        if let Some(line) = section.last(word) {
            remarks.point(
                &line.at,
                "attache has no stick tables: `balance` with a hash keeps clients with an endpoint.",
            );
        }
    }
}

fn normal(address: &str) -> Option<String> {
    let address = address.trim_start_matches("ipv4@").trim_start_matches("ipv6@");
    if let Some(path) = address.strip_prefix("unix@").or_else(|| address.starts_with('/').then_some(address))
    {
        return Some(format!("unix:{path}"));
    }
    if address.contains(['$', '@', '%']) {
        return None;
    }
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !port.is_empty() => (host, port),
        _ => (address, "80"),
    };
    if host.contains(':') && !host.starts_with('[') {
        Some(format!("[{host}]:{port}"))
    } else {
        Some(format!("{host}:{port}"))
    }
}

/// Reports settings in which servers of one backend differ, though an upstream has only one value.
fn differ(servers: &[ServerLine<'_>], tls: &[YamlMap], out: &mut PlannedUpstream) {
    let Some(first) = servers.first() else { return };
    if let Some(other) = servers.iter().find(|other| other.has("ssl") != first.has("ssl")) {
        out.remarks.point(
            other.at,
            "some servers use TLS and some don't; now all are called with TLS. Make an upstream for each kind.",
        );
    } else if let Some((other, _)) = servers.iter().zip(tls).find(|(_, own)| **own != tls[0]) {
        out.remarks.point(other.at, "the servers have different names, roots or certificates for TLS; now all use those of the first. Make an upstream for each kind.");
    }
    if let Some(other) = servers.iter().find(|other| other.value("proto") != first.value("proto")) {
        out.remarks.point(
            other.at,
            "the servers have different protocols; now all have the same. Make an upstream for each kind.",
        );
    }
}

fn server_tls(server: &ServerLine<'_>, tls: &mut YamlMap, remarks: &mut Remarks) {
    if let Some(file) = server.value("ca-file") {
        tls.set("ca", if file == "@system-ca" { "system" } else { file });
    }
    let verified = match server.value("verify") {
        Some(word) => word != "none",
        None => server.value("ca-file").is_some(),
    };
    if !verified {
        remarks.soft(server.at, "the original didn't verify this peer; attache does. If the peer has a private root, set `tls.ca`.");
    }
    let fixed =
        server.value("sni").and_then(|sni| sni.strip_prefix("str(")).and_then(|sni| sni.strip_suffix(')'));
    if let Some(name) = server.value("verifyhost") {
        tls.set("name", name);
        if fixed.is_some_and(|sni| sni != name) {
            remarks.point(server.at, "`sni` and `verifyhost` differ: attache sends the name that it also compares with the certificate.");
        }
    } else if let Some(name) = fixed {
        tls.set("name", name);
    } else if server.value("sni").is_some() {
        remarks.point(server.at, "attache uses the name of the address as server name: it neither sends the request's name nor compares it with the certificate.");
    } else if verified {
        remarks.soft(server.at, "the original compared no name with this peer's certificate; attache does. If the certificate doesn't have the name of the address, set `tls.name`.");
    }
    if let Some(file) = server.value("crt") {
        tls.set("certificate", file);
        tls.set("key", file);
    }
    if let Some(file) = server.value("crl-file") {
        tls.set("crls", file);
    }
    if server.value("ssl-min-ver") == Some("TLSv1.3") || server.has("force-tlsv13") || server.has("no-tlsv12")
    {
        tls.set("min_version", "1.3");
    }
}

fn balance(section: &ConfigSection, keys: &mut YamlMap, remarks: &mut Remarks) {
    let line = section.last("balance");
    let (word, argument) = line.map_or(("roundrobin", ""), |line| (line.word(1), line.word(2)));
    let mut map = YamlMap::default();
    let hash = match word.split('(').next().unwrap_or_default() {
        "leastconn" => return,
        "random" => {
            keys.set("balance", "random");
            return;
        }
        "roundrobin" | "static-rr" | "first" => {
            keys.set("balance", "round-robin");
            return;
        }
        "source" => "source".to_owned(),
        "uri" => "path".to_owned(),
        "hdr" => {
            let name = word.strip_prefix("hdr(").and_then(|name| name.strip_suffix(')')).unwrap_or(argument);
            format!("header:{}", name.to_ascii_lowercase())
        }
        other => {
            if let Some(line) = line {
                remarks.soft(
                    &line.at,
                    format!("attache lacks `balance {other}`; it uses the endpoints in turn."),
                );
            }
            keys.set("balance", "round-robin");
            return;
        }
    };
    map.set("algorithm", "maglev");
    map.set("hash", hash);
    keys.set("balance", map);
}
