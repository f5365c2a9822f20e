//! The failure breaker: `circuit/state.rs` and `circuit/window.rs`.

use std::time::Duration;

use loom::{sync::Arc, thread::spawn};

use crate::{
    Model,
    state::{AtomicCircuitState, CircuitPhase, ProbeOutcome, Ticket},
    window::CountWindow,
};

pub(crate) const MODELS: &[Model] = &[
    ("breaker: the calls of a new closed state count from zero", counts_from_nothing),
    ("breaker: racing workers get exactly the probes", exactly_the_probes),
    ("breaker: no failure of a state is lost, and none counts in another", no_failure_is_lost),
    ("breaker: two failures at the threshold open it once", opens_once),
    ("breaker: a released probe is given to another call", a_permit_comes_back),
];

fn ticket(state: &AtomicCircuitState) -> Ticket {
    state.admit(1, || 1).unwrap().0
}

/// A state that opened at 0 until 1; the time is 1 now.
fn opened() -> AtomicCircuitState {
    let state = AtomicCircuitState::default();
    assert!(state.open(&ticket(&state), |_| 1));
    state
}

/// The first call after the last probe sees the window that this probe has cleared.
fn counts_from_nothing() {
    let state = Arc::new((AtomicCircuitState::default(), CountWindow::new(Duration::from_secs(10))));
    // Each uses its own bucket, because a thread that only reads a bucket may see an old value.
    let (before, since) = (Duration::from_secs(1), Duration::from_secs(2));
    let failed = ticket(&state.0);
    state.1.add(before, false);
    assert!(state.0.open(&failed, |_| 1));
    let probe = ticket(&state.0);
    let closing = spawn({
        let state = state.clone();
        move || assert_eq!(state.0.succeeded(&probe, 1, || state.1.clear()), ProbeOutcome::Closed)
    });
    let first = state.0.admit(1, || 1).ok();
    let counted = first.is_some();
    if let Some((first, _)) = first {
        assert_eq!(state.0.count(&first, false), Some(1));
        state.1.add(since, false);
        assert_eq!(state.1.sum(since), (1, 1), "failures from before it opened, or its own lost");
    }
    closing.join().unwrap();
    assert_eq!(state.1.sum(since), (u64::from(counted), u64::from(counted)));
}

fn exactly_the_probes() {
    let state = Arc::new(opened());
    let ask = |state: &AtomicCircuitState| u32::from(state.admit(2, || 1).is_ok());
    let others: Vec<_> = (0..2)
        .map(|_| {
            let state = state.clone();
            spawn(move || ask(&state))
        })
        .collect();
    let own = ask(&state);
    let all = own + others.into_iter().map(|other| other.join().unwrap()).sum::<u32>();
    assert_eq!(all, 2);
    assert!(matches!(state.load().phase, CircuitPhase::HalfOpen { admitted: 2, succeeded: 0 }));
}

/// A call that began before the breaker opened ends while the breaker closes again, and another call fails after that.
fn no_failure_is_lost() {
    let state = Arc::new(AtomicCircuitState::default());
    let late = [ticket(&state), ticket(&state)];
    assert!(state.open(&ticket(&state), |_| 1));
    let probe = ticket(&state);
    let before = spawn({
        let state = state.clone();
        move || {
            let [one, other] = late;
            assert_eq!((state.count(&one, false), state.count(&other, true)), (None, None));
        }
    });
    assert_eq!(state.succeeded(&probe, 1, || ()), ProbeOutcome::Closed);
    let first = ticket(&state);
    assert_eq!(state.count(&first, false), Some(1));
    before.join().unwrap();
    assert!(matches!(state.load().phase, CircuitPhase::Closed { row: 1 }));
}

fn opens_once() {
    let state = Arc::new(AtomicCircuitState::default());
    let fail = |state: &AtomicCircuitState, ticket: &Ticket| {
        let row = state.count(ticket, false);
        row.is_some_and(|row| row >= 2) && state.open(ticket, |opened| u64::from(opened) + 5)
    };
    assert_eq!(state.count(&ticket(&state), false), Some(1));
    let one = ticket(&state);
    let other = ticket(&state);
    let racing = spawn({
        let state = state.clone();
        move || fail(&state, &one)
    });
    let own = fail(&state, &other);
    assert!(own != racing.join().unwrap(), "exactly one of them opens it");
    let word = state.load();
    assert!(matches!(word.phase, CircuitPhase::Open(5)) && word.opened == 1, "{word:?}");
}

fn a_permit_comes_back() {
    let state = Arc::new(opened());
    let probe = ticket(&state);
    let leaving = spawn({
        let state = state.clone();
        move || state.release(&probe)
    });
    let early = state.admit(1, || 1).ok();
    leaving.join().unwrap();
    let late = state.admit(1, || 1).ok();
    assert!(early.is_some() != late.is_some(), "there is one permit, and it is never lost");
}
