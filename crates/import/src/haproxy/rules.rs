//! HTTP rules of a frontend and of the backends behind it become rules that are tried in order.

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
    tokens::{Line, Section},
};

/// One step: what happens to requests that its condition takes.
#[derive(Clone)]
enum Act {
    /// It ends here.
    End(Box<Rule>),
    /// It goes to a backend.
    Backend(String),
    /// A change for all that follows.
    Change(Change),
    /// What follows can't be trusted to be as it was.
    Closed(String),
}

#[derive(Clone)]
enum Change {
    Header { way: &'static str, how: &'static str, name: String, value: String },
    Path(String),
    Host(String),
}

#[derive(Clone)]
struct Step {
    at: At,
    terms: Option<Vec<Term>>,
    act: Act,
}

/// Alternatives of one list of rules.
const MOST: usize = 2000;

pub(crate) fn frontend(section: &Section, secure: bool, remarks: &mut Remarks, cx: &mut Cx) -> Vec<Hosted> {
    let acls = Acls {
        lines: section.lines.iter().filter(|line| line.word(0) == "acl").collect(),
        port: if secure { "443" } else { "80" },
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
        rule.remarks.note(&line.at, "this path is answered with a query, too, which the original sent on.");
        out.insert(0, Hosted { hosts: Vec::new(), rule });
    }
    out
}

fn everything() -> Term {
    Term { when: When { path: Path::Any, ..When::default() }, ..Term::default() }
}

/// Steps of `http-request`, `http-response` and `redirect` of a section.
fn steps(section: &Section, acls: &Acls<'_>, remarks: &mut Remarks) -> Vec<Step> {
    let mut first = Vec::new();
    let mut redirects = Vec::new();
    for line in &section.lines {
        match line.word(0) {
            "http-request" => first.extend(request(line, acls, remarks)),
            "http-response" => first.extend(response(line, remarks)),
            "redirect" => redirects.extend(step(line, 1, acls, |line| redirect(line, 1))),
            "block" | "reqdeny" | "reqideny" | "reqrep" | "reqirep" | "tcp-request"
                if line.word(2) != "inspect-delay" =>
            {
                let quiet = line.word(2).starts_with("track-sc")
                    || line.word(2).starts_with("set-")
                    || line.word(2) == "accept";
                if quiet {
                    remarks.soft(&line.at, "counters and variables of connections are absent.");
                } else {
                    first.push(Step {
                        at: line.at.clone(),
                        terms: None,
                        act: Act::Closed(format!(
                            "`{}` could refuse requests here. Write it as a route",
                            line.word(0)
                        )),
                    });
                }
            }
            _ => {}
        }
    }
    first.extend(redirects);
    first
}

/// Splits a line at its condition.
fn condition(line: &Line, from: usize) -> (Vec<String>, Vec<String>) {
    let rest = line.rest(from);
    match rest.iter().position(|word| word == "if" || word == "unless") {
        Some(index) => (rest[..index].to_vec(), rest[index..].to_vec()),
        None => (rest.to_vec(), Vec::new()),
    }
}

fn step(line: &Line, from: usize, acls: &Acls<'_>, act: impl Fn(&Line) -> Act) -> Option<Step> {
    let (_, words) = condition(line, from);
    let terms = if words.is_empty() { Some(vec![everything()]) } else { acls.condition(&words) };
    Some(Step { at: line.at.clone(), terms, act: act(line) })
}

