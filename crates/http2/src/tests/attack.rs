//! What a peer may try, against the state alone. Each test is a case that caused, or could have caused, a stream that hangs, a count that
//! is wrong, or memory that is not released.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Wake, Waker},
};

use super::*;
use crate::{HEAD, PREFACE, kind, state::ConnectionState};

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    [&FrameHeader { length: payload.len(), kind, flags, stream }.bytes()[..], payload].concat()
}

/// `GET http://h/x`, and a response with status 200.
const GET: &[u8] = b"\x82\x86\x04\x02/x\x41\x01h";
const OK: &[u8] = &[0x88];

/// Counts frames for streams that no longer exist.
#[derive(Debug, Default, Clone)]
struct LateFrames(Rc<std::cell::Cell<usize>>);

impl Meter for LateFrames {
    fn received(&mut self, _: FrameHeader) -> Result<(), FloodLimitExceeded> {
        Ok(())
    }

    fn charged(&mut self) -> Result<(), FloodLimitExceeded> {
        Ok(())
    }

    fn late(&mut self, _: FrameHeader) -> Result<(), FloodLimitExceeded> {
        self.0.set(self.0.get() + 1);
        Ok(())
    }

    fn sent(&mut self, _: usize) {}

    fn asked(&mut self) {}
}

struct WakeCounter(AtomicUsize);

impl Wake for WakeCounter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn count() -> (Arc<WakeCounter>, Waker) {
    let count = Arc::new(WakeCounter(AtomicUsize::new(0)));
    (Arc::clone(&count), Waker::from(count))
}

fn give(state: &mut ConnectionState, frames: &[Vec<u8>]) {
    let mut bytes = BytesMut::from(&frames.concat()[..]);
    state.receive(&mut bytes);
}

fn server() -> ConnectionState {
    let mut state = ConnectionState::new(true, SETTINGS, Box::new(Unlimited));
    give(&mut state, &[PREFACE.to_vec(), frame(kind::SETTINGS, 0, 0, &[])]);
    state
}

fn client() -> ConnectionState {
    let mut state = ConnectionState::new(false, SETTINGS, Box::new(Unlimited));
    give(&mut state, &[frame(kind::SETTINGS, 0, 0, &[])]);
    state.out.clear();
    state
}

fn initial_window(size: u32) -> Vec<u8> {
    frame(kind::SETTINGS, 0, 0, &[&[0, 4][..], &size.to_be_bytes()].concat())
}

fn update(stream: u32, bytes: u32) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())
}

/// The frames that wait for the socket, as type and stream.
fn said(state: &mut ConnectionState) -> Vec<(u8, u32)> {
    let mut all = Vec::new();
    while !state.out.is_empty() {
        all.extend_from_slice(&state.out.pop());
    }
    let (mut rest, mut said) = (&all[..], Vec::new());
    rest = rest.strip_prefix(PREFACE).unwrap_or(rest);
    while let Some(head) = rest.first_chunk::<HEAD>().map(FrameHeader::parse) {
        rest = &rest[HEAD + head.length..];
        said.push((head.kind, head.stream));
    }
    said
}

#[test]
fn after_a_burst_that_fills_the_room_for_answers_reading_continues() {
    run(async {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut ours, theirs) = tokio::io::duplex(1 << 20);
        spawn_local(serve(theirs, SETTINGS));
        let pings = frame(kind::PING, 0, 0, &[7; 8]).repeat(20_000);
        let begin = [PREFACE, &frame(kind::SETTINGS, 0, 0, &[]), &pings].concat();
        ours.write_all(&begin).await.unwrap();
        let (mut answers, mut head) = (0, [0; HEAD]);
        while answers < 20_000 {
            ours.read_exact(&mut head).await.unwrap();
            let head = FrameHeader::parse(&head);
            ours.read_exact(&mut vec![0; head.length]).await.unwrap();
            answers += usize::from(head.kind == kind::PING && head.is_ack());
        }
    });
}

#[test]
fn frames_are_still_written_to_a_client_that_ended_its_side() {
    run(async {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut ours, theirs) = tokio::io::duplex(1000);
        let server = spawn_local(serve(theirs, SETTINGS));
        let begin = [PREFACE, &frame(kind::SETTINGS, 0, 0, &[])].concat();
        ours.write_all(&begin).await.unwrap();
        ours.write_all(&frame(kind::PING, 0, 0, &[7; 8]).repeat(1000)).await.unwrap();
        ours.shutdown().await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut all = Vec::new();
        ours.read_to_end(&mut all).await.unwrap();
        assert!(all.len() > 17_000, "{}", all.len());
        server.await.unwrap().unwrap();
    });
}

