//! A connection that was kept, and turns out to be closed.

use super::*;

/// A client whose connection to the origin is kept after one request.
async fn kept() -> (Proxy, Origin, Client, Client) {
    let (proxy, origin) = (Proxy::start().await, Origin::start().await);
    let mut client = proxy.client().await;
    client.send(&request(&origin, "GET", "/first", "")).await;
    let mut upstream = origin.accept().await;
    upstream.head().await;
    upstream.send(OK).await;
    client.until("ok").await;
    (proxy, origin, client, upstream)
}

fn request(origin: &Origin, method: &str, path: &str, body: &str) -> String {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    format!("{method} http://localhost:{}{path} HTTP/1.1\r\nHost: x\r\n{length}\r\n{body}", origin.port())
}

#[tokio::test]
async fn a_safe_request_is_sent_again_once() {
    timely(async {
        for method in ["GET", "HEAD", "OPTIONS", "DELETE"] {
            let (_proxy, origin, mut client, mut upstream) = kept().await;
            client.send(&request(&origin, method, "/again", "")).await;
            let before = upstream.head().await;
            drop(upstream);
            let mut second = origin.accept().await;
            assert_eq!(second.head().await, before);
            // A connection that is new has no excuse.
            drop(second);
            assert_eq!(status(&client.head().await), "502", "{method}");
            assert!(origin.is_untouched());
        }
    })
    .await;
}

#[tokio::test]
async fn a_request_that_may_have_been_served_is_not_sent_again() {
    timely(async {
        for (method, body) in [("POST", ""), ("PATCH", ""), ("PUT", "body"), ("POST", "body")] {
            let (_proxy, origin, mut client, mut upstream) = kept().await;
            client.send(&request(&origin, method, "/once", body)).await;
            upstream.head().await;
            upstream.exactly(body.len()).await;
            drop(upstream);
            assert_eq!(status(&client.head().await), "502", "{method} {body:?}");
            assert!(origin.is_untouched());
        }
        // Nor one whose answer has begun.
        let (_proxy, origin, mut client, mut upstream) = kept().await;
        client.send(&request(&origin, "GET", "/once", "")).await;
        upstream.head().await;
        upstream.send("HTTP/1.1 2").await;
        drop(upstream);
        assert_eq!(status(&client.head().await), "502");
        assert!(origin.is_untouched());
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_has_closed_meanwhile_is_not_used() {
    timely(async {
        for (method, body) in [("GET", ""), ("POST", "body")] {
            let (proxy, origin, mut client, upstream) = kept().await;
            drop(upstream);
            // The proxy has seen it when it has given the permit back.
            while proxy.shared.connector.stats().live > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            client.send(&request(&origin, method, "/second", body)).await;
            let mut second = origin.accept().await;
            assert!(second.head().await.contains(" /second "));
            assert_eq!(second.exactly(body.len()).await, body);
            second.send(OK).await;
            assert!(client.until("ok").await.starts_with("HTTP/1.1 200 "));
        }
    })
    .await;
}

#[tokio::test]
async fn stray_bytes_of_an_origin_are_no_answer() {
    timely(async {
        let (proxy, origin, mut client, mut upstream) = kept().await;
        upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nstray").await;
        while proxy.shared.connector.stats().live > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        client.send(&request(&origin, "GET", "/second", "")).await;
        let mut second = origin.accept().await;
        second.head().await;
        second.send(OK).await;
        assert!(client.until("ok").await.starts_with("HTTP/1.1 200 "));
    })
    .await;
}

#[tokio::test]
async fn a_connection_whose_upload_is_unfinished_is_not_kept() {
    timely(async {
        let (_proxy, origin, mut client, mut upstream) = kept().await;
        let head =
            format!("POST http://localhost:{}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf", origin.port());
        client.send(&head).await;
        upstream.head().await;
        upstream.exactly(4).await;
        upstream.send(OK).await;
        let answer = client.until("ok").await;
        assert_eq!(status(&answer), "200");
        assert_eq!(upstream.rest_or_reset().await.0, b"");
    })
    .await;
}
