//! Opaque bytes, both ways, until both sides have said their last.
//!
//! Rules:
//! - One side's end is passed on as an end of writing (half-close); the other direction goes on until its own end.
//! - A direction that waits for its reader holds at most [`CHUNK`] bytes and reads no more: back-pressure is the
//!   kernel's windows. A direction that waits for its writer holds nothing: reads land in one scratch buffer of the
//!   worker, and only what the other side would not take at once is copied to the direction's own.
//! - After a read that did not fill the buffer the runtime waits for readiness before it reads again (epoll is
//!   edge-triggered there), so a message costs one read and one write.
//! - A read that fills the buffer tells bulk. Between two plain sockets bulk moves inside the kernel from then on
//!   ([`splice`]), until it comes in small pieces again.
//! - The clock is read once per idle interval, not per message.

mod splice;

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

pub use self::splice::Socket;
use self::splice::{Lease, Moved};
use crate::{connect::Connection, error::reason_or};

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
    relay(client, |_| None, upstream, |_| None, idle).await
}

/// The same where the client's bytes may come from a socket as they are: `socket` says from which one, and `None` as long as
/// bytes are kept outside of it.
pub async fn copy_both_sockets<C: AsyncRead + AsyncWrite>(
    client: C,
    socket: impl Fn(&C) -> Option<Socket<'_>>,
    upstream: Connection,
    idle: Duration,
) -> Result<(u64, u64), TunnelError> {
    relay(client, socket, upstream, Connection::socket, idle).await
}

