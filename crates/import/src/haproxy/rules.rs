//! Combines the HTTP rules of a frontend and of its backends into one list, of which the first match wins.

use crate::hosted::HostedRule;
use crate::path::PlannedPath;
use crate::plan::{PlannedRule, RuleConditions};
use crate::remark::Remarks;
use crate::tree::FileLine;
use crate::value::{ConfigValue, YamlMap};

use super::{
    HaproxyImport,
    acl::{AclAlternative, Acls},
    backend,
    steps::{RequestChange, RuleAction, RuleStep, everything, steps},
    tokens::ConfigSection,
};

/// The largest number of rules of one frontend.
const MAX_RULES: usize = 2000;

pub(crate) fn frontend(
    section: &ConfigSection,
    secure: bool,
    remarks: &mut Remarks,
    cx: &mut HaproxyImport,
) -> Vec<HostedRule> {
    let acls = Acls {
        lines: section.lines.iter().filter(|line| line.word(0) == "acl").collect(),
        port: if secure { "443" } else { "80" },
        in_front: true,
    };
    let mut steps = steps(section, &acls, remarks);
    for line in section.lines.iter().filter(|line| line.word(0) == "use_backend") {
        let condition = line.rest(2);
        let mut act = RuleAction::Backend(line.word(1).to_owned());
        if line.word(1).contains('%') {
            act = RuleAction::Closed(
                "a variable chooses the backend. Write a route for each backend".to_owned(),
            );
        }
        let terms = if condition.is_empty() { Some(vec![everything()]) } else { acls.condition(condition) };
        steps.push(RuleStep { at: line.at.clone(), terms, act });
    }
    let default = if section.kind == "listen"
        && (section.last("server").is_some() || section.last("server-template").is_some())
    {
        Some((section.name.clone(), section.head.at.clone()))
    } else {
        section.last("default_backend").map(|line| (line.word(1).to_owned(), line.at.clone()))
    };
    if let Some((name, at)) = default {
        steps.push(RuleStep { at, terms: Some(vec![everything()]), act: RuleAction::Backend(name) });
    }
    let own = if section.kind == "listen" { Some(section.name.clone()) } else { None };
    let mut out = Vec::new();
    lower(&steps, &everything(), &[], own.as_deref(), secure, &mut out, cx);
    if let Some(line) = section.last("monitor-uri") {
        let mut rule = PlannedRule {
            when: RuleConditions {
                path: PlannedPath::Exact(line.word(1).to_owned()),
                ..RuleConditions::default()
            },
            at: line.at.clone(),
            ..PlannedRule::default()
        };
        rule.answer(200);
        if let Some(fails) = section.lines.iter().find(|line| line.word(0) == "monitor") {
            rule.remarks.point(&fails.at, "`monitor fail` is left out: this path always answers 200. `/readyz` on port 15090 shows the state of upstreams.");
        }
        rule.remarks.note(
            &line.at,
            "this path is also answered if it has a query; the original forwarded such requests.",
        );
        out.insert(0, HostedRule { hosts: Vec::new(), rule });
    }
    out
}

