use std::time::Instant;

use super::{super::estimate::Estimate, *};

const MS: Duration = Duration::from_millis(1);

fn entry(index: usize) -> Entry {
    let candidate = Candidate { index, allowed: Allowed::Yes, try_timeout: MS * 300, hedge_after: MS * 20 };
    Entry { candidate, weight: 1, load: 0, expected: Some(MS * 10), idle: Duration::ZERO }
}

fn order(entries: &[Entry]) -> Vec<usize> {
    entries.iter().map(|entry| entry.candidate.index).collect()
}

#[expect(clippy::disallowed_methods, reason = "an Instant can only be had from the clock; its value does not matter")]
fn start() -> Instant {
    Instant::now()
}

#[test]
fn random_follows_the_weights_and_leaves_nobody_out() {
    let mut dice = Dice::new(1);
    let mut firsts = [0_u32; 3];
    for _ in 0..10_000 {
        let mut entries = [entry(0), Entry { weight: 3, ..entry(1) }, Entry { weight: 6, ..entry(2) }];
        assert_eq!(arrange(Strategy::Random, &mut entries, &mut dice, 0), Lead::Draw);
        firsts[entries[0].candidate.index] += 1;
        let mut all = order(&entries);
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2]);
    }
    for (first, share) in firsts.into_iter().zip([1000, 3000, 6000]) {
        assert!(u32::abs_diff(first, share) < 150, "{firsts:?}");
    }
}

#[test]
fn the_second_draw_is_weighted_too() {
    let mut dice = Dice::new(2);
    let mut seconds = [0_u32; 3];
    for _ in 0..10_000 {
        let mut entries = [Entry { weight: 1000, ..entry(0) }, entry(1), Entry { weight: 4, ..entry(2) }];
        arrange(Strategy::Random, &mut entries, &mut dice, 0);
        seconds[entries[1].candidate.index] += 1;
    }
    assert!(seconds[2] > seconds[1] * 3 && seconds[2] < seconds[1] * 5, "{seconds:?}");
}

#[test]
fn least_loaded_goes_by_queries_in_flight_for_each_unit_of_weight() {
    let mut dice = Dice::new(3);
    for (loads, weights, first) in [
        ([3, 2, 4], [1, 1, 1], 1),
        ([3, 2, 4], [2, 1, 3], 2),
        ([0, 1, 1], [1, 1000, 1000], 0),
        ([u32::MAX, u32::MAX - 1, u32::MAX], [1000, 1000, 1000], 1),
    ] {
        let mut entries: Vec<Entry> =
            (0..3).map(|n| Entry { load: loads[n], weight: weights[n], ..entry(n) }).collect();
        assert_eq!(arrange(Strategy::LeastLoaded, &mut entries, &mut dice, 0), Lead::LeastLoaded);
        assert_eq!(entries[0].candidate.index, first, "{loads:?} {weights:?}");
    }
}

#[test]
fn among_equally_loaded_ones_the_weights_draw() {
    let mut dice = Dice::new(4);
    let mut firsts = [0_u32; 2];
    for _ in 0..10_000 {
        let mut entries = [entry(0), Entry { weight: 3, ..entry(1) }];
        arrange(Strategy::LeastLoaded, &mut entries, &mut dice, 0);
        firsts[entries[0].candidate.index] += 1;
    }
    assert!(u32::abs_diff(firsts[1], 7500) < 150, "{firsts:?}");
}

#[test]
fn round_robin_takes_turns_and_no_candidates_are_no_order() {
    let mut dice = Dice::new(5);
    for turn in 0..6 {
        let mut entries = [entry(0), entry(1), entry(2)];
        assert_eq!(arrange(Strategy::RoundRobin, &mut entries, &mut dice, turn), Lead::Turn);
        assert_eq!(entries[0].candidate.index, turn as usize % 3);
    }
    for strategy in [Strategy::RoundRobin, Strategy::Random, Strategy::LeastLoaded, Strategy::Fastest, Strategy::Hedged]
    {
        let _ = arrange(strategy, &mut [], &mut dice, 7);
    }
}

