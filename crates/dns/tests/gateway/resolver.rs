//! Names looked up through the server itself, and through bootstrap resolvers, with the time that the answers hold.

use std::{net::IpAddr, sync::Arc, time::Duration};

use keepwarm_dns::{config::Transport, server::ServerResolver, upstream::BootstrapResolver};
use keepwarm_lab::{Faults, expected_a, expected_aaaa};
use keepwarm_transport::{
    error::{ErrorKind, Side},
    resolve::{Resolve, Resolved},
};

use crate::support::*;

/// What a lab answers for a name.
fn expected(name: &str, ttl: u64) -> Resolved {
    let addresses = vec![IpAddr::V6(expected_aaaa(name)), IpAddr::V4(expected_a(name))];
    Resolved { addresses, ttl: Some(Duration::from_secs(ttl)) }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[tokio::test]
async fn the_servers_resolver_finds_both_families_and_their_time_and_uses_the_cache() {
    let bench = Bench::cached([Faults { ttl: 42, ..Faults::default() }], |_| {}).await;
    let resolver: Arc<dyn Resolve> = Arc::new(bench.server.resolver());
    assert_eq!(resolver.lookup("tiles.example").await.unwrap(), expected("tiles.example", 42));
    let asked = bench.labs[0].counters().udp.queries;
    assert_eq!(asked, 2);
    let again = resolver.lookup("Tiles.Example.").await.unwrap();
    assert_eq!(again.addresses, expected("tiles.example", 42).addresses);
    // A second may have passed, or two on a busy machine; none is added.
    assert!(again.ttl.is_some_and(|ttl| ttl <= Duration::from_secs(42)), "{again:?}");
    assert_eq!(resolver.resolve("tiles.example").await.unwrap(), again.addresses);
    assert_eq!(bench.labs[0].counters().udp.queries, asked);
    assert_eq!(bench.server.status().queries, 6);
    bench.stop().await;
}

#[tokio::test]
async fn local_names_count_and_an_alias_shortens_the_time() {
    let bench = Bench::cached([Faults::default()], |config| {
        config.local.records = [
            "tiles.lan. 300 IN A 192.168.1.10",
            "tiles.lan. 300 IN A 192.168.1.11",
            "short.lan. 20 IN CNAME tiles.lan.",
            "long.lan. 900 IN CNAME tiles.lan.",
        ]
        .map(Into::into)
        .to_vec();
    })
    .await;
    let server = bench.server.resolver();
    // The same answers, asked for as by a client without a cache of its own.
    let bootstrap = BootstrapResolver::new(&[bench.address]);
    for resolver in [&server as &dyn Resolve, &bootstrap] {
        for (name, ttl) in [("tiles.lan", 300), ("short.lan", 20), ("long.lan", 300)] {
            let mut found = resolver.lookup(name).await.unwrap();
            found.addresses.sort();
            let addresses = vec![ip("192.168.1.10"), ip("192.168.1.11")];
            assert_eq!(found, Resolved { addresses, ttl: Some(Duration::from_secs(ttl)) }, "{name} by {resolver:?}");
        }
    }
    assert_eq!(bench.labs[0].counters().udp.queries, 0);
    bench.stop().await;
}

#[tokio::test]
async fn a_bootstrap_resolver_tells_the_time() {
    let (labs, _) = labs([Faults { ttl: 7, ..Faults::default() }]).await;
    let resolver = BootstrapResolver::new(&[labs[0].udp_addr()]);
    assert_eq!(resolver.lookup("dns.example").await.unwrap(), expected("dns.example", 7));
    let literal = Resolved { addresses: vec![ip("192.0.2.1")], ttl: None };
    assert_eq!(resolver.lookup("192.0.2.1").await.unwrap(), literal);
    assert_eq!(labs[0].counters().udp.queries, 2);
}

#[tokio::test]
async fn failures_are_local_and_say_why() {
    let bench = Bench::plain(Transport::Udp).await;
    let resolver = bench.server.resolver();
    for (name, why) in [
        ("nx.example", "resolve nx.example: the name does not exist"),
        ("nodata.example", "resolve nodata.example: the name has no address"),
        ("servfail.example", "resolve servfail.example: answered SERVFAIL"),
        ("a..example", "resolve a..example: not a valid name"),
    ] {
        let error = resolver.lookup(name).await.unwrap_err();
        assert_eq!((error.kind(), error.side()), (ErrorKind::Resolve, Side::Local), "{error}");
        assert_eq!(error.to_string(), why);
    }
    let literal = Resolved { addresses: vec![ip("2001:db8::1")], ttl: None };
    assert_eq!(resolver.lookup("[2001:db8::1]").await.unwrap(), literal);
    bench.stop().await;
}

#[tokio::test]
async fn a_silent_upstream_ends_a_lookup_in_time() {
    let bench = Bench::with(Transport::Udp, [Faults { silent: true, ..Faults::default() }], |config| {
        config.timeout = Duration::from_millis(300);
    })
    .await;
    let error = bench.server.resolver().lookup("www.example").await.unwrap_err();
    assert_eq!((error.kind(), error.side()), (ErrorKind::Resolve, Side::Local), "{error}");
    bench.stop().await;
}

#[tokio::test]
async fn more_lookups_than_there_may_be_at_a_time_wait_for_their_turn() {
    let bench = Bench::with(Transport::Udp, [Faults::default()], |_| {}).await;
    let resolver = bench.server.resolver();
    let lookups: Vec<_> = (0..ServerResolver::LOOKUPS_MAX * 4)
        .map(|number| tokio::spawn(resolver.lookup(&format!("n{number}.example"))))
        .collect();
    for (number, lookup) in lookups.into_iter().enumerate() {
        let found = lookup.await.unwrap().unwrap();
        assert_eq!(found.addresses, expected(&format!("n{number}.example"), 60).addresses);
    }
    bench.stop().await;
}

#[tokio::test]
async fn a_resolver_does_not_keep_the_server_from_stopping_and_then_finds_nothing() {
    let bench = Bench::with(Transport::Udp, [Faults { silent: true, ..Faults::default() }], |config| {
        config.timeout = Duration::from_secs(600);
    })
    .await;
    let resolver = bench.server.resolver();
    let waiting = tokio::spawn(resolver.lookup("waits.example"));
    while bench.labs[0].counters().udp.queries == 0 {
        tokio::task::yield_now().await;
    }
    bench.server.stop(Duration::from_millis(50)).await;
    // Neither waits for its own time, which is ten minutes.
    for error in [waiting.await.unwrap().unwrap_err(), resolver.lookup("late.example").await.unwrap_err()] {
        assert_eq!((error.kind(), error.side()), (ErrorKind::Resolve, Side::Local));
        assert!(error.to_string().ends_with("the dns server has stopped"), "{error}");
    }
}
