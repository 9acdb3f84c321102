//! Each path, over h2 and HTTP/1.1.

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use keepwarm_lab::{Echo, OriginFaults, Upload, expected_body, sha256_hex};
use std::time::Duration;

use crate::client::{H1, H2, faulty, never, origin, read, read_body, read_end, soon, talk, tls, until};

#[tokio::test]
async fn answers_encode_their_request() {
    let lab = origin(2).await;
    let [one, two] = lab.addresses()[..] else { panic!("two addresses") };
    let h2 = H2::connect(&lab, one).await;
    let mut h1 = H1::connect(&lab, two).await;
    for round in 1..=3_u32 {
        let path = format!("/echo/{round}?x={round}");
        let body = format!("body {round}");
        let over_h2 = h2.post(&path, body.as_bytes()).await.unwrap();
        let over_h1 = h1.exchange(Method::POST, &path, body.as_bytes()).await.unwrap();
        for (answer, ip, connection, version) in [(over_h2, one, 1, "HTTP/2.0"), (over_h1, two, 2, "HTTP/1.1")] {
            assert_eq!(answer.headers()["lab-address"], ip.to_string());
            assert_eq!(answer.headers()["lab-connection"], connection.to_string());
            assert_eq!(answer.headers()["lab-request"], round.to_string());
            let echo: Echo = serde_json::from_slice(&answer.body().0).unwrap();
            assert_eq!((echo.method.as_str(), echo.version.as_str()), ("POST", version));
            assert_eq!((echo.path, echo.query), (format!("/echo/{round}"), format!("x={round}")));
            assert_eq!((echo.authority.as_str(), echo.sni.as_str()), ("tiles.test", "tiles.test"));
            assert_eq!(echo.address, ip.to_string());
            assert_eq!((echo.connection, echo.request), (connection, round));
            assert_eq!((echo.length, echo.sha256), (6, sha256_hex(body.as_bytes())));
            assert_eq!(echo.body, body);
        }
    }
    let (total, at_one) = (lab.total(), lab.counters(one));
    assert_eq!(
        (total.requests, total.answers, total.accepted, total.open_max, total.paths["POST /echo"]),
        (6, 6, 2, 2, 6)
    );
    assert_eq!((at_one.requests, at_one.connections_h2, at_one.connections_h1, at_one.body_bytes), (3, 1, 0, 18));
    assert_eq!((total.streams_open, total.streams_max, total.aborted), (0, 1, 0));
    lab.reset_counters();
    let total = lab.total();
    assert_eq!((total.requests, total.open, total.open_max, total.accepted), (0, 2, 2, 0));
}

#[tokio::test]
async fn bodies_are_those_expected_and_head_has_none() {
    let lab = origin(1).await;
    let ip = lab.addresses()[0];
    let h2 = H2::connect(&lab, ip).await;
    let mut h1 = H1::connect(&lab, ip).await;
    for length in [0_u64, 1, 16_384, 100_001] {
        let path = format!("/bytes/{length}");
        let expected = expected_body(&path, 0..length);
        let over_h2 = h2.get(&path).await.unwrap();
        let over_h1 = h1.get(&path).await.unwrap();
        for answer in [over_h2, over_h1] {
            assert_eq!(answer.headers()["content-length"], length.to_string());
            assert!(answer.body().0 == expected, "{length}");
        }
        let over_h2 = read(h2.open(Method::HEAD, &path, true).await.unwrap().0).await.unwrap();
        let over_h1 = h1.exchange(Method::HEAD, &path, b"").await.unwrap();
        for answer in [over_h2, over_h1] {
            assert_eq!(
                (answer.headers()["content-length"].to_str().unwrap(), answer.body().0.len()),
                (&*length.to_string(), 0)
            );
        }
    }
    for (path, status) in [("/", 200), ("/status/404", 404), ("/status/204", 204), ("/status/9", 500), ("/what", 404)] {
        assert_eq!(h2.get(path).await.unwrap().status(), status, "{path}");
        assert_eq!(h1.get(path).await.unwrap().status(), status, "{path}");
    }
    assert_eq!((lab.total().accepted, lab.total().paths["HEAD /bytes"], lab.total().paths["GET /"]), (2, 8, 2));
}

