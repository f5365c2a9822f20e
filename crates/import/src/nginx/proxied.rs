//! Requests that nginx forwards: `proxy_pass`, the changes to requests and answers, and `limit_req`.

use crate::path::PlannedPath;
use crate::plan::PlannedRule;
use crate::text::literal;
use crate::value::{ConfigValue, YamlMap};

use super::{NginxImport, answer::template, scope::LocationScope, tokens::Directive, upstream};

/// nginx's default of `client_max_body_size`.
pub(super) const MEGABYTE: u64 = 1 << 20;

/// A size in nginx's notation, in bytes; 0 means no limit.
fn bytes(text: &str) -> u64 {
    let (number, unit) = text.split_at(text.trim_end_matches(|c: char| c.is_ascii_alphabetic()).len());
    let unit = match unit.to_ascii_lowercase().as_str() {
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        _ => 1,
    };
    number.parse::<u64>().map_or(MEGABYTE, |number| number.saturating_mul(unit))
}

/// Where a `proxy_pass` goes.
struct ProxyPassTarget<'p> {
    scheme: &'p str,
    authority: String,
    /// What replaces the part of the path that the location matched.
    uri: Option<String>,
}

impl<'p> ProxyPassTarget<'p> {
    /// `None` if it contains variables.
    fn read(pass: &'p Directive) -> Option<Self> {
        let target = pass.word(1);
        let (scheme, rest) = target.split_once("://").unwrap_or(("http", target));
        let scheme = match (pass.name(), scheme) {
            ("grpc_pass", "grpc" | "http") => "h2c",
            (_, "grpcs") => "https",
            (_, scheme) => scheme,
        };
        let (authority, uri) = match rest.strip_prefix("unix:") {
            Some(path) => (
                format!("unix:{}", path.split(':').next().unwrap_or(path)),
                path.split_once(':').map(|(_, uri)| uri.to_owned()),
            ),
            None => match rest.find('/') {
                Some(index) => (rest[..index].to_owned(), Some(rest[index..].to_owned())),
                None => (rest.to_owned(), None),
            },
        };
        let variable = authority.contains('$') || uri.as_deref().is_some_and(|uri| uri.contains('$'));
        (!variable && !authority.is_empty()).then_some(Self { scheme, authority, uri })
    }
}

/// Makes a rule of `proxy_pass` or `grpc_pass`, with what is changed on the way.
pub(super) fn proxied(
    pass: &Directive,
    scope: &LocationScope<'_>,
    rule: &mut PlannedRule,
    forwarded: &mut bool,
    cx: &mut NginxImport,
) {
    let Some(target) = ProxyPassTarget::read(pass) else {
        rule.refuse(&pass.at, "this location is refused: variables choose its destination. Write a route for each upstream; then replace the refusal.");
        return;
    };
    destination(&target, pass, scope, rule, cx);
    if let Some(uri) = &target.uri
        && !replace_path(uri, rule)
    {
        rule.refuse(&pass.at, "this location is refused: nginx allows no path in `proxy_pass` of a location with an expression.");
        return;
    }
    let sent = SentHeaders::read(pass, &target, scope, rule, forwarded, cx);
    body_size(pass, scope, rule, cx);
    upgrades(&sent, pass, scope, rule, cx);
    if !sent.preserve {
        host(sent.host, pass, scope, rule, cx);
    }
    let mut headers = YamlMap::default();
    if !sent.set.is_empty() {
        headers.child("request").set("set", sent.set);
    }
    if !sent.remove.is_empty() {
        headers.child("request").set("remove", sent.remove);
    }
    if !headers.is_empty() {
        rule.keys.set("headers", headers);
    }
    respond_headers(scope, rule, cx);
    let limits = scope.list("limit_req", cx);
    for one in &limits {
        limit(one, rule, cx);
    }
    if let [first, _, ..] = limits.as_slice() {
        rule.remarks.point(&first.at, "this location has several `limit_req`, and a route has one `rate_limit`: only the last one is kept. Check that it is the strictest, or limit the others with `global_rate_limit`.");
    }
    if let Some(one) = scope.get("proxy_next_upstream", cx) {
        retries(&one, rule);
    }
}

/// The upstream and its timeouts.
fn destination(
    target: &ProxyPassTarget<'_>,
    pass: &Directive,
    scope: &LocationScope<'_>,
    rule: &mut PlannedRule,
    cx: &mut NginxImport,
) {
    let get = |name: &str| scope.get(name, cx);
    let tls = upstream::tls(target.scheme, &get, &mut rule.remarks);
    let connect = get("proxy_connect_timeout").and_then(|one| upstream::time(one.word(1)));
    let read = get(if pass.name() == "grpc_pass" { "grpc_read_timeout" } else { "proxy_read_timeout" })
        .and_then(|one| upstream::time(one.word(1)));
    let name = upstream::used(target.scheme, &target.authority, tls, connect, cx);
    rule.targets.push(name.clone());
    rule.keys.set("to", name);
    // nginx limits the time between two reads.
    let read = read.unwrap_or_else(|| "60s".to_owned());
    rule.keys.set("timeout", read.clone());
    rule.keys.set("idle_timeout", read);
}

