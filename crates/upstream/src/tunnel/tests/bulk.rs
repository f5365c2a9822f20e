//! Bulk data between sockets, which moves inside the kernel, and messages, which are copied.

use proptest::prelude::Just;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{super::*, CHUNK, pair};

/// Bytes that show their position.
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
        let upstream = EndpointConnection::from(server_side);
        relay(
            client_side,
            |tcp| Some(PlainSocket::Tcp(tcp)),
            upstream,
            EndpointConnection::socket,
            TunnelRules { idle: Duration::ZERO, answers: true },
            UnhealthyNotice::default(),
            async || None,
        )
        .await
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
            // All windows fill, and the bytes in between wait.
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
        // Nothing is held after the end, and most bytes were moved inside the kernel.
        assert!(splice::tests::moved() > 32 << 20, "{}", splice::tests::moved());
        assert!(splice::tests::open() <= splice::MAX_WAITING_PIPES, "{}", splice::tests::open());
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
async fn bytes_that_the_kernel_can_not_move_are_copied() {
    let bytes = numbered(8 << 20);
    for step in [splice::tests::SpliceStep::Fill, splice::tests::SpliceStep::Drain] {
        splice::tests::forget();
        splice::tests::refuse(step);
        let (read, _) = through_sockets(&bytes, &[1 << 20], 0, false).await;
        assert!(read == bytes, "{step:?}: {} of {}", read.len(), bytes.len());
        assert_eq!(splice::tests::moved(), 0, "{step:?}");
    }
}

#[tokio::test]
async fn bytes_in_a_pipe_are_written_before_bytes_that_are_read_later() {
    #[expect(clippy::unnecessary_wraps, reason = "the signature that a tunnel needs")]
    fn plain(tcp: &TcpStream) -> Option<PlainSocket<'_>> {
        Some(PlainSocket::Tcp(tcp))
    }
    let ((mut client, mut from), (mut server, mut to)) = (pair(0).await, pair(8_000).await);
    let mut direction = Direction::in_bulk();
    // The writer's windows are full.
    let mut first = 0;
    while let Ok(n) = to.try_write(&[1; 1000]) {
        first += n;
    }
    // A small piece ends the bulk mode and stays in the pipe; another one comes after it.
    for piece in [2_u8, 3] {
        client.write_all(&[piece; 5000]).await.unwrap();
        from.readable().await.unwrap();
        let polled = std::future::poll_fn(|cx| {
            Poll::Ready(direction.poll(
                cx,
                (Pin::new(&mut from), &plain),
                (Pin::new(&mut to), &plain),
                &mut vec![0; CHUNK],
                false,
            ))
        });
        assert!(polled.await.is_pending());
    }
    drop(client);
    let mut all = Vec::new();
    let rest = std::future::poll_fn(|cx| {
        direction.poll(
            cx,
            (Pin::new(&mut from), &plain),
            (Pin::new(&mut to), &plain),
            &mut vec![0; CHUNK],
            false,
        )
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
