//! nginx: servers and locations that proxy, and streams, as far as a sidecar needs them.

mod answer;
mod clients;
mod decoded;
mod included;
mod listen;
mod location;
mod proxied;
mod rewritten;
mod scope;
mod several;
mod stream;
mod tokens;
mod upstream;
mod words;

use crate::File;
use crate::access::{self, Access, AccessEffect};
use crate::plan::{Chain, ClientCertDemand, Listener, Names, Plan};
use crate::remark::Remarks;
use crate::tree::{At, Unreadable};

pub(crate) use listen::bind;
use listen::{Listen, listens};
pub(crate) use rewritten::rewritten;
use tokens::Directive;

/// State that the parts of an import share.
pub(crate) struct Cx {
    pub(crate) plan: Plan,
    pub(crate) names: Names,
    /// Blocks `upstream` of HTTP and streams.
    pub(crate) upstreams: Vec<Directive>,
    /// Upstreams that were made: scheme and address as in `proxy_pass`, and the name.
    pub(crate) used: Vec<(String, String)>,
    /// Zones of `limit_req_zone`.
    pub(crate) zones: Vec<Directive>,
    /// Directives of `http`, which servers inherit.
    pub(crate) http: Vec<Directive>,
    /// `map` blocks.
    pub(crate) maps: Vec<Directive>,
    /// The reason if all of HTTP must be refused.
    pub(crate) refused: Option<(At, String)>,
    /// The listener that is read terminates TLS.
    pub(crate) secure: bool,
    /// Whether connections begin with a PROXY protocol header.
    pub(crate) proxied: bool,
}

pub(crate) fn import(files: &[File]) -> Result<Plan, Unreadable> {
    let mut cx = Cx {
        plan: Plan::default(),
        names: Names::default(),
        upstreams: Vec::new(),
        used: Vec::new(),
        zones: Vec::new(),
        http: Vec::new(),
        maps: Vec::new(),
        refused: None,
        secure: false,
        proxied: false,
    };
    let top = included::read(files)?;
    let streams: Vec<Directive> = top.iter().filter(|one| one.name() == "stream").cloned().collect();
    let mut http: Vec<Directive> =
        top.iter().filter(|one| one.name() == "http").flat_map(|one| one.inner().to_vec()).collect();
    // A file of `conf.d` is the inside of `http`.
    http.extend(
        top.iter()
            .filter(|one| {
                !matches!(
                    one.name(),
                    "http"
                        | "stream"
                        | "events"
                        | "user"
                        | "worker_processes"
                        | "pid"
                        | "error_log"
                        | "load_module"
                        | "include"
                        | "daemon"
                        | "worker_rlimit_nofile"
                        | "master_process"
                        | "env"
                        | "pcre_jit"
                        | "timer_resolution"
                        | "worker_cpu_affinity"
                        | "worker_priority"
                        | "worker_shutdown_timeout"
                        | "thread_pool"
                        | "mail"
                        | "lock_file"
                        | "ssl_engine"
                        | "working_directory"
                )
            })
            .cloned(),
    );
    for one in
        http.iter().chain(&top).filter(|one| one.name() == "include" && !included::is_quiet(one.word(1)))
    {
        let what = format!(
            "`include {}` is not followed, since its files are not here: give them to the import, too",
            one.word(1)
        );
        // Many files are servers; one with a name may be rules for all of them.
        if one.word(1).contains('*') {
            cx.plan.remarks.point(&one.at, format!("{what}."));
        } else {
            cx.refused.get_or_insert((one.at.clone(), what));
        }
    }
    if let Some(one) =
        http.iter().find(|one| !words::is_known(one.name()) && !words::OF_HTTP.contains(&one.name()))
    {
        let what = format!(
            "`{}` isn't known to this import, and may have decided who passes. Find out what it did",
            one.name()
        );
        cx.refused.get_or_insert((one.at.clone(), what));
    }
    cx.upstreams = http.iter().filter(|one| one.name() == "upstream").cloned().collect();
    cx.zones = http.iter().filter(|one| one.name() == "limit_req_zone").cloned().collect();
    cx.maps = http.iter().filter(|one| one.name() == "map").cloned().collect();
    let inherited = |one: &&Directive| one.block.is_none() || words::is_known(one.name());
    cx.http = http.iter().filter(|one| one.name() != "server").filter(inherited).cloned().collect();
    let servers: Vec<Directive> = http.iter().filter(|one| one.name() == "server").cloned().collect();
    if servers.is_empty() && streams.is_empty() {
        let file = files.first().map(|file| file.path.display().to_string()).unwrap_or_default();
        return Err(Unreadable {
            at: crate::tree::At { file: file.into(), line: 0 },
            what: "there is no `server` in it".to_owned(),
        });
    }
    listeners(&servers, &mut cx);
    for block in &streams {
        stream::stream(block, &mut cx);
    }
    upstream::upstreams(&mut cx);
    Ok(cx.plan)
}

