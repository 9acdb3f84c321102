//! Another config again and again, while clients are served.
//!
//! As many reloads as `PROOF_RELOADS` says, 60 without it, under as many queries a second as `PROOF_RATE` says, 1,000 without it.

use std::time::Duration;

use keepwarm_control::{
    client::{self, ClientError},
    rows::{ReloadRow, StatusRow},
};

use super::{load::Load, support::Plane};
use crate::tunnel::support::say;

const PATIENCE: Duration = Duration::from_secs(30);

async fn reload(plane: &Plane) -> Result<ReloadRow, ClientError> {
    client::post(plane.control, "/api/v1/reload", &serde_json::json!({}), PATIENCE).await
}

/// One of two configs: the upstream `turns` leads to one lab or the other, times and the cache differ, and an exit comes and goes.
fn variant(plane: &Plane, odd: bool) -> String {
    let keeps = plane.upstream("keeps", "tcp", 0);
    let turns = plane.upstream("turns", "tcp", usize::from(odd));
    let (size, max_ttl) = if odd { ("1MiB", "1h") } else { ("2MiB", "2h") };
    let dns = format!("[dns.cache]\nsize = \"{size}\"\nmax_ttl = \"{max_ttl}\"\n{keeps}{turns}");
    let other =
        format!("[[tunnel.upstream]]\nname = \"other\"\naddress = \"socks5://{}\"\npriority = 2\n", plane.proxy.addr());
    let tunnel = if odd { plane.exit() + &other } else { plane.exit() };
    plane.config(&dns, &tunnel)
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_under_load_fail_nobody_and_leave_nothing_behind() {
    let (reloads, rate) = (number("PROOF_RELOADS", 60), number("PROOF_RATE", 1000));
    let mut plane = Plane::new(Duration::ZERO).await;
    plane.start(&variant(&plane, false)).await;
    let load = Load::start(plane.dns, rate);
    let mut tunnels = Vec::new();
    for _ in 0..4 {
        tunnels.push(plane.tunnel().await);
    }
    let turn = async |index: u64| {
        plane.write(&variant(&plane, index % 2 == 1));
        let row = reload(&plane).await.unwrap();
        assert!(row.needs_restart.is_empty(), "{row:?}");
        assert!(row.kept.contains(&"dns.upstream.keeps".to_owned()), "{row:?}");
        assert!(row.kept.contains(&"tunnel.upstream.exit".to_owned()), "{row:?}");
        assert!(row.drained.iter().any(|drained| drained.name == "dns.upstream.turns"), "{row:?}");
    };
    // What grows once (allocator, caches, histograms) has grown before it is measured.
    for index in 1..=20 {
        turn(index).await;
    }
    let ids = plane.connections("dns", "keeps").await;
    assert!(!ids.is_empty());
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = plane.usage();
    for index in 1..=reloads {
        turn(index).await;
        let which = usize::try_from(index).unwrap() % tunnels.len();
        let (stream, tagged) = &mut tunnels[which];
        say(stream, tagged, 1000).await;
    }
    plane.write(&variant(&plane, false));
    reload(&plane).await.unwrap();
    let still = plane.connections("dns", "keeps").await;
    let outcome = load.stop().await;
    println!("{reloads} reloads: {outcome:?}");
    assert_eq!((outcome.answered, outcome.wrong), (outcome.asked, 0), "{outcome:?}");
    assert!(outcome.asked > 1000, "{outcome:?}");
    assert!(
        ids.iter().all(|id| still.contains(id)),
        "connections of an upstream that stays were closed: {ids:?} {still:?}"
    );
    for (stream, tagged) in &mut tunnels {
        say(stream, tagged, 10_000).await;
    }
    let status: StatusRow = client::get(plane.control, "/api/v1/status").await.unwrap();
    assert_eq!(status.config.generation, reloads + 22);
    // What was drained ends once nobody uses it, and threads that read files end when they had nothing to do for ten seconds.
    let mut after = plane.usage();
    for _ in 0..60 {
        if after.threads <= before.threads && after.files <= before.files + 4 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        after = plane.usage();
    }
    println!("{before:?} -> {after:?}");
    assert!(after.threads <= before.threads && after.files <= before.files + 4, "{before:?} {after:?}");
    let grown = after.memory_kib.saturating_sub(before.memory_kib);
    assert!(grown < 4096 + usize::try_from(reloads).unwrap(), "{grown} KiB more: {before:?} {after:?}");
}

#[tokio::test]
async fn a_bad_config_changes_nothing_and_says_where() {
    let mut plane = Plane::new(Duration::ZERO).await;
    plane.start(&variant(&plane, false)).await;
    drop(plane.tunnel().await);
    let ids = plane.connections("dns", "keeps").await;
    let good = variant(&plane, true);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap();
    for (what, config, wanted) in [
        ("not TOML", good.replace("version = 1", "version = "), "not TOML"),
        ("an unknown key", good.replace("timeout =", "timeuot ="), "did you mean"),
        ("a route that leads nowhere", good.clone() + "[[tunnel.rule]]\nmatch = [\"*\"]\nvia = \"nobody\"\n", "nobody"),
        // It is found out when everything else is built already.
        ("a port that is taken", good.replace(&plane.socks.to_string(), &port.to_string()), "tunnel.listen"),
    ] {
        plane.write(&config);
        let error = reload(&plane).await.unwrap_err();
        assert!(matches!(error, ClientError::Refused { status: 422, .. }), "{what}: {error}");
        assert!(error.to_string().contains(wanted), "{what}: {error}");
        let status: StatusRow = client::get(plane.control, "/api/v1/status").await.unwrap();
        assert_eq!(status.config.generation, 1, "{what}");
        assert!(status.config.last_error.unwrap().contains(wanted), "{what}");
        assert_eq!(plane.connections("dns", "keeps").await, ids, "{what}");
        assert!(plane.connections("dns", "turns").await.len() < 2, "{what}");
        drop(plane.tunnel().await);
    }
    plane.write(&good);
    let row = reload(&plane).await.unwrap();
    assert_eq!(row.generation, 2);
    assert!(row.added.contains(&"tunnel.upstream.other".to_owned()), "{row:?}");
    let address = row.differences.iter().find(|difference| difference.path == "dns.upstream.turns.address").unwrap();
    assert!(address.from.as_ref().unwrap().contains("tcp://") && address.to != address.from, "{row:?}");
    let status: StatusRow = client::get(plane.control, "/api/v1/status").await.unwrap();
    assert_eq!(status.config.last_error, None);
}

#[cfg(unix)]
#[tokio::test]
async fn a_hangup_and_a_changed_file_are_reloads() {
    let mut plane = Plane::new(Duration::ZERO).await;
    let watching = |odd| variant(&plane, odd).replace("[control]\n", "[control]\nwatch = true\n");
    let (first, second) = (watching(false), watching(true));
    plane.start(&first).await;
    let generation = async |wanted: u64| {
        for _ in 0..500 {
            let status: StatusRow = client::get(plane.control, "/api/v1/status").await.unwrap();
            if status.config.generation == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("no config {wanted} within ten seconds");
    };
    let hangup = std::process::Command::new("kill").args(["-s", "HUP", &plane.pid().to_string()]).status().unwrap();
    assert!(hangup.success());
    generation(2).await;
    plane.write(&second);
    generation(3).await;
    let pools = plane.connections("tunnel.other", "").await;
    println!("the exit that came has {} spares", pools.len());
}
