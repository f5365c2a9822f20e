//! Texts of access rules: identities and networks.

use super::{NotationError, address, header, pattern, wrong};
use crate::model::{AccessHost, AddressMatch, IdentityMatch, TokenPlace};

pub(super) fn identity(text: &str) -> Result<IdentityMatch, NotationError> {
    if text == "*" {
        return Ok(IdentityMatch::Verified);
    }
    pattern::san(text).map(IdentityMatch::Name)
}

/// A host as routes have it, or an expression for the text of `Host`.
pub(super) fn host(text: &str) -> Result<AccessHost, NotationError> {
    match text.strip_prefix('~') {
        Some(regex) => pattern::anchored(regex).map(|regex| AccessHost::Text(regex.into())),
        None => pattern::host(text).map(AccessHost::Name),
    }
}

pub(super) fn network(text: &str) -> Result<AddressMatch, NotationError> {
    match address::ranges(text)?.as_slice() {
        // An IPv4 address that is mapped into IPv6 is compared as IPv4: such a network would match nothing.
        [range] if range.network.to_canonical() != range.network => {
            wrong("{} is IPv4 written as IPv6", "the IPv4 network, such as `10.0.0.0/8`")
        }
        [range] if range.port.is_none() => Ok(*range),
        _ => wrong("{} has a port", "only the network, such as `10.0.0.0/8`"),
    }
}

pub(super) fn token_place(text: &str) -> Result<TokenPlace, NotationError> {
    const HELP: &str = "`header:NAME`, `cookie:NAME` or `query:NAME`";
    let word = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    match text.split_once(':') {
        Some(("header", name)) => {
            let name = header::name(name)?;
            // Only in this header a scheme stands before the token (RFC 6750 section 2.1).
            let prefix = if name == http::header::AUTHORIZATION { "Bearer " } else { "" };
            Ok(TokenPlace::Header(name, prefix.into()))
        }
        Some(("cookie", name)) if word(name) => Ok(TokenPlace::Cookie(name.into())),
        Some(("query", name)) if word(name) => Ok(TokenPlace::Query(name.into())),
        _ => wrong("{} doesn't say where the token is", HELP),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_no_port_and_no_second_spelling() {
        for right in ["10.0.0.0/8", "10.0.0.7", "fd00::/8", "::1", "0.0.0.0/0"] {
            assert!(network(right).is_ok(), "{right}");
        }
        for wrong in ["10.0.0.0/8:80", ":80", "10.0.0.1/8", "::ffff:10.0.0.1", "ten", "*"] {
            assert!(network(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_star_alone_is_any_identity_and_never_a_part_of_one() {
        assert_eq!(identity("*").unwrap(), IdentityMatch::Verified);
        assert!(identity("spiffe://*/x").is_err());
        assert!(identity("web*").is_err());
    }
}
