//! Moves bytes from one socket to another inside the kernel, through a pipe (`splice(2)`): without a copy to the
//! program and back.
//!
//! A pipe is taken for a piece and released as soon as it is empty, so only a direction whose reader is slow keeps one.
//! A worker keeps a few pipes for the next piece, and has at most [`MAX_PIPES`]; further bulk data is copied.

use std::{
    cell::RefCell,
    io::{self, Read},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    task::{Context, Poll, ready},
};

use rustix::{
    io::Errno,
    pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice},
};
use tokio::{
    io::Interest,
    net::{TcpStream, UnixStream},
};

/// The most bytes of one direction that are in the kernel between two sockets. Larger pieces gain nothing.
const CAPACITY: usize = 256 << 10;
/// The size of a pipe if the kernel does not give [`CAPACITY`] (pipe(7), `/proc/sys/fs/pipe-user-pages-soft`).
const MIN_CAPACITY: usize = 64 << 10;
/// The most bytes of one direction that move before other tasks get a turn.
pub(super) const MAX_BYTES_PER_TURN: usize = 1 << 20;
/// A first piece smaller than this is not bulk: a copy costs less than a pipe.
pub(super) const SMALL: usize = 16 << 10;
/// The most pipes of one worker; each has two descriptors.
const MAX_PIPES: usize = 128;
/// The most pipes that wait for the next piece.
pub(super) const MAX_WAITING_PIPES: usize = 4;

/// A plain socket: its bytes are the connection's bytes.
#[derive(Clone, Copy, Debug)]
pub enum PlainSocket<'a> {
    /// TCP.
    Tcp(&'a TcpStream),
    /// A Unix socket.
    Unix(&'a UnixStream),
}

macro_rules! each {
    ($self:expr, $io:ident => $body:expr) => {
        match $self {
            PlainSocket::Tcp($io) => $body,
            PlainSocket::Unix($io) => $body,
        }
    };
}

impl PlainSocket<'_> {
    fn fd(&self) -> BorrowedFd<'_> {
        each!(self, io => io.as_fd())
    }
}

/// The result of a read.
pub(super) enum ReadOutcome {
    Some(usize),
    End,
}

struct KernelPipe {
    out: OwnedFd,
    into: OwnedFd,
    capacity: usize,
}

impl KernelPipe {
    fn open() -> io::Result<Self> {
        let (out, into) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let capacity = fcntl_setpipe_size(&into, CAPACITY).unwrap_or(MIN_CAPACITY);
        Ok(Self { out, into, capacity })
    }
}

/// A worker's pipes.
struct Pipes {
    idle: Vec<KernelPipe>,
    open: usize,
}

thread_local! {
    static PIPES: RefCell<Pipes> = const { RefCell::new(Pipes { idle: Vec::new(), open: 0 }) };
}

/// A pipe in use.
pub(super) struct PipeLease {
    /// `None` only while it is dropped.
    pipe: Option<KernelPipe>,
    held: usize,
}

