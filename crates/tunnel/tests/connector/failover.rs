//! Which upstream is tried when, and what counts against it.

use keepwarm_lab::ProxyFaults;
use keepwarm_tunnel::{ErrorKind, config::BreakerSettings};

use super::*;

/// Two upstreams, the second a backup of the first.
async fn two(change: impl FnOnce(&mut TunnelConfig)) -> ([ProxyLab; 2], EchoLab, Connector) {
    let proxies = [ProxyLab::start(with_password()).await.unwrap(), ProxyLab::start(with_password()).await.unwrap()];
    let echo = EchoLab::start(1).await.unwrap();
    let mut config = group(vec![upstream("first", &proxies[0]), upstream("second", &proxies[1])]);
    change(&mut config);
    let connector = start(config);
    until("spares are made", || ["first", "second"].iter().all(|name| idle(&connector, name) > 0)).await;
    (proxies, echo, connector)
}

async fn served_by(connector: &Connector, echo: &EchoLab) -> String {
    proved(connector, echo, 0).await.unwrap().trace().upstream.to_string()
}

#[tokio::test]
async fn what_the_destination_says_is_told_and_no_proxy_is_blamed_for_it() {
    for (code, kind) in [(3, ErrorKind::NetworkUnreachable), (4, ErrorKind::HostUnreachable), (5, ErrorKind::Refused)] {
        let (proxies, echo, connector) = two(|_| ()).await;
        proxies[0].update_faults(|faults| faults.reply = Some(code));
        for _ in 0..5 {
            let error = connector.connect(&Target::from(echo.addr(0))).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
        }
        assert_eq!(proxies[1].counters().connects, 0, "another proxy would not reach it either");
        let first = stats(&connector, "first");
        assert_eq!((first.failed, first.refused, first.is_well()), (0, 5, true));
    }
}

#[tokio::test]
async fn a_proxy_that_declines_is_passed_over_and_not_blamed() {
    for code in [1, 2, 7, 8] {
        let (proxies, echo, connector) = two(|_| ()).await;
        proxies[0].update_faults(|faults| faults.reply = Some(code));
        for _ in 0..5 {
            assert_eq!(served_by(&connector, &echo).await, "second");
        }
        let first = stats(&connector, "first");
        assert_eq!((first.failed, first.is_well()), (0, true), "reply {code}");
        assert_eq!(connector.stats().failovers, 5);
    }
}

#[tokio::test]
async fn all_that_decline_are_asked_and_the_most_telling_word_is_passed_on() {
    let (proxies, echo, connector) = two(|_| ()).await;
    proxies[0].update_faults(|faults| faults.reply = Some(2));
    proxies[1].update_faults(|faults| faults.reply = Some(1));
    let error = connector.connect(&Target::from(echo.addr(0))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Forbidden, "{error}");
    assert!(!error.to_string().contains("s3cret"));
}

#[tokio::test]
async fn a_proxy_that_is_down_is_left_alone_and_taken_back_when_it_was_well_for_long_enough() {
    let breaker = BreakerSettings { open: 300 * MS, open_max: 300 * MS, ..BreakerSettings::default() };
    let (proxies, echo, connector) = two(|config| {
        config.breaker = breaker;
        config.switch_back = Some(SECOND);
    })
    .await;
    assert_eq!(served_by(&connector, &echo).await, "first");
    proxies[0].down();
    proxies[0].reset_open();
    until("its breaker opens, although nobody asks", || !stats(&connector, "first").is_well()).await;
    for _ in 0..20 {
        assert_eq!(served_by(&connector, &echo).await, "second");
    }
    proxies[0].up();
    until("a check finds it well", || stats(&connector, "first").is_well()).await;
    assert_eq!(served_by(&connector, &echo).await, "second", "it is not trusted at once");
    let mut first = false;
    for _ in 0..400 {
        first = served_by(&connector, &echo).await == "first";
        if first {
            break;
        }
        tokio::time::sleep(10 * MS).await;
    }
    assert!(first, "after a second it comes first again");
}

#[tokio::test]
async fn a_wrong_password_is_the_proxys_failure_and_the_text_does_not_have_it() {
    let proxy = ProxyLab::start(with_password()).await.unwrap();
    let echo = EchoLab::start(1).await.unwrap();
    let wrong = Proxy::parse(&format!("socks5://ann:guess@{}", proxy.addr())).unwrap();
    let connector = start(group(vec![UpstreamConfig::new("exit", UpstreamKind::Proxy(Arc::new(wrong)))]));
    let error = connector.connect(&Target::from(echo.addr(0))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Upstream);
    let shown = format!("{error} {error:?} {:?}", connector.stats());
    assert!(shown.contains("does not accept the user and password") && !shown.contains("guess"), "{shown}");
}

#[tokio::test]
async fn when_all_are_left_alone_the_least_bad_is_tried_rather_than_nothing() {
    let breaker = BreakerSettings { failures: 1, open: 60 * SECOND, ..BreakerSettings::default() };
    let (proxies, echo, connector) = two(|config| config.breaker = breaker).await;
    for proxy in &proxies {
        proxy.down();
        proxy.reset_open();
    }
    until("nothing is left", || idle(&connector, "first") + idle(&connector, "second") == 0).await;
    let error = connector.connect(&Target::from(echo.addr(0))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Upstream, "{error}");
    assert!(!stats(&connector, "first").is_well() && !stats(&connector, "second").is_well());
    proxies[1].up();
    assert_eq!(served_by(&connector, &echo).await, "second", "although its pause has not ended");
}

