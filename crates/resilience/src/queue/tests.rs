use std::{cell::RefCell, time::Duration};

use attache_config::model::{self, AdaptiveConcurrency, MinRtt, Policy, Retry};
use proptest::prelude::*;
use tokio::{
    task::{JoinHandle, spawn_local},
    time::sleep,
};

use super::*;
use crate::{
    CallResult, stack,
    testing::{attempt, get, respond, state_of, upstream},
};

const MS: Duration = Duration::from_millis(1);

/// A slow upstream, which records when each call came and how many ran at once.
#[derive(Clone, Default)]
struct Slow {
    seen: Rc<RefCell<Vec<(String, Instant)>>>,
    running: Rc<RefCell<(u32, u32)>>,
}

impl Service<Call> for Slow {
    type Response = Response<Body>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = CallResult>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut call: Call) -> Self::Future {
        let attempt = attempt(1, &mut call);
        let header = |name: &str| call.request.headers().get(name).map(|v| v.to_str().unwrap().to_owned());
        self.seen.borrow_mut().push((header("x-name").unwrap_or_default(), Instant::now()));
        let takes = header("x-takes").map_or(10, |text| text.parse().unwrap());
        let running = self.running.clone();
        let guard = {
            let mut now = running.borrow_mut();
            now.0 += 1;
            now.1 = now.1.max(now.0);
            drop(now);
            CallEnds(running)
        };
        Box::pin(async move {
            let _guard = guard;
            sleep(takes * MS).await;
            let response = respond(200);
            if let Some(mut attempt) = attempt {
                attempt.answered(response.status(), response.headers());
            }
            Ok(response)
        })
    }
}

struct CallEnds(Rc<RefCell<(u32, u32)>>);

impl Drop for CallEnds {
    fn drop(&mut self) {
        self.0.borrow_mut().0 -= 1;
    }
}

pub(super) struct QueueBench {
    pub(super) state: Arc<UpstreamState>,
    slow: Slow,
    start: Instant,
    pub(super) policy: Policy,
}

pub(super) type SentCall = JoinHandle<(Result<u16, Reason>, Duration)>;

impl QueueBench {
    pub(super) fn new(max_requests: u32, queue: model::Queue) -> Self {
        let mut config = upstream();
        config.circuit_breaker.max_requests = max_requests;
        config.queue = Some(queue);
        Self::of(config)
    }

    pub(super) fn of(config: model::Upstream) -> Self {
        let policy = Policy { retry: Retry { attempts: 0, ..Retry::default() }, ..Policy::default() };
        Self { state: state_of(config), slow: Slow::default(), start: Instant::now(), policy }
    }

    /// Sends a call now. The result says how it ends, and when.
    pub(super) fn send(&self, name: &str, urgency: u8, takes: u32) -> SentCall {
        let mut call = get();
        let headers = call.request.headers_mut();
        headers.insert("x-name", http::HeaderValue::from_str(name).unwrap());
        headers.insert("x-takes", takes);
        headers.insert("priority", http::HeaderValue::from_str(&format!("u={urgency}")).unwrap());
        let mut service = stack(&self.policy, &self.state, self.slow.clone());
        let start = self.start;
        let future = service.call(call);
        spawn_local(async move {
            let outcome = future.await.map(|r| r.status().as_u16()).map_err(|e| e.reason);
            (outcome, start.elapsed())
        })
    }

    pub(super) async fn at(&self, millis: u64) {
        tokio::time::sleep_until(self.start + Duration::from_millis(millis)).await;
    }

    /// Names in the order in which the upstream saw them, with times in milliseconds.
    pub(super) fn seen(&self) -> Vec<(String, u128)> {
        let millis = |at: &Instant| at.duration_since(self.start).as_millis();
        self.slow.seen.borrow().iter().map(|(name, at)| (name.clone(), millis(at))).collect()
    }
}

