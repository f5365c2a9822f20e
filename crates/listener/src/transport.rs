//! What the first bytes of a connection turned out to be.

use std::sync::Arc;

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.0 or HTTP/1.1.
    Http1,
    /// HTTP/2, by its preface or by ALPN.
    Http2,
    /// TLS that is passed through.
    Tls,
    /// Anything else.
    Tcp,
}

impl Protocol {
    /// The word of the access log and the metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Tls => "tls",
            Self::Tcp => "tcp",
        }
    }
}

/// What a TLS client asked for, read without terminating (RFC 8446 section 4.1.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The server name, in lower case (RFC 6066 section 3); `None` where the client sent none.
    pub sni: Option<Arc<str>>,
    /// The protocols it offered, in its order (RFC 7301).
    pub alpn: Vec<Vec<u8>>,
}
