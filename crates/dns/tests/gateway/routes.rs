//! Split horizon and the fallback: which lab hears of which name.

use std::time::Duration;

use keepwarm_dns::{
    config::{CacheSettings, DnsConfig, RouteConfig, Transport},
    server::{Server, StartError, Why},
    strategy::groups::GroupFault,
};
use keepwarm_lab::{Faults, answer_matches};

use crate::support::*;

/// The second lab answers for `corp.example`, the first for all else.
fn split(config: &mut DnsConfig) {
    config.upstreams[1].group = "corp".into();
    config.routes = vec![RouteConfig { suffixes: vec!["corp.example".into()], group: "corp".into() }];
}

/// The second lab is the fallback of the first.
fn spare(config: &mut DnsConfig) {
    config.upstreams[1].group = "spare".into();
    config.fallback = Some("spare".into());
}

/// Queries that each lab has seen, over whatever transport.
fn seen(bench: &Bench) -> Vec<u64> {
    let counters = bench.labs.iter().map(keepwarm_lab::Lab::counters);
    let each = |seen: keepwarm_lab::Counters| [seen.udp, seen.tcp, seen.tls, seen.https, seen.quic, seen.h3];
    counters.map(|seen| each(seen).iter().map(|transport| transport.queries).sum()).collect()
}

#[tokio::test]
async fn names_of_a_route_go_to_its_group_and_all_others_to_the_default_one() {
    for transport in TRANSPORTS {
        let bench = Bench::with(transport, [Faults::default(), Faults::default()], split).await;
        for name in ["corp.example", "www.corp.example", "A.b.CORP.Example"] {
            assert_eq!(bench.ask(name).await, Ok(()));
        }
        assert_eq!(seen(&bench), [0, 3], "{transport:?}");
        for name in ["example", "xcorp.example", "corp.example.com", "www.example"] {
            assert_eq!(bench.ask(name).await, Ok(()));
        }
        assert_eq!(seen(&bench), [4, 3], "{transport:?}");
        bench.stop().await;
    }
}

#[tokio::test]
async fn the_ds_records_of_a_route_are_asked_of_those_above_it() {
    let bench = Bench::with(Transport::Udp, [Faults::default(), Faults::default()], split).await;
    const DS: u16 = 43;
    for (name, seen_by) in [("corp.example", [1, 0]), ("below.corp.example", [1, 1])] {
        let query = query(name, DS);
        let answer = exchange_udp(bench.address, &query).await.unwrap();
        assert_eq!(answer_matches(&query, &answer), Ok(()));
        assert_eq!(seen(&bench), seen_by, "{name}");
    }
    bench.stop().await;
}

#[tokio::test]
async fn a_route_never_turns_to_the_upstreams_of_another() {
    let silent = Faults { silent: true, ..Faults::default() };
    let bench = Bench::with(Transport::Udp, [Faults::default(), silent], |config| {
        split(config);
        config.timeout = Duration::from_millis(600);
    })
    .await;
    let answer = exchange_udp(bench.address, &query("www.corp.example", 1)).await.unwrap();
    assert_eq!(rcode(&answer), 2);
    assert_eq!(seen(&bench)[0], 0, "the others must not hear of the name");
    bench.stop().await;
}

#[tokio::test]
async fn routed_answers_are_cached_and_coalesced_by_name_and_meet_no_others() {
    let slow = Faults { delay: Duration::from_millis(100), ..Faults::default() };
    let bench = Bench::with(Transport::Udp, [slow.clone(), slow], |config| {
        split(config);
        config.cache = CacheSettings::default();
        // One worker, so that identical queries meet.
        config.workers = 1;
    })
    .await;
    let names = ["host.corp.example", "host.example"];
    let asked = names.iter().flat_map(|name| std::iter::repeat_n(*name, 20)).map(|name| bench.ask(name));
    for answer in futures_util::future::join_all(asked).await {
        assert_eq!(answer, Ok(()), "each answer is that of its own question");
    }
    assert_eq!(seen(&bench), [1, 1]);
    for name in names {
        assert_eq!(bench.ask(name).await, Ok(()));
    }
    assert_eq!((seen(&bench), bench.server.status().cache_hits), (vec![1, 1], 2));
    bench.stop().await;
}

#[tokio::test]
async fn the_fallback_is_asked_after_failure_alone() {
    for transport in TRANSPORTS {
        let bench = Bench::with(transport, [Faults::default(), Faults::default()], spare).await;
        assert_eq!(storm(bench.address, "well", 50, 8).await, Vec::<String>::new());
        assert_eq!(seen(&bench)[1], 0, "{transport:?}: nobody failed");
        bench.labs[0].update_faults(|faults| faults.silent = true);
        assert_eq!(storm(bench.address, "silent", 30, 8).await, Vec::<String>::new(), "{transport:?}");
        assert!(seen(&bench)[1] > 0, "{transport:?}");
        bench.stop().await;
    }
}

#[tokio::test]
async fn the_fallback_is_not_asked_because_of_slowness_or_servfail() {
    let slow = Faults { delay: Duration::from_millis(600), ..Faults::default() };
    let bench = Bench::with(Transport::Udp, [slow, Faults::default()], spare).await;
    assert_eq!(bench.ask("slow.example").await, Ok(()));
    bench.labs[0].set_faults(Faults { rcode: Some(2), ..Faults::default() });
    let answer = exchange_udp(bench.address, &query("bogus.example", 1)).await.unwrap();
    assert_eq!((rcode(&answer), seen(&bench)[1]), (2, 0), "a resolver's verdict stands");
    bench.stop().await;
}

#[tokio::test]
async fn the_fallback_is_told_as_the_reason() {
    let refuse = Faults { refuse: true, ..Faults::default() };
    let bench = Bench::with(Transport::Tcp, [refuse, Faults::default()], spare).await;
    let trace = bench.server.query("www.example", 1).await.unwrap();
    assert_eq!(trace.exchange.unwrap().upstream, "lab1");
    let explanation = trace.explanation.unwrap();
    assert_eq!((&*explanation.group, explanation.fallback.as_deref()), ("default", Some("spare")));
    let told: Vec<_> = explanation.candidates.iter().map(|each| (&*each.upstream, &*each.group, each.why)).collect();
    assert!(matches!(told[0], ("lab0", "default", Why::First(..))), "{told:?}");
    assert_eq!(told[1], ("lab1", "spare", Why::Fallback));
    bench.stop().await;
}

#[tokio::test]
async fn a_server_whose_routes_lead_nowhere_does_not_start() {
    let (labs, ca) = labs([Faults::default()]).await;
    let mut config = config(&labs, &ca, Transport::Udp);
    config.routes = vec![RouteConfig { suffixes: vec!["a.example".into()], group: "gone".into() }];
    let error = Server::start(config).err().expect("refused");
    assert!(matches!(error, StartError::Groups(GroupFault::UnknownRoute { route: 0, .. })), "{error}");
}