/// Adds the rules for the requests that meet `within`. `changes` are the changes of earlier rules.
fn lower(
    steps: &[RuleStep],
    within: &AclAlternative,
    changes: &[RequestChange],
    backend: Option<&str>,
    secure: bool,
    out: &mut Vec<HostedRule>,
    cx: &mut HaproxyImport,
) {
    if out.len() > MAX_RULES {
        return;
    }
    let Some((step, rest)) = steps.split_first() else {
        // No rule matches and there is no default backend.
        let mut rule = PlannedRule::default();
        rule.answer(503);
        emit(within, rule, out);
        return;
    };
    let Some(terms) = &step.terms else {
        let why = match &step.act {
            RuleAction::Closed(why) => why.clone(),
            RuleAction::Change(_) => "a change of requests has a condition that attache's routes lack".to_owned(),
            _ => "a rule has a condition that attache's routes lack: they have host, path, method, headers and query".to_owned(),
        };
        let mut rule = PlannedRule { at: step.at.clone(), ..PlannedRule::default() };
        rule.refuse(
            &step.at,
            format!("everything from here on is refused: {why}. Write the rules by hand; then replace the refusal."),
        );
        emit(within, rule, out);
        return;
    };
    if terms.iter().any(|term| reads_change(term, changes)) {
        let mut rule = PlannedRule { at: step.at.clone(), ..PlannedRule::default() };
        rule.refuse(
            &step.at,
            "everything from here on is refused: a rule reads a part of the request that an earlier rule changed, and attache's routes read what the client sent.",
        );
        emit(within, rule, out);
        return;
    }
    let all = matches!(terms.as_slice(), [only] if only.not.is_empty() && only.hosts.is_empty() && only.when == everything().when);
    for term in terms {
        match super::acl::both(within, term) {
            Some(None) => {}
            Some(Some(mut both)) => {
                let not = std::mem::take(&mut both.not);
                for excluded in &not {
                    match super::acl::both(&both, &AclAlternative { not: Vec::new(), ..excluded.clone() }) {
                        Some(None) => {}
                        Some(Some(inner)) if excluded.not.is_empty() => {
                            lower(rest, &inner, changes, backend, secure, out, cx);
                        }
                        _ => {
                            let mut rule = PlannedRule::default();
                            rule.refuse(&step.at, "attache can't combine the conditions of this rule with those of earlier rules, so the import refuses the requests that meet them.");
                            emit(&both, rule, out);
                        }
                    }
                }
                act(step, rest, &both, changes, backend, secure, out, cx);
            }
            None => {
                let mut rule = PlannedRule::default();
                rule.refuse(&step.at, "attache can't combine the conditions of this rule with those of earlier rules, so the import refuses everything from here on.");
                emit(within, rule, out);
                return;
            }
        }
    }
    if !all {
        lower(rest, within, changes, backend, secure, out, cx);
    }
}

/// Whether a condition reads what an earlier rule changed. In attache it would read what the client sent.
fn reads_change(term: &AclAlternative, changes: &[RequestChange]) -> bool {
    let own = |change: &RequestChange| match change {
        RequestChange::Header { way, name, .. } => {
            *way == "request" && term.when.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name))
        }
        RequestChange::Path(_) => term.when.path != everything().when.path || !term.when.query.is_empty(),
        RequestChange::Host(_) => !term.hosts.is_empty(),
    };
    changes.iter().any(own) || term.not.iter().any(|not| reads_change(not, changes))
}

#[allow(clippy::too_many_arguments)]
fn act(
    step: &RuleStep,
    rest: &[RuleStep],
    within: &AclAlternative,
    changes: &[RequestChange],
    own: Option<&str>,
    secure: bool,
    out: &mut Vec<HostedRule>,
    cx: &mut HaproxyImport,
) {
    match &step.act {
        RuleAction::End(rule) => {
            let mut rule = (**rule).clone();
            let mut within = within.clone();
            if let Some(ConfigValue::Map(redirect)) = rule.keys.get("redirect").cloned()
                && let Some(ConfigValue::Text(path)) = redirect.get("path")
                && let Some(prefix) = path.strip_suffix('\u{0}')
            {
                let mut redirect = redirect.clone();
                redirect.set("path", format!("{}/{{rest}}", crate::text::literal(prefix)));
                rule.keys.set("redirect", redirect);
                whole(&mut within.when);
            }
            emit(&within, rule, out);
        }
        RuleAction::Change(change) => {
            let mut changes = changes.to_vec();
            changes.push(change.clone());
            lower(rest, within, &changes, own, secure, out, cx);
        }
        RuleAction::Closed(why) => {
            let mut rule = PlannedRule { at: step.at.clone(), ..PlannedRule::default() };
            rule.refuse(&step.at, format!("requests that reach this rule are refused: {why}. Write it by hand; then replace the refusal."));
            emit(within, rule, out);
        }
        RuleAction::Backend(name) => {
            let Some(section) = cx
                .sections
                .iter()
                .find(|other| other.name == *name && matches!(other.kind.as_str(), "backend" | "listen"))
                .cloned()
            else {
                let mut rule = PlannedRule { at: step.at.clone(), ..PlannedRule::default() };
                rule.refuse(&step.at, format!("there is no backend `{name}` in the given files."));
                emit(within, rule, out);
                return;
            };
            if own == Some(name.as_str()) {
                emit_backend(name, &section, &step.at, within, changes, out, cx);
                return;
            }
            // The backend has rules of its own.
            let acls = Acls {
                lines: section.lines.iter().filter(|line| line.word(0) == "acl").collect(),
                port: if secure { "443" } else { "80" },
                in_front: false,
            };
            let mut remarks = Remarks::default();
            let mut inner = steps(&section, &acls, &mut remarks);
            let start = out.len();
            if inner.is_empty() {
                emit_backend(name, &section, &step.at, within, changes, out, cx);
            } else {
                inner.push(RuleStep {
                    at: step.at.clone(),
                    terms: Some(vec![everything()]),
                    act: RuleAction::Backend(name.clone()),
                });
                lower(&inner, within, changes, Some(name), secure, out, cx);
            }
            if let Some(first) = out.get_mut(start) {
                first.rule.remarks.0.extend(remarks.0);
            }
        }
    }
}

