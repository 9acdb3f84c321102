//! Chromium with the daemon as its secure DNS.

use std::path::Path;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    process::Command,
    task::AbortHandle,
};

use super::{gateway::*, program::*};

/// A web site of one page, on 127.0.0.1 under the name [`PAGE`]; ends when dropped.
pub struct Page {
    port: u16,
    task: AbortHandle,
}

impl Page {
    pub const TITLE: &str = "reached through keepwarm";

    pub async fn serve() -> Page {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                // A browser opens connections ahead and says nothing on them: each has a task.
                tokio::spawn(async move {
                    if stream.read(&mut [0; 8192]).await.is_ok_and(|length| length > 0) {
                        let body = format!("<!doctype html><title>{}</title>", Page::TITLE);
                        let head = format!("content-type: text/html\r\ncontent-length: {}\r\n", body.len());
                        let answer = format!("HTTP/1.1 200 OK\r\n{head}connection: close\r\n\r\n{body}");
                        let _ = stream.write_all(answer.as_bytes()).await;
                    }
                });
            }
        });
        Page { port, task: task.abort_handle() }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("http://{PAGE}:{}/", self.port)
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What Chromium, in a home and with a profile of its own, makes of a page. `authority` is what it trusts beside its own roots.
async fn dom(home: &Path, authority: Option<&str>, doh: &str, url: &str) -> String {
    let trusted = home.join(".pki/nssdb");
    std::fs::create_dir_all(&trusted).unwrap();
    let database = format!("sql:{}", trusted.display());
    let (ok, shown) = run("certutil", &["-N", "-d", &database, "--empty-password"]).await;
    assert!(ok, "{shown}");
    if let Some(authority) = authority {
        let (ok, shown) = run("certutil", &["-A", "-d", &database, "-n", "lab", "-t", "C,,", "-i", authority]).await;
        assert!(ok, "{shown}");
    }
    // What its settings page writes: secure DNS, with a provider of one's own and no way round it.
    let profile = home.join("profile");
    std::fs::create_dir(&profile).unwrap();
    let settings = serde_json::json!({ "dns_over_https": { "mode": "secure", "templates": doh } });
    std::fs::write(profile.join("Local State"), settings.to_string()).unwrap();
    let mut chromium = Command::new("chromium");
    chromium.env("HOME", home).env_remove("XDG_DATA_HOME").env_remove("XDG_CONFIG_HOME").args(FLAGS);
    chromium.arg(format!("--user-data-dir={}", profile.display())).args(["--dump-dom", url]);
    output(&mut chromium).await.1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chromium_opens_a_page_whose_name_only_its_secure_dns_knows() {
    if !has("chromium", "chromium") || !has("certutil", "libnss3-tools") {
        return;
    }
    let (gateway, _lab) = Gateway::before_a_lab().await;
    let page = Page::serve().await;
    let home = |name: &str| {
        let home = gateway.folder().join(name);
        std::fs::create_dir(&home).unwrap();
        home
    };
    let (doh, authority) = (gateway.doh_url(), gateway.authority.root());
    let shown = dom(&home("trusting"), Some(&authority), &doh, &page.url()).await;
    assert!(shown.contains(Page::TITLE), "{shown}");
    // It verifies us as it does any server: without our authority the name is unknown to it.
    let shown = dom(&home("doubting"), None, &doh, &page.url()).await;
    assert!(!shown.contains(Page::TITLE), "{shown}");
    println!("{}", version("chromium", "--version"));
    assert_eq!(transports(&gateway.stop().await, PAGE), ["https"]);
}

/// Without a window, and without what it would do on its own in the background. Its sandbox refuses to run as root.
const FLAGS: [&str; 11] = [
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
    "--no-proxy-server",
];