#[tokio::test]
async fn trailers_go_both_ways() {
    let lab = origin(1).await;
    let ip = lab.addresses()[0];
    let h2 = H2::connect(&lab, ip).await;
    let (response, mut stream) = h2.open(Method::POST, "/trailers", false).await.unwrap();
    stream.send_data(Bytes::from_static(b"body"), false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "7".parse().unwrap());
    stream.send_trailers(trailers).unwrap();
    let answer = read(response).await.unwrap();
    let (body, trailers) = answer.body();
    assert_eq!((&body[..], &trailers["echo-x-sum"]), (&b"body"[..], &"7".parse().unwrap()));
    assert_eq!(trailers["lab-sha256"], sha256_hex(b"body"));

    let mut stream = tls(&lab, ip, "http/1.1").await.unwrap();
    let request = "POST /trailers HTTP/1.1\r\nhost: tiles.test\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nx-sum: 7\r\n\r\n";
    let head = talk(&mut stream, request, "\r\n\r\n").await;
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    let body = talk(&mut stream, "", "\r\n\r\n").await;
    assert!(body.starts_with("4\r\nbody\r\n0\r\n") && body.contains("echo-x-sum: 7\r\n"), "{body}");
    assert!(body.contains(&format!("lab-sha256: {}\r\n", sha256_hex(b"body"))), "{body}");
}

#[tokio::test]
async fn uploads_are_counted_and_summed() {
    let lab = origin(1).await;
    let ip = lab.addresses()[0];
    let body = expected_body("upload", 0..300_000);
    let over_h1 = H1::connect(&lab, ip).await.exchange(Method::PUT, "/upload", &body).await.unwrap();
    let h2 = H2::connect(&lab, ip).await;
    let over_h2 = h2.post("/upload", &body).await.unwrap();
    for answer in [over_h1, over_h2] {
        let upload: Upload = serde_json::from_slice(&answer.body().0).unwrap();
        assert_eq!(upload, Upload { length: 300_000, sha256: sha256_hex(&body), trailers: Vec::new() });
    }
    assert_eq!(lab.total().body_bytes, 600_000);
}

#[tokio::test]
async fn streams_have_no_length_and_end_or_do_not() {
    let lab = origin(1).await;
    let ip = lab.addresses()[0];
    let h2 = H2::connect(&lab, ip).await;
    let mut h1 = H1::connect(&lab, ip).await;
    for answer in [h2.get("/stream/3").await.unwrap(), h1.get("/stream/3").await.unwrap()] {
        assert!(!answer.headers().contains_key("content-length"));
        assert_eq!(answer.body().0, expected_body("/stream/3", 0..192));
    }
    let (response, mut stream) = h2.open(Method::GET, "/stream", true).await.unwrap();
    let mut body = soon(response).await.unwrap().into_body();
    let mut read = Vec::new();
    while read.len() < 256 {
        read.extend_from_slice(&soon(body.data()).await.unwrap().unwrap());
    }
    assert_eq!(read, expected_body("/stream", 0..read.len() as u64));
    assert_eq!(lab.total().streams_open, 1);
    stream.send_reset(h2::Reason::CANCEL);
    until(|| lab.total().aborted == 1).await;
    let answer = h1.start(Method::GET, "/stream", b"").await.unwrap();
    drop((answer, h1));
    until(|| lab.total().aborted == 2).await;
    assert_eq!((lab.total().streams_open, lab.total().closed_by_peer), (0, 1));
}

#[tokio::test]
async fn early_answers_do_not_wait_for_the_body() {
    let (lab, ip) = faulty(OriginFaults::default()).await;
    let h2 = H2::connect(&lab, ip).await;
    let (response, mut stream) = h2.open(Method::POST, "/early", false).await.unwrap();
    assert_eq!(soon(response).await.unwrap().status(), 413);
    let reason = soon(std::future::poll_fn(|cx| stream.poll_reset(cx))).await.unwrap();
    assert_eq!(reason, h2::Reason::NO_ERROR);
    let request = |path| format!("POST {path} HTTP/1.1\r\nhost: tiles.test\r\ncontent-length: 1000\r\n\r\n");
    let mut stream = tls(&lab, ip, "http/1.1").await.unwrap();
    let head = talk(&mut stream, &request("/early"), "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 413") && head.contains("connection: close"), "{head}");
    assert!(read_end(&mut stream).await.1.is_ok());

    lab.update_faults(ip, |faults| faults.early_status = Some(401));
    let (response, _stream) = h2.open(Method::POST, "/upload", false).await.unwrap();
    assert_eq!(soon(response).await.unwrap().status(), 401);
    let mut stream = tls(&lab, ip, "http/1.1").await.unwrap();
    assert!(talk(&mut stream, &request("/upload"), "\r\n\r\n").await.starts_with("HTTP/1.1 401"));
    assert_eq!(h2.get("/").await.unwrap().status(), 200);
}

