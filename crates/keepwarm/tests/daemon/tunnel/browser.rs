//! Chromium that is led to the listener by the file from the status endpoint.

use super::support::*;
use crate::interop::{
    browser::Page,
    gateway::PAGE,
    program::{has, output},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chromium_finds_the_listener_by_the_pac_file() {
    if !has("chromium", "chromium") {
        return;
    }
    let bench = Bench::new("").await;
    let page = Page::serve().await;
    bench.proxy.pin(PAGE, ([127, 0, 0, 1], page.port()).into());
    let daemon = bench.start().await;
    let (control, folder) = (daemon.bench.control, daemon.bench.folder.path());
    let home = folder.join("home");
    std::fs::create_dir(&home).unwrap();
    let mut chromium = tokio::process::Command::new("chromium");
    chromium.env("HOME", &home).env_remove("XDG_DATA_HOME").env_remove("XDG_CONFIG_HOME").args(FLAGS);
    chromium.arg(format!("--user-data-dir={}", folder.join("profile").display()));
    chromium.arg(format!("--proxy-pac-url=http://{control}/proxy.pac")).args(["--dump-dom", &page.url()]);
    let (_, shown) = output(&mut chromium).await;
    assert!(shown.contains(Page::TITLE), "{shown}");
    println!("{}", crate::interop::gateway::version("chromium", "--version"));
    // The name is one that only the proxy knows, and it was asked for by SOCKS5, which the file has first.
    let seen = daemon.bench.proxy.counters();
    assert!(seen.destinations[&format!("{PAGE}:{}", page.port())].total >= 1, "{seen:?}");
    assert!(daemon.status().await.clients.unwrap().socks5 >= 1);
}

/// Without a window, and without what it would do on its own in the background. Its sandbox refuses to run as root.
const FLAGS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
];