/// Puts the path of `proxy_pass` in place of what the location matched. `false` where that has no meaning.
fn replace_path(uri: &str, rule: &mut PlannedRule) -> bool {
    match rule.when.path.clone() {
        PlannedPath::Exact(_) => rule.keys.child("rewrite").set("path", literal(uri)),
        PlannedPath::All if uri == "/" => {}
        PlannedPath::Regex(_) => return false,
        path => {
            let whole = format!("{}{{rest}}", literal(uri));
            rule.when.path = path.with_rest();
            rule.keys.child("rewrite").set("path", whole);
        }
    }
    true
}

/// The effect of `proxy_set_header` on the forwarded request.
#[derive(Default)]
struct SentHeaders {
    host: Option<String>,
    /// The client's `Host` is sent.
    preserve: bool,
    set: YamlMap,
    remove: Vec<String>,
    upgrade: Option<String>,
    /// `Connection` is written, and not as `close`.
    connection: bool,
}

impl SentHeaders {
    fn read(
        pass: &Directive,
        target: &ProxyPassTarget<'_>,
        scope: &LocationScope<'_>,
        rule: &mut PlannedRule,
        forwarded: &mut bool,
        cx: &NginxImport,
    ) -> Self {
        let named = !target.authority.starts_with("unix:");
        let mut sent = Self { host: named.then(|| target.authority.clone()), ..Self::default() };
        let list = if pass.name() == "grpc_pass" { "grpc_set_header" } else { "proxy_set_header" };
        for one in scope.list(list, cx) {
            let (key, value) = (one.word(1).to_ascii_lowercase(), one.word(2));
            match key.as_str() {
                "host" => sent.set_host(&one, rule),
                "upgrade" if !value.is_empty() => sent.upgrade = Some(value.to_owned()),
                "connection" => {
                    sent.connection = !value.is_empty() && !value.eq_ignore_ascii_case("close");
                }
                name if attache_config::is_framing(name) => {}
                "x-forwarded-for" if value == "$proxy_add_x_forwarded_for" => *forwarded = true,
                _ if value.is_empty() => sent.remove.push(key),
                _ => match template(value, &rule.when.path) {
                    Some(value) => sent.set.set(&key, value),
                    None => {
                        rule.remarks.point(
                            &one.at,
                            format!("the value of `{}` has a variable that attache lacks; the header is left out, and removed from what clients send.", one.word(1)),
                        );
                        sent.remove.push(key);
                    }
                },
            }
        }
        sent
    }

    fn set_host(&mut self, one: &Directive, rule: &mut PlannedRule) {
        match one.word(2) {
            "$http_host" => self.preserve = true,
            "$host" => {
                self.preserve = true;
                rule.remarks.soft(&one.at, "`$host` has no port; attache sends the client's `Host` unchanged, with its port if it has one.");
            }
            "$proxy_host" => {}
            value if !value.contains('$') => self.host = Some(value.to_owned()),
            _ => {
                rule.remarks.point(&one.at, "variables set the host; attache keeps the client's host.");
                self.preserve = true;
            }
        }
    }
}

fn body_size(pass: &Directive, scope: &LocationScope<'_>, rule: &mut PlannedRule, cx: &NginxImport) {
    let size = scope.get("client_max_body_size", cx).map_or(MEGABYTE, |one| bytes(one.word(1)));
    if size != MEGABYTE {
        rule.keys.set("body_size", if size > 1 << 30 { 0 } else { size });
    }
    if size > 1 << 30 {
        rule.remarks.soft(&pass.at, "attache can't limit bodies to more than 1 GiB: they have no limit.");
    }
}

fn upgrades(
    sent: &SentHeaders,
    pass: &Directive,
    scope: &LocationScope<'_>,
    rule: &mut PlannedRule,
    cx: &NginxImport,
) {
    let current = scope.get("proxy_http_version", cx).is_some_and(|one| one.word(1) == "1.1");
    if !(sent.connection && current) {
        return;
    }
    match sent.upgrade.as_deref() {
        Some("$http_upgrade") => rule.keys.set("upgrades", "any"),
        Some(protocol) if !protocol.contains('$') => {
            rule.keys.set("upgrades", protocol.to_ascii_lowercase());
        }
        Some(_) => rule.remarks.point(
            &pass.at,
            "a variable set `Upgrade`: attache serves requests for an upgrade without the upgrade. `upgrades` of the route allows it.",
        ),
        None => {}
    }
}

