use super::*;

const MS: Duration = Duration::from_millis(1);
const RACING_DELAY: Duration = Duration::from_millis(100);

#[expect(clippy::disallowed_methods, reason = "an Instant can only be had from the clock; its value does not matter")]
fn start() -> Instant {
    Instant::now()
}

fn plan(strategy: Strategy, allowed: &[Allowed], now: Instant) -> Plan {
    rotated(strategy, allowed, 0, now)
}

fn candidate(index: usize, allowed: Allowed) -> Candidate {
    Candidate { index, allowed, try_timeout: MS * 300, hedge_after: MS * 20 }
}

fn rotated(strategy: Strategy, allowed: &[Allowed], rotation: u32, now: Instant) -> Plan {
    let candidate = |(index, &allowed)| candidate(index, allowed);
    let candidates: Vec<Candidate> = allowed.iter().enumerate().map(candidate).collect();
    Plan::start(strategy, &candidates, rotation, now, now + MS * 4000, RACING_DELAY)
}

const YES: Allowed = Allowed::Yes;

#[test]
fn sequential_goes_on_at_failure_and_ends_with_the_last() {
    let now = start();
    let mut plan = plan(Strategy::Sequential, &[YES; 3], now);
    for index in 0..3 {
        assert_eq!(plan.next(now), Step::Send(index));
        assert!(matches!(plan.next(now), Step::WaitUntil(_)));
        plan.failed(index, now);
    }
    assert_eq!(plan.next(now), Step::Failed);
}

#[test]
fn sequential_does_not_wait_for_a_silent_upstream_and_still_hears_it() {
    let now = start();
    let mut plan = plan(Strategy::Sequential, &[YES; 2], now);
    assert_eq!(plan.next(now), Step::Send(0));
    assert_eq!(plan.next(now), Step::WaitUntil(now + MS * 300));
    assert_eq!(plan.next(now + MS * 300), Step::Send(1));
    assert_eq!(plan.next(now + MS * 300), Step::WaitUntil(now + MS * 4000));
    plan.answered(0, Verdict::Final, now + MS * 310);
    assert_eq!(plan.next(now + MS * 310), Step::Use(0));
    plan.answered(1, Verdict::Final, now + MS * 320);
    assert_eq!(plan.next(now + MS * 320), Step::Use(0), "the first final answer stays");
}

#[test]
fn parallel_asks_all_and_ends_when_all_failed() {
    let now = start();
    let mut plan = plan(Strategy::Parallel, &[YES; 3], now);
    for index in 0..3 {
        assert_eq!(plan.next(now), Step::Send(index));
    }
    assert_eq!(plan.next(now), Step::WaitUntil(now + MS * 4000));
    plan.failed(1, now);
    plan.failed(0, now);
    assert_eq!(plan.next(now), Step::WaitUntil(now + MS * 4000));
    plan.failed(2, now);
    assert_eq!(plan.next(now), Step::Failed);
}

#[test]
fn racing_joins_after_the_delay_or_at_once_after_failure() {
    let now = start();
    let mut plan = plan(Strategy::Racing, &[YES; 3], now);
    assert_eq!(plan.next(now), Step::Send(0));
    assert_eq!(plan.next(now), Step::WaitUntil(now + RACING_DELAY));
    assert_eq!(plan.next(now + RACING_DELAY), Step::Send(1));
    plan.failed(1, now + MS * 110);
    assert_eq!(plan.next(now + MS * 110), Step::Send(2));
    plan.failed(0, now + MS * 120);
    assert_eq!(plan.next(now + MS * 120), Step::WaitUntil(now + MS * 4000));
    assert_eq!(plan.next(now + MS * 4000), Step::Failed);
}

