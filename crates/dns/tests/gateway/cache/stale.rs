//! Answers past their end, for when upstreams fail (RFC 8767).

use std::time::Duration;

use keepwarm_dns::{
    config::{CacheSettings, DnsConfig, Transport},
    server::Server,
};
use keepwarm_lab::{Ca, Faults, Lab, LabSpec, answer_matches};

use super::*;

/// Answers live a second, and nothing but the client response timer of 1.8 s ends a wait before the test's own 6 s.
fn short_lived(config: &mut DnsConfig) {
    config.cache.max_ttl = Duration::from_secs(1);
    config.timeout = Duration::from_secs(30);
}

/// A server that has answers to these names, whose end has come.
async fn with_expired(names: &[&str], change: impl FnOnce(&mut DnsConfig)) -> Bench {
    let bench = Bench::cached([Faults::default()], |config| {
        short_lived(config);
        change(config);
    })
    .await;
    for name in names {
        answer(&bench, &query(name, 1)).await;
    }
    one_second_passes().await;
    bench
}

/// The answer is the right one, past its end, and says so.
fn assert_stale(answer: &Message) {
    assert!((1..=30).contains(&ttl(answer)), "RFC 8767 section 4: {} s", ttl(answer));
    if answer.edns.is_some() {
        assert_eq!(extended_error(answer), Some(3), "RFC 8914 section 4.4");
    }
}

fn silent() -> Faults {
    Faults { silent: true, ..Faults::default() }
}

#[tokio::test]
async fn an_answer_past_its_end_does_not_serve_while_upstreams_answer() {
    let bench = with_expired(&["renewed.example"], |_| {}).await;
    for _ in 0..2 {
        assert_eq!(extended_error(&answer(&bench, &query("renewed.example", 1)).await), None);
    }
    let status = bench.server.status();
    assert_eq!((asked(&bench), status.cache_misses, status.cache_hits, status.cache_stale), (2, 2, 1, 0));
    bench.stop().await;
}

#[tokio::test]
async fn silence_is_waited_for_until_the_client_response_timer_and_then_no_more() {
    let bench = with_expired(&["quiet.example"], |_| {}).await;
    bench.labs[0].set_faults(silent());
    let before = tokio::time::Instant::now();
    assert_stale(&answer(&bench, &query("QUIET.example", 1)).await);
    assert!(before.elapsed() >= Duration::from_millis(1799), "upstreams get their time");
    let questions_before = questions(&bench);
    assert_eq!(questions_before, 2);
    for _ in 0..10 {
        assert_stale(&answer(&bench, &query("quiet.example", 1)).await);
        let bare = answer(&bench, &query_without_edns("quiet.Example", 1)).await;
        assert_stale(&bare);
        assert!(bare.edns.is_none());
    }
    let status = bench.server.status();
    assert_eq!(questions(&bench), questions_before, "RFC 8767 section 5: not asked again for 30 s");
    assert_eq!((status.cache_stale, status.coalesced, status.failed), (21, 0, 0));
    assert_eq!((status.cache_hits, status.cache_misses), (0, 2));
    bench.stop().await;
}

#[tokio::test]
async fn an_error_of_the_upstream_is_replaced_by_the_stale_answer() {
    for code in [2, 5] {
        let bench = with_expired(&["error.example"], |_| {}).await;
        bench.labs[0].set_faults(Faults { rcode: Some(code), ..Faults::default() });
        for _ in 0..10 {
            assert_stale(&answer(&bench, &query("error.example", 1)).await);
        }
        let status = bench.server.status();
        assert_eq!((asked(&bench), status.cache_stale, status.failed), (2, 10, 0), "rcode {code}");
        one_second_passes().await;
        assert_stale(&answer(&bench, &query("error.example", 1)).await);
        assert_eq!(asked(&bench), 2, "rcode {code}: the error did not take the answer's place");
        bench.stop().await;
    }
}

#[tokio::test]
async fn a_better_answer_of_the_next_upstream_goes_before_the_stale_one() {
    let bench = Bench::cached([Faults::default(), Faults::default()], short_lived).await;
    answer(&bench, &query("better.example", 1)).await;
    one_second_passes().await;
    bench.labs[0].set_faults(Faults { rcode: Some(2), ..Faults::default() });
    assert_eq!(extended_error(&answer(&bench, &query("better.example", 1)).await), None);
    let counters = [0, 1].map(|number: usize| bench.labs[number].counters().udp.queries);
    assert_eq!((counters, bench.server.status().cache_stale), ([2, 1], 0));
    bench.stop().await;
}

