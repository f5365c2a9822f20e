//! Combines the HTTP rules of a frontend and of its backends into one list, of which the first match wins.

use crate::hosted::Hosted;
use crate::path::Path;
use crate::plan::{Rule, When};
use crate::remark::Remarks;
use crate::tree::At;
use crate::value::{Map, Value};

use super::{
    Cx,
    acl::{Acls, Term},
    backend,
    steps::{Act, Change, Step, everything, steps},
    tokens::Section,
};

/// The largest number of rules of one frontend.
const MAX_RULES: usize = 2000;

pub(crate) fn frontend(section: &Section, secure: bool, remarks: &mut Remarks, cx: &mut Cx) -> Vec<Hosted> {
    let acls = Acls {
        lines: section.lines.iter().filter(|line| line.word(0) == "acl").collect(),
        port: if secure { "443" } else { "80" },
        in_front: true,
    };
    let mut steps = steps(section, &acls, remarks);
    for line in section.lines.iter().filter(|line| line.word(0) == "use_backend") {
        let condition = line.rest(2);
        let mut act = Act::Backend(line.word(1).to_owned());
        if line.word(1).contains('%') {
            act = Act::Closed("the backend was chosen by a variable. Name each in a route".to_owned());
        }
        let terms = if condition.is_empty() { Some(vec![everything()]) } else { acls.condition(condition) };
        steps.push(Step { at: line.at.clone(), terms, act });
    }
    let default = if section.kind == "listen"
        && (section.last("server").is_some() || section.last("server-template").is_some())
    {
        Some((section.name.clone(), section.head.at.clone()))
    } else {
        section.last("default_backend").map(|line| (line.word(1).to_owned(), line.at.clone()))
    };
    if let Some((name, at)) = default {
        steps.push(Step { at, terms: Some(vec![everything()]), act: Act::Backend(name) });
    }
    let own = if section.kind == "listen" { Some(section.name.clone()) } else { None };
    let mut out = Vec::new();
    lower(&steps, &everything(), &[], own.as_deref(), secure, &mut out, cx);
    if let Some(line) = section.last("monitor-uri") {
        let mut rule = Rule {
            when: When { path: Path::Exact(line.word(1).to_owned()), ..When::default() },
            at: line.at.clone(),
            ..Rule::default()
        };
        rule.answer(200);
        if let Some(fails) = section.lines.iter().find(|line| line.word(0) == "monitor") {
            rule.remarks.point(&fails.at, "`monitor fail`: this path always answers 200. `/readyz` on port 15090 says how upstreams are.");
        }
        rule.remarks.note(&line.at, "this path is answered with a query, too, which the original sent on.");
        out.insert(0, Hosted { hosts: Vec::new(), rule });
    }
    out
}

