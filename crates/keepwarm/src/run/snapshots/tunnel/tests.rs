use std::sync::Arc;

use keepwarm_lab::{EchoLab, ProxyLab, ProxySpec};
use keepwarm_transport::{
    proxy::{Proxy, Target},
    resolve::SystemResolver,
};
use keepwarm_tunnel::{
    Connector, Server,
    config::{TunnelConfig, UpstreamConfig, UpstreamKind, User, Via},
};

use super::*;

const MS: Duration = Duration::from_millis(1);

#[test]
fn times_are_those_of_the_buckets() {
    let mut histogram = Histogram::default();
    assert_eq!(times(&histogram), TimesRow::default());
    for millis in [10, 20, 30, 40, 1000] {
        histogram.record(millis * MS);
    }
    let row = times(&histogram);
    assert_eq!((row.count, row.max), (5, Some(1000 * MS)));
    let within = |time: Option<Duration>, exact: Duration, above: f64, below: f64| {
        let share = time.unwrap().as_secs_f64() / exact.as_secs_f64();
        assert!((1.0 - below..=1.0 + above).contains(&share), "{time:?} is not about {exact:?}");
    };
    within(row.p50, 30 * MS, 0.25, 0.0);
    within(row.mean, 220 * MS, 0.13, 0.13);
}

#[test]
fn a_breaker_that_is_open_says_for_how_long() {
    let now = tokio::time::Instant::now().into_std();
    assert_eq!(breaker(&health::BreakerState::Closed, now), (BreakerState::Closed, None));
    let open = health::BreakerState::Open { until: now + 70 * MS };
    assert_eq!(breaker(&open, now), (BreakerState::Open, Some(70 * MS)));
    assert_eq!(breaker(&open, now + 90 * MS), (BreakerState::Open, Some(Duration::ZERO)));
    let half = health::BreakerState::HalfOpen { successes: 0, probe: None };
    assert_eq!(breaker(&half, now), (BreakerState::HalfOpen, None));
}

fn settings(proxy: &ProxyLab) -> TunnelConfig {
    let url = format!("socks5://ann:s3cret@{}", proxy.addr());
    let exit = UpstreamConfig::new("exit", UpstreamKind::Proxy(Arc::new(Proxy::parse(&url).unwrap())));
    let mut config =
        TunnelConfig { upstreams: vec![exit], default: Via::Upstream("exit".into()), ..TunnelConfig::default() };
    (config.pool.spares, config.pool.spares_min, config.pool.spares_max) = (2, 2, 2);
    config
}

async fn lab() -> (ProxyLab, EchoLab) {
    let credential = Some(("ann".to_owned(), "s3cret".to_owned()));
    let proxy = ProxyLab::start(ProxySpec { credential, ..ProxySpec::default() }).await.unwrap();
    (proxy, EchoLab::start(1).await.unwrap())
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        tokio::time::sleep(10 * MS).await;
    }
    panic!("not within ten seconds: {what}");
}

