//! Not one byte of a tunnel gets into another, whatever is cancelled when.

use keepwarm_lab::{ProxyClose, ProxyFaults};
use rand::RngExt as _;

use super::*;

/// Many clients at random: they connect, exchange, give up in every phase, and leave bytes behind. `KEEPWARM_LEASES` says how many.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_leases_with_cancellations_never_cross() {
    let leases: usize = std::env::var("KEEPWARM_LEASES").map_or(6000, |count| count.parse().expect("a number"));
    let faults = ProxyFaults { close_idle: Some(700 * MS), close_kind: ProxyClose::Reset, ..ProxyFaults::default() };
    let proxies = [
        ProxyLab::start(with_password()).await.unwrap(),
        ProxyLab::start(ProxySpec { faults, ..with_password() }).await.unwrap(),
    ];
    let echo = EchoLab::start(50).await.unwrap();
    let mut config = group(vec![upstream("a", &proxies[0]), upstream("b", &proxies[1])]);
    config.strategy = keepwarm_tunnel::config::Strategy::RoundRobin;
    config.pool = PoolConfig { spares: 8, spares_min: 8, spares_max: 32, ..config.pool };
    let connector = start(config);
    let clients = 64;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..clients {
        let (connector, addrs) = (connector.clone(), echo.addrs());
        tasks.spawn(async move {
            let mut done = [0_u64; 3];
            for _ in 0..leases / clients {
                let address = addrs[rand::rng().random_range(0..addrs.len())];
                done[lease(&connector, address).await] += 1;
            }
            done
        });
    }
    let done = tasks.join_all().await.into_iter().fold([0; 3], |sum, done| [0, 1, 2].map(|at| sum[at] + done[at]));
    println!("{leases} leases: {} whole, {} left in the middle, {} cancelled", done[0], done[1], done[2]);
    assert!(done.iter().all(|count| *count > 0), "every phase was reached: {done:?}");
    until("tunnels end", || connector.stats().live == 0).await;
    let stats = connector.stats();
    assert_eq!((stats.waiting, stats.destinations.len()), (0, 0), "permits are exact");
    for upstream in &stats.upstreams {
        assert_eq!(upstream.live, 0, "{}", upstream.name);
    }
    let made: u64 = stats.upstreams.iter().map(|upstream| upstream.tunnels).sum();
    assert!(stats.opened <= made && stats.opened >= done[0] + done[1], "{} of {made}", stats.opened);
    assert!(stats.failed.is_empty(), "{:?}", stats.failed);
    assert_eq!(echo.foreign(), 0, "not one byte crossed");
    until("proxies have no tunnel left", || proxies.iter().all(|proxy| proxy.counters().live == 0)).await;
    connector.close().await;
}

/// One tunnel and what it ends as: whole, left in the middle, or cancelled before it was there.
async fn lease(connector: &Connector, address: std::net::SocketAddr) -> usize {
    let target = Target::from(address);
    let patience = Duration::from_micros(rand::rng().random_range(0..4000));
    let connecting = connector.connect(&target);
    let hasty = rand::rng().random_ratio(1, 3);
    let tunnel = if hasty { tokio::time::timeout(patience, connecting).await.ok() } else { Some(connecting.await) };
    let Some(tunnel) = tunnel else { return 2 };
    let mut tunnel = tunnel.unwrap();
    let mut tag = Tagged::random(address);
    let rounds = rand::rng().random_range(1..4);
    for _ in 0..rounds {
        let length = rand::rng().random_range(1..2000);
        let leaves = rand::rng().random_ratio(1, 5);
        if leaves {
            // Bytes are on their way in both directions when it is dropped.
            tunnel.write_all(&tag.request(length)).await.unwrap();
            return 1;
        }
        exchange(&mut tunnel, &mut tag, length).await;
    }
    0
}
