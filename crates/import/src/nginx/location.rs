//! Servers and locations become rules that are tried in order.
//!
//! nginx takes an exact location, else the longest prefix with `^~`, else the first expression that matches, else the longest prefix. As a list
//! that is tried in order this is: exact ones, those with `^~`, expressions, other prefixes, prefixes with the longest first.

use crate::path::Path;
use crate::plan::{Rule, When};
use crate::remark::Remarks;
use crate::text::literal;
use crate::value::{Map, Value};

use super::{Cx, tokens::Directive, upstream};

/// Directives that say nothing about what a request meets.
const QUIET: &[&str] = &[
    "listen",
    "server_name",
    "access_log",
    "error_log",
    "log_not_found",
    "root",
    "index",
    "location",
    "ssl_certificate",
    "ssl_certificate_key",
    "ssl_protocols",
    "ssl_ciphers",
    "ssl_prefer_server_ciphers",
    "ssl_session_cache",
    "ssl_session_timeout",
    "ssl_session_tickets",
    "ssl_dhparam",
    "ssl_stapling",
    "ssl_stapling_verify",
    "ssl_trusted_certificate",
    "ssl_client_certificate",
    "ssl_verify_client",
    "ssl_verify_depth",
    "ssl_crl",
    "ssl",
    "ssl_ecdh_curve",
    "ssl_buffer_size",
    "http2",
    "proxy_http_version",
    "proxy_set_header",
    "proxy_pass",
    "proxy_buffering",
    "proxy_buffers",
    "proxy_buffer_size",
    "proxy_busy_buffers_size",
    "proxy_max_temp_file_size",
    "proxy_read_timeout",
    "proxy_send_timeout",
    "proxy_connect_timeout",
    "proxy_request_buffering",
    "proxy_redirect",
    "proxy_next_upstream",
    "proxy_next_upstream_tries",
    "proxy_next_upstream_timeout",
    "proxy_ssl_verify",
    "proxy_ssl_name",
    "proxy_ssl_server_name",
    "proxy_ssl_trusted_certificate",
    "proxy_ssl_certificate",
    "proxy_ssl_certificate_key",
    "proxy_ssl_session_reuse",
    "proxy_ssl_protocols",
    "proxy_ssl_ciphers",
    "proxy_ssl_verify_depth",
    "keepalive_timeout",
    "keepalive_requests",
    "tcp_nodelay",
    "tcp_nopush",
    "sendfile",
    "client_body_buffer_size",
    "client_header_buffer_size",
    "large_client_header_buffers",
    "client_header_timeout",
    "client_body_timeout",
    "send_timeout",
    "resolver",
    "resolver_timeout",
    "default_type",
    "types",
    "charset",
    "server_tokens",
    "underscores_in_headers",
    "reset_timedout_connection",
    "return",
    "add_header",
    "allow",
    "deny",
    "auth_basic",
    "auth_basic_user_file",
    "auth_request",
    "limit_req",
    "if",
    "rewrite",
    "try_files",
    "alias",
    "internal",
    "fastcgi_pass",
    "uwsgi_pass",
    "scgi_pass",
    "memcached_pass",
    "grpc_pass",
    "set",
    "error_page",
    "gzip",
    "gzip_types",
    "gzip_proxied",
    "gzip_vary",
    "gzip_min_length",
    "gzip_comp_level",
    "gzip_buffers",
    "gzip_http_version",
    "gzip_disable",
    "gzip_static",
    "expires",
    "etag",
    "port_in_redirect",
    "absolute_redirect",
    "server_name_in_redirect",
    "merge_slashes",
    "proxy_hide_header",
    "proxy_pass_header",
    "proxy_ignore_headers",
    "proxy_cache",
    "client_max_body_size",
    "limit_conn",
    "limit_rate",
    "autoindex",
    "satisfy",
    "grpc_set_header",
    "grpc_read_timeout",
    "grpc_send_timeout",
    "proxy_headers_hash_max_size",
    "proxy_headers_hash_bucket_size",
    "stub_status",
    "empty_gif",
    "mirror",
    "limit_except",
    "fastcgi_param",
    "fastcgi_index",
    "fastcgi_split_path_info",
    "include",
    "uwsgi_param",
    "chunked_transfer_encoding",
    "proxy_intercept_errors",
    "lingering_close",
    "aio",
    "open_file_cache",
    "limit_req_status",
    "limit_req_log_level",
    "limit_conn_status",
    "server_names_hash_bucket_size",
    "types_hash_max_size",
    "ignore_invalid_headers",
    "real_ip_header",
    "set_real_ip_from",
    "real_ip_recursive",
    "proxy_cookie_path",
    "proxy_cookie_domain",
    "add_trailer",
    "auth_request_set",
    "proxy_cache_bypass",
    "proxy_no_cache",
    "proxy_cache_valid",
    "proxy_cache_key",
    "proxy_cache_use_stale",
    "proxy_temp_path",
    "log_subrequest",
    "post_action",
    "auth_delay",
    "limit_rate_after",
    "proxy_bind",
    "proxy_socket_keepalive",
    "http2_push_preload",
    "ssl_reject_handshake",
    "output_buffers",
    "postpone_output",
    "proxy_store",
    "auth_jwt",
    "proxy_ssl_crl",
    "proxy_cache_lock",
    "proxy_cache_revalidate",
    "fastcgi_read_timeout",
    "fastcgi_buffers",
    "fastcgi_buffer_size",
    "uwsgi_read_timeout",
    "proxy_limit_rate",
    "proxy_method",
    "proxy_pass_request_body",
    "proxy_pass_request_headers",
    "proxy_set_body",
    "js_content",
    "content_by_lua_block",
    "access_by_lua_block",
    "access_by_lua_file",
    "rewrite_by_lua_block",
    "content_by_lua_file",
    "perl",
    "proxy_cache_background_update",
    "proxy_cache_min_uses",
    "dav_methods",
    "modsecurity",
    "modsecurity_rules_file",
    "auth_pam",
    "auth_ldap",
    "recursive_error_pages",
    "msie_padding",
    "if_modified_since",
    "min_delete_depth",
    "create_full_put_path",
    "dav_access",
    "random_index",
    "directio",
    "open_file_cache_valid",
    "sub_filter",
    "sub_filter_once",
    "sub_filter_types",
    "image_filter",
    "addition_types",
    "add_before_body",
    "add_after_body",
    "mp4",
    "flv",
    "slice",
];

