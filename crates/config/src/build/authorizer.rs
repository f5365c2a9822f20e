//! Authorizers, and who asks them: each can be asked, and nothing could only let everybody in.

use super::{Targets, framing::framing};
use crate::{
    diagnostic::{Place, Problems},
    model::{
        Authorizer, AuthorizerBody, AuthorizerFailure, AuthorizerProtocol, AuthorizerUse, HeaderMatch, Name,
    },
    raw::{self, At, ExternalForm, OneOrMany, Txt},
    suggest,
    text::HeaderMatchText,
};

pub(crate) fn authorizer(
    entry: raw::Entry<raw::Authorizer>,
    targets: &mut Targets,
    problems: &mut Problems,
) -> Option<Authorizer> {
    let raw = entry.value;
    let service = targets.find(&raw.service.value.0.0, raw.service.at, problems);
    if let Some(id) = service {
        if targets.is_opaque(id) {
            problems.wrong(
                raw.service.at,
                "the service takes opaque bytes",
                "it speaks HTTP: `h2c://` or `https://`",
            );
        } else if targets.is_on_demand(id) {
            problems.wrong(
                raw.service.at,
                "the service has no address of its own",
                "an upstream with an address, such as `h2c://opa:9191`",
            );
        }
    }
    let http = raw.protocol == Some(raw::AuthorizerProtocol::Http);
    if let Some(prefix) = raw.path_prefix.as_ref().filter(|_| !http) {
        problems.wrong(prefix.at, "`path_prefix` without `protocol: http`", "gRPC has a path of its own");
    }
    let prefix = raw.path_prefix.map_or_else(|| Name::from(""), |prefix| prefix.value.0.0);
    let prefix: Name = prefix.trim_end_matches('/').into();
    if prefix.contains(['?', '#', '{']) {
        problems.wrong(entry.at, "`path_prefix` is more than a path", "such as `/check`");
    }
    let upstream_headers = raw.upstream_headers.map(OneOrMany::into_vec).unwrap_or_default();
    let upstream_headers = upstream_headers.into_iter().map(|name| {
        framing(&name.value.0.0, name.at, true, problems);
        name.value.0.0
    });
    let all = || vec![HeaderMatch::Prefix("".into())];
    let matches = |given: Option<OneOrMany<Txt<HeaderMatchText>>>| {
        given.map(|given| given.into_vec().into_iter().map(|name| name.0.0).collect::<Vec<_>>())
    };
    let added = || if http { Vec::new() } else { all() };
    let told = || if http { vec![HeaderMatch::Exact(http::header::AUTHORIZATION)] } else { all() };
    Some(Authorizer {
        name: entry.key.into(),
        protocol: if http {
            AuthorizerProtocol::Http { path_prefix: prefix }
        } else {
            AuthorizerProtocol::Grpc
        },
        timeout: raw.timeout.map_or(Authorizer::TIMEOUT, |timeout| timeout.0.0),
        failure_mode: raw.failure_mode.unwrap_or_default(),
        upstream_headers: upstream_headers.collect(),
        request_headers: matches(raw.request_headers).unwrap_or_else(told),
        denial_headers: matches(raw.denial_headers).unwrap_or_else(all),
        response_headers: matches(raw.response_headers).unwrap_or_else(added),
        body: raw.body.map(|body| self::body(body.value, raw.failure_mode, problems)),
        service: service?,
    })
}

fn body(
    raw: raw::AuthorizerBody,
    failure: Option<AuthorizerFailure>,
    problems: &mut Problems,
) -> AuthorizerBody {
    let max = raw.max.value.0.0;
    if max == 0 || max > AuthorizerBody::LARGEST {
        problems.wrong(raw.max.at, "each request that waits may hold so much", "from 1 B to 1 MiB");
    }
    let partial = raw.partial.unwrap_or(false);
    if partial && failure == Some(AuthorizerFailure::Open) {
        problems.warn(
            raw.max.at,
            "a client chooses what the service sees of a longer body, and `failure_mode` is `open`",
            "`partial: false`, or `failure_mode: closed`",
        );
    }
    AuthorizerBody { max, partial }
}

/// `over` tells whether the listener around asks one.
pub(crate) fn used(
    raw: At<ExternalForm>,
    over: Option<bool>,
    known: &[(String, Option<usize>)],
    problems: &mut Problems,
) -> Option<AuthorizerUse> {
    let At { at, value, .. } = raw;
    match value {
        ExternalForm::Off(_) => {
            if over != Some(true) {
                problems.wrong(at, "there is no authorizer to turn off here", "remove `external`");
            }
            Some(AuthorizerUse::Off)
        }
        ExternalForm::Name(name) => {
            let authorizer = find(&name.0.0, at, known, problems)?;
            Some(AuthorizerUse::Ask { authorizer, context: Vec::new(), body: true })
        }
        ExternalForm::Full(full) => {
            let authorizer = find(&full.authorizer.value.0.0, full.authorizer.at, known, problems)?;
            let context = full.context.map(|context| context.value.entries).unwrap_or_default();
            let context = context.into_iter().map(|entry| (entry.key.into(), entry.value.0.0));
            let body = full.body.unwrap_or(true);
            Some(AuthorizerUse::Ask { authorizer, context: context.collect(), body })
        }
    }
}

/// `known` are the authorizers of the file by name, with the index of those that are right.
fn find(name: &str, at: Place, known: &[(String, Option<usize>)], problems: &mut Problems) -> Option<usize> {
    if let Some((_, index)) = known.iter().find(|(known, _)| known == name) {
        // What is wrong with it has been said.
        return *index;
    }
    let names = || known.iter().map(|(name, _)| name.as_str());
    let help = match suggest::nearest(name, names()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => format!("add it: `authorizers: {{ {name}: … }}` beside `listeners`"),
        None => format!("there are {}", suggest::list(names(), "and")),
    };
    problems.wrong(at, format!("`authorizers` has no `{name}`"), help);
    None
}