#[test]
fn racing_delay_follows_a_fast_upstream() {
    let now = start();
    let fast = Candidate { try_timeout: MS * 30, ..candidate(0, YES) };
    let candidates = [fast, Candidate { index: 1, ..fast }];
    let mut plan = Plan::start(Strategy::Racing, &candidates, 0, now, now + MS * 4000, RACING_DELAY);
    assert_eq!(plan.next(now), Step::Send(0));
    assert_eq!(plan.next(now), Step::WaitUntil(now + MS * 30));
}

#[test]
fn round_robin_begins_where_the_rotation_says() {
    let now = start();
    for (rotation, order) in [(0, [0, 1, 2]), (1, [1, 2, 0]), (5, [2, 0, 1]), (u32::MAX, [0, 1, 2])] {
        let mut plan = rotated(Strategy::RoundRobin, &[YES; 3], rotation, now);
        for index in order {
            assert_eq!(plan.next(now), Step::Send(index));
            plan.failed(index, now);
        }
    }
}

#[test]
fn servfail_is_improved_on_or_used_when_nothing_better_comes() {
    let now = start();
    for strategy in [Strategy::Sequential, Strategy::Racing, Strategy::Parallel, Strategy::RoundRobin] {
        let mut plan = plan(strategy, &[YES; 2], now);
        assert_eq!(plan.next(now), Step::Send(0));
        plan.answered(0, Verdict::Improvable, now);
        assert_eq!(plan.next(now), Step::Send(1), "{strategy:?}");
        let mut better = plan.clone();
        better.answered(1, Verdict::Final, now);
        assert_eq!(better.next(now), Step::Use(1));
        plan.failed(1, now);
        assert_eq!(plan.next(now), Step::UseBest);
    }
}

#[test]
fn servfail_in_hand_is_used_at_the_deadline() {
    let now = start();
    let mut plan = plan(Strategy::Parallel, &[YES; 2], now);
    let _ = (plan.next(now), plan.next(now));
    plan.answered(0, Verdict::Improvable, now);
    assert_eq!(plan.next(now), Step::WaitUntil(now + MS * 4000));
    assert_eq!(plan.next(now + MS * 4000), Step::UseBest);
}

#[test]
fn open_breakers_come_last_and_only_after_failure() {
    let now = start();
    let open = |pause: u32| Allowed::No { until: now + MS * pause };
    for strategy in [Strategy::Sequential, Strategy::Racing, Strategy::Parallel] {
        let mut plan = plan(strategy, &[open(900), YES, open(500)], now);
        assert_eq!(plan.next(now), Step::Send(1));
        assert_eq!(plan.next(now), Step::WaitUntil(now + MS * 300));
        plan.failed(1, now);
        assert_eq!(plan.next(now), Step::Send(2), "the least bad one: {strategy:?}");
        plan.failed(2, now);
        assert_eq!(plan.next(now), Step::Send(0));
        plan.failed(0, now);
        assert_eq!(plan.next(now), Step::Failed);
    }
}

#[test]
fn all_open_tries_the_least_bad_rather_than_nothing() {
    let now = start();
    let open = |pause: u32| Allowed::No { until: now + MS * pause };
    let mut plan = plan(Strategy::Parallel, &[open(900), open(500)], now);
    assert_eq!(plan.next(now), Step::Send(1));
    assert_eq!(plan.next(now), Step::WaitUntil(now + MS * 300));
}

#[test]
fn a_probe_rides_beside_the_first_and_delays_nobody() {
    let now = start();
    let mut plan = plan(Strategy::Sequential, &[Allowed::Probe, YES, YES], now);
    assert_eq!(plan.next(now), Step::Send(1));
    assert_eq!(plan.next(now), Step::Send(0));
    assert_eq!(plan.next(now), Step::WaitUntil(now + MS * 300));
    plan.failed(0, now);
    assert_eq!(plan.next(now), Step::WaitUntil(now + MS * 300), "a failed probe hurries nobody");
    plan.failed(1, now);
    assert_eq!(plan.next(now), Step::Send(2));
}

