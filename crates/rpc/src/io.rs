use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream that can carry HTTP: a TCP connection, a Unix socket, or TLS over one of them.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}
