//! Spares: used once, replaced in time, and never visible when they are dead.

use keepwarm_lab::{ProxyClose, ProxyFaults, ProxyPhase};
use keepwarm_pool::DialPhase;

use super::*;

#[tokio::test]
async fn a_tunnel_finds_a_greeted_connection_and_another_is_made_in_its_place() {
    let (proxy, echo, connector) = one(with_password(), 1).await;
    until("spares are made", || idle(&connector, "exit") == 4).await;
    let before = proxy.counters();
    assert_eq!((before.greeted, before.auth_ok, before.connects), (4, 4, 0));
    let tunnel = proved(&connector, &echo, 0).await.unwrap();
    assert!(tunnel.trace().spare.is_some(), "{:?}", tunnel.trace());
    assert_eq!((tunnel.trace().tries, &*tunnel.trace().upstream), (1, "exit"));
    until("it is replaced", || proxy.counters().idle == 4).await;
    let after = proxy.counters();
    assert_eq!((after.greeted, after.connects, after.live), (5, 1, 1));
    drop(tunnel);
    until("it ends", || proxy.counters().live == 0).await;
    let exit = stats(&connector, "exit");
    assert_eq!((exit.hits, exit.misses, exit.tunnels, exit.live), (1, 0, 1, 0));
    assert_eq!((exit.sent, exit.received), (116, 100));
    connector.close().await;
    until("spares are closed", || proxy.counters().open == 0).await;
    assert_eq!(echo.foreign(), 0);
}

#[tokio::test]
async fn spares_tell_of_the_phases_of_their_dials() {
    let delay = 40 * MS;
    let (_proxy, _echo, connector) = one(ProxySpec { delay, ..with_password() }, 1).await;
    until("spares are made", || idle(&connector, "exit") == 4).await;
    let stats = connector.pools().pop().unwrap().pool.stats();
    let opened = u32::try_from(stats.counters.opened).unwrap();
    let phases: Vec<_> = stats.dial_phases.iter().map(|(phase, times)| (phase, times.count())).collect();
    assert_eq!(phases, [DialPhase::Connect, DialPhase::Proxy].map(|phase| (phase, u64::from(opened))));
    let sum = |phase| stats.dial_phases.of(phase).unwrap().sum();
    // Greeting and authentication are two round trips, or one where both are sent at once.
    assert!(sum(DialPhase::Proxy) >= delay * opened, "{stats:?}");
    assert!(sum(DialPhase::Connect) + sum(DialPhase::Proxy) <= stats.dial.sum() + Duration::from_micros(1) * opened);
    connector.close().await;
}

#[tokio::test]
async fn without_spares_each_tunnel_dials() {
    let proxy = ProxyLab::start(with_password()).await.unwrap();
    let echo = EchoLab::start(1).await.unwrap();
    let mut config = group(vec![upstream("exit", &proxy)]);
    config.pool = PoolConfig { spares: 0, spares_min: 0, ..config.pool };
    let connector = start(config);
    for _ in 0..3 {
        let tunnel = proved(&connector, &echo, 0).await.unwrap();
        assert_eq!(tunnel.trace().spare, None);
    }
    assert_eq!((proxy.counters().greeted, proxy.counters().connects), (3, 3));
    assert_eq!(stats(&connector, "exit").misses, 3);
}