async fn relay<C: AsyncRead + AsyncWrite, U: AsyncRead + AsyncWrite>(
    client: C,
    client_socket: impl Fn(&C) -> Option<Socket<'_>>,
    upstream: U,
    upstream_socket: impl Fn(&U) -> Option<Socket<'_>>,
    idle: Duration,
) -> Result<(u64, u64), TunnelError> {
    let (mut client, mut upstream) = (pin!(client), pin!(upstream));
    let (mut out, mut back) = (Direction::default(), Direction::default());
    let mut timer = pin!(sleep_until(Instant::now() + idle));
    let mut seen = 0;
    let result = std::future::poll_fn(|cx| {
        let sent = out.poll(cx, (client.as_mut(), &client_socket), (upstream.as_mut(), &upstream_socket));
        if let Poll::Ready(Err(side)) = sent {
            return Poll::Ready(Err(side.map(Reason::ClientClosed, Reason::UpstreamReset)));
        }
        let received =
            back.poll(cx, (upstream.as_mut(), &upstream_socket), (client.as_mut(), &client_socket));
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
    /// The last read filled its buffer, so the next bytes are moved and not copied where that can be.
    bulk: bool,
    /// The kernel would not move bytes between these two.
    copies_only: bool,
    /// Where moved bytes stand; given back whenever nothing is there.
    pipe: Option<Lease>,
}

/// One end of a tunnel, and the socket under it where there is one to move bytes from and to.
type End<'a, S, F> = (Pin<&'a mut S>, &'a F);

impl Direction {
    fn poll<R: AsyncRead, W: AsyncWrite>(
        &mut self,
        cx: &mut Context<'_>,
        reader: End<'_, R, impl Fn(&R) -> Option<Socket<'_>>>,
        writer: End<'_, W, impl Fn(&W) -> Option<Socket<'_>>>,
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

    fn relay<R: AsyncRead, W: AsyncWrite>(
        &mut self,
        cx: &mut Context<'_>,
        (mut reader, from): End<'_, R, impl Fn(&R) -> Option<Socket<'_>>>,
        (mut writer, to): End<'_, W, impl Fn(&W) -> Option<Socket<'_>>>,
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
            // What stands in a pipe goes before anything that is read now.
            if (self.bulk || self.pipe.is_some())
                && let Some(from) = from(&reader)
                && let Some(to) = to(&writer)
            {
                ready!(self.splice(cx, &from, &to))?;
                continue;
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
            self.bulk = bytes.len() == CHUNK && !self.copies_only;
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

    /// Moves bytes inside the kernel until there are none, and ends the bulk where they come in small pieces.
    fn splice(&mut self, cx: &mut Context<'_>, from: &Socket<'_>, to: &Socket<'_>) -> Poll<Result<(), Side>> {
        let mut turn = 0;
        // Held here, so that every return but the one for a slow writer gives it back.
        let Some(mut pipe) = self.pipe.take().or_else(Lease::take) else {
            // Too many are in use: this piece is copied.
            self.bulk = false;
            return Poll::Ready(Ok(()));
        };
        loop {
            while !pipe.is_empty() {
                match pipe.drain(cx, to) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) if splice::is_refused(&error) => {
                        self.held = pipe.take_back().map_err(Side::Writer)?;
                        (self.bulk, self.copies_only) = (false, true);
                        return Poll::Ready(Ok(()));
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(Side::Writer(error))),
                    Poll::Pending => {
                        self.pipe = Some(pipe);
                        return Poll::Pending;
                    }
                }
            }
            if !self.bulk {
                return Poll::Ready(Ok(()));
            }
            if turn >= splice::TURN {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match ready!(pipe.fill(cx, from)) {
                Ok(Moved::Some(n)) => {
                    self.copied += n as u64;
                    self.bulk = turn > 0 || n >= splice::SMALL;
                    turn += n;
                }
                Ok(Moved::End) => (self.ended, self.bulk) = (true, false),
                Err(error) if splice::is_refused(&error) => {
                    (self.bulk, self.copies_only) = (false, true);
                }
                Err(error) => return Poll::Ready(Err(Side::Reader(error))),
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

    use proptest::prelude::Just;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex},
        net::{TcpSocket, TcpStream},
    };

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

    /// Two connected sockets, with room for `buffers` bytes; zero leaves that to the kernel.
    async fn pair(buffers: u32) -> (TcpStream, TcpStream) {
        let (server, client) = (TcpSocket::new_v4().unwrap(), TcpSocket::new_v4().unwrap());
        for socket in [&server, &client].into_iter().filter(|_| buffers > 0) {
            socket.set_send_buffer_size(buffers).unwrap();
            socket.set_recv_buffer_size(buffers).unwrap();
        }
        server.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = server.listen(1).unwrap();
        let (one, other) = tokio::join!(client.connect(listener.local_addr().unwrap()), listener.accept());
        (one.unwrap(), other.unwrap().0)
    }

    /// Bytes that tell where they belong.
    fn numbered(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
    }

    /// What one side gets when the other sends `bytes` in pieces of these sizes, through a tunnel between sockets.
    async fn through_sockets(
        bytes: &[u8],
        pieces: &[usize],
        buffers: u32,
        slow_reader: bool,
    ) -> (Vec<u8>, (u64, u64)) {
        let (mut client, client_side) = pair(0).await;
        let (mut server, server_side) = pair(buffers).await;
        let tunnel = async {
            let upstream = Connection::Tcp(server_side);
            copy_both_sockets(client_side, |tcp| Some(Socket::Tcp(tcp)), upstream, Duration::ZERO).await
        };
        let send = async {
            let mut rest = bytes;
            for piece in pieces.iter().cycle() {
                let (now, later) = rest.split_at((*piece).min(rest.len()));
                client.write_all(now).await.unwrap();
                rest = later;
                if rest.is_empty() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            client.shutdown().await.unwrap();
        };
        let receive = async {
            let mut read = Vec::new();
            if slow_reader {
                // All windows fill, and what stands between them waits.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            server.read_to_end(&mut read).await.unwrap();
            server.write_all(b"thanks").await.unwrap();
            server.shutdown().await.unwrap();
            read
        };
        let (copied, (), read) = tokio::join!(tunnel, send, receive);
        let mut thanks = Vec::new();
        client.read_to_end(&mut thanks).await.unwrap();
        assert_eq!(thanks, b"thanks");
        (read, copied.unwrap())
    }

    #[tokio::test]
    async fn bulk_between_sockets_goes_through_the_kernel_and_comes_whole() {
        let bytes = numbered(64 << 20);
        for slow_reader in [false, true] {
            splice::tests::forget();
            let (read, copied) = through_sockets(&bytes, &[1 << 20], 0, slow_reader).await;
            assert!(read == bytes, "{} of {}", read.len(), bytes.len());
            assert_eq!(copied, (64 << 20, 6));
            // Nothing is held after the end, and most went the short way.
            assert!(splice::tests::moved() > 32 << 20, "{}", splice::tests::moved());
            assert!(splice::tests::open() <= splice::KEPT, "{}", splice::tests::open());
        }
    }

    #[tokio::test]
    async fn messages_are_not_moved_but_copied() {
        splice::tests::forget();
        let bytes = numbered(1 << 20);
        let (read, _) = through_sockets(&bytes, &[700, 1, 4096], 0, false).await;
        assert!(read == bytes);
        assert_eq!(splice::tests::moved(), 0);
    }

    #[tokio::test]
    async fn what_the_kernel_will_not_move_is_copied() {
        let bytes = numbered(8 << 20);
        for step in [splice::tests::Step::Fill, splice::tests::Step::Drain] {
            splice::tests::forget();
            splice::tests::refuse(step);
            let (read, _) = through_sockets(&bytes, &[1 << 20], 0, false).await;
            assert!(read == bytes, "{step:?}: {} of {}", read.len(), bytes.len());
            assert_eq!(splice::tests::moved(), 0, "{step:?}");
        }
    }

    #[tokio::test]
    async fn what_stands_in_a_pipe_goes_before_what_is_read_later() {
        #[expect(clippy::unnecessary_wraps, reason = "what a tunnel asks for")]
        fn plain(tcp: &TcpStream) -> Option<Socket<'_>> {
            Some(Socket::Tcp(tcp))
        }
        let ((mut client, mut from), (mut server, mut to)) = (pair(0).await, pair(8_000).await);
        let mut direction = Direction { bulk: true, ..Direction::default() };
        // The writer's windows are full.
        let mut first = 0;
        while let Ok(n) = to.try_write(&[1; 1000]) {
            first += n;
        }
        // A small piece ends the bulk and stays in the pipe; another one comes behind it.
        for piece in [2_u8, 3] {
            client.write_all(&[piece; 5000]).await.unwrap();
            from.readable().await.unwrap();
            let polled = std::future::poll_fn(|cx| {
                Poll::Ready(direction.poll(cx, (Pin::new(&mut from), &plain), (Pin::new(&mut to), &plain)))
            });
            assert!(polled.await.is_pending());
        }
        drop(client);
        let mut all = Vec::new();
        let rest = std::future::poll_fn(|cx| {
            direction.poll(cx, (Pin::new(&mut from), &plain), (Pin::new(&mut to), &plain))
        });
        let (ended, read) = tokio::join!(rest, server.read_to_end(&mut all));
        assert!(ended.is_ok() && read.is_ok());
        assert!(all.is_sorted() && all.len() == first + 10_000, "{} {}", all.len(), all.is_sorted());
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]
        #[test]
        fn pieces_of_any_size_come_whole(
            pieces in proptest::collection::vec(1_usize..300_000, 1..8),
            len in 0_usize..3_000_000,
            buffers in proptest::prop_oneof![Just(0), 4_000_u32..100_000],
            slow_reader in proptest::bool::weighted(0.2),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let bytes = numbered(len);
            let (read, copied) = runtime.block_on(through_sockets(&bytes, &pieces, buffers, slow_reader));
            assert!(read == bytes);
            assert_eq!(copied, (len as u64, 6));
        }
    }
}
