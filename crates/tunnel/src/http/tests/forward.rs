//! Requests in absolute form, and who may send them.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::*;
use crate::config::Via;

fn get(port: u16, path: &str, lines: &str) -> String {
    format!("GET http://localhost:{port}{path} HTTP/1.1\r\nHost: wrong.example\r\n{lines}\r\n")
}

#[tokio::test]
async fn a_request_goes_on_as_the_origin_expects_it() {
    timely(async {
        let (proxy, origin) = (Proxy::start().await, Origin::start().await);
        let mut client = proxy.client().await;
        let lines = "Proxy-Authorization: Basic c2VjcmV0\r\nProxy-Connection: keep-alive\r\nConnection: X-Hop, keep-alive\r\n\
                     X-Hop: 1\r\nKeep-Alive: timeout=1\r\nTE: gzip\r\nVia: 1.0 other\r\nAuthorization: Basic origin\r\nX-Own: a\r\nX-Own: b\r\n";
        client.send(&get(origin.port(), "/a/../b?c=%20d#e", lines)).await;
        let mut upstream = origin.accept().await;
        let head = upstream.head().await;
        assert!(head.starts_with("GET /a/../b?c=%20d HTTP/1.1\r\n"), "{head}");
        let host = format!("host: localhost:{}", origin.port());
        let expected = ["authorization: basic origin", &host, "via: 1.0 other", "x-own: a", "x-own: b"];
        assert_eq!(fields(&head), expected);
        assert!(head.contains("\r\nX-Own: a\r\n"), "names keep their letters: {head}");
        let lines = "Connection: close, x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=1\r\nProxy-Authenticate: Basic\r\nSet-Cookie: a\r\n\
                     Set-Cookie: b\r\nContent-Length: 2\r\n";
        upstream.send(&format!("HTTP/1.1 299 As It Came\r\n{lines}\r\nok")).await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 299 As It Came\r\n"), "{head}");
        assert_eq!(fields(&head), ["content-length: 2", "set-cookie: a", "set-cookie: b"]);
        assert_eq!(client.exactly(2).await, "ok");
    })
    .await;
}

#[tokio::test]
async fn a_connection_serves_one_client_and_one_destination() {
    timely(async {
        let (proxy, first, second) = (Proxy::start().await, Origin::start().await, Origin::start().await);
        let (mut ann, mut bob) = (proxy.client().await, proxy.client().await);
        ann.send(&get(first.port(), "/1", "")).await;
        let mut of_ann = first.accept().await;
        assert!(of_ann.head().await.starts_with("GET /1 "));
        of_ann.send(OK).await;
        ann.until("ok").await;
        // The same client, the same destination.
        ann.send(&get(first.port(), "/2", "")).await;
        assert!(of_ann.head().await.starts_with("GET /2 "));
        of_ann.send(OK).await;
        ann.until("ok").await;
        // Another client.
        bob.send(&get(first.port(), "/3", "")).await;
        let mut of_bob = first.accept().await;
        assert!(of_bob.head().await.starts_with("GET /3 "));
        of_bob.send(OK).await;
        bob.until("ok").await;
        // Another destination: the connection to the first one ends.
        ann.send(&get(second.port(), "/4", "")).await;
        let mut upstream = second.accept().await;
        assert!(upstream.head().await.starts_with("GET /4 "));
        assert_eq!(of_ann.rest().await, "");
        upstream.send(OK).await;
        ann.until("ok").await;
        // A client that leaves.
        drop(bob);
        assert_eq!(of_bob.rest().await, "");
        drop(ann);
        assert_eq!(upstream.rest().await, "");
        proxy.idle().await;
    })
    .await;
}

#[tokio::test]
async fn a_connection_is_not_kept_for_long() {
    timely(async {
        let (proxy, origin) = (Proxy::start().await, Origin::start().await);
        let mut client = proxy.client().await;
        client.send(&get(origin.port(), "/", "")).await;
        let mut upstream = origin.accept().await;
        upstream.head().await;
        upstream.send("HTTP/1.1 200 OK\r\nkeep-alive: timeout=1\r\ncontent-length: 2\r\n\r\nok").await;
        client.until("ok").await;
        // The client stays, and its tunnel's permit is free again.
        assert_eq!(upstream.rest().await, "");
        client.send(&get(origin.port(), "/", "")).await;
        origin.accept().await.head().await;
    })
    .await;
}

#[tokio::test]
async fn other_forms_are_refused_with_the_remedy() {
    timely(async {
        let proxy = Proxy::start().await;
        for (line, remedy) in [
            ("GET https://a.example/x", "CONNECT a.example:443"),
            ("GET ftp://a.example/x", "http://"),
            ("GET /x", "this is a proxy"),
            ("OPTIONS *", "this is a proxy"),
            ("GET http://ann:secret@a.example/", "HOST:PORT"),
        ] {
            let answer = proxy.ask(&format!("{line} HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n")).await;
            assert_eq!(status(&answer), "400", "{line}");
            assert!(answer.contains(remedy) && !answer.contains("secret"), "{answer}");
        }
        let twice = "GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n";
        assert_eq!(status(&proxy.ask(twice).await), "400");
    })
    .await;
}