fn emit(within: &AclAlternative, mut rule: PlannedRule, out: &mut Vec<HostedRule>) {
    rule.when = within.when.clone();
    if within.not.is_empty() {
        out.push(HostedRule { hosts: within.hosts.clone(), rule });
    }
}

/// The whole path as `rest` behind its slash.
fn whole(when: &mut RuleConditions) -> bool {
    when.path = match &when.path {
        PlannedPath::All | PlannedPath::Any => PlannedPath::Regex("/(?<rest>.*)".to_owned()),
        PlannedPath::Exact(path) | PlannedPath::Text(path) if path.starts_with('/') => {
            let end = if matches!(when.path, PlannedPath::Text(_)) { ".*" } else { "" };
            PlannedPath::Regex(format!("/(?<rest>{}{end})", regex::escape(&path[1..])))
        }
        PlannedPath::Regex(regex) if regex.starts_with('/') && !regex.contains('|') => {
            PlannedPath::Regex(format!("/(?<rest>{})", &regex[1..]))
        }
        _ => return false,
    };
    true
}

fn emit_backend(
    name: &str,
    section: &ConfigSection,
    at: &FileLine,
    within: &AclAlternative,
    changes: &[RequestChange],
    out: &mut Vec<HostedRule>,
    cx: &mut HaproxyImport,
) {
    let mut rule = PlannedRule { at: at.clone(), ..PlannedRule::default() };
    let mut within = within.clone();
    match backend_of(name, section, &mut rule, cx) {
        Ok(upstream) => {
            rule.targets.push(upstream.clone());
            rule.keys.set("to", upstream);
            backend::policies(section, &mut rule.keys);
            if let Err(why) = apply(changes, &mut rule, &mut within, at, out) {
                rule.refuse(at, why);
            }
        }
        Err(why) => rule.refuse(at, why),
    }
    emit(&within, rule, out);
}

/// The upstream of a backend. `Err`: why its requests must be refused.
fn backend_of(
    name: &str,
    section: &ConfigSection,
    rule: &mut PlannedRule,
    cx: &mut HaproxyImport,
) -> Result<String, String> {
    if let Some(line) = section.unknown() {
        return Err(format!(
            "this import doesn't know `{}` of the backend `{name}`, which may refuse requests. Find out what it does; then replace the refusal.",
            line.word(0)
        ));
    }
    if let Some(line) = section.lines.iter().find(|line| line.word(0) == "use-server") {
        rule.remarks.point(
            &line.at,
            "attache lacks `use-server`: every server of the backend gets these requests. Make a backend for each server.",
        );
    }
    if section.is_off() {
        return Err(format!("the backend `{name}` is `disabled`."));
    }
    backend::used(name, false, cx)
        .ok_or_else(|| format!("the backend `{name}` has no server that could be carried over."))
}

