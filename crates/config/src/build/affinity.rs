//! A route's choice of its upstream and endpoint: by a header, by labels, by a session cookie.

use std::sync::Arc;

use http::HeaderName;

use super::{Problems, Targets, framing::is_framing};
use crate::{
    diagnostic::Place,
    model::{Destination, Name, SessionCookie, Subset, UpstreamHeader},
    shapes::Spanned,
};

/// The header that names the upstream. Only HTTP upstreams can be named, and only those with an address in the config.
pub(super) fn upstream_header(
    header: HeaderName,
    at: Place,
    to: &[Destination],
    targets: &Targets,
    problems: &mut Problems,
) -> UpstreamHeader {
    let name = |to: &Destination| Name::from(targets.name(to.upstream));
    if is_framing(header.as_str()) || header == http::header::HOST {
        let message = format!("`{header}` can't name an upstream: attache sets it for each connection");
        problems.wrong(at, message, "take a header of your own, `x-upstream` for example");
    }
    for to in to {
        let why = if targets.is_opaque(to.upstream) {
            "takes opaque bytes, which have no header"
        } else if targets.is_on_demand(to.upstream) {
            "goes to the host that a request names"
        } else {
            continue;
        };
        problems.wrong(
            at,
            format!("a header can't name `{}`: it {why}", name(to)),
            "give it a separate route",
        );
    }
    UpstreamHeader { header, names: to.iter().map(name).collect() }
}

/// Reports labels that no address of the upstream has. An upstream whose hosts the requests name has no known labels.
pub(super) fn subset(
    raw: Spanned<Subset>,
    to: &[Destination],
    targets: &Targets,
    problems: &mut Problems,
) -> Arc<Subset> {
    let (given, subset) = raw.open();
    if subset.labels.is_empty() {
        let help = "name one: `{ labels: { version: v2 } }`";
        problems.wrong(given.at, "`subset` without labels selects every endpoint", help);
    }
    for to in to {
        if !targets.labels(to.upstream).iter().any(|labels| subset.holds(labels)) {
            let message = format!("no address of `{}` has these labels", targets.name(to.upstream));
            let help = if targets.is_kubernetes(to.upstream) {
                "labels of pods are not known here: make a Service for each version, and give its address the labels: \
                 `address: [ { address: \"kubernetes://a-v2.shop:http\", labels: { version: v2 } } ]`"
            } else {
                "`address: [ { address: http://a, labels: { version: v2 } } ]`"
            };
            problems.wrong(given.at, message, help);
        }
    }
    Arc::new(subset)
}

pub(super) fn session_cookie(
    raw: Spanned<SessionCookie>,
    to: &[Destination],
    targets: &Targets,
    problems: &mut Problems,
) -> Arc<SessionCookie> {
    let (given, cookie) = raw.open();
    for to in to.iter().filter(|to| targets.is_on_demand(to.upstream)) {
        let name = targets.name(to.upstream);
        let message = format!(
            "`{name}` goes to the host that a request names, so a session can't stay at one endpoint"
        );
        problems.wrong(given.at, message, "name the upstream's addresses");
    }
    if cookie.key.is_empty() && given.whole() {
        problems.warn(
            given.at,
            "this session cookie has no `key`: its sessions end with the process, and other processes can't read them",
            "`key: !file FILE`, the same for all of them; `openssl rand -base64 32 > FILE` makes one",
        );
    }
    // A cookie's name is a token (RFC 9110 section 5.6.2) like a header's name, but its case counts.
    if HeaderName::from_bytes(cookie.name.as_bytes()).is_err() {
        problems.wrong(given.place("name"), "this can't be a cookie's name", "letters, digits, `-` and `_`");
    }
    if cookie.path.contains([';', '{', '}']) {
        let help = "a path without `;` and captures, such as `/shop`";
        problems.wrong(given.place("path"), "this can't be a cookie's path", help);
    }
    Arc::new(cookie)
}