#[test]
fn a_stream_waits_again_after_its_window_became_smaller_than_its_reserved_bytes() {
    let mut state = server();
    give(
        &mut state,
        &[
            update(0, 1),
            frame(kind::HEADERS, 5, 1, GET),
            frame(kind::HEADERS, 5, 3, GET),
            initial_window(1 << 20),
        ],
    );
    let (one, two) = (state.place(1).unwrap(), state.place(3).unwrap());
    let (_, idle) = count();
    // One stream gets the whole window of the connection; then both wait for more.
    for key in [one, two] {
        state.answer(key, StatusCode::OK, &Fields::new(), false);
    }
    while state.send_window > 0 {
        let n = state.capacity(one, 1 << 20, &idle);
        state.data_out(one, vec![0; n as usize].into(), false);
        state.out.clear();
    }
    let (woken, waker) = count();
    assert_eq!(state.capacity(one, 1000, &waker), 0);
    assert_eq!(state.capacity(two, 1000, &waker), 0);
    give(&mut state, &[update(0, 1500)]);
    assert_eq!(woken.0.load(Ordering::Relaxed), 2);
    // The first stream has reserved bytes, and loses its window before it can use them.
    give(&mut state, &[initial_window(0)]);
    assert_eq!(state.capacity(one, 1000, &waker), 0);
    assert_eq!(state.capacity(two, 1000, &waker), 0);
    let before = woken.0.load(Ordering::Relaxed);
    assert_eq!(state.reserved(), 0, "bytes that can't be used are released");
    give(&mut state, &[initial_window(1 << 20)]);
    assert_eq!(woken.0.load(Ordering::Relaxed), before + 2, "both are woken");
    assert_eq!(state.capacity(one, 1000, &waker), 1000);
    state.data_out(one, vec![0; 1000].into(), false);
    assert_eq!(state.capacity(two, 1000, &waker), 500);
}

#[test]
fn streams_that_were_cancelled_while_they_waited_leave_the_queue() {
    let mut state = server();
    give(&mut state, &[initial_window(1 << 20)]);
    let (_, idle) = count();
    for id in (1..4001).step_by(2) {
        give(&mut state, &[frame(kind::HEADERS, 5, id, GET)]);
        let key = state.take_request().unwrap().key;
        state.answer(key, StatusCode::OK, &Fields::new(), false);
        loop {
            let n = state.capacity(key, 1 << 20, &idle);
            if n == 0 {
                break;
            }
            state.data_out(key, vec![0; n as usize].into(), false);
            state.out.clear();
        }
        give(&mut state, &[frame(kind::RST_STREAM, 0, id, &[0, 0, 0, 8])]);
        state.release(key);
        state.out.clear();
    }
    assert!(state.waiting_len() <= 1 && state.streams.is_empty(), "{}", state.waiting_len());
}

#[test]
fn frames_for_streams_above_the_last_goaway_are_ignored() {
    let mut state = server();
    give(&mut state, &[frame(kind::HEADERS, 4, 1, GET)]);
    state.say_goodbye();
    state.out.clear();
    give(&mut state, &[frame(kind::PING, 1, 0, b"attache\x03")]);
    assert_eq!(said(&mut state), [(kind::GOAWAY, 0)]);
    // These frames and the GOAWAY crossed on the way.
    give(
        &mut state,
        &[
            frame(kind::HEADERS, 4, 3, GET),
            frame(kind::DATA, 0, 3, b"x"),
            update(3, 10),
            frame(kind::HEADERS, 5, 3, &[0x00, 1, b'a', 1, b'b']),
            frame(kind::RST_STREAM, 0, 3, &[0; 4]),
            frame(kind::DATA, 1, 1, b"the last stream continues"),
        ],
    );
    assert!(state.end.is_none(), "{:?}", state.end);
    assert_eq!(said(&mut state), []);
    // No GOAWAY names a higher stream than the GOAWAY before it.
    give(&mut state, &[frame(kind::PING, 0, 0, &[])]);
    let mut all = Vec::new();
    while !state.out.is_empty() {
        all.extend_from_slice(&state.out.pop());
    }
    assert_eq!(all[HEAD..HEAD + 4], 1_u32.to_be_bytes());
}

