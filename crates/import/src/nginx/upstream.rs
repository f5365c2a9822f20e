//! Targets of `proxy_pass` become upstreams.

use crate::plan::PlannedUpstream;
use crate::remark::Remarks;
use crate::value::{ConfigValue, YamlMap};

use super::{NginxImport, included, tokens::Directive};

/// A time of nginx, seconds without a unit, in attache's notation.
pub(crate) fn time(text: &str) -> Option<String> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text.get(..end)?.parse().ok()?;
    let unit = match text.get(end..)? {
        "" | "s" => "s",
        unit @ ("ms" | "m" | "h" | "d") => unit,
        _ => return None,
    };
    (number > 0).then(|| format!("{number}{unit}"))
}

/// Whether a text is a valid `Host`.
pub(crate) fn host_like(text: &str) -> bool {
    let (host, port) = text.rsplit_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    let port = port.is_none_or(|port| port.bytes().all(|b| b.is_ascii_digit()) && !port.is_empty());
    port && !host.is_empty()
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
        && !host.starts_with('-')
}

/// TLS of `proxy_ssl_*`.
pub(crate) fn tls(scheme: &str, get: &dyn Fn(&str) -> Option<Directive>, remarks: &mut Remarks) -> YamlMap {
    let mut tls = YamlMap::default();
    if scheme != "https" {
        return tls;
    }
    if let Some(name) = get("proxy_ssl_name").filter(|one| !one.word(1).contains('$')) {
        tls.set("name", name.word(1));
    }
    if let Some(ca) = get("proxy_ssl_trusted_certificate") {
        tls.set("ca", ca.word(1));
    }
    if let (Some(certificate), Some(key)) = (get("proxy_ssl_certificate"), get("proxy_ssl_certificate_key")) {
        tls.set("certificate", certificate.word(1));
        tls.set("key", key.word(1));
    }
    if let Some(crl) = get("proxy_ssl_crl") {
        tls.set("crls", crl.word(1));
    }
    if get("proxy_ssl_verify").is_none_or(|one| one.word(1) != "on") {
        remarks.soft(
            &crate::tree::FileLine::default(),
            "the original didn't verify this https peer; attache does. If the peer has a private root, set `tls.ca` of the upstream.",
        );
    }
    tls
}

/// The name of the upstream that `scheme://authority` is.
pub(crate) fn used(
    scheme: &str,
    authority: &str,
    tls: YamlMap,
    connect: Option<String>,
    cx: &mut NginxImport,
) -> String {
    let key = format!("{scheme}://{authority}");
    if let Some((_, name)) = cx.used.iter().find(|(known, _)| *known == key) {
        return name.clone();
    }
    let block = cx.upstreams.iter().find(|one| one.word(1) == authority).cloned();
    let other = cx.used.iter().any(|(known, _)| known.ends_with(&format!("://{authority}")));
    let wanted = if other {
        format!("{authority}-{scheme}")
    } else {
        authority.replace("unix:", "unix-").replace([':', '[', ']'], "-")
    };
    let name = cx.names.of(&wanted);
    cx.used.push((key, name.clone()));
    let mut out = PlannedUpstream { name: name.clone(), ..PlannedUpstream::default() };
    let mut keys = YamlMap::default();
    let mut list: Vec<ConfigValue> = Vec::new();
    match &block {
        Some(block) => {
            for server in block.all("server") {
                servers(server, scheme, &mut list, &mut out.remarks);
            }
        }
        None => list.push(address(scheme, authority).into()),
    }
    keys.set(
        "address",
        match list.len() {
            0 => ConfigValue::from(format!("{scheme}://nowhere.invalid:80")),
            1 if matches!(list[0], ConfigValue::Text(_)) => list.remove(0),
            _ => ConfigValue::List(list),
        },
    );
    let opaque = matches!(scheme, "tcp" | "tls");
    if !opaque {
        keys.set("host", "preserve");
        if scheme == "https" {
            keys.set("protocol", "http1");
        }
    }
    if !tls.is_empty() {
        keys.set("tls", tls);
    }
    keys.set("connect_timeout", connect.unwrap_or_else(|| "60s".to_owned()));
    if let Some(block) = &block {
        balance(block, opaque, &mut keys, &mut out.remarks);
    }
    out.keys = keys;
    cx.plan.upstreams.push(out);
    name
}

