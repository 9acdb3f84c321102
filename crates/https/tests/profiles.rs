//! Connections made from profiles, recorded as a browser's are and compared with the browser's in every field.

#![cfg(feature = "browser")]

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{Request, header::HeaderName};
use keepwarm_https::{
    config::HttpVersions,
    http2_profile::http2_builder,
    profile::{
        Profile,
        capture::{Captures, Recorder},
        diff::{FieldDiff, diff},
    },
    tls::TlsDialer,
};
use keepwarm_lab::Ca;
use keepwarm_transport::tls::{TlsRoots, TlsServer};
use tokio::net::TcpStream;

/// Opens a connection as `profile` says and makes a navigation request.
async fn navigate(profile: &Profile, dialer: &TlsDialer, addr: SocketAddr) {
    let tcp = TcpStream::connect(addr).await.unwrap();
    let (stream, _) = dialer.connect(tcp, "localhost", Instant::now() + WAIT).await.unwrap();
    let builder = http2_builder(profile.http2.as_ref());
    let (mut requests, connection) = builder.handshake::<_, bytes::Bytes>(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut request = Request::get("https://localhost/").body(()).unwrap();
    for (name, value) in &profile.headers {
        request.headers_mut().append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    let (answer, _) = requests.send_request(request, true).unwrap();
    let mut body = answer.await.unwrap().into_body();
    while let Some(bytes) = body.data().await {
        body.flow_control().release_capacity(bytes.unwrap().len()).unwrap();
    }
    drop((requests, body));
    connection.await.unwrap().unwrap();
}

/// Records connections of `profile`, each second one resumed, and compares them with the browser's.
async fn compared(name: &str) -> Vec<FieldDiff> {
    let ca = Ca::new();
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("certificate.pem"), folder.path().join("key.pem"));
    let pem = ca.issue_pem(&["localhost"]).unwrap();
    std::fs::write(&certificate, pem.0).unwrap();
    std::fs::write(&key, pem.1).unwrap();
    let server = TlsServer::load(&certificate, &key).unwrap();
    let recorder = Recorder::bind("127.0.0.1:0".parse().unwrap(), server).await.unwrap();
    let addr = recorder.local_addr();
    let recording = tokio::spawn(recorder.record(2 * SAMPLES, WAIT, |_| {}));

    let profile: Arc<Profile> = Profile::builtin(name).unwrap();
    for _ in 0..SAMPLES {
        let dialer = TlsDialer::new(&profile, HttpVersions::Both, &TlsRoots::only([ca.root()])).unwrap();
        navigate(&profile, &dialer, addr).await;
        navigate(&profile, &dialer, addr).await;
    }
    let captures = Captures { label: name.to_owned(), captures: recording.await.unwrap() };
    assert_eq!((captures.full().count(), captures.resuming().count()), (SAMPLES, SAMPLES));
    diff(&Captures::reference(name).unwrap().unwrap(), &captures)
}

fn differing(fields: &[FieldDiff]) -> Vec<&str> {
    fields.iter().filter(|field| !field.equal).map(|field| field.field.as_str()).collect()
}

#[tokio::test]
async fn chrome_is_not_told_from_the_browser_by_any_field() {
    let fields = compared("chrome@156").await;
    assert!(fields.len() > 39, "{} fields", fields.len());
    assert_eq!(differing(&fields), [""; 0]);
}

#[tokio::test]
async fn firefox_differs_in_what_its_profile_says_and_in_nothing_else() {
    let fields = compared("firefox@153").await;
    let expected = [
        "extensions",
        "extension_order",
        "groups",
        "certificate_compression",
        "ech_payload_length",
        "delegated_credentials",
        "record_size_limit",
        "ja4",
    ];
    assert_eq!(differing(&fields), expected);
}

const SAMPLES: usize = 6;

const WAIT: Duration = Duration::from_secs(60);
