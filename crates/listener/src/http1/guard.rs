//! The strict reader under hyper's HTTP/1 server.
//!
//! hyper resolves some ambiguities silently (a Content-Length beside a Transfer-Encoding, bare LF as line end) where RFC 9112
//! sections 6.3 and 11.2 leave the choice to refuse. The guard looks at every byte of framing before hyper does, in hyper's
//! own read buffer: a head that came whole in one read is neither copied nor moved. A head or trailer in pieces is gathered
//! here, bounded by the limits, until it is whole.
//!
//! A refused head is replaced by a small valid request, and the verdict is kept beside for the service ([`Shared::refused`]):
//! so hyper answers it in its order, after earlier pipelined requests, and the answer is logged and counted like any other. Nothing after
//! a refused head is ever read, but thrown away for a moment at the end, since closing a socket with unread bytes resets it
//! and can destroy the answer on its way.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use attache_telemetry::Reason;
use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use super::{
    framing::{Framer, Stop},
    head::Limits,
    shared::{Shared, Switch},
};
use crate::{
    request::{Place, Refusal},
    stream::Stream,
};

/// Stands in for a refused head.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";
/// How long, and how much, is read and thrown away after the last answer of a connection that still sends.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1 << 20;
/// Bytes that are held of a client that sends into a tunnel before it is open.
const HELD: usize = 16 << 10;
const HEADER_TIMEOUT: Refusal =
    Refusal { reason: Reason::HeaderTimeout, rule: "The request's head did not arrive in time." };

#[derive(Debug)]
pub(crate) struct Guard {
    stream: Stream,
    framer: Framer,
    shared: Arc<Shared>,
    mode: Mode,
    /// Checked bytes that hyper's buffer had no room for yet.
    ready: BytesMut,
    /// The begin of a head, of trailers or of a tunnel.
    held: BytesMut,
    header_timeout: Duration,
    /// Runs while a head is gathered; a head that comes whole costs no clock.
    timer: Option<Pin<Box<Sleep>>>,
    /// 1xx responses on their way out.
    out: Bytes,
    linger: Option<(Pin<Box<Sleep>>, usize)>,
    /// The write side is shut down.
    shut: bool,
    /// The last read found nothing.
    waiting: bool,
    /// Nothing was written since the last flush.
    flushed: bool,
    /// The connection's place under the limit, for as long as the stream lives, upgraded or not.
    _place: Option<Place>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Messages are framed.
    Http,
    /// A refused head's stand-in is in `ready`, and nothing follows it.
    Refused,
    /// The body was cut; hyper is told so with its next read.
    Broken(Refusal),
    /// Upgraded: bytes pass.
    Tunnel,
}

impl Guard {
    pub(crate) fn new(
        stream: Stream,
        limits: Limits,
        header_timeout: Duration,
        shared: Arc<Shared>,
        place: Option<Place>,
    ) -> Self {
        Self {
            stream,
            framer: Framer::new(limits),
            shared,
            mode: Mode::Http,
            ready: BytesMut::new(),
            held: BytesMut::new(),
            header_timeout,
            timer: None,
            out: Bytes::new(),
            linger: None,
            shut: false,
            waiting: false,
            flushed: true,
            _place: place,
        }
    }

    /// Whether hyper, which reads all that is there and flushes whenever it has nothing left to write, holds a byte of this
    /// connection now.
    fn note_rest(&self) {
        let read = self.waiting && self.framer.at_start() && self.held.is_empty() && self.ready.is_empty();
        self.shared.set_at_rest(read && self.flushed && self.mode == Mode::Http && self.out.is_empty());
    }

    /// Takes back what hyper read and did not use. At rest that is nothing.
    pub(super) fn take_back(&mut self, bytes: &[u8]) {
        let rest = std::mem::replace(&mut self.ready, BytesMut::from(bytes));
        self.ready.unsplit(rest);
    }

    /// Waits for the client without a buffer, while nobody reads.
    pub(super) fn poll_client(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.ready.is_empty() { self.stream.poll_client(cx) } else { Poll::Ready(()) }
    }

    /// Refuses whatever comes first.
    pub(crate) fn refuse(&mut self, refusal: Refusal) {
        self.mode = Mode::Refused;
        self.shared.refuse(self.framer.heads() + 1, refusal);
        self.held = BytesMut::new();
        self.timer = None;
        self.ready.extend_from_slice(STAND_IN);
    }

    /// Notes what the framer said of bytes of which `rest` were not passed.
    fn stopped(&mut self, stop: Stop, rest: &[u8]) {
        match stop {
            Stop::All => {}
            Stop::Partial | Stop::Switching => {
                self.held.extend_from_slice(rest);
                if stop == Stop::Partial && self.framer.at_start() && self.timer.is_none() {
                    self.timer = Some(Box::pin(sleep(self.header_timeout)));
                }
            }
            Stop::Refused(refusal) => self.refuse(refusal),
            Stop::Broken(refusal) => {
                self.shared.break_body(refusal);
                self.mode = Mode::Broken(refusal);
            }
        }
    }

    /// Reads in place: straight into hyper's buffer, then looks.
    fn read_through(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.waiting = read.is_pending();
        self.note_rest();
        ready!(read)?;
        let fresh = buf.filled().get(before..).unwrap_or_default();
        if fresh.is_empty() {
            return Poll::Ready(Ok(true));
        }
        let (passed, stop) = self.framer.advance(fresh);
        if stop != Stop::All {
            let rest = fresh.get(passed..).unwrap_or_default();
            self.stopped(stop, rest);
            buf.set_filled(before + passed);
        }
        Poll::Ready(Ok(passed > 0))
    }