/// Directives that close what they stand in.
const GUARDS: &[(&str, &str)] = &[
    ("auth_basic", "a user and password were asked for. Let the application ask for them"),
    ("auth_request", "a subrequest decided who passes. Ask that service in the application"),
    ("auth_jwt", "a JWT was required. Let the application verify it"),
    ("auth_pam", "users were asked for. Let the application ask for them"),
    ("auth_ldap", "users were asked for. Let the application ask for them"),
    ("access_by_lua_block", "a Lua script decided who passes. Write it as routes"),
    ("access_by_lua_file", "a Lua script decided who passes. Write it as routes"),
    ("rewrite_by_lua_block", "a Lua script changed requests. Write it as routes"),
    ("modsecurity", "a web application firewall stood here. Put it in front or behind"),
    ("limit_except", "methods were allowed to some only. Write each as a route with `methods`"),
    ("js_content", "a script answered. Let the application answer"),
    ("content_by_lua_block", "a script answered. Let the application answer"),
    ("content_by_lua_file", "a script answered. Let the application answer"),
    ("perl", "a script answered. Let the application answer"),
];

const SOFT: &[(&str, &str)] = &[
    ("gzip", "answers are not compressed: `compression` of the listener does it."),
    ("proxy_cache", "answers are not cached."),
    ("client_max_body_size", "bodies are not bounded by size; they stream."),
    ("limit_conn", "connections of one client are not counted; `max_connections` counts all."),
    ("limit_rate", "bandwidth is not limited; `fault.response_rate` slows answers."),
    ("expires", "`Expires` and `Cache-Control` are not added: `headers.response.set` does."),
    ("error_page", "answers of the proxy itself have attache's text."),
    ("proxy_intercept_errors", "answers of the upstream pass as they are."),
    ("sub_filter", "bodies are not changed."),
    ("mirror", "copies go to upstreams: `mirror: NAME` on the route."),
    ("proxy_cookie_path", "cookies of answers pass as they are."),
    ("proxy_cookie_domain", "cookies of answers pass as they are."),
    ("real_ip_header", "the client's address is that of the connection, or of the PROXY protocol."),
    ("proxy_bind", "`source_address` of the upstream is the local address."),
];

