//! curl through the listener, and figures that are those of the proxy behind it.

use super::support::*;
use crate::interop::{
    browser::Page,
    gateway::PAGE,
    program::{has, run},
};

/// A page whose name only the proxy knows.
async fn page(bench: &Bench) -> Page {
    let page = Page::serve().await;
    bench.proxy.pin(PAGE, ([127, 0, 0, 1], page.port()).into());
    page
}

/// curl with these arguments, and what it made of the page.
async fn curl(page: &Page, arguments: &[&str]) -> (bool, String) {
    let always = ["-sS", "--noproxy", "", "--max-time", "20"];
    run("curl", &[&always[..], arguments, &[&page.url()]].concat()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_comes_in_three_ways_and_the_figures_are_those_of_the_proxy() {
    if !has("curl", "curl") {
        return;
    }
    let bench = Bench::new("").await;
    let page = page(&bench).await;
    let daemon = bench.start().await;
    let listen = daemon.bench.listen;
    for way in [
        &["--proxy", &format!("socks5h://{listen}")][..],
        &["--proxy", &format!("http://{listen}")],
        &["--proxy", &format!("http://{listen}"), "--proxytunnel"],
    ] {
        let (ok, shown) = curl(&page, way).await;
        assert!(ok && shown.contains(Page::TITLE), "{way:?}: {shown}");
    }
    let proxy = &daemon.bench.proxy;
    let status = daemon
        .until("all have ended, and what was used is replaced", |status| {
            let kept = exit(status).spares.as_ref().unwrap();
            status.live == 0 && status.clients.as_ref().unwrap().connected == 0 && kept.idle == kept.target
        })
        .await;
    let seen = proxy.counters();
    let row = exit(&status);
    assert_eq!((status.asked, status.opened, row.tunnels), (3, 3, 3));
    assert_eq!((seen.connects, seen.connects_ok, seen.destinations[&host(&page)].total), (3, 3, 3));
    assert_eq!((row.hits + row.misses, row.failed, row.refused), (3, 0, 0));
    let kept = row.spares.as_ref().unwrap();
    assert_eq!((kept.opened, kept.idle), (seen.greeted, seen.idle), "{seen:?}");
    assert_eq!((row.sent, row.received), (seen.sent, seen.received));
    let clients = status.clients.unwrap();
    assert_eq!((clients.accepted, clients.socks5, clients.http), (3, 1, 2));
    assert!(clients.handshakes_failed.is_empty() && status.failed.is_empty());
    let stats: keepwarm_control::rows::Stats = daemon.page("/api/v1/stats").await;
    let counted = |name: &str| stats.counters[name];
    assert_eq!((counted("tunnel_opened"), counted("tunnel_live"), counted("tunnel_received")), (3, 0, seen.received));
    assert_eq!(stats.listen, [format!("socks5://{listen}"), format!("http://{listen}")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_come_in_with_their_password_alone() {
    if !has("curl", "curl") {
        return;
    }
    let bench = Bench::new("[tunnel.users]\nbob = \"s3same\"").await;
    let page = page(&bench).await;
    let daemon = bench.start().await;
    let listen = daemon.bench.listen;
    for scheme in ["socks5h", "http"] {
        let proxy = format!("{scheme}://{listen}");
        for (user, comes_in) in [(Some("bob:s3same"), true), (Some("bob:wr0ng"), false), (None, false)] {
            let user: Vec<&str> = user.iter().flat_map(|user| ["--proxy-user", user]).collect();
            let (_, shown) = curl(&page, &[&["--proxy", &proxy], &user[..]].concat()).await;
            assert_eq!(shown.contains(Page::TITLE), comes_in, "{scheme} {user:?}: {shown}");
        }
    }
    let status = daemon.until("all have left", |status| status.clients.as_ref().unwrap().connected == 0).await;
    let clients = status.clients.unwrap();
    let failed: u64 = clients.handshakes_failed.values().sum();
    assert_eq!((clients.accepted, failed, status.opened), (6, 4, 2), "{:?}", clients.handshakes_failed);
    // A browser cannot say a password to SOCKS5.
    let pac = crate::https::support::get(daemon.bench.control, "/proxy.pac").await;
    let pac = http_body_util::BodyExt::collect(pac.into_body()).await.unwrap().to_bytes();
    let pac = String::from_utf8(pac.to_vec()).unwrap();
    assert!(pac.contains(&format!("\"PROXY {listen}\"")) && !pac.contains("SOCKS5"), "{pac}");
    // Neither the endpoint nor the log has a password of anybody.
    let mut said = String::new();
    for path in ["", "/destinations", "/tunnels"] {
        said += &daemon.page::<serde_json::Value>(&format!("/api/v1/tunnel{path}")).await.to_string();
    }
    daemon.signal("TERM");
    said += &crate::support::text(&daemon.wait().await);
    for secret in [PASSWORD, "s3same", "wr0ng"] {
        assert!(!said.contains(secret), "{said}");
    }
}

/// Host and port of the page, as the proxy counts them.
fn host(page: &Page) -> String {
    format!("{PAGE}:{}", page.port())
}
