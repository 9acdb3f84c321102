use super::*;

const MS: Duration = Duration::from_millis(1);

#[expect(clippy::disallowed_methods, reason = "an Instant can only be had from the clock; its value does not matter")]
fn start() -> Instant {
    Instant::now()
}

#[test]
fn every_latency_is_within_the_bounds_of_its_class_and_classes_leave_no_gap() {
    for micros in (0..10_000).chain((10_000..=SAMPLE_MAX).step_by(997)).chain([SAMPLE_MAX]) {
        let (low, width) = bounds(class(micros));
        assert!((low..low + width).contains(&micros), "{micros} µs in {low}+{width}");
    }
    for number in 1..CLASSES {
        let (low, width) = bounds(number - 1);
        assert_eq!(bounds(number).0, low + width);
    }
    assert_eq!(class(SAMPLE_MAX) + 1, CLASSES);
}

#[test]
fn percentiles_are_those_of_the_answers_and_not_of_a_bell_curve() {
    let now = start();
    // Nine of ten answers at 8 ms, one at 200 ms: smoothed latency and twice its variation would say 80 ms or so.
    let mut spread = Spread::default();
    for number in 0..500_u32 {
        spread.record(now, if number % 10 == 9 { MS * 200 } else { MS * 8 });
    }
    let Percentiles { p50, p95 } = spread.percentiles().unwrap();
    assert!(p50.abs_diff(MS * 8) < MS, "{p50:?}");
    assert!(p95.abs_diff(MS * 200) < MS * 13, "{p95:?}");
}

#[test]
fn percentiles_of_an_even_spread_are_within_six_percent() {
    let now = start();
    for scale in [1, 10, 100, 1000] {
        let mut spread = Spread::default();
        for number in 0..1000_u32 {
            // Each of a thousand latencies once, in mixed order.
            spread.record(now, Duration::from_micros(u64::from(number * 617 % 1000) * scale));
        }
        let Percentiles { p50, p95 } = spread.percentiles().unwrap();
        let near = |told: Duration, micros: u64| {
            let (told, right) = (told.as_secs_f64() * 1e6, (micros * scale) as f64);
            assert!((told - right).abs() <= right * 0.06, "{told} for {right} µs");
        };
        near(p50, 500);
        near(p95, 950);
    }
}

#[test]
fn a_new_level_is_seen_after_some_hundred_answers() {
    let now = start();
    let mut spread = Spread::default();
    (0..10_000).for_each(|_| spread.record(now, MS * 10));
    (0..1000).for_each(|_| spread.record(now, MS * 100));
    assert!(spread.percentiles().unwrap().p50 > MS * 90);
    (0..4000).for_each(|_| spread.record(now, MS * 10));
    assert!(spread.percentiles().unwrap().p95 < MS * 11);
}

#[test]
fn old_answers_fade_with_time_where_few_come() {
    let mut now = start();
    let mut spread = Spread::default();
    (0..512).for_each(|_| spread.record(now, MS * 300));
    for _ in 0..20 {
        now += Duration::from_secs(30);
        spread.record(now, MS * 10);
    }
    assert_eq!(spread.percentiles(), None, "two answers a minute are no percentile");
    for _ in 0..60 {
        now += Duration::from_secs(1);
        spread.record(now, MS * 10);
    }
    assert!(spread.percentiles().unwrap().p95 < MS * 11);
}

#[test]
fn fewer_than_sixteen_answers_are_no_percentile() {
    let now = start();
    let mut spread = Spread::default();
    (0..15).for_each(|_| spread.record(now, MS));
    assert_eq!(spread.percentiles(), None);
    spread.record(now, Duration::MAX);
    assert!(spread.percentiles().is_some());
}
