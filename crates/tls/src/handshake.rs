//! The properties of a handshake, for metrics: words of closed lists.

use rustls::{CommonState, HandshakeKind, NamedGroup, ProtocolVersion, crypto::SupportedKxGroup};

/// A handshake that succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandshakeInfo {
    /// `1.2` or `1.3`.
    pub version: &'static str,
    /// `resumed` if an earlier session was resumed: then no certificate was sent, and no signature made. Otherwise
    /// `full`.
    pub kind: &'static str,
    /// The group of the key exchange, `X25519MLKEM768` for example; empty if a session of TLS 1.2 was resumed.
    pub key_exchange: &'static str,
}

impl HandshakeInfo {
    /// The properties of a finished handshake.
    pub fn of(session: &CommonState) -> Self {
        Self {
            version: match session.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => "1.3",
                _ => "1.2",
            },
            kind: match session.handshake_kind() {
                Some(HandshakeKind::Resumed) => "resumed",
                _ => "full",
            },
            key_exchange: match session.negotiated_key_exchange_group().map(SupportedKxGroup::name) {
                None => "",
                Some(NamedGroup::X25519MLKEM768) => "X25519MLKEM768",
                Some(NamedGroup::X25519) => "X25519",
                Some(NamedGroup::secp256r1) => "secp256r1",
                Some(NamedGroup::secp384r1) => "secp384r1",
                Some(_) => "other",
            },
        }
    }
}

/// The name of an upstream's verified certificate, for the access log: its first URI or DNS name, else its subject.
pub fn peer_name(session: &CommonState) -> Option<std::sync::Arc<str>> {
    let leaf = crate::Certificate::parse(session.peer_certificates()?.first()?).ok()?;
    Some(leaf.uris.first().or(leaf.dns.first()).cloned().unwrap_or_else(|| leaf.subject.as_str().into()))
}
