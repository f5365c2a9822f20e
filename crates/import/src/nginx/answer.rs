//! Answers of nginx itself: `return`, `rewrite`, `if`, and the variables in their texts.

use crate::path::PlannedPath;
use crate::plan::{PlannedRule, RuleConditions};
use crate::text::literal;
use crate::value::YamlMap;

use super::tokens::Directive;

pub(super) fn returned(one: &Directive, rule: &mut PlannedRule) {
    let (status, text) = match one.word(1).parse::<u64>() {
        Ok(status) => (status, one.words.get(2).cloned()),
        Err(_) => (302, one.words.get(1).cloned()),
    };
    if !matches!(status, 301 | 302 | 303 | 307 | 308) {
        match text.filter(|_| status >= 200 && !matches!(status, 204 | 304)) {
            Some(text) if text.contains('$') => {
                rule.refuse(
                    &one.at,
                    "this answer has variables in its body. Write it as `respond`; then replace the refusal.",
                );
            }
            Some(text) => {
                let mut respond = YamlMap::default();
                respond.set("status", status);
                respond.set("body", text);
                rule.keys.set("respond", respond);
            }
            None if status == 444 => {
                rule.remarks
                    .soft(&one.at, "444 closed the connection without an answer; attache answers with 400.");
                rule.answer(400);
            }
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
pub(super) fn redirect(status: u64, to: &str, path: &mut PlannedPath) -> Option<YamlMap> {
    let mut keys = YamlMap::default();
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
                if !matches!(path, PlannedPath::All | PlannedPath::Any) {
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
pub(super) fn rewritten(one: &Directive) -> Option<(PlannedPath, YamlMap)> {
    let status = match one.word(3) {
        "permanent" => 301_u64,
        "redirect" => 302,
        _ if one.word(2).contains("://") => 302,
        _ => return None,
    };
    let regex = crate::path::anywhere(one.word(1))?;
    let mut keys = YamlMap::default();
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
    let mut out = YamlMap::default();
    out.set("redirect", keys);
    Some((PlannedPath::Regex(crate::path::named(&regex)), out))
}

/// `$1` is `{1}`; other variables are not known.
pub(super) fn captures(text: &str) -> Option<String> {
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

/// `rewrite ^/api/(.*)$ /$1 break` in a location whose paths all begin with `/api/`.
pub(super) fn substitution(pattern: &str, to: &str, path: &PlannedPath) -> Option<(String, String)> {
    let inner = pattern.strip_prefix('^')?;
    let start: String =
        inner.chars().take_while(|c| c.is_ascii_alphanumeric() || "/-_".contains(*c)).collect();
    let fits = match path {
        PlannedPath::All => true,
        PlannedPath::Text(own) => start.starts_with(own.as_str()),
        _ => false,
    };
    if !fits {
        return None;
    }
    let whole = captures(to)?;
    whole.starts_with(['/', '{']).then_some((crate::path::named(&crate::path::anywhere(pattern)?), whole))
}

/// Makes a rule of an `if` that answers itself. False if attache can't express it.
pub(super) fn condition(one: &Directive, secure: bool, out: &mut Vec<PlannedRule>) -> bool {
    let words: Vec<String> = one.words[1..]
        .iter()
        .map(|word| if word.is_empty() { "\"\"" } else { word })
        .collect::<Vec<_>>()
        .join(" ")
        .trim_start_matches('(')
        .trim_end_matches(')')
        .split_whitespace()
        .map(ToOwned::to_owned)
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut when = RuleConditions { path: PlannedPath::Any, ..RuleConditions::default() };
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
        // The scheme is the same for all requests of the listener.
        ["$scheme", is @ ("=" | "!="), value] => {
            let own = if secure { "https" } else { "http" };
            if (own == value.trim_matches(['"', '\''])) != (*is == "=") {
                return one.inner().len() == 1;
            }
        }
        [variable, is @ ("=" | "!="), value] if variable.starts_with("$http_") => {
            // In nginx a missing header is an empty text.
            let pattern = match (*is, value.trim_matches(['"', '\''])) {
                ("=", "") => "!~.+".to_owned(),
                ("=", value) => crate::text::exact(value),
                (_, "") => "~.+".to_owned(),
                (_, value) => format!("!{}", crate::text::exact(value)),
            };
            when.headers.push((variable[6..].replace('_', "-"), pattern));
        }
        [variable, is @ ("~" | "~*" | "!~" | "!~*"), regex] if variable.starts_with("$http_") => {
            let Some(mut regex) = crate::path::anywhere(regex.trim_matches(['"', '\''])) else {
                return false;
            };
            if is.ends_with('*') {
                regex = format!("(?i:{regex})");
            }
            // attache treats an empty header as missing.
            if PlannedPath::Regex(regex.clone()).takes("") {
                return false;
            }
            let not = if is.starts_with('!') { "!" } else { "" };
            when.headers.push((variable[6..].replace('_', "-"), format!("{not}~{regex}")));
        }
        // True is every value except an empty one and `0`.
        [variable] if variable.starts_with("$http_") => {
            when.headers.push((variable[6..].replace('_', "-"), "~(?:[^0].*|0.+)".to_owned()));
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
    let mut rule = PlannedRule { when, at: one.at.clone(), ..PlannedRule::default() };
    returned(inner, &mut rule);
    out.push(rule);
    true
}

/// A header's value with nginx's variables.
pub(super) fn template(value: &str, path: &PlannedPath) -> Option<String> {
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