#[tokio::test]
async fn expectations_are_met_or_refused() {
    let lab = origin(1).await;
    let ip = lab.addresses()[0];
    let request = |path: &str| {
        format!("POST {path} HTTP/1.1\r\nhost: tiles.test\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n")
    };
    let mut stream = tls(&lab, ip, "http/1.1").await.unwrap();
    assert_eq!(talk(&mut stream, &request("/expect?delay=20"), "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    let head = talk(&mut stream, "body", "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200") && !head.contains("connection: close"), "{head}");
    talk(&mut stream, "", "}").await;
    let head = talk(&mut stream, &request("/expect/417"), "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 417") && head.contains("connection: close"), "{head}");

    let h2 = H2::connect(&lab, ip).await;
    let request = Request::post("https://tiles.test/expect?delay=0").header("expect", "100-continue").body(()).unwrap();
    let (mut response, mut stream) = h2.start(request, false).await.unwrap();
    let informed = soon(std::future::poll_fn(|cx| response.poll_informational(cx))).await.unwrap().unwrap();
    assert_eq!(informed.status(), 100);
    stream.send_data(Bytes::from_static(b"body"), true).unwrap();
    let upload: Upload = serde_json::from_slice(&read(response).await.unwrap().body().0).unwrap();
    assert_eq!(upload.length, 4);
}

#[tokio::test]
async fn streams_of_one_connection_are_answered_each_with_its_own() {
    let (lab, ip) = faulty(OriginFaults { delay: Duration::from_millis(100), ..OriginFaults::default() }).await;
    let h2 = H2::connect(&lab, ip).await;
    let mut answers = Vec::new();
    for number in 0..50 {
        answers.push((number, h2.open(Method::GET, &format!("/echo?n={number}"), true).await.unwrap().0));
    }
    until(|| lab.total().streams_open == 50).await;
    for (number, answer) in answers {
        let echo: Echo = serde_json::from_slice(&read(answer).await.unwrap().body().0).unwrap();
        assert_eq!(echo.query, format!("n={number}"));
    }
    let total = lab.total();
    assert_eq!(
        (total.streams_max, total.streams_per_connection_max, total.streams_open, total.accepted),
        (50, 50, 0, 1)
    );
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_body() {
    let lab = origin(1).await;
    let h2 = H2::connect(&lab, lab.addresses()[0]).await;
    let (response, _stream) = h2.open(Method::GET, "/bytes/10000000", true).await.unwrap();
    let mut body = soon(response).await.unwrap().into_body();
    let mut held = 0;
    while held < 65_535 {
        // The window is not given back.
        held += soon(body.data()).await.unwrap().unwrap().len();
    }
    never(body.data()).await;
    body.flow_control().release_capacity(held).unwrap();
    let (rest, error) = read_body(&mut body).await;
    assert!(error.is_none() && held + rest.len() == 10_000_000);
    assert!(rest == expected_body("/bytes/10000000", held as u64..10_000_000));
}

#[tokio::test]
async fn what_is_no_http_is_refused() {
    let lab = origin(1).await;
    let ip = lab.addresses()[0];
    for request in ["nonsense\r\n\r\n", "POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n"] {
        let mut stream = tls(&lab, ip, "http/1.1").await.unwrap();
        assert!(talk(&mut stream, request, "\r\n\r\n").await.starts_with("HTTP/1.1 400"));
        assert!(read_end(&mut stream).await.1.is_ok());
    }
    let mut stream = tls(&lab, ip, "http/1.1").await.unwrap();
    let old = talk(&mut stream, "GET /stream/2 HTTP/1.0\r\n\r\n", "\r\n\r\n").await;
    assert!(old.contains("connection: close") && !old.contains("chunked"), "{old}");
    let (body, end) = read_end(&mut stream).await;
    assert!(end.is_ok() && body == expected_body("/stream/2", 0..128));
}
