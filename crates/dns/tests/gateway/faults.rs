//! Upstreams that close, reset, go silent or talk nonsense: what the client notices (nothing, wherever that is possible).

use std::time::Duration;

use keepwarm_dns::config::{Strategy, Transport};
use keepwarm_lab::{Faults, answer_matches};

use crate::{plain::until, support::*};

fn slow() -> Faults {
    Faults { delay: Duration::from_millis(1), ..Faults::default() }
}

#[tokio::test]
async fn connections_closed_after_a_hundred_queries_cost_no_query() {
    for transport in STREAMS {
        let faults = Faults { close_after: Some(100), ..slow() };
        let bench = Bench::with(transport, [faults], |_| {}).await;
        assert_eq!(storm(bench.address, "close", 3000, 20).await, Vec::<String>::new(), "{transport:?}");
        assert_eq!(bench.pool(0).breaker, "closed");
        bench.stop().await;
    }
}

#[tokio::test]
async fn connections_reset_after_a_hundred_queries_cost_no_query() {
    for transport in STREAMS {
        let faults = Faults { reset_after: Some(100), ..slow() };
        let bench = Bench::with(transport, [faults], |_| {}).await;
        assert_eq!(storm(bench.address, "reset", 3000, 20).await, Vec::<String>::new(), "{transport:?}");
        bench.stop().await;
    }
}

#[tokio::test]
async fn goaway_after_a_hundred_streams_costs_no_query() {
    for transport in [Transport::Https, Transport::H3] {
        let faults = Faults { goaway_after: Some(100), ..slow() };
        let bench = Bench::with(transport, [faults], |_| {}).await;
        assert_eq!(storm(bench.address, "goaway", 3000, 20).await, Vec::<String>::new(), "{transport:?}");
        let accepted = counted(&bench.labs[0], transport).accepted;
        assert!(accepted > 5, "{transport:?}: {accepted} connections: the lab did what it was told");
        bench.stop().await;
    }
}

#[tokio::test]
async fn a_low_stream_limit_is_kept() {
    for transport in [Transport::Https, Transport::Quic, Transport::H3] {
        let faults = Faults { h2_max_streams: Some(3), delay: Duration::from_millis(20), ..Faults::default() };
        let bench = Bench::with(transport, [faults], |_| {}).await;
        assert_eq!(storm(bench.address, "streams", 200, 60).await, Vec::<String>::new(), "{transport:?}");
        let counters = counted(&bench.labs[0], transport);
        assert!(counters.in_flight_per_connection_max <= 3, "{transport:?} {counters:?}");
        let row = bench.pool(0);
        // Some give way to newer ones while the limit is still unknown; a connection per query they are not.
        assert!(row.open <= 10 && row.opened <= 40, "{transport:?} {counters:?} {row:?}");
        assert_eq!(row.breaker, "closed", "a refused stream is no failure: {row:?}");
        bench.stop().await;
    }
}

#[tokio::test]
async fn lost_datagrams_are_sent_again() {
    let faults = Faults { loss: 0.2, ..Faults::default() };
    let bench = Bench::with(Transport::Udp, [faults], |_| {}).await;
    let failures = storm(bench.address, "loss", 300, 100).await;
    // Four sends, each lost with 0.2: one query in 625 is lost for good.
    assert!(failures.len() <= 6, "{failures:?}");
    assert_eq!(bench.pool(0).breaker, "closed", "loss is not silence");
    bench.stop().await;
}

#[tokio::test]
async fn a_silent_upstream_fails_over_within_the_deadline() {
    for transport in TRANSPORTS {
        let silent = Faults { silent: true, ..Faults::default() };
        let bench = Bench::with(transport, [silent, Faults::default()], |_| {}).await;
        assert_eq!(storm(bench.address, "silent", 50, 10).await, Vec::<String>::new(), "{transport:?}");
        let row = bench.pool(0);
        assert!(row.failures > 0, "{transport:?}: silence is a failure");
        bench.stop().await;
    }
}

#[tokio::test]
async fn silence_that_ends_within_the_deadline_costs_no_query() {
    for transport in TRANSPORTS {
        let silent = Faults { silent: true, ..Faults::default() };
        let bench = Bench::with(transport, [silent], |_| {}).await;
        let server = bench.address;
        let asked = tokio::spawn(async move { ask(server, "patience.example").await });
        tokio::time::sleep(Duration::from_millis(1500)).await;
        bench.labs[0].update_faults(|faults| faults.silent = false);
        assert_eq!(asked.await.unwrap(), Ok(()), "{transport:?}");
        bench.stop().await;
    }
}

