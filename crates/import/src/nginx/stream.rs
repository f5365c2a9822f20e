//! Streams: opaque bytes, and TLS by its server name.

use crate::access::AccessEffect;
use crate::plan::{FilterChain, PlannedListener, PlannedRule};
use crate::remark::Remarks;
use crate::value::YamlMap;

use super::{NginxImport, bind, clients, included, tokens::Directive, upstream};

pub(crate) fn stream(block: &Directive, cx: &mut NginxImport) {
    cx.upstreams.extend(block.all("upstream").cloned());
    let maps: Vec<Directive> = block.all("map").cloned().collect();
    // Servers inherit the directives above them.
    let above: Vec<Directive> = block
        .inner()
        .iter()
        .filter(|one| !matches!(one.name(), "server" | "upstream" | "map" | "geo" | "split_clients"))
        .cloned()
        .collect();
    // Each server inherits an include that was not followed, and is left out. Here stands the remark for servers in it.
    for one in block.inner() {
        if let Some(why) = included::not_followed(one) {
            cx.plan.remarks.point(&one.at, format!("streams may be missing: {why}."));
        }
    }
    for own in block.all("server") {
        if let Some(listener) = listener(&with_inherited(own, &above), &maps, cx) {
            cx.plan.listeners.push(listener);
        }
    }
}

/// A server with what it inherits of its `stream`.
fn with_inherited(own: &Directive, above: &[Directive]) -> Directive {
    let mut all = above.to_vec();
    all.retain(|one| own.all(one.name()).next().is_none());
    all.extend(own.inner().iter().cloned());
    // A list of addresses is inherited as a whole or not at all.
    if own.inner().iter().any(is_access) {
        all.retain(|one| !is_access(one) || own.inner().iter().any(|inner| inner.at == one.at));
    }
    Directive { block: Some(all), ..own.clone() }
}

fn is_access(one: &Directive) -> bool {
    matches!(one.name(), "allow" | "deny")
}

/// The listener of a server; `None`, with a remark, where it is left out.
fn listener(server: &Directive, maps: &[Directive], cx: &mut NginxImport) -> Option<PlannedListener> {
    let listen = server.last("listen")?;
    let says = |word: &str| listen.words.iter().any(|own| own == word);
    if says("udp") {
        cx.plan.remarks.point(&listen.at, "attache has no UDP: this stream is left out.");
        return None;
    }
    let address = bind(listen.word(1)).filter(|_| listen.word(1).bytes().any(|b| b.is_ascii_digit()))?;
    let mut out = PlannedListener {
        name: crate::plan::name(&format!(
            "stream-{}",
            address.trim_start_matches(':').replace([':', '[', ']', '/'], "-")
        )),
        opaque: true,
        ..PlannedListener::default()
    };
    out.keys.set("bind", address);
    let mut remarks = Remarks::default();
    if says("proxy_protocol") {
        out.keys.set("proxy_protocol", "require");
    }
    if says("ssl") && !terminate_tls(server, &mut out) {
        cx.plan.remarks.point(
            &server.at,
            "a stream is left out: clients must show a certificate, and the config has no roots for it.",
        );
        return None;
    }
    let idle = server.last("proxy_timeout").and_then(|one| upstream::time(one.word(1)));
    out.keys.set("tcp_idle_timeout", idle.unwrap_or_else(|| "10m".to_owned()));
    let direct = !says("proxy_protocol") && server.last("set_real_ip_from").is_none();
    let guarded = guard(server, direct, &mut out);
    match (guarded, server.last("proxy_pass")) {
        (Some(guard), _) => {
            cx.plan.remarks.point(&guard.at, format!("a stream is left out: the import can't translate `{}`, which may refuse connections. Write it as `authorization` of a listener.", guard.name()));
            return None;
        }
        (_, None) => {
            cx.plan.remarks.point(&server.at, "a stream without `proxy_pass` is left out.");
            return None;
        }
        (None, Some(pass)) => targets(pass, server, maps, &mut out, &mut remarks, cx),
    }
    out.remarks = remarks;
    if out.chains.is_empty() {
        cx.plan.remarks.point(&server.at, "a stream is left out: variables choose its destination.");
        return None;
    }
    Some(out)
}

/// `false` where clients must show a certificate, and nothing says which roots verify it.
fn terminate_tls(server: &Directive, out: &mut PlannedListener) -> bool {
    let mut tls = out.keys.child("tls");
    tls.set("certificate", server.last("ssl_certificate").map_or("/etc/attache/tls.crt", |one| one.word(1)));
    tls.set("key", server.last("ssl_certificate_key").map_or("/etc/attache/tls.key", |one| one.word(1)));
    if server.last("ssl_verify_client").is_none_or(|one| one.word(1) != "on") {
        return true;
    }
    let ca = server.last("ssl_client_certificate").or_else(|| server.last("ssl_trusted_certificate"));
    if let Some(ca) = ca {
        tls.set("client_ca", ca.word(1));
    }
    ca.is_some()
}

