//! Secrets for the application's requests: one header each, and never where anyone could read it, unless that is said loudly.

use std::sync::Arc;

use super::framing::framing;
use crate::{
    diagnostic::{Place, Problems},
    model::{Address, Credential, Secret, Upstream, UpstreamProtocol},
    raw::{self, At},
};

pub(crate) fn credential(raw: At<raw::Credential>, problems: &mut Problems) -> Option<Arc<Credential>> {
    let whole = raw.whole();
    let At { at, value: raw, .. } = raw;
    let given = usize::from(raw.bearer.is_some())
        + usize::from(raw.basic.is_some())
        + usize::from(raw.header.is_some());
    let secret = match (raw.bearer, raw.basic, raw.header) {
        (Some(bearer), None, None) => Secret::Bearer(bearer.value.file.0.0),
        (None, Some(basic), None) => {
            Secret::Basic { user: basic.value.user.0.0, password: basic.value.password_file.0.0 }
        }
        (None, None, Some(header)) => {
            let name = header.value.name.value.0.0;
            framing(&name, header.value.name.at, true, problems);
            Secret::Header { name, value: header.value.file.0.0 }
        }
        _ => {
            if given > 1 || whole {
                let what =
                    if given == 0 { "this credential has no secret" } else { "a credential is one header" };
                let help = "exactly one of `bearer: { file: … }`, `basic: { user: …, password_file: … }` and `header: { name: …, file: … }`";
                problems.wrong(at, what, help);
            }
            return None;
        }
    };
    let in_clear = raw.insecure_send_in_clear.as_ref().is_some_and(|clear| clear.value);
    if let Some(At { at, value: true, .. }) = raw.insecure_send_in_clear {
        problems.warn(
            at,
            "the secret is sent also where it isn't protected: whoever reads the network has it",
            "give the upstream TLS that verifies its peer instead",
        );
    }
    Some(Arc::new(Credential {
        secret,
        existing: raw.existing.unwrap_or_default(),
        may_come_late: raw.may_come_late.unwrap_or(false),
        health_checks: raw.health_checks.unwrap_or(false),
        in_clear,
    }))
}

/// How far an upstream keeps a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeping {
    /// TLS to a peer that is verified.
    Safe,
    /// Anybody on the way can read it, or answer.
    Clear,
    /// Requests say where they go.
    Anywhere,
    /// There are no headers.
    Opaque,
}

impl Keeping {
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
                "an `https://` address whose certificate is verified; `insecure_send_in_clear: true` sends it all the same",
            ),
            Self::Anywhere => problems.wrong(
                at,
                format!("requests themselves say where `{upstream}` is: any host could be given the secret"),
                "make the host that the secret is for an upstream of its own",
            ),
            Self::Opaque => problems.wrong(
                at,
                format!("`{upstream}` takes opaque bytes, which have no headers"),
                "give it an `https://` address",
            ),
        }
    }
}
