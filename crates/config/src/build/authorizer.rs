//! Authorizers and their users: each authorizer must be reachable, and must not admit every client by mistake.

use super::{DeclaredNames, Targets, framing::framing};
use crate::{
    diagnostic::Problems,
    model::{
        Authorizer, AuthorizerBody, AuthorizerFailure, AuthorizerProtocol, AuthorizerUse, AuthorizerWord,
        External, ExternalForm, HeaderMatch, Name,
    },
    section::ParsedSection,
    shapes::{NamedEntry, OneOrMany, Spanned},
};

pub(crate) fn authorizer(
    entry: NamedEntry<Spanned<ParsedSection<Authorizer>>>,
    targets: &mut Targets,
    problems: &mut Problems,
) -> Option<Authorizer> {
    let (given, ParsedSection { section: mut authorizer, rest }) = entry.value.open();
    let (service, at) = rest.service.map(|service| (service.value.0, service.at))?;
    let service = targets.find(&service, at, problems);
    if let Some(id) = service {
        if targets.is_opaque(id) {
            problems.wrong(at, "the service takes opaque bytes", "it speaks HTTP: `h2c://` or `https://`");
        } else if targets.is_on_demand(id) {
            problems.wrong(
                at,
                "the service has no fixed address",
                "an upstream with an address, such as `h2c://opa:9191`",
            );
        }
    }
    let http = rest.protocol == Some(AuthorizerWord::Http);
    if let Some(at) = given.key("path_prefix").filter(|_| !http) {
        problems.wrong(at, "`path_prefix` without `protocol: http`", "gRPC has its own path");
    }
    let prefix = rest.path_prefix.map_or_else(|| Name::from(""), |prefix| prefix.0);
    let path_prefix: Name = prefix.trim_end_matches('/').into();
    if path_prefix.contains(['?', '#', '{']) {
        problems.wrong(entry.at, "`path_prefix` is more than a path", "such as `/check`");
    }
    if http {
        authorizer.protocol = AuthorizerProtocol::Http { path_prefix };
    }
    for name in rest.upstream_headers.map(OneOrMany::into_vec).unwrap_or_default() {
        framing(&name.value.0, name.at, true, problems);
        authorizer.upstream_headers.push(name.value.0);
    }
    let all = HeaderMatch::Prefix("".into());
    if given.key("request_headers").is_none() {
        let told = if http { HeaderMatch::Exact(http::header::AUTHORIZATION) } else { all.clone() };
        authorizer.request_headers = vec![told];
    }
    if given.key("response_headers").is_none() && !http {
        authorizer.response_headers = vec![all];
    }
    if let Some(body) = rest.body {
        check_body(&body, authorizer.failure_mode, problems);
        authorizer.body = Some(body.value);
    }
    (authorizer.name, authorizer.service) = (entry.key.into(), service?);
    Some(authorizer)
}

fn check_body(body: &Spanned<AuthorizerBody>, failure: AuthorizerFailure, problems: &mut Problems) {
    let AuthorizerBody { max, partial } = body.value;
    let at = body.place("max");
    if max == 0 || max > AuthorizerBody::MAX_BODY_BYTES {
        problems.wrong(at, "`max` of the body is out of range", "from 1 B to 1 MiB");
    }
    if partial && failure == AuthorizerFailure::Open {
        problems.warn(
            at,
            "with `partial`, a client can hide the end of a longer body from the service, and `failure_mode` is `open`",
            "`partial: false`, or `failure_mode: closed`",
        );
    }
}

/// `over`: whether the listener of this route asks an authorizer; `None` if these are the listener's own rules.
pub(crate) fn used(
    raw: Spanned<ExternalForm>,
    over: Option<bool>,
    known: &DeclaredNames,
    problems: &mut Problems,
) -> Option<AuthorizerUse> {
    let Spanned { at, value, .. } = raw;
    match value {
        ExternalForm::Off(_) => {
            if over != Some(true) {
                problems.wrong(
                    at,
                    "there is no authorizer here that could be turned off",
                    "remove `external`",
                );
            }
            Some(AuthorizerUse::Off)
        }
        ExternalForm::Name(name) => {
            let authorizer = known.find("", &name.0, at, problems)?;
            Some(AuthorizerUse::Ask { authorizer, context: Vec::new(), body: true })
        }
        ExternalForm::Full(ParsedSection { section: External { context, body }, rest }) => {
            let name = rest.authorizer?;
            let authorizer = known.find("", &name.value.0, name.at, problems)?;
            Some(AuthorizerUse::Ask { authorizer, context, body })
        }
    }
}