/// The rules of a server.
pub(crate) fn server(
    server: &Directive,
    default: bool,
    forwarded: &mut bool,
    remarks: &mut Remarks,
    cx: &mut Cx,
) -> Vec<Rule> {
    let _ = default;
    let mut out = Vec::new();
    for one in server.inner() {
        if !QUIET.contains(&one.name()) {
            remarks.point(
                &one.at,
                format!(
                    "`{}` isn't known to this import. Find out what it did, and whether you need it.",
                    one.name()
                ),
            );
        }
        if one.name() == "set_real_ip_from" {
            remarks
                .soft(&one.at, "the client's address is that of the connection, or of the PROXY protocol.");
        }
    }
    if server.last("ssl_reject_handshake").is_some_and(|one| one.word(1) == "on") {
        let mut rule = Rule { at: server.at.clone(), ..Rule::default() };
        rule.refuse(
            &server.at,
            "handshakes with other names were refused; they are made, and every request is.",
        );
        return vec![rule];
    }
    // `return` and `if` of the server come before its locations.
    for one in server.inner() {
        match one.name() {
            "return" => {
                let mut rule = Rule { at: one.at.clone(), ..Rule::default() };
                returned(one, &mut rule);
                out.push(rule);
                return out;
            }
            "if" if !condition(one, &mut out) => {
                let mut rule = Rule { at: one.at.clone(), ..Rule::default() };
                rule.refuse(&one.at, "the whole server is refused: this `if` can't be said. Write it as a route; then replace the refusal.");
                return vec![rule];
            }
            "rewrite" => {
                let mut rule = Rule { at: one.at.clone(), ..Rule::default() };
                match rewritten(one) {
                    Some((path, redirect)) => {
                        rule.when.path = path;
                        rule.keys = redirect;
                        out.push(rule);
                    }
                    None => {
                        rule.refuse(&one.at, "the whole server is refused: this `rewrite` chooses another location. Write it as routes; then replace the refusal.");
                        return vec![rule];
                    }
                }
            }
            _ => {}
        }
    }
    let own = Scope { chain: vec![server] };
    let mut exact: Vec<Rule> = Vec::new();
    let (mut first, mut regexes, mut prefixes): (
        Vec<(String, Vec<Rule>)>,
        Vec<Rule>,
        Vec<(String, Vec<Rule>)>,
    ) = (Vec::new(), Vec::new(), Vec::new());
    for location in server.all("location") {
        let (modifier, pattern) = if location.words.len() > 2 {
            (location.word(1), location.word(2))
        } else {
            ("", location.word(1))
        };
        if pattern.starts_with('@') {
            remarks.note(
                &location.at,
                "a named location is reached by other directives only; those say what became of them.",
            );
            continue;
        }
        let scope = own.with(location);
        match modifier {
            "=" if pattern.starts_with('/') => {
                exact.extend(rules(location, Path::Exact(pattern.to_owned()), &scope, forwarded, cx));
            }
            "~" | "~*" => match crate::path::anywhere(pattern) {
                Some(regex) => {
                    let regex = if modifier == "~*" { format!("(?i:{regex})") } else { regex };
                    regexes.extend(rules(location, Path::Regex(regex), &scope, forwarded, cx));
                }
                None => {
                    let mut rule = Rule { at: location.at.clone(), ..Rule::default() };
                    rule.refuse(&location.at, format!("everything that this location could take is refused: `{pattern}` has parts that linear-time expressions lack."));
                    regexes.push(rule);
                }
            },
            // A path begins with `/`: nginx takes such a location, and never chooses it.
            _ if !pattern.starts_with('/') && !pattern.is_empty() => {
                remarks.note(
                    &location.at,
                    "no path begins like this location: nginx never chooses it, and it is left out.",
                );
            }
            word => {
                let mut all = Vec::new();
                // A location that proxies and ends with a slash redirects its name without the slash.
                if pattern.ends_with('/') && pattern.len() > 1 && proxies(&scope) {
                    let bare = pattern.trim_end_matches('/');
                    let taken = server.all("location").any(|other| {
                        other.word(1) == "=" && other.word(2) == bare
                            || other.words.len() == 2 && other.word(1) == bare
                    });
                    if !taken {
                        let mut rule = Rule {
                            when: When { path: Path::Exact(bare.to_owned()), ..When::default() },
                            at: location.at.clone(),
                            ..Rule::default()
                        };
                        let mut redirect = Map::default();
                        redirect.set("status", 301_u64);
                        redirect.set("path", literal(pattern));
                        rule.keys.set("redirect", redirect);
                        exact.push(rule);
                    }
                }
                all.extend(rules(location, Path::prefix(pattern), &scope, forwarded, cx));
                if word == "^~" { &mut first } else { &mut prefixes }.push((pattern.to_owned(), all));
            }
        }
    }
    let longer = prefixes.iter().any(|(long, _)| {
        first.iter().any(|(short, _)| long.len() > short.len() && long.starts_with(short.as_str()))
    });
    if longer {
        remarks.point(&server.at, "a location with `^~` has a longer one without it inside: here the one with `^~` comes first. Write the longer one with `^~` too.");
    }
    for list in [&mut first, &mut prefixes] {
        list.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
    }
    out.extend(exact);
    out.extend(first.into_iter().flat_map(|(_, rules)| rules));
    out.extend(regexes);
    let everything = prefixes.iter().any(|(prefix, _)| prefix == "/");
    out.extend(prefixes.into_iter().flat_map(|(_, rules)| rules));
    if !everything {
        let mut rule = Rule { at: server.at.clone(), ..Rule::default() };
        if server.last("root").is_some() || cx.http.iter().any(|one| one.name() == "root") {
            rule.refuse(&server.at, FILES);
        } else {
            rule.answer(404);
        }
        out.push(rule);
    }
    out
}

