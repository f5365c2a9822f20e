//! Both sides of HTTP/2 against any peer: frames and bytes in any pieces, and an application that does anything at any
//! moment. After each step the counts equal a recount, and when all streams are dropped nothing is left.

mod socket;

use std::task::{Context, Poll, Waker};

use attache_http2::{
    Connection, ErrorCode, FrameHeader, HEAD, Incoming, PREFACE, RecvStream, SendStream, Settings,
    StreamOpener,
    fuzzing::{self, Unlimited},
};
use attache_wire::{Fields, RequestHead};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use self::socket::FuzzSocket;

/// The next actions, one byte each.
struct FuzzScript<'a>(&'a [u8]);

impl<'a> FuzzScript<'a> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn byte(&mut self) -> u8 {
        self.next().unwrap_or(0)
    }

    fn bytes(&mut self, n: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        bytes
    }
}

/// The parts of a stream that the application still holds.
struct HeldStream {
    send: Option<SendStream>,
    body: Option<Incoming>,
    head: Option<RecvStream>,
}

struct FuzzRun {
    connection: Connection<FuzzSocket>,
    socket: FuzzSocket,
    /// The connection's task has ended.
    ended: bool,
    caller: Option<StreamOpener>,
    held: Vec<HeldStream>,
}

impl FuzzRun {
    fn new(connection: Connection<FuzzSocket>, socket: FuzzSocket, caller: Option<StreamOpener>) -> Self {
        Self { connection, socket, ended: false, caller, held: Vec::new() }
    }

    /// The peer sends bytes.
    fn receive(&mut self, bytes: &[u8]) {
        self.socket.receive(bytes);
        self.poll();
    }

    /// The connection's task runs.
    fn poll(&mut self) {
        self.ended = self.ended || self.connection.poll(&mut Context::from_waker(Waker::noop())).is_ready();
        fuzzing::audit(&self.connection);
    }
}

/// A server against any client. Panics if the rule of this module does not hold.
pub fn server(data: &[u8]) {
    let mut script = FuzzScript(data);
    let socket = FuzzSocket::default();
    let connection = Connection::server(socket.clone(), settings(&mut script), Box::new(Unlimited));
    let mut all = FuzzRun::new(connection, socket, None);
    all.receive(PREFACE);
    run(all, script);
}

/// A client against any server. Panics if the rule of this module does not hold.
pub fn client(data: &[u8]) {
    let mut script = FuzzScript(data);
    let socket = FuzzSocket::default();
    let (connection, caller) = Connection::client(socket.clone(), settings(&mut script), Box::new(Unlimited));
    run(FuzzRun::new(connection, socket, Some(caller)), script);
}

fn settings(script: &mut FuzzScript<'_>) -> Settings {
    let size = script.byte();
    Settings {
        streams: 1 + u32::from(size & 7),
        window: [1, 100, 16_384, 65_535, 200_000][usize::from(size >> 3) % 5],
        window_most: 1 << 18,
        head_size: 2000,
        pending_resets: 10,
        send_buffer: 100 << (size >> 5),
        extended_connect: true,
    }
}

fn run(mut run: FuzzRun, mut script: FuzzScript<'_>) {
    while let Some(op) = script.next() {
        match op % 8 {
            0 => {
                let n = script.byte();
                let bytes = script.bytes(n.into());
                run.receive(bytes);
            }
            1..=3 => frame(op, &mut script).iter().for_each(|piece| run.receive(piece)),
            4 => {
                let n = usize::from(script.byte());
                run.socket.take(n * n);
                run.poll();
            }
            5 => whole(&mut run, &mut script),
            6 => open(&mut run, &mut script),
            _ => act(&mut run, &mut script),
        }
        fuzzing::audit(&run.connection);
    }
    while let Some(request) = run.connection.accept() {
        drop(request);
        fuzzing::audit(&run.connection);
    }
    for held in run.held {
        drop(held.send);
        drop(held.body);
        drop(held.head);
        fuzzing::audit(&run.connection);
    }
    fuzzing::audit_rest(&run.connection);
}

/// Actions on the whole connection.
fn whole(run: &mut FuzzRun, script: &mut FuzzScript<'_>) {
    match (script.byte(), &run.caller) {
        (0, None) => run.connection.say_goodbye(),
        (0, Some(caller)) => caller.retire(),
        (1, _) => run.connection.shrink(),
        (2, _) => {
            run.socket.end();
            run.poll();
        }
        (3, _) => {
            run.socket.refuse();
            run.poll();
        }
        (4, _) => run.connection.give_up(ErrorCode::PROTOCOL_ERROR, "enough"),
        (5, _) => run.connection.ask(),
        // The first frame of a correct peer.
        _ => run.receive(&FrameHeader { length: 0, kind: 4, flags: 0, stream: 0 }.bytes()),
    }
}

