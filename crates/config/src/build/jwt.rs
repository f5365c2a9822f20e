//! Issuers of tokens, and who asks for them.

use super::{Targets, framing::framing};
use crate::{
    diagnostic::Problems,
    model::{JwtKeys, JwtProvider, JwtUse, TokenPlace},
    raw::{self, At, OneOrMany},
    suggest,
};

pub(crate) fn provider(
    entry: raw::Entry<raw::JwtProvider>,
    targets: &mut Targets,
    problems: &mut Problems,
) -> Option<JwtProvider> {
    let raw = entry.value;
    let words = |list: Option<OneOrMany<raw::Txt<crate::text::Word>>>| {
        list.map(OneOrMany::into_vec).unwrap_or_default().into_iter().map(|word| word.0.0).collect()
    };
    let audiences: Vec<_> = words(raw.audiences);
    if audiences.is_empty() {
        problems.warn(
            entry.at,
            "tokens of this issuer are believed whomever they are for",
            "`audiences: shop`: what `aud` must be",
        );
    }
    let from: Vec<_> = raw.from.map(OneOrMany::into_vec).unwrap_or_default();
    let mut from: Vec<TokenPlace> = from.into_iter().map(|place| place.0.0).collect();
    if from.is_empty() {
        from.push(TokenPlace::Header(http::header::AUTHORIZATION, "Bearer ".into()));
    }
    let headers = raw.claim_headers.map(|headers| headers.value.entries).unwrap_or_default();
    let claim_headers = headers.into_iter().filter_map(|entry| {
        let name = http::HeaderName::from_bytes(entry.key.as_bytes()).ok()?;
        framing(&name, entry.at, true, problems);
        Some((name, entry.value.0.0))
    });
    Some(JwtProvider {
        claim_headers: claim_headers.collect(),
        name: entry.key.into(),
        issuer: raw.issuer.0.0,
        audiences,
        keys: keys(raw.keys, targets, problems)?,
        clock_skew: raw.clock_skew.map_or(JwtProvider::CLOCK_SKEW, |skew| skew.0.0),
        from,
        forward: raw.forward.unwrap_or(false),
    })
}

fn keys(raw: At<raw::JwtKeys>, targets: &mut Targets, problems: &mut Problems) -> Option<JwtKeys> {
    let whole = raw.whole();
    let At { at, value: raw, .. } = raw;
    let upstream = raw.upstream.as_ref();
    for (key, at) in [("path", raw.path.as_ref().map(|path| path.at))] {
        if let Some(at) = at.filter(|_| upstream.is_none()) {
            problems.wrong(at, format!("`{key}` without `upstream`"), "name the upstream that is asked");
        }
    }
    match (raw.inline, raw.file, raw.upstream) {
        (Some(text), None, None) => Some(JwtKeys::Inline(text.0.0)),
        (None, Some(file), None) => Some(JwtKeys::File(file.0.0)),
        (None, None, Some(upstream)) => {
            let id = targets.find(&upstream.value.0.0, upstream.at, problems);
            if id.is_some_and(|id| targets.is_opaque(id)) {
                problems.wrong(
                    upstream.at,
                    "the upstream takes opaque bytes",
                    "an `http` or `https` address",
                );
            }
            let Some(path) = raw.path else {
                problems.wrong(at, "`upstream` without `path`", "such as `path: /.well-known/jwks.json`");
                return None;
            };
            Some(JwtKeys::Remote {
                upstream: id?,
                path: path.value.0.0,
                refresh: raw.refresh.map_or(JwtKeys::REFRESH, |refresh| refresh.0.0),
                timeout: raw.timeout.map_or(JwtKeys::TIMEOUT, |timeout| timeout.0.0),
            })
        }
        (None, None, None) if !whole => None,
        _ => {
            problems.wrong(at, "the keys are in exactly one place", "one of `inline`, `file` and `upstream`");
            None
        }
    }
}

/// `known` are the providers of the file by name, with the index of those that are right.
pub(crate) fn used(
    raw: raw::JwtUse,
    known: &[(String, Option<usize>)],
    problems: &mut Problems,
) -> Option<JwtUse> {
    let mut providers = Vec::new();
    let mut whole = true;
    for issuer in raw.issuers.value.into_vec() {
        let name = &issuer.value.0.0;
        match known.iter().find(|(known, _)| **known == **name) {
            Some((_, Some(index))) => providers.push(*index),
            // What is wrong with it has been said.
            Some((_, None)) => whole = false,
            None => {
                whole = false;
                let names = || known.iter().map(|(name, _)| name.as_str());
                let help = match suggest::nearest(name, names()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None if known.is_empty() => format!("add it: `jwt: {{ {name}: … }}` beside `listeners`"),
                    None => format!("there are {}", suggest::list(names(), "and")),
                };
                problems.wrong(issuer.at, format!("`jwt` has no issuer `{name}`"), help);
            }
        }
    }
    whole.then(|| JwtUse { providers, required: raw.required.unwrap_or(true) })
}