/// Servers of one address become one listener; the host chooses the server.
fn listeners(servers: &[Directive], cx: &mut Cx) {
    let mut groups: Vec<(Vec<String>, Vec<(usize, Listen)>)> = Vec::new();
    let mut early = Remarks::default();
    for (number, server) in servers.iter().enumerate() {
        for listen in listens(server, &mut early) {
            // `80` and `[::]:80` of one server are one.
            let twin = listen.bind.strip_prefix("[::]").map(ToOwned::to_owned);
            let key = twin.unwrap_or_else(|| listen.bind.clone());
            match groups.iter_mut().find(|(binds, _)| binds[0] == key) {
                Some((_, all)) => {
                    if !all.iter().any(|(known, other)| *known == number && other.ssl == listen.ssl) {
                        all.push((number, listen));
                    }
                }
                None => groups.push((vec![key], vec![(number, listen)])),
            }
        }
    }
    cx.plan.remarks.0.append(&mut early.0);
    for (binds, numbers) in groups {
        let all: Vec<(Directive, Listen)> = numbers
            .into_iter()
            .filter_map(|(number, listen)| Some((servers.get(number)?.clone(), listen)))
            .collect();
        let mut out = Listener { name: name_of(&binds[0]), ..Listener::default() };
        out.keys.set("bind", binds);
        out.keys.set("protocol", "http");
        let mut remarks = Remarks::default();
        if all.iter().any(|(_, listen)| listen.proxy) {
            out.keys.set("proxy_protocol", "require");
        }
        out.secure = all.iter().any(|(_, listen)| listen.ssl);
        cx.secure = out.secure;
        cx.proxied = all.iter().any(|(_, listen)| listen.proxy);
        let mut refused = cx.refused.clone();
        if out.secure
            && let Some(why) = tls(&all, &mut out, &mut remarks, cx)
        {
            refused.get_or_insert(why);
        }
        let merges = |server: &Directive| {
            let said = server
                .last("merge_slashes")
                .or_else(|| cx.http.iter().rev().find(|one| one.name() == "merge_slashes"));
            said.is_none_or(|one| one.word(1) != "off")
        };
        let merged = all.iter().any(|(server, _)| merges(server));
        if merged {
            out.keys.child("http").child("path").set("merge_slashes", true);
        }
        if let Some((server, _)) = all.iter().find(|(server, _)| merges(server) != merged) {
            remarks.point(
                &server.at,
                "slashes are merged for all servers of this address: `merge_slashes` is one for a listener.",
            );
        }
        header_names(&all, &mut out, &mut remarks, cx);
        // Without `Upgrade` among the headers that are passed on, nginx serves such requests like others.
        out.keys.child("http").set("upgrades", "ignore");
        out.keys.child("http").set("extended_connect", false);
        out.keys.child("http").set("methods", "capitals");
        out.keys.child("http").child("limits").set("body_size", "1MiB");
        let default = all.iter().position(|(_, listen)| listen.default).unwrap_or(0);
        let mut forwarded = false;
        let mut sites = Vec::new();
        let mut lost = Vec::new();
        for (index, (server, _)) in all.iter().enumerate() {
            let mut hosts = server_names(server, &mut remarks, &mut lost);
            let mut own = location::server(server, index == default, &mut forwarded, &mut remarks, cx);
            if let Some((at, why)) = &refused {
                let mut rule = crate::plan::Rule { at: at.clone(), ..Default::default() };
                rule.when.path = crate::path::Path::Any;
                rule.refuse(at, format!("everything is refused here: {why}; then replace the refusal."));
                own = vec![rule];
            }
            if index == default {
                hosts.push("*".to_owned());
                lost.clear();
            }
            if hosts.is_empty() {
                continue;
            }
            sites.push(crate::plan::VirtualHost {
                hosts,
                rules: std::mem::take(&mut own),
                ..Default::default()
            });
        }
        not_said(lost, &mut sites);
        if forwarded != out.secure {
            out.keys.child("http").set("forwarded", if forwarded { "append" } else { "pass" });
        }
        // `a` and `*` of the default server stand alone as `*`.
        for site in &mut sites {
            if site.hosts.iter().any(|host| host == "*") {
                site.hosts = vec!["*".to_owned()];
            }
        }
        decoded::as_nginx_reads_it(&mut sites, &mut out.keys);
        sites.iter_mut().for_each(several::guard);
        as_compared(&sites, &mut out);
        out.chains.push(Chain { sites, ..Chain::default() });
        out.remarks = remarks;
        cx.plan.listeners.push(out);
    }
}