const FILES: &str = "files of a folder were served here, which attache doesn't do: what this takes is refused. Let the application or another server have them.";

/// A location with what it inherits: the innermost first.
struct Scope<'d> {
    chain: Vec<&'d Directive>,
}

impl<'d> Scope<'d> {
    fn with(&self, inner: &'d Directive) -> Self {
        let mut chain = vec![inner];
        chain.extend(&self.chain);
        Self { chain }
    }

    fn get(&self, name: &str, cx: &Cx) -> Option<Directive> {
        self.chain
            .iter()
            .find_map(|block| block.last(name))
            .cloned()
            .or_else(|| cx.http.iter().rev().find(|one| one.name() == name).cloned())
    }

    /// Directives that are inherited as a whole list, or not at all.
    fn list(&self, name: &str, cx: &Cx) -> Vec<Directive> {
        for block in &self.chain {
            let own: Vec<_> = block.all(name).cloned().collect();
            if !own.is_empty() {
                return own;
            }
        }
        cx.http.iter().filter(|one| one.name() == name).cloned().collect()
    }
}

fn proxies(scope: &Scope<'_>) -> bool {
    scope.chain.first().is_some_and(|location| {
        location
            .inner()
            .iter()
            .any(|one| matches!(one.name(), "proxy_pass" | "grpc_pass" | "fastcgi_pass" | "uwsgi_pass"))
    })
}