#[tokio::test]
async fn a_spare_that_died_unnoticed_is_replaced_unseen() {
    // What the watch cannot see: the proxy forgot the connection, or answers the CONNECT with its end.
    for (fault, what) in [
        (ProxyFaults { reset_at: Some(ProxyPhase::Connect), ..ProxyFaults::default() }, "reset"),
        (ProxyFaults { close_at: Some(ProxyPhase::Connect), ..ProxyFaults::default() }, "closed"),
        (ProxyFaults { close_at: Some(ProxyPhase::Reply(5)), ..ProxyFaults::default() }, "closed within the reply"),
    ] {
        let (proxy, echo, connector) = one(with_password(), 1).await;
        until("spares are made", || idle(&connector, "exit") == 4).await;
        proxy.update_faults(|faults| *faults = fault);
        let error = proved(&connector, &echo, 0).await.unwrap_err();
        assert_eq!(error.kind(), keepwarm_tunnel::ErrorKind::Upstream, "{what}: a fresh one fares no better");
        let (retries, failed) = (stats(&connector, "exit").retries, stats(&connector, "exit").failed);
        assert_eq!(
            (retries, failed),
            (1, 0),
            "{what}: one retry; the fresh connection was greeted, so the proxy is alive"
        );
        proxy.set_faults(ProxyFaults::default());
        let tunnel = proved(&connector, &echo, 0).await.unwrap();
        drop(tunnel);
        proxy.stop().await;
    }
}

/// As `ssh -D` says that it cannot reach a destination.
#[tokio::test]
async fn a_proxy_that_answers_a_connect_with_its_end_teaches_no_idle_limit() {
    let (proxy, echo, connector) = one(with_password(), 1).await;
    let limit = || stats(&connector, "exit").spares.unwrap().pool.idle_limit;
    until("spares are made", || idle(&connector, "exit") == 4).await;
    let before = limit();
    // Ends at a younger age teach nothing in any case.
    tokio::time::sleep(600 * MS).await;
    proxy.update_faults(|faults| faults.close_at = Some(ProxyPhase::Connect));
    proved(&connector, &echo, 0).await.unwrap_err();
    assert_eq!(limit(), before, "a fresh connection ended as well");
}

#[tokio::test]
async fn a_stray_answer_or_an_end_takes_a_spare_away_before_it_is_used() {
    let (proxy, echo, connector) = one(with_password(), 1).await;
    type Deed = fn(&ProxyLab);
    let deeds: [Deed; 3] = [ProxyLab::stray, ProxyLab::close_idle, ProxyLab::reset_idle];
    for deed in deeds {
        until("spares are made", || idle(&connector, "exit") == 4).await;
        let (closed, greeted) =
            (stats(&connector, "exit").spares.unwrap().pool.counters.closed_total(), proxy.counters().greeted);
        deed(&proxy);
        until("all of them are given up", || {
            stats(&connector, "exit").spares.unwrap().pool.counters.closed_total() >= closed + 4
        })
        .await;
        let tunnel = proved(&connector, &echo, 0).await.unwrap();
        assert_eq!(tunnel.trace().tries, 1, "none of the dead ones was tried");
        until("they are made anew", || proxy.counters().greeted >= greeted + 4).await;
    }
    assert_eq!(stats(&connector, "exit").retries, 0);
}

#[tokio::test]
async fn proxies_that_close_while_idle_are_never_noticed_by_clients() {
    // The times of real proxies, a tenth of them. With KEEPWARM_SPARSE=600 the real ones, for so many seconds.
    let full: Option<u64> = std::env::var("KEEPWARM_SPARSE").ok().map(|seconds| seconds.parse().expect("seconds"));
    let (unit, lasts) = full.map_or((SECOND / 10, 8 * SECOND), |seconds| (SECOND, Duration::from_secs(seconds)));
    let mut runs = tokio::task::JoinSet::new();
    let kinds = [ProxyClose::Fin, ProxyClose::Reset, ProxyClose::Silent, ProxyClose::SilentReset];
    for (index, limit) in [5, 30, 60].into_iter().flat_map(|limit| kinds.map(|kind| (limit, kind))).enumerate() {
        let (seconds, kind) = limit;
        let faults = ProxyFaults { close_idle: Some(unit * seconds), close_kind: kind, ..ProxyFaults::default() };
        runs.spawn(sparse(format!("{seconds} {kind:?}"), faults, unit, lasts, u32::try_from(index).unwrap()));
    }
    let stray =
        ProxyFaults { close_idle: Some(unit * 5 + unit / 10), stray_reply: Some(unit * 5), ..ProxyFaults::default() };
    runs.spawn(sparse("stray reply first".to_owned(), stray, unit, lasts, 99));
    for line in runs.join_all().await {
        println!("{line}");
    }
}