/// The directive that may refuse connections, and that attache can't express. Rules that it can express become
/// `authorization`.
fn guard<'s>(server: &'s Directive, direct: bool, out: &mut PlannedListener) -> Option<&'s Directive> {
    let access: Vec<Directive> = server.inner().iter().filter(|one| is_access(one)).cloned().collect();
    let unknown = server.inner().iter().find(|one| !is_known(one.name()));
    match clients::said(&access) {
        Some(AccessEffect::Open) => unknown,
        Some(AccessEffect::Keys(keys)) if direct => {
            out.keys.set("authorization", keys);
            unknown
        }
        _ => unknown.or_else(|| server.inner().iter().find(|one| is_access(one))),
    }
}

/// Directives of a stream that are read, or that have no effect on who passes.
fn is_known(name: &str) -> bool {
    const NAMES: &[&str] = &[
        "listen",
        "server_name",
        "proxy_pass",
        "proxy_protocol",
        "proxy_timeout",
        "proxy_connect_timeout",
        "proxy_protocol_timeout",
        "proxy_ssl",
        "ssl_preread",
        "ssl_verify_client",
        "ssl_client_certificate",
        "ssl_trusted_certificate",
        "ssl_verify_depth",
        "ssl_protocols",
        "ssl_ciphers",
        "ssl_prefer_server_ciphers",
        "ssl_dhparam",
        "ssl_ecdh_curve",
        "ssl_handshake_timeout",
        "tcp_nodelay",
        "access_log",
        "error_log",
        "log_format",
        "allow",
        "deny",
        "set_real_ip_from",
        "proxy_socket_keepalive",
        "proxy_upload_rate",
        "proxy_download_rate",
        "proxy_requests",
        "proxy_responses",
        "proxy_half_close",
        "proxy_bind",
        "limit_conn",
        "limit_conn_zone",
        "limit_conn_log_level",
        "map_hash_bucket_size",
        "map_hash_max_size",
        "variables_hash_bucket_size",
        "variables_hash_max_size",
        "status_zone",
        "set",
    ];
    const STARTS: &[&str] = &[
        "proxy_ssl_",
        "ssl_certificate",
        "ssl_session_",
        "ssl_conf_command",
        "preread_",
        "resolver",
        "proxy_buffer",
        "proxy_next_upstream",
    ];
    let script = name.contains("_by_lua");
    !script && (NAMES.contains(&name) || STARTS.iter().any(|start| name.starts_with(start)))
}

fn targets(
    pass: &Directive,
    server: &Directive,
    maps: &[Directive],
    out: &mut PlannedListener,
    remarks: &mut Remarks,
    cx: &mut NginxImport,
) {
    let secure = server.last("proxy_ssl").is_some_and(|one| one.word(1) == "on");
    let scheme = if secure { "tls" } else { "tcp" };
    let get = |name: &str| server.last(name).cloned();
    let tls = if secure { upstream::tls("https", &get, remarks) } else { YamlMap::default() };
    let connect = server.last("proxy_connect_timeout").and_then(|one| upstream::time(one.word(1)));
    let target = pass.word(1);
    let rule = |authority: &str, cx: &mut NginxImport| {
        let name = upstream::used(scheme, authority, tls.clone(), connect.clone(), cx);
        let told = server.last("proxy_protocol").is_some_and(|one| one.word(1) == "on");
        if let Some(own) = cx.plan.upstreams.iter_mut().find(|own| told && own.name == name) {
            own.keys.set("proxy_protocol", "v1");
        }
        let mut rule =
            PlannedRule { at: pass.at.clone(), targets: vec![name.clone()], ..PlannedRule::default() };
        rule.when.path = crate::path::PlannedPath::Any;
        rule.keys.set("to", name);
        rule
    };
    if !target.contains('$') {
        out.keys.set("protocol", "tcp");
        let rule = rule(target, cx);
        out.chains.push(FilterChain { opaque: Some(rule), ..FilterChain::default() });
        return;
    }
    let map = maps.iter().find(|map| map.word(1) == "$ssl_preread_server_name" && map.word(2) == target);
    if let Some((one, why)) =
        map.and_then(|map| map.inner().iter().find_map(|one| Some((one, included::not_followed(one)?))))
    {
        // Its names would go to the default.
        cx.plan
            .remarks
            .point(&one.at, format!("a stream is left out, because names of its `map` are missing: {why}."));
        return;
    }
    let Some(map) = map.filter(|_| server.last("ssl_preread").is_some_and(|one| one.word(1) == "on")) else {
        return;
    };
    out.keys.set("protocol", "tls");
    let mut last = None;
    for one in map.inner() {
        let name = one.name().to_ascii_lowercase();
        match name.as_str() {
            "hostnames" | "volatile" => {}
            "default" => last = Some(one.word(1).to_owned()),
            name if name.starts_with('~') => remarks
                .point(&one.at, format!("the name `{name}` is left out: names are exact or `*.suffix`.")),
            name => {
                let sni = name
                    .strip_prefix('.')
                    .map_or_else(|| vec![name.to_owned()], |rest| vec![rest.to_owned(), format!("*.{rest}")]);
                let rule = rule(one.word(1), cx);
                out.chains.push(FilterChain { sni, opaque: Some(rule), ..FilterChain::default() });
            }
        }
    }
    if let Some(last) = last {
        let rule = rule(&last, cx);
        out.chains.push(FilterChain {
            sni: vec!["*".to_owned()],
            opaque: Some(rule),
            ..FilterChain::default()
        });
    }
}