/// nginx refuses TRACE, and compares parameters of a query as texts, their names without case.
fn as_compared(sites: &[crate::plan::VirtualHost], out: &mut Listener) {
    let trace = vec![("no-trace".to_owned(), Access::list("methods", vec!["TRACE".to_owned()]))];
    if let AccessEffect::Keys(keys) = access::deny(&trace) {
        out.keys.set("authorization", keys);
    }
    if sites.iter().flat_map(|site| &site.rules).any(|rule| !rule.when.query.is_empty()) {
        let mut http = out.keys.child("http");
        let mut query = http.child("query");
        query.set("decode", false);
        query.set("ignore_case", true);
        query.set("repeated", "first");
    }
}

/// nginx drops headers whose names have `_`, or another sign than letters, digits and `-`, before anything reads them.
fn header_names(all: &[(Directive, Listen)], out: &mut Listener, remarks: &mut Remarks, cx: &Cx) {
    for (name, key, otherwise) in
        [("underscores_in_headers", "underscores", "on"), ("ignore_invalid_headers", "others", "off")]
    {
        let keeps = |server: &Directive| {
            let said = server.last(name);
            let said = said.or_else(|| cx.http.iter().rev().find(|one| one.name() == name));
            said.is_some_and(|one| one.word(1) == otherwise)
        };
        let Some((server, _)) = all.iter().find(|(server, _)| !keeps(server)) else { continue };
        // With `ignore_invalid_headers off` no name is dropped, whatever `underscores_in_headers` says.
        let all_names = cx.http.iter().rev().find(|one| one.name() == "ignore_invalid_headers");
        if all_names.is_some_and(|one| one.word(1) == "off") {
            continue;
        }
        out.keys.child("http").child("header_names").set(key, "drop");
        if all.iter().any(|(server, _)| keeps(server)) {
            remarks.point(
                &server.at,
                format!("`{name}` differs among the servers of this address: such headers are dropped for all of them."),
            );
        }
    }
}

fn name_of(bind: &str) -> String {
    let text = bind.trim_start_matches(':').replace("unix:", "unix");
    crate::plan::name(&format!("http-{}", text.replace([':', '[', ']', '/'], "-")))
}

/// A name that attache can't express must not reach the default server: the pattern that covers it is refused.
fn not_said(lost: Vec<(At, String)>, sites: &mut Vec<crate::plan::VirtualHost>) {
    for (at, name) in lost {
        let wide = suffix(&name).map_or_else(|| "*".to_owned(), |suffix| format!("*{suffix}"));
        // Names with a `*` come before expressions there, too.
        if wide != "*" && sites.iter().any(|site| site.hosts.contains(&wide)) {
            continue;
        }
        let mut rule = crate::plan::Rule { at: at.clone(), ..Default::default() };
        rule.when.path = crate::path::Path::Any;
        rule.refuse(&at, format!("the server name `{name}` can't be said, so `{wide}`, which covers it, is refused. Name the hosts; then replace the refusal."));
        sites.retain(|site| wide != "*" || site.hosts.iter().all(|host| host != "*"));
        sites.push(crate::plan::VirtualHost { hosts: vec![wide], rules: vec![rule], ..Default::default() });
    }
}

/// The suffix of every name that an expression matches: `.example.com` of `~^.+\\.example\\.com$`.
fn suffix(regex: &str) -> Option<String> {
    let mut rest = regex.strip_suffix('$')?;
    if regex.contains('|') {
        return None;
    }
    let mut out = String::new();
    while let Some(start) = rest.rfind("\\.") {
        let label = &rest[start + 2..];
        if label.is_empty() || !label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            break;
        }
        out = format!(".{}{out}", label.to_ascii_lowercase());
        rest = &rest[..start];
    }
    (!out.is_empty()).then_some(out)
}