/// A tunnel every 1.5 to 14 units of time; each must work.
async fn sparse(name: String, faults: ProxyFaults, unit: Duration, lasts: Duration, seed: u32) -> String {
    let (proxy, echo) =
        (ProxyLab::start(ProxySpec { faults, ..with_password() }).await.unwrap(), EchoLab::start(1).await.unwrap());
    let mut config = group(vec![upstream("exit", &proxy)]);
    config.pool.idle_timeout = unit * 30;
    let connector = start(config);
    let end = tokio::time::Instant::now() + lasts;
    let mut tunnels = 0;
    while tokio::time::Instant::now() < end {
        proved(&connector, &echo, 0).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        tunnels += 1;
        tokio::time::sleep(unit * (15 + (tunnels * 37 + seed * 13) % 125) / 10).await;
    }
    let exit = stats(&connector, "exit");
    let limit = exit.spares.as_ref().unwrap().pool.idle_limit;
    connector.close().await;
    proxy.stop().await;
    assert_eq!(echo.foreign(), 0);
    format!(
        "{name}: {tunnels} tunnels, {} found a spare, {} of these dead and replaced unseen, age limit {limit:.1?}",
        exit.hits,
        exit.retries + exit.hedged
    )
}

#[tokio::test]
async fn the_age_limit_is_learned_from_what_the_proxy_closes() {
    let faults = ProxyFaults { close_idle: Some(SECOND), ..ProxyFaults::default() };
    let (proxy, echo, connector) = one(ProxySpec { faults, ..with_password() }, 1).await;
    until("the proxy closes some", || proxy.counters().closed_idle > 0).await;
    until("it is learned", || stats(&connector, "exit").spares.unwrap().pool.idle_limit < 900 * MS).await;
    let limit = stats(&connector, "exit").spares.unwrap().pool.idle_limit;
    assert!(limit > 500 * MS, "0.8 of a second: {limit:?}");
    drop((echo, connector));
}

#[tokio::test]
async fn dropping_the_connector_ends_its_connections_and_tasks() {
    let before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    for _ in 0..20 {
        let (proxy, echo, connector) = one(with_password(), 1).await;
        drop(proved(&connector, &echo, 0).await.unwrap());
        drop(connector);
        until("spares are closed", || proxy.counters().open == 0).await;
        proxy.stop().await;
        echo.stop().await;
    }
    until("tasks end", || tokio::runtime::Handle::current().metrics().num_alive_tasks() <= before).await;
}

#[tokio::test]
async fn a_destination_that_a_proxy_answers_with_its_end_teaches_nothing_about_spares() {
    let (proxy, echo, connector) = one(with_password(), 1).await;
    until("spares are made", || idle(&connector, "exit") == 4).await;
    proxy.update_faults(|faults| faults.close_at = Some(ProxyPhase::Connect));
    tokio::time::sleep(700 * MS).await;
    for _ in 0..3 {
        assert!(proved(&connector, &echo, 0).await.is_err());
    }
    let limit = stats(&connector, "exit").spares.unwrap().pool.idle_limit;
    assert_eq!(limit, 12 * SECOND, "a fresh connection fared no better, so it was not their age");
}

#[tokio::test]
async fn a_proxy_that_says_something_before_it_closes_is_learned_from_too() {
    let faults = ProxyFaults { stray_reply: Some(900 * MS), close_idle: Some(SECOND), ..ProxyFaults::default() };
    let (_proxy, _echo, connector) = one(ProxySpec { faults, ..with_password() }, 1).await;
    until("it is learned", || stats(&connector, "exit").spares.unwrap().pool.idle_limit < 900 * MS).await;
}
