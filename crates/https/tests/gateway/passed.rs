//! What is passed on of an answer's head and trailers, before an origin that says word for word what a test wants.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use keepwarm_https::{
    Client, Gateway,
    config::{AddressSource, GatewayConfig, HttpVersions, HttpsConfig, OriginConfig},
};
use keepwarm_lab::Ca;
use keepwarm_transport::{resolve::Fixed, tls::TlsRoots};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// A gateway before an origin whose every answer is `answer`, after which it closes.
async fn gateway(answer: &'static str) -> (SocketAddr, String) {
    let ca = Ca::new();
    let (chain, key) = ca.issue(&["tiles.test"]).expect("a certificate");
    let tls = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).expect("valid");
    let tls = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let tls = tls.clone();
            tokio::spawn(async move {
                let mut stream = tls.accept(stream).await?;
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await?);
                }
                stream.write_all(answer.as_bytes()).await?;
                stream.shutdown().await
            });
        }
    });
    let origin = OriginConfig {
        port: address.port(),
        http: HttpVersions::Http1,
        addresses: vec![AddressSource::Net(address.ip().into())],
        ..OriginConfig::new("tiles.test")
    };
    let authority = format!("tiles.test:{}", origin.port);
    let config = HttpsConfig { origins: vec![origin], roots: TlsRoots::only([ca.root()]), ..HttpsConfig::default() };
    let client = Client::new(config, Arc::new(Fixed(Vec::new()))).expect("a client");
    let config = GatewayConfig { listen: vec!["127.0.0.1:0".parse().expect("valid")], ..GatewayConfig::default() };
    let gateway = Gateway::bind(&config, client).expect("a gateway");
    let at = gateway.addresses()[0];
    tokio::spawn(gateway.run(std::future::pending::<()>(), Duration::ZERO));
    (at, authority)
}

/// Asks for `/x/y` and returns the answer as it came, with names in lower case.
pub(crate) async fn ask(answer: &'static str, headers: &str) -> String {
    let (gateway, authority) = gateway(answer).await;
    let mut stream = TcpStream::connect(gateway).await.expect("it listens");
    let ask =
        format!("GET /https/{authority}/x/y HTTP/1.1\r\nhost: localhost\r\nconnection: close, te\r\n{headers}\r\n");
    stream.write_all(ask.as_bytes()).await.expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer.replace(&authority, "AUTHORITY")
}

#[tokio::test]
async fn trailers_that_were_announced_are_passed_on_to_who_takes_them() {
    let answer =
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n2\r\nhi\r\n0\r\nx-sum: 42\r\n\r\n";
    let takes = ask(answer, "te: trailers\r\n").await;
    assert!(takes.contains("trailer: x-sum\r\n") && takes.ends_with("2\r\nhi\r\n0\r\nx-sum: 42\r\n\r\n"), "{takes}");
    let not = ask(answer, "").await;
    assert!(not.ends_with("2\r\nhi\r\n0\r\n\r\n"), "{not}");
}

#[tokio::test]
async fn a_redirect_of_the_origin_to_itself_leads_through_the_gateway() {
    let found = "HTTP/1.1 302 Found\r\nlocation: ../z?q\r\ncontent-length: 0\r\n\r\n";
    assert!(ask(found, "").await.contains("location: /https/AUTHORITY/z?q\r\n"));
    let other = "HTTP/1.1 302 Found\r\nlocation: https://other.test/z\r\ncontent-length: 0\r\n\r\n";
    assert!(ask(other, "").await.contains("location: https://other.test/z\r\n"));
}

#[tokio::test]
async fn an_origin_does_not_speak_for_the_gateway() {
    let answer = "HTTP/1.1 200 Very Well\r\nkeepwarm-address: 192.0.2.1:443\r\nkeepwarm-error: timeout\r\nconnection: x-hop, close\r\n\
                  x-hop: 1\r\nkeep-alive: timeout=5\r\nproxy-authenticate: Basic\r\nset-cookie: a=b\r\nset-cookie: c=d\r\n\
                  content-length: 2\r\n\r\nhi";
    let passed = ask(answer, "").await;
    for gone in ["192.0.2.1", "keepwarm-error", "x-hop", "keep-alive", "proxy-authenticate"] {
        assert!(!passed.contains(gone), "{gone}: {passed}");
    }
    for there in [
        "HTTP/1.1 200 Very Well\r\n",
        "set-cookie: a=b\r\nset-cookie: c=d\r\n",
        "keepwarm-address: 127.0.0.1:",
        "\r\n\r\nhi",
    ] {
        assert!(passed.contains(there), "{there}: {passed}");
    }
    let browser = ask(answer, "sec-fetch-site: none\r\n").await;
    assert!(!browser.contains("set-cookie") && browser.contains("content-security-policy: sandbox\r\n"), "{browser}");
}

#[tokio::test]
async fn an_answer_that_breaks_http_is_a_bad_gateway() {
    let answer = ask("SSH-2.0-OpenSSH\r\n\r\n", "").await;
    assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("keepwarm-error: "), "{answer}");
    // Nobody asked for an upgrade.
    for switch in [
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nno http",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ] {
        let answer = ask(switch, "connection: upgrade\r\nupgrade: websocket\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("keepwarm-error: http1\r\n"), "{answer}");
        assert!(!answer.contains("no http"), "{answer}");
    }
}