impl PipeLease {
    /// One of the worker's pipes, or a new one; `None` if the worker or the system has too many.
    pub(super) fn take() -> Option<Self> {
        PIPES.with_borrow_mut(|pipes| {
            let pipe = match pipes.idle.pop() {
                Some(pipe) => pipe,
                None if pipes.open < MAX_PIPES => {
                    let pipe = KernelPipe::open().ok()?;
                    pipes.open += 1;
                    pipe
                }
                None => return None,
            };
            Some(Self { pipe: Some(pipe), held: 0 })
        })
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Moves the socket's bytes into the pipe. Only for an empty pipe: otherwise "no room" and "no bytes" would look
    /// the same.
    pub(super) fn fill(
        &mut self,
        cx: &mut Context<'_>,
        from: &PlainSocket<'_>,
    ) -> Poll<io::Result<ReadOutcome>> {
        let Some(pipe) = &self.pipe else { return Poll::Ready(Ok(ReadOutcome::End)) };
        loop {
            ready!(each!(from, io => io.poll_read_ready(cx)))?;
            let moved = each!(from, io => io.try_io(Interest::READABLE, || go(SpliceStep::Fill, from.fd(), pipe.into.as_fd(), pipe.capacity)));
            match moved {
                Ok(0) => return Poll::Ready(Ok(ReadOutcome::End)),
                Ok(n) => {
                    self.held = n;
                    return Poll::Ready(Ok(ReadOutcome::Some(n)));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Writes as much as the socket accepts without waiting.
    pub(super) fn drain(&mut self, cx: &mut Context<'_>, to: &PlainSocket<'_>) -> Poll<io::Result<()>> {
        let Some(pipe) = &self.pipe else { return Poll::Ready(Ok(())) };
        loop {
            ready!(each!(to, io => io.poll_write_ready(cx)))?;
            let moved = each!(to, io => io.try_io(Interest::WRITABLE, || go(SpliceStep::Drain, pipe.out.as_fd(), to.fd(), self.held)));
            match moved {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(n) => {
                    self.held = self.held.saturating_sub(n);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Reads the pipe's content, for a socket that can't be spliced to.
    pub(super) fn take_back(&mut self) -> io::Result<Vec<u8>> {
        let Some(pipe) = self.pipe.take() else { return Ok(Vec::new()) };
        PIPES.with_borrow_mut(|pipes| pipes.open -= 1);
        drop(pipe.into);
        let mut bytes = Vec::with_capacity(std::mem::take(&mut self.held));
        std::fs::File::from(pipe.out).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

impl Drop for PipeLease {
    fn drop(&mut self) {
        let Some(pipe) = self.pipe.take() else { return };
        // At the worker's end the list may be dropped before the tunnel.
        let _ = PIPES.try_with(|pipes| {
            let mut pipes = pipes.borrow_mut();
            if self.held == 0 && pipes.idle.len() < MAX_WAITING_PIPES {
                pipes.idle.push(pipe);
            } else {
                pipes.open -= 1;
            }
        });
    }
}

/// The two steps of a piece: into the pipe, and out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SpliceStep {
    Fill,
    Drain,
}

#[cfg_attr(not(test), expect(unused_variables, reason = "tests refuse one of them"))]
fn go(step: SpliceStep, from: BorrowedFd<'_>, to: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
    #[cfg(test)]
    tests::may(step)?;
    let n = splice(from, None, to, None, most, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)?;
    #[cfg(test)]
    tests::count(step, n);
    Ok(n)
}

/// True if the kernel, or its replacement, does not splice here: filters of system calls, gVisor, sockets of other
/// kinds.
pub(super) fn is_refused(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::INVAL | Errno::NOSYS | Errno::PERM | Errno::OPNOTSUPP))
}

/// What tests read of a worker's pipes, and errors of the kernel that they simulate.
#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;

    pub(in super::super) use super::SpliceStep;
    use super::*;

    thread_local! {
        static MOVED: Cell<usize> = const { Cell::new(0) };
        static REFUSED: Cell<Option<SpliceStep>> = const { Cell::new(None) };
    }

    pub(super) fn may(step: SpliceStep) -> io::Result<()> {
        if REFUSED.get() == Some(step) { Err(Errno::INVAL.into()) } else { Ok(()) }
    }

    pub(super) fn count(step: SpliceStep, n: usize) {
        if step == SpliceStep::Drain {
            MOVED.set(MOVED.get() + n);
        }
    }

    pub(in super::super) fn refuse(step: SpliceStep) {
        REFUSED.set(Some(step));
    }

    pub(in super::super) fn forget() {
        MOVED.set(0);
        REFUSED.set(None);
    }

    /// Bytes that went from a pipe to a socket.
    pub(in super::super) fn moved() -> usize {
        MOVED.get()
    }

    /// The number of open pipes.
    pub(in super::super) fn open() -> usize {
        PIPES.with_borrow(|pipes| pipes.open)
    }
}