#[test]
fn whoever_was_never_tried_comes_first_and_then_the_lowest_estimate() {
    let mut dice = Dice::new(6);
    let known = |index, ms| Entry { expected: Some(MS * ms), ..entry(index) };
    let mut entries = [known(0, 30), known(1, 10), known(2, 20)];
    assert_eq!(arrange(Strategy::Fastest, &mut entries, &mut dice, 0), Lead::Lowest);
    assert_eq!(order(&entries), [1, 2, 0]);
    let mut entries = [known(0, 30), Entry { expected: None, ..entry(1) }, known(2, 20)];
    assert_eq!(arrange(Strategy::Fastest, &mut entries, &mut dice, 0), Lead::Unknown);
    assert_eq!(order(&entries), [1, 2, 0]);
}

#[test]
fn exploration_is_three_in_a_hundred_most_of_it_for_old_estimates() {
    let mut dice = Dice::new(7);
    let mut firsts = [0_u32; 4];
    for _ in 0..100_000 {
        let old = |index, seconds| Entry { expected: Some(MS * 50), idle: MS * 1000 * seconds, ..entry(index) };
        let open = Allowed::No { until: start() };
        let broken = Entry { candidate: Candidate { allowed: open, ..old(3, 60).candidate }, ..old(3, 60) };
        let mut entries = [entry(0), old(1, 5), old(2, 20), broken];
        let lead = arrange(Strategy::Fastest, &mut entries, &mut dice, 0);
        assert_eq!(lead == Lead::Exploration, entries[0].candidate.index != 0);
        firsts[entries[0].candidate.index] += 1;
    }
    assert!(u32::abs_diff(firsts[1] + firsts[2], 3030) < 200, "{firsts:?}");
    assert!(firsts[2] > firsts[1] * 3 && firsts[2] < firsts[1] * 5, "{firsts:?}");
    assert_eq!(firsts[3], 0, "whoever has an open breaker is not explored");
}

#[test]
fn an_estimate_that_is_fresh_is_not_explored() {
    let mut dice = Dice::new(8);
    for _ in 0..10_000 {
        let mut entries = [entry(0), Entry { expected: Some(MS * 50), idle: MS * 99, ..entry(1) }];
        assert_eq!(arrange(Strategy::Fastest, &mut entries, &mut dice, 0), Lead::Lowest);
    }
}

/// Queries a second for so many seconds, and how often each of the upstreams was asked first. `latency` says how long an
/// upstream takes to answer at a second.
fn run(rate: u32, seconds: u32, latency: impl Fn(usize, u32) -> Duration) -> Vec<[u32; 3]> {
    let (mut dice, mut estimates) = (Dice::new(9), [Estimate::default(); 3]);
    let mut shares = vec![[0; 3]; seconds as usize];
    let began = start();
    for query in 0..rate * seconds {
        let (second, now) = (query / rate, began + MS * 1000 * query / rate);
        let mut entries: Vec<Entry> = (0..3)
            .map(|n| Entry { expected: estimates[n].expected(now), idle: estimates[n].idle(now), ..entry(n) })
            .collect();
        arrange(Strategy::Fastest, &mut entries, &mut dice, 0);
        let first = entries[0].candidate.index;
        shares[second as usize][first] += 1;
        estimates[first].tried(now);
        estimates[first].answered(now, latency(first, second));
    }
    shares
}

fn share(shares: &[[u32; 3]], upstream: usize) -> f64 {
    let all: u32 = shares.iter().flatten().sum();
    f64::from(shares.iter().map(|each| each[upstream]).sum::<u32>()) / f64::from(all)
}

#[test]
fn fastest_turns_to_the_fast_one_and_explores_a_few_percent() {
    let shares = run(200, 60, |upstream, _| MS * [40, 10, 80][upstream]);
    assert!(share(&shares[1..], 1) > 0.95, "{}", share(&shares[1..], 1));
    assert!(share(&shares[1..], 1) < 0.99, "the others are still looked at");
}

#[test]
fn an_upstream_that_was_slow_for_a_while_is_found_again() {
    // Upstream 1 is the fastest but for the seconds from 20 to 40.
    for (rate, patience) in [(200, 10), (20, 40), (2, 120)] {
        let latency = |upstream, second| match (upstream, second) {
            (1, 20..40) => MS * 500,
            (1, _) => MS * 10,
            _ => MS * 40,
        };
        let shares = run(rate, 300, latency);
        assert!(share(&shares[5..20], 1) > 0.7, "{rate} a second");
        assert!(share(&shares[25..40], 1) < 0.15, "{rate} a second: left while it is slow");
        let back = 40 + patience as usize;
        assert!(share(&shares[back..], 1) > 0.85, "{rate} a second: found again, {}", share(&shares[back..], 1));
    }
}