    /// Reads more of what is held; true at the stream's end.
    fn read_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut space = [0; 4096];
        let mut buf = ReadBuf::new(&mut space);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf))?;
        self.held.extend_from_slice(buf.filled());
        Poll::Ready(Ok(buf.filled().is_empty()))
    }

    /// Looks at what is held again, where that can have changed anything: a client that sends byte by byte must not make every
    /// byte cost a look at all of them.
    fn look_again(&mut self, fresh: usize) {
        let line = memchr::memchr(b'\n', self.held.get(fresh..).unwrap_or_default()).is_some();
        // A method is short, and shows at once what is no HTTP.
        let method = memchr::memchr(b' ', self.held.get(..fresh).unwrap_or_default()).is_none();
        if !line && !method && !self.framer.is_too_much(&self.held) {
            return;
        }
        let mut held = std::mem::take(&mut self.held);
        let (passed, stop) = self.framer.advance(&held);
        if passed > 0 {
            self.ready.unsplit(held.split_to(passed));
            self.timer = None;
        }
        self.stopped(stop, &held);
    }

    fn poll_http(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            if !self.ready.is_empty() {
                let n = self.ready.len().min(buf.remaining());
                buf.put_slice(self.ready.get(..n).unwrap_or_default());
                self.ready.advance(n);
                return Poll::Ready(Ok(()));
            }
            match self.mode {
                // hyper closes after the stand-in's answer; an end here would be taken for the client leaving.
                Mode::Refused => return Poll::Pending,
                Mode::Broken(refusal) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, refusal)));
                }
                Mode::Tunnel => return self.poll_tunnel(cx, buf),
                Mode::Http => {}
            }
            if self.framer.is_switching() {
                match self.shared.switch() {
                    Switch::Switched => {
                        self.mode = Mode::Tunnel;
                        // Its two ends have their own idea of idle.
                        self.stream.limit_writes(Duration::ZERO);
                        continue;
                    }
                    Switch::Declined => {
                        self.shared.set_switch(Switch::Open);
                        self.framer.resume();
                        let held = std::mem::take(&mut self.held);
                        let (passed, stop) = self.framer.advance(&held);
                        self.ready.extend_from_slice(held.get(..passed).unwrap_or_default());
                        self.stopped(stop, held.get(passed..).unwrap_or_default());
                        continue;
                    }
                    // Reads on only to see the client leave.
                    Switch::Open if self.held.len() >= HELD => return Poll::Pending,
                    Switch::Open => {
                        if ready!(self.read_held(cx))? {
                            return Poll::Ready(Ok(()));
                        }
                        continue;
                    }
                }
            }
            if self.held.is_empty() {
                if ready!(self.read_through(cx, buf))? {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            let fresh = self.held.len();
            match self.read_held(cx)? {
                Poll::Ready(true) => return Poll::Ready(Ok(())),
                Poll::Ready(false) => self.look_again(fresh),
                Poll::Pending => {
                    let Some(timer) = &mut self.timer else { return Poll::Pending };
                    ready!(timer.as_mut().poll(cx));
                    self.refuse(HEADER_TIMEOUT);
                }
            }
        }
    }

    fn poll_tunnel(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.shared.is_cut() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        if !self.held.is_empty() {
            let n = self.held.len().min(buf.remaining());
            buf.put_slice(self.held.get(..n).unwrap_or_default());
            self.held.advance(n);
            return Poll::Ready(Ok(()));
        }
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_pending() {
            self.shared.tunnel_read_by(cx.waker());
        }
        read
    }

    fn writes(&mut self) {
        self.flushed = false;
        self.shared.set_at_rest(false);
    }

    /// Writes out queued 1xx responses.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let n = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.out))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(n);
        }
        Poll::Ready(Ok(()))
    }

    /// Reads and throws away what a client still sends, so that the close doesn't reset.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (timer, left) = self.linger.get_or_insert_with(|| (Box::pin(sleep(LINGER)), LINGER_BYTES));
        let mut space = [0; 4096];
        loop {
            let mut buf = ReadBuf::new(&mut space);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() && *left > buf.filled().len() => {
                    *left -= buf.filled().len();
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return timer.as_mut().poll(cx),
            }
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.shared.gone.notify_one();
    }
}

impl AsyncRead for Guard {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_http(cx, buf)
    }
}

impl AsyncWrite for Guard {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.writes();
        ready!(self.poll_out(cx))?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.writes();
        ready!(self.poll_out(cx))?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// The safe point for 1xx responses.
    ///
    /// hyper calls this only when its own write buffer is empty (`proto/h1/io.rs`, `poll_flush`), and the service keeps its
    /// response back while 1xx bytes wait (`respond.rs`). So whenever there are any, all earlier responses are out to their
    /// last byte, and not one byte of the next has been made: the wire is between two messages.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.shared.has_informational() {
            ready!(self.poll_out(cx))?;
            self.out = self.shared.take_informational().into();
            // The response that was kept back may go now.
            cx.waker().wake_by_ref();
        }
        ready!(self.poll_out(cx))?;
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.flushed = true;
        self.note_rest();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.shut {
            ready!(self.poll_out(cx))?;
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            self.shut = true;
        }
        let unread = match self.mode {
            Mode::Http => !self.framer.at_start() || !self.held.is_empty(),
            Mode::Refused | Mode::Broken(_) => true,
            Mode::Tunnel => false,
        };
        if unread {
            ready!(self.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}
