//! Another config while tunnels are open: what stands stays, what is gone ends, and nobody notices.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use keepwarm_lab::EchoMode;
use keepwarm_tunnel::{
    ErrorKind,
    config::{HostMatch, Match, Rule},
};
use tokio::runtime::Handle;

use super::*;

/// The connections of an upstream's pool.
fn ids(connector: &Connector, name: &str) -> BTreeSet<u64> {
    let pool = connector.pools().into_iter().find(|pool| pool.name == format!("tunnel.{name}")).unwrap();
    let hosts = pool.pool.hosts();
    hosts.iter().flat_map(|host| &host.connections).map(|connection| connection.id).collect()
}

async fn full(connector: &Connector, name: &str) {
    until("spares are made", || idle(connector, name) >= 4).await;
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn an_upstream_that_stays_keeps_its_connections_and_one_that_changes_its_live_tunnels() {
    let (first, second) =
        (ProxyLab::start(with_password()).await.unwrap(), ProxyLab::start(with_password()).await.unwrap());
    let echo = EchoLab::start(1).await.unwrap();
    let mut config = group(vec![upstream("a", &first), upstream("b", &first), upstream("c", &first)]);
    config.default = Via::Upstream("b".into());
    let connector = start(config.clone());
    for name in ["a", "b", "c"] {
        full(&connector, name).await;
    }
    let mut live = connector.connect(&Target::from(echo.addr(0))).await.unwrap();
    let mut tag = Tagged::random(echo.addr(0));
    exchange(&mut live, &mut tag, 100).await;
    full(&connector, "b").await;
    let kept = ids(&connector, "a");
    let tunnels = stats(&connector, "b").tunnels;

    let mut other = upstream("a", &first);
    other.priority = 7;
    config.upstreams = vec![upstream("b", &second), other, upstream("d", &second)];
    let changes = connector.prepare(config).unwrap().apply();
    assert_eq!(changes.added, names(&["tunnel.upstream.d"]));
    assert_eq!(changes.changed, names(&["tunnel.upstream.b", "tunnel.upstream.a"]));
    let drained: Vec<_> = changes.drained.iter().map(|drained| (&*drained.name, drained.connections)).collect();
    assert_eq!(drained, [("tunnel.upstream.b", 5), ("tunnel.upstream.c", 4)], "four spares, and a live tunnel");
    assert_eq!(ids(&connector, "a"), kept, "the same connections");
    assert_eq!((stats(&connector, "a").priority, stats(&connector, "b").tunnels, tunnels), (7, 0, 1));
    assert!(connector.stats().upstreams.iter().all(|upstream| &*upstream.name != "c"));

    until("its spares are closed", || first.counters().open == 4 + 1).await;
    exchange(&mut live, &mut tag, 100_000).await;
    assert_eq!(connector.stats().live, 1);
    let (asked, counters) = (first.counters().connects, second.counters());
    drop(proved(&connector, &echo, 0).await.unwrap());
    assert_eq!((first.counters().connects, second.counters().connects), (asked, counters.connects + 1));
    drop(live);
    until("it ends", || first.counters().open == 4 && connector.stats().live == 0).await;
    assert_eq!(echo.foreign(), 0);
}

/// What is on its way over an upstream that is taken away gets there.
#[tokio::test]
async fn a_tunnel_that_is_on_its_way_is_made_though_its_upstream_is_gone() {
    let slow = ProxyLab::start(ProxySpec { delay: 100 * MS, ..with_password() }).await.unwrap();
    let (proxy, echo) = (ProxyLab::start(with_password()).await.unwrap(), EchoLab::start(1).await.unwrap());
    let mut config = group(vec![upstream("exit", &slow)]);
    config.pool = PoolConfig { spares: 0, spares_min: 0, ..config.pool };
    let connector = start(config.clone());
    let making = tokio::spawn({
        let (connector, target) = (connector.clone(), Target::from(echo.addr(0)));
        async move { connector.connect(&target).await }
    });
    until("it is being dialled", || slow.counters().accepted == 1).await;
    config.upstreams = vec![upstream("exit", &proxy)];
    drop(connector.prepare(config).unwrap().apply());
    let mut tunnel = making.await.unwrap().unwrap();
    exchange(&mut tunnel, &mut Tagged::random(echo.addr(0)), 1000).await;
    assert_eq!((slow.counters().connects_ok, proxy.counters().connects), (1, 0));
    drop(tunnel);
    until("nothing is left of it", || slow.counters().open == 0).await;
}

#[tokio::test]
async fn a_config_that_cannot_be_used_changes_nothing() {
    let (proxy, echo, connector) = one(with_password(), 1).await;
    full(&connector, "exit").await;
    let (before, accepted) = (ids(&connector, "exit"), proxy.counters().accepted);
    let good = || group(vec![upstream("exit", &proxy)]);
    let rule = Rule {
        matches: vec![Match { host: HostMatch::Any, ports: None }],
        via: Via::Upstream("nobody".into()),
        speculate: 0,
    };
    for (config, words) in [
        (TunnelConfig { upstreams: vec![upstream("x", &proxy), upstream("x", &proxy)], ..good() }, "two upstreams"),
        (TunnelConfig { rules: vec![rule], ..good() }, "nobody"),
        (TunnelConfig { max_tunnels: 0, ..good() }, "max_tunnels"),
    ] {
        let error = connector.prepare(config).expect_err(words);
        assert!(error.to_string().contains(words), "{error}");
    }
    // One that is built and then dropped: nothing of it is dialled.
    let other = TunnelConfig { upstreams: vec![upstream("other", &proxy)], ..good() };
    let prepared = connector.prepare(other).unwrap();
    assert!(connector.prepare(good()).unwrap_err().to_string().contains("another config"));
    drop(prepared);
    let changes = connector.prepare(good()).unwrap().apply();
    assert_eq!((changes.kept, changes.changed), (names(&["tunnel.upstream.exit"]), Vec::new()));
    assert!(changes.added.is_empty() && changes.drained.is_empty() && changes.needs_restart.is_empty());
    assert_eq!((ids(&connector, "exit"), proxy.counters().accepted), (before, accepted));
    assert!(proved(&connector, &echo, 0).await.is_ok());
}

#[tokio::test]
async fn rules_limits_and_pool_sizes_are_in_force_at_once() {
    let (proxy, echo, connector) = one(with_password(), 1).await;
    full(&connector, "exit").await;
    let config = connector.config();
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut tunnel = connector.connect(&Target::from(echo.addr(0))).await.unwrap();
        let mut tag = Tagged::random(echo.addr(0));
        exchange(&mut tunnel, &mut tag, 10).await;
        held.push((tunnel, tag));
    }
    let fewer = TunnelConfig { max_per_destination: 2, acquire_timeout: 20 * SECOND, ..(*config).clone() };
    let changes = connector.prepare(fewer.clone()).unwrap().apply();
    assert_eq!(changes.changed, names(&["tunnel.max_per_destination", "tunnel.acquire_timeout"]));
    let waiting = tokio::spawn({
        let (connector, target) = (connector.clone(), Target::from(echo.addr(0)));
        async move { connector.connect(&target).await }
    });
    until("it waits", || connector.stats().waiting == 1).await;
    held.pop();
    assert_eq!((connector.stats().live, connector.stats().waiting), (2, 1), "two are as many as there may be");
    let rule = Rule { matches: vec![Match { host: HostMatch::Any, ports: None }], via: Via::Reject, speculate: 0 };
    let closed = TunnelConfig { rules: vec![rule], max_per_destination: 5, ..fewer.clone() };
    assert!(connector.prepare(closed).unwrap().apply().changed.contains(&"tunnel.rule".to_owned()));
    let rejected = waiting.await.unwrap().unwrap_err();
    assert_eq!(rejected.kind(), ErrorKind::Rejected, "it was served at once, by the new rules");
    assert_eq!(proved(&connector, &echo, 0).await.unwrap_err().kind(), ErrorKind::Rejected);

    let pool = PoolConfig { spares: 2, spares_min: 2, spares_max: 2, ..fewer.pool.clone() };
    drop(connector.prepare(TunnelConfig { pool, ..fewer }).unwrap().apply());
    until("spares are closed", || proxy.counters().open == 2 + 2).await;
    let spares = stats(&connector, "exit").spares.unwrap();
    assert_eq!((spares.target, spares.max), (2, 2));
    for (tunnel, tag) in &mut held {
        exchange(tunnel, tag, 10).await;
    }
}

