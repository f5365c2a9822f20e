use super::*;

fn exchange(status: u16, reason: Option<Reason>) -> Exchange {
    let exchange = Exchange::new("outbound".into(), "http1", None);
    exchange.method.replace("GET".into());
    exchange.host.replace("orders.internal".into());
    exchange.path.replace("/v1/items".into());
    exchange.upstream.replace(Some("orders".into()));
    exchange.status.set(status);
    exchange.reason.set(reason);
    exchange
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn failures_of_all_workers_are_kept_newest_first_and_only_failures() {
    let watch = Watch::default();
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let watch = watch.clone();
            std::thread::spawn(move || {
                let watcher = WorkerWatch::new(&watch);
                watcher.ended(&exchange(200, None), SECOND);
                // These clients changed their mind, waited without a result, and left in the middle of a response.
                watcher.ended(&exchange(0, Some(Reason::ClientClosed)), SECOND / 3);
                watcher.ended(&exchange(0, Some(Reason::ClientClosed)), SECOND);
                watcher.ended(&exchange(200, Some(Reason::ClientClosed)), SECOND);
                watcher.ended(&exchange(404, Some(Reason::NoRoute)), SECOND);
                watcher.ended(&exchange(500, None), SECOND);
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let failures = watch.failures(100);
    assert_eq!(failures.len(), 9);
    assert!(failures.is_sorted_by(|a, b| a.at >= b.at));
    assert_eq!(watch.failures(2).len(), 2);
}

#[test]
fn a_storm_of_failures_keeps_the_last_hundred_of_a_worker() {
    let watch = Watch::default();
    let watcher = WorkerWatch::new(&watch);
    for n in 0..1000 {
        let exchange = exchange(503, Some(Reason::ConnectRefused));
        exchange.path.replace(format!("/{n}").into());
        watcher.ended(&exchange, SECOND);
    }
    let mut failures = watch.failures(1000);
    failures.sort_by_key(|record| record.path.trim_start_matches('/').parse::<u32>().unwrap());
    assert_eq!((failures.len(), &*failures[0].path, &*failures[99].path), (100, "/900", "/999"));
}

#[test]
fn a_worker_never_waits_for_a_reader() {
    let watch = Watch::default();
    let watcher = WorkerWatch::new(&watch);
    watcher.ended(&exchange(503, None), SECOND);
    let ring = watch.0.rings.lock().unwrap()[0].clone();
    let reading = ring.lock().unwrap();
    watcher.ended(&exchange(503, None), SECOND);
    drop(reading);
    assert_eq!((watch.failures(9).len(), watch.missed()), (1, 1));
}

#[test]
fn long_texts_are_cut_between_characters() {
    let watch = Watch::default();
    let watcher = WorkerWatch::new(&watch);
    let exchange = exchange(503, None);
    exchange.path.replace("/é".repeat(10_000).into());
    watcher.ended(&exchange, SECOND);
    let path = &watch.failures(1)[0].path;
    assert!(path.len() < 520 && path.ends_with('…'), "{path}");
}

#[tokio::test]
async fn a_tap_gets_the_exchanges_that_match_its_filter_and_ends_with_its_reader() {
    let watch = Watch::default();
    let watcher = WorkerWatch::new(&watch);
    assert!(!watcher.tapped());
    let filter = TapFilter { status: Some("5xx".into()), path: Some("/v1".into()), ..TapFilter::default() };
    let mut tap = watch.tap(filter).unwrap();
    assert!(watcher.tapped());
    watcher.ended(&exchange(200, None), SECOND);
    watcher.ended(&exchange(503, None), SECOND);
    let Some(TapResult::Record(record)) = tap.next().await else { panic!("no record") };
    assert_eq!((record.status, &*record.host), (503, "orders.internal"));
    drop(tap);
    assert!(!watcher.tapped());
}

#[tokio::test]
async fn every_part_of_a_filter_counts() {
    let all = TapFilter::default();
    let ok = exchange(200, None);
    let bad = exchange(504, Some(Reason::PerTryTimeout));
    let with = |change: &dyn Fn(&mut TapFilter)| {
        let mut filter = all.clone();
        change(&mut filter);
        (filter.meets(&ok, SECOND), filter.meets(&bad, SECOND * 2))
    };
    assert_eq!(with(&|_| ()), (true, true));
    assert_eq!(with(&|f| f.reason = Some("any".into())), (false, true));
    assert_eq!(with(&|f| f.reason = Some("per-try-timeout".into())), (false, true));
    assert_eq!(with(&|f| f.reason = Some("no-route".into())), (false, false));
    assert_eq!(with(&|f| f.status = Some("504".into())), (false, true));
    assert_eq!(with(&|f| f.status = Some("2xx".into())), (true, false));
    assert_eq!(with(&|f| f.slower = Some(SECOND * 2)), (false, true));
    assert_eq!(with(&|f| f.method = Some("POST".into())), (false, false));
    assert_eq!(with(&|f| f.upstream = Some("orders".into())), (true, true));
    assert_eq!(with(&|f| f.route = Some("orders".into())), (false, false));
    assert_eq!(with(&|f| f.listener = Some("inbound".into())), (false, false));
    assert_eq!(with(&|f| f.host = Some("other".into())), (false, false));
}

#[tokio::test]
async fn a_reader_that_is_too_slow_learns_how_many_it_missed() {
    let watch = Watch::default();
    let watcher = WorkerWatch::new(&watch);
    let mut tap = watch.tap(TapFilter::default()).unwrap();
    for _ in 0..300 {
        watcher.ended(&exchange(200, None), SECOND);
    }
    assert!(matches!(tap.next().await, Some(TapResult::Dropped(44))));
    for _ in 0..256 {
        assert!(matches!(tap.next().await, Some(TapResult::Record(_))));
    }
}

#[tokio::test]
async fn a_sample_of_three_is_every_third_exchange() {
    let watch = Watch::default();
    let watcher = WorkerWatch::new(&watch);
    let mut tap = watch.tap(TapFilter { sample: 3, ..TapFilter::default() }).unwrap();
    for status in 200..209 {
        watcher.ended(&exchange(status, None), SECOND);
    }
    for status in [200, 203, 206] {
        let Some(TapResult::Record(record)) = tap.next().await else { panic!("no record") };
        assert_eq!(record.status, status);
    }
}

#[test]
fn taps_are_bounded() {
    let watch = Watch::default();
    let taps: Vec<_> = (0..9).filter_map(|_| watch.tap(TapFilter::default())).collect();
    assert_eq!(taps.len(), 8);
}
