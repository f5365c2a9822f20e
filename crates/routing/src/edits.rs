//! Header changes with variables.
//!
//! Rule: removals, then sets, then additions. For both directions, values come from the request as the route saw it,
//! before any rewrite, so that a response can contain values of the request. No value can begin a new line: control
//! characters from a peer are left out. An empty value is not written, and a `set` then removes the header, so that a
//! client's own value never stays in its place.

use std::fmt::Write;

use attache_config::model::{self, TemplatePart, Variable};
use attache_http::{Client, REQUEST_ID, remove_underscored};
use attache_wire::{Fields, RequestHead, ValueRef};
use http::{HeaderName, HeaderValue};

use crate::{Captures, rewrite::CaptureNames};

/// What the variables of a template can name, beside the request itself.
#[derive(Clone, Copy, Debug)]
pub struct TemplateContext<'a> {
    /// The client of the request.
    pub client: &'a Client,
    /// The captures of the route's pattern.
    pub captures: &'a Captures,
    /// Name of the chosen upstream; empty if attache answers by itself.
    pub upstream: &'a str,
    /// The Host (`host[:port]`) that the request is given ([`CompiledRoute::host`](crate::CompiledRoute::host)); `None` keeps its own.
    pub host: Option<&'a str>,
}

/// Header changes of a route, in one direction.
#[derive(Debug)]
pub(crate) struct CompiledEdits {
    remove: Vec<HeaderName>,
    set: Vec<(HeaderName, Vec<EditPiece>)>,
    add: Vec<(HeaderName, Vec<EditPiece>)>,
}

#[derive(Debug)]
enum EditPiece {
    Text(Box<str>),
    Capture(usize),
    Variable(Variable),
}

/// Header changes with their values, ready to be made.
#[derive(Debug, Default)]
#[must_use = "the changes are made by `apply`"]
pub struct ReadyEdits(Vec<(HeaderName, FieldRewrite)>);

#[derive(Debug)]
enum FieldRewrite {
    Remove,
    Set(HeaderValue),
    Add(HeaderValue),
}

impl ReadyEdits {
    /// Makes the changes to a request. A header that they remove or set is also removed in its spelling with
    /// underscores for hyphens, because many applications don't distinguish the two.
    pub fn apply_to_request(self, headers: &mut Fields) {
        if !self.0.is_empty() {
            remove_underscored(headers, |name| self.0.iter().any(|(changed, _)| changed.as_str() == name));
        }
        self.apply(headers);
    }

    /// Makes the changes.
    pub fn apply(self, headers: &mut Fields) {
        for (name, change) in self.0 {
            match change {
                FieldRewrite::Remove => _ = headers.remove(name),
                FieldRewrite::Set(value) => headers.insert(name, value),
                FieldRewrite::Add(value) => headers.append(name, value),
            }
        }
    }

    /// The changes in words, for `explain`.
    pub(crate) fn describe(&self) -> Vec<String> {
        let line = |(name, change): &(HeaderName, FieldRewrite)| match change {
            FieldRewrite::Remove => format!("remove {name}"),
            FieldRewrite::Set(value) => format!("set {name}: {}", value.as_bytes().escape_ascii()),
            FieldRewrite::Add(value) => format!("add {name}: {}", value.as_bytes().escape_ascii()),
        };
        self.0.iter().map(line).collect()
    }

    /// True if there is nothing to change.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl CompiledEdits {
    pub(crate) fn new(
        edits: &model::HeaderEdits,
        names: &CaptureNames<'_>,
        route: &str,
        listener: &str,
    ) -> Self {
        let compile = |list: &[(HeaderName, model::Template)]| {
            list.iter()
                .map(|(name, template)| (name.clone(), pieces(template, names, route, listener)))
                .collect()
        };
        Self { remove: edits.remove.clone(), set: compile(&edits.set), add: compile(&edits.add) }
    }

    pub(crate) fn uses_captures(&self) -> bool {
        let uses = |list: &[(HeaderName, Vec<EditPiece>)]| {
            list.iter().any(|(_, pieces)| pieces.iter().any(|piece| matches!(piece, EditPiece::Capture(_))))
        };
        uses(&self.set) || uses(&self.add)
    }

