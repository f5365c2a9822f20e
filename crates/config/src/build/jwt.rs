//! Issuers of tokens, and the rules that use them.

use std::time::Duration;

use super::{Names, Targets, framing::framing};
use crate::{
    diagnostic::Problems,
    model::{JwtKeys, JwtProvider, JwtUse, KeySource},
    section::Read,
    shapes::{At, Entry, Txt},
    text::Label,
};

/// Clocks that differ by more are wrong.
const MOST_SKEW: Duration = Duration::from_hours(1);

pub(crate) fn provider(
    entry: Entry<Read<JwtProvider>>,
    targets: &mut Targets,
    problems: &mut Problems,
) -> Option<JwtProvider> {
    let Read { section: mut provider, rest } = entry.value;
    if provider.audiences.is_empty() {
        problems.warn(
            entry.at,
            "tokens of this issuer are accepted for any audience",
            "`audiences: shop`: what `aud` must be",
        );
    }
    if provider.clock_skew > MOST_SKEW {
        let help = "a few minutes at most: longer values accept expired tokens";
        problems.wrong(entry.at, "`clock_skew` is longer than an hour", help);
    }
    for entry in rest.claim_headers.map(|map| map.entries).unwrap_or_default() {
        let Ok(name) = http::HeaderName::from_bytes(entry.key.as_bytes()) else { continue };
        framing(&name, entry.at, true, problems);
        provider.claim_headers.push((name, entry.value.0));
    }
    provider.keys = keys(rest.keys?, targets, problems)?;
    provider.name = entry.key.into();
    Some(provider)
}

fn keys(raw: At<Read<KeySource>>, targets: &mut Targets, problems: &mut Problems) -> Option<JwtKeys> {
    let (given, Read { section: source, rest }) = raw.open();
    let (mut remote, upstream) = (source.remote, rest.remote.upstream);
    if let Some(at) = given.key("path").filter(|_| upstream.is_none()) {
        problems.wrong(at, "`path` without `upstream`", "name the upstream that is asked");
    }
    match (source.inline, source.file, upstream) {
        (Some(text), None, None) => Some(JwtKeys::Inline(text)),
        (None, Some(file), None) => Some(JwtKeys::File(file)),
        (None, None, Some(upstream)) => {
            let id = targets.find(&upstream.value.0, upstream.at, problems);
            if id.is_some_and(|id| targets.is_opaque(id)) {
                let help = "an `http` or `https` address";
                problems.wrong(upstream.at, "the upstream takes opaque bytes", help);
            }
            if given.key("path").is_none() {
                let help = "such as `path: /.well-known/jwks.json`";
                problems.wrong(given.at, "`upstream` without `path`", help);
                return None;
            }
            remote.upstream = id?;
            Some(JwtKeys::Remote(remote))
        }
        (None, None, None) if !given.whole() => None,
        _ => {
            let help = "one of `inline`, `file` and `upstream`";
            problems.wrong(given.at, "the keys must come from exactly one source", help);
            None
        }
    }
}

pub(crate) fn used(raw: Read<JwtUse>, known: &Names, problems: &mut Problems) -> Option<JwtUse> {
    let Read { section: mut used, rest } = raw;
    let issuers = rest.issuers?.into_vec();
    let mut find = |name: At<Txt<Label>>| known.find("issuer ", &name.value.0, name.at, problems);
    let found: Vec<Option<usize>> = issuers.into_iter().map(&mut find).collect();
    used.providers = found.into_iter().collect::<Option<_>>()?;
    Some(used)
}