#[test]
fn frames_for_closed_streams_have_a_price() {
    let late = LateFrames::default();
    let mut state = ConnectionState::new(true, SETTINGS, Box::new(late.clone()));
    give(&mut state, &[PREFACE.to_vec(), frame(kind::SETTINGS, 0, 0, &[])]);
    give(&mut state, &[frame(kind::HEADERS, 4, 1, GET), update(1, 0)]);
    for _ in 0..10 {
        give(&mut state, &[frame(kind::HEADERS, 5, 1, &[]), frame(kind::DATA, 1, 1, &[])]);
    }
    assert_eq!(late.0.get(), 20);
}

#[test]
fn a_window_overflow_of_an_ended_stream_is_no_error() {
    let mut state = server();
    give(&mut state, &[frame(kind::HEADERS, 5, 1, GET), update(1, (1 << 31) - 1 - 65_535)]);
    let key = state.take_request().unwrap().key;
    state.answer(key, StatusCode::OK, &Fields::new(), true);
    give(&mut state, &[initial_window(100_000)]);
    assert!(state.end.is_none(), "{:?}", state.end);
    state.release(key);
    assert!(state.streams.is_empty());
}

#[test]
fn requests_that_were_reset_before_they_were_handled_count_as_pending() {
    let mut state =
        ConnectionState::new(true, Settings { pending_resets: 10, ..SETTINGS }, Box::new(Unlimited));
    give(&mut state, &[PREFACE.to_vec(), frame(kind::SETTINGS, 0, 0, &[])]);
    for id in (1..100).step_by(2) {
        give(&mut state, &[frame(kind::HEADERS, 4, id, GET), update(id, 0)]);
    }
    assert!(state.accepted.len() <= 11 && state.end.as_ref().is_some_and(Error::is_flood), "{:?}", state.end);
}

#[test]
fn a_side_that_has_ended_gets_no_capacity() {
    let mut state = server();
    give(&mut state, &[frame(kind::HEADERS, 5, 1, GET), update(0, 1 << 20)]);
    let key = state.take_request().unwrap().key;
    let (_, waker) = count();
    state.settings.send_buffer = 0;
    state.answer(key, StatusCode::OK, &Fields::new(), true);
    assert_eq!((state.capacity(key, 10, &waker), state.waiting_len()), (0, 0));
    state.release(key);
    state.audit();
}

#[test]
fn whitespace_around_a_value_stays_in_a_request_and_is_removed_elsewhere() {
    // A request with such a value is refused later, with a reason. Some responses have such values; they are read as HTTP/1's are (RFC 9110
    // section 5.5).
    let blanks = b"\x00\x01a\x04 b\t \x00\x01c\x02\t ";
    let mut state = server();
    give(&mut state, &[frame(kind::HEADERS, 5, 1, &[GET, blanks].concat())]);
    let head = state.take_request().unwrap().head;
    assert_eq!(head.headers.get("a").unwrap().as_bytes(), b" b\t ");
    let mut state = client();
    let key = state.open(&get(http::Method::GET), true).unwrap();
    give(&mut state, &[frame(kind::HEADERS, 5, 1, &[&[0x88], &blanks[..]].concat())]);
    let head = state.streams[key].head.take().unwrap();
    assert_eq!(head.headers.get("a").unwrap().as_bytes(), b"b");
    assert_eq!(head.headers.get("c").unwrap().as_bytes(), b"");
}

#[test]
fn a_query_alone_is_not_a_path() {
    for (path, is_one) in [
        ("/?a", true),
        ("/", true),
        ("?a", false),
        ("?", false),
        ("/a#b", false),
        ("admin", false),
        (".", false),
    ] {
        let mut state = server();
        let block = [&[0x82, 0x86, 0x04, path.len() as u8], path.as_bytes(), b"\x41\x01h"].concat();
        give(&mut state, &[frame(kind::HEADERS, 5, 1, &block)]);
        assert_eq!(state.take_request().is_some(), is_one, "{path}");
    }
}

fn get(method: http::Method) -> RequestHead {
    RequestHead { method, ..post("/") }
}

/// The length of the response's body, or the error that the frames cause.
fn answered(request: &RequestHead, frames: &[Vec<u8>]) -> Result<usize, ErrorCode> {
    let mut state = client();
    let key = state.open(request, false).unwrap();
    give(&mut state, frames);
    let stream = &state.streams[key];
    match &stream.end {
        Some(error) => Err(error.code().unwrap()),
        None => Ok(stream.received.len()),
    }
}

