//! Exchanges with loopback servers, well behaved and otherwise.
//!
//! `script` plays HTTP/2 frame by frame, for what a library server would not do; its submodules hold the tests.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use tokio::{io::DuplexStream, task::JoinHandle};

use super::*;
use crate::testing::soon;

mod exchanges;
mod http1;
mod http2;
mod script;

const LIMIT: usize = 65_535;

/// Connects over `stream` with its driver running.
async fn open(stream: DuplexStream, alpn: &[u8]) -> (HttpConnection, JoinHandle<HttpEnd>) {
    let (connection, driver) = connect(stream, Some(alpn), "dns.example:8443").await.unwrap();
    (connection, tokio::spawn(driver))
}

fn get(path: &str) -> Request<Bytes> {
    Request::get(path).body(Bytes::new()).unwrap()
}

fn post(body: &'static [u8]) -> Request<Bytes> {
    Request::post("/dns-query").body(Bytes::from_static(body)).unwrap()
}

/// Waits for something that must happen, but not for ever.
async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout_at(soon().into(), future).await.expect("it did not happen within ten seconds")
}

#[tokio::test]
async fn an_unknown_protocol_and_a_bad_authority_are_refused() {
    let (stream, _peer) = tokio::io::duplex(64);
    let error = connect(stream, Some(b"h3"), "dns.example").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Alpn);
    assert_eq!(error.to_string(), "connect to dns.example: no http over the application protocol \"h3\"");
    let (stream, _peer) = tokio::io::duplex(64);
    let error = connect(stream, None, "dns example").await.unwrap_err();
    assert_eq!(error.side(), crate::error::Side::Local);
}

#[test]
fn futures_can_be_spawned() {
    fn spawnable<T: Send + 'static>(_: &T) {}
    fn check(connection: &HttpConnection) {
        spawnable(&connection.send(get("/"), LIMIT));
        spawnable(&connection.ping(soon()));
    }
    let _ = check;
    fn shareable<T: Send + Sync + Clone>() {}
    shareable::<HttpConnection>();
    shareable::<Error>();
}
