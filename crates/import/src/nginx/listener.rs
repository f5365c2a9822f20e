//! Servers of one address become one listener; the host chooses the server.

use crate::access::{self, AccessEffect, ImportedAccess};
use crate::path::PlannedPath;
use crate::plan::{FilterChain, PlannedListener, PlannedRule, VirtualHost};
use crate::remark::Remarks;
use crate::tree::FileLine;

use super::{
    NginxImport, decoded,
    listen::{Listen, listens},
    server::server,
    several,
    tls::tls,
    tokens::Directive,
};

pub(super) fn listeners(servers: &[Directive], cx: &mut NginxImport) {
    let mut early = Remarks::default();
    let groups = by_address(servers, &mut early);
    cx.plan.remarks.0.append(&mut early.0);
    for (address, all) in groups {
        let listener = listener(address, &all, cx);
        cx.plan.listeners.push(listener);
    }
}

/// The servers of each address, in the order of the addresses.
fn by_address(servers: &[Directive], remarks: &mut Remarks) -> Vec<(String, Vec<(Directive, Listen)>)> {
    let mut groups: Vec<(String, Vec<(usize, Listen)>)> = Vec::new();
    for (number, server) in servers.iter().enumerate() {
        for listen in listens(server, remarks) {
            // `80` and `[::]:80` of one server become one address.
            let twin = listen.bind.strip_prefix("[::]").map(ToOwned::to_owned);
            let key = twin.unwrap_or_else(|| listen.bind.clone());
            match groups.iter_mut().find(|(address, _)| *address == key) {
                Some((_, all)) => {
                    if !all.iter().any(|(known, other)| *known == number && other.ssl == listen.ssl) {
                        all.push((number, listen));
                    }
                }
                None => groups.push((key, vec![(number, listen)])),
            }
        }
    }
    let with_servers = |numbers: Vec<(usize, Listen)>| {
        numbers
            .into_iter()
            .filter_map(|(number, listen)| Some((servers.get(number)?.clone(), listen)))
            .collect()
    };
    groups.into_iter().map(|(address, numbers)| (address, with_servers(numbers))).collect()
}

fn listener(address: String, all: &[(Directive, Listen)], cx: &mut NginxImport) -> PlannedListener {
    let mut out = PlannedListener { name: name_of(&address), ..PlannedListener::default() };
    out.keys.set("bind", vec![address]);
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
        && let Some(why) = tls(all, &mut out, &mut remarks, cx)
    {
        refused.get_or_insert(why);
    }
    merge_slashes(all, &mut out, &mut remarks, cx);
    header_names(all, &mut out, &mut remarks, cx);
    // If no location forwards `Upgrade`, nginx serves such requests like all others.
    out.keys.child("http").set("upgrades", "ignore");
    out.keys.child("http").set("extended_connect", false);
    out.keys.child("http").set("methods", "capitals");
    out.keys.child("http").child("limits").set("body_size", "1MiB");
    let mut forwarded = false;
    let mut sites = sites(all, refused.as_ref(), &mut forwarded, &mut remarks, cx);
    if forwarded != out.secure {
        out.keys.child("http").set("forwarded", if forwarded { "append" } else { "pass" });
    }
    decoded::as_nginx_reads_it(&mut sites, &mut out.keys);
    sites.iter_mut().for_each(several::guard);
    as_compared(&sites, &mut out);
    out.chains.push(FilterChain { sites, ..FilterChain::default() });
    out.remarks = remarks;
    out
}

/// A virtual host for each server of an address; the default server gets all other hosts.
fn sites(
    all: &[(Directive, Listen)],
    refused: Option<&(FileLine, String)>,
    forwarded: &mut bool,
    remarks: &mut Remarks,
    cx: &mut NginxImport,
) -> Vec<VirtualHost> {
    let default = all.iter().position(|(_, listen)| listen.default).unwrap_or(0);
    let mut sites = Vec::new();
    let mut lost = Vec::new();
    for (index, (own, _)) in all.iter().enumerate() {
        let mut hosts = server_names(own, remarks, &mut lost);
        let mut rules = server(own, forwarded, remarks, cx);
        if let Some((at, why)) = refused {
            rules = vec![refusal_of_all(at, format!("everything is refused here: {why}."))];
        }
        if index == default {
            hosts.push("*".to_owned());
            lost.clear();
        }
        if !hosts.is_empty() {
            sites.push(VirtualHost { hosts, rules, ..Default::default() });
        }
    }
    not_said(lost, &mut sites);
    if let Some((at, why)) = &cx.unread_names {
        close_unnamed(at, why, &mut sites);
    }
    // A default server with the hosts `a` and `*` needs only `*`.
    for site in &mut sites {
        if site.hosts.iter().any(|host| host == "*") {
            site.hosts = vec!["*".to_owned()];
        }
    }
    sites
}

/// Refuses the hosts that no server names exactly: the server with the unread include may have named them.
fn close_unnamed(at: &FileLine, why: &str, sites: &mut Vec<VirtualHost>) {
    let is_wide = |host: &String| host.contains('*');
    let mut wide: Vec<String> = Vec::new();
    for site in sites.iter_mut().filter(|site| site.rules.iter().any(|rule| rule.keys.get("to").is_some())) {
        wide.extend(site.hosts.iter().filter(|host| is_wide(host)).cloned());
        site.hosts.retain(|host| !is_wide(host));
    }
    sites.retain(|site| !site.hosts.is_empty());
    if !wide.is_empty() {
        let why = format!(
            "hosts that no server names exactly are refused, because a server may have named them in a file: {why}."
        );
        sites.push(VirtualHost { hosts: wide, rules: vec![refusal_of_all(at, why)], ..Default::default() });
    }
}

/// A refusal of every path.
fn refusal_of_all(at: &FileLine, why: String) -> PlannedRule {
    let mut rule = PlannedRule::refusal(at, why);
    rule.when.path = PlannedPath::Any;
    rule
}

fn merge_slashes(
    all: &[(Directive, Listen)],
    out: &mut PlannedListener,
    remarks: &mut Remarks,
    cx: &NginxImport,
) {
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
}

/// nginx refuses TRACE. It compares query parameters as texts and ignores the case of their names.
fn as_compared(sites: &[VirtualHost], out: &mut PlannedListener) {
    let trace = vec![("no-trace".to_owned(), ImportedAccess::list("methods", vec!["TRACE".to_owned()]))];
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

/// nginx drops headers whose names have `_` or any character except letters, digits and `-`, before any directive reads
/// them.
fn header_names(
    all: &[(Directive, Listen)],
    out: &mut PlannedListener,
    remarks: &mut Remarks,
    cx: &NginxImport,
) {
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
fn not_said(lost: Vec<(FileLine, String)>, sites: &mut Vec<VirtualHost>) {
    for (at, name) in lost {
        let wide = suffix(&name).map_or_else(|| "*".to_owned(), |suffix| format!("*{suffix}"));
        // In nginx, too, names with a `*` come before expressions.
        if wide != "*" && sites.iter().any(|site| site.hosts.contains(&wide)) {
            continue;
        }
        let rule = refusal_of_all(
            &at,
            format!(
                "attache can't express the server name `{name}`, so the import refuses `{wide}`, which includes it. List the hosts; then replace the refusal."
            ),
        );
        sites.retain(|site| wide != "*" || site.hosts.iter().all(|host| host != "*"));
        sites.push(VirtualHost { hosts: vec![wide], rules: vec![rule], ..Default::default() });
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

fn server_names(
    server: &Directive,
    remarks: &mut Remarks,
    lost: &mut Vec<(FileLine, String)>,
) -> Vec<String> {
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
