//! Which clients are allowed: `deny` is checked first; then an empty `allow` admits every verified client, and one that
//! is not empty only those whose name it has. [`SanPattern`] defines the meaning of a pattern.

use attache_config::model::SanPattern;

use crate::Certificate;

/// Why the client is refused; `None` if it is allowed.
pub(crate) fn refusal(
    client: Option<&Certificate>,
    allow: &[SanPattern],
    deny: &[SanPattern],
) -> Option<String> {
    let Some(client) = client else {
        return (!allow.is_empty())
            .then(|| "the client showed no certificate, and only the names in `tls.allow` may talk".into());
    };
    if let Some(pattern) = deny.iter().find(|pattern| pattern.matches(client.names())) {
        return Some(format!("client {:?} is refused by `tls.deny`: {pattern}", client.name()));
    }
    if allow.is_empty() || any(allow, client) {
        return None;
    }
    Some(format!("client {:?} is not in `tls.allow`", client.name()))
}

/// True if one of the patterns matches a name of the certificate.
pub(crate) fn any(patterns: &[SanPattern], certificate: &Certificate) -> bool {
    patterns.iter().any(|pattern| pattern.matches(certificate.names()))
}
