#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use std::{cell::Cell, rc::Rc, time::Duration};

use super::*;
use crate::ErrorCode;

const BOUNDS: FloodLimits = FloodLimits { rate: 1000, burst: 5000 };

#[derive(Debug, Default)]
struct FloodingClient(Rc<Cell<u64>>);

impl FloodPayer for FloodingClient {
    const IS_SERVER: bool = false;
    const SECTION: &'static str = "http.limits";

    fn requests(&self) -> u64 {
        self.0.get()
    }
}

#[derive(Debug, Default)]
struct FloodingServer(Rc<Cell<u64>>);

impl FloodPayer for FloodingServer {
    const IS_SERVER: bool = true;
    const SECTION: &'static str = "pool";

    fn requests(&self) -> u64 {
        self.0.get()
    }
}

fn flood() -> (Flood<FloodingClient>, Rc<Cell<u64>>) {
    let answered: Rc<Cell<u64>> = Rc::default();
    (Flood::new(BOUNDS, FloodingClient(answered.clone())), answered)
}

fn frame(kind: u8, length: usize) -> FrameHeader {
    FrameHeader { length, kind, flags: 0, stream: 1 }
}

fn until_the_end<P: FloodPayer>(flood: &mut Flood<P>, head: FrameHeader) -> (u64, String) {
    for n in 1..1_000_000 {
        if let Err(error) = flood.received(head) {
            return (n, error.to_string());
        }
    }
    panic!("no end");
}

#[tokio::test(start_paused = true)]
async fn pings_at_once_end_the_connection_and_the_words_say_so() {
    let (mut flood, _) = flood();
    let (n, words) = until_the_end(&mut flood, frame(kind::PING, 8));
    assert!((5000..=5101).contains(&n), "{n}");
    assert_eq!(
        words,
        "too many PING frames on this connection for the requests that were answered \
         (http.limits.h2_flood_burst)"
    );
}

#[tokio::test(start_paused = true)]
async fn pings_at_the_rate_never_end_it() {
    let (mut flood, _) = flood();
    for _ in 0..100_000 {
        tokio::time::advance(Duration::from_micros(1010)).await;
        flood.received(frame(kind::PING, 8)).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_one_answer_of_four_pays_for_the_others() {
    let (mut flood, answered) = flood();
    for _ in 0..10_000 {
        answered.set(answered.get() + 1);
        (0..3).for_each(|_| flood.received(frame(kind::RST_STREAM, 4)).unwrap());
    }
    let (n, words) = until_the_end(&mut flood, frame(kind::RST_STREAM, 4));
    assert!(n <= 310 && words.contains("cancelled requests"), "{n} {words}");
}

#[tokio::test(start_paused = true)]
async fn window_updates_are_paid_for_by_what_was_sent() {
    let (mut flood, _) = flood();
    for _ in 0..100_000 {
        flood.sent(1024);
        (0..2).for_each(|_| flood.received(frame(kind::WINDOW_UPDATE, 4)).unwrap());
    }
    let (n, _) = until_the_end(&mut flood, frame(kind::WINDOW_UPDATE, 4));
    assert!(n <= 16_000, "{n}");
}

#[tokio::test(start_paused = true)]
async fn resets_of_ours_count_where_the_client_broke_a_rule() {
    let (mut flood, _) = flood();
    assert!((0..300).any(|_| flood.charged().is_err()));
    assert!(ErrorCode::PROTOCOL_ERROR.blames() && ErrorCode::ENHANCE_YOUR_CALM.blames());
    assert!(
        ![ErrorCode::NO_ERROR, ErrorCode::INTERNAL_ERROR, ErrorCode::CANCEL, ErrorCode::CONNECT_ERROR]
            .iter()
            .any(|code| code.blames())
    );
}

#[tokio::test(start_paused = true)]
async fn small_data_frames_cost_a_sixteenth_however_they_are_padded() {
    let padded = FrameHeader { flags: 8, ..frame(kind::DATA, 500) };
    for head in [frame(kind::DATA, 1), frame(kind::DATA, 255), padded] {
        let (mut flood, _) = flood();
        let (n, words) = until_the_end(&mut flood, head);
        assert!(
            (80_000..=82_000).contains(&n) && words.contains("DATA frames below 256 bytes"),
            "{n} {words}"
        );
    }
    let (mut empty, _) = flood();
    assert!(until_the_end(&mut empty, frame(kind::DATA, 0)).0 <= 5101);
    let (mut large, _) = flood();
    (0..100_000).for_each(|_| large.received(frame(kind::DATA, 256)).unwrap());
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_a_ping_is_free_where_there_was_one() {
    let pong = FrameHeader { flags: 1, ..frame(kind::PING, 8) };
    let (mut asked, _) = flood();
    for _ in 0..100_000 {
        asked.asked();
        asked.received(pong).unwrap();
    }
    assert!(until_the_end(&mut asked, pong).0 <= 5101);
    let (mut flood, _) = flood();
    assert!(until_the_end(&mut flood, frame(kind::GOAWAY, 8)).1.contains("GOAWAY"));
}

#[tokio::test(start_paused = true)]
async fn requests_and_what_is_bounded_elsewhere_are_not_counted_here() {
    let (mut flood, _) = flood();
    for _ in 0..100_000 {
        flood.received(FrameHeader { flags: 1, ..frame(kind::SETTINGS, 0) }).unwrap();
        flood.received(FrameHeader { flags: 1, ..frame(kind::DATA, 0) }).unwrap();
        flood.received(frame(kind::HEADERS, 10)).unwrap();
        flood.received(frame(kind::CONTINUATION, 10)).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_servers_heads_are_paid_for_by_the_calls_that_were_sent() {
    let sent: Rc<Cell<u64>> = Rc::default();
    let mut flood = Flood::new(BOUNDS, FloodingServer(sent.clone()));
    for _ in 0..100_000 {
        sent.set(sent.get() + 1);
        // 103, 200, trailers.
        (0..3).for_each(|_| flood.received(frame(kind::HEADERS, 10)).unwrap());
    }
    let (n, words) = until_the_end(&mut flood, frame(kind::HEADERS, 10));
    assert!(n <= 1550, "{n}");
    assert_eq!(
        words,
        "too many HEADERS frames on this connection for the requests that were sent (pool.h2_flood_burst)"
    );
}
