//! A location becomes rules: its guards, its own answers, and the requests that it forwards.

use std::ops::ControlFlow;

use crate::access::AccessEffect;
use crate::path::PlannedPath;
use crate::plan::{PlannedRule, RuleConditions};
use crate::value::{ConfigValue, YamlMap};

use super::{
    NginxImport,
    answer::{condition, returned, rewritten, substitution},
    clients, included,
    proxied::{proxied, respond_headers},
    scope::LocationScope,
    tokens::Directive,
    words::{self, GUARDS, LOST, is_known},
};

/// The reason to refuse what this directive stands in: an include that was not followed, or a directive that isn't known.
pub(super) fn unknown(one: &Directive) -> Option<String> {
    included::not_followed(one).or_else(|| (!is_known(one.name())).then(|| words::unknown(one.name())))
}

pub(super) const FILES: &str = "nginx serves files here, which attache doesn't do: these requests are refused. Let the application or another server serve them.";

pub(super) fn proxies(scope: &LocationScope<'_>) -> bool {
    scope.chain.first().is_some_and(|location| {
        location
            .inner()
            .iter()
            .any(|one| matches!(one.name(), "proxy_pass" | "grpc_pass" | "fastcgi_pass" | "uwsgi_pass"))
    })
}

/// The rules of one location.
pub(super) fn rules(
    location: &Directive,
    path: PlannedPath,
    scope: &LocationScope<'_>,
    forwarded: &mut bool,
    cx: &mut NginxImport,
) -> Vec<PlannedRule> {
    let when = RuleConditions { path, ..RuleConditions::default() };
    let mut rule = PlannedRule { when, at: location.at.clone(), ..PlannedRule::default() };
    if guarded(location, scope, &mut rule, cx) {
        return vec![rule];
    }
    let Ok(authorization) = clients_allowed(scope, &mut rule, cx) else { return vec![rule] };
    if location.last("internal").is_some() {
        rule.answer(404);
        return vec![rule];
    }
    tell_lost(scope, &mut rule, cx);
    let mut out = match own_answers(location, scope, &mut rule, cx) {
        ControlFlow::Break(whole) => return whole,
        ControlFlow::Continue(rules) => rules,
    };
    let Some(pass) = passed_on(location, &mut rule) else { return vec![rule] };
    proxied(&pass, scope, &mut rule, forwarded, cx);
    if rule.keys.get("to").is_some() {
        rule.keys.put("authorization", authorization);
    }
    for earlier in out.iter_mut().filter(|earlier| earlier.keys.get("rewrite").is_some()) {
        take_policies(earlier, &rule);
    }
    out.push(rule);
    out
}

/// Refuses a location that has a guard which attache lacks, or a directive that may be one.
fn guarded(
    location: &Directive,
    scope: &LocationScope<'_>,
    rule: &mut PlannedRule,
    cx: &NginxImport,
) -> bool {
    for one in location.inner() {
        if let Some(why) = unknown(one) {
            rule.refuse(&one.at, format!("this location is refused: {why}."));
            return true;
        }
    }
    if let Some(inner) = location.last("location") {
        rule.refuse(
            &inner.at,
            "this location is refused: it contains other locations. Write them next to it; then import again.",
        );
        return true;
    }
    for (name, why) in GUARDS {
        if let Some(guard) = scope.get(name, cx).filter(|guard| guard.word(1) != "off") {
            rule.refuse(&guard.at, format!("this location is refused: {why}; then replace the refusal."));
            return true;
        }
    }
    for name in ["proxy_pass_request_headers", "proxy_pass_request_body"] {
        if let Some(one) = scope.get(name, cx).filter(|one| one.word(1) == "off") {
            rule.refuse(&one.at, format!("this location is refused: with `{name} off` the upstream doesn't get a part of requests. Find out why; then replace the refusal."));
            return true;
        }
    }
    false
}

/// `allow` and `deny` as `authorization`. `Err`: the rule has its answer already, and no request goes further.
fn clients_allowed(
    scope: &LocationScope<'_>,
    rule: &mut PlannedRule,
    cx: &NginxImport,
) -> Result<Option<YamlMap>, ()> {
    let access = clients::list(scope, cx);
    let Some(one) = access.first() else { return Ok(None) };
    // Behind another proxy the client's address depends on which proxies are trusted.
    let direct = !cx.proxied
        && scope.get("set_real_ip_from", cx).is_none()
        && scope.get("real_ip_header", cx).is_none();
    match clients::said(&access) {
        Some(AccessEffect::Open) => return Ok(None),
        Some(AccessEffect::Keys(keys)) if direct => return Ok(Some(keys)),
        Some(AccessEffect::Shut) => rule.answer(403),
        _ => {
            rule.refuse(&one.at, "this location is refused: its `allow` and `deny` use an address that another proxy sends, or an address that attache can't express. Write them as `authorization`.");
        }
    }
    Err(())
}

