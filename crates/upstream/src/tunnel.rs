//! Opaque bytes, both ways, until both sides have said their last.
//!
//! Rules:
//! - One side's end is passed on as an end of writing (half-close); the other direction goes on until its own end.
//! - A direction that waits for its reader holds at most [`CHUNK`] bytes and reads no more: back-pressure is the
//!   kernel's windows. A direction that waits for its writer holds nothing: reads land in one scratch buffer of the
//!   worker, and only what the other side would not take at once is copied to the direction's own.
//! - After a read that did not fill the buffer the runtime waits for readiness before it reads again (epoll is
//!   edge-triggered there), so a message costs one read and one write.
//! - The clock is read once per idle interval, not per message.
//!
//! Moving bytes between two plain sockets inside the kernel (`splice(2)`) would replace [`Direction::poll`] and nothing else.

use std::{
    cell::RefCell,
    fmt, io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use attache_telemetry::Reason;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, sleep_until},
};

use crate::error::reason_or;

/// Most bytes that one read takes, and that one direction holds.
const CHUNK: usize = 64 << 10;

thread_local! {
    /// Where reads land. Taken for the time of one poll.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A tunnel that ended otherwise than by both sides' ends.
#[derive(Debug)]
pub struct TunnelError {
    /// Why: `idle-timeout`, `client-closed` or `upstream-reset`.
    pub reason: Reason,
    /// Bytes that went from the client to the upstream, and back.
    pub copied: (u64, u64),
    source: Option<io::Error>,
}

impl fmt::Display for TunnelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the tunnel was cut: {}", self.reason)
    }
}

impl std::error::Error for TunnelError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

/// Relays between a client and an upstream until both directions have ended; says how many bytes went from the client
/// to the upstream, and back. No byte either way for a whole interval of `idle`, so for between one and two times as long,
/// ends it with `idle-timeout`; zero waits for ever.
pub async fn copy_both(
    client: impl AsyncRead + AsyncWrite,
    upstream: impl AsyncRead + AsyncWrite,
    idle: Duration,
) -> Result<(u64, u64), TunnelError> {
    let (mut client, mut upstream) = (pin!(client), pin!(upstream));
    let (mut out, mut back) = (Direction::default(), Direction::default());
    let mut timer = pin!(sleep_until(Instant::now() + idle));
    let mut seen = 0;
    let result = std::future::poll_fn(|cx| {
        let sent = out.poll(cx, client.as_mut(), upstream.as_mut());
        if let Poll::Ready(Err(side)) = sent {
            return Poll::Ready(Err(side.map(Reason::ClientClosed, Reason::UpstreamReset)));
        }
        let received = back.poll(cx, upstream.as_mut(), client.as_mut());
        if let Poll::Ready(Err(side)) = received {
            let upstream = match &side {
                Side::Reader(error) => reason_or(error, Reason::UpstreamReset),
                Side::Writer(_) => Reason::UpstreamReset,
            };
            return Poll::Ready(Err(side.map(upstream, Reason::ClientClosed)));
        }
        if sent.is_ready() && received.is_ready() {
            return Poll::Ready(Ok(()));
        }
        if !idle.is_zero() {
            while timer.as_mut().poll(cx).is_ready() {
                let copied = out.copied + back.copied;
                if copied == seen {
                    return Poll::Ready(Err((Reason::IdleTimeout, None)));
                }
                seen = copied;
                timer.as_mut().reset(Instant::now() + idle);
            }
        }
        Poll::Pending
    })
    .await;
    let copied = (out.copied, back.copied);
    result.map(|()| copied).map_err(|(reason, source)| TunnelError { reason, copied, source })
}

/// Whose fault it was.
enum Side {
    Reader(io::Error),
    Writer(io::Error),
}

impl Side {
    fn map(self, reader: Reason, writer: Reason) -> (Reason, Option<io::Error>) {
        match self {
            Self::Reader(error) => (reader, Some(error)),
            Self::Writer(error) => (writer, Some(error)),
        }
    }
}

/// One way through the tunnel.
#[derive(Default)]
struct Direction {
    /// Read and not yet written; its memory is given back as soon as it is empty.
    held: Vec<u8>,
    /// How much of `held` is written.
    written: usize,
    unflushed: bool,
    ended: bool,
    done: bool,
    copied: u64,
}

