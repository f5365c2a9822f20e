//! A connection that is read in turns, so that a peer that never pauses can't block the other tasks of the thread.
//!
//! hyper reads everything that is there, and processes everything that it has read, before any other task runs. One buffer may contain tens
//! of thousands of interim responses (RFC 9110 section 15.2). All of attache's own calls share one thread with probes, scrapes and timers.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf, Take};

use crate::Io;

/// How many bytes are read before other tasks have their turn.
const MAX_BYTES_PER_READ: u64 = 16 << 10;

pub(super) struct PacedIo(Take<Box<dyn Io>>);

impl PacedIo {
    pub(super) fn new(io: Box<dyn Io>) -> Self {
        Self(io.take(MAX_BYTES_PER_READ))
    }
}

impl AsyncRead for PacedIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.0.limit() == 0 {
            self.0.set_limit(MAX_BYTES_PER_READ);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for PacedIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(self.0.get_mut()).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.0.get_mut()).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.get_ref().is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.0.get_mut()).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.0.get_mut()).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn others_have_a_turn_after_so_many_bytes_and_none_is_lost() {
        let sent: Vec<u8> = (0..100_000_u32).map(|n| n as u8).collect();
        let (near, mut far) = tokio::io::duplex(1 << 20);
        tokio::io::AsyncWriteExt::write_all(&mut far, &sent).await.unwrap();
        drop(far);
        let (mut paced, mut got, mut turns) = (PacedIo::new(Box::new(near)), Vec::new(), 0);
        let mut space = vec![0; 1 << 20];
        poll_fn(|cx| {
            turns += 1;
            loop {
                let mut buf = ReadBuf::new(&mut space);
                match Pin::new(&mut paced).poll_read(cx, &mut buf) {
                    Poll::Ready(Ok(())) if buf.filled().is_empty() => return Poll::Ready(()),
                    Poll::Ready(read) => read.map(|()| got.extend_from_slice(buf.filled())).unwrap(),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await;
        assert_eq!((got == sent, turns), (true, 1 + 100_000 / MAX_BYTES_PER_READ as usize));
    }
}
