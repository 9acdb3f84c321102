//! Changes of protocol.

use super::*;

fn upgrade(origin: &Origin, lines: &str) -> String {
    format!("GET http://localhost:{}/chat HTTP/1.1\r\nHost: x\r\n{lines}\r\n", origin.port())
}

const WISH: &str = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n";
const SWITCH: &str =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: a\r\n\r\n";

#[tokio::test]
async fn a_websocket_is_relayed_after_its_101() {
    timely(async {
        let (proxy, origin) = (Proxy::start().await, Origin::start().await);
        let mut client = proxy.client().await;
        client.send(&upgrade(&origin, WISH)).await;
        let mut upstream = origin.accept().await;
        let head = upstream.head().await;
        let host = format!("host: localhost:{}", origin.port());
        assert_eq!(fields(&head), ["connection: upgrade", &host, "sec-websocket-key: k", "upgrade: websocket"]);
        // In one piece with the 101, and much after it.
        let bulk = "0123456789abcdef".repeat(50_000);
        upstream.send(&format!("{SWITCH}first")).await;
        let head = client.head().await;
        assert_eq!(status(&head), "101");
        assert_eq!(fields(&head), ["connection: upgrade", "sec-websocket-accept: a", "upgrade: websocket"]);
        assert_eq!(client.exactly(5).await, "first");
        client.send("from the client").await;
        assert_eq!(upstream.exactly(15).await, "from the client");
        let sent = bulk.clone();
        let send = tokio::spawn(async move {
            upstream.send(&sent).await;
            upstream
        });
        assert!(client.exactly(bulk.len()).await == bulk);
        let mut upstream = send.await.unwrap();
        client.0.shutdown().await.unwrap();
        assert_eq!(upstream.rest().await, "");
        upstream.send("last").await;
        drop(upstream);
        assert_eq!(client.rest().await, "last");
        proxy.idle().await;
    })
    .await;
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_websocket() {
    timely(async {
        let (proxy, origin) = (Proxy::start().await, Origin::start().await);
        let mut client = proxy.client().await;
        client.send(&upgrade(&origin, WISH)).await;
        let mut upstream = origin.accept().await;
        upstream.head().await;
        upstream.send(SWITCH).await;
        client.head().await;
        client.0.set_zero_linger().unwrap();
        drop(client);
        assert_eq!(upstream.rest_or_reset().await.0, b"");
        drop(upstream);
        proxy.idle().await;
        assert_eq!(proxy.shared.connector.stats().live, 0);
    })
    .await;
}

#[tokio::test]
async fn an_origin_may_stay_with_http() {
    timely(async {
        let (proxy, origin) = (Proxy::start().await, Origin::start().await);
        let mut client = proxy.client().await;
        client.send(&upgrade(&origin, WISH)).await;
        let mut upstream = origin.accept().await;
        upstream.head().await;
        upstream.send(OK).await;
        assert!(client.until("ok").await.starts_with("HTTP/1.1 200 "));
        client.send(&upgrade(&origin, "")).await;
        assert!(upstream.head().await.starts_with("GET /chat "));
    })
    .await;
}

#[tokio::test]
async fn a_change_that_nobody_wished_is_an_error() {
    timely(async {
        let (proxy, origin) = (Proxy::start().await, Origin::start().await);
        for lines in [
            "",
            "Upgrade: websocket\r\n",
            "Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n",
            "Connection: upgrade\r\nUpgrade: websocket, H2C\r\n",
            "Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n",
        ] {
            let mut client = proxy.client().await;
            client.send(&upgrade(&origin, lines)).await;
            if lines.contains("Length") {
                client.send("x").await;
            }
            let mut upstream = origin.accept().await;
            let head = upstream.head().await.to_ascii_lowercase();
            assert!(!head.contains("upgrade:") && !head.contains("http2-settings"), "{head}");
            upstream.send(&format!("{SWITCH}HTTP/1.1 200 OK\r\n\r\nsmuggled")).await;
            let answer = client.head().await;
            assert_eq!(status(&answer), "502", "{lines:?}");
            let text = client.until("\n").await;
            assert!(text.contains("no upgrade was asked for"), "{text}");
        }
    })
    .await;
}
