use tokio::io::{AsyncRead, AsyncWrite};

/// Anything that HTTP can be spoken on: a TCP connection, a Unix socket, TLS over one of them.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}
