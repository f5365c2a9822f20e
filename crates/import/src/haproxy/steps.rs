//! The rules of a section in order: their conditions and their actions.

use crate::path::PlannedPath;
use crate::plan::{PlannedRule, RuleConditions};
use crate::remark::Remarks;
use crate::tree::FileLine;
use crate::value::YamlMap;

use super::{
    acl::{AclAlternative, Acls},
    tokens::{ConfigLine, ConfigSection},
};

/// What a rule does with the requests that meet its condition.
#[derive(Clone)]
pub(super) enum RuleAction {
    /// It answers them.
    End(Box<PlannedRule>),
    /// It sends them to a backend.
    Backend(String),
    /// It changes them; later rules see the change.
    Change(RequestChange),
    /// It can't be carried over, for this reason: the requests are refused.
    Closed(String),
}

#[derive(Clone)]
pub(super) enum RequestChange {
    Header { way: &'static str, how: &'static str, name: String, value: String },
    Path(String),
    Host(String),
}

#[derive(Clone)]
pub(super) struct RuleStep {
    pub(super) at: FileLine,
    pub(super) terms: Option<Vec<AclAlternative>>,
    pub(super) act: RuleAction,
}

/// Steps of `http-request`, `http-response` and `redirect` of a section.
pub(super) fn steps(section: &ConfigSection, acls: &Acls<'_>, remarks: &mut Remarks) -> Vec<RuleStep> {
    let mut first = Vec::new();
    let mut redirects = Vec::new();
    for line in &section.lines {
        match line.word(0) {
            "http-request" => first.extend(request(line, acls, remarks)),
            "http-response" => first.extend(response(line, remarks)),
            "http-after-response" => {
                remarks.point(
                    &line.at,
                    "`http-after-response` now changes only responses of the application, not the proxy's own answers.",
                );
                first.extend(response(line, remarks));
            }
            "reqadd" | "rspadd" => first.extend(added(line, acls)),
            "redirect" => redirects.extend(step(line, 1, acls, |line| redirect(line, 1))),
            "block" | "reqdeny" | "reqideny" | "reqrep" | "reqirep" | "reqdel" | "reqidel" | "reqallow"
            | "reqpass" | "rspdel" | "rspidel" | "tcp-request" | "tcp-response"
                if line.word(1) != "inspect-delay" && line.word(2) != "inspect-delay" =>
            {
                let quiet = line.word(2).starts_with("track-sc")
                    || line.word(2).starts_with("set-")
                    || line.word(2) == "accept";
                if quiet {
                    remarks.soft(&line.at, "attache has no counters and variables of connections.");
                } else {
                    first.push(RuleStep {
                        at: line.at.clone(),
                        terms: None,
                        act: RuleAction::Closed(format!(
                            "`{}` may refuse requests. Write it as a route",
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
fn condition(line: &ConfigLine, from: usize) -> (Vec<String>, Vec<String>) {
    let rest = line.rest(from);
    match rest.iter().position(|word| word == "if" || word == "unless") {
        Some(index) => (rest[..index].to_vec(), rest[index..].to_vec()),
        None => (rest.to_vec(), Vec::new()),
    }
}

/// `reqadd` and `rspadd` of earlier versions: a whole line of a header.
fn added(line: &ConfigLine, acls: &Acls<'_>) -> Option<RuleStep> {
    let way = if line.word(0) == "reqadd" { "request" } else { "response" };
    step(line, 2, acls, |line| match line.word(1).split_once(':') {
        Some((name, value)) if !value.contains('%') => {
            header(way, "add", name.trim(), value.trim().to_owned())
        }
        _ => RuleAction::Closed("this header has a variable. Write it as `headers`".to_owned()),
    })
}

fn step(
    line: &ConfigLine,
    from: usize,
    acls: &Acls<'_>,
    act: impl Fn(&ConfigLine) -> RuleAction,
) -> Option<RuleStep> {
    if line.varies() {
        let act =
            RuleAction::Closed("this rule has a variable of the environment. Write its value".to_owned());
        return Some(RuleStep { at: line.at.clone(), terms: Some(vec![everything()]), act });
    }
    let (_, words) = condition(line, from);
    let terms = if words.is_empty() { Some(vec![everything()]) } else { acls.condition(&words) };
    Some(RuleStep { at: line.at.clone(), terms, act: act(line) })
}

fn request(line: &ConfigLine, acls: &Acls<'_>, remarks: &mut Remarks) -> Option<RuleStep> {
    let action = line.word(1).split('(').next().unwrap_or_default().to_owned();
    match action.as_str() {
        "deny" | "reject" | "silent-drop" | "tarpit" | "return" => step(line, 2, acls, |line| RuleAction::End(Box::new(answer(line, &action)))),
        "redirect" => step(line, 2, acls, |line| redirect(line, 2)),
        "set-header" | "add-header" => step(line, 4, acls, |line| match template(line.word(3)) {
            Some(value) if line.word(2).eq_ignore_ascii_case("host") => RuleAction::Change(RequestChange::Host(value)),
            Some(value) => header("request", if action == "set-header" { "set" } else { "add" }, line.word(2), value),
            None => header("request", "remove", line.word(2), String::new()),
        })
        .inspect(|_| {
            if template(line.word(3)).is_none() {
                remarks.point(
                    &line.at,
                    format!("the value of `{}` has a variable that attache lacks; the header is left out, and removed from what clients send.", line.word(2)),
                );
            }
        }),
        "del-header" => step(line, 3, acls, |line| removed("request", line)),
        "set-path" => step(line, 3, acls, |line| match line.word(2).strip_suffix("%[path]") {
            Some(prefix) if !prefix.contains('%') && prefix.starts_with('/') => RuleAction::Change(RequestChange::Path(format!("{prefix}\u{0}"))),
            _ if !line.word(2).contains('%') => RuleAction::Change(RequestChange::Path(line.word(2).to_owned())),
            _ => RuleAction::Closed("the path was made of a variable. Write it as `rewrite`".to_owned()),
        }),
        "replace-path" | "replace-uri" => step(line, 4, acls, |line| RuleAction::Change(RequestChange::Path(format!("\u{1}{}\u{1}{}", line.word(2), line.word(3))))),
        "set-var" | "unset-var" | "capture" | "set-log-level" | "set-nice" | "set-tos" | "set-mark" | "track-sc0" | "track-sc1" | "track-sc2" | "sc-inc-gpc0"
        | "set-priority-class" | "cache-use" | "set-src" | "disable-l7-retry" | "wait-for-body" | "early-hint" | "set-dst" => {
            remarks.soft(&line.at, format!("attache lacks `http-request {action}`; if a later rule reads the value that it sets, a comment there reports this."));
            None
        }
        // The listener normalises every path before rules are matched.
        "normalize-uri"
            if line.words.len() == 3
                && matches!(line.word(2), "path-strip-dot" | "path-strip-dotdot" | "percent-decode-unreserved" | "fragment-strip")
                || line.words.len() == 3 && line.word(2) == "path-merge-slashes" && acls.in_front =>
        {
            None
        }
        "allow" => step(line, 2, acls, |_| RuleAction::Closed("`allow` makes requests skip later rules. Write it as a route".to_owned())),
        "auth" => step(line, 2, acls, |_| RuleAction::Closed("a user and a password are required here. Let the application require them".to_owned())),
        other => step(line, 2, acls, |_| RuleAction::Closed(format!("`http-request {other}` may refuse or change requests"))),
    }
}

fn response(line: &ConfigLine, remarks: &mut Remarks) -> Option<RuleStep> {
    let how = match line.word(1) {
        "set-header" => "set",
        "add-header" => "add",
        "del-header" => "remove",
        "set-var" | "unset-var" | "capture" | "cache-store" | "set-log-level" | "set-nice" | "set-tos"
        | "set-mark" | "strict-mode" | "sc-inc-gpc0" | "track-sc0" | "track-sc1" | "track-sc2"
        | "sc-set-gpt0" | "wait-for-body" => {
            remarks.soft(&line.at, format!("attache lacks `http-response {}`.", line.word(1)));
            return None;
        }
        other if other.starts_with("set-var(") || other.starts_with("unset-var(") => {
            remarks.soft(&line.at, format!("attache lacks `http-response {other}`."));
            return None;
        }
        other => {
            let act = RuleAction::Closed(format!("`http-response {other}` may refuse or change responses"));
            return Some(RuleStep { at: line.at.clone(), terms: Some(vec![everything()]), act });
        }
    };
    if how == "remove" && pattern_of_names(line) {
        return Some(RuleStep {
            at: line.at.clone(),
            terms: Some(vec![everything()]),
            act: removed("response", line),
        });
    }
    let value =
        if how == "remove" { Some(String::new()) } else { template(line.word(3)).filter(|_| !line.varies()) };
    let (_, words) = condition(line, 2);
    if how == "remove" && !words.is_empty() {
        remarks.point(
            &line.at,
            format!(
                "`{}` is removed from every response, because attache has no conditions on responses.",
                line.word(2)
            ),
        );
        return Some(RuleStep {
            at: line.at.clone(),
            terms: Some(vec![everything()]),
            act: header("response", how, line.word(2), String::new()),
        });
    }
    match value {
        Some(value) if words.is_empty() => Some(RuleStep {
            at: line.at.clone(),
            terms: Some(vec![everything()]),
            act: header("response", how, line.word(2), value),
        }),
        _ => {
            remarks.soft(
                &line.at,
                format!(
                    "the change of `{}` in responses is left out: attache lacks a part of its value or condition.",
                    line.word(2)
                ),
            );
            None
        }
    }
}

/// Whether the rule has a pattern of header names (`-m beg`, `-m reg`), and not one name.
fn pattern_of_names(line: &ConfigLine) -> bool {
    line.after("-m").is_some_and(|how| how != "str")
}

/// attache removes headers by name only: a pattern of names is refused.
fn removed(way: &'static str, line: &ConfigLine) -> RuleAction {
    if pattern_of_names(line) {
        return RuleAction::Closed(format!(
            "a rule removes headers whose names match `{}`. List each name in `headers.{way}.remove`",
            line.word(2)
        ));
    }
    header(way, "remove", line.word(2), String::new())
}

fn header(way: &'static str, how: &'static str, name: &str, value: String) -> RuleAction {
    RuleAction::Change(RequestChange::Header { way, how, name: name.to_ascii_lowercase(), value })
}

fn answer(line: &ConfigLine, action: &str) -> PlannedRule {
    let mut rule = PlannedRule { at: line.at.clone(), ..PlannedRule::default() };
    match action {
        "silent-drop" | "reject" => {
            rule.remarks.note(
                &line.at,
                format!("`{action}` closed the connection without an answer; attache answers with 403."),
            );
        }
        "tarpit" => rule.remarks.note(
            &line.at,
            "`tarpit` delayed the request before it was refused; attache refuses it at once.",
        ),
        _ => {}
    }
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
    let (words, _) = condition(line, 2);
    let mut set = YamlMap::default();
    let mut rest = words.as_slice();
    while let Some(start) = rest.iter().position(|word| word == "hdr") {
        match (rest.get(start + 1), rest.get(start + 2).and_then(|value| template(value))) {
            (Some(name), Some(value)) => set.set(&name.to_ascii_lowercase(), value),
            (Some(name), None) => rule.remarks.point(
                &line.at,
                format!(
                    "the header `{name}` of this answer has a variable that attache lacks, and is left out."
                ),
            ),
            (None, _) => {}
        }
        rest = rest.get(start + 3..).unwrap_or_default();
    }
    if !set.is_empty() {
        rule.keys.child("headers").child("response").set("set", set);
    }
    for word in ["file", "lf-file"] {
        if let Some(file) = line.after(word) {
            rule.remarks.soft(
                &line.at,
                format!(
                    "the body is the content of `{file}`: write `body: !file {file}` where that file is."
                ),
            );
        }
    }
    for word in ["errorfile", "errorfiles"] {
        if let Some(file) = line.after(word) {
            rule.remarks.point(
                &line.at,
                format!("the whole answer is in `{file}`: write its status, headers and body as `respond`."),
            );
        }
    }
    let text = line.after("string").or_else(|| line.after("lf-string").filter(|text| !text.contains('%')));
    if text.is_none() && line.after("lf-string").is_some() {
        rule.remarks.point(&line.at, "the body of this answer has variables, and is left out.");
    }
    match text {
        Some(text) => {
            let mut respond = YamlMap::default();
            respond.set("status", status);
            respond.set("body", text);
            respond.put("content_type", line.after("content-type"));
            rule.keys.set("respond", respond);
        }
        None => rule.answer(status),
    }
    rule
}

fn redirect(line: &ConfigLine, from: usize) -> RuleAction {
    let (words, _) = condition(line, from);
    let word = |name: &str| words.iter().position(|word| word == name).and_then(|index| words.get(index + 1));
    const ARGUMENTS: &[(&str, bool)] = &[
        ("code", true),
        ("drop-query", false),
        ("ignore-empty", false),
        ("location", true),
        ("prefix", true),
        ("scheme", true),
    ];
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        match ARGUMENTS.iter().find(|(name, _)| name == word) {
            Some((_, true)) => {
                rest.next();
            }
            Some(_) => {}
            // Options of the redirect that set a cookie or add a slash.
            None => {
                return RuleAction::Closed(format!(
                    "attache lacks `{word}` of a redirect. Write it as `redirect`"
                ));
            }
        }
    }
    let mut keys = YamlMap::default();
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
            return RuleAction::Closed(
                "this redirect has a variable or a query. Write it as `redirect`".to_owned(),
            );
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
        return RuleAction::Closed("this redirect has a variable. Write it as `redirect`".to_owned());
    }
    let mut rule = PlannedRule { at: line.at.clone(), ..PlannedRule::default() };
    rule.keys.set("redirect", keys);
    RuleAction::End(Box::new(rule))
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

pub(super) fn everything() -> AclAlternative {
    AclAlternative {
        when: RuleConditions { path: PlannedPath::Any, ..RuleConditions::default() },
        ..AclAlternative::default()
    }
}