#[tokio::test]
async fn max_forwards_is_spent() {
    timely(async {
        let (proxy, origin) = (Proxy::start().await, Origin::start().await);
        let ask = |method: &str, left: &str| {
            let url = format!("http://localhost:{}/", origin.port());
            let secrets = "Cookie: secret\r\nAuthorization: secret\r\nX-Seen: 1";
            format!(
                "{method} {url} HTTP/1.1\r\nHost: x\r\n{secrets}\r\nMax-Forwards: {left}\r\nConnection: close\r\n\r\n"
            )
        };
        let answer = proxy.ask(&ask("OPTIONS", "0")).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("allow: CONNECT, "), "{answer}");
        let answer = proxy.ask(&ask("TRACE", "0")).await;
        assert!(answer.contains("message/http") && answer.contains("\r\nx-seen: 1\r\n"), "{answer}");
        assert!(!answer.contains("secret"), "{answer}");
        assert!(origin.is_untouched());
        for (method, expected) in [("OPTIONS", "2"), ("TRACE", "2"), ("GET", "3")] {
            let mut client = proxy.client().await;
            client.send(&ask(method, "3")).await;
            let head = origin.accept().await.head().await;
            assert!(fields(&head).contains(&format!("max-forwards: {expected}")), "{head}");
        }
    })
    .await;
}

#[tokio::test]
async fn each_request_says_who_asks() {
    timely(async {
        let (proxy, origin) = (Proxy::with_user().await, Origin::start().await);
        let user = |user: &str| format!("Proxy-Authorization: Basic {}\r\n", STANDARD.encode(user));
        let mut client = proxy.client().await;
        client.send(&get(origin.port(), "/", &user("ann:one"))).await;
        let mut upstream = origin.accept().await;
        assert!(!upstream.head().await.to_ascii_lowercase().contains("proxy-authorization"));
        upstream.send(OK).await;
        client.until("ok").await;
        // The same connection, another asker.
        for lines in [String::new(), user("ann:two")] {
            client.send(&get(origin.port(), "/", &lines)).await;
            let head = client.head().await;
            assert_eq!(status(&head), "407");
            assert!(head.contains("proxy-authenticate: Basic realm="), "{head}");
            client.until("\n").await;
        }
        client.send(&get(origin.port(), "/again", &user("ann:one"))).await;
        assert!(upstream.head().await.starts_with("GET /again "));
        let tunnel = |lines: &str| format!("CONNECT localhost:{} HTTP/1.1\r\nHost: x\r\n{lines}\r\n", origin.port());
        let answer = proxy.ask(&tunnel("")).await;
        assert!(status(&answer) == "407" && answer.contains("connection: close"), "{answer}");
        // What is wrong with a request is nobody's business who is not known.
        assert_eq!(status(&proxy.ask("CONNECT nowhere HTTP/1.1\r\n\r\n").await), "407");
        let mut client = proxy.client().await;
        client.send(&tunnel(&user("ann:one"))).await;
        assert_eq!(status(&client.head().await), "200");
    })
    .await;
}

#[tokio::test]
async fn who_guesses_has_three_guesses_a_connection() {
    timely(async {
        let (proxy, origin) = (Proxy::with_user().await, Origin::start().await);
        let user = |user: &str| format!("Proxy-Authorization: Basic {}\r\n", STANDARD.encode(user));
        let mut client = proxy.client().await;
        let guesses = [user("ann:two"), user("ann"), "Proxy-Authorization: Bearer x\r\n".to_owned()];
        for (lines, is_last) in guesses.iter().zip([false, false, true]) {
            client.send(&get(origin.port(), "/", lines)).await;
            let head = client.head().await;
            assert_eq!(status(&head), "407");
            assert_eq!(head.contains("connection: close"), is_last, "{head}");
            client.until("\n").await;
        }
        // What comes behind the third is not looked at.
        client.send(&get(origin.port(), "/", &user("ann:one"))).await;
        client.gone().await;
        assert!(origin.is_untouched());
        // The operator was told of the first, and is of the rest with the first that comes a minute later.
        let later = tokio::time::Instant::now() + Duration::from_secs(60);
        assert_eq!(proxy.shared.users(&Terms::default()).refused(0, later), Some(3));
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_was_kept_is_not_used_past_other_rules() {
    timely(async {
        let (proxy, origin) = (Proxy::start().await, Origin::start().await);
        let connector = &proxy.shared.connector;
        let mut client = proxy.client().await;
        client.send(&get(origin.port(), "/1", "")).await;
        let mut upstream = origin.accept().await;
        upstream.head().await;
        upstream.send(OK).await;
        client.until("ok").await;
        // What has nothing to do with ways leaves it.
        let more = TunnelConfig { max_tunnels: 50, ..TunnelConfig::default() };
        drop(connector.prepare(more.clone()).unwrap().apply());
        client.send(&get(origin.port(), "/2", "")).await;
        assert!(upstream.head().await.starts_with("GET /2 "));
        upstream.send(OK).await;
        client.until("ok").await;
        let closed = TunnelConfig { default: Via::Reject, ..more };
        drop(connector.prepare(closed).unwrap().apply());
        client.send(&get(origin.port(), "/3", "")).await;
        assert_eq!(status(&client.head().await), "403");
        upstream.gone().await;
        assert!(origin.is_untouched());
    })
    .await;
}

#[tokio::test]
async fn an_origin_that_cannot_be_asked_is_explained() {
    timely(async {
        let (proxy, closed) = (Proxy::start().await, Origin::start().await.port());
        let mut client = proxy.client().await;
        for _ in 0..2 {
            client.send(&get(closed, "/", "")).await;
            let head = client.head().await;
            assert_eq!(status(&head), "502");
            assert!(head.contains("keepwarm-error: refused"), "{head}");
            client.until("\n").await;
        }
        let own = proxy.address.port();
        client.send(&get(own, "/", "")).await;
        assert_eq!(status(&client.head().await), "403", "a loop");
    })
    .await;
}