#[tokio::test]
async fn an_upstream_that_is_gone_is_covered_for() {
    let mut bench = with_expired(&["gone.example"], |_| {}).await;
    bench.labs.remove(0).stop().await;
    assert_stale(&answer(&bench, &query("gone.example", 1)).await);
    let questions_before = bench.pool(0).queries;
    assert_stale(&answer(&bench, &query("gone.example", 1)).await);
    assert_eq!((bench.pool(0).queries, bench.server.status().failed), (questions_before, 0));
    bench.stop().await;
}

#[tokio::test]
async fn a_deadline_before_the_timer_brings_the_stale_answer_too() {
    let bench = with_expired(&["hurry.example"], |config| config.timeout = Duration::from_secs(1)).await;
    bench.labs[0].set_faults(silent());
    assert_stale(&answer(&bench, &query("hurry.example", 1)).await);
    let asked_before = asked(&bench);
    assert_stale(&answer(&bench, &query("hurry.example", 1)).await);
    let status = bench.server.status();
    assert_eq!((asked(&bench), status.cache_stale, status.failed), (asked_before, 2, 0));
    bench.stop().await;
}

#[tokio::test]
async fn without_stale_answers_failures_are_failures() {
    let no_stale = |config: &mut DnsConfig| {
        config.cache.stale = Duration::ZERO;
        config.timeout = Duration::from_secs(1);
    };
    for (faults, failed) in [(silent(), 1), (Faults { rcode: Some(2), ..Faults::default() }, 0)] {
        let bench = with_expired(&["honest.example"], no_stale).await;
        bench.labs[0].set_faults(faults);
        assert_eq!(rcode(&exchange_udp(bench.address, &query("honest.example", 1)).await.unwrap()), 2);
        let status = bench.server.status();
        assert_eq!((status.cache_stale, status.failed), (0, failed));
        bench.stop().await;
    }
}

#[tokio::test]
async fn a_name_without_a_stale_answer_fails_as_ever() {
    let bench = with_expired(&["known.example"], |config| config.timeout = Duration::from_secs(1)).await;
    bench.labs[0].set_faults(silent());
    assert_eq!(rcode(&exchange_udp(bench.address, &query("unknown.example", 1)).await.unwrap()), 2);
    let other_type = exchange_udp(bench.address, &query("known.example", 28)).await.unwrap();
    assert_eq!((rcode(&other_type), bench.server.status().failed), (2, 2));
    bench.stop().await;
}

#[tokio::test]
async fn what_comes_after_the_timer_takes_the_stale_answers_place() {
    let bench = with_expired(&["slow.example"], |_| {}).await;
    bench.labs[0].set_faults(Faults { delay: Duration::from_millis(2500), ..Faults::default() });
    assert_stale(&answer(&bench, &query("slow.example", 1)).await);
    until("the answer that took 2.5 s is there", async || {
        extended_error(&answer(&bench, &query("slow.example", 1)).await).is_none()
    })
    .await;
    assert_eq!(questions(&bench), 2, "it came from the one question");
    assert!(bench.server.status().cache_hits >= 1);
    bench.stop().await;
}

#[tokio::test]
async fn an_upstream_that_is_back_is_asked_for_names_that_did_not_meet_its_failure() {
    let bench = with_expired(&["met.example", "spared.example"], |_| {}).await;
    bench.labs[0].set_faults(Faults { rcode: Some(2), ..Faults::default() });
    assert_stale(&answer(&bench, &query("met.example", 1)).await);
    bench.labs[0].set_faults(Faults::default());
    assert_eq!(extended_error(&answer(&bench, &query("spared.example", 1)).await), None);
    assert_stale(&answer(&bench, &query("met.example", 1)).await);
    assert_eq!(asked(&bench), 4);
    assert_eq!(bench.server.flush_cache(Some("met.example")), Some(1));
    assert_eq!(extended_error(&answer(&bench, &query("met.example", 1)).await), None, "flushed, so asked again");
    assert_eq!(asked(&bench), 5);
    bench.stop().await;
}

