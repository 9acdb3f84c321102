//! The recorder, with clients whose hellos are known: rustls over HTTP/2 and HTTP/1.1, and Chromium where it is installed.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{
    net::SocketAddr,
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::Request;
use keepwarm_https::profile::{
    Profile,
    capture::{Capture, Captures, Recorder},
    diff::diff,
};
use keepwarm_lab::Ca;
use keepwarm_transport::{error::Side, tls::TlsServer};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::Command,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// A certificate for localhost, as files that go with it.
struct Certificate {
    ca: Ca,
    folder: tempfile::TempDir,
}

impl Certificate {
    fn new() -> Certificate {
        let certificate = Certificate { ca: Ca::new(), folder: tempfile::tempdir().unwrap() };
        let (chain, key) = certificate.ca.issue_pem(&["localhost"]).unwrap();
        std::fs::write(certificate.path("certificate.pem"), chain).unwrap();
        std::fs::write(certificate.path("key.pem"), key).unwrap();
        certificate
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    async fn recorder(&self) -> Recorder {
        let tls = TlsServer::load(self.path("certificate.pem"), self.path("key.pem")).unwrap();
        Recorder::bind("127.0.0.1:0".parse().unwrap(), tls).await.unwrap()
    }

    /// A client that trusts it, and keeps its tickets.
    fn client(&self, alpn: &[&[u8]]) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.root()).unwrap();
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }
}

async fn connect(client: &TlsConnector, address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").unwrap();
    client.connect(name, TcpStream::connect(address).await?).await
}

/// One request over HTTP/2, until the server closes the connection.
async fn ask(client: &TlsConnector, address: SocketAddr, path: &str) -> (u16, Vec<u8>) {
    let stream = connect(client, address).await.unwrap();
    let (mut send, connection) = http2::client::handshake(stream).await.unwrap();
    let closed = tokio::spawn(connection);
    let request = Request::get(format!("https://localhost{path}")).header("cookie", "secret=1").body(()).unwrap();
    let response = send.send_request(request, true).unwrap().0.await.unwrap();
    let status = response.status().as_u16();
    let (mut body, mut read) = (response.into_body(), Vec::new());
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        read.extend(data);
    }
    drop(send);
    closed.await.unwrap().unwrap();
    (status, read)
}

#[tokio::test]
async fn hello_preface_and_resumption_of_a_client_are_recorded() {
    let certificate = Certificate::new();
    let recorder = certificate.recorder().await;
    let address = recorder.local_addr();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let calls = seen.clone();
    let recording = tokio::spawn(async move {
        recorder.record(3, WAIT, move |capture: &Capture| calls.lock().unwrap().push(capture.is_resuming())).await
    });
    let client = certificate.client(&[b"h2"]);
    let (status, page) = ask(&client, address, "/").await;
    assert_eq!(status, 200);
    assert!(String::from_utf8(page).unwrap().contains("/seen?"), "the page asks for more by itself");
    let (status, answer) = ask(&client, address, "/seen?0").await;
    assert_eq!(status, 200);
    let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!(answer["left"], 1);
    assert_eq!(answer["seen"].as_array().map(Vec::len), Some(2));
    assert_eq!(ask(&client, address, "/favicon.ico").await.0, 404);

    let captures = recording.await.unwrap();
    assert_eq!(*seen.lock().unwrap(), [false, true, true]);
    assert_eq!(captures.len(), 3);
    for (capture, resumed) in captures.iter().zip([false, true, true]) {
        let negotiated = capture.negotiated.as_ref().unwrap();
        assert_eq!((negotiated.alpn.as_deref(), negotiated.resumed), (Some("h2"), resumed));
        assert_eq!(capture.hello.server_name(), Some("localhost"));
        assert_eq!(capture.hello.alpn(), ["h2"]);
        let preface = capture.preface.as_ref().unwrap();
        assert_eq!(preface.pseudo_order(), "m,s,a,p");
        assert_eq!(preface.header("cookie"), Some(""), "nothing secret is kept");
    }
    let captures = Captures { label: "rustls".into(), captures };
    let text = captures.to_json().unwrap();
    assert!(!text.contains("secret"));
    assert_eq!(Captures::from_json(&text), Ok(captures));
}