/// Adds the rules for the requests that meet `within`. `changes` are the changes of earlier rules.
fn lower(
    steps: &[Step],
    within: &Term,
    changes: &[Change],
    backend: Option<&str>,
    secure: bool,
    out: &mut Vec<Hosted>,
    cx: &mut Cx,
) {
    if out.len() > MAX_RULES {
        return;
    }
    let Some((step, rest)) = steps.split_first() else {
        // No rule matches and there is no default backend.
        let mut rule = Rule::default();
        rule.answer(503);
        emit(within, rule, out);
        return;
    };
    let Some(terms) = &step.terms else {
        let why = match &step.act {
            Act::Closed(why) => why.clone(),
            Act::Change(_) => "a change of requests has a condition that routes here can't have".to_owned(),
            _ => "a rule has a condition that routes here can't have: they have host, path, method, headers and query".to_owned(),
        };
        let mut rule = Rule { at: step.at.clone(), ..Rule::default() };
        rule.refuse(
            &step.at,
            format!("everything from here on is refused: {why}. Then replace the refusal."),
        );
        emit(within, rule, out);
        return;
    };
    if terms.iter().any(|term| reads_change(term, changes)) {
        let mut rule = Rule { at: step.at.clone(), ..Rule::default() };
        rule.refuse(
            &step.at,
            "everything from here on is refused: a rule reads what an earlier rule changed; routes read what the client sent.",
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
                    match super::acl::both(&both, &Term { not: Vec::new(), ..excluded.clone() }) {
                        Some(None) => {}
                        Some(Some(inner)) if excluded.not.is_empty() => {
                            lower(rest, &inner, changes, backend, secure, out, cx);
                        }
                        _ => {
                            let mut rule = Rule::default();
                            rule.refuse(&step.at, "the conditions of this rule and those before it can't be said as one: what they take is refused.");
                            emit(&both, rule, out);
                        }
                    }
                }
                act(step, rest, &both, changes, backend, secure, out, cx);
            }
            None => {
                let mut rule = Rule::default();
                rule.refuse(&step.at, "the conditions of this rule and those before it can't be said as one: everything from here on is refused.");
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
fn reads_change(term: &Term, changes: &[Change]) -> bool {
    let own = |change: &Change| match change {
        Change::Header { way, name, .. } => {
            *way == "request" && term.when.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name))
        }
        Change::Path(_) => term.when.path != everything().when.path || !term.when.query.is_empty(),
        Change::Host(_) => !term.hosts.is_empty(),
    };
    changes.iter().any(own) || term.not.iter().any(|not| reads_change(not, changes))
}

#[allow(clippy::too_many_arguments)]
fn act(
    step: &Step,
    rest: &[Step],
    within: &Term,
    changes: &[Change],
    own: Option<&str>,
    secure: bool,
    out: &mut Vec<Hosted>,
    cx: &mut Cx,
) {
    match &step.act {
        Act::End(rule) => {
            let mut rule = (**rule).clone();
            let mut within = within.clone();
            if let Some(Value::Map(redirect)) = rule.keys.get("redirect").cloned()
                && let Some(Value::Text(path)) = redirect.get("path")
                && let Some(prefix) = path.strip_suffix('\u{0}')
            {
                let mut redirect = redirect.clone();
                redirect.set("path", format!("{}/{{rest}}", crate::text::literal(prefix)));
                rule.keys.set("redirect", redirect);
                whole(&mut within.when);
            }
            emit(&within, rule, out);
        }
        Act::Change(change) => {
            let mut changes = changes.to_vec();
            changes.push(change.clone());
            lower(rest, within, &changes, own, secure, out, cx);
        }
        Act::Closed(why) => {
            let mut rule = Rule { at: step.at.clone(), ..Rule::default() };
            rule.refuse(&step.at, format!("what comes here is refused: {why}. Then replace the refusal."));
            emit(within, rule, out);
        }
        Act::Backend(name) => {
            let Some(section) = cx
                .sections
                .iter()
                .find(|other| other.name == *name && matches!(other.kind.as_str(), "backend" | "listen"))
                .cloned()
            else {
                let mut rule = Rule { at: step.at.clone(), ..Rule::default() };
                rule.refuse(&step.at, format!("there is no backend `{name}` here."));
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
                inner.push(Step {
                    at: step.at.clone(),
                    terms: Some(vec![everything()]),
                    act: Act::Backend(name.clone()),
                });
                lower(&inner, within, changes, Some(name), secure, out, cx);
            }
            if let Some(first) = out.get_mut(start) {
                first.rule.remarks.0.extend(remarks.0);
            }
        }
    }
}

fn emit(within: &Term, mut rule: Rule, out: &mut Vec<Hosted>) {
    rule.when = within.when.clone();
    if within.not.is_empty() {
        out.push(Hosted { hosts: within.hosts.clone(), rule });
    }
}

/// The whole path as `rest` behind its slash.
fn whole(when: &mut When) -> bool {
    when.path = match &when.path {
        Path::All | Path::Any => Path::Regex("/(?<rest>.*)".to_owned()),
        Path::Exact(path) | Path::Text(path) if path.starts_with('/') => {
            let end = if matches!(when.path, Path::Text(_)) { ".*" } else { "" };
            Path::Regex(format!("/(?<rest>{}{end})", regex::escape(&path[1..])))
        }
        Path::Regex(regex) if regex.starts_with('/') && !regex.contains('|') => {
            Path::Regex(format!("/(?<rest>{})", &regex[1..]))
        }
        _ => return false,
    };
    true
}