fn request(line: &Line, acls: &Acls<'_>, remarks: &mut Remarks) -> Option<Step> {
    let action = line.word(1).split('(').next().unwrap_or_default().to_owned();
    match action.as_str() {
        "deny" | "reject" | "silent-drop" | "tarpit" | "return" => step(line, 2, acls, |line| Act::End(Box::new(answer(line, &action)))),
        "redirect" => step(line, 2, acls, |line| redirect(line, 2)),
        "set-header" | "add-header" => step(line, 4, acls, |line| match template(line.word(3)) {
            Some(value) if line.word(2).eq_ignore_ascii_case("host") => Act::Change(Change::Host(value)),
            Some(value) => header("request", if action == "set-header" { "set" } else { "add" }, line.word(2), value),
            None => header("request", "remove", line.word(2), String::new()),
        })
        .inspect(|_| {
            if template(line.word(3)).is_none() {
                remarks.soft(&line.at, format!("the value of `{}` is of a variable that attache lacks; what a client sends under this name is removed.", line.word(2)));
            }
        }),
        "del-header" => step(line, 3, acls, |line| header("request", "remove", line.word(2), String::new())),
        "set-path" => step(line, 3, acls, |line| match line.word(2).strip_suffix("%[path]") {
            Some(prefix) if !prefix.contains('%') && prefix.starts_with('/') => Act::Change(Change::Path(format!("{prefix}\u{0}"))),
            _ if !line.word(2).contains('%') => Act::Change(Change::Path(line.word(2).to_owned())),
            _ => Act::Closed("the path was made of a variable. Write it as `rewrite`".to_owned()),
        }),
        "replace-path" | "replace-uri" => step(line, 4, acls, |line| Act::Change(Change::Path(format!("\u{1}{}\u{1}{}", line.word(2), line.word(3))))),
        "set-var" | "unset-var" | "capture" | "set-log-level" | "set-nice" | "set-tos" | "set-mark" | "track-sc0" | "track-sc1" | "track-sc2" | "sc-inc-gpc0"
        | "set-priority-class" | "cache-use" | "set-src" | "disable-l7-retry" | "wait-for-body" | "normalize-uri" | "early-hint" | "set-dst" => {
            remarks.soft(&line.at, format!("`http-request {action}` is absent; where a later rule reads what it set, that rule says so."));
            None
        }
        "allow" => step(line, 2, acls, |_| Act::Closed("`allow` let requests past later rules. Write it as a route".to_owned())),
        "auth" => step(line, 2, acls, |_| Act::Closed("a user and password were asked for here. Let the application ask for them".to_owned())),
        other => step(line, 2, acls, |_| Act::Closed(format!("`http-request {other}` could refuse or change requests here"))),
    }
}

fn response(line: &Line, remarks: &mut Remarks) -> Option<Step> {
    let how = match line.word(1) {
        "set-header" => "set",
        "add-header" => "add",
        "del-header" => "remove",
        other => {
            remarks.soft(&line.at, format!("`http-response {other}` is absent."));
            return None;
        }
    };
    let value = if how == "remove" { Some(String::new()) } else { template(line.word(3)) };
    let (_, words) = condition(line, 2);
    match value {
        Some(value) if words.is_empty() => Some(Step {
            at: line.at.clone(),
            terms: Some(vec![everything()]),
            act: header("response", how, line.word(2), value),
        }),
        _ => {
            remarks.soft(
                &line.at,
                format!(
                    "`{}` of answers is left out: its value or condition is of something that attache lacks.",
                    line.word(2)
                ),
            );
            None
        }
    }
}

fn header(way: &'static str, how: &'static str, name: &str, value: String) -> Act {
    Act::Change(Change::Header { way, how, name: name.to_ascii_lowercase(), value })
}

fn answer(line: &Line, action: &str) -> Rule {
    let mut rule = Rule { at: line.at.clone(), ..Rule::default() };
    let default = match action {
        "return" => 200,
        "tarpit" => 500,
        _ => 403,
    };
    let status = ["deny_status", "status"]
        .iter()
        .find_map(|word| line.after(word))
        .and_then(|text| text.parse::<u64>().ok())
        .unwrap_or(default);
    let text = line.after("string").or_else(|| line.after("lf-string"));
    match text {
        Some(text) => {
            let mut respond = Map::default();
            respond.set("status", status);
            respond.set("body", text);
            respond.put("content_type", line.after("content-type"));
            rule.keys.set("respond", respond);
        }
        None => rule.answer(status),
    }
    rule
}

fn redirect(line: &Line, from: usize) -> Act {
    let (words, _) = condition(line, from);
    let word = |name: &str| words.iter().position(|word| word == name).and_then(|index| words.get(index + 1));
    let mut keys = Map::default();
    keys.set("status", word("code").and_then(|code| code.parse::<u64>().ok()).unwrap_or(302));
    if let Some(scheme) = word("scheme").filter(|scheme| *scheme == "https" || *scheme == "http") {
        keys.set("scheme", scheme.as_str());
    } else if let Some(to) = word("location").or_else(|| word("prefix")) {
        let whole = word("location").is_some();
        let (scheme, rest) =
            to.split_once("://").map_or((None, to.as_str()), |(scheme, rest)| (Some(scheme), rest));
        let (host, path) = if scheme.is_some() {
            rest.find('/').map_or((Some(rest), ""), |index| (Some(&rest[..index]), &rest[index..]))
        } else {
            (None, rest)
        };
        if to.contains("%[") || path.contains('?') {
            return Act::Closed("this redirect has a variable or a query. Write it as `redirect`".to_owned());
        }
        keys.put("scheme", scheme);
        keys.put("host", host);
        if whole {
            keys.set("path", if path.is_empty() { "/".to_owned() } else { crate::text::literal(path) });
            keys.set("strip_query", true);
        } else if !path.is_empty() && path != "/" {
            keys.set("path", format!("{}\u{0}", path.trim_end_matches('/')));
        }
        if word("drop-query").is_some() || words.iter().any(|word| word == "drop-query") {
            keys.set("strip_query", true);
        }
    } else {
        return Act::Closed("this redirect has a variable. Write it as `redirect`".to_owned());
    }
    let mut rule = Rule { at: line.at.clone(), ..Rule::default() };
    rule.keys.set("redirect", keys);
    Act::End(Box::new(rule))
}

