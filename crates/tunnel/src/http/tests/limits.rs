//! Time-outs, sizes, and the end of the server.

use super::*;

const SHORT: Duration = Duration::from_millis(100);

#[tokio::test]
async fn a_head_that_does_not_come_is_given_up() {
    timely(async {
        let proxy = Proxy::with(TunnelConfig { handshake_timeout: SHORT, ..TunnelConfig::default() }).await;
        for begun in ["G", "GET http://a.example/ HTTP/1.1\r\nhost: x\r\n", "CONNECT a.example:1 HTTP/1.1\r\n"] {
            let mut client = proxy.client().await;
            client.send(begun).await;
            assert_eq!(client.rest().await, "", "{begun:?}");
        }
        proxy.idle().await;
    })
    .await;
}

#[tokio::test]
async fn a_head_without_end_is_refused() {
    timely(async {
        let proxy = Proxy::start().await;
        let long = format!("GET http://a.example/ HTTP/1.1\r\nX: {}", "x".repeat(70_000));
        let many = format!("GET http://a.example/ HTTP/1.1\r\n{}\r\n", "X: 1\r\n".repeat(101));
        for head in [long, many] {
            let mut client = proxy.client().await;
            client.send(&head).await;
            let (answer, _) = client.rest_or_reset().await;
            assert_eq!(status(std::str::from_utf8(&answer).unwrap()), "431");
        }
    })
    .await;
}

#[tokio::test]
async fn an_exchange_or_a_tunnel_without_bytes_ends() {
    timely(async {
        let origin = Origin::start().await;
        let proxy = Proxy::with(TunnelConfig { idle_timeout: SHORT, ..TunnelConfig::default() }).await;
        for line in ["GET http://ORIGIN/", "CONNECT ORIGIN"] {
            let mut client = proxy.client().await;
            let line = line.replace("ORIGIN", &format!("localhost:{}", origin.port()));
            client.send(&format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
            let mut upstream = origin.accept().await;
            let (answer, _) = client.rest_or_reset().await;
            assert_eq!(answer.starts_with(b"HTTP/1.1 200 "), line.starts_with("CONNECT"));
            // It has had the request, and then its end.
            drop(upstream.rest_or_reset().await);
        }
        proxy.idle().await;
    })
    .await;
}

/// For one tunnel to a destination, which is waited for less long than an idle one is kept.
fn one_at_a_time() -> TunnelConfig {
    TunnelConfig { max_per_destination: 1, acquire_timeout: Duration::from_secs(4), ..TunnelConfig::default() }
}

#[tokio::test]
async fn a_connection_that_is_kept_gives_way_to_who_waits() {
    timely(async {
        let (proxy, origin) = (Proxy::with(one_at_a_time()).await, Origin::start().await);
        let request = format!("GET http://localhost:{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.port());
        let (mut ann, mut bob) = (proxy.client().await, proxy.client().await);
        // The origin closes none of them.
        let mut all = Vec::new();
        for _ in 0..3 {
            for client in [&mut ann, &mut bob] {
                client.send(&request).await;
                let mut upstream = origin.accept().await;
                upstream.head().await;
                upstream.send(OK).await;
                assert_eq!(status(&client.until("ok").await), "200");
                all.push(upstream);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_connection_is_not_kept_when_others_wait_already() {
    timely(async {
        let (proxy, origin) = (Proxy::with(one_at_a_time()).await, Origin::start().await);
        let request = format!("GET http://localhost:{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.port());
        let (mut ann, mut bob) = (proxy.client().await, proxy.client().await);
        ann.send(&request).await;
        let mut of_ann = origin.accept().await;
        of_ann.head().await;
        bob.send(&request).await;
        while proxy.shared.connector.stats().destinations.iter().all(|destination| destination.waiting == 0) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        of_ann.send(OK).await;
        ann.until("ok").await;
        assert_eq!(of_ann.rest().await, "");
        let mut of_bob = origin.accept().await;
        of_bob.head().await;
        of_bob.send(OK).await;
        assert_eq!(status(&bob.until("ok").await), "200");
    })
    .await;
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_takes_its_exchange_with_it() {
    timely(async {
        let (proxy, origin) = (Proxy::start().await, Origin::start().await);
        let mut client = proxy.client().await;
        client.send(&format!("GET http://localhost:{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.port())).await;
        let mut upstream = origin.accept().await;
        upstream.head().await;
        drop(client);
        assert_eq!(upstream.rest_or_reset().await.0, b"");
        proxy.idle().await;
    })
    .await;
}

#[tokio::test]
async fn the_end_of_the_server_waits_for_answers_and_tunnels() {
    timely(async {
        let (proxy, origin) = (Proxy::start().await, Origin::start().await);
        let url = format!("http://localhost:{}", origin.port());
        let [mut idle, mut busy, mut tunnel] = [proxy.client().await, proxy.client().await, proxy.client().await];
        let mut begun = proxy.client().await;
        begun.send("GET ").await;
        idle.send(&format!("OPTIONS {url} HTTP/1.1\r\nHost: x\r\nMax-Forwards: 0\r\n\r\n")).await;
        idle.head().await;
        busy.send(&format!("GET {url}/ HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        let mut upstream = origin.accept().await;
        upstream.head().await;
        tunnel.send(&format!("CONNECT localhost:{} HTTP/1.1\r\nHost: x\r\n\r\n", origin.port())).await;
        let mut far = origin.accept().await;
        tunnel.head().await;
        proxy.shared.closing.send_replace(true);
        assert_eq!(idle.rest().await, "");
        begun.gone().await;
        let bulk = "x".repeat(5_000_000);
        let (length, sent) = (bulk.len(), bulk.clone());
        let send = tokio::spawn(async move {
            upstream.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{sent}")).await;
            upstream
        });
        let answer = busy.rest().await;
        assert!(fields(answer.split_once("\r\n\r\n").unwrap().0).contains(&"connection: close".to_owned()));
        assert!(answer.ends_with(&bulk));
        send.await.unwrap();
        far.send("still here").await;
        assert_eq!(tunnel.exactly(10).await, "still here");
        drop((far, tunnel));
        proxy.idle().await;
    })
    .await;
}