#[test]
fn no_candidates_fail_at_once_and_seventeen_are_sixteen() {
    let now = start();
    assert_eq!(plan(Strategy::Racing, &[], now).next(now), Step::Failed);
    assert_eq!(rotated(Strategy::RoundRobin, &[], 7, now).next(now), Step::Failed);
    let mut long = plan(Strategy::Parallel, &[YES; 17], now);
    let sent = (0..17).filter(|_| matches!(long.next(now), Step::Send(_))).count();
    assert_eq!(sent, CANDIDATES_MAX);
}

#[test]
fn hedged_asks_a_second_one_when_most_answers_would_have_come() {
    let now = start();
    let mut plan = plan(Strategy::Hedged, &[YES; 3], now);
    assert_eq!(plan.next(now), Step::Send(0));
    assert_eq!(plan.next(now), Step::WaitUntil(now + MS * 20));
    assert_eq!(plan.next(now + MS * 20), Step::Hedge(1));
    plan.hedge(1, now + MS * 20);
    assert_eq!(plan.hedged(), Some(1));
    assert_eq!(plan.next(now + MS * 20), Step::WaitUntil(now + MS * 320), "one second try a query");
    plan.answered(1, Verdict::Final, now + MS * 25);
    assert_eq!(plan.next(now + MS * 25), Step::Use(1));
}

#[test]
fn without_a_budget_the_second_one_waits_until_the_first_is_given_up() {
    let now = start();
    let mut plan = plan(Strategy::Hedged, &[YES; 2], now);
    assert_eq!(plan.next(now), Step::Send(0));
    assert_eq!(plan.next(now + MS * 20), Step::Hedge(1));
    assert_eq!(plan.next(now + MS * 20), Step::WaitUntil(now + MS * 300));
    assert_eq!(plan.next(now + MS * 300), Step::Send(1));
    assert_eq!(plan.hedged(), None);
}

#[test]
fn who_takes_over_from_one_that_failed_is_no_hedge() {
    let now = start();
    for allowed in [&[YES; 2][..], &[YES, YES, Allowed::Probe]] {
        let mut plan = plan(Strategy::Hedged, allowed, now);
        assert_eq!(plan.next(now), Step::Send(0));
        while let Step::Send(_) = plan.next(now) {}
        plan.failed(0, now + MS * 5);
        assert_eq!(plan.next(now + MS * 5), Step::Send(1));
        assert!(!matches!(plan.next(now + MS * 50), Step::Hedge(_)));
    }
}

#[test]
fn nobody_is_hedged_whose_answers_usually_take_longer_than_the_patience() {
    let now = start();
    let slow = Candidate { hedge_after: MS * 300, ..candidate(0, YES) };
    let mut plan = Plan::start(Strategy::Hedged, &[slow, candidate(1, YES)], 0, now, now + MS * 4000, RACING_DELAY);
    assert_eq!(plan.next(now), Step::Send(0));
    assert_eq!(plan.next(now + MS * 300), Step::Send(1));
}

#[test]
fn an_open_breaker_is_nobody_to_hedge_with() {
    let now = start();
    let mut plan = plan(Strategy::Hedged, &[YES, Allowed::No { until: now + MS * 900 }], now);
    assert_eq!(plan.next(now), Step::Send(0));
    assert_eq!(plan.next(now + MS * 20), Step::WaitUntil(now + MS * 300));
}

fn with_fallback(strategy: Strategy, group: &[Allowed], fallback: &[Allowed], now: Instant) -> Plan {
    let mut plan = plan(strategy, group, now);
    let other: Vec<Candidate> =
        fallback.iter().enumerate().map(|(place, allowed)| candidate(100 + place, *allowed)).collect();
    plan.add_fallback(&other);
    plan
}

