//! A server becomes a list of rules, of which the first match wins.
//!
//! nginx takes an exact location, else the longest prefix with `^~`, else the first expression that matches, else the
//! longest prefix. As a list in order: exact locations, locations with `^~`, expressions, other prefixes; of prefixes
//! the longest comes first.

use std::cmp::Reverse;
use std::ops::ControlFlow;

use crate::path::PlannedPath;
use crate::plan::{PlannedRule, RuleConditions};
use crate::remark::Remarks;
use crate::text::literal;
use crate::value::YamlMap;

use super::{
    NginxImport,
    answer::{condition, returned, rewritten},
    location::{FILES, proxies, rules, unknown},
    scope::LocationScope,
    tokens::Directive,
};

/// The rules of a server.
pub(super) fn server(
    server: &Directive,
    forwarded: &mut bool,
    remarks: &mut Remarks,
    cx: &mut NginxImport,
) -> Vec<PlannedRule> {
    if let Some(refusal) = refused(server, remarks) {
        return vec![refusal];
    }
    let mut out = match before_locations(server, cx) {
        ControlFlow::Break(whole) => return whole,
        ControlFlow::Continue(rules) => rules,
    };
    let mut locations = Locations::default();
    for location in server.all("location") {
        locations.add(location, server, forwarded, remarks, cx);
    }
    out.extend(locations.in_order(server, cx));
    out
}

/// The refusal of a server of which no request can be decided.
fn refused(server: &Directive, remarks: &mut Remarks) -> Option<PlannedRule> {
    for one in server.inner() {
        if let Some(why) = unknown(one) {
            let why = format!("the whole server is refused: {why}.");
            return Some(PlannedRule::refusal(&one.at, why));
        }
        if one.name() == "set_real_ip_from" {
            remarks
                .soft(&one.at, "attache takes the client's address from the connection or the PROXY protocol, and not from a header.");
        }
    }
    let rejects = server.last("ssl_reject_handshake").is_some_and(|one| one.word(1) == "on");
    rejects.then(|| {
        PlannedRule::refusal(
            &server.at,
            "nginx refused handshakes with other names; attache accepts them, and refuses every request.",
        )
    })
}

/// `return`, `if` and `rewrite` of the server, which come before its locations. `Break`: they are all its rules.
fn before_locations(server: &Directive, cx: &NginxImport) -> ControlFlow<Vec<PlannedRule>, Vec<PlannedRule>> {
    let mut out = Vec::new();
    for one in server.inner() {
        match one.name() {
            "return" => {
                let mut rule = PlannedRule { at: one.at.clone(), ..PlannedRule::default() };
                returned(one, &mut rule);
                out.push(rule);
                return ControlFlow::Break(out);
            }
            "if" if !condition(one, cx.secure, &mut out) => {
                let why = "the whole server is refused: attache can't express this `if`. Write it as a route; then replace the refusal.";
                return ControlFlow::Break(vec![PlannedRule::refusal(&one.at, why)]);
            }
            "rewrite" => match rewritten(one) {
                Some((path, redirect)) => {
                    let when = RuleConditions { path, ..RuleConditions::default() };
                    out.push(PlannedRule {
                        when,
                        keys: redirect,
                        at: one.at.clone(),
                        ..PlannedRule::default()
                    });
                }
                None => {
                    let why = "the whole server is refused: this `rewrite` chooses another location. Write it as routes; then replace the refusal.";
                    return ControlFlow::Break(vec![PlannedRule::refusal(&one.at, why)]);
                }
            },
            _ => {}
        }
    }
    ControlFlow::Continue(out)
}

/// The rules of a server's locations, by the kind of location that decides nginx's order.
#[derive(Default)]
struct Locations {
    /// `=`.
    exact: Vec<PlannedRule>,
    /// `^~`: its prefix and its rules.
    before_regexes: Vec<(String, Vec<PlannedRule>)>,
    /// `~` and `~*`.
    regexes: Vec<PlannedRule>,
    /// No modifier: its prefix and its rules.
    prefixes: Vec<(String, Vec<PlannedRule>)>,
}

