//! What is done ahead of being asked: steps of the handshake, payload, whole tunnels. Only where it was shown to be borne, or a rule says
//! so.

use bytes::Bytes;
use keepwarm_lab::{Pipelining as Bears, ProxyFaults, ProxyPhase};
use keepwarm_tunnel::{
    ConnectOptions, Pipelining,
    config::{HostMatch, Match, Rule},
};
use tokio::net::TcpListener;

use super::*;

/// Answers every request with an empty one.
async fn http_destination() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut read = [0; 1024];
                if stream.read(&mut read).await.is_ok_and(|read| read > 0) {
                    let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
                }
            });
        }
    });
    address
}

fn level(connector: &Connector) -> Pipelining {
    stats(connector, "exit").spares.unwrap().pipelining
}

/// A proxy 20 ms away, with a destination that a canary may connect to.
async fn far(faults: ProxyFaults) -> (ProxyLab, EchoLab, Connector) {
    let proxy = ProxyLab::start(ProxySpec { delay: 20 * MS, faults, ..with_password() }).await.unwrap();
    let mut exit = upstream("exit", &proxy);
    exit.check = Some(Target::from(http_destination().await));
    (proxy, EchoLab::start(1).await.unwrap(), start(group(vec![exit])))
}

#[tokio::test]
async fn a_proxy_that_bears_it_gets_everything_in_one_write_and_payload_with_the_request() {
    let (proxy, echo, connector) = far(ProxyFaults::default()).await;
    drop(proved(&connector, &echo, 0).await.unwrap());
    until("a canary goes through", || level(&connector) == Pipelining::Handshake).await;
    until("a spare is there", || idle(&connector, "exit") > 0).await;
    let early = proxy.counters().payload_early;
    let mut tag = Tagged::random(echo.addr(0));
    let options = ConnectOptions { payload: tag.request(500).into(), ..ConnectOptions::default() };
    let mut tunnel = connector.connect_with(&Target::from(echo.addr(0)), options).await.unwrap();
    let mut answer = vec![0; 500];
    tunnel.read_exact(&mut answer).await.unwrap();
    tag.check(&answer).unwrap();
    assert_eq!(proxy.counters().payload_early, early + 1, "it went with the request");
    connector.flush();
    proxy.update_faults(|faults| faults.max_connections = Some(2));
    drop(tunnel);
    assert_eq!(echo.foreign(), 0);
}

#[tokio::test]
async fn destinations_that_are_silent_keep_no_tunnel_from_being_dialled() {
    let proxy = ProxyLab::start(ProxySpec { delay: 20 * MS, ..with_password() }).await.unwrap();
    let echo = EchoLab::start(1).await.unwrap();
    let mut exit = upstream("exit", &proxy);
    exit.check = Some(Target::from(http_destination().await));
    let mut config = TunnelConfig { timeout: 300 * SECOND, max_per_destination: 100, ..group(vec![exit]) };
    config.pool = PoolConfig { spares: 0, spares_min: 0, connect_timeout: 200 * SECOND, ..config.pool };
    let connector = start(config);
    drop(proved(&connector, &echo, 0).await.unwrap());
    until("a canary goes through", || level(&connector) == Pipelining::Handshake).await;
    proxy.update_faults(|faults| faults.silent_connect = true);
    let asked = proxy.counters().connects;
    let mut silent = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (connector, target) = (connector.clone(), Target::from(echo.addr(0)));
        silent.spawn(async move { connector.connect(&target).await.map(drop) });
    }
    until("all of them are asked for", || proxy.counters().connects == asked + 20).await;
    proxy.set_faults(ProxyFaults::default());
    drop(proved(&connector, &echo, 0).await.unwrap());
    assert!(silent.try_join_next().is_none(), "they still wait");
}

#[tokio::test]
async fn a_payload_that_was_sent_is_not_sent_again() {
    let (proxy, echo, connector) = far(ProxyFaults::default()).await;
    drop(proved(&connector, &echo, 0).await.unwrap());
    until("a canary goes through", || level(&connector) == Pipelining::Handshake).await;
    until("a spare is there", || idle(&connector, "exit") > 0).await;
    proxy.update_faults(|faults| faults.close_at = Some(ProxyPhase::Connect));
    let connects = proxy.counters().connects;
    let options = ConnectOptions { payload: Bytes::from_static(b"once"), ..ConnectOptions::default() };
    let error = connector.connect_with(&Target::from(echo.addr(0)), options).await.unwrap_err();
    assert!(error.to_string().contains("may have arrived"), "{error}");
    assert_eq!((proxy.counters().connects - connects, stats(&connector, "exit").retries), (1, 0));
}

#[tokio::test]
async fn a_proxy_that_does_not_bear_it_is_found_out_by_canaries_alone() {
    for bears in [Bears::Ignores, Bears::Resets] {
        let (proxy, echo, connector) = far(ProxyFaults { pipelining: bears, ..ProxyFaults::default() }).await;
        drop(proved(&connector, &echo, 0).await.unwrap());
        until("a canary tries", || proxy.counters().pipelined > 0).await;
        for _ in 0..10 {
            let mut tag = Tagged::random(echo.addr(0));
            let options = ConnectOptions { payload: tag.request(50).into(), ..ConnectOptions::default() };
            let mut tunnel = connector.connect_with(&Target::from(echo.addr(0)), options).await.unwrap();
            let mut answer = vec![0; 50];
            tunnel.read_exact(&mut answer).await.unwrap();
            tag.check(&answer).unwrap();
        }
        assert_eq!(level(&connector), Pipelining::None, "{bears:?}");
        assert_eq!(proxy.counters().payload_early, 0, "{bears:?}: no client's bytes were risked");
        let exit = stats(&connector, "exit");
        assert_eq!((exit.failed, exit.is_well()), (0, true), "{bears:?}: it is not held against it");
    }
}

