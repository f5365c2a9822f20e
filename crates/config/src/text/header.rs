//! Header names, values with variables, and methods.

use std::fmt;

use http::{HeaderName, HeaderValue, Method};

use super::{NotationError, wrong};
use crate::{
    model::{HeaderMatch, Name, Template, TemplatePart, Variable},
    suggest,
};

pub(super) fn name(text: &str) -> Result<HeaderName, NotationError> {
    if text.starts_with(':') {
        return wrong("{} is a pseudo-header", "match `host`, `path` and `method`, change `rewrite` instead");
    }
    match HeaderName::from_bytes(text.as_bytes()) {
        Ok(name) => Ok(name),
        Err(_) => wrong("{} isn't a header name", "letters, digits and `-`, without a colon"),
    }
}

/// A header's name that is a part of another text.
pub(super) fn name_in(text: &str) -> Result<HeaderName, NotationError> {
    name(text).map_err(|wrong| wrong.of(text))
}

pub(super) fn names(text: &str) -> Result<HeaderMatch, NotationError> {
    let Some(begin) = text.strip_suffix('*') else {
        return name(text).map(HeaderMatch::Exact);
    };
    if begin.is_empty() {
        return Ok(HeaderMatch::Prefix("".into()));
    }
    name(begin).map(|name| HeaderMatch::Prefix(name.as_str().into()))
}

/// The parts of a text with `%{name}` in it; `%%` is one `%`.
pub(super) fn template_parts<P>(
    text: &str,
    literal: impl Fn(Name) -> P,
    named: impl Fn(&str) -> Result<P, NotationError>,
) -> Result<Vec<P>, NotationError> {
    let mut parts = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        plain.push_str(before);
        if let Some(after) = after.strip_prefix('%') {
            plain.push('%');
            rest = after;
        } else if let Some(after) = after.strip_prefix('{') {
            let Some((name, after)) = after.split_once('}') else {
                return wrong("{} has a `%{` without a `}`", "write `%%{` for the characters themselves");
            };
            if !plain.is_empty() {
                parts.push(literal(std::mem::take(&mut plain).into()));
            }
            parts.push(named(name)?);
            rest = after;
        } else {
            plain.push('%');
            rest = after;
        }
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        parts.push(literal(plain.into()));
    }
    Ok(parts)
}

pub(super) fn template(text: &str) -> Result<Template, NotationError> {
    let parts = template_parts(text, TemplatePart::Text, |name| variable(name).map(TemplatePart::Variable))?;
    for part in &parts {
        if let TemplatePart::Text(text) = part
            && HeaderValue::from_str(text).is_err()
        {
            return wrong(
                "{} can't be a header's value",
                "no line breaks, and no other control characters than tabs",
            );
        }
    }
    Ok(Template(parts))
}

/// The variables that are one word each.
const VARIABLES: [(&str, Variable); 11] = [
    ("client.address", Variable::ClientAddress),
    ("client.port", Variable::ClientPort),
    ("client.identity", Variable::ClientIdentity),
    ("request.host", Variable::Host),
    ("request.path", Variable::Path),
    ("request.method", Variable::Method),
    ("request.id", Variable::RequestId),
    ("request.scheme", Variable::Scheme),
    ("route", Variable::Route),
    ("upstream", Variable::Upstream),
    ("listener", Variable::Listener),
];

/// Their words.
pub(super) fn variable_words() -> impl Iterator<Item = &'static str> + Clone {
    VARIABLES.iter().map(|(word, _)| *word)
}

fn variable(name: &str) -> Result<Variable, NotationError> {
    if let Some((_, variable)) = VARIABLES.iter().find(|(word, _)| *word == name) {
        return Ok(variable.clone());
    }
    if let Some(header) = name.strip_prefix("request.header.") {
        return name_in(header).map(Variable::Header);
    }
    if let Some(capture) = name.strip_prefix("capture.").filter(|capture| !capture.is_empty()) {
        return Ok(Variable::Capture(capture.into()));
    }
    let known = variable_words().chain(["request.header.NAME", "capture.NAME"]);
    let help = match suggest::nearest(name, known.clone()) {
        Some(near) => format!("did you mean `%{{{near}}}`?"),
        None => format!("one of {}; a `%` itself is `%%`", suggest::list(known, "or")),
    };
    wrong(format!("`%{{{name}}}` isn't a variable"), help)
}

impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "request.header.{name}"),
            Self::Capture(name) => write!(f, "capture.{name}"),
            word => {
                let known = VARIABLES.iter().find(|(_, variable)| variable == word);
                f.write_str(known.map_or("", |(word, _)| word))
            }
        }
    }
}

pub(super) fn media_type(text: &str) -> Result<HeaderValue, NotationError> {
    match HeaderValue::from_str(text) {
        Ok(value) if text.contains('/') => Ok(value),
        _ => wrong("{} isn't a content type", "such as `application/json`"),
    }
}

pub(super) fn method(text: &str) -> Result<Method, NotationError> {
    let upper = text.to_ascii_uppercase();
    if upper != text {
        return wrong("{} isn't a method", format!("methods are case-sensitive: `{upper}`?"));
    }
    Method::from_bytes(text.as_bytes()).or_else(|_| wrong("{} isn't a method", "such as `GET`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Vec<TemplatePart> {
        template(text).unwrap().0
    }

    #[test]
    fn a_template_mixes_text_and_variables() {
        assert_eq!(
            parts("a %{request.host} 100%% %{capture.id}%"),
            [
                TemplatePart::Text("a ".into()),
                TemplatePart::Variable(Variable::Host),
                TemplatePart::Text(" 100% ".into()),
                TemplatePart::Variable(Variable::Capture("id".into())),
                TemplatePart::Text("%".into()),
            ]
        );
        assert_eq!(parts("%%{route}"), [TemplatePart::Text("%{route}".into())]);
        assert_eq!(parts(""), []);
    }

    #[test]
    fn a_wrong_variable_has_a_suggestion() {
        assert!(template("%{request.hots}").unwrap_err().help.contains("request.host"));
        assert!(template("%{request.header.a b}").is_err());
        assert!(template("a\nb").is_err());
    }

    #[test]
    fn a_method_in_lower_case_is_another_method() {
        assert!(method("get").unwrap_err().help.contains("`GET`"));
        assert!(method("PURGE").is_ok());
        assert!(method("G T").is_err());
    }
}
