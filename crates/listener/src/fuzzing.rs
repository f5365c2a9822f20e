//! What `tests/fuzz` needs beside the public interface: the readers of a connection's first bytes.

use std::net::SocketAddr;

use crate::{
    detect::{self, Verdict},
    proxy_protocol::{self, Read},
    transport::{ClientHello, Protocol},
};

/// What the reader of the PROXY protocol says of first bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyHeader {
    /// A header of `len` bytes; source and destination are `None` where the proxy speaks for itself.
    Is {
        /// Source and destination.
        addresses: Option<(SocketAddr, SocketAddr)>,
        /// Bytes of it.
        len: usize,
    },
    /// More bytes are needed.
    More,
    /// There is none.
    None,
    /// It begins like one and is none.
    Bad,
}

/// Reads the header of the PROXY protocol that `bytes` begin with.
pub fn proxy_header(bytes: &[u8]) -> ProxyHeader {
    match proxy_protocol::read(bytes) {
        Read::Header(header) => ProxyHeader::Is { addresses: header.addresses, len: header.len },
        Read::More => ProxyHeader::More,
        Read::None => ProxyHeader::None,
        Read::Bad(_) => ProxyHeader::Bad,
    }
}

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
