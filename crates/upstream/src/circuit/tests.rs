use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use proptest::prelude::*;
use tokio::time::advance;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn circuit(config: FailureBreaker) -> Circuit {
    Circuit::new(config, "orders".into(), None, Instant::now())
}

fn end(circuit: &Circuit, success: bool) {
    let ticket = circuit.admit().unwrap();
    circuit.record(&ticket, success, Instant::now());
}

fn opens_at(circuit: &Circuit) -> Instant {
    match circuit.phase() {
        BreakerState::Open(until) => until,
        other => panic!("{other:?}"),
    }
}

async fn until_half_open(circuit: &Circuit) {
    tokio::time::sleep_until(opens_at(circuit)).await;
}

#[tokio::test(start_paused = true)]
async fn failures_in_a_row_open_it_whatever_the_rate() {
    let circuit = circuit(FailureBreaker { consecutive: 5, ..FailureBreaker::default() });
    for success in [false, false, false, false, true, false, false, false, false] {
        end(&circuit, success);
    }
    assert_eq!(circuit.phase(), BreakerState::Closed);
    end(&circuit, false);
    assert!(circuit.admit().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_low_success_rate_opens_it_without_two_failures_in_a_row() {
    let config =
        FailureBreaker { consecutive: 0, success_rate: 0.7, min_samples: 10, ..FailureBreaker::default() };
    let circuit = circuit(config);
    for _ in 0..4 {
        end(&circuit, true);
        end(&circuit, false);
    }
    assert_eq!(circuit.phase(), BreakerState::Closed, "too few samples");
    end(&circuit, true);
    assert_eq!(circuit.phase(), BreakerState::Closed, "a success never opens it");
    end(&circuit, false);
    assert!(circuit.admit().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_success_rate_that_is_just_high_enough_opens_nothing() {
    let config =
        FailureBreaker { consecutive: 0, success_rate: 0.7, min_samples: 1, ..FailureBreaker::default() };
    let circuit = circuit(config);
    for success in [true; 7].into_iter().chain([false; 3]) {
        end(&circuit, success);
    }
    assert_eq!(circuit.phase(), BreakerState::Closed, "seven of ten");
    end(&circuit, false);
    assert!(circuit.admit().is_err(), "seven of eleven");
}

#[tokio::test(start_paused = true)]
async fn failures_older_than_the_window_do_not_count() {
    let config =
        FailureBreaker { consecutive: 0, success_rate: 0.9, min_samples: 10, ..FailureBreaker::default() };
    let circuit = circuit(config);
    for _ in 0..9 {
        end(&circuit, false);
    }
    advance(10 * SECOND).await;
    end(&circuit, false);
    assert_eq!(circuit.phase(), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn the_wait_it_asks_for_ends_at_the_instant_when_it_half_opens() {
    let circuit = circuit(FailureBreaker { consecutive: 1, ..FailureBreaker::default() });
    end(&circuit, false);
    let until = opens_at(&circuit);
    let open = until - Instant::now();
    assert!((SECOND..=Duration::from_millis(1200)).contains(&open), "{open:?}");
    assert_eq!(circuit.admit().unwrap_err(), open);
    advance(open.saturating_sub(Duration::from_millis(1))).await;
    assert_eq!(circuit.admit().unwrap_err(), Duration::from_millis(1));
    advance(Duration::from_millis(1)).await;
    assert!(circuit.admit().is_ok());
}

#[tokio::test(start_paused = true)]
async fn breakers_that_open_together_do_not_half_open_together() {
    let opened = (0..50).map(|_| {
        let circuit = circuit(FailureBreaker { consecutive: 1, ..FailureBreaker::default() });
        end(&circuit, false);
        opens_at(&circuit)
    });
    assert!(opened.collect::<std::collections::BTreeSet<_>>().len() > 10);
}

#[tokio::test(start_paused = true)]
async fn exactly_the_probes_are_let_through_and_all_must_succeed() {
    let circuit = circuit(FailureBreaker { consecutive: 1, probes: 3, ..FailureBreaker::default() });
    end(&circuit, false);
    until_half_open(&circuit).await;
    let probes: Vec<_> = (0..10).filter_map(|_| circuit.admit().ok()).collect();
    assert_eq!(probes.len(), 3);
    for probe in &probes {
        assert_eq!(circuit.phase(), BreakerState::HalfOpen);
        assert!(circuit.admit().is_err(), "a probe that succeeded doesn't make room for another");
        circuit.record(probe, true, Instant::now());
    }
    assert_eq!(circuit.phase(), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_failed_probe_opens_it_for_twice_as_long_up_to_the_longest() {
    let config = FailureBreaker { consecutive: 1, open_max: 5 * SECOND, ..FailureBreaker::default() };
    let circuit = circuit(config);
    for seconds in [1, 2, 4, 5, 5] {
        end(&circuit, false);
        let open = opens_at(&circuit) - Instant::now();
        assert!(
            open >= seconds * SECOND && open <= (seconds * SECOND).mul_f64(1.2) + Duration::from_millis(1)
        );
        until_half_open(&circuit).await;
    }
    for _ in 0..3 {
        end(&circuit, true);
    }
    end(&circuit, false);
    assert!(opens_at(&circuit) - Instant::now() <= Duration::from_millis(1201), "success forgets");
}

#[tokio::test(start_paused = true)]
async fn answers_from_before_it_opened_change_nothing() {
    let circuit = circuit(FailureBreaker { consecutive: 1, probes: 1, ..FailureBreaker::default() });
    let (late_success, late_failure) = (circuit.admit().unwrap(), circuit.admit().unwrap());
    end(&circuit, false);
    until_half_open(&circuit).await;
    let probe = circuit.admit().unwrap();
    circuit.record(&late_success, true, Instant::now());
    circuit.record(&late_failure, false, Instant::now());
    circuit.release(&late_failure);
    assert_eq!(circuit.phase(), BreakerState::HalfOpen);
    assert!(circuit.admit().is_err());
    circuit.record(&probe, true, Instant::now());
    assert_eq!(circuit.phase(), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_probe_whose_caller_left_releases_its_permit() {
    let circuit = circuit(FailureBreaker { consecutive: 1, probes: 1, ..FailureBreaker::default() });
    end(&circuit, false);
    until_half_open(&circuit).await;
    let probe = circuit.admit().unwrap();
    assert!(circuit.admit().is_err());
    circuit.release(&probe);
    assert!(circuit.admit().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_probe_of_an_earlier_half_open_state_releases_no_permit_of_a_later_one() {
    let circuit = circuit(FailureBreaker { consecutive: 1, probes: 2, ..FailureBreaker::default() });
    end(&circuit, false);
    until_half_open(&circuit).await;
    let old = circuit.admit().unwrap();
    end(&circuit, false);
    until_half_open(&circuit).await;
    let _probes = (circuit.admit().unwrap(), circuit.admit().unwrap());
    circuit.release(&old);
    assert!(circuit.admit().is_err());
}

proptest! {
    #[test]
    fn half_open_never_has_more_than_its_probes(
        probes in 1..6u16,
        ops in prop::collection::vec((0..4u8, any::<prop::sample::Index>()), 1..200),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let circuit = circuit(FailureBreaker { consecutive: 2, probes, ..FailureBreaker::default() });
            let mut running: Vec<Ticket> = Vec::new();
            for (op, index) in ops {
                match op {
                    0 | 1 => running.extend(circuit.admit()),
                    2 if !running.is_empty() => {
                        let ticket = running.swap_remove(index.index(running.len()));
                        circuit.record(&ticket, index.index(3) > 0, Instant::now());
                    }
                    3 if !running.is_empty() && index.index(2) == 0 => {
                        circuit.release(&running.swap_remove(index.index(running.len())));
                    }
                    _ => advance(SECOND).await,
                }
                if let BreakerState::HalfOpen = circuit.phase() {
                    let out = running.iter().filter(|ticket| circuit.probes_in(ticket)).count();
                    prop_assert!(out <= usize::from(probes));
                }
            }
            Ok(())
        })?;
    }
}

#[test]
fn workers_that_race_into_half_open_get_exactly_the_probes() {
    for _ in 0..200 {
        let config =
            FailureBreaker { consecutive: 1, probes: 3, open: Duration::ZERO, ..FailureBreaker::default() };
        let circuit = circuit(config);
        end(&circuit, false);
        // The open time of zero is rounded up to a millisecond.
        while Instant::now() < opens_at(&circuit) {
            std::thread::yield_now();
        }
        let admitted = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10 {
                        admitted.fetch_add(u32::from(circuit.admit().is_ok()), SeqCst);
                    }
                });
            }
        });
        assert_eq!(admitted.into_inner(), 3);
    }
}