impl Locations {
    fn add(
        &mut self,
        location: &Directive,
        server: &Directive,
        forwarded: &mut bool,
        remarks: &mut Remarks,
        cx: &mut NginxImport,
    ) {
        let (modifier, pattern) = if location.words.len() > 2 {
            (location.word(1), location.word(2))
        } else {
            ("", location.word(1))
        };
        if pattern.starts_with('@') {
            remarks.note(
                &location.at,
                "only other directives use a named location; comments there report what they became.",
            );
            return;
        }
        let scope = LocationScope { chain: vec![location, server] };
        match modifier {
            "=" if pattern.starts_with('/') => {
                self.exact.extend(rules(
                    location,
                    PlannedPath::Exact(pattern.to_owned()),
                    &scope,
                    forwarded,
                    cx,
                ));
            }
            "~" | "~*" => match crate::path::anywhere(pattern) {
                Some(regex) => {
                    let regex = if modifier == "~*" { format!("(?i:{regex})") } else { regex };
                    self.regexes.extend(rules(location, PlannedPath::Regex(regex), &scope, forwarded, cx));
                }
                None => {
                    let why = format!(
                        "all requests that this location may match are refused: `{pattern}` has parts that attache's expressions lack."
                    );
                    self.regexes.push(PlannedRule::refusal(&location.at, why));
                }
            },
            // Every path begins with `/`: nginx accepts such a location, but never chooses it.
            _ if !pattern.starts_with('/') && !pattern.is_empty() => {
                remarks.note(
                    &location.at,
                    "no path begins like this location: nginx never chooses it, and it is left out.",
                );
            }
            word => {
                self.exact.extend(slash_added(location, pattern, server, &scope));
                let rules = rules(location, PlannedPath::prefix(pattern), &scope, forwarded, cx);
                let all = if word == "^~" { &mut self.before_regexes } else { &mut self.prefixes };
                all.push((pattern.to_owned(), rules));
            }
        }
    }

    /// All rules in nginx's order, with the one for paths that no location matches.
    fn in_order(mut self, server: &Directive, cx: &NginxImport) -> Vec<PlannedRule> {
        let mut out = self.exact;
        out.extend(before_expressions(&mut self.before_regexes, &mut self.prefixes, &self.regexes));
        out.extend(self.regexes);
        self.prefixes.sort_by_key(|(prefix, _)| Reverse(prefix.len()));
        let everything = self.prefixes.iter().any(|(prefix, _)| prefix == "/");
        out.extend(self.prefixes.into_iter().flat_map(|(_, rules)| rules));
        if !everything {
            let mut rule = PlannedRule { at: server.at.clone(), ..PlannedRule::default() };
            if server.last("root").is_some() || cx.http.iter().any(|one| one.name() == "root") {
                rule.refuse(&server.at, FILES);
            } else {
                rule.answer(404);
            }
            out.push(rule);
        }
        out
    }
}

/// A location that proxies and ends with a slash redirects its name without the slash.
fn slash_added(
    location: &Directive,
    pattern: &str,
    server: &Directive,
    scope: &LocationScope<'_>,
) -> Option<PlannedRule> {
    if !(pattern.ends_with('/') && pattern.len() > 1 && proxies(scope)) {
        return None;
    }
    let bare = pattern.trim_end_matches('/');
    let taken = server.all("location").any(|other| {
        other.word(1) == "=" && other.word(2) == bare || other.words.len() == 2 && other.word(1) == bare
    });
    if taken {
        return None;
    }
    let mut redirect = YamlMap::default();
    redirect.set("status", 301_u64);
    redirect.set("path", literal(pattern));
    let when = RuleConditions { path: PlannedPath::Exact(bare.to_owned()), ..RuleConditions::default() };
    let mut rule = PlannedRule { when, at: location.at.clone(), ..PlannedRule::default() };
    rule.keys.set("redirect", redirect);
    Some(rule)
}

/// Locations with `^~`, the longest first, and the longer locations without `^~` that begin with one of them. A longer
/// location comes before its `^~` location, and the expressions that can match its paths come before it.
fn before_expressions(
    first: &mut Vec<(String, Vec<PlannedRule>)>,
    prefixes: &mut Vec<(String, Vec<PlannedRule>)>,
    regexes: &[PlannedRule],
) -> Vec<PlannedRule> {
    let within = |long: &str| {
        first.iter().any(|(short, _)| long.len() > short.len() && long.starts_with(short.as_str()))
    };
    let (inner, outer): (Vec<_>, Vec<_>) =
        std::mem::take(prefixes).into_iter().partition(|(long, _)| within(long));
    *prefixes = outer;
    let mut all: Vec<(String, Vec<PlannedRule>)> = std::mem::take(first);
    for (prefix, rules) in inner {
        let own = RuleConditions { path: PlannedPath::prefix(&prefix), ..RuleConditions::default() };
        let mut before = Vec::new();
        let mut said = true;
        for rule in regexes {
            match crate::gate::both(&rule.when, &own) {
                Some(None) => {}
                Some(Some(when)) => before.push(PlannedRule { when, ..rule.clone() }),
                None => said = false,
            }
        }
        if said {
            before.extend(rules);
        } else {
            let at = rules.first().map(|rule| rule.at.clone()).unwrap_or_default();
            let why = "this location is refused: its prefix is within that of a location with `^~`, and locations with expressions come before it. Write it with `^~`; import again.";
            before = vec![PlannedRule { when: own, ..PlannedRule::refusal(&at, why) }];
        }
        all.push((prefix, before));
    }
    all.sort_by_key(|(prefix, _)| Reverse(prefix.len()));
    all.into_iter().flat_map(|(_, rules)| rules).collect()
}
