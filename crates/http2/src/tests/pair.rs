//! A client and a server of this crate, with any windows, any pieces and any streams. What was sent completely arrives completely, what was
//! cut is seen as cut, nothing hangs, and no state is left.

#![allow(
    clippy::similar_names,
    reason = "what is sent and what is received have names of their own on each side"
)]

use proptest::prelude::*;
use tokio::{task::JoinSet, time::sleep};

use super::*;

/// How one side handles its part of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Whole,
    /// It reads slowly.
    Slow,
    /// It sends RST_STREAM after so many bytes.
    Reset(usize),
    /// It drops both handles after so many bytes.
    Drop(usize),
    /// It does not read.
    Unread,
}

#[derive(Clone, Debug)]
struct TransferPlan {
    after: u64,
    request: usize,
    answer: usize,
    piece: usize,
    client: Way,
    server: Way,
}

fn way() -> impl Strategy<Value = Way> {
    prop_oneof![
        4 => Just(Way::Whole),
        2 => Just(Way::Slow),
        1 => (0..60_000_usize).prop_map(Way::Reset),
        1 => (0..60_000_usize).prop_map(Way::Drop),
        1 => Just(Way::Unread),
    ]
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![Just(0), 1..100_usize, 1..30_000_usize, 1..300_000_usize]
}

fn plan() -> impl Strategy<Value = TransferPlan> {
    (0..50_u64, length(), length(), 1..40_000_usize, way(), way()).prop_map(
        |(after, request, answer, piece, client, server)| TransferPlan {
            after,
            request,
            answer,
            piece: piece.max((request.max(answer)) / 500),
            // If neither side reads, no window opens, and both would wait forever.
            client: if server == Way::Unread && client == Way::Unread { Way::Whole } else { client },
            server,
        },
    )
}

fn settings() -> impl Strategy<Value = Settings> {
    (prop_oneof![1..200_u32, 1000..70_000_u32], 0..500_000_u32, 1..100_000_usize).prop_map(
        |(window, more, send_buffer)| Settings {
            window,
            window_most: window + more,
            send_buffer,
            ..SETTINGS
        },
    )
}

/// The byte at a position of a stream's body.
fn byte(stream: usize, at: usize) -> u8 {
    (stream * 31 + at % 251 + at / 4096) as u8
}

/// Sends a body; false if it was cut by either side.
async fn give(send: &SendStream, stream: usize, len: usize, piece: usize, way: Way) -> bool {
    let mut at = 0;
    while at < len {
        if let Way::Reset(after) | Way::Drop(after) = way
            && at >= after
        {
            if matches!(way, Way::Reset(_)) {
                send.reset(ErrorCode::INTERNAL_ERROR);
            }
            return false;
        }
        let Ok(n) = poll_fn(|cx| send.poll_capacity(cx, piece.min(len - at))).await else { return false };
        assert!(n > 0 && n <= piece);
        let part: Vec<u8> = (at..at + n).map(|at| byte(stream, at)).collect();
        at += n;
        if !send.send(part.into(), false) {
            return false;
        }
    }
    if matches!(way, Way::Reset(_) | Way::Drop(_)) {
        if matches!(way, Way::Reset(_)) {
            send.reset(ErrorCode::INTERNAL_ERROR);
        }
        return false;
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("x-end", HeaderValue::from_static("yes"));
    send.trail(&trailers)
}

/// Reads a body. Returns how many bytes arrived, and whether the body ended.
async fn take(body: &mut Incoming, stream: usize, way: Way) -> (usize, bool) {
    let (mut at, mut ended) = (0, false);
    loop {
        if way == Way::Slow {
            sleep(Duration::from_millis(3)).await;
        }
        match poll_fn(|cx| body.poll_frame(cx)).await {
            None => return (at, ended),
            Some(Err(_)) => return (at, false),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    for (n, given) in data.iter().enumerate() {
                        assert_eq!(*given, byte(stream, at + n), "stream {stream} at {}", at + n);
                    }
                    at += data.len();
                }
                Err(_) => ended = true,
            },
        }
    }
}

/// One side of a stream in both directions at once: whether it sent everything, and what it received.
async fn side(
    send: SendStream,
    received: crate::RecvStream,
    n: usize,
    len: usize,
    piece: usize,
    way: Way,
) -> (bool, (usize, bool)) {
    if way == Way::Unread {
        drop(received);
        return (give(&send, n, len, piece, way).await, (0, false));
    }
    let mut body = Incoming::new(received);
    let reads = async move { take(&mut body, n, way).await };
    if matches!(way, Way::Reset(_) | Way::Drop(_)) {
        // It ends together with the other half.
        let reads = std::pin::pin!(reads);
        let sent = give(&send, n, len, piece, way);
        return tokio::select! {
            sent = sent => (sent, (0, false)),
            () = async { reads.await; std::future::pending().await } => unreachable!(),
        };
    }
    tokio::join!(give(&send, n, len, piece, way), reads)
}