/// The rules of one location.
fn rules(
    location: &Directive,
    path: Path,
    scope: &Scope<'_>,
    forwarded: &mut bool,
    cx: &mut Cx,
) -> Vec<Rule> {
    let mut out = Vec::new();
    let mut rule =
        Rule { when: When { path, ..When::default() }, at: location.at.clone(), ..Rule::default() };
    for one in location.inner() {
        if !QUIET.contains(&one.name()) {
            rule.refuse(&one.at, format!("this location is refused: `{}` isn't known to this import. Find out what it did; then replace the refusal.", one.name()));
            return vec![rule];
        }
    }
    if let Some(inner) = location.last("location") {
        rule.refuse(
            &inner.at,
            "this location is refused: it has others inside. Write them beside it; then import again.",
        );
        return vec![rule];
    }
    for (name, why) in GUARDS {
        if let Some(guard) = scope.get(name, cx).filter(|guard| guard.word(1) != "off") {
            rule.refuse(&guard.at, format!("this location is refused: {why}. Then replace the refusal."));
            return vec![rule];
        }
    }
    let access: Vec<Directive> = {
        let mut all = Vec::new();
        for block in &scope.chain {
            all =
                block.inner().iter().filter(|one| matches!(one.name(), "allow" | "deny")).cloned().collect();
            if !all.is_empty() {
                break;
            }
        }
        all
    };
    match access.first() {
        Some(one) if one.name() == "deny" && one.word(1) == "all" => {
            rule.answer(403);
            return vec![rule];
        }
        Some(one) if one.name() == "allow" && one.word(1) == "all" => {}
        Some(one) => {
            rule.refuse(&one.at, "this location is refused: clients were told apart by address, which routes here don't. Use a network policy, or `identity`; then replace the refusal.");
            return vec![rule];
        }
        None => {}
    }
    if location.last("internal").is_some() {
        rule.answer(404);
        return vec![rule];
    }
    for (name, what) in SOFT {
        if let Some(one) = scope.get(name, cx).filter(|one| one.word(1) != "off" && one.word(1) != "0") {
            rule.remarks.soft(&one.at, format!("`{name}`: {what}"));
        }
    }
    let base = rule.when.clone();
    for one in location.inner() {
        match one.name() {
            "return" => {
                returned(one, &mut rule);
                respond_headers(scope, &mut rule, cx);
                out.push(rule);
                return out;
            }
            "if" => {
                let mut inner = Vec::new();
                if condition(one, &mut inner) {
                    let gated = inner.into_iter().filter_map(|case| {
                        crate::gate::both(&base, &case.when).flatten().map(|when| Rule { when, ..case })
                    });
                    out.extend(gated);
                } else {
                    rule.refuse(&one.at, "this location is refused: its `if` can't be said. Write it as a route; then replace the refusal.");
                    return vec![rule];
                }
            }
            "rewrite" => {
                let breaks = one.word(3) == "break";
                if breaks
                    && location.last("proxy_pass").is_some()
                    && let Some((path, whole)) = substitution(one.word(1), one.word(2), &base.path)
                {
                    let mut first = rule.clone();
                    first.when.path = Path::Regex(path);
                    first.keys.child("rewrite").set("path", whole);
                    out.push(first);
                    continue;
                }
                match rewritten(one) {
                    Some((path, redirect)) if matches!(base.path, Path::All) => {
                        out.push(Rule {
                            when: When { path, ..base.clone() },
                            keys: redirect,
                            at: one.at.clone(),
                            ..Rule::default()
                        });
                    }
                    _ => {
                        rule.refuse(&one.at, "this location is refused: its `rewrite` can't be said. Write it as `rewrite: { path: … }` with captures; then replace the refusal.");
                        return vec![rule];
                    }
                }
            }
            "set" => rule.remarks.soft(
                &one.at,
                format!("the variable `{}` is absent; where it is used, that says so.", one.word(1)),
            ),
            _ => {}
        }
    }
    if location.last("stub_status").is_some() {
        rule.refuse(&location.at, "the status page is not served here: metrics are on port 15090.");
        return vec![rule];
    }
    let pass = location.inner().iter().find(|one| matches!(one.name(), "proxy_pass" | "grpc_pass")).cloned();
    let Some(pass) = pass else {
        let script = location
            .inner()
            .iter()
            .find(|one| matches!(one.name(), "fastcgi_pass" | "uwsgi_pass" | "scgi_pass" | "memcached_pass"));
        match script {
            Some(one) => rule.refuse(
                &one.at,
                format!(
                    "`{}` is no HTTP: put a server in between that speaks it. Then replace the refusal.",
                    one.name()
                ),
            ),
            None => rule.refuse(&location.at, FILES),
        }
        return vec![rule];
    };
    if location.last("try_files").is_some() {
        rule.refuse(&location.at, FILES);
        return vec![rule];
    }
    proxied(&pass, scope, &mut rule, forwarded, cx);
    for earlier in &mut out {
        // A rewritten part goes where the location goes.
        if earlier.keys.get("rewrite").is_some() {
            for (key, value) in &rule.keys.0 {
                if key != "rewrite" {
                    earlier.keys.set(key, value.clone());
                }
            }
            if let Some(Value::Map(rewrite)) = rule.keys.get("rewrite") {
                earlier.keys.child("rewrite").put("host", rewrite.get("host").cloned());
            }
            earlier.targets.clone_from(&rule.targets);
        }
    }
    out.push(rule);
    out
}