/// Applies the changes of earlier rules to a rule. `Err`: why its requests must be refused.
fn apply(
    changes: &[RequestChange],
    rule: &mut PlannedRule,
    within: &mut AclAlternative,
    at: &FileLine,
    out: &mut Vec<HostedRule>,
) -> Result<(), &'static str> {
    let mut headers = YamlMap::default();
    for change in changes {
        match change {
            RequestChange::Header { way, how, name, value } => {
                // If the header is removed, there is no upgrade.
                if name == "upgrade" && *way == "request" {
                    if *how != "remove" {
                        return Err(
                            "a rule sets `Upgrade`, and attache passes on the client's. Write `upgrades` of the route; then replace the refusal.",
                        );
                    }
                    rule.keys.set("upgrades", "ignore");
                }
                if !attache_config::is_framing(name) {
                    edit(&mut headers.child(way), how, name, value);
                }
            }
            RequestChange::Host(value) if !value.contains('%') => {
                rule.keys.child("rewrite").set("host", value.to_ascii_lowercase());
            }
            RequestChange::Host(_) => {
                rule.remarks.point(at, "a variable set the host; attache keeps the client's host.");
            }
            RequestChange::Path(path) if !rewrite(path, rule, within, out) => {
                return Err(
                    "an expression rewrites the path, and is not a part of the route's own expression. Write `rewrite`; then replace the refusal.",
                );
            }
            RequestChange::Path(_) => {}
        }
    }
    if !headers.is_empty() {
        rule.keys.set("headers", headers);
    }
    Ok(())
}

/// Adds one header to the edits of a direction.
fn edit(edits: &mut YamlMap, how: &str, name: &str, value: &str) {
    if how != "remove" {
        edits.child(how).set(name, value);
        return;
    }
    let mut names = match edits.get("remove") {
        Some(ConfigValue::Text(one)) => vec![one.clone()],
        Some(ConfigValue::List(all)) => all
            .iter()
            .filter_map(|item| if let ConfigValue::Text(one) = item { Some(one.clone()) } else { None })
            .collect(),
        _ => Vec::new(),
    };
    if !names.iter().any(|known| known == name) {
        names.push(name.to_owned());
    }
    edits.set("remove", names);
}

/// Rewrites the path. `false` where the rule's condition doesn't fit the rewrite.
fn rewrite(
    path: &str,
    rule: &mut PlannedRule,
    within: &mut AclAlternative,
    out: &mut Vec<HostedRule>,
) -> bool {
    if let Some(prefix) = path.strip_suffix('\u{0}') {
        let fits = whole(&mut within.when);
        rule.keys
            .child("rewrite")
            .set("path", format!("{}/{{rest}}", crate::text::literal(prefix.trim_end_matches('/'))));
        fits
    } else if let Some((pattern, to)) = path.strip_prefix('\u{1}').and_then(|rest| rest.split_once('\u{1}')) {
        replaced(pattern, to, rule, within, out)
    } else {
        rule.keys.child("rewrite").set("path", crate::text::literal(path));
        true
    }
}

/// `replace-path EXPRESSION TO`: a separate rule in front of this one rewrites the paths that the expression matches.
fn replaced(
    pattern: &str,
    to: &str,
    rule: &PlannedRule,
    within: &AclAlternative,
    out: &mut Vec<HostedRule>,
) -> bool {
    let bare = pattern.trim_start_matches('^').trim_end_matches('$');
    let literal: String =
        bare.chars().take_while(|c| c.is_ascii_alphanumeric() || "/-_".contains(*c)).collect();
    let fits = match &within.when.path {
        PlannedPath::All | PlannedPath::Any => true,
        PlannedPath::Text(start) => literal.starts_with(start.as_str()),
        _ => false,
    };
    if !fits || bare.contains('|') || crate::path::expression(bare).is_none() || !literal.starts_with('/') {
        return false;
    }
    let mut whole = String::new();
    let mut chars = to.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next().and_then(|c| c.to_digit(10)) {
                Some(digit) if digit > 0 => whole.push_str(&format!("{{g{digit}}}")),
                _ => return false,
            },
            '{' | '}' | '%' => return false,
            c => whole.push(c),
        }
    }
    if !whole.starts_with(['/', '{']) {
        return false;
    }
    let mut first = rule.clone();
    first.keys.child("rewrite").set("path", whole);
    let mut case = within.clone();
    let open = !pattern.ends_with('$') && !bare.ends_with(".*)") && !bare.ends_with(".*");
    let bare = crate::path::named(bare);
    case.when.path = PlannedPath::Regex(if open { format!("{bare}.*") } else { bare });
    emit(&case, first, out);
    true
}
