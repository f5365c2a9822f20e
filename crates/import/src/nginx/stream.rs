//! Streams: opaque bytes, and TLS by its server name.

use crate::plan::{Chain, Listener, Rule};
use crate::remark::Remarks;
use crate::value::Map;

use super::{Cx, bind, tokens::Directive, upstream};

pub(crate) fn stream(block: &Directive, cx: &mut Cx) {
    cx.upstreams.extend(block.all("upstream").cloned());
    let maps: Vec<Directive> = block.all("map").cloned().collect();
    for server in block.all("server") {
        let Some(listen) = server.last("listen") else { continue };
        if listen.words.iter().any(|word| word == "udp") {
            cx.plan.remarks.point(&listen.at, "UDP is absent: this stream is left out.");
            continue;
        }
        let Some(address) =
            bind(listen.word(1)).filter(|_| listen.word(1).bytes().any(|b| b.is_ascii_digit()))
        else {
            continue;
        };
        let mut out = Listener {
            name: crate::plan::name(&format!(
                "stream-{}",
                address.trim_start_matches(':').replace([':', '[', ']', '/'], "-")
            )),
            ..Listener::default()
        };
        out.keys.set("bind", address);
        let mut remarks = Remarks::default();
        if listen.words.iter().any(|word| word == "proxy_protocol") {
            out.keys.set("proxy_protocol", "require");
        }
        if listen.words.iter().any(|word| word == "ssl") {
            let mut tls = out.keys.child("tls");
            tls.set(
                "certificate",
                server.last("ssl_certificate").map_or("/etc/attache/tls.crt", |one| one.word(1)),
            );
            tls.set(
                "key",
                server.last("ssl_certificate_key").map_or("/etc/attache/tls.key", |one| one.word(1)),
            );
            if server.last("ssl_verify_client").is_some_and(|one| one.word(1) == "on") {
                tls.put("client_ca", server.last("ssl_client_certificate").map(|one| one.word(1)));
            }
        }
        if let Some(time) = server.last("proxy_timeout").and_then(|one| upstream::time(one.word(1))) {
            out.keys.set("tcp_idle_timeout", time);
        } else {
            out.keys.set("tcp_idle_timeout", "10m");
        }
        let guarded = server
            .inner()
            .iter()
            .find(|one| matches!(one.name(), "allow" | "deny" | "js_access" | "preread_by_lua_block"));
        let pass = server.last("proxy_pass");
        match (guarded, pass) {
            (Some(guard), _) => {
                cx.plan.remarks.point(&guard.at, "a stream is left out: it told clients apart, which attache does by `tls.allow` only. Use a network policy, then write its listener.");
                continue;
            }
            (_, None) => {
                cx.plan.remarks.point(&server.at, "a stream without `proxy_pass` is left out.");
                continue;
            }
            (None, Some(pass)) => targets(pass, server, &maps, &mut out, &mut remarks, cx),
        }
        out.opaque = true;
        out.remarks = remarks;
        if out.chains.is_empty() {
            cx.plan.remarks.point(&server.at, "a stream is left out: where it goes is made of variables.");
            continue;
        }
        cx.plan.listeners.push(out);
    }
}

fn targets(
    pass: &Directive,
    server: &Directive,
    maps: &[Directive],
    out: &mut Listener,
    remarks: &mut Remarks,
    cx: &mut Cx,
) {
    let secure = server.last("proxy_ssl").is_some_and(|one| one.word(1) == "on");
    let scheme = if secure { "tls" } else { "tcp" };
    let get = |name: &str| server.last(name).cloned();
    let tls = if secure { upstream::tls("https", &get, remarks) } else { Map::default() };
    let connect = server.last("proxy_connect_timeout").and_then(|one| upstream::time(one.word(1)));
    let target = pass.word(1);
    let rule = |authority: &str, cx: &mut Cx| {
        let name = upstream::used(scheme, authority, tls.clone(), connect.clone(), cx);
        let mut rule = Rule { at: pass.at.clone(), targets: vec![name.clone()], ..Rule::default() };
        rule.when.path = crate::path::Path::Any;
        rule.keys.set("to", name);
        rule
    };
    if !target.contains('$') {
        out.keys.set("protocol", "tcp");
        let rule = rule(target, cx);
        out.chains.push(Chain { opaque: Some(rule), ..Chain::default() });
        return;
    }
    let map = maps.iter().find(|map| map.word(1) == "$ssl_preread_server_name" && map.word(2) == target);
    let Some(map) = map.filter(|_| server.last("ssl_preread").is_some_and(|one| one.word(1) == "on")) else {
        return;
    };
    out.keys.set("protocol", "tls");
    let mut last = None;
    for one in map.inner() {
        let name = one.name().to_ascii_lowercase();
        match name.as_str() {
            "hostnames" | "volatile" | "include" => {}
            "default" => last = Some(one.word(1).to_owned()),
            name if name.starts_with('~') => remarks
                .point(&one.at, format!("the name `{name}` is left out: names are exact or `*.suffix`.")),
            name => {
                let sni = name
                    .strip_prefix('.')
                    .map_or_else(|| vec![name.to_owned()], |rest| vec![rest.to_owned(), format!("*.{rest}")]);
                let rule = rule(one.word(1), cx);
                out.chains.push(Chain { sni, opaque: Some(rule), ..Chain::default() });
            }
        }
    }
    if let Some(last) = last {
        let rule = rule(&last, cx);
        out.chains.push(Chain { sni: vec!["*".to_owned()], opaque: Some(rule), ..Chain::default() });
    }
}