#[tokio::test]
async fn silence_is_not_flooded_with_repeats_and_all_are_answered_when_it_ends() {
    let silent = Faults { silent: true, ..Faults::default() };
    let bench = Bench::with(Transport::Udp, [silent], |_| {}).await;
    let server = bench.address;
    let ask = |number: usize| async move { ask(server, &format!("quiet{number}.example")).await };
    let asked: Vec<_> = (0..200).map(|number| tokio::spawn(ask(number))).collect();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    // Each once, those that opened the breaker again, and after that one a while and worker.
    let sent = bench.labs[0].counters().udp.queries;
    assert!((201..=260).contains(&sent), "{sent} queries into silence");
    bench.labs[0].update_faults(|faults| faults.silent = false);
    for answer in asked {
        assert_eq!(answer.await.unwrap(), Ok(()));
    }
    bench.stop().await;
}

#[tokio::test]
async fn an_upstream_that_becomes_slow_is_not_asked_everything_twice() {
    let bench = Bench::with(Transport::Udp, [Faults::default()], |_| {}).await;
    let server = bench.address;
    assert_eq!(storm(server, "fast", 50, 5).await, Vec::<String>::new());
    bench.labs[0].update_faults(|faults| faults.delay = Duration::from_millis(900));
    let mut asked = Vec::new();
    for wave in 0..3 {
        let ask = |number: usize| async move { ask(server, &format!("slow{wave}-{number}.example")).await };
        asked.extend((0..100).map(|number| tokio::spawn(ask(number))));
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    for answer in asked {
        assert_eq!(answer.await.unwrap(), Ok(()));
    }
    let sent = bench.labs[0].counters().udp.queries - 50;
    assert!((300..=400).contains(&sent), "{sent} queries for 300 questions");
    bench.stop().await;
}

#[tokio::test]
async fn servfail_is_improved_on_by_the_next_upstream_and_passed_on_when_there_is_none() {
    let servfail = || Faults { rcode: Some(2), ..Faults::default() };
    let bench = Bench::with(Transport::Tcp, [servfail(), Faults::default()], |_| {}).await;
    assert_eq!(bench.ask("better.example").await, Ok(()));
    assert_eq!(bench.pool(0).breaker, "closed", "an answer is not a failure of the transport");
    bench.stop().await;
    let bench = Bench::with(Transport::Tcp, [servfail(), servfail()], |_| {}).await;
    let answer = exchange_udp(bench.address, &query("worst.example", 1)).await.unwrap();
    assert_eq!(rcode(&answer), 2);
    bench.stop().await;
}

#[tokio::test]
async fn an_upstream_that_refuses_connections_is_an_error_at_once_not_a_wait() {
    for transport in STREAMS {
        let refuse = Faults { refuse: true, ..Faults::default() };
        let bench = Bench::with(transport, [refuse, Faults::default()], |_| {}).await;
        assert_eq!(bench.ask("refused.example").await, Ok(()), "{transport:?}");
        bench.stop().await;
    }
}

#[tokio::test]
async fn nobody_there_is_answered_with_servfail_and_a_reason() {
    for transport in TRANSPORTS {
        let bench = Bench::with(transport, [Faults::default()], |config| {
            // Port 1 on loopback: nobody listens.
            config.upstreams[0].port = 1;
            config.timeout = Duration::from_secs(2);
        })
        .await;
        let answer = exchange_udp(bench.address, &query("nobody.example", 1)).await.unwrap();
        assert_eq!(rcode(&answer), 2, "{transport:?}");
        let text = String::from_utf8_lossy(&answer);
        assert!(text.contains("keepwarm: no upstream answered"), "an extended error (RFC 8914) says why: {text:?}");
        bench.stop().await;
    }
}

#[tokio::test]
async fn wrong_certificates_are_never_accepted() {
    for transport in ENCRYPTED {
        let bench = Bench::with(transport, [Faults::default()], |config| {
            config.upstreams[0].server_name = Some("another.example".into());
            config.timeout = Duration::from_secs(2);
        })
        .await;
        let answer = exchange_udp(bench.address, &query("secret.example", 1)).await.unwrap();
        assert_eq!(rcode(&answer), 2, "{transport:?}");
        let counters = counted(&bench.labs[0], transport);
        assert_eq!(counters.queries, 0, "{transport:?}: no query left");
        assert!(counters.accepted > 0, "{transport:?}: it was tried");
        bench.stop().await;
    }
}

#[tokio::test]
async fn doh_answers_that_are_none_are_failures() {
    let bad: [fn(&mut Faults); 3] = [
        |faults| faults.http_status = Some(503),
        |faults| faults.content_type = Some("text/html".into()),
        |faults| faults.body_size = Some(70_000),
    ];
    for (transport, change) in bad.map(|change| [(Transport::Https, change), (Transport::H3, change)]).concat() {
        let mut faults = Faults::default();
        change(&mut faults);
        let bench = Bench::with(transport, [faults, Faults::default()], |_| {}).await;
        assert_eq!(bench.ask("doh.example").await, Ok(()), "{transport:?}: the next upstream answers");
        assert_eq!(counted(&bench.labs[1], transport).queries, 1, "{transport:?}");
        bench.stop().await;
    }
}

#[tokio::test]
async fn doh_works_over_http_1_and_tls_1_2() {
    use keepwarm_dns::server::Server;
    use keepwarm_lab::{Ca, Lab, LabSpec, TlsVersions};
    for (h1_only, tls_versions) in [(true, TlsVersions::Both), (false, TlsVersions::Tls12)] {
        let ca = Ca::new();
        let lab = Lab::start_with_ca(LabSpec { h1_only, tls_versions, ..LabSpec::default() }, &ca).await.unwrap();
        let server = Server::start(config(std::slice::from_ref(&lab), &ca, Transport::Https)).unwrap();
        let failures = storm(server.listening()[0].address, "old", 100, 8).await;
        assert_eq!(failures, Vec::<String>::new(), "h1_only {h1_only}");
        server.stop(Duration::from_secs(2)).await;
        lab.stop().await;
    }
}

#[tokio::test]
async fn the_keepalive_of_an_upstream_is_learned() {
    for transport in [Transport::Tcp, Transport::Tls] {
        let faults = Faults { keepalive: Some(Duration::from_secs(7)), ..Faults::default() };
        let bench = Bench::with(transport, [faults], |_| {}).await;
        assert_eq!(bench.ask("keepalive.example").await, Ok(()));
        let learned = bench.pool(0).idle_limit.expect("the option of RFC 7828 is read");
        assert!(learned <= Duration::from_secs(7), "{learned:?}");
        bench.stop().await;
    }
}

#[tokio::test]
async fn a_host_name_is_resolved_through_the_bootstrap_resolver() {
    // The lab answers A queries with an address of 127.0.0.0/8 that encodes the name, so that is where it has to listen.
    use keepwarm_dns::server::Server;
    use keepwarm_lab::{Ca, Lab, LabSpec, expected_a};
    let ca = Ca::new();
    let spec = LabSpec { address: expected_a("dns.lab").into(), ..LabSpec::default() };
    let upstream = Lab::start_with_ca(spec, &ca).await.unwrap();
    let resolver = Lab::start(LabSpec::default()).await.unwrap();
    let mut config = config(std::slice::from_ref(&upstream), &ca, Transport::Tls);
    config.upstreams[0].host = "dns.lab".into();
    config.bootstrap = vec![resolver.udp_addr()];
    let server = Server::start(config).unwrap();
    assert_eq!(ask(server.listening()[0].address, "named.example").await, Ok(()));
    assert!(resolver.counters().udp.queries >= 1);
    let stats = server.named_pools().into_iter().find(|pool| pool.name == "dns").unwrap().pool.stats();
    let resolved = stats.dial_phases.of(keepwarm_pool::DialPhase::Resolve).map(keepwarm_pool::Histogram::count);
    assert!(resolved.is_some_and(|count| count >= stats.counters.opened), "a phase of its dials: {resolved:?}");
    server.stop(Duration::from_secs(2)).await;
}

#[tokio::test]
async fn a_dial_that_times_out_is_counted_by_its_phase() {
    // The system accepts for it, and nobody says a word.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let bench = Bench::with(Transport::Tls, [Faults::default()], |config| {
        config.upstreams[0].port = port;
        config.pool.connect_timeout = Duration::from_millis(200);
    })
    .await;
    bench.ask("silent.example").await.unwrap_err();
    until("a dial has failed", || !bench.pool(0).dial_errors.is_empty()).await;
    let row = bench.pool(0);
    let kinds: Vec<_> = row.dial_errors.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, ["timeout_tls"], "{row:?}");
    bench.stop().await;
}