#[tokio::test]
async fn all_who_wait_for_one_name_get_it_each_with_its_own_id_and_case() {
    let bench = with_expired(&["crowd.example"], |config| config.workers = 1).await;
    bench.labs[0].set_faults(silent());
    let names = ["crowd.example", "CROWD.example", "cRoWd.ExAmPlE", "crowd.EXAMPLE"];
    let queries: Vec<_> = names.into_iter().flat_map(|name| [query(name, 1), query_without_edns(name, 1)]).collect();
    let waiting: Vec<_> = queries
        .into_iter()
        .map(|query| {
            let server = bench.address;
            tokio::spawn(async move { (exchange_udp(server, &query).await.unwrap(), query) })
        })
        .collect();
    let mut over_tcp = TcpClient::connect(bench.address).await;
    let tcp_query = query("Crowd.Example", 1);
    over_tcp.send(&tcp_query).await;
    let trace = bench.server.query("crowd.example", 1).await.unwrap();
    assert!(trace.stale && trace.cached, "{trace:?}");
    let mut answers = vec![(over_tcp.receive().await.unwrap(), tcp_query)];
    for client in waiting {
        answers.push(client.await.unwrap());
    }
    for (answer, query) in &answers {
        assert_eq!(answer_matches(query, answer), Ok(()));
        let answer = Message::from_vec(answer).unwrap();
        assert_stale(&answer);
        assert_eq!(answer.edns.is_some(), query[11] == 1);
    }
    let status = bench.server.status();
    // Queries with and without EDNS are asked apart, though they share what is kept.
    assert_eq!((status.coalesced, status.cache_stale, status.failed), (8, 10, 0));
    assert_eq!(questions(&bench), 3);
    bench.stop().await;
}

#[tokio::test]
async fn a_stale_nxdomain_says_that_it_is_one() {
    let bench = with_expired(&["nx.example"], |_| {}).await;
    bench.labs[0].set_faults(Faults { rcode: Some(2), ..Faults::default() });
    let answer = answer(&bench, &query("nx.example", 1)).await;
    assert_eq!(extended_error(&answer), Some(19), "RFC 8914 section 4.20");
    assert!(ttl(&answer) <= 30);
    bench.stop().await;
}

#[tokio::test]
async fn those_who_wait_when_the_stale_answer_is_flushed_get_the_upstreams() {
    let bench = with_expired(&["flushed.example"], |_| {}).await;
    bench.labs[0].set_faults(Faults { delay: Duration::from_millis(2500), ..Faults::default() });
    let query = query("flushed.example", 1);
    let (waiting, asked_for) = (query.clone(), bench.address);
    let client = tokio::spawn(async move { exchange_udp(asked_for, &waiting).await });
    until("the upstream is asked", async || asked(&bench) > 1).await;
    assert_eq!(bench.server.flush_cache(None), Some(1));
    let answer = client.await.unwrap().unwrap();
    assert_eq!(answer_matches(&query, &answer), Ok(()));
    assert_eq!(extended_error(&Message::from_vec(&answer).unwrap()), None);
    assert_eq!(bench.server.status().cache_stale, 0);
    bench.stop().await;
}

#[tokio::test]
async fn a_truncated_answer_that_tcp_does_not_complete_is_a_failure_too() {
    let ca = Ca::new();
    // Over TCP nobody is there, so that nothing better comes before the client response timer.
    let lab = Lab::start_with_ca(LabSpec { tcp: None, ..LabSpec::default() }, &ca).await.unwrap();
    let mut config = config(std::slice::from_ref(&lab), &ca, Transport::Udp);
    config.cache = CacheSettings::default();
    short_lived(&mut config);
    let server = Server::start(config).unwrap();
    let bench = Bench { labs: vec![lab], address: server.listening()[0].address, server };
    answer(&bench, &query("cut.example", 1)).await;
    one_second_passes().await;
    bench.labs[0].set_faults(Faults { truncate: 1.0, ..Faults::default() });
    assert_stale(&answer(&bench, &query("cut.example", 1)).await);
    bench.stop().await;
}

#[tokio::test]
async fn an_extended_error_code_is_a_failure_too() {
    const BADVERS: u8 = 16;
    let bench = with_expired(&["version.example"], |_| {}).await;
    bench.labs[0].set_faults(Faults { rcode: Some(BADVERS), ..Faults::default() });
    assert_stale(&answer(&bench, &query("version.example", 1)).await);
    bench.stop().await;
}

#[tokio::test]
async fn a_question_that_nobody_waits_for_any_more_is_not_cut_off_by_the_end() {
    let bench = with_expired(&["last.example"], |_| {}).await;
    bench.labs[0].set_faults(silent());
    assert_stale(&answer(&bench, &query("last.example", 1)).await);
    assert_eq!(bench.server.stop(Duration::from_millis(500)).await, 0, "every client has its answer");
}