/// A log format as a header's value.
fn template(value: &str) -> Option<String> {
    crate::text::template(value, |rest| match rest.strip_prefix('[') {
        Some(inner) => {
            let (name, rest) = inner.split_once(']')?;
            Some((variable(name)?, rest))
        }
        None => Some(("%{client.address}".to_owned(), rest.strip_prefix("ci")?)),
    })
}

fn variable(name: &str) -> Option<String> {
    Some(match name {
        "src" => "%{client.address}".to_owned(),
        "src_port" => "%{client.port}".to_owned(),
        "path" => "%{request.path}".to_owned(),
        "method" => "%{request.method}".to_owned(),
        "hdr(host)" | "req.hdr(host)" | "req.hdr(Host)" | "hdr(Host)" => "%{request.host}".to_owned(),
        name => {
            let inner =
                name.strip_prefix("req.hdr(").or_else(|| name.strip_prefix("hdr("))?.strip_suffix(')')?;
            format!("%{{request.header.{}}}", inner.to_ascii_lowercase())
        }
    })
}

/// Rules in order for what meets `within`, with `changes` so far.
fn lower(
    steps: &[Step],
    within: &Term,
    changes: &[Change],
    backend: Option<&str>,
    secure: bool,
    out: &mut Vec<Hosted>,
    cx: &mut Cx,
) {
    if out.len() > MOST {
        return;
    }
    let Some((step, rest)) = steps.split_first() else {
        // What no rule took: there is no backend.
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
    let Some(upstream) = backend::used(name, false, cx) else {
        rule.refuse(at, format!("the backend `{name}` has no server that could be carried over."));
        emit(&within, rule, out);
        return;
    };
    rule.targets.push(upstream.clone());
    rule.keys.set("to", upstream);
    backend::policies(section, &mut rule.keys);
    let mut headers = Map::default();
    for change in changes {
        match change {
            Change::Header { way, how, name, value } => {
                if attache_config::is_framing(name) {
                    continue;
                }
                let mut edits = headers.child(way);
                if *how == "remove" {
                    let mut names = match edits.get("remove") {
                        Some(Value::Text(one)) => vec![one.clone()],
                        Some(Value::List(all)) => all
                            .iter()
                            .filter_map(
                                |item| if let Value::Text(one) = item { Some(one.clone()) } else { None },
                            )
                            .collect(),
                        _ => Vec::new(),
                    };
                    if !names.contains(name) {
                        names.push(name.clone());
                    }
                    edits.set("remove", names);
                } else {
                    edits.child(how).set(name, value.clone());
                }
            }
            Change::Host(value) if !value.contains('%') => {
                rule.keys.child("rewrite").set("host", value.to_ascii_lowercase());
            }
            Change::Host(_) => rule.remarks.point(at, "the host was made of a variable; it is kept."),
            Change::Path(path) => {
                let done = if let Some(prefix) = path.strip_suffix('\u{0}') {
                    let fits = whole(&mut within.when);
                    rule.keys.child("rewrite").set(
                        "path",
                        format!("{}/{{rest}}", crate::text::literal(prefix.trim_end_matches('/'))),
                    );
                    fits
                } else if let Some((pattern, to)) =
                    path.strip_prefix('\u{1}').and_then(|rest| rest.split_once('\u{1}'))
                {
                    replaced(pattern, to, &mut rule, &mut within, at, out)
                } else {
                    rule.keys.child("rewrite").set("path", crate::text::literal(path));
                    true
                };
                if !done {
                    rule.refuse(at, "the path was rewritten by an expression that isn't a part of what this route matches: write `rewrite`. Then replace the refusal.");
                    emit(&within, rule, out);
                    return;
                }
            }
        }
    }
    if !headers.is_empty() {
        rule.keys.set("headers", headers);
    }
    emit(&within, rule, out);
}

/// `replace-path EXPRESSION TO`: what the expression matches is rewritten, by a rule of its own before this one.
fn replaced(
    pattern: &str,
    to: &str,
    rule: &mut Rule,
    within: &mut Term,
    _at: &At,
    out: &mut Vec<Hosted>,
) -> bool {
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
