use attache_config::model::{Policy, Timeouts};
use attache_wire::Response;
use tokio::{sync::mpsc::UnboundedSender, task::spawn_local};
use tower::Service as _;

use super::*;
use crate::{
    stack,
    testing::{FakeUpstream, channel, get, next, state},
};

type BodySender = UnboundedSender<Result<Bytes, BodyError>>;

/// An answer whose client has read the first frame; a second frame waits.
async fn answer(timeouts: Timeouts, state: &Arc<UpstreamState>) -> (Body, BodySender) {
    let (upstream, body) = channel();
    for _ in 0..2 {
        upstream.send(Ok(Bytes::from_static(b"x"))).unwrap();
    }
    let mut body = Some(body);
    let script = FakeUpstream::default().then(move |_| {
        let body = body.take().unwrap();
        async move { Ok(Response::new(body)) }
    });
    let policy = Policy { timeouts, ..Policy::default() };
    let mut answer = stack(&policy, state, script).call(get()).await.unwrap().into_body();
    next(&mut answer).await.unwrap().unwrap();
    (answer, upstream)
}

fn timeouts(request: Duration) -> Timeouts {
    Timeouts { request, whole: true, idle: Duration::from_mins(5) }
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_deadline_ends_the_exchange_although_the_client_reads_nothing() {
    spawn_local(keep());
    let (mut body, upstream) = answer(timeouts(Duration::from_secs(2)), &state()).await;
    sleep(Duration::from_millis(1900)).await;
    assert!(!upstream.is_closed());
    sleep(Duration::from_millis(400)).await;
    assert!(upstream.is_closed(), "the connection to the upstream is closed");
    let end = next(&mut body).await.unwrap().unwrap_err();
    assert_eq!(end.reason, Some(Reason::RequestTimeout), "and the client never sees a clean end");
    assert!(!body.is_end_stream());
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn clients_that_read_nothing_leave_a_quarter_of_the_permits_to_others() {
    spawn_local(keep());
    let state = state();
    let most = state.shared.config.circuit_breaker.max_requests;
    let (mut idle, idle_upstream) = answer(timeouts(Duration::ZERO), &state).await;
    let (mut slow, slow_upstream) = answer(timeouts(Duration::ZERO), &state).await;
    next(&mut slow).await.unwrap().unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(1), next(&mut slow)).await.is_err(), "it waits");
    state.shared.active_requests.store(most - most / 4, Relaxed);
    sleep(Duration::from_secs(60)).await;
    assert!(!idle_upstream.is_closed(), "as long as there is room no answer is ended");
    state.shared.active_requests.store(most - most / 4 + 1, Relaxed);
    sleep(Duration::from_secs(1)).await;
    assert!(idle_upstream.is_closed());
    assert!(!slow_upstream.is_closed(), "its client waits for the upstream");
    assert_eq!(next(&mut idle).await.unwrap().unwrap_err().reason, Some(Reason::ClientStalled));
    assert_eq!(state.counters.clients_stalled.load(Relaxed), 1);
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn the_answer_of_a_client_that_reads_is_never_ended() {
    spawn_local(keep());
    let state = state();
    state.shared.active_requests.store(u32::MAX, Relaxed);
    let (mut body, upstream) = answer(timeouts(Duration::ZERO), &state).await;
    for _ in 0..20 {
        upstream.send(Ok(Bytes::from_static(b"x"))).unwrap();
        sleep(Duration::from_millis(700)).await;
        next(&mut body).await.unwrap().unwrap();
        press();
    }
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn if_memory_is_short_the_longest_stalled_are_ended_first() {
    spawn_local(keep());
    let state = state();
    let mut answers = Vec::new();
    for _ in 0..9 {
        answers.push(answer(timeouts(Duration::ZERO), &state).await);
        sleep(Duration::from_secs(1)).await;
    }
    // The first client reads again, so it has waited for the shortest time.
    next(&mut answers[0].0).await.unwrap().unwrap();
    sleep(Duration::from_secs(1)).await;
    let open = |answers: &[(Body, BodySender)]| -> Vec<bool> {
        answers.iter().map(|(_, upstream)| !upstream.is_closed()).collect()
    };
    press();
    assert_eq!(open(&answers), [true, false, false, true, true, true, true, true, true]);
    press();
    assert_eq!(open(&answers), [true, false, false, false, true, true, true, true, true]);
    answers.clear();
    press();
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn an_answer_stays_watched_whichever_other_ones_end() {
    spawn_local(keep());
    // The check begins without an answer.
    sleep(Duration::from_secs(1)).await;
    let (_body, alone) = answer(timeouts(Duration::from_secs(2)), &state()).await;
    sleep(Duration::from_millis(2300)).await;
    assert!(alone.is_closed());
    for ended in [[0, 1], [1, 0], [0, 2], [2, 0], [1, 2], [2, 1]] {
        let state = state();
        let mut answers = Vec::new();
        for _ in 0..3 {
            answers.push(Some(answer(timeouts(Duration::from_secs(2)), &state).await));
        }
        answers[ended[0]] = None;
        answers.push(Some(answer(timeouts(Duration::from_secs(2)), &state).await));
        answers[ended[1]] = None;
        sleep(Duration::from_millis(2300)).await;
        let closed = answers.iter().flatten().map(|(_, upstream)| upstream.is_closed());
        assert_eq!(closed.collect::<Vec<_>>(), [true, true], "{ended:?}");
    }
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_client_is_stalled_after_a_second_also_on_a_route_without_timeouts() {
    for idle in [Duration::from_mins(5), Duration::ZERO] {
        let state = state();
        state.shared.active_requests.store(u32::MAX, Relaxed);
        let (_body, upstream) = answer(Timeouts { idle, ..timeouts(Duration::ZERO) }, &state).await;
        let check = spawn_local(keep());
        sleep(Duration::from_millis(900)).await;
        assert!(!upstream.is_closed());
        sleep(Duration::from_millis(200)).await;
        assert!(upstream.is_closed(), "idle: {idle:?}");
        check.abort();
    }
}