#[test]
fn the_fallback_is_asked_when_the_last_of_the_group_has_failed() {
    let now = start();
    for strategy in [Strategy::Sequential, Strategy::Racing, Strategy::Parallel, Strategy::Hedged] {
        let mut plan = with_fallback(strategy, &[YES; 2], &[YES; 2], now);
        for index in [0, 1, 100, 101] {
            assert_eq!(plan.next(now), Step::Send(index), "{strategy:?}");
            if strategy != Strategy::Parallel || index >= 100 {
                plan.failed(index, now);
            } else if index == 1 {
                assert!(matches!(plan.next(now), Step::WaitUntil(_)), "{strategy:?}");
                plan.failed(1, now);
                assert!(matches!(plan.next(now), Step::WaitUntil(_)), "one of the group may still answer");
                plan.failed(0, now);
            }
        }
        assert_eq!(plan.next(now), Step::Failed);
    }
}

#[test]
fn a_group_that_is_slow_for_less_than_a_second_keeps_its_query() {
    let now = start();
    let mut plan = with_fallback(Strategy::Sequential, &[YES], &[YES], now);
    assert_eq!(plan.next(now), Step::Send(0));
    assert_eq!(plan.next(now), Step::WaitUntil(now + MS * 1000));
    assert_eq!(plan.next(now + MS * 999), Step::WaitUntil(now + MS * 1000));
    assert_eq!(plan.next(now + MS * 1000), Step::Send(100), "silent for a second");
    plan.answered(0, Verdict::Final, now + MS * 1010);
    assert_eq!(plan.next(now + MS * 1010), Step::Use(0), "still heard");
}

#[test]
fn a_group_whose_breakers_are_open_gets_its_patience_before_the_fallback() {
    let now = start();
    let open = |pause: u32| Allowed::No { until: now + MS * pause };
    let mut plan = with_fallback(Strategy::Sequential, &[open(900), open(500)], &[open(1), YES], now);
    assert_eq!(plan.next(now), Step::Send(1), "the least bad one");
    assert_eq!(plan.next(now), Step::WaitUntil(now + MS * 300));
    assert_eq!(plan.next(now + MS * 300), Step::Send(0));
    assert_eq!(plan.next(now + MS * 600), Step::Send(101), "a closed breaker comes first in the fallback too");
    plan.failed(101, now + MS * 600);
    assert_eq!(plan.next(now + MS * 600), Step::Send(100));
}

#[test]
fn servfail_of_the_group_is_its_answer_and_of_the_fallback_is_improved_on() {
    let now = start();
    let mut plan = with_fallback(Strategy::Sequential, &[YES], &[YES; 2], now);
    assert_eq!(plan.next(now), Step::Send(0));
    let mut failed = plan.clone();
    plan.answered(0, Verdict::Improvable, now);
    assert_eq!(plan.next(now), Step::UseBest);
    failed.failed(0, now);
    assert_eq!(failed.next(now), Step::Send(100));
    failed.answered(100, Verdict::Improvable, now);
    assert_eq!(failed.next(now), Step::Send(101));
    failed.failed(101, now);
    assert_eq!(failed.next(now), Step::UseBest);
}

#[test]
fn a_group_without_upstreams_is_its_fallback() {
    let now = start();
    let mut plan = with_fallback(Strategy::Parallel, &[], &[YES], now);
    assert_eq!(plan.next(now), Step::Send(100));
}

#[test]
fn sixteen_places_hold_twelve_of_the_group_and_four_of_the_fallback() {
    let now = start();
    let mut long = with_fallback(Strategy::Sequential, &[YES; 20], &[YES; 9], now);
    let mut sent = Vec::new();
    while let Step::Send(index) = long.next(now) {
        sent.push(index);
        long.failed(index, now);
    }
    assert_eq!(sent, (0..12).chain(100..104).collect::<Vec<_>>());
    let mut short = with_fallback(Strategy::Sequential, &[YES; 20], &[YES], now);
    assert_eq!(
        (0..17).filter(|_| matches!(short.next(now), Step::Send(index) if { short.failed(index, now); true })).count(),
        16
    );
}