pub(crate) fn upstreams(cx: &mut NginxImport) {
    let unused: Vec<Directive> = cx
        .upstreams
        .iter()
        .filter(|one| !cx.used.iter().any(|(known, _)| known.ends_with(&format!("://{}", one.word(1)))))
        .cloned()
        .collect();
    for one in unused {
        cx.plan.remarks.note(
            &one.at,
            format!("the upstream `{}` is left out, because no location uses it.", one.word(1)),
        );
    }
}

fn address(scheme: &str, authority: &str) -> String {
    if let Some(path) = authority.strip_prefix("unix:") {
        return if scheme == "http" { format!("unix:{path}") } else { format!("unix+{scheme}:{path}") };
    }
    let has_port = authority.rsplit_once(':').is_some_and(|(host, port)| {
        port.bytes().all(|b| b.is_ascii_digit()) && (!host.contains(':') || host.ends_with(']'))
    });
    let port = if scheme == "https" { 443 } else { 80 };
    if has_port { format!("{scheme}://{authority}") } else { format!("{scheme}://{authority}:{port}") }
}

fn servers(server: &Directive, scheme: &str, list: &mut Vec<ConfigValue>, remarks: &mut Remarks) {
    let has = |word: &str| server.words.iter().any(|own| own == word);
    if has("down") || has("drain") {
        remarks.soft(&server.at, "a server that is marked `down` or `drain` is left out.");
        return;
    }
    for word in server.words.iter().skip(2) {
        let name = word.split('=').next().unwrap_or_default();
        match name {
            "weight" | "backup" | "max_conns" | "max_fails" | "fail_timeout" | "resolve" => {}
            "slow_start" | "route" => {
                remarks.soft(
                    &server.at,
                    format!(
                        "attache lacks `{name}` of a server: see `balance.slow_start`, `session_cookie`."
                    ),
                );
            }
            _ => remarks.unknown(&server.at, format_args!("`{word}` of a server")),
        }
    }
    // The default port is 80, also for https.
    let text = server.word(1);
    let with_port = if text.starts_with("unix:")
        || text.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()))
    {
        text.to_owned()
    } else {
        format!("{text}:80")
    };
    let mut map = YamlMap::default();
    let value = |name: &str| {
        server.words.iter().find_map(|word| word.strip_prefix(name)).and_then(|text| text.parse::<u64>().ok())
    };
    if let Some(weight) = value("weight=").filter(|weight| *weight != 1) {
        map.set("weight", weight);
    }
    if has("backup") {
        map.set("priority", 1_u64);
    }
    if value("max_conns=").is_some() {
        remarks.soft(&server.at, "attache doesn't limit the connections of one server; `circuit_breaker.max_connections` limits those of the upstream.");
    }
    let own = address(scheme, &with_port);
    if map.is_empty() {
        list.push(own.into());
    } else {
        map.0.insert(0, ("address".to_owned(), own.into()));
        list.push(ConfigValue::Map(map));
    }
}

fn balance(block: &Directive, opaque: bool, keys: &mut YamlMap, remarks: &mut Remarks) {
    let mut map = YamlMap::default();
    let mut word = "round-robin";
    for one in block.inner() {
        match one.name() {
            "least_conn" => word = "least-request",
            "random" => word = "random",
            "ip_hash" => map.set("hash", "source"),
            "hash" => {
                let key = match one.word(1) {
                    "$remote_addr" | "$binary_remote_addr" => Some("source".to_owned()),
                    "$request_uri" | "$uri" => Some("path".to_owned()),
                    key => key
                        .strip_prefix("$http_")
                        .map(|name| format!("header:{}", name.replace('_', "-")))
                        .or_else(|| key.strip_prefix("$cookie_").map(|name| format!("cookie:{name}"))),
                };
                match key {
                    Some(key) => map.set("hash", key),
                    None => remarks.soft(&one.at, format!("attache lacks the key of `hash {}`.", one.word(1))),
                }
            }
            "keepalive" | "keepalive_timeout" | "keepalive_requests" | "zone" | "server" | "keepalive_time" => {}
            "sticky" => remarks.point(&one.at, "the cookie that keeps clients with their server is left out: `balance: { algorithm: maglev, hash: cookie:NAME }` uses a cookie of the application."),
            "include" => {
                let why = included::not_followed(one).unwrap_or_default();
                remarks.point(&one.at, format!("this upstream may lack servers, and the defaults of nginx may not apply: {why}."));
            }
            other => remarks.soft(&one.at, format!("attache lacks `{other}` of an upstream.")),
        }
    }
    if map.get("hash").is_some() {
        map.0.insert(0, ("algorithm".to_owned(), "maglev".into()));
        keys.set("balance", map);
    } else if word != "least-request" {
        keys.set("balance", word);
    }
    let _ = opaque;
}
