use attache_config::model::MinRtt;
use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);

fn config() -> AdaptiveConcurrency {
    let min_rtt = MinRtt { request_count: 5, jitter: 0.0, interval: 1000 * MS, ..MinRtt::default() };
    AdaptiveConcurrency { min_rtt, ..AdaptiveConcurrency::default() }
}

fn fixed(value: Duration) -> AdaptiveConcurrency {
    let mut config = config();
    config.min_rtt.fixed_value = Some(value);
    config
}

/// One window of samples of `rtt`, while `running` calls run. Returns the limit after it.
fn window(gradient: &Gradient, rtt: Duration, running: u32, now: &mut Instant) -> u32 {
    *now += 100 * MS;
    let phase = gradient.begun(running, *now);
    gradient.sample(phase, rtt, running, *now);
    gradient.limit()
}

#[tokio::test(start_paused = true)]
async fn the_limit_is_what_the_formula_says() {
    let mut now = Instant::now();
    let gradient = Gradient::new(fixed(Duration::from_micros(10_240)), now);
    assert_eq!(gradient.limit(), 3);
    // 10,240 µs is a bucket's lower bound; its middle is 10,496.
    let mut expected = 3.0_f64;
    for _ in 0..10 {
        let scaled = expected * (12_800.0 / 10_496.0_f64).clamp(0.5, 2.0);
        expected = (scaled + scaled.sqrt()).floor().clamp(3.0, 1000.0);
        assert_eq!(window(&gradient, Duration::from_micros(10_240), 1000, &mut now), expected as u32);
    }
    assert!(expected > 100.0);
    // Ten times as slow: the gradient is at its lowest.
    let scaled = expected * 0.5;
    let halved = (scaled + scaled.sqrt()).floor();
    assert_eq!(window(&gradient, 100 * MS, 1000, &mut now), halved as u32);
}