fn server_names(server: &Directive, remarks: &mut Remarks, lost: &mut Vec<(At, String)>) -> Vec<String> {
    let mut out = Vec::new();
    for one in server.all("server_name") {
        for name in &one.words[1..] {
            let name = name.to_ascii_lowercase();
            if name == "_" || name.is_empty() {
                continue;
            }
            if let Some(suffix) = name.strip_prefix('.') {
                out.push(suffix.to_owned());
                out.push(format!("*.{suffix}"));
            } else if name.starts_with('~') || name.contains('$') {
                lost.push((one.at.clone(), name.clone()));
                remarks.point(
                    &one.at,
                    format!("the name `{name}` is left out: hosts are exact, `*.suffix` or `prefix.*`."),
                );
            } else {
                out.push(name);
            }
        }
    }
    out
}

/// Reads TLS of an address. Returns the reason if everything behind it must be refused.
fn tls(
    all: &[(Directive, Listen)],
    out: &mut Listener,
    remarks: &mut Remarks,
    cx: &Cx,
) -> Option<(At, String)> {
    let mut refused = None;
    let mut asked: Vec<ClientCertDemand> = Vec::new();
    for (server, _) in all {
        let get =
            |name: &str| server.last(name).or_else(|| cx.http.iter().rev().find(|one| one.name() == name));
        let mut tls = out.keys.child("tls");
        if let (Some(certificate), Some(key)) = (get("ssl_certificate"), get("ssl_certificate_key")) {
            if tls.get("certificate").is_none() {
                tls.set("certificate", certificate.word(1));
                tls.set("key", key.word(1));
            } else if tls.get("certificate") != Some(&certificate.word(1).into()) {
                let mut more = match tls.get("certificates") {
                    Some(crate::value::Value::List(list)) => list.clone(),
                    _ => Vec::new(),
                };
                let mut map = crate::value::Map::default();
                map.set("certificate", certificate.word(1));
                map.set("key", key.word(1));
                more.push(map.into());
                tls.set("certificates", crate::value::Value::List(more));
            }
        }
        let ca = get("ssl_client_certificate").or_else(|| get("ssl_trusted_certificate"));
        let verify = get("ssl_verify_client");
        let wanted = match verify.map(|one| one.word(1)) {
            Some("on") => ClientCertDemand::Required,
            Some("optional") => ClientCertDemand::Optional,
            Some("optional_no_ca") => {
                remarks.soft(
                    &server.at,
                    "certificates of clients that would not be verified are not requested.",
                );
                ClientCertDemand::Nothing
            }
            _ => ClientCertDemand::Nothing,
        };
        asked.push(wanted);
        if wanted != ClientCertDemand::Nothing {
            let known = tls.get("client_ca").cloned();
            match (ca, known) {
                (None, _) => {
                    refused = Some((server.at.clone(), "clients must show a certificate, and there are no roots to verify it by. Give them as `client_ca`".to_owned()));
                }
                (Some(ca), Some(known)) if known != ca.word(1).into() => {
                    refused = Some((ca.at.clone(), "clients are verified by other roots in another server of this address. Give each server its own address".to_owned()));
                }
                (Some(ca), _) => tls.set("client_ca", ca.word(1)),
            }
        }
        if let Some(crl) = get("ssl_crl") {
            tls.set("crls", crl.word(1));
        }
        if let Some(versions) = get("ssl_protocols") {
            let has = |word: &str| versions.words.iter().any(|own| own == word);
            if has("TLSv1") || has("TLSv1.1") {
                remarks.soft(&versions.at, "TLS 1.0 and 1.1 are not spoken: 1.2 is the lowest version.");
            } else if has("TLSv1.3") && !has("TLSv1.2") {
                tls.set("min_version", "1.3");
            }
        }
        if let Some(ciphers) = get("ssl_ciphers") {
            remarks.soft(
                &ciphers.at,
                "cipher suites are those of rustls, all of them safe; they are not chosen.",
            );
        }
    }
    let mut tls = out.keys.child("tls");
    if tls.get("certificate").is_none() {
        remarks.point(&all[0].0.at, "there is no certificate: give its files here.");
        tls.set("certificate", "/etc/attache/tls.crt");
        tls.set("key", "/etc/attache/tls.key");
    }
    let most = asked.iter().copied().max().unwrap_or(ClientCertDemand::Nothing);
    if most == ClientCertDemand::Optional {
        tls.set("client_optional", true);
    }
    if asked.iter().any(|one| *one != most) {
        remarks.point(
            &all[0].0.at,
            "all servers of this address ask for clients' certificates as the strictest of them does. Give each its own address.",
        );
    }
    refused
}