#[tokio::test]
async fn a_proxy_that_falls_silent_is_blamed_once_another_one_reaches_two_destinations() {
    let (proxies, echo, connector) = two(|config| config.timeout = 12 * SECOND).await;
    proxies[0].update_faults(|faults| faults.silent_connect = true);
    assert_eq!(served_by(&connector, &echo).await, "second");
    assert_eq!(stats(&connector, "first").failed, 0, "one destination may not let it in");
    let other = EchoLab::start(1).await.unwrap();
    drop(proved(&connector, &other, 0).await.unwrap());
    let first = stats(&connector, "first");
    assert_eq!(first.failed, 1, "two are a failure");
    assert!(first.hedged >= 1, "a fresh connection was tried beside the silent spare");
}

#[tokio::test]
async fn a_rule_that_rejects_asks_nobody() {
    use keepwarm_tunnel::config::{HostMatch, Match, Rule};
    let matches = vec![Match { host: HostMatch::Below("blocked.test".to_owned()), ports: None }];
    let (proxies, echo, connector) = two(|config| {
        config.rules = vec![Rule { matches, via: Via::Reject, speculate: 0 }];
    })
    .await;
    let error = connector.connect(&Target::new("a.blocked.test", 443).unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert_eq!(proxies[0].counters().connects + proxies[1].counters().connects, 0);
    assert_eq!(connector.stats().failed, [(ErrorKind::Rejected, 1)]);
    assert!(proved(&connector, &echo, 0).await.is_ok());
}

#[tokio::test]
async fn strategies_share_upstreams() {
    use keepwarm_tunnel::config::Strategy;
    let (_proxies, echo, connector) = two(|config| config.strategy = Strategy::RoundRobin).await;
    for _ in 0..10 {
        drop(proved(&connector, &echo, 0).await.unwrap());
    }
    assert_eq!((stats(&connector, "first").tunnels, stats(&connector, "second").tunnels), (5, 5));
    let (_proxies, echo, connector) = two(|config| config.strategy = Strategy::LeastLoaded).await;
    let mut held = Vec::new();
    for _ in 0..6 {
        held.push(proved(&connector, &echo, 0).await.unwrap());
    }
    assert_eq!((stats(&connector, "first").live, stats(&connector, "second").live), (3, 3));
    let (proxies, echo, connector) = two(|config| config.strategy = Strategy::Fastest).await;
    proxies[0].update_faults(|faults| *faults = ProxyFaults { slow_connect: 100 * MS, ..ProxyFaults::default() });
    for _ in 0..20 {
        drop(proved(&connector, &echo, 0).await.unwrap());
    }
    assert!(stats(&connector, "second").tunnels >= 16, "{}", stats(&connector, "second").tunnels);
}

#[tokio::test]
async fn a_proxy_that_reports_a_time_out_has_answered() {
    let (proxies, echo, connector) = two(|_| ()).await;
    proxies[0].update_faults(|faults| faults.reply = Some(6));
    for _ in 0..4 {
        let error = connector.connect(&Target::from(echo.addr(0))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }
    let first = stats(&connector, "first");
    assert_eq!((first.failed, first.is_well(), proxies[1].counters().connects), (0, true, 0));
}

#[tokio::test]
async fn a_time_that_is_short_still_leaves_some_for_the_second_upstream() {
    let (proxies, echo, connector) = two(|config| config.timeout = 4 * SECOND).await;
    proxies[0].update_faults(|faults| faults.silent_connect = true);
    assert_eq!(served_by(&connector, &echo).await, "second");
}

#[tokio::test]
async fn a_proxy_that_ends_what_it_has_greeted_is_given_up_soon() {
    let faults = ProxyFaults { close_idle: Some(Duration::ZERO), ..ProxyFaults::default() };
    let (proxy, echo, connector) = one(ProxySpec { faults, ..with_password() }, 1).await;
    let before = proxy.counters().accepted;
    for _ in 0..3 {
        // A connection may be used in the instant before it ends.
        drop(connector.connect(&Target::from(echo.addr(0))).await);
    }
    assert!(proxy.counters().accepted - before <= 40, "{} connections for three tunnels", proxy.counters().accepted);
}

#[tokio::test]
async fn this_machine_as_a_member_of_a_group_is_never_left_alone() {
    let proxy = ProxyLab::start(with_password()).await.unwrap();
    let echo = EchoLab::start(1).await.unwrap();
    let mut own = UpstreamConfig::new("own", UpstreamKind::Direct);
    own.priority = 0;
    let connector = start(TunnelConfig { timeout: 2 * SECOND, ..group(vec![own, upstream("exit", &proxy)]) });
    // TEST-NET-1: nobody answers there, or there is no route.
    for _ in 0..4 {
        drop(connector.connect(&Target::new("192.0.2.1", 9).unwrap()).await);
    }
    let tunnel = proved(&connector, &echo, 0).await.unwrap();
    assert_eq!(&*tunnel.trace().upstream, "own");
}