/// The `Host` of a location that doesn't send the client's. `None`: the upstream is a Unix socket.
fn host(
    host: Option<String>,
    pass: &Directive,
    scope: &LocationScope<'_>,
    rule: &mut PlannedRule,
    cx: &NginxImport,
) {
    // `default` is nginx's behaviour without the directive. Another value gets a remark at its own place, and with
    // `off` nothing is lost.
    let by_default = scope.get("proxy_redirect", cx).is_none_or(|one| one.word(1) == "default");
    if pass.name() == "proxy_pass" && by_default {
        rule.remarks.note(&pass.at, "attache doesn't change a `Location` with the upstream's address; nginx replaces it by its own. Let the service redirect to a path, or send it the client's `Host` (`host: preserve`).");
    }
    match host {
        Some(host) if upstream::host_like(&host) => {
            rule.keys.child("rewrite").set("host", host.to_ascii_lowercase());
        }
        Some(host) => {
            rule.remarks.soft(&pass.at, format!("the name of the upstream, `{host}`, is not a host name; attache sends the host of the upstream's address."));
            rule.keys.child("rewrite").set("host", "upstream");
        }
        None => rule.keys.child("rewrite").set("host", "localhost"),
    }
}

/// `proxy_next_upstream`.
fn retries(one: &Directive, rule: &mut PlannedRule) {
    let mut on = vec!["connect-failure".to_owned()];
    for word in &one.words[1..] {
        match word.as_str() {
            "off" => {
                rule.keys.set("retry", "off");
                return;
            }
            "error" | "timeout" => on.push("reset".to_owned()),
            "invalid_header" => on.push("reset-before-headers".to_owned()),
            "non_idempotent" => rule.keys.child("retry").set("methods", "all"),
            status => on.extend(
                status.strip_prefix("http_").filter(|status| status.len() == 3).map(ToOwned::to_owned),
            ),
        }
    }
    on.dedup();
    rule.keys.child("retry").set("on", on);
}

pub(super) fn respond_headers(scope: &LocationScope<'_>, rule: &mut PlannedRule, cx: &NginxImport) {
    if matches!(rule.remarks.heaviest(), Some(crate::remark::Impact::Point)) {
        return;
    }
    let mut add = YamlMap::default();
    for one in scope.list("add_header", cx) {
        match template(one.word(2), &PlannedPath::Any) {
            Some(value) => add.set(&one.word(1).to_ascii_lowercase(), value),
            None => rule.remarks.soft(
                &one.at,
                format!("the header `{}` is left out: attache lacks a variable of its value.", one.word(1)),
            ),
        }
        if one.word(3) != "always" {
            rule.remarks.note(
                &one.at,
                "the header is added to every response; nginx adds it only to successful ones.",
            );
        }
    }
    let hidden: Vec<String> =
        scope.list("proxy_hide_header", cx).iter().map(|one| one.word(1).to_ascii_lowercase()).collect();
    if !add.is_empty() {
        rule.keys.child("headers").child("response").set("add", add);
    }
    if !hidden.is_empty() && rule.keys.get("to").is_some() {
        rule.keys.child("headers").child("response").set("remove", hidden);
    }
}

pub(super) fn limit(one: &Directive, rule: &mut PlannedRule, cx: &NginxImport) {
    let word = |name: &str| one.words.iter().find_map(|word| word.strip_prefix(name));
    let zone = word("zone=").unwrap_or_default();
    let found = cx.zones.iter().find(|other| {
        other
            .words
            .iter()
            .any(|word| word.strip_prefix("zone=").is_some_and(|own| own.split(':').next() == Some(zone)))
    });
    let rate = found.and_then(|zone| {
        zone.words
            .iter()
            .find_map(|word| word.strip_prefix("rate="))
            .map(|rate| (zone.word(1).to_owned(), rate.to_owned()))
    });
    let Some((key, rate)) = rate else {
        rule.refuse(&one.at, format!("this location is refused: `limit_req` has the zone `{zone}`, and no given file has a `limit_req_zone` with this name. Give the file that has it as a further argument of the import."));
        return;
    };
    let (count, per) = rate
        .strip_suffix("r/s")
        .map(|count| (count, "1s"))
        .or_else(|| rate.strip_suffix("r/m").map(|count| (count, "1m")))
        .unwrap_or(("1", "1s"));
    let mut map = YamlMap::default();
    map.set("requests", ConfigValue::Raw(count.to_owned()));
    map.set("per", per);
    map.set("burst", word("burst=").and_then(|burst| burst.parse::<u64>().ok()).unwrap_or(0) + 1);
    match key.as_str() {
        "$binary_remote_addr" | "$remote_addr" => map.set("by", "client"),
        key if key.starts_with("$http_") => map.set("by", format!("header:{}", key[6..].replace('_', "-"))),
        _ => {}
    }
    rule.remarks.soft(&one.at, "attache doesn't delay requests above the rate: within the burst they pass at once, and beyond it they are answered 429.");
    rule.keys.set("rate_limit", map);
}