#[tokio::test]
async fn a_proxy_that_ceases_to_bear_it_is_asked_step_by_step_again() {
    for ceases in [Bears::Resets, Bears::Ignores] {
        let proxy = ProxyLab::start(ProxySpec { delay: 20 * MS, ..with_password() }).await.unwrap();
        let echo = EchoLab::start(1).await.unwrap();
        let mut exit = upstream("exit", &proxy);
        exit.check = Some(Target::from(http_destination().await));
        let mut config = group(vec![exit]);
        config.pool.connect_timeout = SECOND;
        let connector = start(TunnelConfig { timeout: 20 * SECOND, ..config });
        drop(proved(&connector, &echo, 0).await.unwrap());
        until("a canary goes through", || level(&connector) == Pipelining::Handshake).await;
        proxy.update_faults(|faults| faults.pipelining = ceases);
        connector.flush();
        let mut failed = 0;
        for _ in 0..10 {
            failed += u32::from(proved(&connector, &echo, 0).await.is_err());
        }
        // Where bytes are lost without a word, the first tunnels may find no time left to begin anew.
        assert!(failed <= if ceases == Bears::Resets { 0 } else { 4 }, "{ceases:?}: {failed} failed");
        assert_eq!(level(&connector), Pipelining::None, "{ceases:?}");
        assert!(proved(&connector, &echo, 0).await.is_ok());
    }
}

#[tokio::test]
async fn on_a_short_way_nothing_is_sent_ahead() {
    let (proxy, echo, connector) = one(with_password(), 1).await;
    drop(proved(&connector, &echo, 0).await.unwrap());
    tokio::time::sleep(2500 * MS).await;
    assert_eq!((level(&connector), proxy.counters().pipelined), (Pipelining::None, 0));
}

#[tokio::test]
async fn a_rule_opens_tunnels_to_a_hot_destination_ahead_and_closes_them_soon() {
    let proxy = ProxyLab::start(with_password()).await.unwrap();
    let echo = EchoLab::start(2).await.unwrap();
    let port = echo.addr(0).port();
    let rule = Rule {
        matches: vec![Match { host: HostMatch::Any, ports: Some(port..=port) }],
        via: Via::Upstream("exit".into()),
        speculate: 2,
    };
    let connector = start(TunnelConfig { rules: vec![rule], ..group(vec![upstream("exit", &proxy)]) });
    for _ in 0..2 {
        drop(proved(&connector, &echo, 0).await.unwrap());
    }
    assert_eq!(connector.stats().opened_ahead, 0, "two uses are not hot");
    drop(proved(&connector, &echo, 0).await.unwrap());
    until("two are opened ahead", || connector.stats().ready == 2).await;
    assert_eq!(connector.stats().live, 2, "they count as live: they hold their permits");
    let tunnel = proved(&connector, &echo, 0).await.unwrap();
    assert!(tunnel.trace().ready);
    assert_eq!(connector.stats().ready_used, 1);
    until("the used one is replaced", || connector.stats().ready == 2).await;
    echo.reset_open(0);
    until("one that its peer ends is given up", || connector.stats().ready == 0).await;
    drop(tunnel);
    drop(proved(&connector, &echo, 0).await.unwrap());
    until("two again", || connector.stats().ready == 2).await;
    until("nobody wanted them", || connector.stats().ready == 0).await;
    for _ in 0..5 {
        drop(proved(&connector, &echo, 1).await.unwrap());
    }
    assert_eq!(connector.stats().ready, 0, "no rule speaks of the other port");
    assert_eq!((connector.stats().live, echo.foreign()), (0, 0));
}

#[tokio::test]
async fn a_tunnel_that_a_caller_vouches_for_serves_again() {
    let (proxy, echo, connector) = one(with_password(), 1).await;
    let (address, target) = (echo.addr(0), Target::from(echo.addr(0)));
    let mut tag = Tagged::random(address);
    let mut tunnel = connector.connect(&target).await.unwrap();
    for _ in 0..5 {
        exchange(&mut tunnel, &mut tag, 30).await;
        connector.release_clean(tunnel);
        tunnel = connector.connect(&target).await.unwrap();
        assert!(tunnel.trace().ready);
    }
    assert_eq!((proxy.counters().connects, connector.stats().live), (1, 1));
    // Of two, one is held back by nobody: a tunnel that others wait for is closed, and its permit passed on.
    drop(tunnel);
    until("it is closed", || connector.stats().live == 0).await;
}

#[tokio::test]
async fn a_payload_is_written_once_when_the_tunnel_is_there() {
    let (proxy, echo, connector) = one(with_password(), 1).await;
    let mut tag = Tagged::random(echo.addr(0));
    let payload = Bytes::from(tag.request(500));
    let options = ConnectOptions { payload, ..ConnectOptions::default() };
    let mut tunnel = connector.connect_with(&Target::from(echo.addr(0)), options).await.unwrap();
    let mut answer = vec![0; 500];
    tunnel.read_exact(&mut answer).await.unwrap();
    tag.check(&answer).unwrap();
    assert_eq!((proxy.counters().payload_early, echo.foreign()), (0, 0), "nothing is assumed of this proxy");
}