fn proxied(pass: &Directive, scope: &Scope<'_>, rule: &mut Rule, forwarded: &mut bool, cx: &mut Cx) {
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
    if authority.contains('$') || uri.as_deref().is_some_and(|uri| uri.contains('$')) || authority.is_empty()
    {
        rule.refuse(&pass.at, "this location is refused: where it goes is made of variables. Name each upstream in a route; then replace the refusal.");
        return;
    }
    let get = |name: &str| scope.get(name, cx);
    let tls = upstream::tls(scheme, &get, &mut rule.remarks);
    let connect = get("proxy_connect_timeout").and_then(|one| super::upstream::time(one.word(1)));
    let read = get(if pass.name() == "grpc_pass" { "grpc_read_timeout" } else { "proxy_read_timeout" })
        .and_then(|one| super::upstream::time(one.word(1)));
    let name = upstream::used(scheme, &authority, tls, connect, cx);
    rule.targets.push(name.clone());
    rule.keys.set("to", name);
    // What nginx bounds is the time between two reads.
    let read = read.unwrap_or_else(|| "60s".to_owned());
    rule.keys.set("timeout", read.clone());
    rule.keys.set("idle_timeout", read);
    if let Some(uri) = uri {
        match rule.when.path.clone() {
            Path::Exact(_) => rule.keys.child("rewrite").set("path", literal(&uri)),
            Path::All if uri == "/" => {}
            Path::Regex(_) => {
                rule.refuse(
                    &pass.at,
                    "this location is refused: a path behind an expression has no meaning.",
                );
                return;
            }
            path => {
                let whole = format!("{}{{rest}}", literal(&uri));
                rule.when.path = path.with_rest();
                rule.keys.child("rewrite").set("path", whole);
            }
        }
    }
    let mut host =
        Some(authority.trim_start_matches("unix:").to_owned()).filter(|_| !authority.starts_with("unix:"));
    let mut preserve = false;
    let (mut set, mut remove) = (Map::default(), Vec::new());
    let list =
        scope.list(if pass.name() == "grpc_pass" { "grpc_set_header" } else { "proxy_set_header" }, cx);
    for one in list {
        let (key, value) = (one.word(1).to_ascii_lowercase(), one.word(2));
        match key.as_str() {
            "host" => match value {
                "$http_host" => preserve = true,
                "$host" => {
                    preserve = true;
                    rule.remarks.soft(&one.at, "`$host` has no port; the client's `Host` is sent as it came, with its port where it has one.");
                }
                "$proxy_host" => {}
                value if !value.contains('$') => host = Some(value.to_owned()),
                _ => {
                    rule.remarks.point(&one.at, "the host is made of variables; the client's is kept.");
                    preserve = true;
                }
            },
            name if attache_config::is_framing(name) => {}
            "x-forwarded-for" if value == "$proxy_add_x_forwarded_for" => *forwarded = true,
            _ if value.is_empty() => remove.push(key),
            _ => match template(value, &rule.when.path) {
                Some(value) => set.set(&key, value),
                None => {
                    rule.remarks.soft(&one.at, format!("the value of `{}` is of a variable that attache lacks; what a client sends under this name is removed.", one.word(1)));
                    remove.push(key);
                }
            },
        }
    }
    if !preserve {
        match host {
            Some(host) if upstream::host_like(&host) => {
                rule.keys.child("rewrite").set("host", host.to_ascii_lowercase());
            }
            Some(host) => {
                rule.remarks.soft(&pass.at, format!("the host `{host}`, the name of the upstream, is no host name; the upstream's own is sent."));
                rule.keys.child("rewrite").set("host", "upstream");
            }
            None => rule.keys.child("rewrite").set("host", "localhost"),
        }
    }
    let mut headers = Map::default();
    if !set.is_empty() {
        headers.child("request").set("set", set);
    }
    if !remove.is_empty() {
        headers.child("request").set("remove", remove);
    }
    if !headers.is_empty() {
        rule.keys.set("headers", headers);
    }
    respond_headers(scope, rule, cx);
    for one in scope.list("limit_req", cx) {
        limit(&one, rule, cx);
    }
    if let Some(one) = scope.get("proxy_next_upstream", cx) {
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
}

fn respond_headers(scope: &Scope<'_>, rule: &mut Rule, cx: &Cx) {
    if matches!(rule.remarks.heaviest(), Some(crate::remark::Weight::Point)) {
        return;
    }
    let mut add = Map::default();
    for one in scope.list("add_header", cx) {
        match template(one.word(2), &Path::Any) {
            Some(value) => add.set(&one.word(1).to_ascii_lowercase(), value),
            None => rule.remarks.soft(
                &one.at,
                format!(
                    "the value of `{}` is of a variable that attache lacks; it is left out.",
                    one.word(1)
                ),
            ),
        }
        if one.word(3) != "always" {
            rule.remarks.note(&one.at, "the header is added to every answer, not to good ones alone.");
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

fn limit(one: &Directive, rule: &mut Rule, cx: &Cx) {
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
        rule.remarks.point(&one.at, "the zone of this limit isn't here: requests are not limited.");
        return;
    };
    let (count, per) = rate
        .strip_suffix("r/s")
        .map(|count| (count, "1s"))
        .or_else(|| rate.strip_suffix("r/m").map(|count| (count, "1m")))
        .unwrap_or(("1", "1s"));
    let mut map = Map::default();
    map.set("requests", Value::Raw(count.to_owned()));
    map.set("per", per);
    map.set("burst", word("burst=").and_then(|burst| burst.parse::<u64>().ok()).unwrap_or(0) + 1);
    match key.as_str() {
        "$binary_remote_addr" | "$remote_addr" => map.set("by", "client"),
        key if key.starts_with("$http_") => map.set("by", format!("header:{}", key[6..].replace('_', "-"))),
        _ => {}
    }
    rule.remarks.soft(&one.at, "what is above the rate and within the burst is let through at once, and not delayed; what is beyond is 429.");
    rule.keys.set("rate_limit", map);
}

fn returned(one: &Directive, rule: &mut Rule) {
    let (status, text) = match one.word(1).parse::<u64>() {
        Ok(status) => (status, one.words.get(2).cloned()),
        Err(_) => (302, one.words.get(1).cloned()),
    };
    if !matches!(status, 301 | 302 | 303 | 307 | 308) {
        match text.filter(|_| status >= 200 && !matches!(status, 204 | 304)) {
            Some(text) if text.contains('$') => {
                rule.refuse(&one.at, "this answer has variables in its body; then replace the refusal.");
            }
            Some(text) => {
                let mut respond = Map::default();
                respond.set("status", status);
                respond.set("body", text);
                rule.keys.set("respond", respond);
            }
            None if status == 444 => rule.answer(400),
            None => rule.answer(status.clamp(200, 599)),
        }
        return;
    }
    let Some(keys) = redirect(status, &text.unwrap_or_default(), &mut rule.when.path) else {
        rule.refuse(&one.at, "this redirect has variables that attache lacks. Write it as `redirect`; then replace the refusal.");
        return;
    };
    rule.keys.set("redirect", keys);
}

/// The keys of a redirect to a URL with nginx's variables.
fn redirect(status: u64, to: &str, path: &mut Path) -> Option<Map> {
    let mut keys = Map::default();
    keys.set("status", status);
    let (scheme, rest) = match to.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, to),
    };
    let (host, tail) = match scheme {
        Some(_) => {
            rest.split_at(rest.find(['/']).or_else(|| rest.find("$request_uri")).unwrap_or(rest.len()))
        }
        None => ("", rest),
    };
    match scheme {
        Some("$scheme") | None => {}
        Some(scheme @ ("http" | "https")) => keys.set("scheme", scheme),
        Some(_) => return None,
    }
    match host {
        "" | "$host" | "$http_host" | "$server_name" => {}
        host if !host.contains('$') => keys.set("host", host),
        _ => return None,
    }
    match tail {
        "$request_uri" | "$uri$is_args$args" | "$uri" => {}
        "" if scheme.is_some() => {
            keys.set("path", "/");
            keys.set("strip_query", true);
        }
        tail => {
            let (start, kept) = match tail.strip_suffix("$request_uri") {
                Some(start) => (start, true),
                None => (tail, false),
            };
            if start.contains('$') || start.contains('?') || !start.starts_with('/') {
                return None;
            }
            if kept {
                if !matches!(path, Path::All | Path::Any) {
                    return None;
                }
                *path = path.with_rest();
                keys.set("path", format!("{}/{{rest}}", literal(start)));
            } else {
                keys.set("path", literal(start));
                keys.set("strip_query", true);
            }
        }
    }
    Some(keys)
}

/// `rewrite EXPRESSION URL permanent|redirect`.
fn rewritten(one: &Directive) -> Option<(Path, Map)> {
    let status = match one.word(3) {
        "permanent" => 301_u64,
        "redirect" => 302,
        _ if one.word(2).contains("://") => 302,
        _ => return None,
    };
    let regex = crate::path::anywhere(one.word(1))?;
    let mut keys = Map::default();
    let to = one.word(2);
    let (scheme, rest) = to.split_once("://").map_or((None, to), |(scheme, rest)| (Some(scheme), rest));
    let (host, path) =
        if scheme.is_some() { rest.split_at(rest.find('/').unwrap_or(rest.len())) } else { ("", rest) };
    let path = path.strip_suffix('?').unwrap_or(path);
    let path = captures(path)?;
    keys.set("status", status);
    match scheme {
        Some("$scheme") | None => {}
        Some(scheme @ ("http" | "https")) => keys.set("scheme", scheme),
        Some(_) => return None,
    }
    match host {
        "" | "$host" | "$http_host" => {}
        host if !host.contains('$') => keys.set("host", host),
        _ => return None,
    }
    keys.set("path", if path.is_empty() { "/".to_owned() } else { path });
    let mut out = Map::default();
    out.set("redirect", keys);
    Some((Path::Regex(crate::path::named(&regex)), out))
}

/// `$1` is `{1}`; other variables are not known.
fn captures(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '$' => match chars.next().and_then(|c| c.to_digit(10)) {
                Some(digit) if digit > 0 => out.push_str(&format!("{{g{digit}}}")),
                _ => return None,
            },
            '{' | '}' | '?' => return None,
            c => out.push(c),
        }
    }
    Some(out)
}

