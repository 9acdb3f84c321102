//! The strategies that go by figures, and what they tell of themselves.

use std::time::Duration;

use keepwarm_dns::{
    config::{CacheSettings, HedgeSettings, Strategy, Transport},
    server::{CacheVerdict, HedgeVerdict, Why},
    strategy::order::Lead,
};
use keepwarm_lab::Faults;

use crate::support::*;

fn delayed(millis: u64) -> Faults {
    Faults { delay: Duration::from_millis(millis), ..Faults::default() }
}

fn queries(bench: &Bench) -> Vec<u64> {
    bench.labs.iter().map(|lab| lab.counters().udp.queries).collect()
}

#[tokio::test]
async fn random_follows_the_weights() {
    let bench = Bench::with(Transport::Udp, [Faults::default(), Faults::default(), Faults::default()], |config| {
        config.strategy = Strategy::Random;
        config.upstreams[1].weight = 3;
        config.upstreams[2].weight = 6;
    })
    .await;
    assert_eq!(storm(bench.address, "drawn", 2000, 16).await, Vec::<String>::new());
    for (seen, right) in queries(&bench).into_iter().zip([200, 600, 1200]) {
        // Six standard deviations, and a datagram that is sent again.
        assert!(seen.abs_diff(right) < 140, "{:?}", queries(&bench));
    }
    bench.stop().await;
}

#[tokio::test]
async fn least_loaded_gives_little_to_one_that_is_slow() {
    let bench = Bench::with(Transport::Udp, [delayed(2), delayed(120)], |config| {
        config.strategy = Strategy::LeastLoaded;
        config.workers = 1;
    })
    .await;
    assert_eq!(storm(bench.address, "load", 800, 16).await, Vec::<String>::new());
    let seen = queries(&bench);
    assert!(seen[1] > 0 && seen[0] > seen[1] * 4, "{seen:?}");
    bench.stop().await;
}

#[tokio::test]
async fn least_loaded_counts_queries_that_wait_for_a_connection() {
    // The second lab is spoken TLS to where it expects a message, so its handshakes never end.
    let bench = Bench::with(Transport::Tcp, [delayed(2), Faults { silent: true, ..Faults::default() }], |config| {
        config.strategy = Strategy::LeastLoaded;
        config.upstreams[1].transport = Transport::Tls;
        config.workers = 1;
    })
    .await;
    assert_eq!(storm(bench.address, "stuck", 400, 8).await, Vec::<String>::new());
    let waited = bench.pool(1).misses;
    assert!(waited > 0 && waited < 100, "{waited} of 400 queries waited for a connection");
    bench.stop().await;
}

#[tokio::test]
async fn fastest_turns_to_the_fast_one_and_comes_back_when_that_has_changed() {
    let bench = Bench::with(Transport::Udp, [delayed(60), delayed(5)], |config| {
        config.strategy = Strategy::Fastest;
        config.workers = 1;
    })
    .await;
    assert_eq!(storm(bench.address, "learn", 20, 2).await, Vec::<String>::new());
    let before = queries(&bench);
    assert_eq!(storm(bench.address, "fast", 300, 4).await, Vec::<String>::new());
    let after = queries(&bench);
    assert!(after[1] - before[1] > 270, "{before:?} {after:?}");
    bench.labs[0].set_faults(delayed(2));
    bench.labs[1].set_faults(delayed(80));
    let mut rounds = 0;
    loop {
        let before = queries(&bench);
        assert_eq!(storm(bench.address, &format!("turn{rounds}-"), 50, 4).await, Vec::<String>::new());
        let after = queries(&bench);
        if after[0] - before[0] > 45 {
            break;
        }
        rounds += 1;
        assert!(rounds < 200, "it stays with the one that has become slow");
    }
    bench.stop().await;
}

#[tokio::test]
async fn hedged_cuts_the_tail_and_keeps_its_budget() {
    // The first has a slow tail: 4 of 100 answers take 400 ms more.
    let tail = Faults { late: 0.04, late_by: Duration::from_millis(400), ..delayed(4) };
    let settings = HedgeSettings { budget: 0.1, burst: 5 };
    let bench = Bench::with(Transport::Udp, [tail, delayed(12)], |config| {
        config.strategy = Strategy::Hedged;
        config.hedge = settings;
        config.workers = 1;
    })
    .await;
    assert_eq!(storm(bench.address, "tail", 600, 4).await, Vec::<String>::new());
    let status = bench.server.status();
    assert!(status.hedges_sent > 0 && status.hedges_won > 0, "{status:?}");
    assert!(status.hedges_won <= status.hedges_sent);
    let allowed = f64::from(settings.burst) + settings.budget * status.queries as f64;
    assert!(status.hedges_sent as f64 <= allowed, "{} of {allowed}", status.hedges_sent);
    bench.stop().await;
}

#[tokio::test]
async fn without_a_budget_no_second_try_is_made_and_each_is_counted() {
    let tail = Faults { late: 0.3, late_by: Duration::from_millis(150), ..delayed(2) };
    let bench = Bench::with(Transport::Udp, [tail, delayed(30)], |config| {
        config.strategy = Strategy::Hedged;
        config.hedge = HedgeSettings { budget: 0.0, burst: 1 };
        config.workers = 1;
    })
    .await;
    let mut asked = 0;
    while bench.server.status().hedges_denied == 0 {
        assert_eq!(storm(bench.address, &format!("denied{asked}-"), 50, 4).await, Vec::<String>::new());
        asked += 50;
        assert!(asked < 5000, "nothing is ever due");
    }
    assert!(bench.server.status().hedges_sent <= 1);
    bench.stop().await;
}

