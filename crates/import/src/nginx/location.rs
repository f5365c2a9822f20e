//! Servers and locations become rules that are tried in order.
//!
//! nginx takes an exact location, else the longest prefix with `^~`, else the first expression that matches, else the longest prefix. As a list
//! that is tried in order this is: exact ones, those with `^~`, expressions, other prefixes, prefixes with the longest first.

use crate::path::Path;
use crate::plan::{Rule, When};
use crate::remark::Remarks;
use crate::text::literal;
use crate::value::{Map, Value};

use super::{
    Cx,
    answer::{condition, returned, rewritten, substitution},
    proxied::{proxied, respond_headers},
    scope::Scope,
    tokens::Directive,
    words::{GUARDS, QUIET, SOFT},
};

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