async fn scenario(plans: Vec<TransferPlan>, client: Settings, server: Settings, pipe: usize, shrinks: u64) {
    let (ours, theirs) = tokio::io::duplex(pipe);
    let (mut serving, plans) = (Connection::server(theirs, server, Box::new(Unlimited)), Rc::new(plans));
    let (mut calling, caller) = Connection::client(ours, client, Box::new(Unlimited));
    let (server_state, client_state) = (serving.shared(), calling.shared());
    let answered = Rc::new(std::cell::RefCell::new(vec![None; plans.len()]));
    let results = Rc::clone(&answered);
    let server_plans = Rc::clone(&plans);
    spawn_local(async move {
        poll_fn(|cx| {
            let polled = serving.poll(cx);
            serving.shared().borrow().audit();
            while let Some(request) = serving.accept() {
                let (plans, results) = (Rc::clone(&server_plans), Rc::clone(&results));
                spawn_local(async move {
                    let n: usize = request.head.uri.path()[1..].parse().unwrap();
                    let plan = plans[n].clone();
                    if request.send.answer(StatusCode::OK, &Fields::new(), false) {
                        let done =
                            side(request.send, request.body, n, plan.answer, plan.piece, plan.server).await;
                        results.borrow_mut()[n] = Some(done);
                    }
                });
            }
            polled
        })
        .await
    });
    spawn_local(async move {
        poll_fn(|cx| {
            let polled = calling.poll(cx);
            calling.shared().borrow().audit();
            polled
        })
        .await
    });
    if shrinks < 100 {
        let (one, other) = (Rc::clone(&server_state), Rc::clone(&client_state));
        spawn_local(async move {
            sleep(Duration::from_millis(shrinks)).await;
            one.borrow_mut().shrink();
            other.borrow_mut().shrink();
        });
    }
    let mut calls = JoinSet::new();
    for (n, plan) in plans.iter().cloned().enumerate() {
        let caller = caller.clone();
        calls.spawn_local(async move {
            sleep(Duration::from_millis(plan.after)).await;
            let (send, received) = caller.open(&post(&format!("/{n}")), false).unwrap();
            if poll_fn(|cx| received.poll_head(cx)).await.is_err() {
                return (n, (false, (0, false)));
            }
            (n, side(send, received, n, plan.request, plan.piece, plan.client).await)
        });
    }
    while let Some(call) = calls.join_next().await {
        let (n, (sent, (got, whole))) = call.unwrap();
        let plan = &plans[n];
        // The server may still be at work.
        let mut waited = 0;
        let (answered, (came, came_whole)) = loop {
            if let Some(done) = answered.borrow()[n] {
                break done;
            }
            waited += 1;
            assert!(waited < 10_000, "the server's side of {n} hangs: {plan:?}");
            sleep(Duration::from_millis(10)).await;
        };
        let cuts = |way| matches!(way, Way::Reset(_) | Way::Drop(_));
        assert!(!whole || (got == plan.answer && answered), "{n}: {got} {plan:?}");
        assert!(!came_whole || (came == plan.request && sent), "{n}: {came} {plan:?}");
        let reads = |way| matches!(way, Way::Whole | Way::Slow);
        if reads(plan.client) && reads(plan.server) {
            assert!(sent && whole && answered && came_whole, "{n}: {plan:?}");
        }
        assert!(!cuts(plan.client) || !came_whole, "{n}: {plan:?}");
        assert!(!cuts(plan.server) || !whole, "{n}: {plan:?}");
    }
    sleep(Duration::from_secs(10)).await;
    for state in [server_state, client_state] {
        state.borrow().audit_rest();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn a_complete_body_arrives_completely_and_nothing_hangs(
        plans in proptest::collection::vec(plan(), 1..12),
        client in settings(),
        server in settings(),
        pipe in prop_oneof![1..50_usize, 50..100_000_usize],
        shrinks in 0..300_u64,
    ) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let test = scenario(plans, client, server, pipe, shrinks);
        let bounded = async { tokio::time::timeout(Duration::from_secs(100_000), test).await.expect("it hangs") };
        LocalSet::new().block_on(&runtime, bounded);
    }
}
