//! Ends a connection in a way that the peer can't take for an orderly end.

use std::io;

use tokio::io::Interest;

/// Ends a byte stream so that the peer can't take it for a complete one (RFC 9113 section 8.5, RFC 9293 section 3.10.7): TCP by RST, a
/// stream of HTTP/2 by RST_STREAM(CONNECT_ERROR).
pub trait Abort {
    /// After this call, dropping the stream resets it. Bytes that were written but not yet sent may be lost.
    fn abort(&mut self);

    /// Returns the error if the peer has reset the stream. This needs no read, so it also works after an orderly end and while bytes wait
    /// to be read. It is reported once; the caller then ends the stream.
    fn broken(&self) -> Option<io::Error>;

    /// Whether nothing has arrived since a read had to wait; then the task that waits for the read will still be woken. `false` if this
    /// can't be known without a read.
    fn is_quiet(&self) -> bool {
        false
    }
}

impl Abort for tokio::net::TcpStream {
    fn abort(&mut self) {
        // The socket sends RST when it is closed. If it is closed already, the error doesn't matter.
        let _ = self.set_zero_linger();
    }

    fn broken(&self) -> Option<io::Error> {
        self.take_error().ok().flatten()
    }

    fn is_quiet(&self) -> bool {
        // This asks the runtime what the kernel has reported to it; it makes no system call.
        self.try_io(Interest::READABLE, || Ok(())).is_err()
    }
}

/// A stream in memory has no reset.
impl Abort for tokio::io::DuplexStream {
    fn abort(&mut self) {}

    fn broken(&self) -> Option<io::Error> {
        None
    }
}