impl Direction {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        reader: Pin<&mut impl AsyncRead>,
        writer: Pin<&mut impl AsyncWrite>,
    ) -> Poll<Result<(), Side>> {
        if self.done {
            return Poll::Ready(Ok(()));
        }
        let mut scratch = SCRATCH.take();
        if scratch.is_empty() {
            scratch.resize(CHUNK, 0);
        }
        let result = self.relay(cx, reader, writer, &mut scratch);
        SCRATCH.replace(scratch);
        result
    }

    fn relay(
        &mut self,
        cx: &mut Context<'_>,
        mut reader: Pin<&mut impl AsyncRead>,
        mut writer: Pin<&mut impl AsyncWrite>,
        scratch: &mut [u8],
    ) -> Poll<Result<(), Side>> {
        loop {
            while self.written < self.held.len() {
                let rest = self.held.get(self.written..).unwrap_or_default();
                let n = ready!(write(cx, writer.as_mut(), rest))?;
                self.written += n;
                self.unflushed = true;
            }
            if !self.held.is_empty() {
                self.held = Vec::new();
                self.written = 0;
            }
            if self.ended {
                match ready!(writer.as_mut().poll_shutdown(cx)) {
                    // It has closed both ways already, which its own direction tells.
                    Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
                    ended => ended.map_err(Side::Writer)?,
                }
                self.done = true;
                return Poll::Ready(Ok(()));
            }
            let mut buf = ReadBuf::new(scratch);
            match reader.as_mut().poll_read(cx, &mut buf) {
                Poll::Ready(read) => read.map_err(Side::Reader)?,
                Poll::Pending => {
                    // TLS gathers records; what it has must go before we wait.
                    if self.unflushed && writer.as_mut().poll_flush(cx).map_err(Side::Writer)?.is_ready() {
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
            let mut bytes = buf.filled();
            self.copied += bytes.len() as u64;
            self.ended = bytes.is_empty();
            while !bytes.is_empty() {
                match write(cx, writer.as_mut(), bytes) {
                    Poll::Ready(n) => {
                        bytes = bytes.get(n?..).unwrap_or_default();
                        self.unflushed = true;
                    }
                    Poll::Pending => {
                        self.held = bytes.to_vec();
                        return Poll::Pending;
                    }
                }
            }
        }
    }
}

fn write(cx: &mut Context<'_>, writer: Pin<&mut impl AsyncWrite>, bytes: &[u8]) -> Poll<Result<usize, Side>> {
    match ready!(writer.poll_write(cx, bytes)) {
        Ok(0) => Poll::Ready(Err(Side::Writer(io::ErrorKind::WriteZero.into()))),
        Ok(n) => Poll::Ready(Ok(n)),
        Err(error) => Poll::Ready(Err(Side::Writer(error))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may end on what it did not expect")]

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn each_direction_ends_on_its_own_and_the_bytes_are_counted() {
        let (mut client, client_side) = duplex(16);
        let (mut server, server_side) = duplex(16);
        let tunnel = tokio::spawn(copy_both(client_side, server_side, Duration::ZERO));
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut question = String::new();
        server.read_to_string(&mut question).await.unwrap();
        assert_eq!(question, "question");
        // The client has ended; the answer still comes through, larger than any buffer on the way.
        let answer = vec![7; 300_000];
        let ((), read) = tokio::join!(
            async {
                server.write_all(&answer).await.unwrap();
                server.shutdown().await.unwrap();
            },
            async {
                let mut read = Vec::new();
                client.read_to_end(&mut read).await.unwrap();
                read
            }
        );
        assert_eq!(read, answer);
        assert_eq!(tunnel.await.unwrap().unwrap(), (8, 300_000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_tunnel_ends_after_the_idle_timeout_and_not_before() {
        let (mut client, client_side) = duplex(16);
        let (_server, server_side) = duplex(16);
        let start = Instant::now();
        let tunnel = tokio::spawn(copy_both(client_side, server_side, Duration::from_secs(10)));
        tokio::time::sleep(Duration::from_secs(9)).await;
        client.write_all(b"x").await.unwrap();
        let error = tunnel.await.unwrap().unwrap_err();
        assert_eq!(error.reason, Reason::IdleTimeout);
        assert_eq!(error.copied, (1, 0));
        // Activity is noticed at the interval's end, so silence lasts between one and two intervals.
        assert!(start.elapsed() >= Duration::from_secs(19), "{:?}", start.elapsed());
        assert!(start.elapsed() <= Duration::from_secs(21), "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn a_reader_that_stops_bounds_what_is_held() {
        let (mut client, client_side) = duplex(4096);
        let (_server, server_side) = duplex(4096);
        let _tunnel = tokio::spawn(copy_both(client_side, server_side, Duration::ZERO));
        let mut accepted = 0;
        while let Ok(n) = tokio::time::timeout(Duration::from_millis(50), client.write(&[0; 4096])).await {
            accepted += n.unwrap();
        }
        assert!(accepted <= 2 * CHUNK, "{accepted}");
    }
}