pub(super) fn seen(list: &[(&str, u128)]) -> Vec<(String, u128)> {
    list.iter().map(|(name, at)| ((*name).to_owned(), *at)).collect()
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_released_permit_goes_to_the_most_urgent_and_then_to_the_first() {
    let bench = QueueBench::new(1, model::Queue::default());
    for (name, urgency) in [("first", 3), ("later", 5), ("second", 3), ("now", 0), ("third", 3)] {
        drop(bench.send(name, urgency, 10));
    }
    bench.at(90).await;
    let expected = seen(&[("first", 0), ("now", 10), ("second", 20), ("third", 30), ("later", 40)]);
    assert_eq!(bench.seen(), expected);
    assert_eq!(bench.state.gate.as_ref().unwrap().reading().running, 0);
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_burst_waits_for_the_interval_and_a_standing_queue_for_the_target() {
    let bench = QueueBench::new(1, model::Queue::default());
    drop(bench.send("runs", 3, 1000));
    tokio::task::yield_now().await;
    let burst = bench.send("burst", 3, 10);
    bench.at(99).await;
    let last = bench.send("before the interval is over", 3, 10);
    assert_eq!(burst.await.unwrap(), (Err(Reason::OverflowQueue), 100 * MS));
    bench.at(110).await;
    let standing = bench.send("standing", 3, 10);
    assert_eq!(standing.await.unwrap(), (Err(Reason::OverflowQueue), 115 * MS));
    assert_eq!(last.await.unwrap(), (Err(Reason::OverflowQueue), 199 * MS));
    // It was empty for a moment, so the next calls are a burst again.
    bench.at(200).await;
    assert_eq!(bench.send("burst", 3, 10).await.unwrap(), (Err(Reason::OverflowQueue), 300 * MS));
    let reading = bench.state.gate.as_ref().unwrap().reading();
    assert_eq!((reading.running, reading.waiting, reading.shed, reading.refused), (1, 0, 4, 0));
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn in_a_standing_queue_the_newest_goes_first() {
    let bench = QueueBench::new(1, model::Queue::default());
    drop(bench.send("runs", 3, 102));
    tokio::task::yield_now().await;
    let kept: Vec<_> = ["a", "b"].map(|name| bench.send(name, 3, 1000)).into();
    bench.at(98).await;
    let old = bench.send("old", 3, 1);
    bench.at(101).await;
    drop(kept);
    let new = bench.send("new", 3, 1);
    assert_eq!(new.await.unwrap(), (Ok(200), 103 * MS));
    assert_eq!(old.await.unwrap(), (Ok(200), 104 * MS));
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn less_urgent_calls_are_shed_together_with_a_shed_call() {
    let bench = QueueBench::new(1, model::Queue::default());
    drop(bench.send("runs", 3, 1000));
    tokio::task::yield_now().await;
    let urgent = bench.send("urgent", 1, 10);
    bench.at(50).await;
    let (equal, less) = (bench.send("equal", 1, 10), bench.send("less", 2, 10));
    assert_eq!(urgent.await.unwrap(), (Err(Reason::OverflowQueue), 100 * MS));
    assert_eq!(less.await.unwrap(), (Err(Reason::OverflowQueue), 100 * MS));
    assert_eq!(equal.await.unwrap(), (Err(Reason::OverflowQueue), 150 * MS));
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_full_queue_makes_room_by_its_least_urgent_call() {
    let bench = QueueBench::new(1, model::Queue { max: 2, ..model::Queue::default() });
    drop(bench.send("runs", 3, 50));
    tokio::task::yield_now().await;
    let (less, least) = (bench.send("less", 5, 1), bench.send("least", 6, 1));
    let equal = bench.send("equal", 6, 1);
    assert_eq!(equal.await.unwrap(), (Err(Reason::OverflowQueue), Duration::ZERO), "no room for it");
    let urgent = bench.send("urgent", 0, 1);
    assert_eq!(least.await.unwrap(), (Err(Reason::OverflowQueue), Duration::ZERO));
    assert_eq!(urgent.await.unwrap(), (Ok(200), 51 * MS));
    assert_eq!(less.await.unwrap(), (Ok(200), 52 * MS));
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn of_equals_a_full_queue_sheds_the_one_with_the_least_chance() {
    // While the first call is served first, the newest has the least chance.
    let bench = QueueBench::new(1, model::Queue { max: 2, ..model::Queue::default() });
    drop(bench.send("runs", 3, 50));
    tokio::task::yield_now().await;
    let (older, newer) = (bench.send("older", 6, 1), bench.send("newer", 6, 1));
    tokio::task::yield_now().await;
    drop(bench.send("urgent", 0, 1));
    assert_eq!(newer.await.unwrap(), (Err(Reason::OverflowQueue), Duration::ZERO));
    assert_eq!(older.await.unwrap().0, Ok(200));

    // In a standing queue the newest is served first, so the oldest has the least chance.
    let bench = QueueBench::new(1, model::Queue { max: 2, target: 50 * MS, ..model::Queue::default() });
    drop(bench.send("runs", 3, 120));
    tokio::task::yield_now().await;
    drop(bench.send("since the beginning", 7, 1));
    bench.at(99).await;
    let older = bench.send("older", 6, 1);
    bench.at(101).await;
    let newer = bench.send("newer", 6, 1);
    tokio::task::yield_now().await;
    drop(bench.send("urgent", 0, 1));
    assert_eq!(older.await.unwrap(), (Err(Reason::OverflowQueue), 101 * MS));
    assert_eq!(newer.await.unwrap().0, Ok(200));
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_worker_leaves_the_others_their_share_of_the_permits() {
    let bench = QueueBench::new(4, model::Queue::default());
    // Another worker has a line.
    bench.state.gate.as_ref().unwrap().hungry.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    for name in ["a", "b", "c"] {
        drop(bench.send(name, 3, 10));
    }
    bench.at(50).await;
    assert_eq!(bench.seen(), seen(&[("a", 0), ("b", 0), ("c", 10)]));
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_call_whose_deadline_passes_in_line_is_not_sent_and_a_caller_that_left_holds_no_permit() {
    let mut bench = QueueBench::new(1, model::Queue::default());
    drop(bench.send("runs", 3, 40));
    tokio::task::yield_now().await;
    bench.policy.timeouts.request = 20 * MS;
    let late = bench.send("late", 0, 1);
    assert_eq!(late.await.unwrap(), (Err(Reason::RequestTimeout), 20 * MS));
    let gone = bench.send("gone", 0, 1);
    tokio::task::yield_now().await;
    gone.abort();
    bench.policy.timeouts.request = 80 * MS;
    assert_eq!(bench.send("next", 7, 1).await.unwrap(), (Ok(200), 41 * MS));
    assert_eq!(bench.seen(), seen(&[("runs", 0), ("next", 40)]));
    let reading = bench.state.gate.as_ref().unwrap().reading();
    assert_eq!((reading.running, reading.waiting, reading.shed), (0, 0, 0));
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_grpc_upstream_is_told_the_time_that_remains_after_the_wait() {
    let bench = QueueBench::new(1, model::Queue::default());
    drop(bench.send("runs", 3, 30));
    tokio::task::yield_now().await;
    let script = crate::testing::FakeUpstream::default().answer(1, || Ok(respond(200)));
    let mut call = get();
    call.request.headers_mut().insert("grpc-timeout", http::HeaderValue::from_static("200m"));
    stack(&bench.policy, &bench.state, script.clone()).call(call).await.unwrap();
    assert_eq!(script.seen.borrow()[0].headers.get("grpc-timeout").unwrap(), "170000u");
}

pub(super) fn adaptive(queue: Option<model::Queue>) -> model::Upstream {
    let mut config = upstream();
    let min_rtt = MinRtt { fixed_value: Some(10 * MS), ..MinRtt::default() };
    config.adaptive_concurrency = Some(AdaptiveConcurrency { min_rtt, ..AdaptiveConcurrency::default() });
    config.queue = queue;
    config
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn beyond_the_adaptive_limit_a_call_is_refused_at_once_and_not_retried() {
    let mut bench = QueueBench::of(adaptive(None));
    bench.policy.retry = Retry { on: vec![model::RetryOn::ServerError], ..Retry::default() };
    let calls: Vec<_> = (0..5).map(|n| bench.send(&n.to_string(), 3, 10)).collect();
    let mut ends = Vec::new();
    for call in calls {
        ends.push(call.await.unwrap());
    }
    let refused = (Err(Reason::OverflowAdaptive), Duration::ZERO);
    assert_eq!(ends, [(Ok(200), 10 * MS), (Ok(200), 10 * MS), (Ok(200), 10 * MS), refused, refused]);
    let reading = bench.state.gate.as_ref().unwrap().reading();
    assert_eq!((reading.refused, reading.limit, bench.seen().len()), (2, 3, 3));
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn the_limit_finds_what_the_upstream_can_take() {
    let bench = QueueBench::of(adaptive(Some(model::Queue::default())));
    // Twice as many callers as the lowest limit; the upstream is as fast as it can be.
    let mut shed = Vec::new();
    for _ in 0..2 {
        for n in 0..400 {
            drop(bench.send("x", 3, 10));
            if n % 6 == 5 {
                sleep(10 * MS).await;
            }
        }
        shed.push(bench.state.gate.as_ref().unwrap().reading().shed);
    }
    let reading = bench.state.gate.as_ref().unwrap().reading();
    assert!(reading.limit >= 6, "{reading:?}");
    assert_eq!(shed[0], shed[1], "only until the limit was found");
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn calls_cut_by_their_deadline_are_samples_and_failures_are_none() {
    let mut bench = QueueBench::of(adaptive(None));
    bench.policy.timeouts.request = 150 * MS;
    for _ in 0..2 {
        drop(bench.send("hangs", 3, 1000));
    }
    bench.at(200).await;
    let rtt = bench.state.gate.as_ref().unwrap().reading().adaptive.unwrap().sample_rtt.unwrap();
    assert!(rtt >= 140 * MS, "{rtt:?}");
    let script = crate::testing::FakeUpstream::default().answer(1, || Ok(respond(503)));
    bench.at(400).await;
    stack(&bench.policy, &bench.state, script).call(get()).await.unwrap();
    let after = bench.state.gate.as_ref().unwrap().reading().adaptive.unwrap().sample_rtt.unwrap();
    assert_eq!(after, rtt);
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_permit_is_held_until_the_bodys_end() {
    let bench = QueueBench::new(2, model::Queue::default());
    let (sender, body) = crate::testing::channel();
    let script = crate::testing::FakeUpstream::default().then(|_| async { Ok(Response::new(body)) });
    let mut response = stack(&bench.policy, &bench.state, script).call(get()).await.unwrap();
    let running = || bench.state.gate.as_ref().unwrap().reading().running;
    assert_eq!(running(), 1);
    sender.send(Ok("x".into())).unwrap();
    drop(sender);
    crate::testing::read(response.body_mut()).await.unwrap();
    assert_eq!(running(), 0);
}

#[test]
fn no_worker_ever_takes_a_permit_too_many() {
    let mut config = upstream();
    config.circuit_breaker.max_requests = 7;
    config.queue = Some(model::Queue::default());
    let gate = Arc::new(UpstreamPermits::new(&config, Instant::now()).unwrap());
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let gate = gate.clone();
            std::thread::spawn(move || {
                for _ in 0..20_000 {
                    if let Some(running) = gate.enter() {
                        assert!(running <= 7 && gate.running() <= 7);
                        gate.leave();
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(gate.running(), 0);
}

#[derive(Clone, Debug)]
struct EndedCall {
    class: u8,
    came: Duration,
    end: Duration,
    ok: bool,
    began: Option<Duration>,
}

async fn storm(
    max_requests: u32,
    max: u32,
    calls: Vec<(u64, u8, u32)>,
) -> (u32, Vec<EndedCall>, GateReading) {
    let bench = QueueBench::new(max_requests, model::Queue { max, ..model::Queue::default() });
    let mut sent = Vec::new();
    for (n, (wait, class, takes)) in calls.into_iter().enumerate() {
        sleep(Duration::from_millis(wait)).await;
        sent.push((class, bench.start.elapsed(), bench.send(&n.to_string(), class, takes)));
    }
    let mut ends = Vec::new();
    for (n, (class, came, call)) in sent.into_iter().enumerate() {
        let (outcome, end) = call.await.unwrap();
        let began =
            bench.slow.seen.borrow().iter().find(|(name, _)| *name == n.to_string()).map(|(_, at)| *at);
        let began = began.map(|at| at.duration_since(bench.start));
        ends.push(EndedCall { class, came, end, ok: outcome.is_ok(), began });
    }
    let most = bench.slow.running.borrow().1;
    (most, ends, bench.state.gate.as_ref().unwrap().reading())
}

proptest! {
    #[test]
    fn never_above_the_limit_and_no_call_is_shed_while_a_less_urgent_one_waits(
        max_requests in 1_u32..4,
        max in 1_u32..12,
        calls in prop::collection::vec((0_u64..12, 0_u8..8, 1_u32..60), 1..120),
    ) {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build_local(tokio::runtime::LocalOptions::default()).unwrap();
        let (most, ends, reading) = runtime.block_on(storm(max_requests, max, calls));
        prop_assert!(most <= max_requests);
        prop_assert_eq!((reading.running, reading.waiting), (0, 0));
        for shed in ends.iter().filter(|call| !call.ok) {
            prop_assert!(shed.began.is_none(), "it was sent all the same");
            let waited = shed.end.saturating_sub(shed.came);
            prop_assert!(waited <= 100 * MS, "{:?}", waited);
            let passed_over = ends.iter().find(|other| {
                other.class > shed.class && other.came < shed.end && other.began.is_some_and(|at| at > shed.end)
            });
            prop_assert!(passed_over.is_none(), "{:?} {:?}", shed, passed_over);
        }
    }
}
