//! The socket under HTTP/2: looks at frames on their way in, gathers small writes, and counts signs of life.
//!
//! The h2 crate flushes after every DATA frame of 256 bytes or more, so that ten streams that send in one turn of the
//! runtime cost ten system calls. Here a flush only notes that there is something to write; the connection's task
//! writes it once, when the frames of its turn are all there ([`Socket::flush`]). Large writes are not copied: they go out at
//! once, behind what was gathered.
//!
//! A peer that has closed its connection may have sent its last words before: answers, or a GOAWAY that says which calls it did no work on.
//! They wait in the kernel when a write fails. So a failed write ends nothing: reading goes on to its end, which the failure brings near
//! (RFC 9113 section 6.8). Calls of which no byte was written by then were never sent.

use std::{
    cell::{Cell, RefCell},
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use attache_config::model;
use attache_http2::{Bounds, Flood, Head, Inlet, Outlet, Payer, Streams, Verdict, kind};
use bytes::{Buf, BytesMut};
use smallvec::SmallVec;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use crate::{connect::Connection, limit::ConnectionPermit};

/// More than this is not gathered: copying it costs what a system call does.
const LARGE: usize = 8 << 10;

/// Most bytes that wait for the socket. Above it h2 is held up, and with it the streams.
const FULL: usize = 64 << 10;

/// The connection, shared between h2 and the task that flushes it.
#[derive(Debug)]
pub(super) struct Socket {
    inner: RefCell<Inner>,
    heard: Cell<u64>,
    signals: Rc<Signals>,
    verdict: Verdict,
    _permit: ConnectionPermit,
}

/// What the connection's parts tell each other. The socket itself goes with the connection's end, whoever still knows of it.
#[derive(Debug, Default)]
pub(super) struct Signals {
    /// The peer sent GOAWAY, or reads nothing any more.
    pub(super) goes_away: Cell<bool>,
    /// The highest stream whose HEADERS the h2 crate has written.
    queued: Cell<u32>,
    /// The highest stream of which the socket may have taken a byte.
    written: Cell<u32>,
    /// The process is short of memory, which the connection's task has not yet seen.
    pub(super) pressed: Cell<bool>,
    /// Calls that were sent.
    pub(super) calls: Cell<u64>,
}

impl Signals {
    /// No byte of this stream was given to the socket.
    pub(super) fn is_unsent(&self, stream: u32) -> bool {
        stream > self.written.get()
    }
}

/// A server on one of our connections: what it sends in vain is paid for by the calls that it was sent.
#[derive(Debug)]
struct Server(Rc<Signals>);

impl Payer for Server {
    const IS_SERVER: bool = true;
    const SECTION: &'static str = "pool";

    fn requests(&self) -> u64 {
        self.0.calls.get()
    }

    fn spend(&self, _: u64, _: Instant) -> Result<(), (&'static str, &'static str)> {
        Ok(())
    }
}

#[derive(Debug)]
struct Inner {
    io: Connection,
    inlet: Inlet,
    outlet: Outlet,
    flood: Flood<Server>,
    gathered: BytesMut,
    signals: Rc<Signals>,
    /// The peer reads no more: what is written goes nowhere.
    deaf: bool,
    /// The socket's own buffers (TLS) may hold something.
    unflushed: bool,
}

impl Socket {
    pub(super) fn new(
        io: Connection,
        permit: ConnectionPermit,
        settings: &model::Pool,
        streams: Rc<Streams>,
        signals: Rc<Signals>,
    ) -> Rc<Self> {
        let (inlet, verdict) = (Inlet::of_server(streams), Verdict::default());
        let bounds = Bounds { rate: settings.h2_flood_rate.into(), burst: settings.h2_flood_burst.into() };
        let flood = Flood::new(bounds, Server(Rc::clone(&signals)), Rc::clone(&verdict));
        let inner = Inner {
            io,
            inlet,
            outlet: Outlet::of_client(),
            flood,
            gathered: BytesMut::new(),
            signals: Rc::clone(&signals),
            deaf: false,
            unflushed: false,
        };
        Rc::new(Self { inner: RefCell::new(inner), heard: Cell::new(0), signals, verdict, _permit: permit })
    }

    /// Reads so far that brought something: a sign of life if it has changed.
    pub(super) fn heard(&self) -> u64 {
        self.heard.get()
    }

    /// Writes what was gathered.
    pub(super) fn flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.borrow_mut().flush(cx)
    }

    /// Tells a server that flooded why its connection ends, as far as the socket takes it.
    pub(super) fn say_goodbye(&self, cx: &mut Context<'_>) {
        let Some(flooded) = self.verdict.get() else { return };
        let words = flooded.to_string();
        tracing::debug!(error = words, "an upstream's HTTP/2 connection was ended");
        let inner = &mut *self.inner.borrow_mut();
        inner.outlet.say_goodbye(0, h2::Reason::ENHANCE_YOUR_CALM.into(), &words, &mut inner.gathered);
        let _ = inner.flush(cx);
    }
}

