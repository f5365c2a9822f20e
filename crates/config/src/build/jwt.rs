//! Issuers of tokens, and the rules that use them.

use std::time::Duration;

use super::{DeclaredNames, Targets, framing::framing};
use crate::{
    diagnostic::Problems,
    model::{JwtKeys, JwtProvider, JwtUse, KeySource, RemoteKeys},
    section::ParsedSection,
    shapes::{NamedEntry, Spanned, Text},
    text::Label,
};

/// The largest `clock_skew`: a clock that differs by more is wrong.
const MAX_CLOCK_SKEW: Duration = Duration::from_hours(1);

pub(crate) fn provider(
    entry: NamedEntry<ParsedSection<JwtProvider>>,
    targets: &mut Targets,
    problems: &mut Problems,
) -> Option<JwtProvider> {
    let ParsedSection { section: mut provider, rest } = entry.value;
    if provider.audiences.is_empty() {
        problems.warn(
            entry.at,
            "tokens of this issuer are accepted for any audience",
            "`audiences: shop`: what `aud` must be",
        );
    }
    if provider.clock_skew > MAX_CLOCK_SKEW {
        let help = "a few minutes at most: longer values accept expired tokens";
        problems.wrong(entry.at, "`clock_skew` is longer than an hour", help);
    }
    for entry in rest.claim_headers.map(|map| map.entries).unwrap_or_default() {
        let Ok(name) = http::HeaderName::from_bytes(entry.key.as_bytes()) else { continue };
        framing(&name, entry.at, true, problems);
        provider.claim_headers.push((name, entry.value.0));
    }
    provider.keys = keys(rest.keys?.value, targets, problems)?;
    provider.name = entry.key.into();
    Some(provider)
}

fn keys(
    ParsedSection { section: source, rest }: ParsedSection<KeySource>,
    targets: &mut Targets,
    problems: &mut Problems,
) -> Option<JwtKeys> {
    if let Some(upstream) = rest.remote.upstream {
        let id = targets.find(&upstream.value.0, upstream.at, problems)?;
        if targets.is_opaque(id) {
            problems.wrong(upstream.at, "the upstream takes opaque bytes", "an `http` or `https` address");
        }
        return Some(JwtKeys::Remote(RemoteKeys { upstream: id, ..source.remote }));
    }
    source.inline.map(JwtKeys::Inline).or(source.file.map(JwtKeys::File))
}

pub(crate) fn used(
    raw: ParsedSection<JwtUse>,
    known: &DeclaredNames,
    problems: &mut Problems,
) -> Option<JwtUse> {
    let ParsedSection { section: mut used, rest } = raw;
    let issuers = rest.issuers?.into_vec();
    let mut find = |name: Spanned<Text<Label>>| known.find("issuer ", &name.value.0, name.at, problems);
    let found: Vec<Option<usize>> = issuers.into_iter().map(&mut find).collect();
    used.providers = found.into_iter().collect::<Option<_>>()?;
    Some(used)
}
