//! `keepwarm tunnels` and `keepwarm pools`.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use keepwarm_control::{
    client,
    rows::Flushed,
    tunnel::{LiveRow, TunnelFlushRequest},
};
use serde_json::Value;

use super::support::*;
use crate::{
    https::support::run,
    support::{free_address, keepwarm},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upstreams_destinations_and_live_tunnels_are_shown() {
    let daemon = Bench::new("").await.start().await;
    let (mut stream, mut tagged) = daemon.tunnel().await;
    say(&mut stream, &mut tagged, 1000).await;
    let place = format!("{ECHO}:{}", daemon.bench.echo.addr(0).port());

    let shown = daemon.printed(&["tunnels"]).await;
    let proxy = format!("socks5://{}", daemon.bench.proxy.addr());
    for part in ["1 of 448 live", "UPSTREAM", "exit", &proxy, "well", "DESTINATION", &place, "1/10"] {
        assert!(shown.contains(part), "no `{part}` in\n{shown}");
    }
    assert!(!shown.contains(PASSWORD) && !shown.contains("CLIENT"), "{shown}");

    let client = stream.local_addr().unwrap().to_string();
    let shown = daemon.printed(&["tunnels", "--live"]).await;
    assert!(shown.contains("CLIENT") && shown.contains(&client) && shown.contains("1000 B"), "{shown}");
    let json: Value = serde_json::from_str(&daemon.printed(&["tunnels", "--live", "--json"]).await).unwrap();
    assert_eq!(json["tunnel"]["live"], 1);
    assert_eq!((&json["destinations"][0]["destination"], &json["destinations"][0]["live"]), (&place.into(), &1.into()));
    assert_eq!((&json["tunnels"][0]["client"], &json["tunnels"][0]["received"]), (&client.into(), &1000.into()));
    let csv = daemon.printed(&["tunnels", "-o", "csv"]).await;
    assert!(csv.starts_with("name,address,") && csv.contains(&proxy) && !csv.contains(PASSWORD), "{csv}");
    let csv = daemon.printed(&["tunnels", "--live", "-o", "csv"]).await;
    assert!(csv.starts_with("client,destination,upstream,") && csv.lines().count() == 2, "{csv}");

    let spares = daemon.printed(&["upstreams", "--tunnel"]).await;
    assert!(spares.contains("SPARES") && spares.contains("exit") && !spares.contains("DESTINATION"), "{spares}");
    assert!(!spares.contains(PASSWORD), "{spares}");
    assert_eq!(daemon.printed(&["upstreams", "--dns", "--json"]).await, "[]\n");
    let pools: Value = serde_json::from_str(&daemon.printed(&["pools", "-o", "json"]).await).unwrap();
    assert_eq!(pools[0]["name"], "tunnel.exit");

    drop(stream);
    daemon.until("it has ended", |status| status.live == 0).await;
    let live: Vec<LiveRow> = daemon.page("/api/v1/tunnel/tunnels").await;
    assert_eq!(live, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_replaces_every_spare_and_no_tunnel() {
    let daemon = Bench::new("[tunnel.pool]\nspares = 3\nspares_min = 3\nspares_max = 3").await.start().await;
    daemon.until("three spares", |status| spares(status) == 3).await;
    let (mut stream, mut tagged) = daemon.tunnel().await;
    say(&mut stream, &mut tagged, 10).await;
    daemon.until("three again", |status| spares(status) == 3).await;
    let greeted = daemon.bench.proxy.counters().greeted;
    let request = TunnelFlushRequest::default();
    let flush = client::post::<Flushed>(daemon.bench.control, "/api/v1/tunnel/flush", &request, client::TIMEOUT);
    assert_eq!(flush.await.unwrap(), Flushed { flushed: 3 });
    let opened = |status: &keepwarm_control::tunnel::TunnelStatus| exit(status).spares.as_ref().unwrap().opened;
    daemon.until("three new ones", |status| spares(status) == 3 && opened(status) == greeted + 3).await;
    say(&mut stream, &mut tagged, 10).await;
    let seen = daemon.bench.proxy.counters();
    assert_eq!((seen.greeted, seen.live, daemon.bench.echo.foreign()), (greeted + 3, 1, 0));
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_goes_on_until_ctrl_c_and_ends_well() {
    let daemon = Bench::new("").await.start().await;
    let control = daemon.bench.control.to_string();
    let mut command = keepwarm();
    command.args(["tunnels", "--watch", "1", "--json", "--control", &control]).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let stdout = child.stdout.take().unwrap();
    let status = tokio::task::spawn_blocking(move || {
        let mut lines = BufReader::new(stdout).lines();
        for _ in 0..2 {
            let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
            assert_eq!(line["tunnel"]["upstreams"][0]["name"], "exit");
        }
        signal(&child, "INT");
        child.wait().unwrap()
    });
    assert_eq!(status.await.unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_no_tunnels_is_told_so() {
    let nobody = free_address().to_string();
    for flags in [&["tunnels"][..], &["tunnels", "--watch"]] {
        let (code, _, stderr) = run([flags, &["--control", &nobody]].concat()).await;
        assert_eq!(code, Some(3), "{stderr}");
        assert!(stderr.contains("no keepwarm daemon at"), "{stderr}");
    }
    let daemon = crate::support::Daemon::start("udp").await;
    let control = daemon.control.to_string();
    let (code, stdout, stderr) = run(vec!["tunnels", "--control", &control]).await;
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
    assert!(stderr.contains("the daemon's config has no [tunnel]"), "{stderr}");
    let (code, stdout, stderr) = run(vec!["upstreams", "--tunnel", "--control", &control]).await;
    assert_eq!((code, stdout.as_str()), (Some(0), "no upstreams of tunnels\n"), "{stderr}");
    let (code, stdout, stderr) = run(vec!["pools", "--control", &control]).await;
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("dns.udp") && !stdout.contains("tunnel."), "{stdout}");
}
