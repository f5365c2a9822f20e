//! Header names, values with variables, and methods.

use http::{HeaderName, HeaderValue, Method};

use super::{Text, Wrong, wrong};
use crate::{
    model::{HeaderMatch, Name, Part, Template, Variable},
    suggest,
};

/// A header's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeaderText(pub(crate) HeaderName);

impl Text for HeaderText {
    const FORMAT: &'static str = "attache-header-name";
    const WHAT: &'static str = "a header name";
    const EXAMPLES: &'static [&'static str] = &["x-tenant"];

    fn parse(text: &str) -> Result<Self, Wrong> {
        if text.starts_with(':') {
            return wrong(
                "{} is a pseudo-header",
                "match `host`, `path` and `method`, change `rewrite` instead",
            );
        }
        match HeaderName::from_bytes(text.as_bytes()) {
            Ok(name) => Ok(Self(name)),
            Err(_) => wrong("{} isn't a header name", "letters, digits and `-`, without a colon"),
        }
    }
}

/// A header's name, or the begin of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeaderMatchText(pub(crate) HeaderMatch);

impl Text for HeaderMatchText {
    const FORMAT: &'static str = "attache-header-names";
    const WHAT: &'static str = "a header name, the begin of some, or `*` for all";
    const EXAMPLES: &'static [&'static str] = &["x-tenant", "x-auth-*", "*"];

    fn parse(text: &str) -> Result<Self, Wrong> {
        let Some(begin) = text.strip_suffix('*') else {
            return HeaderText::parse(text).map(|name| Self(HeaderMatch::Exact(name.0)));
        };
        if begin.is_empty() {
            return Ok(Self(HeaderMatch::Prefix("".into())));
        }
        HeaderText::parse(begin).map(|name| Self(HeaderMatch::Prefix(name.0.as_str().into())))
    }
}

/// The parts of a text with `%{name}` in it; `%%` is one `%`.
pub(super) fn template_parts<P>(
    text: &str,
    literal: impl Fn(Name) -> P,
    named: impl Fn(&str) -> Result<P, Wrong>,
) -> Result<Vec<P>, Wrong> {
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

/// A header's value with `%{variable}` parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TemplateText(pub(crate) Template);

impl Text for TemplateText {
    const FORMAT: &'static str = "attache-template";
    const WHAT: &'static str = "a header value";
    const EXAMPLES: &'static [&'static str] = &["from %{client.address}", "v1"];
    const NUMBERS: bool = true;

    fn parse(text: &str) -> Result<Self, Wrong> {
        let parts = template_parts(text, Part::Text, |name| variable(name).map(Part::Variable))?;
        for part in &parts {
            if let Part::Text(text) = part
                && HeaderValue::from_str(text).is_err()
            {
                return wrong(
                    "{} can't be a header's value",
                    "visible ASCII characters, spaces and tabs only",
                );
            }
        }
        Ok(Self(Template(parts)))
    }
}

fn variable(name: &str) -> Result<Variable, Wrong> {
    Ok(match name {
        "client.address" => Variable::ClientAddress,
        "client.port" => Variable::ClientPort,
        "client.identity" => Variable::ClientIdentity,
        "request.host" => Variable::Host,
        "request.path" => Variable::Path,
        "request.method" => Variable::Method,
        "request.id" => Variable::RequestId,
        "request.scheme" => Variable::Scheme,
        "route" => Variable::Route,
        "upstream" => Variable::Upstream,
        "listener" => Variable::Listener,
        _ => {
            if let Some(header) = name.strip_prefix("request.header.") {
                return HeaderText::parse(header).map(|header| Variable::Header(header.0)).map_err(|wrong| {
                    Wrong { what: wrong.what.replace("{}", &format!("`{header}`")), help: wrong.help }
                });
            }
            if let Some(capture) = name.strip_prefix("capture.")
                && !capture.is_empty()
            {
                return Ok(Variable::Capture(capture.into()));
            }
            let known = [
                "client.address",
                "client.port",
                "client.identity",
                "request.host",
                "request.path",
                "request.method",
                "request.id",
                "request.scheme",
                "request.header.NAME",
                "capture.NAME",
                "route",
                "upstream",
                "listener",
            ];
            let help = match suggest::nearest(name, known) {
                Some(near) => format!("did you mean `%{{{near}}}`?"),
                None => format!("one of {}; a `%` itself is `%%`", suggest::list(known, "or")),
            };
            return wrong(format!("`%{{{name}}}` isn't a variable"), help);
        }
    })
}

/// A content type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MediaType(pub(crate) HeaderValue);

impl Text for MediaType {
    const FORMAT: &'static str = "attache-content-type";
    const WHAT: &'static str = "a content type";
    const EXAMPLES: &'static [&'static str] = &["application/json"];

    fn parse(text: &str) -> Result<Self, Wrong> {
        match HeaderValue::from_str(text) {
            Ok(value) if text.contains('/') => Ok(Self(value)),
            _ => wrong("{} isn't a content type", "such as `application/json`"),
        }
    }
}

/// A request method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MethodText(pub(crate) Method);

impl Text for MethodText {
    const FORMAT: &'static str = "attache-method";
    const WHAT: &'static str = "a method";
    const EXAMPLES: &'static [&'static str] = &["GET", "POST"];

    fn parse(text: &str) -> Result<Self, Wrong> {
        let upper = text.to_ascii_uppercase();
        if upper != text {
            return wrong("{} isn't a method", format!("methods are told apart by case: `{upper}`?"));
        }
        match Method::from_bytes(text.as_bytes()) {
            Ok(method) => Ok(Self(method)),
            Err(_) => wrong("{} isn't a method", "such as `GET`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Vec<Part> {
        TemplateText::parse(text).unwrap().0.0
    }

    #[test]
    fn a_template_mixes_text_and_variables() {
        assert_eq!(
            parts("a %{request.host} 100%% %{capture.id}%"),
            [
                Part::Text("a ".into()),
                Part::Variable(Variable::Host),
                Part::Text(" 100% ".into()),
                Part::Variable(Variable::Capture("id".into())),
                Part::Text("%".into()),
            ]
        );
        assert_eq!(parts("%%{route}"), [Part::Text("%{route}".into())]);
        assert_eq!(parts(""), []);
    }

    #[test]
    fn a_wrong_variable_has_a_suggestion() {
        assert!(TemplateText::parse("%{request.hots}").unwrap_err().help.contains("request.host"));
        assert!(TemplateText::parse("%{request.header.a b}").is_err());
        assert!(TemplateText::parse("a\nb").is_err());
    }

    #[test]
    fn a_method_in_lower_case_is_another_method() {
        assert!(MethodText::parse("get").unwrap_err().help.contains("`GET`"));
        assert!(MethodText::parse("PURGE").is_ok());
        assert!(MethodText::parse("G T").is_err());
    }
}
