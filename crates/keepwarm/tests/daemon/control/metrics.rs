//! The metrics of a running daemon: none is forgotten, and promtool and the page about them agree.

use std::{
    collections::BTreeSet,
    io::Write as _,
    process::{Command, Stdio},
    time::Duration,
};

use keepwarm_control::{
    client,
    metrics::{unknown_counters, unknown_figures},
    rows::{Stats, UpstreamRow},
};

use super::{hostile::page, support::Plane};
use crate::{https::support::get, tunnel::support::say};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_leaves_no_figure_out_and_promtool_has_nothing_to_mend() {
    let mut plane = Plane::new(Duration::ZERO).await;
    let dns = format!("{}{}", plane.upstream("quick", "udp", 0), plane.upstream("safe", "tls", 1));
    plane.start(&plane.config(&dns, &plane.exit())).await;
    let (mut stream, mut tagged) = plane.tunnel().await;
    say(&mut stream, &mut tagged, 1000).await;
    let path = format!("/https/{}:{}/bytes/1000", plane.origin.host(), plane.origin.port());
    assert_eq!(get(plane.gateway, &path).await.status(), 200);

    let stats: Stats = client::get(plane.control, "/api/v1/stats").await.unwrap();
    assert!(stats.counters.len() > 40, "{stats:?}");
    assert_eq!(unknown_counters(&stats), Vec::<&str>::new());
    let upstreams: Vec<UpstreamRow> = client::get(plane.control, "/api/v1/upstreams").await.unwrap();
    assert_eq!(unknown_figures(&upstreams), Vec::<&str>::new());

    let scrape = page(plane.control, "/metrics").await;
    let names: BTreeSet<&str> =
        scrape.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert!(names.len() > 80, "{names:?}");
    let listed = include_str!("../../../../../docs/control/metrics.md");
    for name in names {
        let is_listed =
            listed.lines().any(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])));
        assert!(is_listed, "docs/control/metrics.md has no {name}");
    }

    let promtool =
        Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut promtool) = promtool else {
        println!("SKIPPED: promtool is not installed (Debian: prometheus)");
        return;
    };
    promtool.stdin.take().unwrap().write_all(scrape.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}
