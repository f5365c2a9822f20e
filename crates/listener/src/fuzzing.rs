//! What `tests/fuzz` needs beside the public interface: the judge of a connection's first bytes.

use crate::{
    detect::{self, Verdict},
    transport::{ClientHello, Protocol},
};

/// How a listener judges first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detection {
    /// `protocol: auto` with opaque routes.
    Auto,
    /// The same where HTTP reaches the same routes.
    AutoOrHttp,
    /// `protocol: http`.
    Http,
    /// `protocol: auto` where nothing is opaque.
    HttpOrTls,
    /// `protocol: tls`.
    Tls,
}

impl Detection {
    /// Every one.
    pub const ALL: [Self; 5] = [Self::Auto, Self::AutoOrHttp, Self::Http, Self::HttpOrTls, Self::Tls];

    /// What first bytes are, and for TLS what the client asked for; `None` where more bytes are needed.
    pub fn of(self, bytes: &[u8], max_line: usize) -> Option<(Protocol, Option<ClientHello>)> {
        let verdict = match self {
            Self::Auto => detect::auto(bytes, max_line),
            Self::AutoOrHttp => detect::auto_or_http(bytes, max_line),
            Self::Http => detect::http(bytes),
            Self::HttpOrTls => detect::http_or_tls(bytes),
            Self::Tls => detect::tls(bytes),
        };
        match verdict {
            Verdict::Is(protocol, hello) => Some((protocol, hello)),
            Verdict::More => None,
        }
    }
}
