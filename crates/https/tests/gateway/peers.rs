//! Programs that people use: curl, wget and Python's requests. One that is not installed is left out, and says so.
#![expect(clippy::print_stderr, reason = "a peer that is missing is said aloud")]

use std::{path::Path, process::Stdio};

use keepwarm_https::config::{GatewayConfig, User};
use keepwarm_lab::{Upload, expected_body, sha256_hex};
use tokio::process::Command;

use crate::setup::{Rig, Settings, rig, start};

const SIZE: usize = 10 << 20;

/// Runs a program; `None` when it is not installed.
async fn run(program: &str, args: &[&str]) -> Option<(bool, Vec<u8>)> {
    let mut command = Command::new(program);
    // What the machine's user has set must not choose another way.
    for name in
        ["http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"]
    {
        command.env_remove(name);
    }
    let output = command.args(args).stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true).output();
    match tokio::time::timeout(std::time::Duration::from_secs(60), output).await.expect("it ends") {
        Ok(output) => Some((output.status.success(), output.stdout)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("SKIPPED: {program} is not installed");
            None
        }
        Err(error) => panic!("{program}: {error}"),
    }
}

/// A file to be uploaded.
fn file(directory: &Path) -> (String, Vec<u8>) {
    let bytes: Vec<u8> = (0..SIZE).map(|n| (n % 251).to_le_bytes()[0]).collect();
    let path = directory.join("upload");
    std::fs::write(&path, &bytes).expect("written");
    (path.to_str().expect("text").to_owned(), bytes)
}

fn check_upload(answer: &[u8], bytes: &[u8]) {
    let upload: Upload = serde_json::from_slice(answer).unwrap_or_else(|error| panic!("{error}: {answer:?}"));
    assert_eq!((upload.length, upload.sha256), (bytes.len() as u64, sha256_hex(bytes)));
}

fn bytes_path() -> String {
    format!("/bytes/{SIZE}")
}

fn check_bytes(answer: &[u8]) {
    assert!(answer == expected_body(&bytes_path(), 0..SIZE as u64), "{} bytes", answer.len());
}

#[tokio::test]
async fn curl_downloads_and_uploads() {
    let rig = rig().await;
    let directory = tempfile::tempdir().expect("a directory");
    let (path, bytes) = file(directory.path());
    let Some((ok, answer)) = run("curl", &["-sS", "--fail", &rig.url(&bytes_path())]).await else { return };
    assert!(ok);
    check_bytes(&answer);
    // With a length and 100-continue, and in chunks.
    for extra in ["Expect: 100-continue", "Transfer-Encoding: chunked"] {
        let (_, answer) =
            run("curl", &["-sS", "-T", &path, "-H", extra, &rig.url("/upload")]).await.expect("installed");
        check_upload(&answer, &bytes);
    }
    let (ok, answer) = run("curl", &["-sS", "-I", &rig.url(&bytes_path())]).await.expect("installed");
    let head = String::from_utf8_lossy(&answer).to_ascii_lowercase();
    assert!(ok && head.contains("content-length: 10485760") && head.contains("keepwarm-reused: true"), "{head}");
    let (url, twice) = (rig.url("/bytes/5"), "%{num_connects} ");
    let (_, answer) = run("curl", &["-sS", "-o", "-", "-w", twice, &url, &url]).await.expect("installed");
    assert!(String::from_utf8_lossy(&answer).ends_with("0 "), "the second went over the first one's connection");
    assert_eq!(rig.lab.total().accepted, 1);
}

#[tokio::test]
async fn curl_notices_a_body_that_was_cut() {
    let rig = rig().await;
    rig.lab.update_faults(rig.lab.addresses()[0], |faults| faults.reset_mid_body = Some(5000));
    for path in [bytes_path(), "/stream/200".to_owned()] {
        for version in ["--http1.1", "--http1.0"] {
            let Some((ok, _)) = run("curl", &["-sS", version, "-o", "-", &rig.url(&path)]).await else { return };
            assert!(!ok, "{path} {version}");
        }
    }
}

async fn at_443(users: Vec<User>) -> Rig {
    let gateway = GatewayConfig { users, ..Settings::default().gateway };
    start(Settings { is_at_443: true, gateway, ..Settings::default() }).await
}