#[tokio::test]
async fn every_strategy_answers_while_one_of_three_is_silent() {
    for strategy in [Strategy::Random, Strategy::LeastLoaded, Strategy::Fastest, Strategy::Hedged] {
        let silent = Faults { silent: true, ..Faults::default() };
        let bench = Bench::with(Transport::Udp, [Faults::default(), silent, Faults::default()], |config| {
            config.strategy = strategy;
        })
        .await;
        assert_eq!(storm(bench.address, "some", 300, 8).await, Vec::<String>::new(), "{strategy:?}");
        bench.stop().await;
    }
}

#[tokio::test]
async fn a_query_of_the_daemon_says_who_was_asked_and_why() {
    let bench = Bench::with(Transport::Tls, [delayed(1), delayed(1)], |config| {
        config.cache = CacheSettings::default();
        config.workers = 1;
    })
    .await;
    let first = bench.server.query("told.example", 1).await.unwrap();
    let explanation = first.explanation.unwrap();
    assert_eq!((explanation.cache, explanation.joined, explanation.hedge), (CacheVerdict::Miss, false, None));
    assert_eq!((&*explanation.group, explanation.suffix), ("default", None));
    let why: Vec<Why> = explanation.candidates.iter().map(|each| each.why).collect();
    assert_eq!(why, [Why::First(Lead::Order, None), Why::NotNeeded]);
    let connection = first.attempts[0].connection.expect("it was sent");
    assert_eq!((connection.reused, first.attempts[0].transport), (false, "tls"));

    let again = bench.server.query("told.example", 1).await.unwrap();
    assert_eq!((again.cached, again.explanation.unwrap().cache), (true, CacheVerdict::Hit));
    let any = bench.server.query("told.example", 255).await.unwrap();
    assert!(matches!(any.explanation.unwrap().cache, CacheVerdict::Bypass(_)));
    let other = bench.server.query("other.example", 1).await.unwrap();
    let reused = other.attempts[0].connection.unwrap();
    assert_eq!((reused.reused, reused.id), (true, connection.id));
    assert!(other.explanation.unwrap().candidates[0].p50.is_some());
    bench.stop().await;
}

#[tokio::test]
async fn an_open_breaker_is_told_with_the_time_that_is_left() {
    let silent = Faults { silent: true, ..Faults::default() };
    let bench = Bench::with(Transport::Udp, [silent, Faults::default()], |config| {
        config.breaker.open = Duration::from_secs(50);
        config.workers = 1;
    })
    .await;
    let mut asked = 0;
    while bench.pool(0).breaker != "open" {
        assert_eq!(storm(bench.address, &format!("open{asked}-"), 4, 4).await, Vec::<String>::new());
        asked += 4;
        assert!(asked < 200, "the breaker does not open");
    }
    let explanation = bench.server.query("told.example", 1).await.unwrap().explanation.unwrap();
    let told: Vec<_> = explanation.candidates.iter().map(|each| (&*each.upstream, each.breaker, each.why)).collect();
    assert_eq!(told[0], ("lab1", "closed", Why::First(Lead::Order, None)));
    assert!(matches!(told[1], ("lab0", "open", Why::BreakerOpen(left)) if left <= Duration::from_secs(50)), "{told:?}");
    bench.stop().await;
}

#[tokio::test]
async fn repeats_are_told_with_their_reasons() {
    let truncating = Faults { truncate: 1.0, ..Faults::default() };
    let bench = Bench::with(Transport::Udp, [truncating], |_| {}).await;
    let trace = bench.server.query("long.example", 1).await.unwrap();
    let told: Vec<_> = trace.attempts.iter().map(|attempt| (attempt.transport, attempt.why)).collect();
    assert_eq!(told, [("udp", Why::First(Lead::Order, None)), ("tcp", Why::Truncated)]);
    bench.stop().await;

    let bench = Bench::with(Transport::Udp, [Faults { silent: true, ..Faults::default() }], |config| {
        config.timeout = Duration::from_millis(2500);
    })
    .await;
    let trace = bench.server.query("quiet.example", 1).await.unwrap();
    assert!(trace.attempts.len() > 1, "{:?}", trace.attempts);
    assert!(trace.attempts[1..].iter().all(|attempt| matches!(attempt.why, Why::Repeat(_))), "{:?}", trace.attempts);
    bench.stop().await;
}

#[tokio::test]
async fn a_hedge_is_told_as_one() {
    let tail = Faults { late: 0.5, late_by: Duration::from_millis(200), ..delayed(2) };
    let bench = Bench::with(Transport::Udp, [tail.clone(), tail], |config| {
        config.strategy = Strategy::Hedged;
        config.hedge = HedgeSettings { budget: 1.0, burst: 100 };
        config.workers = 1;
    })
    .await;
    // While all is quick the percentile is low; then a slow answer is worth a second try.
    bench.labs.iter().for_each(|lab| lab.update_faults(|faults| faults.late = 0.0));
    assert_eq!(storm(bench.address, "quick", 60, 2).await, Vec::<String>::new());
    bench.labs.iter().for_each(|lab| lab.update_faults(|faults| faults.late = 0.5));
    for number in 0..100 {
        let trace = bench.server.query(&format!("told{number}.example"), 1).await.unwrap();
        let explanation = trace.explanation.unwrap();
        if explanation.candidates.iter().any(|each| matches!(each.why, Why::Hedge(_))) {
            assert!(matches!(explanation.hedge, Some(HedgeVerdict::Won | HedgeVerdict::Lost)));
            return bench.stop().await;
        }
    }
    panic!("no second try in a hundred queries");
}
