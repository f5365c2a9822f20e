//! The end of a connection that must not look like one.

use std::io;

use tokio::io::Interest;

/// Ends a byte stream so that the peer can't take it for a whole one (RFC 9113 section 8.5, RFC 9293 section 3.10.7): TCP by RST, a
/// stream of HTTP/2 by RST_STREAM(CONNECT_ERROR).
pub trait Abort {
    /// From now on, dropping the stream is a reset. What was written and has not gone may be lost.
    fn abort(&mut self);

    /// The peer has reset the stream. This is noticed without reading, so also after an orderly end and after bytes
    /// that are not read. It is reported once; the receiver ends the stream.
    fn broken(&self) -> Option<io::Error>;

    /// Nothing has come since a read had to wait, so that the task which was told to wait is still the one that will be woken. `false`
    /// where this can't be known without reading.
    fn is_quiet(&self) -> bool {
        false
    }
}

impl Abort for tokio::net::TcpStream {
    fn abort(&mut self) {
        // RST with the close. A socket that has gone needs none.
        let _ = self.set_zero_linger();
    }

    fn broken(&self) -> Option<io::Error> {
        self.take_error().ok().flatten()
    }

    fn is_quiet(&self) -> bool {
        // Asks the runtime for what the kernel has told it, and not the kernel.
        self.try_io(Interest::READABLE, || Ok(())).is_err()
    }
}

/// A stream in memory knows no reset.
impl Abort for tokio::io::DuplexStream {
    fn abort(&mut self) {}

    fn broken(&self) -> Option<io::Error> {
        None
    }
}