/// A tunnel that was opened ahead or given back is not handed out by rules that do not lead there.
#[tokio::test]
async fn what_is_ready_is_not_used_by_other_rules() {
    let (proxy, echo, connector) = one(with_password(), 1).await;
    let tunnel = connector.connect(&Target::from(echo.addr(0))).await.unwrap();
    connector.release_clean(tunnel);
    assert_eq!(connector.stats().ready, 1);
    let held = connector.connect(&Target::from(echo.addr(0))).await.unwrap();
    assert!(held.trace().ready);
    connector.release_clean(held);
    let late = connector.connect(&Target::from(echo.addr(0))).await.unwrap();
    let config = TunnelConfig { default: Via::Direct, ..(*connector.config()).clone() };
    drop(connector.prepare(config).unwrap().apply());
    connector.release_clean(late);
    assert_eq!(connector.stats().ready, 0);
    let direct = proved(&connector, &echo, 0).await.unwrap();
    assert_eq!((&*direct.trace().upstream, direct.trace().ready), ("direct", false));
    drop(proxy);
}

/// A hundred of them while tunnels are asked for and bytes go through others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_reloads_under_load_fail_nobody_and_leave_nothing_behind() {
    let (first, second) =
        (ProxyLab::start(with_password()).await.unwrap(), ProxyLab::start(with_password()).await.unwrap());
    let echo = EchoLab::start(2).await.unwrap();
    let config = |index: usize| {
        let changing = if index.is_multiple_of(2) { &first } else { &second };
        let mut config = group(vec![upstream("stays", &first), upstream("changes", changing)]);
        if index.is_multiple_of(3) {
            config.upstreams.push(upstream("comes and goes", &second));
        }
        config.strategy = keepwarm_tunnel::config::Strategy::RoundRobin;
        (config.max_per_destination, config.max_tunnels) = (20 + index % 7, 100 + index % 11);
        config
    };
    let connector = start(config(0));
    full(&connector, "stays").await;
    drop(proved(&connector, &echo, 0).await.unwrap());
    let vitals = stats(&connector, "stays").tunnels;
    let stop = Arc::new(AtomicBool::new(false));
    let (made, exchanged) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut load = tokio::task::JoinSet::new();
    for number in 0..8 {
        let (connector, stop, address) = (connector.clone(), Arc::clone(&stop), echo.addr(number % 2));
        let (made, exchanged) = (Arc::clone(&made), Arc::clone(&exchanged));
        load.spawn(async move {
            // Half of them stay in one tunnel all the time, the others make one after another.
            let mut tunnel = connector.connect(&Target::from(address)).await.unwrap();
            let mut tag = Tagged::random(address);
            while !stop.load(Ordering::Relaxed) {
                if number >= 4 {
                    drop(tunnel);
                    tunnel = connector.connect(&Target::from(address)).await.unwrap();
                    tag = Tagged::random(address);
                    made.fetch_add(1, Ordering::Relaxed);
                }
                exchange(&mut tunnel, &mut tag, 5000).await;
                exchanged.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let mut settled = None;
    for index in 1..=100 {
        let (so_far, through) = (made.load(Ordering::Relaxed), exchanged.load(Ordering::Relaxed));
        let changes = connector.prepare(config(index)).unwrap().apply();
        assert!(changes.kept.contains(&"tunnel.upstream.stays".to_owned()), "{changes:?}");
        assert!(changes.changed.contains(&"tunnel.upstream.changes".to_owned()), "{changes:?}");
        until("tunnels are made and bytes go through", || {
            made.load(Ordering::Relaxed) > so_far + 4 && exchanged.load(Ordering::Relaxed) > through + 8
        })
        .await;
        if index == 12 {
            settled = Some(Handle::current().metrics().num_alive_tasks());
        }
    }
    let stays = stats(&connector, "stays").tunnels;
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = load.join_next().await {
        ended.unwrap();
    }
    assert!(stays > vitals, "it is the same upstream all the while");
    assert_eq!((connector.stats().failed, echo.foreign()), (Vec::new(), 0));
    until("tunnels end", || connector.stats().live == 0).await;
    drop(connector.prepare(config(2)).unwrap().apply());
    // What is open are spares, and of these as many as are to be kept.
    let wanted = || -> usize { ["stays", "changes"].iter().map(|name| idle(&connector, name)).sum() };
    until("sockets are where they were", || {
        let open = first.counters().open + second.counters().open;
        open == wanted() as u64 && wanted() <= 2 * 16
    })
    .await;
    until("tasks are where they were", || Handle::current().metrics().num_alive_tasks() <= settled.unwrap()).await;
    connector.close().await;
    until("nothing is left", || first.counters().open + second.counters().open == 0).await;
}

#[tokio::test]
async fn tunnels_that_are_slow_or_fail_are_remembered_with_their_reason() {
    let (proxy, echo) = (ProxyLab::start(with_password()).await.unwrap(), EchoLab::start(1).await.unwrap());
    let mut config = group(vec![upstream("exit", &proxy)]);
    config.slow = Duration::from_secs(3600);
    let connector = start(config.clone());
    drop(proved(&connector, &echo, 0).await.unwrap());
    assert_eq!(connector.recent(), [], "it was neither");
    let nobody = tokio::net::TcpSocket::new_v4().unwrap();
    nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let refused = Target::from(nobody.local_addr().unwrap());
    let error = connector.connect(&refused).await.unwrap_err();
    let row = connector.recent().remove(0);
    assert_eq!((&row.target, row.upstream.as_deref()), (&refused, Some("exit")));
    assert_eq!(row.error, Some((ErrorKind::Refused, error.to_string())));
    assert_eq!(row.tries, 1);

    config.slow = Duration::ZERO;
    drop(connector.prepare(config).unwrap().apply());
    echo.set_mode(0, EchoMode::Echo);
    full(&connector, "exit").await;
    let tunnel = proved(&connector, &echo, 0).await.unwrap();
    let row = connector.recent().remove(0);
    assert_eq!((row.target, row.error, row.tries), (Target::from(echo.addr(0)), None, 1));
    assert_eq!((row.spare, row.waited), (tunnel.trace().spare, tunnel.trace().waited));
    assert!(row.spare.is_some() && row.elapsed >= tunnel.trace().elapsed);
    for _ in 0..200 {
        drop(connector.connect(&refused).await);
    }
    let rows = connector.recent();
    assert_eq!(rows.len(), keepwarm_tunnel::RecentTunnel::MAX);
    assert!(rows.iter().all(|row| row.target == refused) && rows.is_sorted_by_key(|row| row.age));
}