#[tokio::test]
async fn clients_that_distrust_ask_nothing_or_speak_http_1_are_recorded_too() {
    let certificate = Certificate::new();
    let recorder = certificate.recorder().await;
    let address = recorder.local_addr();
    let recording = tokio::spawn(recorder.record(1, WAIT, |_: &Capture| {}));
    // No hello at all: nothing is recorded, and nothing counts.
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    plain.read_to_end(&mut Vec::new()).await.unwrap();
    let stranger = Certificate::new().client(&[b"h2"]);
    assert!(connect(&stranger, address).await.is_err(), "it does not know the authority");
    let client = certificate.client(&[b"http/1.1"]);
    let mut silent = connect(&client, address).await.unwrap();
    silent.shutdown().await.unwrap();
    silent.read_to_end(&mut Vec::new()).await.unwrap();
    let mut stream = connect(&client, address).await.unwrap();
    stream.write_all(b"GET /seen HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", String::from_utf8_lossy(&answer));

    let captures = recording.await.unwrap();
    assert_eq!(captures.len(), 3, "{captures:#?}");
    assert_eq!(captures.iter().filter(|capture| capture.negotiated.is_none()).count(), 1);
    assert!(captures.iter().all(|capture| capture.preface.is_none()));
}

#[tokio::test]
async fn recording_ends_with_its_time_and_keeps_what_it_has() {
    let certificate = Certificate::new();
    let recorder = certificate.recorder().await;
    let address = recorder.local_addr();
    let client = certificate.client(&[b"h2"]);
    let recording = tokio::spawn(recorder.record(2, Duration::from_secs(3), |_: &Capture| {}));
    ask(&client, address, "/").await;
    assert_eq!(recording.await.unwrap().len(), 1);
}

#[tokio::test]
async fn nobody_but_this_machine_can_be_recorded() {
    let certificate = Certificate::new();
    let tls = TlsServer::load(certificate.path("certificate.pem"), certificate.path("key.pem")).unwrap();
    let error = Recorder::bind("0.0.0.0:0".parse().unwrap(), tls).await.unwrap_err();
    assert_eq!(error.side(), Side::Local);
    assert_eq!(error.to_string(), "listen on 0.0.0.0:0 (tls): only loopback addresses are recorded on");
}

/// Debian's Chromium against the reference that was captured of it: no field may differ, full or resumed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chromium_connects_as_the_reference_says() {
    let Some(version) = chromium_version().await else {
        println!("SKIPPED: chromium is not installed (Debian package chromium)");
        return;
    };
    if !version.starts_with("Chromium 156.") {
        println!("SKIPPED: the reference is of Chromium 156, and this is {version}");
        return;
    }
    let certificate = Certificate::new();
    let recorder = certificate.recorder().await;
    let url = format!("https://localhost:{}/", recorder.local_addr().port());
    let recording = tokio::spawn(recorder.record(6, Duration::from_secs(60), |_: &Capture| {}));
    let home = tempfile::tempdir().unwrap();
    let mut browser = chromium(home.path(), &url).spawn().unwrap();
    let captures = recording.await.unwrap();
    browser.kill().await.unwrap();

    // Its first request is the page; the others are of other kinds, which have other headers and weights.
    let is_navigation = |capture: &Capture| {
        capture.preface.as_ref().is_none_or(|preface| preface.header("sec-fetch-mode") == Some("navigate"))
    };
    let kept = captures.iter().filter(|capture| capture.is_resuming() || is_navigation(capture)).cloned().collect();
    let candidate = Captures { label: version, captures: kept };
    assert!(candidate.full().any(|capture| capture.preface.is_some()), "{captures:#?}");
    assert!(candidate.resuming().count() >= 3, "{captures:#?}");
    let reference = Captures::reference("chrome@156").unwrap().unwrap();
    let diffs = diff(&reference, &candidate);
    let differing: Vec<_> = diffs.iter().filter(|diff| !diff.equal).collect();
    assert!(differing.is_empty(), "{differing:#?}");
    assert!(diffs.iter().filter(|diff| diff.field.starts_with("resumed:")).count() > 30);
    let profile = Profile::from_captures("mine", "156", &candidate.label, &captures).unwrap();
    assert_eq!(profile.ja4().as_deref(), Some("t13d1517h2_8daaf6152771_cb7bf5808d99"));
    assert!(profile.tls.is_some_and(|tls| tls.permute_extensions && tls.resumption));
}

