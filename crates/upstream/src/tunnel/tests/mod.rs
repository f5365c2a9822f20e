#![allow(clippy::unwrap_used, reason = "a test may end on what it did not expect")]

mod bulk;

use std::{
    cell::Cell,
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, ready},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadBuf, duplex},
    net::{TcpSocket, TcpStream},
    task::{
        JoinHandle,
        coop::{has_budget_remaining, poll_proceed},
    },
};

use super::{direction::CHUNK, *};

#[tokio::test]
async fn each_direction_ends_on_its_own_and_the_bytes_are_counted() {
    let (mut client, client_side) = duplex(16);
    let (mut server, server_side) = duplex(16);
    let tunnel =
        tokio::spawn(copy_both(client_side, server_side, Duration::ZERO, UnhealthyNotice::default()));
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut question = String::new();
    server.read_to_string(&mut question).await.unwrap();
    assert_eq!(question, "question");
    // The client has ended; the answer, which is larger than any buffer on the way, still arrives.
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
    let tunnel = tokio::spawn(copy_both(
        client_side,
        server_side,
        Duration::from_secs(10),
        UnhealthyNotice::default(),
    ));
    tokio::time::sleep(Duration::from_secs(9)).await;
    client.write_all(b"x").await.unwrap();
    let error = tunnel.await.unwrap().unwrap_err();
    assert_eq!(error.reason, Reason::IdleTimeout);
    assert_eq!(error.copied, (1, 0));
    // The last byte came 9 s after the start.
    assert!(start.elapsed() >= Duration::from_secs(19), "{:?}", start.elapsed());
    assert!(start.elapsed() <= Duration::from_millis(20_300), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_reset_of_one_side_is_a_reset_of_the_other() {
    for from_client in [true, false] {
        let ((client, client_side), (server, server_side)) = (pair(0).await, pair(0).await);
        let upstream = EndpointConnection::from(server_side);
        let tunnel = relay(
            client_side,
            |tcp| Some(PlainSocket::Tcp(tcp)),
            upstream,
            EndpointConnection::socket,
            TunnelRules { idle: Duration::ZERO, answers: true },
            UnhealthyNotice::default(),
            async || None,
        );
        let (mut resets, mut sees) = if from_client { (client, server) } else { (server, client) };
        let ends = async {
            resets.write_all(b"part").await.unwrap();
            let mut part = [0; 4];
            sees.read_exact(&mut part).await.unwrap();
            resets.set_zero_linger().unwrap();
            drop(resets);
            sees.read(&mut part).await
        };
        let (tunnel, read) = tokio::join!(tunnel, ends);
        let wanted = if from_client { Reason::ClientClosed } else { Reason::UpstreamReset };
        assert_eq!(tunnel.unwrap_err().reason, wanted);
        assert_eq!(
            read.unwrap_err().kind(),
            io::ErrorKind::ConnectionReset,
            "from the client: {from_client}"
        );
    }
}

/// A client, a server, and the tunnel between them, which runs; with room for `buffers` bytes in each socket, zero for the kernel's.
async fn tunnelled(buffers: u32) -> (TcpStream, TcpStream, JoinHandle<Result<(u64, u64), TunnelError>>) {
    let ((client, client_side), (server, server_side)) = (pair(buffers).await, pair(buffers).await);
    let upstream = EndpointConnection::from(server_side);
    let tunnel = tokio::spawn(copy_both(client_side, upstream, Duration::ZERO, UnhealthyNotice::default()));
    (client, server, tunnel)
}

/// A side that always has a byte to read and accepts every write, as far as tokio's budget allows.
struct BusyStream(Rc<Cell<usize>>);

impl AsyncRead for BusyStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(poll_proceed(cx)).made_progress();
        buf.put_slice(b"x");
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for BusyStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(poll_proceed(cx)).made_progress();
        self.0.update(|all| all + bytes.len());
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Abort for BusyStream {
    fn abort(&mut self) {}

    fn broken(&self) -> Option<io::Error> {
        None
    }
}

#[tokio::test(start_paused = true)]
async fn a_direction_that_never_waits_leaves_the_other_one_and_the_timer_their_turn() {
    let (client, server) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let idle = Duration::from_secs(8);
    let tunnel =
        copy_both(BusyStream(client.clone()), BusyStream(server.clone()), idle, UnhealthyNotice::default());
    let mut tunnel = pin!(tunnel);
    for _ in 0..10 {
        poll_fn(|cx| {
            assert!(tunnel.as_mut().poll(cx).is_pending());
            // The tunnel's timer needs budget as well.
            assert!(has_budget_remaining(), "the whole turn was used up");
            Poll::Ready(())
        })
        .await;
        tokio::task::yield_now().await;
    }
    assert!(client.get() >= 100 && server.get() >= 100, "{client:?} {server:?}");
}

#[tokio::test]
async fn a_reset_of_a_side_that_is_not_read_is_noticed() {
    for ends_first in [true, false] {
        let (mut client, mut server, tunnel) = tunnelled(4096).await;
        if ends_first {
            client.write_all(b"all").await.unwrap();
            client.shutdown().await.unwrap();
            server.read_to_end(&mut Vec::new()).await.unwrap();
        } else {
            // The server reads nothing, so the tunnel stops reading as well.
            while tokio::time::timeout(Duration::from_millis(100), client.write_all(&[0; 4096])).await.is_ok()
            {
            }
        }
        client.set_zero_linger().unwrap();
        drop(client);
        let error = tokio::time::timeout(5 * ASK, tunnel).await.unwrap().unwrap().unwrap_err();
        assert_eq!(error.reason, Reason::ClientClosed);
        assert!(server.take_error().unwrap().is_some(), "ends first: {ends_first}");
    }
}

#[tokio::test]
async fn the_client_gets_every_byte_of_an_upstream_that_resets_after_its_end() {
    for client_speaks in [true, false] {
        let (mut client, mut server, tunnel) = tunnelled(0).await;
        server.write_all(&vec![7; 100_000]).await.unwrap();
        server.shutdown().await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        server.set_zero_linger().unwrap();
        drop(server);
        if client_speaks {
            client.write_all(b"more").await.unwrap();
        }
        let error = tokio::time::timeout(5 * ASK, tunnel).await.unwrap().unwrap().unwrap_err();
        assert_eq!(error.reason, Reason::UpstreamReset);
        let mut all = Vec::new();
        client.read_to_end(&mut all).await.unwrap();
        assert_eq!(all.len(), 100_000);
    }
}

#[tokio::test]
async fn a_task_that_has_used_up_its_budget_learns_of_bytes_that_come_later() {
    let ((client, client_side), (server, server_side)) = (pair(0).await, pair(0).await);
    let upstream = EndpointConnection::from(server_side);
    let mut tunnel = Box::pin(copy_both(client_side, upstream, Duration::ZERO, UnhealthyNotice::default()));
    // First both sockets must be known to have no bytes; then another task gets the tunnel, and its first poll reads
    // nothing.
    for _ in 0..3 {
        assert!(poll_fn(|cx| Poll::Ready(tunnel.as_mut().poll(cx).is_pending())).await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut is_starved = true;
    let tunnel = tokio::spawn(std::future::poll_fn(move |cx| {
        if std::mem::take(&mut is_starved) {
            while pin!(tokio::task::consume_budget()).poll(cx).is_ready() {}
        }
        tunnel.as_mut().poll(cx)
    }));
    let (mut from, mut to) = (client, server);
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        from.write_all(b"x").await.unwrap();
        let read = to.read_u8();
        assert_eq!(tokio::time::timeout(Duration::from_secs(5), read).await.unwrap().unwrap(), b'x');
        std::mem::swap(&mut from, &mut to);
    }
    tunnel.abort();
}

#[tokio::test]
async fn a_tunnel_that_is_dropped_resets_both_sides() {
    let (mut client, mut server, tunnel) = tunnelled(0).await;
    client.write_all(b"part").await.unwrap();
    server.read_exact(&mut [0; 4]).await.unwrap();
    tunnel.abort();
    for side in [&mut client, &mut server] {
        assert_eq!(side.read(&mut [0; 4]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn a_reader_that_stops_bounds_what_is_held() {
    let (mut client, client_side) = duplex(4096);
    let (_server, server_side) = duplex(4096);
    let _tunnel =
        tokio::spawn(copy_both(client_side, server_side, Duration::ZERO, UnhealthyNotice::default()));
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

#[tokio::test]
async fn an_upstream_that_ends_before_either_side_s_first_byte_is_replaced() {
    // The upstream resets; it ends; it has already ended when the client's first bytes come.
    for (resets, speaks_before) in [(true, false), (false, false), (true, true)] {
        let (mut client, client_side) = pair(0).await;
        let ((first, first_side), (mut second, second_side)) = (pair(0).await, pair(0).await);
        if resets {
            first.set_zero_linger().unwrap();
        }
        if speaks_before {
            client.write_all(b"question").await.unwrap();
            drop(first);
        } else {
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                drop(first);
            });
        }
        let mut others = vec![second_side];
        let elsewhere = async move || Some((others.pop()?, UnhealthyNotice::default()));
        let tunnel = relay(
            client_side,
            |_: &TcpStream| None,
            first_side,
            |_: &TcpStream| None,
            TunnelRules { idle: Duration::ZERO, answers: true },
            UnhealthyNotice::default(),
            elsewhere,
        );
        let tunnel = tokio::spawn(tunnel);
        if !speaks_before {
            tokio::time::sleep(Duration::from_millis(40)).await;
            client.write_all(b"question").await.unwrap();
        }
        let mut question = [0; 8];
        second.read_exact(&mut question).await.unwrap();
        assert_eq!(&question, b"question");
        second.write_all(b"answer").await.unwrap();
        // From now on its end is passed on to the client.
        drop(second);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer");
        client.shutdown().await.unwrap();
        let _ = tunnel.await.unwrap();
    }
}

#[tokio::test]
async fn the_end_of_an_unused_upstream_is_passed_on_if_there_is_no_other_endpoint() {
    for resets in [true, false] {
        let ((mut client, client_side), (first, first_side)) = (pair(0).await, pair(0).await);
        if resets {
            first.set_zero_linger().unwrap();
        }
        drop(first);
        let tunnel =
            tokio::spawn(copy_both(client_side, first_side, Duration::ZERO, UnhealthyNotice::default()));
        let read = client.read(&mut [0; 8]).await;
        assert_eq!(read.is_err(), resets, "{read:?}");
        drop(client);
        assert_eq!(tunnel.await.unwrap().is_err(), resets);
    }
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_closes_at_once_and_without_a_byte_has_not_answered() {
    /// What the client sends, when the upstream ends, whether the client ends first, and whether it said something before.
    async fn ends(asks: bool, after: Duration, client_first: bool, answers: bool) -> Result<(), Reason> {
        let (mut client, client_side) = duplex(64);
        let (mut server, server_side) = duplex(64);
        let rules = TunnelRules { idle: Duration::ZERO, answers };
        let tunnel = relay(
            client_side,
            |_| None,
            server_side,
            |_| None,
            rules,
            UnhealthyNotice::default(),
            async || None,
        );
        let talk = async {
            if asks {
                client.write_all(b"question").await.unwrap();
            }
            if client_first {
                client.shutdown().await.unwrap();
            }
            tokio::time::sleep(after).await;
            server.shutdown().await.unwrap();
            client.read_to_end(&mut Vec::new()).await.unwrap();
            client.shutdown().await.unwrap();
        };
        tokio::join!(tunnel, talk).0.map(drop).map_err(|error| error.reason)
    }
    let (now, soon, later) = (Duration::ZERO, Duration::from_secs(5), Duration::from_secs(11));
    for (asks, after) in [(true, now), (true, soon), (false, now)] {
        assert_eq!(ends(asks, after, false, true).await, Err(Reason::UpstreamReset), "{asks} {after:?}");
        assert_eq!(ends(asks, after, true, true).await, Ok(()), "a probe, or a one-way protocol");
        assert_eq!(ends(asks, after, false, false).await, Ok(()), "it had answered");
    }
    assert_eq!(ends(true, later, false, true).await, Ok(()), "it closed an idle connection");
    assert_eq!(ends(false, soon, false, true).await, Ok(()), "it closed a connection that was made ahead");
}