#[tokio::test]
async fn curl_and_wget_use_the_gateway_as_a_proxy() {
    let rig = at_443(Vec::new()).await;
    let (url, proxy) = (format!("http://tiles.test{}", bytes_path()), format!("http://{}", rig.gateway));
    if let Some((ok, answer)) = run("curl", &["-sS", "--fail", "--proxy", &proxy, &url]).await {
        assert!(ok);
        check_bytes(&answer);
        let (ok, _) = run("curl", &["-sS", "--proxy", &proxy, "https://tiles.test/"]).await.expect("installed");
        assert!(!ok, "there are no tunnels");
    }
    let use_proxy = format!("http_proxy={proxy}");
    if let Some((ok, answer)) = run("wget", &["-q", "-O", "-", "-e", "use_proxy=yes", "-e", &use_proxy, &url]).await {
        assert!(ok);
        check_bytes(&answer);
    }
}

#[tokio::test]
async fn curl_says_who_asks() {
    let rig = at_443(vec![User { name: "ann".to_owned(), password: "p w".to_owned() }]).await;
    let (proxy, url) = (format!("http://{}", rig.gateway), "http://tiles.test/bytes/5");
    let status = ["-sS", "-o", "/dev/null", "-w", "%{http_code}", "--proxy", &proxy, url];
    for (extra, expected) in
        [(vec![], "407"), (vec!["--proxy-user", "ann:p w"], "200"), (vec!["--proxy-user", "ann:x"], "407")]
    {
        let Some((_, answer)) = run("curl", &[&status[..], &extra].concat()).await else { return };
        assert_eq!(String::from_utf8_lossy(&answer), expected);
    }
}

#[tokio::test]
async fn wget_downloads_and_uploads() {
    let rig = rig().await;
    let directory = tempfile::tempdir().expect("a directory");
    let (path, bytes) = file(directory.path());
    let Some((ok, answer)) = run("wget", &["-q", "-O", "-", &rig.url(&bytes_path())]).await else { return };
    assert!(ok);
    check_bytes(&answer);
    let post = format!("--post-file={path}");
    let (_, answer) = run("wget", &["-q", "-O", "-", &post, &rig.url("/upload")]).await.expect("installed");
    check_upload(&answer, &bytes);
}

#[tokio::test]
async fn python_requests_downloads_uploads_and_uses_the_proxy() {
    match run("python3", &["-c", "import requests"]).await {
        Some((true, _)) => {}
        Some((false, _)) => return eprintln!("SKIPPED: Python's requests is not installed"),
        None => return,
    }
    let (rig, proxied) = (rig().await, at_443(Vec::new()).await);
    let (download, upload, proxy) = (rig.url(&bytes_path()), rig.url("/upload"), format!("http://{}", proxied.gateway));
    let (ok, answer) = run("python3", &["-c", PYTHON, &download, &upload, &proxy]).await.expect("installed");
    assert!(ok, "{}", String::from_utf8_lossy(&answer));
    let mut lines = answer.split(|byte| *byte == b'\n');
    let mut next = || lines.next().expect("a line");
    assert_eq!(next(), sha256_hex(&expected_body(&bytes_path(), 0..SIZE as u64)).as_bytes());
    check_upload(next(), &vec![7; SIZE]);
    assert_eq!(next(), b"200 True");
    assert_eq!(rig.watch.stats().accepted, 1, "one session, one connection");
}

const PYTHON: &str = r#"
import hashlib, requests, sys
download, upload, proxy = sys.argv[1:]
session = requests.Session()
with session.get(download, stream=True) as answer:
    answer.raise_for_status()
    digest = hashlib.sha256()
    for piece in answer.iter_content(65536):
        digest.update(piece)
print(digest.hexdigest())
print(session.post(upload, data=(bytes([7]) * 65536 for _ in range(160))).text)
answer = requests.get("http://tiles.test/bytes/100000", proxies={"http": proxy})
print(answer.status_code, len(answer.content) == 100000)
"#;

#[tokio::test]
async fn chromium_shows_what_an_origin_answers() {
    let rig = rig().await;
    let profile = tempfile::tempdir().expect("a directory");
    let profile = format!("--user-data-dir={}", profile.path().display());
    let url = rig.url("/status/418");
    let args = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-proxy-server",
        &profile,
        "--dump-dom",
        &url,
    ];
    let Some((ok, page)) = run("chromium", &args).await else { return };
    let page = String::from_utf8_lossy(&page);
    assert!(ok && page.contains("418 I'm a teapot"), "{page}");
    assert!(rig.lab.total().requests >= 1);
}
