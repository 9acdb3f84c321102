//! Connections made from profiles, recorded as a browser's are and compared with the browser's in every field.

#![cfg(feature = "browser")]

use std::{net::SocketAddr, sync::Arc, time::Duration};

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
    let tcp = TcpStream::connect(addr).await.expect("it works on loopback");
    let (stream, _) = dialer
        .connect(tcp, "localhost", tokio::time::Instant::now().into_std() + WAIT)
        .await
        .expect("it works on loopback");
    let builder = http2_builder(profile.http2.as_ref());
    let (mut requests, connection) = builder.handshake::<_, bytes::Bytes>(stream).await.expect("it works on loopback");
    let connection = tokio::spawn(connection);
    let mut request = Request::get("https://localhost/").body(()).expect("it works on loopback");
    for (name, value) in &profile.headers {
        request.headers_mut().append(
            HeaderName::from_bytes(name.as_bytes()).expect("it works on loopback"),
            value.parse().expect("it works on loopback"),
        );
    }
    let (answer, _) = requests.send_request(request, true).expect("it works on loopback");
    let mut body = answer.await.expect("it works on loopback").into_body();
    while let Some(bytes) = body.data().await {
        body.flow_control().release_capacity(bytes.expect("it works on loopback").len()).expect("it works on loopback");
    }
    drop((requests, body));
    connection.await.expect("it works on loopback").expect("it works on loopback");
}

/// Records connections of `profile`, each second one resumed, and compares them with the browser's.
async fn compared(name: &str) -> Vec<FieldDiff> {
    let ca = Ca::new();
    let folder = tempfile::tempdir().expect("it works on loopback");
    let (certificate, key) = (folder.path().join("certificate.pem"), folder.path().join("key.pem"));
    let pem = ca.issue_pem(&["localhost"]).expect("it works on loopback");
    std::fs::write(&certificate, pem.0).expect("it works on loopback");
    std::fs::write(&key, pem.1).expect("it works on loopback");
    let server = TlsServer::load(&certificate, &key).expect("it works on loopback");
    let recorder = Recorder::bind("127.0.0.1:0".parse().expect("it works on loopback"), server)
        .await
        .expect("it works on loopback");
    let addr = recorder.local_addr();
    let recording = tokio::spawn(recorder.record(2 * SAMPLES, WAIT, |_| {}));

    let profile: Arc<Profile> = Profile::builtin(name).expect("it works on loopback");
    for _ in 0..SAMPLES {
        let dialer =
            TlsDialer::new(&profile, HttpVersions::Both, &TlsRoots::only([ca.root()])).expect("it works on loopback");
        navigate(&profile, &dialer, addr).await;
        navigate(&profile, &dialer, addr).await;
    }
    let captures = Captures { label: name.to_owned(), captures: recording.await.expect("it works on loopback") };
    assert_eq!((captures.full().count(), captures.resuming().count()), (SAMPLES, SAMPLES));
    diff(&Captures::reference(name).expect("it works on loopback").expect("it works on loopback"), &captures)
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