#[test]
fn lengths_of_responses_without_a_body_and_of_tunnels() {
    let length = |status: &[u8], n: u8| [status, &[0x0f, 0x0d, 1, b'0' + n]].concat();
    let headers = |flags, block: &[u8]| frame(kind::HEADERS, flags, 1, block);
    let data = frame(kind::DATA, 1, 1, b"body");
    let (no_content, unmodified) = (&[0x89][..], &[0x8b][..]);
    let (get, head, connect) = (get(http::Method::GET), get(http::Method::HEAD), get(http::Method::CONNECT));
    // RFC 9113 section 8.1.1: these responses are defined to have no content.
    for (request, status) in [(&get, no_content), (&get, unmodified), (&head, OK)] {
        assert_eq!(answered(request, &[headers(5, &length(status, 4))]), Ok(0), "{status:x?}");
        assert_eq!(answered(request, &[headers(4, &length(status, 4)), frame(kind::DATA, 1, 1, b"")]), Ok(0));
        let with = answered(request, &[headers(4, &length(status, 4)), data.clone()]);
        assert_eq!(with, Err(ErrorCode::PROTOCOL_ERROR), "{status:x?}");
        assert_eq!(answered(request, &[headers(4, status), data.clone()]), Err(ErrorCode::PROTOCOL_ERROR));
    }
    assert_eq!(answered(&get, &[headers(5, &length(OK, 4))]), Err(ErrorCode::PROTOCOL_ERROR));
    // RFC 9110 section 9.3.6: the length is ignored if the response opens a tunnel.
    assert_eq!(answered(&connect, &[headers(4, &length(OK, 0)), data.clone()]), Ok(4));
    assert_eq!(answered(&connect, &[headers(4, &length(&[0x8d], 3)), data]), Err(ErrorCode::PROTOCOL_ERROR));
    // RFC 9113 section 8.5: a tunnel has no trailers; they would look like its orderly end. A refusal is a message like any other.
    let trailers = headers(5, b"\x00\x01x\x01y");
    assert_eq!(answered(&connect, &[headers(4, OK), trailers.clone()]), Err(ErrorCode::PROTOCOL_ERROR));
    assert_eq!(answered(&connect, &[headers(4, &[0x8d]), trailers]), Ok(0));
}

#[test]
fn no_stream_is_opened_that_the_server_will_not_accept() {
    let mut state = client();
    assert!(state.open(&post("/"), true).is_ok());
    give(&mut state, &[frame(kind::GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0])]);
    assert!(state.open(&post("/"), true).is_err() && state.active == 1);
    let mut state = client();
    state.next = (1 << 31) - 1;
    assert!(state.open(&post("/"), true).is_ok());
    assert!(state.open(&post("/"), true).is_err(), "no stream number is left");
}

#[test]
fn waiting_data_keeps_few_of_the_buffers_that_it_was_read_into() {
    let mut state = server();
    state.grant_window(1 << 20);
    give(&mut state, &[frame(kind::HEADERS, 4, 1, GET)]);
    for _ in 0..100 {
        // The rest of the buffer is another frame, which is processed at once.
        give(&mut state, &[frame(kind::DATA, 0, 1, &[0; 5000]), frame(99, 0, 0, &[0; 16_000])]);
    }
    let (_, stream) = state.stream(1).unwrap();
    assert_eq!(stream.received.len(), 500_000);
    assert!(stream.received.parts() <= 6, "{}", stream.received.parts());
}

#[test]
fn a_window_that_was_not_sent_yet_delays_no_window_update() {
    let mut state = server();
    give(&mut state, &[frame(kind::HEADERS, 4, 1, GET), frame(kind::DATA, 0, 1, &[0; 16_000])]);
    let key = state.take_request().unwrap().key;
    // The window has grown, and waits until the peer acknowledges the last one.
    state.window = crate::Window::new(1 << 20, 1 << 20);
    let before = state.out.len();
    state.release_window(key, 16_000);
    assert_eq!(state.out.len(), before);
    give(&mut state, &[frame(kind::DATA, 0, 1, &[0; 16_000]), frame(kind::DATA, 0, 1, &[0; 16_000])]);
    state.release_window(key, 32_000);
    assert_eq!(state.out.len(), before + crate::HEAD + 4, "a part of what it may send");
}