impl Inner {
    fn flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(self.flush_all(cx)) {
            Err(error) => self.fell_deaf(cx, error).into(),
            Ok(()) => Poll::Ready(Ok(())),
        }
    }

    fn flush_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.deaf {
            return Poll::Ready(Ok(()));
        }
        self.outlet.give_back(&mut self.inlet, &mut self.gathered);
        while !self.gathered.is_empty() {
            let n = ready!(Pin::new(&mut self.io).poll_write(cx, &self.gathered))?;
            self.wrote(n)?;
            self.gathered.advance(n);
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// A write failed. Where that is the peer's close, the reader finds the end, behind what the peer said before.
    #[cold]
    fn fell_deaf(&mut self, cx: &Context<'_>, error: io::Error) -> io::Result<()> {
        if !matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) {
            return Err(error);
        }
        self.deaf = true;
        self.signals.goes_away.set(true);
        self.gathered = BytesMut::new();
        cx.waker().wake_by_ref();
        Ok(())
    }

    /// Takes what h2 writes, and says how much.
    fn write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let n = ready!(self.pass(cx, bufs))?;
        let mut left = n;
        for buf in bufs {
            let bytes = buf.get(..left.min(buf.len())).unwrap_or_default();
            self.outlet.look(bytes, |head, payload| {
                if head.kind == kind::HEADERS {
                    self.signals.queued.set(head.stream);
                }
                self.flood.sent(head, payload)
            })?;
            left -= bytes.len();
        }
        if self.gathered.is_empty() && !self.deaf {
            // They were not gathered: the socket has them.
            self.signals.written.set(self.signals.queued.get());
        }
        Poll::Ready(Ok(n))
    }

    fn pass(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let total: usize = bufs.iter().map(|buf| buf.len()).sum();
        if self.deaf {
            return Poll::Ready(Ok(total));
        }
        if total < LARGE {
            if self.gathered.len() + total > FULL {
                // A part may have gone, so there may be room even if it is not all gone.
                let _ = self.flush(cx)?;
                if self.gathered.len() + total > FULL {
                    return Poll::Pending;
                }
            }
            for buf in bufs {
                self.gathered.extend_from_slice(buf);
            }
            return Poll::Ready(Ok(total));
        }
        // h2 gives at most a frame's head and its payload.
        let mut all: SmallVec<[IoSlice<'_>; 4]> = SmallVec::new();
        all.push(IoSlice::new(&self.gathered));
        all.extend_from_slice(bufs);
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, &all));
        drop(all);
        let n = match written {
            Ok(n) => n,
            Err(error) => return Poll::Ready(self.fell_deaf(cx, error).map(|()| total)),
        };
        self.wrote(n)?;
        let ours = n.min(self.gathered.len());
        self.gathered.advance(ours);
        if n > ours {
            return Poll::Ready(Ok(n - ours));
        }
        // Only of ours: once more, which ends with theirs or with waiting.
        self.pass(cx, bufs)
    }

    fn wrote(&mut self, n: usize) -> io::Result<()> {
        self.unflushed = true;
        self.signals.written.set(self.signals.queued.get());
        if n == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(()) }
    }
}

/// What h2 reads from and writes to.
#[derive(Debug)]
pub(super) struct H2Io(Rc<Socket>);

impl H2Io {
    pub(super) fn new(socket: Rc<Socket>) -> Self {
        Self(socket)
    }
}

impl AsyncRead for H2Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Inner { io, inlet, flood, .. } = &mut *self.0.inner.borrow_mut();
        let watch = |head: Head| {
            if head.kind == kind::GOAWAY {
                self.0.signals.goes_away.set(true);
            }
            flood.received(head)
        };
        ready!(inlet.poll_read(cx, io, buf, watch))?;
        self.0.heard.set(self.0.heard.get().wrapping_add(1));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for H2Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.inner.borrow_mut().write(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.inner.borrow_mut().write(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Says yes: the connection's task flushes at the end of its turn.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.inner.borrow_mut();
        ready!(inner.flush(cx))?;
        if inner.deaf {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut inner.io).poll_shutdown(cx)
    }
}
