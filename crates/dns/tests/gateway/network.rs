//! The network changes under the daemon: within a second it is out of dead connections and back-offs.
//!
//! In a network namespace of its own, with two addresses of which one goes.

use std::{
    env,
    net::Ipv4Addr,
    process::{Command, Stdio},
    time::Duration,
};

use keepwarm_dns::config::Transport;
use keepwarm_lab::{CloseKind, Faults, Lab, LabSpec};
use tokio::time::{Instant, sleep};

use crate::{shortage::rerun, support::*};

/// Loopback with the upstream's address and another one that connections can come from.
const NAMESPACE: [&str; 6] = ["unshare", "--map-root-user", "--net", "sh", "-c", SETUP];
const SETUP: &str =
    r#"ip link set lo up && ip address add 10.9.0.1/32 dev lo && ip address add 10.8.0.1/32 dev lo && exec "$0" "$@""#;

fn ip(arguments: &[&str]) {
    assert!(Command::new("ip").args(arguments).status().unwrap().success(), "ip {arguments:?}");
}

/// Sets the address that connections to the upstream come from.
fn come_from(source: &str) {
    ip(&["route", "replace", "local", "10.9.0.1", "dev", "lo", "src", source, "table", "local"]);
}

fn can_make_one() -> bool {
    let run = Command::new("unshare")
        .args(["--map-root-user", "--net", "sh", "-c", "ip link set lo up && ip address add 10.9.0.1/32 dev lo"])
        .stderr(Stdio::null())
        .status();
    run.is_ok_and(|status| status.success())
}

/// Connections whose address is gone are given up at once, and so is an open breaker: the first query after the change is
/// answered, over a connection from the address that is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_route_flushes_connections_and_back_offs_within_a_second() {
    let name = "network::a_changed_route_flushes_connections_and_back_offs_within_a_second";
    if env::var_os("KEEPWARM_TEST_INNER").is_none() && !can_make_one() {
        println!("SKIPPED {name}: needs `unshare` and `ip` with the right to make a network namespace");
        return;
    }
    if rerun(name, &NAMESPACE) {
        return;
    }
    for transport in [Transport::Tcp, Transport::Tls] {
        let ca = keepwarm_lab::Ca::new();
        let spec = LabSpec { address: Ipv4Addr::new(10, 9, 0, 1).into(), ..LabSpec::default() };
        let labs = vec![Lab::start_with_ca(spec, &ca).await.unwrap()];
        let mut config = config(&labs, &ca, transport);
        config.breaker.open = Duration::from_secs(60);
        let server = keepwarm_dns::server::Server::start(config).unwrap();
        let bench = Bench { address: server.listening()[0].address, server, labs };
        assert_eq!(bench.ask("before.example").await, Ok(()), "{transport:?}");
        assert_eq!(bench.pool(0).open, 1);

        // The upstream cannot be reached for a while: its breaker opens for a minute.
        bench.labs[0].set_faults(Faults { refuse: true, ..Faults::default() });
        bench.labs[0].close_all(CloseKind::Reset);
        for number in 0..4 {
            assert!(bench.ask(&format!("lost{number}.example")).await.is_err(), "{transport:?}");
        }
        assert_eq!(bench.pool(0).breaker, "open", "{transport:?}");
        bench.labs[0].set_faults(Faults::default());

        // A notice that changes no way changes nothing.
        ip(&["address", "add", "10.7.0.1/32", "dev", "lo"]);
        sleep(Duration::from_millis(700)).await;
        assert_eq!((bench.server.status().network_changes, bench.pool(0).breaker), (0, "open"), "{transport:?}");

        come_from("10.8.0.1");
        let changed = Instant::now();
        while bench.server.status().network_changes == 0 {
            assert!(changed.elapsed() < Duration::from_secs(10), "{transport:?}: nothing was noticed");
            sleep(Duration::from_millis(10)).await;
        }
        println!("{transport:?}: noticed after {:?}", changed.elapsed());
        assert_eq!(bench.ask("after.example").await, Ok(()), "{transport:?}");
        assert_eq!(bench.pool(0).breaker, "closed", "{transport:?}");

        ip(&["address", "del", "10.7.0.1/32", "dev", "lo"]);
        come_from("10.9.0.1");
        bench.stop().await;
    }
}

/// What an operator or a platform of its own can tell the server has the same effect.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_of_a_change_the_server_dials_anew() {
    for transport in STREAMS {
        let bench = Bench::plain(transport).await;
        assert_eq!(bench.ask("before.example").await, Ok(()), "{transport:?}");
        let opened = bench.pool(0).opened;
        bench.server.network_changed();
        assert_eq!(bench.ask("after.example").await, Ok(()), "{transport:?}");
        assert!(bench.pool(0).opened > opened, "{transport:?}: a connection of its own");
        assert_eq!(bench.server.status().network_changes, 1);
        bench.stop().await;
    }
}
