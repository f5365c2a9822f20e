//! The client's side of one connection: its socket, the bytes that were read, and the positions of its messages.
//!
//! The connection's task and the body of the running request share it. Each reads the bytes that it needs itself, so no byte is passed from
//! task to task.

use std::{
    io,
    pin::{Pin, pin},
    task::{Context, Poll, Waker, ready},
};

use attache_telemetry::Reason;
use attache_wire::{
    FaultKind, MessageFault,
    buffers::{self, BulkReads, SIZE},
    outbox::Outbox,
    server::RequestReader,
};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWrite as _};

use crate::{request::EarlyRefusal, stream::ClientStream};

/// How many bytes are read ahead during a request: the beginning of the next request, or of a tunnel that isn't open yet.
const READ_AHEAD_BYTES: usize = SIZE;

#[derive(Debug)]
pub(super) struct Http1Io {
    pub(super) stream: ClientStream,
    pub(super) buf: BytesMut,
    pub(super) reader: RequestReader,
    pub(super) out: Outbox,
    /// The client has closed its side: no more bytes will come.
    pub(super) ended: bool,
    /// The connection has ended.
    pub(super) gone: bool,
    /// Why the body of the running request was refused. Boxed, because that is rare.
    pub(super) broken: Option<Box<EarlyRefusal>>,
    /// The running request, counted from 1; the body with the same number may read.
    pub(super) request: u64,
    /// The client waits for status 100 before it sends the body.
    pub(super) expects: bool,
    /// The reader wants the body, so status 100 must be sent.
    pub(super) wanted: bool,
    /// Some code holds the body of the running request.
    pub(super) body_held: bool,
    /// The connection's task.
    pub(super) task: Option<Waker>,
    /// The task that reads the body, if it is another one.
    pub(super) body_task: Option<Waker>,
    bulk: BulkReads,
    unflushed: bool,
}

pub(super) fn refusal(fault: MessageFault) -> EarlyRefusal {
    let reason = match fault.kind {
        FaultKind::Invalid => Reason::BadRequest,
        FaultKind::LineTooLong => Reason::UriTooLong,
        FaultKind::FieldsTooLarge => Reason::HeadersTooLarge,
        FaultKind::UnknownCoding => Reason::UnknownCoding,
    };
    EarlyRefusal { reason, rule: fault.rule, at: fault.at }
}

impl Http1Io {
    pub(super) fn new(stream: ClientStream, reader: RequestReader) -> Self {
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
            bulk: BulkReads::default(),
            unflushed: false,
        }
    }

    /// Reads once. Returns 0 at the end of the client's bytes.
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

    /// Reads what follows the running request, to notice that the client leaves. Ready when it has left.
    pub(super) fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.ended && self.buf.len() < READ_AHEAD_BYTES {
            if ready!(self.poll_fill(cx)).is_err() {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }

    /// Writes everything that waits to be written.
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

    /// The buffer that a head is written to.
    pub(super) fn head(&mut self) -> &mut BytesMut {
        let out = self.out.head();
        if out.capacity() == 0 {
            *out = buffers::take();
        }
        out
    }

    /// Notes the task of the body's reader; it is woken together with the connection's task.
    pub(super) fn woken_by(&mut self, cx: &Context<'_>) {
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

    /// The connection has ended, even if this value has other owners.
    pub(super) fn close(&mut self) {
        self.gone = true;
        self.stream = ClientStream::gone();
        buffers::put(self.out.buffer());
        self.buf = BytesMut::new();
        if let Some(task) = self.body_task.take() {
            task.wake();
        }
    }
}