fn emit_backend(
    name: &str,
    section: &Section,
    at: &At,
    within: &Term,
    changes: &[Change],
    out: &mut Vec<Hosted>,
    cx: &mut Cx,
) {
    let mut rule = Rule { at: at.clone(), ..Rule::default() };
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
fn backend_of(name: &str, section: &Section, rule: &mut Rule, cx: &mut Cx) -> Result<String, String> {
    if let Some(line) = section.unknown() {
        return Err(format!(
            "`{}` of the backend `{name}` isn't known to this import, and may have decided who passes. Find out what it did; then replace the refusal.",
            line.word(0)
        ));
    }
    if let Some(line) = section.lines.iter().find(|line| line.word(0) == "use-server") {
        rule.remarks.point(
            &line.at,
            "`use-server` is absent: every server of the backend has these requests. Make a backend of each.",
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
    changes: &[Change],
    rule: &mut Rule,
    within: &mut Term,
    at: &At,
    out: &mut Vec<Hosted>,
) -> Result<(), &'static str> {
    let mut headers = Map::default();
    for change in changes {
        match change {
            Change::Header { way, how, name, value } => {
                // If the header is removed, there is no upgrade.
                if name == "upgrade" && *way == "request" {
                    if *how != "remove" {
                        return Err(
                            "`Upgrade` was written here, and attache passes it on as the client sent it. Then replace the refusal.",
                        );
                    }
                    rule.keys.set("upgrades", "ignore");
                }
                if !attache_config::is_framing(name) {
                    edit(&mut headers.child(way), how, name, value);
                }
            }
            Change::Host(value) if !value.contains('%') => {
                rule.keys.child("rewrite").set("host", value.to_ascii_lowercase());
            }
            Change::Host(_) => rule.remarks.point(at, "the host was made of a variable; it is kept."),
            Change::Path(path) if !rewrite(path, rule, within, out) => {
                return Err(
                    "the path was rewritten by an expression that isn't a part of what this route matches: write `rewrite`. Then replace the refusal.",
                );
            }
            Change::Path(_) => {}
        }
    }
    if !headers.is_empty() {
        rule.keys.set("headers", headers);
    }
    Ok(())
}

/// Adds one header to the edits of a direction.
fn edit(edits: &mut Map, how: &str, name: &str, value: &str) {
    if how != "remove" {
        edits.child(how).set(name, value);
        return;
    }
    let mut names = match edits.get("remove") {
        Some(Value::Text(one)) => vec![one.clone()],
        Some(Value::List(all)) => all
            .iter()
            .filter_map(|item| if let Value::Text(one) = item { Some(one.clone()) } else { None })
            .collect(),
        _ => Vec::new(),
    };
    if !names.iter().any(|known| known == name) {
        names.push(name.to_owned());
    }
    edits.set("remove", names);
}

/// Rewrites the path. `false` where the rule's condition doesn't fit the rewrite.
fn rewrite(path: &str, rule: &mut Rule, within: &mut Term, out: &mut Vec<Hosted>) -> bool {
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
fn replaced(pattern: &str, to: &str, rule: &Rule, within: &Term, out: &mut Vec<Hosted>) -> bool {
    let bare = pattern.trim_start_matches('^').trim_end_matches('$');
    let literal: String =
        bare.chars().take_while(|c| c.is_ascii_alphanumeric() || "/-_".contains(*c)).collect();
    let fits = match &within.when.path {
        Path::All | Path::Any => true,
        Path::Text(start) => literal.starts_with(start.as_str()),
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
    case.when.path = Path::Regex(if open { format!("{bare}.*") } else { bare });
    emit(&case, first, out);
    true
}
