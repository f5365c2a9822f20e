//! Flags that sum up other words of memory: `flag.rs`.

use loom::{sync::Arc, thread::spawn};

use crate::{
    Model,
    flag::Flag,
    sync::{
        AtomicU32,
        Ordering::{Acquire, Relaxed, Release},
    },
};

pub(crate) const MODELS: &[Model] = &[
    ("ejection: after a failure the flag is up, even if another thread lowers it meanwhile", a_failure_is_seen),
    ("breakers of endpoints: in the end the flag agrees with the breaker", the_flag_ends_as_the_state),
];

fn a_failure_is_seen() {
    let shared = Arc::new((Flag::default(), AtomicU32::new(0)));
    // An earlier row of failures, which has ended, raised it.
    shared.0.raise();
    let settle = |shared: &(Flag, AtomicU32)| shared.0.lower_unless(|| shared.1.load(Relaxed) != 0);
    let settles = spawn({
        let shared = shared.clone();
        move || settle(&shared)
    });
    let fails = spawn({
        let shared = shared.clone();
        move || {
            shared.1.fetch_add(1, Relaxed);
            shared.0.raise();
        }
    });
    settle(&shared);
    settles.join().unwrap();
    fails.join().unwrap();
    assert!(shared.0.is_up(), "there is a row of failures, and no success would end it");
}

fn the_flag_ends_as_the_state() {
    let shared = Arc::new((Flag::default(), AtomicU32::new(0)));
    let turn = |shared: &(Flag, AtomicU32), state: u32| {
        shared.1.store(state, Release);
        shared.0.follow(|| shared.1.load(Acquire) != 0);
    };
    let other = spawn({
        let shared = shared.clone();
        move || turn(&shared, 1)
    });
    turn(&shared, 0);
    other.join().unwrap();
    assert_eq!(shared.0.is_up(), shared.1.load(Acquire) != 0);
}
