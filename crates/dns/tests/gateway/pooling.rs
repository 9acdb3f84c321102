//! What pooling promises: few connections, few handshakes, no failure after an idle time.

use std::time::Duration;

use keepwarm_dns::config::{Strategy, Transport};
use keepwarm_lab::{CloseKind, Faults};
use keepwarm_pool::{
    DialPhase::{Connect, Protocol, Quic, Tls},
    Stats,
};

use crate::{plain::until, support::*};

#[tokio::test]
async fn a_thousand_clients_share_at_most_ten_connections_an_upstream() {
    let faults = || Faults { delay: Duration::from_millis(20), ..Faults::default() };
    for transport in TRANSPORTS {
        let bench = Bench::with(transport, [faults(), faults(), faults()], |config| {
            config.strategy = Strategy::Parallel;
        })
        .await;
        let failures = storm(bench.address, "burst", 1000, 1000).await;
        assert_eq!(failures, Vec::<String>::new(), "{transport:?}");
        for lab in &bench.labs {
            let counted = counted(lab, transport);
            let connections = if transport == Transport::Udp { counted.sockets } else { counted.open_max };
            assert!(connections <= 10, "{transport:?}: {connections} connections");
            // Not all thousand: who has its answer takes back what still waits for a connection elsewhere.
            assert!(counted.queries >= 500, "{transport:?}: parallel asks everyone, {} queries", counted.queries);
        }
        bench.stop().await;
    }
}

#[tokio::test]
async fn one_handshake_serves_many_queries() {
    for transport in ENCRYPTED {
        let bench = Bench::plain(transport).await;
        let failures = storm(bench.address, "many", 300, 1).await;
        assert_eq!(failures, Vec::<String>::new());
        let row = bench.pool(0);
        assert_eq!(row.handshakes_full + row.handshakes_resumed, 1, "{transport:?}");
        bench.stop().await;
    }
}

#[tokio::test]
async fn no_tcp_connection_is_kept_to_an_upstream_over_udp() {
    let bench = Bench::with(Transport::Udp, [Faults::default()], |config| config.pool.min_idle = 1).await;
    assert_eq!(storm(bench.address, "plain", 100, 4).await, Vec::<String>::new());
    let counters = bench.labs[0].counters();
    assert!(counters.udp.queries >= 100, "{} queries", counters.udp.queries);
    assert_eq!(counters.tcp.accepted, 0);
    bench.stop().await;
}

#[tokio::test]
async fn without_reuse_each_query_has_a_connection_of_its_own() {
    for transport in STREAMS {
        let bench = Bench::with(transport, [Faults::default()], |config| {
            config.pool.reuse = false;
            config.pool.min_idle = 0;
        })
        .await;
        assert_eq!(storm(bench.address, "naive", 20, 4).await, Vec::<String>::new());
        let accepted = counted(&bench.labs[0], transport).accepted;
        assert!(accepted >= 20, "{transport:?}: {accepted}");
        bench.stop().await;
    }
}

/// An upstream that closes idle connections at 4 s, asked every 5 s, for each way of closing.
#[tokio::test]
async fn an_upstream_that_closes_idle_connections_never_makes_a_query_fail() {
    let mut runs = Vec::new();
    for transport in STREAMS {
        for close in [CloseKind::Notify, CloseKind::Fin, CloseKind::Reset, CloseKind::Silence] {
            runs.push(tokio::spawn(async move {
                let faults = Faults { idle_close: Some((Duration::from_secs(4), close)), ..Faults::default() };
                let bench = Bench::with(transport, [faults], |_| {}).await;
                for round in 0..4 {
                    let asked = bench.ask(&format!("idle{round}.example")).await;
                    assert_eq!(asked, Ok(()), "{transport:?} {close:?} round {round}");
                    // The subject is real time on the lab's clock; nothing is waited for in hope.
                    tokio::time::sleep(Duration::from_secs(5)).await;
                }
                assert_eq!(bench.pool(0).breaker, "closed", "{transport:?} {close:?}");
                bench.stop().await;
            }));
        }
    }
    for run in runs {
        run.await.unwrap();
    }
}

#[tokio::test]
async fn a_server_stops_with_its_connections_closed_and_its_queries_answered() {
    let faults = Faults { delay: Duration::from_millis(300), ..Faults::default() };
    let bench = Bench::with(Transport::Tls, [faults], |_| {}).await;
    let server = bench.address;
    let asked = tokio::spawn(async move { ask(server, "last.example").await });
    while bench.labs[0].counters().tls.queries == 0 {
        tokio::task::yield_now().await;
    }
    let Bench { labs, server, .. } = bench;
    assert_eq!(server.stop(Duration::from_secs(2)).await, 0);
    assert_eq!(asked.await.unwrap(), Ok(()));
    let closed = tokio::time::timeout(Duration::from_secs(2), async {
        while labs[0].counters().tls.open > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    closed.await.expect("all connections end");
}

#[tokio::test]
async fn a_connection_that_was_opened_ahead_costs_the_query_no_dial() {
    let bench = Bench::plain(Transport::Tls).await;
    bench.server.warm_up().await;
    let trace = bench.server.query("ahead.example", 1).await.unwrap();
    let exchange = trace.exchange.expect("the lab answers");
    assert!(exchange.opened_ahead() && exchange.wait.is_zero() && exchange.dial.is_some());
    let trace = bench.server.query("again.example", 1).await.unwrap();
    assert!(trace.exchange.is_some_and(|exchange| exchange.reused && !exchange.opened_ahead()));
    bench.stop().await;
}

#[tokio::test]
async fn each_dial_is_counted_in_the_phases_of_its_transport() {
    for (transport, expected) in [
        (Transport::Udp, &[][..]),
        (Transport::Tcp, &[Connect]),
        (Transport::Tls, &[Connect, Tls]),
        (Transport::Https, &[Connect, Tls, Protocol]),
        (Transport::Quic, &[Quic]),
        (Transport::H3, &[Quic, Protocol]),
    ] {
        let bench = Bench::with(transport, [Faults::default()], |config| {
            config.pool.reuse = false;
            config.pool.min_idle = 0;
        })
        .await;
        assert_eq!(storm(bench.address, "phases", 20, 4).await, Vec::<String>::new());
        let name = if transport == Transport::Udp { "dns.udp" } else { "dns" };
        let stats = || -> Stats {
            let pools = bench.server.named_pools();
            pools.into_iter().find(|pool| pool.name == name).map(|pool| pool.pool.stats()).unwrap()
        };
        until("no dial is under way", || stats().gauges.dialing == 0).await;
        let stats = stats();
        let opened = stats.counters.opened;
        assert!(opened >= if transport == Transport::Udp { 1 } else { 20 }, "{transport:?}: {opened}");
        let phases: Vec<_> = stats.dial_phases.iter().map(|(phase, times)| (phase, times.count())).collect();
        let expected: Vec<_> = expected.iter().map(|phase| (*phase, opened)).collect();
        assert_eq!(phases, expected, "{transport:?}");
        let parts: Duration = stats.dial_phases.iter().map(|(_, times)| times.sum()).sum();
        // Each time is cut to a microsecond, the parts oftener than the whole.
        assert!(
            parts <= stats.dial.sum() + Duration::from_micros(opened),
            "{transport:?}: the parts of a dial are in it"
        );
        bench.stop().await;
    }
}