/// `rewrite ^/api/(.*)$ /$1 break` within a location whose paths all begin so.
fn substitution(pattern: &str, to: &str, path: &Path) -> Option<(String, String)> {
    let inner = pattern.strip_prefix('^')?;
    let start: String =
        inner.chars().take_while(|c| c.is_ascii_alphanumeric() || "/-_".contains(*c)).collect();
    let fits = match path {
        Path::All => true,
        Path::Text(own) => start.starts_with(own.as_str()),
        _ => false,
    };
    if !fits {
        return None;
    }
    let whole = captures(to)?;
    whole.starts_with(['/', '{']).then_some((crate::path::named(&crate::path::anywhere(pattern)?), whole))
}

/// An `if` that answers by itself becomes a rule. False where it can't be said.
fn condition(one: &Directive, out: &mut Vec<Rule>) -> bool {
    let words: Vec<String> = one.words[1..]
        .join(" ")
        .trim_start_matches('(')
        .trim_end_matches(')')
        .split_whitespace()
        .map(ToOwned::to_owned)
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut when = When { path: Path::Any, ..When::default() };
    match words.as_slice() {
        ["$request_method", "=", method] => when.methods.push(method.trim_matches(['"', '\'']).to_owned()),
        ["$request_method", "~" | "~*", regex] => {
            let inner = regex.trim_matches(['^', '$', '(', ')', '"', '\'']);
            if !inner
                .split('|')
                .all(|method| !method.is_empty() && method.bytes().all(|b| b.is_ascii_alphabetic()))
            {
                return false;
            }
            when.methods = inner.split('|').map(str::to_ascii_uppercase).collect();
        }
        [variable, "=", value] if variable.starts_with("$http_") => {
            when.headers
                .push((variable[6..].replace('_', "-"), crate::text::exact(value.trim_matches(['"', '\'']))));
        }
        [variable, "~", regex] if variable.starts_with("$http_") => {
            match crate::path::anywhere(regex.trim_matches(['"', '\''])) {
                Some(regex) => when.headers.push((variable[6..].replace('_', "-"), format!("~{regex}"))),
                None => return false,
            }
        }
        [variable] if variable.starts_with("$http_") => {
            when.headers.push((variable[6..].replace('_', "-"), "*".to_owned()));
        }
        [variable, "=", value] if variable.starts_with("$arg_") => {
            when.query.push((variable[5..].to_owned(), crate::text::exact(value.trim_matches(['"', '\'']))));
        }
        _ => return false,
    }
    let [inner] = one.inner() else { return false };
    if inner.name() != "return" {
        return false;
    }
    let mut rule = Rule { when, at: one.at.clone(), ..Rule::default() };
    returned(inner, &mut rule);
    out.push(rule);
    true
}

/// A header's value with nginx's variables.
fn template(value: &str, path: &Path) -> Option<String> {
    let mut out = String::new();
    let mut rest = value;
    while let Some(start) = rest.find('$') {
        out.push_str(&rest[..start].replace('%', "%%"));
        rest = rest[start + 1..].trim_start_matches('{');
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        out.push_str(&match name {
            "remote_addr" | "realip_remote_addr" => "%{client.address}".to_owned(),
            "remote_port" => "%{client.port}".to_owned(),
            "scheme" => "%{request.scheme}".to_owned(),
            "host" | "http_host" => "%{request.host}".to_owned(),
            "request_method" => "%{request.method}".to_owned(),
            "uri" | "document_uri" => "%{request.path}".to_owned(),
            "request_id" => "%{request.id}".to_owned(),
            name if name.starts_with("http_") => {
                format!("%{{request.header.{}}}", name[5..].replace('_', "-"))
            }
            _ => return None,
        });
        rest = after.trim_start_matches('}');
    }
    let _ = path;
    out.push_str(&rest.replace('%', "%%"));
    Some(out)
}