    /// The changes with the values of this request. Without changes it costs nothing; each value is one allocation,
    /// which becomes the header's storage.
    pub(crate) fn ready(&self, request: &RequestHead, ctx: &TemplateContext<'_>) -> ReadyEdits {
        let mut ready = ReadyEdits::default();
        ready.0.extend(self.remove.iter().map(|name| (name.clone(), FieldRewrite::Remove)));
        for (name, pieces) in &self.set {
            let change = render(pieces, request, ctx).map_or(FieldRewrite::Remove, FieldRewrite::Set);
            ready.0.push((name.clone(), change));
        }
        for (name, pieces) in &self.add {
            if let Some(value) = render(pieces, request, ctx) {
                ready.0.push((name.clone(), FieldRewrite::Add(value)));
            }
        }
        ready
    }
}

/// Values that are known when the route is compiled become text now.
fn pieces(
    template: &model::Template,
    names: &CaptureNames<'_>,
    route: &str,
    listener: &str,
) -> Vec<EditPiece> {
    template
        .0
        .iter()
        .filter_map(|part| match part {
            TemplatePart::Text(text) => Some(EditPiece::Text((&**text).into())),
            TemplatePart::Variable(Variable::Route) => Some(EditPiece::Text(route.into())),
            TemplatePart::Variable(Variable::Listener) => Some(EditPiece::Text(listener.into())),
            // A capture that the pattern doesn't have is the empty text.
            TemplatePart::Variable(Variable::Capture(name)) => names.index(name).map(EditPiece::Capture),
            TemplatePart::Variable(variable) => Some(EditPiece::Variable(variable.clone())),
        })
        .collect()
}

fn render(pieces: &[EditPiece], request: &RequestHead, ctx: &TemplateContext<'_>) -> Option<HeaderValue> {
    let mut value = Vec::new();
    for piece in pieces {
        match piece {
            EditPiece::Text(text) => push_clean(&mut value, text.as_bytes()),
            EditPiece::Capture(index) => push_clean(&mut value, ctx.captures.at(*index).as_bytes()),
            EditPiece::Variable(variable) => push_variable(&mut value, variable, request, ctx),
        }
    }
    let value = value.trim_ascii();
    if value.is_empty() { None } else { HeaderValue::from_bytes(value).ok() }
}

fn push_variable<'a>(
    value: &mut Vec<u8>,
    variable: &Variable,
    request: &'a RequestHead,
    ctx: &TemplateContext<'_>,
) {
    let header = |value: Option<ValueRef<'a>>| value.map_or(&b""[..], ValueRef::as_bytes);
    let mut number = String::new();
    let bytes = match variable {
        Variable::ClientAddress => {
            if let Some(address) = ctx.client.address {
                // Writing to a String can't fail.
                let _ = write!(number, "{}", address.ip().to_canonical());
            }
            number.as_bytes()
        }
        Variable::ClientPort => {
            if let Some(address) = ctx.client.address {
                let _ = write!(number, "{}", address.port());
            }
            number.as_bytes()
        }
        Variable::ClientIdentity => {
            ctx.client.identities().first().map_or(&b""[..], |identity| identity.as_bytes())
        }
        Variable::Host => request.uri.authority().map_or(&b""[..], |authority| authority.as_str().as_bytes()),
        Variable::Path => request.uri.path().as_bytes(),
        Variable::Method => request.method.as_str().as_bytes(),
        Variable::RequestId => header(request.headers.get(REQUEST_ID)),
        Variable::Scheme => request.uri.scheme_str().unwrap_or_default().as_bytes(),
        Variable::Header(name) => header(request.headers.get(name)),
        Variable::Upstream => ctx.upstream.as_bytes(),
        // These variables were replaced when the route was compiled.
        Variable::Capture(_) | Variable::Route | Variable::Listener => b"",
    };
    push_clean(value, bytes);
}

/// Adds only those bytes that a header value may contain.
fn push_clean(value: &mut Vec<u8>, bytes: &[u8]) {
    value.extend(bytes.iter().filter(|byte| !byte.is_ascii_control() || **byte == b'\t'));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_that_a_route_changes_is_removed_in_its_spelling_with_underscores() {
        let mut headers = Fields::new();
        for name in ["x_user", "x-user", "x_other"] {
            headers.append(name, HeaderValue::from_static("client"));
        }
        let set = FieldRewrite::Set(HeaderValue::from_static("route"));
        ReadyEdits(vec![(HeaderName::from_static("x-user"), set)]).apply_to_request(&mut headers);
        let left: Vec<_> = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        assert_eq!(left, [(&b"x-user"[..], &b"route"[..]), (b"x_other", b"client")]);
    }
}
