//! Texts of access rules: identities and networks.

use super::{AddressRange, HeaderText, SanText, Text, Wrong, wrong};
use crate::model::{AddressMatch, IdentityMatch, TokenPlace};

/// An identity, or `*` for any that was proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IdentityText(pub(crate) IdentityMatch);

impl Text for IdentityText {
    const FORMAT: &'static str = "attache-identity-pattern";
    const WHAT: &'static str = "an identity, or `*` for any that was proven";
    const EXAMPLES: &'static [&'static str] = &["spiffe://cluster.local/ns/shop/**", "*.shop.svc", "*"];

    fn parse(text: &str) -> Result<Self, Wrong> {
        if text == "*" {
            return Ok(Self(IdentityMatch::Verified));
        }
        SanText::parse(text).map(|san| Self(IdentityMatch::Name(san.0)))
    }
}

/// A network or an address, without a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Network(pub(crate) AddressMatch);

impl Text for Network {
    const FORMAT: &'static str = "attache-network";
    const WHAT: &'static str = "a network or an address";
    const EXAMPLES: &'static [&'static str] = &["10.0.0.0/8", "10.1.2.3", "fd00::/8"];

    fn parse(text: &str) -> Result<Self, Wrong> {
        match AddressRange::parse(text)?.0.as_slice() {
            // An IPv4 address that is mapped into IPv6 is compared as IPv4: such a network would match nothing.
            [range] if range.network.to_canonical() != range.network => {
                wrong("{} is IPv4 written as IPv6", "the IPv4 network, such as `10.0.0.0/8`")
            }
            [range] if range.port.is_none() => Ok(Self(*range)),
            _ => wrong("{} has a port", "only the network, such as `10.0.0.0/8`"),
        }
    }
}

/// Where a token stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenFrom(pub(crate) TokenPlace);

impl Text for TokenFrom {
    const FORMAT: &'static str = "attache-token-place";
    const WHAT: &'static str = "where a token stands";
    const EXAMPLES: &'static [&'static str] =
        &["header:authorization", "header:x-jwt", "cookie:session", "query:access_token"];

    fn parse(text: &str) -> Result<Self, Wrong> {
        const HELP: &str = "`header:NAME`, `cookie:NAME` or `query:NAME`";
        let word = |name: &str| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        match text.split_once(':') {
            Some(("header", name)) => {
                let name = HeaderText::parse(name)?.0;
                // Only there a scheme comes first (RFC 6750 section 2.1).
                let prefix = if name == http::header::AUTHORIZATION { "Bearer " } else { "" };
                Ok(Self(TokenPlace::Header(name, prefix.into())))
            }
            Some(("cookie", name)) if word(name) => Ok(Self(TokenPlace::Cookie(name.into()))),
            Some(("query", name)) if word(name) => Ok(Self(TokenPlace::Query(name.into()))),
            _ => wrong("{} isn't a place of a token", HELP),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_no_port_and_no_second_spelling() {
        for right in ["10.0.0.0/8", "10.0.0.7", "fd00::/8", "::1", "0.0.0.0/0"] {
            assert!(Network::parse(right).is_ok(), "{right}");
        }
        for wrong in ["10.0.0.0/8:80", ":80", "10.0.0.1/8", "::ffff:10.0.0.1", "ten", "*"] {
            assert!(Network::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_star_alone_is_any_identity_and_never_a_part_of_one() {
        assert_eq!(IdentityText::parse("*").unwrap().0, IdentityMatch::Verified);
        assert!(IdentityText::parse("spiffe://*/x").is_err());
        assert!(IdentityText::parse("web*").is_err());
    }
}
