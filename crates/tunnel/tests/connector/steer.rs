//! Pools of upstreams as operators see and steer them.

use keepwarm_pool::{Limits, NamedPool};
use keepwarm_tunnel::{ErrorKind, Side};

use super::*;

fn pool(connector: &Connector, name: &str) -> NamedPool {
    connector.pools().into_iter().find(|pool| pool.name == name).unwrap()
}

#[tokio::test]
async fn a_pool_is_named_after_its_upstream_and_its_host_after_the_proxy_without_a_password() {
    let (proxy, _echo, connector) = one(with_password(), 1).await;
    until("spares are made", || idle(&connector, "exit") == 4).await;
    assert_eq!(connector.pools().iter().map(|pool| &*pool.name).collect::<Vec<_>>(), ["tunnel.exit"]);
    let hosts = pool(&connector, "tunnel.exit").pool.hosts();
    assert_eq!(hosts[0].name, format!("socks5://{}", proxy.addr()));
    assert_eq!((hosts[0].connections.len(), hosts[0].connections[0].capacity), (4, 1));
}

#[tokio::test]
async fn a_limit_that_an_operator_sets_holds_against_the_rate_of_tunnels() {
    let (proxy, echo, connector) = one(with_password(), 1).await;
    let exit = pool(&connector, "tunnel.exit").pool;
    until("spares are made", || idle(&connector, "exit") == 4).await;
    let limits = Limits { max_idle_per_host: 2, min_idle: exit.limits().min_idle.min(2), ..exit.limits() };
    exit.set_limits(limits).unwrap();
    until("two are closed", || proxy.counters().open == 2).await;
    for _ in 0..20 {
        // The rate asks for more with each of them.
        drop(proved(&connector, &echo, 0).await.unwrap());
        assert!(exit.limits().min_idle <= 2 && idle(&connector, "exit") <= 2);
    }
    until("tunnels end", || proxy.counters().live == 0).await;
    until("two are kept", || idle(&connector, "exit") == 2 && proxy.counters().open == 2).await;
    assert_eq!(stats(&connector, "exit").spares.unwrap().max, 2);
    assert!(exit.set_limits(Limits { max_per_host: 0, ..exit.limits() }).is_err());

    let more = Limits { max_idle_per_host: 9, min_idle: 9, ..exit.limits() };
    exit.set_limits(more).unwrap();
    until("the floor is kept", || idle(&connector, "exit") == 9).await;
    // A config with the same pool leaves it; one with another pool is what counts from then on.
    let mut config = (*connector.config()).clone();
    drop(connector.prepare(config.clone()).unwrap().apply());
    assert_eq!(exit.limits().min_idle, 9);
    config.pool.spares_max = 5;
    drop(connector.prepare(config).unwrap().apply());
    until("the config's is kept", || idle(&connector, "exit") <= 5).await;
    assert_eq!((exit.limits().max_idle_per_host, exit.limits().min_idle <= 5), (5, true));
}

#[tokio::test]
async fn tunnels_go_past_a_paused_upstream_and_are_told_where_there_is_no_other() {
    let (first, second) =
        (ProxyLab::start(with_password()).await.unwrap(), ProxyLab::start(with_password()).await.unwrap());
    let echo = EchoLab::start(1).await.unwrap();
    let connector = start(group(vec![upstream("a", &first), upstream("b", &second)]));
    let live = proved(&connector, &echo, 0).await.unwrap();
    let (a, b) = (pool(&connector, "tunnel.a").pool, pool(&connector, "tunnel.b").pool);
    assert_eq!(a.pause(None), 1);
    let tunnel = proved(&connector, &echo, 0).await.unwrap();
    assert_eq!((&*tunnel.trace().upstream, first.counters().live), ("b", 1), "the live one stays");
    assert_eq!(b.pause(Some("socks5://nobody.example:1")), 0);
    assert_eq!(b.pause(Some(&format!("socks5://{}", second.addr()))), 1);
    let error = connector.connect(&Target::from(echo.addr(0))).await.unwrap_err();
    assert_eq!((error.kind(), error.side()), (ErrorKind::Local, Side::Local));
    assert!(error.to_string().contains("an operator has paused it") && error.is_retryable(), "{error}");
    for name in ["a", "b"] {
        let of = stats(&connector, name);
        assert!(of.failed == 0 && of.is_well(), "nobody is blamed: {of:?}");
    }
    assert_eq!(a.resume(None), 1);
    assert_eq!(&*proved(&connector, &echo, 0).await.unwrap().trace().upstream, "a");
    drop(live);
}

#[tokio::test]
async fn a_pause_stays_where_a_reload_makes_the_upstream_anew() {
    let (_proxy, echo, connector) = one(with_password(), 1).await;
    assert_eq!(pool(&connector, "tunnel.exit").pool.pause(None), 1);
    let other = ProxyLab::start(with_password()).await.unwrap();
    let config = TunnelConfig { upstreams: vec![upstream("exit", &other)], ..(*connector.config()).clone() };
    let changes = connector.prepare(config).unwrap().apply();
    assert_eq!(changes.changed, ["tunnel.upstream.exit"]);
    let error = proved(&connector, &echo, 0).await.unwrap_err();
    assert!(error.to_string().contains("an operator has paused it"), "{error}");
    assert_eq!(other.counters().connects, 0);
    assert_eq!(pool(&connector, "tunnel.exit").pool.resume(None), 1);
    assert!(proved(&connector, &echo, 0).await.is_ok());
}

#[tokio::test]
async fn spares_are_flushed_and_warmed_up_on_demand() {
    let (proxy, _echo, connector) = one(with_password(), 1).await;
    let exit = pool(&connector, "tunnel.exit").pool;
    until("spares are made", || idle(&connector, "exit") == 4).await;
    let before = proxy.counters().accepted;
    assert_eq!(exit.flush(None), 1);
    until("they are made anew", || proxy.counters().accepted == before + 4 && idle(&connector, "exit") == 4).await;
    assert_eq!(exit.warm_up(None, 7).await, Ok(7));
    assert_eq!(idle(&connector, "exit"), 7);
}
