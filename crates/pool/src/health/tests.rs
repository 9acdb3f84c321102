use super::*;

const MS: Duration = Duration::from_millis(1);
const FULL: u32 = u32::MAX;

#[expect(clippy::disallowed_methods, reason = "an Instant can only be had from the clock; its value does not matter")]
fn start() -> Instant {
    Instant::now()
}

fn opened(now: Instant) -> Health {
    let mut health = Health::new(BreakerSettings::default());
    for _ in 0..3 {
        assert_eq!(health.allowed(now), Allowed::Yes);
        health.record_failure(now, FULL);
    }
    health
}

#[test]
fn failures_in_a_row_open_it_and_one_success_between_does_not() {
    let now = start();
    let mut health = Health::new(BreakerSettings::default());
    for _ in 0..5 {
        health.record_failure(now, FULL);
        health.record_failure(now, FULL);
        health.record_success(now, MS, 1);
    }
    assert_eq!(health.allowed(now), Allowed::Yes, "15 results are too few for a share");
    assert_eq!(opened(now).allowed(now), Allowed::No { until: now + MS * 1000 });
}

#[test]
fn a_share_of_failures_opens_it_once_there_are_twenty_results() {
    let now = start();
    let mut health = Health::new(BreakerSettings::default());
    for _ in 0..9 {
        health.record_success(now, MS, 1);
        health.record_failure(now, FULL);
    }
    health.record_success(now, MS, 1);
    assert_eq!(health.allowed(now), Allowed::Yes);
    health.record_failure(now, FULL);
    assert!(matches!(health.state(), BreakerState::Open { .. }));
}

#[test]
fn results_leave_the_window_with_time() {
    let now = start();
    let mut health = Health::new(BreakerSettings::default());
    health.record_success(now, MS, 30);
    health.record_failure(now + MS * 5000, FULL);
    assert_eq!(health.snapshot(now + MS * 5000).samples, 31);
    assert_eq!(health.snapshot(now + MS * 10_500).samples, 1);
    assert_eq!(health.snapshot(now + MS * 60_000).samples, 0);
    health.record_success(now + MS * 60_000, MS, 2);
    assert_eq!(health.snapshot(now + MS * 60_000).samples, 2);
}

#[test]
fn half_open_lets_one_probe_through_and_closes_after_two_answers() {
    let now = start();
    let mut health = opened(now);
    let later = now + MS * 1000;
    assert_eq!(health.allowed(later), Allowed::Probe);
    health.probe_started(later);
    assert_eq!(health.allowed(later), Allowed::No { until: later + PROBE_LOST });
    health.record_success(later, MS, 1);
    assert_eq!(health.allowed(later), Allowed::Probe);
    health.probe_started(later);
    health.record_success(later, MS, 1);
    assert_eq!(health.state(), BreakerState::Closed);
    assert_eq!(health.snapshot(later).samples, 0);
}

#[test]
fn a_probe_that_is_never_heard_of_again_does_not_close_the_door_for_good() {
    let now = start();
    let mut health = opened(now);
    health.probe_started(now + MS * 1000);
    assert_eq!(health.allowed(now + MS * 1000 + PROBE_LOST), Allowed::Probe);
}

#[test]
fn pauses_double_up_to_the_cap_and_start_over_after_closing() {
    let mut now = start();
    let mut health = opened(now);
    for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
        let until = now + Duration::from_secs(pause);
        assert_eq!(health.allowed(now), Allowed::No { until });
        now = until;
        health.probe_started(now);
        health.record_failure(now, FULL);
    }
    now += Duration::from_secs(60);
    health.record_success(now, MS, 2);
    assert_eq!(health.state(), BreakerState::Closed);
    for _ in 0..3 {
        health.record_failure(now, 0);
    }
    assert_eq!(health.allowed(now), Allowed::No { until: now + MS * 500 }, "no jitter is half a pause");
}

#[test]
fn late_failures_do_not_prolong_a_pause() {
    let now = start();
    let mut health = opened(now);
    let before = health.state();
    health.record_failure(now + MS * 500, FULL);
    assert_eq!(health.state(), before);
}

#[test]
fn latency_follows_rfc_6298() {
    let mut latency = Latency::default();
    assert_eq!((latency.smoothed(), latency.try_timeout()), (None, MS * 1000));
    latency.record(MS * 80);
    assert_eq!((latency.smoothed(), latency.try_timeout()), (Some(MS * 80), MS * 240));
    latency.record(MS * 160);
    // Variation (3 * 40 + 80) / 4, smoothed (7 * 80 + 160) / 8.
    assert_eq!((latency.smoothed(), latency.try_timeout()), (Some(MS * 90), MS * 290));
    for _ in 0..100 {
        latency.record(MS * 20);
    }
    assert!(latency.try_timeout() >= MS * 30 && latency.try_timeout() < MS * 31);
    latency.record(Duration::MAX);
    assert!(latency.try_timeout() <= MS * 5000);
}
