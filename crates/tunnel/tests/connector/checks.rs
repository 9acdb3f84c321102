//! Upstreams are looked after while nobody asks.

use keepwarm_lab::ProxyFaults;

use super::*;

/// A proxy that is checked each second, or never, with or without a destination to be connected to.
async fn checked(interval: Duration, has_target: bool) -> (ProxyLab, EchoLab, Connector) {
    let (proxy, echo) = (ProxyLab::start(with_password()).await.unwrap(), EchoLab::start(1).await.unwrap());
    let mut exit = upstream("exit", &proxy);
    exit.check = has_target.then(|| Target::from(echo.addr(0)));
    let mut config = group(vec![exit]);
    config.pool.check_interval = interval;
    let connector = start(config);
    until("spares are made", || idle(&connector, "exit") == 4).await;
    (proxy, echo, connector)
}

#[tokio::test]
async fn a_check_connects_over_spares_to_the_destination_that_is_set() {
    let (proxy, echo, connector) = checked(SECOND, true).await;
    until("it is connected to", || proxy.counters().connects_ok >= 2).await;
    assert_eq!((stats(&connector, "exit").failed, stats(&connector, "exit").tunnels), (0, 0), "nobody's tunnel");
    assert!(echo.counters(0).connections.total >= 2);
    // It is known to reach this destination, so it is the upstream's failure.
    proxy.update_faults(|faults| faults.reply = Some(5));
    until("it is left alone, although nobody asked", || !stats(&connector, "exit").is_well()).await;
    proxy.set_faults(ProxyFaults::default());
    until("a check finds it well", || stats(&connector, "exit").is_well()).await;
}

#[tokio::test]
async fn without_a_destination_a_check_makes_a_spare() {
    let (proxy, _echo, connector) = checked(SECOND, false).await;
    until("more are greeted than are kept", || proxy.counters().greeted >= 6).await;
    assert_eq!((proxy.counters().connects, stats(&connector, "exit").failed), (0, 0));
}

#[tokio::test]
async fn nothing_is_checked_where_the_interval_is_zero() {
    let (often, _, _first) = checked(SECOND, true).await;
    let (never, _, _second) = checked(Duration::ZERO, true).await;
    until("the other is checked", || often.counters().connects >= 2).await;
    assert_eq!(never.counters().connects, 0);
}
