//! Servers and locations become a list of rules, of which the first match wins.
//!
//! nginx takes an exact location, else the longest prefix with `^~`, else the first expression that matches, else the
//! longest prefix. As a list in order: exact locations, locations with `^~`, expressions, other prefixes; of prefixes
//! the longest comes first.

use crate::access::AccessEffect;
use crate::path::Path;
use crate::plan::{Rule, When};
use crate::remark::Remarks;
use crate::text::literal;
use crate::value::{Map, Value};

use super::{
    Cx,
    answer::{condition, returned, rewritten, substitution},
    clients, included,
    proxied::{proxied, respond_headers},
    scope::Scope,
    tokens::Directive,
    words::{GUARDS, LOST, is_known},
};

/// The reason to refuse if this directive isn't known: it may be a guard.
fn unknown(one: &Directive) -> Option<String> {
    if one.name() == "include" && !included::is_quiet(one.word(1)) {
        return Some(format!(
            "`include {}` is not followed, since its files are not here. Give them to the import, too",
            one.word(1)
        ));
    }
    (!is_known(one.name()))
        .then(|| format!("`{}` isn't known to this import. Find out what it did", one.name()))
}

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
        if let Some(why) = unknown(one) {
            let mut rule = Rule { at: one.at.clone(), ..Rule::default() };
            rule.refuse(&one.at, format!("the whole server is refused: {why}; then replace the refusal."));
            return vec![rule];
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
            "if" if !condition(one, cx.secure, &mut out) => {
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
    out.extend(exact);
    out.extend(before_expressions(&mut first, &mut prefixes, &regexes));
    out.extend(regexes);
    prefixes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
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

/// Locations with `^~`, the longest first, and those without it that are longer than one which begins them: those come first, and before each of
/// them come the expressions, as far as they are about it.
fn before_expressions(
    first: &mut Vec<(String, Vec<Rule>)>,
    prefixes: &mut Vec<(String, Vec<Rule>)>,
    regexes: &[Rule],
) -> Vec<Rule> {
    let within = |long: &str| {
        first.iter().any(|(short, _)| long.len() > short.len() && long.starts_with(short.as_str()))
    };
    let (inner, outer): (Vec<_>, Vec<_>) =
        std::mem::take(prefixes).into_iter().partition(|(long, _)| within(long));
    *prefixes = outer;
    let mut all: Vec<(String, Vec<Rule>)> = std::mem::take(first);
    for (prefix, rules) in inner {
        let own = When { path: Path::prefix(&prefix), ..When::default() };
        let mut before = Vec::new();
        let mut said = true;
        for rule in regexes {
            match crate::gate::both(&rule.when, &own) {
                Some(None) => {}
                Some(Some(when)) => before.push(Rule { when, ..rule.clone() }),
                None => said = false,
            }
        }
        if said {
            before.extend(rules);
        } else {
            let at = rules.first().map(|rule| rule.at.clone()).unwrap_or_default();
            let mut rule = Rule { when: own, at: at.clone(), ..Rule::default() };
            rule.refuse(
                &at,
                "this location is refused: it stands within one with `^~`, and expressions come before it. Write it with `^~`; import again.",
            );
            before = vec![rule];
        }
        all.push((prefix, before));
    }
    all.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
    all.into_iter().flat_map(|(_, rules)| rules).collect()
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
        if let Some(why) = unknown(one) {
            rule.refuse(&one.at, format!("this location is refused: {why}; then replace the refusal."));
            return vec![rule];
        }
    }
    if let Some(inner) = location.last("location") {
        rule.refuse(
            &inner.at,
            "this location is refused: it contains other locations. Write them next to it; then import again.",
        );
        return vec![rule];
    }
    for (name, why) in GUARDS {
        if let Some(guard) = scope.get(name, cx).filter(|guard| guard.word(1) != "off") {
            rule.refuse(&guard.at, format!("this location is refused: {why}. Then replace the refusal."));
            return vec![rule];
        }
    }
    for name in ["proxy_pass_request_headers", "proxy_pass_request_body"] {
        if let Some(one) = scope.get(name, cx).filter(|one| one.word(1) == "off") {
            rule.refuse(&one.at, format!("this location is refused: `{name} off` kept a part of requests from the upstream. Then replace the refusal."));
            return vec![rule];
        }
    }
    let access = clients::list(scope, cx);
    let mut authorization = None;
    if let Some(one) = access.first() {
        // Behind another proxy the client's address depends on which proxies are trusted.
        let direct = !cx.proxied
            && scope.get("set_real_ip_from", cx).is_none()
            && scope.get("real_ip_header", cx).is_none();
        match clients::said(&access) {
            Some(AccessEffect::Open) => {}
            Some(AccessEffect::Shut) => {
                rule.answer(403);
                return vec![rule];
            }
            Some(AccessEffect::Keys(keys)) if direct => authorization = Some(keys),
            _ => {
                rule.refuse(&one.at, "this location is refused: its addresses come from another proxy, or can't be said. Write it as `authorization`.");
                return vec![rule];
            }
        }
    }
    if location.last("internal").is_some() {
        rule.answer(404);
        return vec![rule];
    }
    for (name, weight, what) in LOST {
        if let Some(one) = scope
            .get(name, cx)
            .filter(|one| !matches!((*name, one.word(1)), (_, "off" | "0") | ("proxy_redirect", "default")))
        {
            let elsewhere = *name == "error_page"
                && one.words.iter().any(|word| word.starts_with(['=', '@']) || word.contains("://"));
            if elsewhere {
                rule.remarks
                    .point(&one.at, "`error_page` gave other answers in place of these, which is absent.");
            } else {
                rule.remarks.say(*weight, &one.at, format!("`{name}`: {what}"));
            }
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
                let said = condition(one, cx.secure, &mut inner)
                    && inner.iter().all(|case| crate::gate::both(&base, &case.when).is_some());
                if said {
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
                    "`{}` is not HTTP: put a server in between that speaks it. Then replace the refusal.",
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
    if rule.keys.get("to").is_some() {
        rule.keys.put("authorization", authorization);
    }
    for earlier in &mut out {
        // The rule for a rewritten part has the same policies as its location.
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
