//! Secrets for the application's requests: one header each, and never over a connection that others can read, unless
//! the config says so explicitly.

use std::sync::Arc;

use super::framing::framing;
use crate::{
    diagnostic::{Place, Problems},
    model::{Address, Credential, Secret, Upstream, UpstreamProtocol},
    section::ParsedSection,
    shapes::Spanned,
};

pub(crate) fn credential(
    raw: Spanned<ParsedSection<Credential>>,
    problems: &mut Problems,
) -> Option<Arc<Credential>> {
    let (given, ParsedSection { section: mut credential, rest }) = raw.open();
    credential.secret = match (rest.bearer, rest.basic, rest.header) {
        (Some(bearer), ..) => Secret::Bearer(bearer),
        (_, Some(basic), _) => Secret::Basic(basic),
        (.., header) => {
            let header = header?;
            framing(&header.value.name, header.place("name"), true, problems);
            Secret::Header(header.value)
        }
    };
    if let Some(at) = given.key("insecure_send_in_clear").filter(|_| credential.in_clear) {
        problems.warn(
            at,
            "the secret is also sent without protection: everyone who can read the network traffic can read it",
            "give the upstream TLS that verifies its peer instead",
        );
    }
    Some(Arc::new(credential))
}

/// Whether an upstream protects a secret on the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Confidentiality {
    /// TLS to a peer that is verified.
    Safe,
    /// Anyone on the network path can read the secret, or answer in place of the upstream.
    Clear,
    /// The request itself names the host (`authority`).
    Anywhere,
    /// Opaque bytes have no headers.
    Opaque,
}

impl Confidentiality {
    pub(crate) fn of(upstream: &Upstream) -> Self {
        if upstream.protocol == UpstreamProtocol::Tcp {
            return Self::Opaque;
        }
        match (&upstream.address, &upstream.tls) {
            (Address::Authority { .. } | Address::OriginalDestination, _) => Self::Anywhere,
            (Address::Endpoints(_), Some(tls)) if !tls.insecure || !tls.pins.is_empty() => Self::Safe,
            (Address::Endpoints(_), _) => Self::Clear,
        }
    }

    pub(crate) fn check(self, credential: &Credential, upstream: &str, at: Place, problems: &mut Problems) {
        match self {
            Self::Safe => {}
            Self::Clear if credential.in_clear => {}
            Self::Clear => problems.wrong(
                at,
                format!("the secret would go to `{upstream}` in plaintext, or to a peer that isn't verified"),
                "an `https://` address whose certificate is verified; with `insecure_send_in_clear: true` it is sent anyway",
            ),
            Self::Anywhere => problems.wrong(
                at,
                format!("the request itself chooses the host of `{upstream}`, so any host could get the secret"),
                "make a separate upstream for the host that the secret is for",
            ),
            Self::Opaque => problems.wrong(
                at,
                format!("`{upstream}` takes opaque bytes, which have no headers"),
                "give it an `https://` address",
            ),
        }
    }
}
