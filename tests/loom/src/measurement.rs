//! Adaptive concurrency's limit and its measurement: `adaptive/limit.rs`.

use loom::{sync::Arc, thread::spawn};

use crate::{
    Model,
    limit::{AdaptiveLimit, measuring},
};

pub(crate) const MODELS: &[Model] = &[
    ("adaptive limit: after a measurement it has its earlier value", the_limit_comes_back),
    ("adaptive limit: racing workers begin one measurement, and one ends it", one_begins_and_one_ends),
    ("adaptive limit: a call from before the measurement is no sample", a_late_call_is_no_sample),
];

/// A worker that stops while it begins a measurement, and others that complete the measurement.
fn the_limit_comes_back() {
    let limit = Arc::new(AdaptiveLimit::new(9, false));
    let begins = spawn({
        let limit = limit.clone();
        move || limit.begin(0, 1, || ())
    });
    let phase = limit.phase();
    if measuring(phase) && limit.counts(phase, 1) {
        limit.end(phase);
    }
    begins.join().unwrap();
    let now = limit.phase();
    assert_eq!(limit.get(), if measuring(now) { 1 } else { 9 }, "in phase {now}");
}

fn one_begins_and_one_ends() {
    let limit = Arc::new(AdaptiveLimit::new(9, false));
    let work = |limit: &AdaptiveLimit| {
        limit.begin(0, 1, || ());
        let phase = limit.phase();
        let last = phase == 1 && limit.counts(phase, 2);
        if last {
            limit.end(phase);
        }
        last
    };
    let other = spawn({
        let limit = limit.clone();
        move || work(&limit)
    });
    let (own, other) = (work(&limit), other.join().unwrap());
    assert!(!(own && other) && limit.phase() <= 2);
    assert_eq!(limit.get(), if limit.phase() == 2 { 9 } else { 1 });
}

/// A call and its measurement end at the same time, and another measurement begins.
fn a_late_call_is_no_sample() {
    let limit = Arc::new(AdaptiveLimit::new(9, true));
    let late = spawn({
        let limit = limit.clone();
        move || limit.counts(1, 1)
    });
    let ends = limit.counts(1, 1);
    if ends {
        limit.end(1);
        limit.begin(2, 1, || ());
        assert!(!limit.counts(3, 2), "the first of two");
        assert!(limit.counts(3, 2), "the second");
    }
    assert!(late.join().unwrap() != ends, "exactly one call is the first measurement's last");
}
