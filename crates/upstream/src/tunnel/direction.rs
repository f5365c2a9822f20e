//! One direction of a tunnel.
//!
//! Rules:
//! - A direction whose writer is slow holds at most [`CHUNK`] bytes and reads no more: the kernel's windows give
//!   back-pressure. A direction that waits for bytes holds nothing: it reads into one scratch buffer of the worker, and
//!   copies to its own buffer only the bytes that the other side does not accept at once.
//! - After a read that did not fill the buffer, the runtime waits for readiness before it reads again (epoll is
//!   edge-triggered), so a message costs one read and one write.
//! - A read that fills the buffer is the sign of bulk data. Between two plain sockets, bulk data then moves inside the
//!   kernel ([`splice`]), until it arrives in small pieces again.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use attache_http::Abort;
use attache_telemetry::Reason;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::coop::has_budget_remaining,
};

use super::splice::{self, PipeLease, PlainSocket, ReadOutcome};

/// The most bytes that one read takes, and that one direction holds.
pub(super) const CHUNK: usize = 64 << 10;

/// The most pieces of one direction before the other direction and the timers get a turn. tokio ends a task's turn
/// after 128 reads and writes, and nothing else in the task is ready from then on: a direction that never waits would
/// block all others.
const PIECES: u32 = 16;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Gives one poll of a tunnel the worker's read buffer.
pub(super) fn with_scratch<T>(poll: impl FnOnce(&mut [u8]) -> T) -> T {
    let mut scratch = SCRATCH.take();
    if scratch.is_empty() {
        scratch.resize(CHUNK, 0);
    }
    let result = poll(&mut scratch);
    SCRATCH.replace(scratch);
    result
}

/// The side that failed.
pub(super) enum DirectionError {
    Reader(io::Error),
    Writer(io::Error),
}

impl DirectionError {
    pub(super) fn map(self, reader: Reason, writer: Reason) -> (Reason, Option<io::Error>) {
        match self {
            Self::Reader(error) => (reader, Some(error)),
            Self::Writer(error) => (writer, Some(error)),
        }
    }
}

/// One direction of the tunnel.
#[derive(Default)]
pub(super) struct Direction {
    /// Bytes that were read and not yet written; the memory is released as soon as it is empty.
    held: Vec<u8>,
    /// How much of `held` is written.
    written: usize,
    unflushed: bool,
    ended: bool,
    /// If the reader ends before its first byte, the end isn't passed on yet.
    keeps_end: bool,
    /// The writer has accepted a byte.
    wrote: bool,
    done: bool,
    /// It waits only for its reader, which knows the task to wake.
    waits: bool,
    pub(super) copied: u64,
    /// The last read filled its buffer, so the next bytes are spliced and not copied, if possible.
    bulk: bool,
    /// The kernel can't move bytes between these two sockets.
    copies_only: bool,
    /// The pipe for spliced bytes; released whenever it is empty.
    pipe: Option<PipeLease>,
}

/// One end of a tunnel, and its socket, if bytes can be moved from and to it.
type TunnelSide<'a, S, F> = (Pin<&'a mut S>, &'a F);

impl Direction {
    /// A direction that doesn't pass on an end before the first byte, until it is told to.
    pub(super) fn keeping_its_end() -> Self {
        Self { keeps_end: true, ..Self::default() }
    }

    /// True if its reader has ended without a byte, and its writer does not know it yet.
    pub(super) const fn keeps_an_end(&self) -> bool {
        self.keeps_end && self.ended && self.copied == 0 && !self.done
    }

    /// Passes on the end that it kept, or an end that comes later.
    pub(super) fn tell_its_end(&mut self) {
        self.keeps_end = false;
    }

    /// True if its writer has accepted no byte yet, and was not closed.
    pub(super) const fn is_unused(&self) -> bool {
        !self.wrote && !self.done
    }

    /// True if it does not read now, and so does not notice a reset of its reader.
    pub(super) const fn is_deaf(&self) -> bool {
        self.ended || !self.held.is_empty() || self.pipe.is_some()
    }

    /// True if its reader's end was passed on.
    pub(super) const fn is_done(&self) -> bool {
        self.done
    }

    /// A direction whose last read filled its buffer.
    #[cfg(test)]
    pub(super) fn in_bulk() -> Self {
        Self { bulk: true, ..Self::default() }
    }