/// What the profile makes is what the browser does: no field may differ, full or resumed.
#[cfg(feature = "browser")]
#[tokio::test]
async fn chromes_profile_connects_as_the_reference_says() {
    use keepwarm_https::{config::HttpVersions, tls::TlsDialer};
    use keepwarm_transport::tls::TlsRoots;

    let profile = Profile::named("chrome@156").unwrap();
    let certificate = Certificate::new();
    let recorder = certificate.recorder().await;
    let address = recorder.local_addr();
    let recording = tokio::spawn(recorder.record(12, WAIT, |_: &Capture| {}));
    for _ in 0..4 {
        let roots = TlsRoots::only([certificate.ca.root()]);
        let dialer = TlsDialer::new(&profile, HttpVersions::Both, &roots).unwrap();
        for _ in 0..3 {
            navigate(&profile, &dialer, address).await;
        }
    }
    let candidate = Captures { label: "chrome@156".into(), captures: recording.await.unwrap() };
    assert_eq!((candidate.full().count(), candidate.resuming().count()), (4, 8));
    let reference = Captures::reference("chrome@156").unwrap().unwrap();
    let diffs = diff(&reference, &candidate);
    let differing: Vec<_> = diffs.iter().filter(|diff| !diff.equal).collect();
    // What the profile's `differs` names: in a few connections SETTINGS are acknowledged before the window is updated.
    assert!(differing.iter().all(|diff| diff.field.ends_with("h2_frames")), "{differing:#?}");
    assert!(diffs.len() > 60, "{}", diffs.len());
}

/// A request with the profile's headers, on a connection of its own.
#[cfg(feature = "browser")]
async fn navigate(profile: &Profile, dialer: &keepwarm_https::tls::TlsDialer, address: SocketAddr) {
    use keepwarm_https::http2_profile::http2_builder;

    let tcp = TcpStream::connect(address).await.unwrap();
    let deadline = (tokio::time::Instant::now() + WAIT).into_std();
    let (stream, _) = dialer.connect(tcp, "localhost", deadline).await.unwrap();
    let builder = http2_builder(profile.http2.as_ref());
    let (mut send, connection) = builder.handshake::<_, bytes::Bytes>(stream).await.unwrap();
    let closed = tokio::spawn(connection);
    let headers = profile.headers.iter();
    let request = Request::get(format!("https://localhost:{}/", address.port()));
    let request = headers.fold(request, |request, (name, value)| request.header(name, value));
    let response = send.send_request(request.body(()).unwrap(), true).unwrap().0.await.unwrap();
    let mut body = response.into_body();
    while let Some(data) = body.data().await {
        data.unwrap();
    }
    drop(send);
    // The recorder says GOAWAY and closes: an error or none, the connection is over.
    let _ = closed.await.unwrap();
}

async fn chromium_version() -> Option<String> {
    let output = Command::new("chromium").arg("--version").output().await.ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned()).filter(|version| !version.is_empty())
}

/// Without a window, and without what it would do on its own in the background. Its sandbox refuses to run as root.
fn chromium(home: &Path, url: &str) -> Command {
    let mut chromium = Command::new("chromium");
    chromium.env("HOME", home).env_remove("XDG_DATA_HOME").env_remove("XDG_CONFIG_HOME");
    chromium.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic"]);
    chromium.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
    chromium.args(["--no-first-run", "--no-default-browser-check", "--no-proxy-server", "--ignore-certificate-errors"]);
    chromium.args([&format!("--user-data-dir={}", home.join("profile").display()), "--virtual-time-budget=60000"]);
    chromium.args(["--dump-dom", url]).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    chromium
}

/// Far more than any of this takes.
const WAIT: Duration = Duration::from_secs(60);