/// A frame, in up to two pieces.
fn frame(op: u8, script: &mut FuzzScript<'_>) -> Vec<Vec<u8>> {
    let (kind, flags, stream, size) = (script.byte() % 11, script.byte(), script.byte(), script.byte());
    let stream = match stream {
        0xff => 0x7fff_ffff,
        stream => u32::from(stream % 24),
    };
    // Payloads that mostly fit the frame's type; DATA also in sizes that matter for windows.
    let payload = match (kind, op % 8) {
        (0, 1) => vec![0; usize::from(size) * 64],
        (3 | 8, 1) => vec![if size > 250 { 0x7f } else { 0 }, 0, script.byte(), size],
        (4, 1) if flags & 1 == 0 => {
            let value = [0, 1, 100, 4096, 16_384, 65_535, 100_000, 0x7fff_ffff_u32][usize::from(size) % 8];
            [&[0, 1 + size / 8 % 8][..], &value.to_be_bytes()].concat()
        }
        (4, 1) => Vec::new(),
        (6, 1) => [&b"attache"[..], &[size % 5]].concat(),
        (7, 1) => vec![0, 0, 0, size, 0, 0, 0, script.byte()],
        _ => script.bytes(size.into()).to_vec(),
    };
    let all = [&FrameHeader { length: payload.len(), kind, flags, stream }.bytes()[..], &payload].concat();
    if op % 8 == 3 {
        let at = usize::from(size) % HEAD.min(all.len());
        return vec![all[..at].to_vec(), all[at..].to_vec()];
    }
    vec![all]
}

/// A new stream: one that a client has opened, or one that attache opens.
fn open(run: &mut FuzzRun, script: &mut FuzzScript<'_>) {
    match &run.caller {
        None => {
            if let Some(request) = run.connection.accept() {
                let (send, body) = (Some(request.send), Some(Incoming::new(request.body)));
                run.held.push(HeldStream { send, body, head: None });
            }
        }
        Some(caller) => {
            let way = script.byte();
            let method =
                [Method::GET, Method::HEAD, Method::CONNECT, Method::POST][usize::from(way) % 4].clone();
            let head = RequestHead { method, uri: "http://h/".parse().unwrap(), ..RequestHead::default() };
            if let Ok((send, body)) = caller.open(&head, way & 4 != 0) {
                run.held.push(HeldStream { send: Some(send), body: None, head: Some(body) });
            }
        }
    }
}

/// The application does something with one of its streams.
fn act(run: &mut FuzzRun, script: &mut FuzzScript<'_>) {
    let (which, what, size) = (script.byte(), script.byte(), script.byte());
    if run.held.is_empty() {
        return;
    }
    let which = usize::from(which) % run.held.len();
    let held = &mut run.held[which];
    let cx = &mut Context::from_waker(Waker::noop());
    let ends = size & 1 != 0;
    match (what % 12, &held.send) {
        (0, Some(send)) if run.caller.is_none() => {
            let status =
                [StatusCode::OK, StatusCode::EARLY_HINTS, StatusCode::NO_CONTENT][usize::from(size) % 3];
            let mut fields = Fields::new();
            fields.insert("x-a", HeaderValue::from_static("b"));
            send.answer(status, &fields, ends && !status.is_informational());
        }
        (1..=3, Some(send)) => {
            let wanted = usize::from(size) * 300 + 1;
            if let Poll::Ready(Ok(n)) = send.poll_capacity(cx, wanted) {
                assert!(n > 0 && n <= wanted);
                send.send(Bytes::from(vec![0; n]), ends);
            }
        }
        (4, Some(send)) => {
            send.send(Bytes::new(), ends);
        }
        (5, Some(send)) => {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-end", HeaderValue::from_static("yes"));
            send.trail(&trailers);
        }
        (6, Some(send)) => send.reset(ErrorCode(size.into())),
        (7, _) => drop(held.send.take()),
        (8, _) => {
            drop(held.body.take());
            drop(held.head.take());
        }
        (9, _) => {
            if let Some(received) = held.head.take() {
                while received.interim().is_some() {}
                if received.poll_head(cx).is_ready() {
                    held.body = Some(Incoming::new(received));
                } else {
                    held.head = Some(received);
                }
            }
        }
        (10 | 11, _) => {
            if let Some(body) = &mut held.body {
                let _ = (body.is_end_stream(), body.is_whole(), body.size_hint());
                let _ = body.poll_frame(cx);
            }
        }
        _ => {}
    }
    if held.send.is_none() && held.body.is_none() && held.head.is_none() {
        run.held.swap_remove(which);
    }
}