#[tokio::test]
async fn what_is_shown_is_what_the_proxy_counted_and_no_credential_is_in_it() {
    let (proxy, echo) = lab().await;
    let connector = Connector::new(settings(&proxy), Arc::new(SystemResolver::default())).unwrap();
    let tunnels = Tunnels(TunnelView { connector: connector.clone(), server: None });
    let spares = |tunnels: &Tunnels| tunnels.status().upstreams[0].spares.clone().unwrap();
    until("two spares", || spares(&tunnels).idle == 2).await;
    let target = Target::new("127.0.0.1", echo.addr(0).port()).unwrap();
    let tunnel = connector.connect(&target).await.unwrap();
    until("its spare is replaced", || proxy.counters().idle == 2 && spares(&tunnels).idle == 2).await;

    let status = tunnels.status();
    assert_eq!((status.asked, status.opened, status.live, status.max), (1, 1, 1, 4096));
    assert_eq!((status.hits, status.misses, status.hit_ratio), (1, 0, Some(1.0)));
    assert_eq!((status.listen.len(), &status.clients, &status.udp), (0, &None, &None));
    let [exit, direct] = &status.upstreams[..] else { panic!("{:?}", status.upstreams) };
    assert_eq!((&*direct.name, &direct.spares, direct.tunnels), ("direct", &None, 0));
    assert_eq!((&*exit.name, exit.address.clone()), ("exit", format!("socks5://{}", proxy.addr())));
    assert_eq!((exit.tunnels, exit.live, exit.ready.count, exit.breaker), (1, 1, 1, BreakerState::Closed));
    let kept = exit.spares.as_ref().unwrap();
    assert_eq!((kept.target, kept.max, kept.idle, kept.opened), (2, 2, 2, proxy.counters().greeted));
    assert_eq!((kept.ages.count, kept.dials.count, &*kept.pipelining), (1, 3, "none"));
    let destination = DestinationRow { destination: target.to_string(), live: 1, max: 10, waiting: 0, total: 1 };
    assert_eq!(tunnels.destinations(), [destination]);
    let json = serde_json::to_string(&status).unwrap();
    assert!(!json.contains("ann") && !json.contains("s3cret"), "{json}");

    let mut stats = Stats::default();
    tunnels.count(&mut stats);
    let counted = |name: &str| stats.counters[name];
    assert_eq!((counted("tunnel_opened"), counted("tunnel_live"), counted("tunnel_spares")), (1, 1, 2));
    assert!(!stats.counters.contains_key("tunnel_clients"), "{:?}", stats.counters);

    assert_eq!(tunnels.flush(), 2);
    until("both are closed, and two new ones are there", || {
        let (seen, kept) = (proxy.counters(), spares(&tunnels));
        seen.greeted == 5 && seen.idle == 2 && kept.idle == 2 && kept.opened == 5
    })
    .await;
    assert_eq!(proxy.counters().live, 1, "a live tunnel is none of it");
    drop(tunnel);
    connector.close().await;
}

#[tokio::test]
async fn listeners_are_told_by_what_they_speak() {
    let (proxy, _echo) = lab().await;
    let address = ([127, 0, 0, 1], 0).into();
    let kinds = [
        ListenKind::Mixed,
        ListenKind::Socks,
        ListenKind::Http,
        ListenKind::Forward(Target::new("db.test", 5432).unwrap()),
    ];
    let listen: Vec<_> = kinds.into_iter().map(|kind| Listen { address, kind }).collect();
    let mut config = TunnelConfig { listen, ..settings(&proxy) };
    config.udp.enabled = false;
    let connector = Connector::new(config, Arc::new(SystemResolver::default())).unwrap();
    let server = Server::bind(connector.clone()).unwrap();
    let tunnels = Tunnels(TunnelView { connector, server: Some(server.watch()) });
    let [mixed, socks, http, forward] = server.addresses() else { panic!("four listeners") };
    let mut stats = Stats::default();
    tunnels.count(&mut stats);
    let wanted = [
        format!("socks5://{mixed}"),
        format!("http://{mixed}"),
        format!("socks5://{socks}"),
        format!("http://{http}"),
        format!("forward://{forward}"),
    ];
    assert_eq!(stats.listen, wanted);
    let status = tunnels.status();
    assert_eq!(status.listen[3].target.as_deref(), Some("db.test:5432"));
    assert_eq!((status.clients.unwrap().max, status.udp), (4096, None));
    assert!(tunnels.pac().unwrap().contains(&format!("SOCKS5 {mixed}; PROXY {mixed}; SOCKS5 {socks}; PROXY {http}")));
    assert_eq!(tunnels.tunnels(), []);
}

#[tokio::test]
async fn with_users_a_browser_is_led_to_http_alone() {
    let (proxy, _echo) = lab().await;
    let listen = vec![Listen { address: ([127, 0, 0, 1], 0).into(), kind: ListenKind::Socks }];
    let users = vec![User { name: "bob".into(), password: "pw".into() }];
    let config = TunnelConfig { listen, users, ..settings(&proxy) };
    let connector = Connector::new(config, Arc::new(SystemResolver::default())).unwrap();
    let server = Server::bind(connector.clone()).unwrap();
    let tunnels = Tunnels(TunnelView { connector, server: Some(server.watch()) });
    assert_eq!(tunnels.pac(), None);
}
