//! Permits, the retry budget and those who wait: `count.rs`, `budget/floor.rs` and `pool/waiting.rs`.

use std::time::Duration;

use loom::{sync::Arc, thread::spawn};
use tokio::time::Instant;

use crate::{
    Model,
    count::take,
    floor::Floor,
    sync::{AtomicU32, Ordering::Relaxed},
    waiting::WaitCount,
};

pub(crate) const MODELS: &[Model] = &[
    ("permits: never one too many, and all are given back", never_one_too_many),
    ("permits: a free place is not refused because another is refused", a_free_place_is_given),
    ("budget: the floor gives each of its tokens once", the_floor_gives_each_token_once),
    ("permits: who waits hears of a place that came free", who_waits_is_woken),
];

fn never_one_too_many() {
    let places = Arc::new((AtomicU32::new(0), AtomicU32::new(0)));
    let call = |places: &(AtomicU32, AtomicU32)| {
        if take(&places.0, 1).is_some() {
            assert_eq!(places.1.fetch_add(1, Relaxed), 0, "two hold the one place");
            places.1.fetch_sub(1, Relaxed);
            places.0.fetch_sub(1, Relaxed);
        }
    };
    let others: Vec<_> = (0..2)
        .map(|_| {
            let places = places.clone();
            spawn(move || call(&places))
        })
        .collect();
    call(&places);
    others.into_iter().for_each(|other| other.join().unwrap());
    assert_eq!(places.0.load(Relaxed), 0);
}

/// One is refused while the place is taken. Whoever asks after it was given back gets it.
fn a_free_place_is_given() {
    let places = Arc::new(AtomicU32::new(0));
    assert_eq!(take(&places, 1), Some(1));
    let other = spawn({
        let places = places.clone();
        move || take(&places, 1).is_some()
    });
    places.fetch_sub(1, Relaxed);
    let own = take(&places, 1).is_some();
    assert!(own || other.join().unwrap(), "both were refused, although the permit is free");
}

fn the_floor_gives_each_token_once() {
    let now = Instant::now();
    let floor = Arc::new(Floor::new(now));
    // Two a second: two at once, and one half a second later.
    let ask = move |floor: &Floor, at: Duration| u32::from(floor.admit(2, now + at));
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

fn who_waits_is_woken() {
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
