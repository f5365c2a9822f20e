//! What detection found in the first bytes of a connection.

use std::sync::Arc;

/// The protocol of a connection.
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
    /// Its name in the access log and the metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Tls => "tls",
            Self::Tcp => "tcp",
        }
    }
}

/// The contents of a ClientHello, read without terminating TLS (RFC 8446 section 4.1.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The server name, in lower case (RFC 6066 section 3); `None` if the client sent none.
    pub sni: Option<Arc<str>>,
    /// The protocols that the client offered, in its order (RFC 7301).
    pub alpn: Vec<Vec<u8>>,
}
