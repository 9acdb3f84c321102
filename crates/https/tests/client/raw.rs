//! A server of HTTP/1.1 by hand, that sees every byte and may close when it likes.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::Request;
use keepwarm_https::{
    Client,
    config::{AddressSource, HttpVersions, HttpsConfig, OriginConfig, PoolConfig},
};
use keepwarm_lab::Ca;
use keepwarm_transport::{resolve::Fixed, tls::TlsRoots};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use crate::setup::whole;

/// What it saw: the heads of requests, whatever lay between them included.
type Heads = Arc<Mutex<Vec<String>>>;

/// Answers so many requests on each connection, and closes it when the next one comes.
async fn serve(stream: TcpStream, acceptor: TlsAcceptor, heads: Heads, answers: usize) -> std::io::Result<()> {
    let mut stream = acceptor.accept(stream).await?;
    let mut read = Vec::new();
    for answered in 0.. {
        let end = loop {
            if let Some(end) = read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut read).await? == 0 {
                return Ok(());
            }
        };
        let head: Vec<u8> = read.drain(..end).collect();
        heads.lock().push(String::from_utf8_lossy(&head).into_owned());
        if answered == answers {
            return Ok(());
        }
        // Long enough for two at a time.
        tokio::time::sleep(Duration::from_millis(30)).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await?;
    }
    Ok(())
}

async fn server(ca: &Ca, heads: &Heads, answers: usize) -> SocketAddr {
    let (chain, key) = ca.issue(&["raw.test"]).expect("issued");
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a certificate");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let heads = heads.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, acceptor.clone(), heads.clone(), answers));
        }
    });
    address
}

async fn client(answers: usize) -> (Client, String, Heads) {
    let (ca, heads) = (Ca::new(), Heads::default());
    let address = server(&ca, &heads, answers).await;
    let origin = OriginConfig {
        port: address.port(),
        http: HttpVersions::Http1,
        addresses: vec![AddressSource::Net(address.ip().into())],
        ..OriginConfig::new("raw.test")
    };
    let config = HttpsConfig {
        origins: vec![origin],
        roots: TlsRoots::only([ca.root()]),
        pool: PoolConfig::default(),
        ..HttpsConfig::default()
    };
    let client = Client::new(config, Arc::new(Fixed(Vec::new()))).expect("a client");
    (client, format!("https://raw.test:{}", address.port()), heads)
}

#[tokio::test]
async fn a_length_that_is_said_and_not_sent_does_not_eat_the_next_request() {
    let (client, url, heads) = client(usize::MAX).await;
    for (path, length) in [("/a", "30"), ("/b", "7"), ("/c", "seven")] {
        let request = Request::get(format!("{url}{path}")).header("content-length", length).body(()).expect("valid");
        assert_eq!(whole(client.request(request).await.expect("an answer")).await, "ok");
    }
    assert_eq!(whole(client.get(&format!("{url}/d")).await.expect("an answer")).await, "ok");
    let heads = heads.lock();
    let lines: Vec<_> = heads.iter().filter_map(|head| head.lines().next()).collect();
    assert_eq!(lines, ["GET /a HTTP/1.1", "GET /b HTTP/1.1", "GET /c HTTP/1.1", "GET /d HTTP/1.1"]);
    for head in heads.iter() {
        let length =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned));
        assert!(length.is_none_or(|length| length == "0"), "{head}");
    }
}

#[tokio::test]
async fn two_dead_connections_in_a_row_cost_no_request_and_no_address() {
    let (client, url, _) = client(1).await;
    let two = futures_util::future::join(client.get(&url), client.get(&url)).await;
    for answer in [two.0, two.1] {
        assert_eq!(whole(answer.expect("an answer")).await, "ok");
    }
    assert_eq!(client.pool_stats().gauges.idle, 2);
    let answer = client.get(&url).await.expect("over a new connection");
    assert!(!answer.body().served().reused);
    whole(answer).await;
    let rows = client.inventory(url.trim_start_matches("https://")).expect("known");
    assert_eq!((rows[0].failures, rows[0].state.as_str()), (0, "validated"));
}

#[tokio::test]
async fn a_query_without_a_path_goes_to_the_root() {
    let (client, url, heads) = client(usize::MAX).await;
    whole(client.get(&format!("{url}?x=1")).await.expect("an answer")).await;
    assert_eq!(heads.lock()[0].lines().next(), Some("GET /?x=1 HTTP/1.1"));
}
