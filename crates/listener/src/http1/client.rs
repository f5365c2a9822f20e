//! The client's side of one connection: its socket, the bytes that were read, and the positions of its messages.
//!
//! The connection's task and the body of the request that runs share it. The one that needs bytes reads them itself, so no byte is
//! handed over between tasks.

use std::{
    io,
    pin::{Pin, pin},
    task::{Context, Poll, Waker, ready},
};

use attache_telemetry::Reason;
use attache_wire::{
    Fault, Kind,
    buffers::{self, Bulk, SIZE},
    outbox::Outbox,
    server::Reader,
};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWrite as _};

use crate::{request::Refusal, stream::Stream};

/// Bytes that are read ahead of a request that runs: the begin of the next one, or of a tunnel that isn't open yet.
const AHEAD: usize = SIZE;

#[derive(Debug)]
pub(super) struct Client {
    pub(super) stream: Stream,
    pub(super) buf: BytesMut,
    pub(super) reader: Reader,
    pub(super) out: Outbox,
    /// The client has closed its side: nothing more comes.
    pub(super) ended: bool,
    /// The connection has ended.
    pub(super) gone: bool,
    /// Why the body that runs was refused. Boxed, since it seldom is.
    pub(super) broken: Option<Box<Refusal>>,
    /// The running request, counted from 1; the body with the same number may read.
    pub(super) request: u64,
    /// The client waits for 100 before it sends the body.
    pub(super) expects: bool,
    /// The body is wanted, so that 100 is to be sent.
    pub(super) wanted: bool,
    /// Somebody holds the body that runs.
    pub(super) body_held: bool,
    /// The connection's task.
    pub(super) task: Option<Waker>,
    /// Who reads the body, where that is another task.
    pub(super) body_task: Option<Waker>,
    bulk: Bulk,
    unflushed: bool,
}

pub(super) fn refusal(fault: Fault) -> Refusal {
    let reason = match fault.kind {
        Kind::Invalid => Reason::BadRequest,
        Kind::LineTooLong => Reason::UriTooLong,
        Kind::FieldsTooLarge => Reason::HeadersTooLarge,
        Kind::UnknownCoding => Reason::UnknownCoding,
    };
    Refusal { reason, rule: fault.rule, at: fault.at }
}

impl Client {
    pub(super) fn new(stream: Stream, reader: Reader) -> Self {
        Self {
            stream,
            buf: BytesMut::new(),
            reader,
            out: Outbox::default(),
            ended: false,
            gone: false,
            broken: None,
            request: 0,
            expects: false,
            wanted: false,
            body_held: false,
            task: None,
            body_task: None,
            bulk: Bulk::default(),
            unflushed: false,
        }
    }

    /// Reads once; 0 at the client's end.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.gone {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        if self.ended {
            return Poll::Ready(Ok(0));
        }
        let room = self.bulk.make_room(&mut self.buf);
        let read = pin!(self.stream.read_buf(&mut self.buf)).poll(cx);
        match read {
            Poll::Pending => {}
            Poll::Ready(Ok(0)) => self.ended = true,
            Poll::Ready(Ok(n)) => self.bulk.read(n, room),
            Poll::Ready(Err(_)) => self.gone = true,
        }
        read
    }

    /// Reads what comes behind the request that runs, to see the client leave; ready when it has.
    pub(super) fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.ended && self.buf.len() < AHEAD {
            if ready!(self.poll_fill(cx)).is_err() {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }

    /// Writes everything that waits.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let stream = Pin::new(&mut self.stream);
            let n = match self.out.single() {
                Some(bytes) => ready!(stream.poll_write(cx, bytes))?,
                None => ready!(stream.poll_write_vectored(cx, &self.out.slices()))?,
            };
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            self.out.advance(n);
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
            buffers::put(self.out.buffer());
        }
        Poll::Ready(Ok(()))
    }

    /// The buffer for a head.
    pub(super) fn head(&mut self) -> &mut BytesMut {
        let out = self.out.head();
        if out.capacity() == 0 {
            *out = buffers::take();
        }
        out
    }

    /// The reader of the body wakes the connection's task.
    pub(super) fn told_by(&mut self, cx: &Context<'_>) {
        if !self.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            self.task = Some(cx.waker().clone());
        }
    }

    pub(super) fn wake_task(&self, cx: Option<&Context<'_>>) {
        if let Some(task) = &self.task
            && cx.is_none_or(|cx| !task.will_wake(cx.waker()))
        {
            task.wake_by_ref();
        }
    }

    /// The connection has ended, even if other owners of this remain.
    pub(super) fn close(&mut self) {
        self.gone = true;
        self.stream = Stream::gone();
        buffers::put(self.out.buffer());
        self.buf = BytesMut::new();
        if let Some(task) = self.body_task.take() {
            task.wake();
        }
    }
}