#[tokio::test(start_paused = true)]
async fn a_window_lasts_for_its_interval_and_one_without_samples_changes_nothing() {
    let start = Instant::now();
    let gradient = Gradient::new(fixed(10 * MS), start);
    gradient.sample(0, 10 * MS, 9, start + 99 * MS);
    assert_eq!(gradient.limit(), 3);
    gradient.sample(0, 10 * MS, 9, start + 100 * MS);
    let second = gradient.limit();
    assert!(second > 3);
    gradient.sample(0, 10 * MS, 99, start + 900 * MS);
    assert!(gradient.limit() > second, "one step for one window, whatever its length");
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_which_less_than_half_is_used_stays_unchanged() {
    let mut now = Instant::now();
    let gradient = Gradient::new(fixed(10 * MS), now);
    let limit = window(&gradient, 10 * MS, 3, &mut now);
    assert!(limit > 4);
    // The three that ran when the window began count in it.
    let limit = window(&gradient, 10 * MS, 1, &mut now).max(limit);
    assert_eq!(window(&gradient, 10 * MS, 1, &mut now), limit);
    assert_eq!(window(&gradient, 999 * MS, 1, &mut now), limit, "a single slow call doesn't lower it");
    assert!(window(&gradient, 10 * MS, limit, &mut now) > limit);
}

#[tokio::test(start_paused = true)]
async fn calls_of_a_window_count_only_in_it_and_in_the_next_one() {
    let mut now = Instant::now();
    let gradient = Gradient::new(fixed(10 * MS), now);
    let busy = window(&gradient, 10 * MS, 100, &mut now);
    // Calls that ran at its end count in the next one as well.
    let next = window(&gradient, 10 * MS, 1, &mut now);
    assert!(next > busy);
    assert_eq!(window(&gradient, 10 * MS, 1, &mut now), next);
}

#[tokio::test(start_paused = true)]
async fn only_windows_in_a_row_at_the_lowest_limit_begin_a_measurement() {
    let mut now = Instant::now();
    let mut config = config();
    config.min_rtt.interval = Duration::from_hours(1);
    let gradient = Gradient::new(config, now);
    for _ in 0..5 {
        let phase = gradient.begun(1, now);
        gradient.sample(phase, MS, 1, now);
    }
    for _ in 0..3 {
        for _ in 1..WINDOWS_AT_MINIMUM {
            window(&gradient, 100 * MS, 100, &mut now);
        }
        assert_eq!(gradient.limit(), 3);
        assert!(window(&gradient, MS, 100, &mut now) > 3, "the row ends");
        window(&gradient, 100 * MS, 100, &mut now);
        assert!(!gradient.reading().measuring);
        assert!(window(&gradient, MS, 100, &mut now) > 3);
    }
}

#[tokio::test(start_paused = true)]
async fn a_measurement_takes_its_calls_at_the_lowest_limit_and_then_the_limit_is_as_before() {
    let mut now = Instant::now();
    let gradient = Gradient::new(config(), now);
    assert!(gradient.reading().measuring);
    assert_eq!(gradient.reading().min_rtt, None);
    for rtt in [9, 10, 10, 10, 80] {
        assert!(gradient.reading().measuring);
        let phase = gradient.begun(1, now);
        gradient.sample(phase, rtt * MS, 1, now);
    }
    assert!(!gradient.reading().measuring);
    let min = gradient.reading().min_rtt.unwrap();
    assert!(min >= 9 * MS && min <= 11 * MS, "the median: {min:?}");

    let began = gradient.begun(3, now);
    for _ in 0..4 {
        window(&gradient, 10 * MS, 100, &mut now);
    }
    let limit = gradient.limit();
    assert!(limit > 10, "{limit}");
    now += 600 * MS;
    gradient.begun(3, now);
    assert_eq!((gradient.reading().measuring, gradient.limit()), (true, 3), "after the interval");
    for _ in 0..10 {
        gradient.sample(began, MS, 3, now);
    }
    assert!(gradient.reading().measuring, "calls from before the measurement don't count in it");
    for _ in 0..5 {
        let phase = gradient.begun(3, now);
        gradient.sample(phase, 20 * MS, 3, now);
    }
    assert_eq!((gradient.reading().measuring, gradient.limit()), (false, limit));
    assert!(gradient.reading().min_rtt.unwrap() > 18 * MS, "the new one");
}

#[tokio::test(start_paused = true)]
async fn five_windows_at_the_lowest_limit_begin_a_measurement() {
    let mut now = Instant::now();
    let mut config = config();
    config.min_rtt.interval = Duration::from_hours(1);
    let gradient = Gradient::new(config, now);
    for _ in 0..5 {
        let phase = gradient.begun(1, now);
        gradient.sample(phase, MS, 1, now);
    }
    for windows in 1..=WINDOWS_AT_MINIMUM {
        assert!(!gradient.reading().measuring, "{windows}");
        assert_eq!(window(&gradient, 100 * MS, 3, &mut now), 3);
    }
    assert!(gradient.reading().measuring);
}

/// A controller whose first measurement has found this minRTT.
fn measured(config: AdaptiveConcurrency, rtt: Duration, now: Instant) -> Gradient {
    let gradient = Gradient::new(config, now);
    measure(&gradient, rtt, now);
    gradient
}

fn measure(gradient: &Gradient, rtt: Duration, now: Instant) {
    for _ in 0..5 {
        let phase = gradient.begun(1, now);
        gradient.sample(phase, rtt, 1, now);
    }
}

#[tokio::test(start_paused = true)]
async fn half_of_the_limit_at_the_busiest_moment_of_a_window_is_enough_for_a_change() {
    let mut now = Instant::now();
    let gradient = Gradient::new(fixed(10 * MS), now);
    let mut limit = gradient.limit();
    while limit % 2 == 1 {
        window(&gradient, 10 * MS, 1000, &mut now);
        limit = window(&gradient, 10 * MS, 1, &mut now);
    }
    assert_eq!(window(&gradient, 10 * MS, limit / 2 - 1, &mut now), limit, "less than half");
    now += 100 * MS;
    // Only one call is left when the window ends.
    let phase = gradient.begun(limit / 2, now);
    gradient.sample(phase, 10 * MS, 1, now);
    assert!(gradient.limit() > limit);
}

#[tokio::test(start_paused = true)]
async fn a_measurement_has_no_samples_of_the_window_before_it() {
    let mut now = Instant::now();
    let gradient = measured(config(), MS, now);
    for _ in 0..20 {
        let phase = gradient.begun(1, now + 10 * MS);
        gradient.sample(phase, 100 * MS, 1, now + 10 * MS);
    }
    now += 1000 * MS;
    measure(&gradient, 20 * MS, now);
    let min = gradient.reading().min_rtt.unwrap();
    assert!(min >= 19 * MS && min <= 21 * MS, "{min:?}");
}

#[tokio::test(start_paused = true)]
async fn the_call_that_begins_a_measurement_is_its_first_sample() {
    let mut now = Instant::now();
    let gradient = measured(config(), MS, now);
    now += 1000 * MS;
    assert!(!gradient.reading().measuring);
    measure(&gradient, 2 * MS, now);
    assert!(!gradient.reading().measuring, "these were the five");
    assert!(gradient.reading().min_rtt.unwrap() > MS + MS / 2);
}

#[tokio::test(start_paused = true)]
async fn windows_at_the_lowest_limit_are_counted_anew_after_a_measurement() {
    let mut now = Instant::now();
    let mut config = config();
    config.min_rtt.interval = Duration::from_hours(1);
    let gradient = measured(config, MS, now);
    for _ in 0..WINDOWS_AT_MINIMUM {
        window(&gradient, 100 * MS, 3, &mut now);
    }
    assert!(gradient.reading().measuring);
    measure(&gradient, 100 * MS, now);
    for _ in 1..WINDOWS_AT_MINIMUM {
        window(&gradient, 5000 * MS, 3, &mut now);
        assert!(!gradient.reading().measuring);
    }
    window(&gradient, 5000 * MS, 3, &mut now);
    assert!(gradient.reading().measuring);
}

#[tokio::test(start_paused = true)]
async fn a_min_rtt_of_the_config_is_never_measured() {
    let mut now = Instant::now();
    let gradient = Gradient::new(fixed(10 * MS), now);
    for _ in 0..4 * WINDOWS_AT_MINIMUM {
        window(&gradient, 1000 * MS, 3, &mut now);
        assert!(!gradient.reading().measuring);
    }
    assert_eq!(gradient.reading().min_rtt, Some(10 * MS));
}

#[tokio::test(start_paused = true)]
async fn the_next_measurement_comes_after_the_interval_and_up_to_jitter_later() {
    let mut config = config();
    config.min_rtt.jitter = 0.5;
    let now = Instant::now();
    let mut early = 0;
    for _ in 0..100 {
        let gradient = measured(config.clone(), MS, now);
        let measures_after = |millis: u32| {
            gradient.begun(1, now + millis * MS);
            gradient.reading().measuring
        };
        assert!(!measures_after(999));
        early += u32::from(measures_after(1250));
        assert!(measures_after(1501));
    }
    assert!((20..=80).contains(&early), "about half of them in the first half: {early}");
}

#[tokio::test(start_paused = true)]
async fn the_window_after_a_measurement_lasts_for_its_whole_interval() {
    let gradient = Gradient::new(config(), Instant::now());
    let now = Instant::now() + 500 * MS;
    measure(&gradient, 10 * MS, now);
    gradient.sample(gradient.begun(9, now), 10 * MS, 9, now + 99 * MS);
    assert_eq!(gradient.limit(), 3);
    gradient.sample(gradient.begun(9, now), 10 * MS, 9, now + 100 * MS);
    assert!(gradient.limit() > 3);
}

proptest! {
    #[test]
    fn the_limit_is_always_between_its_bounds(
        steps in prop::collection::vec((1_u64..5_000, 0_u32..300, 0_u64..400), 1..200),
        lowest in 1_u32..5,
        most in 5_u32..100,
    ) {
        let mut config = config();
        config.max_concurrency_limit = most;
        config.min_rtt.min_concurrency = lowest;
        let mut now = Instant::now();
        let gradient = Gradient::new(config, now);
        for (rtt, running, wait) in steps {
            now += Duration::from_millis(wait);
            let phase = gradient.begun(running, now);
            prop_assert!((lowest..=most).contains(&gradient.limit()));
            gradient.sample(phase, Duration::from_millis(rtt), running, now);
            prop_assert!((lowest..=most).contains(&gradient.limit()));
        }
    }
}
