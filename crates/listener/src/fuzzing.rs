//! What `tests/fuzz` needs beside the public interface: the detection of a connection's first bytes.

use crate::{
    detect::{self, DetectionResult},
    transport::{ClientHello, Protocol},
};

/// The kinds of detection that listeners use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detection {
    /// `protocol: auto` with opaque routes.
    Auto,
    /// As `Auto`, if HTTP reaches the same routes.
    AutoOrHttp,
    /// `protocol: http`.
    Http,
    /// `protocol: auto` without opaque routes.
    HttpOrTls,
    /// `protocol: tls`.
    Tls,
}

impl Detection {
    /// All kinds.
    pub const ALL: [Self; 5] = [Self::Auto, Self::AutoOrHttp, Self::Http, Self::HttpOrTls, Self::Tls];

    /// The protocol of the first bytes, and for TLS the contents of the ClientHello. `None` if more bytes are needed.
    pub fn of(self, bytes: &[u8], max_line: usize) -> Option<(Protocol, Option<ClientHello>)> {
        let verdict = match self {
            Self::Auto => detect::auto(bytes, max_line),
            Self::AutoOrHttp => detect::auto_or_http(bytes, max_line),
            Self::Http => detect::http(bytes),
            Self::HttpOrTls => detect::http_or_tls(bytes),
            Self::Tls => detect::tls(bytes),
        };
        match verdict {
            DetectionResult::Is(protocol, hello) => Some((protocol, hello)),
            DetectionResult::More => None,
        }
    }
}
