//! Health checks of a backend's servers.

use crate::remark::Remarks;
use crate::value::YamlMap;

use super::{
    server::ServerLine,
    tokens::{self, ConfigSection},
};

pub(super) fn health(
    section: &ConfigSection,
    tcp: bool,
    servers: &[ServerLine<'_>],
    keys: &mut YamlMap,
    remarks: &mut Remarks,
) {
    let mut map = YamlMap::default();
    probe(section, &mut map, remarks);
    if let Some(first) = servers.first() {
        intervals(first, &mut map);
    }
    if let Some(server) = servers.iter().find(|server| !server.has("check")) {
        remarks.soft(
            server.at,
            "in the original a server without `check` was always used; attache checks all servers of the backend.",
        );
    }
    let secure = servers.iter().any(|server| server.has("ssl"));
    if let Some(server) = servers.iter().find(|server| server.has("no-check-ssl")).filter(|_| secure) {
        remarks.note(server.at, "health checks use no TLS, as in the original.");
        map.set("tls", false);
    } else if let Some(server) = servers.iter().find(|server| server.has("check-ssl")).filter(|_| !secure) {
        remarks.soft(
            server.at,
            "health checks used TLS, and calls don't: now the health check only opens a TCP connection.",
        );
        connect_only(&mut map);
    }
    port(section, tcp, servers, &mut map, remarks);
    if let Some(time) = section.timeout("check") {
        map.set("timeout", time);
    }
    keys.set("health_check", map);
}

/// The bytes that a check sends and expects.
fn probe(section: &ConfigSection, map: &mut YamlMap, remarks: &mut Remarks) {
    let send = section.lines.iter().rev().find(|line| line.word(0) == "http-check" && line.word(1) == "send");
    match (section.option("httpchk"), send) {
        (Some(_), Some(line)) if line.after("uri").is_some() => {
            map.set("path", line.after("uri").unwrap_or("/"));
            if let Some(host) = line
                .words
                .windows(3)
                .find(|words| words[0] == "hdr" && words[1].eq_ignore_ascii_case("host"))
                .map(|words| words[2].clone())
            {
                map.set("host", host);
            }
        }
        (Some(line), _) => {
            let path = if line.word(2).starts_with('/') { line.word(2) } else { line.word(3) };
            map.set("path", if path.is_empty() { "/" } else { path.split('?').next().unwrap_or("/") });
            if let Some(host) = line
                .words
                .iter()
                .find_map(|word| word.split("Host:").nth(1))
                .map(str::trim)
                .filter(|host| !host.is_empty())
            {
                map.set("host", host.split(['\\', '\r']).next().unwrap_or_default());
            }
        }
        (None, _) => {
            map.set("tcp", true);
            for name in ["mysql-check", "pgsql-check", "redis-check", "smtpchk", "ldap-check", "tcp-check"] {
                if let Some(line) = section.option(name) {
                    remarks.soft(&line.at, format!("`option {name}`: now the health check only opens a TCP connection; `health_check.tcp` can send bytes and compare the answer."));
                }
            }
        }
    }
    if let Some(line) =
        section.lines.iter().find(|line| line.word(0) == "http-check" && line.word(1) == "expect")
        && !(line.word(2) == "status" && (line.word(3) == "200" || line.word(3).starts_with("200-")))
    {
        remarks.soft(&line.at, "a response from 200 to 299 is healthy; other expectations are left out.");
    }
}

fn intervals(first: &ServerLine<'_>, map: &mut YamlMap) {
    for (word, key) in [("inter", "interval"), ("downinter", "unhealthy_interval")] {
        if let Some(time) = first.value(word).and_then(tokens::time) {
            map.set(key, time);
        }
    }
    for (word, key) in [("rise", "healthy"), ("fall", "unhealthy")] {
        if let Some(count) = first.number(word) {
            map.set(key, count.max(1));
        }
    }
    if first.value("inter").is_none() {
        map.set("interval", "2s");
    }
}

/// A TCP connection is enough.
fn connect_only(map: &mut YamlMap) {
    map.0.retain(|(key, _)| key != "path" && key != "host");
    map.set("tcp", true);
}

/// The port of checks, which is one for an upstream.
fn port(
    section: &ConfigSection,
    tcp: bool,
    servers: &[ServerLine<'_>],
    map: &mut YamlMap,
    remarks: &mut Remarks,
) {
    let ports: Vec<Option<String>> = servers
        .iter()
        .map(|server| {
            // attache checks an upstream of opaque bytes by HTTP only on an explicit port.
            let own = (tcp && map.get("path").is_some())
                .then(|| server.address.rsplit_once(':').map(|(_, port)| port.to_owned()));
            server.value("port").map(ToOwned::to_owned).or(own.flatten())
        })
        .collect();
    let port = ports.first().cloned().flatten().and_then(|port| port.parse::<u64>().ok());
    if ports.iter().any(|port| *port != ports[0]) {
        remarks.soft(
            &section.head.at,
            "health checks go to the servers' own ports, because the config has different ports for checks.",
        );
        if tcp && map.get("path").is_some() {
            connect_only(map);
        }
    } else {
        map.put("port", port);
    }
}
