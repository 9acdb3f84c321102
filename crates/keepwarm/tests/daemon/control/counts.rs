//! What the API and the metrics say is what the other side counted.

use std::{collections::BTreeMap, time::Duration};

use keepwarm_control::{
    client,
    rows::{DnsUpstreamRow, PoolRow, UpstreamRow},
    tunnel::TunnelStatus,
};

use super::{load::Load, support::Plane};
use crate::{https::support::get, tunnel::support::say};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_count_is_what_the_lab_counted() {
    let mut plane = Plane::new(Duration::ZERO).await;
    let upstreams: String =
        ["udp", "tcp", "tls", "https"].iter().map(|scheme| plane.upstream(scheme, scheme, 0)).collect();
    let dns = format!("[dns.cache]\nsize = \"0\"\n{upstreams}");
    plane.start(&plane.config(&dns, &plane.exit())).await;
    let load = Load::start(plane.dns, 300);
    for _ in 0..10 {
        let (mut stream, mut tagged) = plane.tunnel().await;
        say(&mut stream, &mut tagged, 5000).await;
        let path = format!("/https/{}:{}/bytes/1000", plane.origin.host(), plane.origin.port());
        assert_eq!(get(plane.gateway, &path).await.status(), 200);
    }
    let outcome = load.stop().await;
    assert_eq!((outcome.answered, outcome.wrong), (outcome.asked, 0), "{outcome:?}");
    // Connections that end are counted by both sides once both have seen it.
    tokio::time::sleep(Duration::from_millis(500)).await;

    let rows: Vec<DnsUpstreamRow> = client::get(plane.control, "/api/v1/dns/upstreams").await.unwrap();
    let lab = plane.labs[0].counters();
    let mut asked = 0;
    // The upstream over UDP has a way over TCP too, which nothing took.
    let (rows, others): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.transport == row.upstream);
    assert!(others.iter().all(|row| row.queries + row.opened == 0), "{others:?}");
    for row in &rows {
        let counted = match row.upstream.as_str() {
            "udp" => &lab.udp,
            "tcp" => &lab.tcp,
            "tls" => &lab.tls,
            _ => &lab.https,
        };
        let name = &row.upstream;
        assert_eq!((row.queries, row.answers), (counted.queries, counted.answers), "{name}");
        asked += row.queries;
        if row.transport != "udp" {
            assert_eq!((row.opened, row.open), (counted.accepted, counted.open), "{name}");
            assert_eq!(row.handshakes_full, counted.handshakes_full, "{name}");
            assert_eq!(row.handshakes_resumed, counted.handshakes_resumed, "{name}");
        } else {
            assert_eq!(row.opened, counted.sockets, "{name}");
        }
    }
    assert_eq!(asked, outcome.asked, "round-robin asks each name once");

    let tunnel: TunnelStatus = client::get(plane.control, "/api/v1/tunnel").await.unwrap();
    let exit = &tunnel.upstreams[0];
    let proxy = plane.proxy.counters();
    assert_eq!((exit.tunnels, tunnel.opened), (proxy.connects_ok, 10));
    assert_eq!(exit.spares.as_ref().unwrap().opened, proxy.accepted);
    assert_eq!(exit.spares.as_ref().unwrap().idle, proxy.idle);

    let origin = plane.origin.total();
    let upstreams: Vec<UpstreamRow> = client::get(plane.control, "/api/v1/upstreams").await.unwrap();
    let tiles = upstreams.iter().find(|row| row.name.starts_with("tiles.example")).unwrap();
    assert_eq!((tiles.requests, tiles.failures, tiles.open), (10, 0, origin.open));
    assert_eq!(origin.paths["GET /bytes"], 10);

    let pools: Vec<PoolRow> = client::get(plane.control, "/api/v1/pools").await.unwrap();
    for pool in &pools {
        let c = &pool.counters;
        let sum = |counts: &BTreeMap<String, u64>| counts.values().sum::<u64>();
        let ended = c.hits + c.shared_hits + c.waited + sum(&c.timeouts) + c.cancelled + sum(&c.errors);
        assert_eq!(c.acquires, ended + pool.gauges.waiting, "{pool:?}");
        assert_eq!(c.opened, pool.gauges.open + sum(&c.closed), "{pool:?}");
    }
    let of = |name: &str| pools.iter().find(|pool| pool.name == name).unwrap();
    assert_eq!(of("https").counters.opened, origin.accepted);
    assert_eq!(of("dns").counters.opened, lab.tcp.accepted + lab.tls.accepted + lab.https.accepted);

    // The metrics are the same figures.
    let metrics = crate::control::hostile::page(plane.control, "/metrics").await;
    let metric = |line: &str| {
        let line = metrics
            .lines()
            .find_map(|found| found.strip_prefix(line))
            .unwrap_or_else(|| panic!("no {line}: {metrics}"));
        line.trim().parse::<f64>().unwrap()
    };
    let count = |figure: u64| f64::from(u32::try_from(figure).unwrap());
    assert_eq!(metric("keepwarm_dns_queries_total "), count(outcome.asked));
    assert_eq!(metric("keepwarm_pool_opened_total{pool=\"https\"} "), count(origin.accepted));
    assert_eq!(metric("keepwarm_pool_connections{pool=\"dns\",state=\"idle\"} "), count(of("dns").gauges.idle));
}