    /// Moves what there is. `is_known`: the task is the one that polled it before.
    pub(super) fn poll<R: AsyncRead + Abort, W: AsyncWrite>(
        &mut self,
        cx: &mut Context<'_>,
        (mut reader, from): TunnelSide<'_, R, impl Fn(&R) -> Option<PlainSocket<'_>>>,
        (mut writer, to): TunnelSide<'_, W, impl Fn(&W) -> Option<PlainSocket<'_>>>,
        scratch: &mut [u8],
        is_known: bool,
    ) -> Poll<Result<(), DirectionError>> {
        if self.done {
            return Poll::Ready(Ok(()));
        }
        // The task was woken for the other direction.
        if self.waits && is_known && reader.is_quiet() {
            return Poll::Pending;
        }
        self.waits = false;
        let mut pieces = 0;
        loop {
            while self.written < self.held.len() {
                let rest = self.held.get(self.written..).unwrap_or_default();
                let n = ready!(write(cx, writer.as_mut(), rest))?;
                self.written += n;
                (self.wrote, self.unflushed) = (true, true);
            }
            if !self.held.is_empty() {
                self.held = Vec::new();
                self.written = 0;
            }
            // Bytes in the pipe are written before anything that is read now.
            if (self.bulk || self.pipe.is_some())
                && let Some(from) = from(&reader)
                && let Some(to) = to(&writer)
            {
                ready!(self.splice(cx, &from, &to, &mut pieces))?;
                continue;
            }
            if self.ended && self.keeps_end && self.copied == 0 {
                return Poll::Pending;
            }
            if self.ended {
                match ready!(writer.as_mut().poll_shutdown(cx)) {
                    // The socket is already closed in both directions; the direction that reads it reports this.
                    Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
                    ended => ended.map_err(DirectionError::Writer)?,
                }
                self.done = true;
                return Poll::Ready(Ok(()));
            }
            ready!(take_turn(cx, &mut pieces));
            let mut buf = ReadBuf::new(scratch);
            match reader.as_mut().poll_read(cx, &mut buf) {
                Poll::Ready(read) => read.map_err(DirectionError::Reader)?,
                Poll::Pending => {
                    // TLS buffers records: they must be flushed before this direction waits.
                    if self.unflushed
                        && writer.as_mut().poll_flush(cx).map_err(DirectionError::Writer)?.is_ready()
                    {
                        self.unflushed = false;
                    }
                    // If the task has used up its budget, the reader was not polled, and will not wake it.
                    self.waits = !self.unflushed && has_budget_remaining();
                    return Poll::Pending;
                }
            }
            let mut bytes = buf.filled();
            self.copied += bytes.len() as u64;
            self.ended = bytes.is_empty();
            self.bulk = bytes.len() == CHUNK && !self.copies_only;
            while !bytes.is_empty() {
                match write(cx, writer.as_mut(), bytes) {
                    Poll::Ready(Ok(n)) => {
                        bytes = bytes.get(n..).unwrap_or_default();
                        (self.wrote, self.unflushed) = (true, true);
                    }
                    Poll::Ready(Err(error)) => {
                        // Kept for another writer, if this one accepted nothing.
                        self.held = bytes.to_vec();
                        return Poll::Ready(Err(error));
                    }
                    Poll::Pending => {
                        self.held = bytes.to_vec();
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    /// Moves bytes inside the kernel until there are none, and ends the bulk mode if they come in small pieces.
    fn splice(
        &mut self,
        cx: &mut Context<'_>,
        from: &PlainSocket<'_>,
        to: &PlainSocket<'_>,
        pieces: &mut u32,
    ) -> Poll<Result<(), DirectionError>> {
        let mut turn = 0;
        // Held in a local variable, so that every return releases it, except the one for a slow writer.
        let Some(mut pipe) = self.pipe.take().or_else(PipeLease::take) else {
            // Too many pipes are in use: this piece is copied.
            self.bulk = false;
            return Poll::Ready(Ok(()));
        };
        loop {
            while !pipe.is_empty() {
                match pipe.drain(cx, to) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) if splice::is_refused(&error) => {
                        self.held = pipe.take_back().map_err(DirectionError::Writer)?;
                        (self.bulk, self.copies_only) = (false, true);
                        return Poll::Ready(Ok(()));
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(DirectionError::Writer(error))),
                    Poll::Pending => {
                        self.pipe = Some(pipe);
                        return Poll::Pending;
                    }
                }
            }
            if !self.bulk {
                return Poll::Ready(Ok(()));
            }
            if turn >= splice::MAX_BYTES_PER_TURN {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            ready!(take_turn(cx, pieces));
            match ready!(pipe.fill(cx, from)) {
                Ok(ReadOutcome::Some(n)) => {
                    self.copied += n as u64;
                    self.bulk = turn > 0 || n >= splice::SMALL;
                    turn += n;
                }
                Ok(ReadOutcome::End) => (self.ended, self.bulk) = (true, false),
                Err(error) if splice::is_refused(&error) => {
                    (self.bulk, self.copies_only) = (false, true);
                }
                Err(error) => return Poll::Ready(Err(DirectionError::Reader(error))),
            }
        }
    }
}

/// Counts a piece, and ends the direction's turn after [`PIECES`] of them.
fn take_turn(cx: &Context<'_>, pieces: &mut u32) -> Poll<()> {
    if *pieces == PIECES {
        cx.waker().wake_by_ref();
        return Poll::Pending;
    }
    *pieces += 1;
    Poll::Ready(())
}

fn write(
    cx: &mut Context<'_>,
    writer: Pin<&mut impl AsyncWrite>,
    bytes: &[u8],
) -> Poll<Result<usize, DirectionError>> {
    match ready!(writer.poll_write(cx, bytes)) {
        Ok(0) => Poll::Ready(Err(DirectionError::Writer(io::ErrorKind::WriteZero.into()))),
        Ok(n) => Poll::Ready(Ok(n)),
        Err(error) => Poll::Ready(Err(DirectionError::Writer(error))),
    }
}