/// Reports the directives of a location that have no effect in attache.
fn tell_lost(scope: &LocationScope<'_>, rule: &mut PlannedRule, cx: &NginxImport) {
    for (name, weight, what) in LOST {
        if let Some(one) = scope
            .get(name, cx)
            .filter(|one| !matches!((*name, one.word(1)), (_, "off" | "0") | ("proxy_redirect", "default")))
        {
            let elsewhere = *name == "error_page"
                && one.words.iter().any(|word| word.starts_with(['=', '@']) || word.contains("://"));
            if elsewhere {
                rule.remarks
                    .point(&one.at, "`error_page` replaced answers by others, which attache can't do.");
            } else {
                rule.remarks.say(*weight, &one.at, format!("`{name}`: {what}"));
            }
        }
    }
}

/// The rules of `return`, `if` and `rewrite`, which come before what the location passes on. `Break`: they are all its rules.
fn own_answers(
    location: &Directive,
    scope: &LocationScope<'_>,
    rule: &mut PlannedRule,
    cx: &NginxImport,
) -> ControlFlow<Vec<PlannedRule>, Vec<PlannedRule>> {
    let mut out = Vec::new();
    let base = rule.when.clone();
    for one in location.inner() {
        let said = match one.name() {
            "return" => {
                returned(one, rule);
                respond_headers(scope, rule, cx);
                out.push(std::mem::take(rule));
                return ControlFlow::Break(out);
            }
            "if" => conditional(one, &base, cx, &mut out),
            "rewrite" => rewrite(one, location, &base, rule, &mut out),
            "set" => {
                let what = format!(
                    "attache lacks the variable `{}`; if a directive uses it, a comment there reports this.",
                    one.word(1)
                );
                rule.remarks.soft(&one.at, what);
                Ok(())
            }
            _ => Ok(()),
        };
        if let Err(why) = said {
            rule.refuse(&one.at, why);
            return ControlFlow::Break(vec![std::mem::take(rule)]);
        }
    }
    ControlFlow::Continue(out)
}

/// The rules of an `if` within the location's own condition. `Err`: why the location must be refused.
fn conditional(
    one: &Directive,
    base: &RuleConditions,
    cx: &NginxImport,
    out: &mut Vec<PlannedRule>,
) -> Result<(), &'static str> {
    let mut inner = Vec::new();
    let said = condition(one, cx.secure, &mut inner)
        && inner.iter().all(|case| crate::gate::both(base, &case.when).is_some());
    if !said {
        return Err(
            "this location is refused: attache can't express its `if`. Write it as a route; then replace the refusal.",
        );
    }
    out.extend(inner.into_iter().filter_map(|case| {
        crate::gate::both(base, &case.when).flatten().map(|when| PlannedRule { when, ..case })
    }));
    Ok(())
}

/// The rule of a `rewrite`. `Err`: why the location must be refused.
fn rewrite(
    one: &Directive,
    location: &Directive,
    base: &RuleConditions,
    rule: &PlannedRule,
    out: &mut Vec<PlannedRule>,
) -> Result<(), &'static str> {
    if one.word(3) == "break"
        && location.last("proxy_pass").is_some()
        && let Some((path, whole)) = substitution(one.word(1), one.word(2), &base.path)
    {
        let mut first = rule.clone();
        first.when.path = PlannedPath::Regex(path);
        first.keys.child("rewrite").set("path", whole);
        out.push(first);
        return Ok(());
    }
    match rewritten(one) {
        Some((path, redirect)) if matches!(base.path, PlannedPath::All) => {
            let when = RuleConditions { path, ..base.clone() };
            out.push(PlannedRule { when, keys: redirect, at: one.at.clone(), ..PlannedRule::default() });
            Ok(())
        }
        _ => Err(
            "this location is refused: the import can't translate its `rewrite`. Write it as `rewrite: { path: … }` with captures; then replace the refusal.",
        ),
    }
}

/// The directive that forwards requests. Refuses a location that has none, or answers in another way.
fn passed_on(location: &Directive, rule: &mut PlannedRule) -> Option<Directive> {
    if location.last("stub_status").is_some() {
        rule.refuse(&location.at, "the status page is not served here: metrics are on port 15090.");
        return None;
    }
    let mut own = location.inner().iter();
    let Some(pass) = own.find(|one| matches!(one.name(), "proxy_pass" | "grpc_pass")) else {
        let script = location
            .inner()
            .iter()
            .find(|one| matches!(one.name(), "fastcgi_pass" | "uwsgi_pass" | "scgi_pass" | "memcached_pass"));
        match script {
            Some(one) => rule.refuse(
                &one.at,
                format!(
                    "`{}` is not HTTP: put a server in between that translates it; then replace the refusal.",
                    one.name()
                ),
            ),
            None => rule.refuse(&location.at, FILES),
        }
        return None;
    };
    if location.last("try_files").is_some() {
        rule.refuse(&location.at, FILES);
        return None;
    }
    Some(pass.clone())
}

/// Gives the rule for a rewritten part the policies of its location.
fn take_policies(earlier: &mut PlannedRule, rule: &PlannedRule) {
    for (key, value) in &rule.keys.0 {
        if key != "rewrite" {
            earlier.keys.set(key, value.clone());
        }
    }
    if let Some(ConfigValue::Map(rewrite)) = rule.keys.get("rewrite") {
        earlier.keys.child("rewrite").put("host", rewrite.get("host").cloned());
    }
    earlier.targets.clone_from(&rule.targets);
}
