//! Where messages begin and end: bodies, interim answers, old clients, and those who try to make two sides read differently.

use super::*;

/// A proxy, an origin, a client that has sent a request, and the connection that it came over, its head read.
async fn asked(head: &str) -> (Proxy, Client, Client, String) {
    let (proxy, origin) = (Proxy::start().await, Origin::start().await);
    let mut client = proxy.client().await;
    client.send(&head.replace("ORIGIN", &format!("localhost:{}", origin.port()))).await;
    let mut upstream = origin.accept().await;
    let head = upstream.head().await;
    (proxy, client, upstream, head)
}

const GET: &str = "GET http://ORIGIN/ HTTP/1.1\r\nHost: x\r\n\r\n";

#[tokio::test]
async fn bodies_go_both_ways_whole() {
    timely(async {
        let bulk = "0123456789abcdef".repeat(300_000);
        let head = format!("POST http://ORIGIN/ HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", bulk.len());
        let (_proxy, mut client, mut upstream, head) = asked(&head).await;
        assert!(fields(&head).contains(&format!("content-length: {}", bulk.len())), "{head}");
        let (sent, length) = (bulk.clone(), bulk.len());
        let echo = tokio::spawn(async move {
            let body = upstream.exactly(length).await;
            upstream.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}")).await;
            upstream
        });
        client.send(&sent).await;
        client.head().await;
        assert!(client.exactly(length).await == bulk);
        echo.await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn chunks_and_trailers_go_both_ways() {
    timely(async {
        let head = "POST http://ORIGIN/ HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n";
        let (_proxy, mut client, mut upstream, head) = asked(head).await;
        let fields_up = fields(&head);
        for expected in ["te: trailers", "connection: te", "transfer-encoding: chunked", "trailer: x-sum"] {
            assert!(fields_up.contains(&expected.to_owned()), "{head}");
        }
        client.send("5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n").await;
        let body = upstream.until("\r\n\r\n").await.to_ascii_lowercase();
        assert_eq!(body, "5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n");
        let lines = "Transfer-Encoding: chunked\r\nTrailer: X-End";
        upstream.send(&format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n3\r\nabc\r\n0\r\nX-End: 2\r\n\r\n")).await;
        assert!(fields(&client.head().await).contains(&"transfer-encoding: chunked".to_owned()));
        assert_eq!(client.until("\r\n\r\n").await.to_ascii_lowercase(), "3\r\nabc\r\n0\r\nx-end: 2\r\n\r\n");
    })
    .await;
}

#[tokio::test]
async fn an_answer_may_end_with_its_connection() {
    timely(async {
        let (_proxy, mut client, mut upstream, _) = asked(GET).await;
        upstream.send("HTTP/1.1 200 OK\r\n\r\nto the end").await;
        drop(upstream);
        assert!(fields(&client.head().await).contains(&"transfer-encoding: chunked".to_owned()));
        let body = client.until("0\r\n\r\n").await.to_ascii_lowercase();
        assert_eq!(body.replace("a\r\n", "").replace("\r\n", ""), "to the end0");
        // And one of HTTP/1.0, which means no chunks, may go over a connection that is not used again.
        let (_proxy, mut client, mut upstream, _) = asked(GET).await;
        upstream.send("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        client.until("ok").await;
        assert_eq!(upstream.rest().await, "");
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_taken_for_a_whole_one() {
    timely(async {
        let cut = [
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf",
        ];
        for answer in cut {
            let (_proxy, mut client, mut upstream, _) = asked(GET).await;
            upstream.send(answer).await;
            drop(upstream);
            let (got, _) = client.rest_or_reset().await;
            let got = String::from_utf8(got).unwrap();
            assert!(got.contains("half") && !got.ends_with("0\r\n\r\n"), "{got:?}");
            // A client of HTTP/1.0 knows the end of the second by the connection's, so that has to be a reset.
            let (_proxy, mut client, mut upstream, _) = asked("GET http://ORIGIN/ HTTP/1.0\r\n\r\n").await;
            upstream.send(answer).await;
            let mut got = client.head().await;
            got += &client.exactly(4).await;
            drop(upstream);
            let (rest, end) = client.rest_or_reset().await;
            assert!(rest.is_empty(), "{got:?} {rest:?}");
            assert!(end.is_err() || fields(&got).contains(&"content-length: 9".to_owned()), "{got:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn clients_of_http_1_0_are_answered_in_kind() {
    timely(async {
        let chunked = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
        let (_proxy, mut client, mut upstream, head) = asked("GET http://ORIGIN/ HTTP/1.0\r\n\r\n").await;
        assert!(head.starts_with("GET / HTTP/1.1\r\n") && head.to_ascii_lowercase().contains("host: localhost"), "{head}");
        upstream.send(chunked).await;
        let answer = client.rest().await;
        assert!(answer.starts_with("HTTP/1.0 200 ") && answer.ends_with("\r\n\r\nhello"), "{answer}");
        assert!(!answer.contains("chunked"), "{answer}");
        let (_proxy, mut client, mut upstream, _) =
            asked("GET http://ORIGIN/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
        upstream.send(OK).await;
        assert!(fields(&client.until("ok").await).contains(&"connection: keep-alive".to_owned()));
        client.send("GET http://nowhere.invalid:1/ HTTP/1.0\r\n\r\n").await;
        assert_eq!(status(&client.rest().await), "502");
    })
    .await;
}

#[tokio::test]
async fn some_answers_have_no_body() {
    timely(async {
        for (method, answer, expected) in [
            ("HEAD", "200 OK\r\nContent-Length: 1000", Some("content-length: 1000")),
            ("GET", "204 No Content", None),
            ("GET", "304 Not Modified\r\nETag: a", Some("etag: a")),
        ] {
            let (_proxy, mut client, mut upstream, _) =
                asked(&format!("{method} http://ORIGIN/ HTTP/1.1\r\nHost: x\r\n\r\n")).await;
            upstream.send(&format!("HTTP/1.1 {answer}\r\n\r\n")).await;
            let head = client.head().await;
            assert!(expected.is_none_or(|line| fields(&head).contains(&line.to_owned())), "{head}");
            // The next answer follows at once.
            let port = upstream.0.local_addr().unwrap().port();
            client.send(&format!("GET http://localhost:{port}/next HTTP/1.1\r\nHost: x\r\n\r\n")).await;
            assert!(upstream.head().await.starts_with("GET /next "));
            upstream.send(OK).await;
            assert!(client.until("ok").await.starts_with("HTTP/1.1 200 "));
        }
    })
    .await;
}

#[tokio::test]
async fn a_body_waits_for_the_origins_word() {
    timely(async {
        let head = "PUT http://ORIGIN/ HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
        let (_proxy, mut client, mut upstream, head) = asked(head).await;
        assert!(fields(&head).contains(&"expect: 100-continue".to_owned()), "{head}");
        upstream.send("HTTP/1.1 100 Continue\r\n\r\n").await;
        assert_eq!(client.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
        client.send("hello").await;
        assert_eq!(upstream.exactly(5).await, "hello");
        upstream.send(OK).await;
        assert!(client.until("ok").await.starts_with("HTTP/1.1 200 "));
    })
    .await;
}

#[tokio::test]
async fn an_origin_may_refuse_a_body_before_it_comes() {
    timely(async {
        let head = "PUT http://ORIGIN/ HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
        let (_proxy, mut client, mut upstream, _) = asked(head).await;
        upstream.send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n").await;
        assert_eq!(status(&client.head().await), "417");
        // Nobody can tell now whether what comes next is a body, so neither connection is used again.
        assert_eq!(upstream.rest().await, "");
        client.0.shutdown().await.unwrap();
        assert_eq!(client.rest().await, "");
    })
    .await;
}

#[tokio::test]
async fn interim_answers_are_passed_on_in_order() {
    timely(async {
        let (_proxy, mut client, mut upstream, _) = asked(GET).await;
        upstream.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n").await;
        assert_eq!(client.head().await, "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n");
        upstream.send(&format!("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n{OK}")).await;
        assert_eq!(client.head().await, "HTTP/1.1 102 Processing\r\n\r\n");
        assert!(client.until("ok").await.starts_with("HTTP/1.1 200 "));
    })
    .await;
}

#[tokio::test]
async fn a_reader_that_waits_holds_the_origin_up() {
    timely(async {
        const PIECES: usize = 1024;
        let (_proxy, mut client, mut upstream, _) = asked(GET).await;
        let sent = Arc::new(AtomicUsize::new(0));
        let counter = sent.clone();
        let origin = tokio::spawn(async move {
            let piece = [b'x'; 1 << 16];
            upstream.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", PIECES << 16)).await;
            for _ in 0..PIECES {
                upstream.0.write_all(&piece).await.unwrap();
                counter.fetch_add(1, Ordering::Relaxed);
            }
            upstream
        });
        client.head().await;
        // Until it stands still; what it has sent by then is in sockets, and not here.
        let mut before = usize::MAX;
        while before != sent.load(Ordering::Relaxed) {
            before = sent.load(Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert!(before < PIECES / 2, "{before} of {PIECES} pieces were taken for a client that reads none");
        client.exactly(PIECES << 16).await;
        origin.await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn requests_with_two_meanings_are_refused() {
    timely(async {
        let (proxy, origin) = (Proxy::start().await, Origin::start().await);
        let ask = |lines: &str| {
            format!(
                "POST http://localhost:{}/ HTTP/1.1\r\nHost: x\r\n{lines}\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
                origin.port()
            )
        };
        for (lines, expected) in [
            ("Content-Length: 5\r\nContent-Length: 6", "400"),
            ("Content-Length: 5, 6", "400"),
            ("Content-Length: +5", "400"),
            ("Content-Length: -1", "400"),
            ("Content-Length: 0x5", "400"),
            ("Content-Length: 99999999999999999999", "400"),
            ("Transfer-Encoding: identity", "400"),
            ("Transfer-Encoding: chunked, gzip", "400"),
            ("Transfer-Encoding: xchunked", "400"),
            ("Transfer-Encoding: gzip, chunked", "501"),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "501"),
            ("X-Fold: a\r\n b", "400"),
            ("Content-Length : 5", "400"),
            ("X Name: 1", "400"),
            (": empty", "400"),
            ("X-Nul: a\0b", "400"),
            ("X-Return: a\rb", "400"),
            ("Host: y", "400"),
        ] {
            let mut client = proxy.client().await;
            client.send(&ask(lines)).await;
            let (answer, _) = client.rest_or_reset().await;
            let answer = String::from_utf8(answer).unwrap();
            assert_eq!(status(&answer), expected, "{lines:?}: {answer}");
            assert_eq!(answer.matches("HTTP/1.").count(), 1, "{lines:?}: {answer}");
        }
        let old = ask("Transfer-Encoding: chunked").replace("HTTP/1.1", "HTTP/1.0");
        assert_eq!(status(&proxy.ask(&old).await), "400");
        assert_eq!(status(&proxy.ask("GET http://a b/ HTTP/1.1\r\n\r\n").await), "400");
        assert!(origin.is_untouched());
    })
    .await;
}

#[tokio::test]
async fn chunks_count_where_a_length_is_beside_them() {
    timely(async {
        for lines in
            ["Content-Length: 3\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 3"]
        {
            let head = format!("POST http://ORIGIN/ HTTP/1.1\r\nHost: x\r\n{lines}\r\n\r\n");
            let (_proxy, mut client, mut upstream, head) = asked(&head).await;
            assert!(!head.to_ascii_lowercase().contains("content-length"), "{head}");
            client.send("5\r\nhello\r\n0\r\n\r\nGET http://localhost:1/smuggled HTTP/1.1\r\n\r\n").await;
            assert_eq!(upstream.until("0\r\n\r\n").await, "5\r\nhello\r\n0\r\n\r\n");
            upstream.send(OK).await;
            // RFC 9112 section 6.1: the connection ends with the answer.
            let answer = client.rest().await;
            assert!(answer.ends_with("ok") && fields(&answer).contains(&"connection: close".to_owned()), "{answer}");
        }
    })
    .await;
}

#[tokio::test]
async fn broken_chunks_end_both_connections() {
    timely(async {
        for chunk in ["zz\r\n", "-1\r\n", "5;\n\r\nhello\r\n", "fffffffffffffffff\r\n", "5\r\nhelloX", "\r\n"] {
            let head = "POST http://ORIGIN/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
            let (_proxy, mut client, mut upstream, _) = asked(head).await;
            client.send(&format!("3\r\nabc\r\n{chunk}GET /smuggled HTTP/1.1\r\n\r\n")).await;
            let (seen, _) = upstream.rest_or_reset().await;
            let seen = String::from_utf8(seen).unwrap();
            assert!(!seen.ends_with("0\r\n\r\n"), "{chunk:?}: the body looks whole: {seen:?}");
            assert!(!seen.contains("smuggled") || chunk.starts_with('5'), "{chunk:?}: {seen:?}");
            drop(upstream);
            let (answer, _) = client.rest_or_reset().await;
            assert!(!answer.starts_with(b"HTTP/1.1 200"), "{chunk:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn answers_with_two_meanings_do_not_arrive() {
    timely(async {
        for answer in [
            "Content-Length: 2\r\nContent-Length: 3\r\n\r\nok",
            "Content-Length: two\r\n\r\nok",
            "Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            "Transfer-Encoding: gzip\r\n\r\nok",
            "X Name: 1\r\n\r\n",
        ] {
            let (_proxy, mut client, mut upstream, _) = asked(GET).await;
            upstream.send(&format!("HTTP/1.1 200 OK\r\n{answer}")).await;
            assert_eq!(status(&client.head().await), "502", "{answer:?}");
            let (rest, _) = upstream.rest_or_reset().await;
            assert!(rest.is_empty());
        }
        // One length said twice, and chunks beside a length, have one meaning.
        for answer in [
            "Content-Length: 2\r\nContent-Length: 2\r\n\r\nok",
            "Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        ] {
            let (_proxy, mut client, mut upstream, _) = asked(GET).await;
            upstream.send(&format!("HTTP/1.1 200 OK\r\n{answer}")).await;
            let head = client.head().await;
            assert!(!head.contains("content-length: 9") && head.matches("content-length").count() < 2, "{head}");
            client.until("ok").await;
        }
    })
    .await;
}