#[tokio::test]
async fn racing_starts_the_next_upstream_without_waiting_for_failure() {
    let slow = Faults { delay: Duration::from_millis(1500), ..Faults::default() };
    let bench = Bench::with(Transport::Udp, [slow, Faults::default()], |config| {
        config.strategy = Strategy::Racing;
    })
    .await;
    let query = query("race.example", 1);
    let answer = exchange_udp(bench.address, &query).await.unwrap();
    assert_eq!(answer_matches(&query, &answer), Ok(()));
    let counters = (bench.labs[0].counters().udp, bench.labs[1].counters().udp);
    assert_eq!((counters.0.queries, counters.1.queries), (1, 1));
    assert_eq!(counters.0.answers, 0, "the winner answered before the slow one");
    bench.stop().await;
}

#[tokio::test]
async fn round_robin_spreads_queries() {
    let bench = Bench::with(Transport::Tcp, [Faults::default(), Faults::default(), Faults::default()], |config| {
        config.strategy = Strategy::RoundRobin;
        config.workers = 1;
    })
    .await;
    assert_eq!(storm(bench.address, "round", 90, 1).await, Vec::<String>::new());
    for lab in &bench.labs {
        let queries = lab.counters().tcp.queries;
        assert!((29..=32).contains(&queries), "{queries}");
    }
    bench.stop().await;
}
