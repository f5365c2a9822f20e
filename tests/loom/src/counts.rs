//! Permits, the retry budget and waiting calls: `count.rs`, `budget/floor.rs` and `pool/waiting.rs`.

use std::time::Duration;

use loom::{sync::Arc, thread::spawn};
use tokio::time::Instant;

use crate::{
    Model,
    count::take,
    floor::MinRetryRate,
    sync::{AtomicU32, Ordering::Relaxed},
    waiting::WaitCount,
};

pub(crate) const MODELS: &[Model] = &[
    ("permits: never one too many, and all are released", never_one_too_many),
    ("permits: a free permit is not refused because another call is refused", a_free_permit_is_given),
    ("budget: the floor gives each of its tokens once", the_floor_gives_each_token_once),
    ("permits: a released permit wakes a waiting call", a_waiting_call_is_woken),
];

fn never_one_too_many() {
    let permits = Arc::new((AtomicU32::new(0), AtomicU32::new(0)));
    let call = |permits: &(AtomicU32, AtomicU32)| {
        if take(&permits.0, 1).is_some() {
            assert_eq!(permits.1.fetch_add(1, Relaxed), 0, "two calls hold the only permit");
            permits.1.fetch_sub(1, Relaxed);
            permits.0.fetch_sub(1, Relaxed);
        }
    };
    let others: Vec<_> = (0..2)
        .map(|_| {
            let permits = permits.clone();
            spawn(move || call(&permits))
        })
        .collect();
    call(&permits);
    others.into_iter().for_each(|other| other.join().unwrap());
    assert_eq!(permits.0.load(Relaxed), 0);
}

/// One call is refused while the permit is taken. A call that asks after its release gets it.
fn a_free_permit_is_given() {
    let permits = Arc::new(AtomicU32::new(0));
    assert_eq!(take(&permits, 1), Some(1));
    let other = spawn({
        let permits = permits.clone();
        move || take(&permits, 1).is_some()
    });
    permits.fetch_sub(1, Relaxed);
    let own = take(&permits, 1).is_some();
    assert!(own || other.join().unwrap(), "both were refused, although the permit is free");
}

fn the_floor_gives_each_token_once() {
    let now = Instant::now();
    let floor = Arc::new(MinRetryRate::new(now));
    // Two tokens a second: two at once, and one half a second later.
    let ask = move |floor: &MinRetryRate, at: Duration| u32::from(floor.admit(2, now + at));
    let others: Vec<_> = (0..2)
        .map(|_| {
            let floor = floor.clone();
            spawn(move || ask(&floor, Duration::ZERO))
        })
        .collect();
    let own = ask(&floor, Duration::ZERO);
    assert_eq!(own + others.into_iter().map(|other| other.join().unwrap()).sum::<u32>(), 2);
    assert_eq!(ask(&floor, Duration::from_millis(500)) + ask(&floor, Duration::from_millis(500)), 1);
}

fn a_waiting_call_is_woken() {
    let shared = Arc::new((AtomicU32::new(1), WaitCount::default()));
    let frees = spawn({
        let shared = shared.clone();
        move || {
            shared.0.fetch_sub(1, Relaxed);
            shared.1.any_to_wake()
        }
    });
    shared.1.enter();
    let took = take(&shared.0, 1).is_some();
    let woken = frees.join().unwrap();
    assert!(took || woken, "it waits, and was not woken for the permit");
}
