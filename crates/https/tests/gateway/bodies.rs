//! Bodies through the gateway: streamed in both directions, no faster than they are read, and never ended as if whole when they are not.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use keepwarm_lab::{OriginFaults, Upload, expected_body, sha256_hex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::setup::{BOTH, Rig, Settings, eventually, rig, start};

/// A body of so many pieces of a kilobyte, sent in chunks.
fn chunks(count: usize, trailers: Option<HeaderMap>) -> impl http_body::Body<Data = Bytes, Error = Infallible> + Send {
    let pieces = (0..count).map(|_| Ok(Frame::data(Bytes::from_static(&[7; 1024]))));
    StreamBody::new(futures_util::stream::iter(
        pieces.chain(trailers.into_iter().map(|trailers| Ok(Frame::trailers(trailers)))),
    ))
}

#[tokio::test]
async fn ten_mebibytes_arrive_byte_for_byte_in_either_direction() {
    for http in BOTH {
        let rig = start(Settings { http, ..Settings::default() }).await;
        let answer = rig.get("/bytes/10485760").await;
        assert_eq!(answer.header("content-length"), "10485760");
        assert!(answer.body == expected_body("/bytes/10485760", 0..10 << 20), "{http:?}");
        let request = Request::post(rig.path("/upload")).header("host", "localhost").body(chunks(10 << 10, None));
        let answer = rig.ask(request.expect("valid")).await;
        let upload: Upload = serde_json::from_slice(&answer.body).expect("json");
        assert_eq!((upload.length, upload.sha256), (10 << 20, sha256_hex(&vec![7; 10 << 20])));
        let streamed = rig.get("/stream/20").await;
        assert_eq!((streamed.body.len(), streamed.header("content-length")), (20 * 64, ""));
        // One may be that of the probe, which is made beside the first request.
        assert!(rig.lab.total().accepted <= 2, "all went over one connection");
    }
}

#[tokio::test]
async fn answers_without_a_body_have_none_and_keep_their_length() {
    for http in BOTH {
        let rig = start(Settings { http, ..Settings::default() }).await;
        let head = rig.ask(rig.request("HEAD", &rig.path("/bytes/12345"), &[])).await;
        assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, "12345", 0));
        // One connection carries all, so that a body where none belongs would be taken for the next answer.
        let mut asks = String::new();
        for (method, path) in
            [("HEAD", "/bytes/9"), ("GET", "/status/204"), ("GET", "/status/304"), ("HEAD", "/stream/3")]
        {
            asks += &format!("{method} {} HTTP/1.1\r\nhost: localhost\r\n\r\n", rig.path(path));
        }
        asks += &format!("GET {} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", rig.path("/bytes/3"));
        let bytes = rig.raw(&asks).await;
        let answers = String::from_utf8_lossy(&bytes);
        let statuses: Vec<&str> =
            answers.lines().filter_map(|line| line.strip_prefix("HTTP/1.1 ")).map(|line| &line[..3]).collect();
        assert_eq!(statuses, ["200", "204", "304", "200", "200"], "{answers}");
        assert!(bytes.ends_with(&[b"\r\n\r\n", &expected_body("/bytes/3", 0..3)[..]].concat()), "{answers}");
    }
}

#[tokio::test]
async fn trailers_of_a_request_arrive_and_those_of_an_answer_spoil_nothing() {
    for http in BOTH {
        let rig = start(Settings { http, ..Settings::default() }).await;
        let trailers = HeaderMap::from_iter([("x-sum".parse().expect("valid"), "42".parse().expect("valid"))]);
        let request = Request::post(rig.path("/trailers")).header("host", "localhost").header("trailer", "x-sum");
        let request =
            request.header("te", "trailers").header("connection", "te").body(chunks(3, Some(trailers.clone())));
        let answer = rig.ask(request.expect("valid")).await;
        assert_eq!(answer.body.len(), 3 * 1024);
        // The lab does not announce its own, so those have no place in an answer of HTTP/1.1 (see `passed`).
        assert_eq!(answer.trailers.len(), 0, "{http:?}");
        let request = Request::post(rig.path("/upload")).header("host", "localhost").header("trailer", "x-sum");
        let answer = rig.ask(request.body(chunks(3, Some(trailers))).expect("valid")).await;
        let upload: Upload = serde_json::from_slice(&answer.body).expect("json");
        assert_eq!(upload.trailers, [("x-sum".to_owned(), "42".to_owned())], "{http:?}");
    }
}

#[tokio::test]
async fn a_client_is_told_to_go_on_only_when_the_origin_wants_the_body() {
    for http in BOTH {
        let rig = start(Settings { http, ..Settings::default() }).await;
        let head = |path: &str| {
            format!(
                "POST {} HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 5\r\nconnection: close\r\n\r\n",
                rig.path(path)
            )
        };
        let mut stream = rig.connect().await;
        stream.write_all(head("/expect").as_bytes()).await.expect("written");
        let mut go_on = [0; 25];
        stream.read_exact(&mut go_on).await.expect("an interim answer");
        assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n", "{http:?}");
        stream.write_all(b"hello").await.expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(&sha256_hex(b"hello")), "{answer}");

        let answer = rig.raw(&head("/expect/417")).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 417 "), "{answer}");
        assert_eq!(rig.lab.total().body_bytes, 5);
    }
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_upload_arrives() {
    for http in BOTH {
        let rig = start(Settings { http, ..Settings::default() }).await;
        for path in [rig.path("/early"), "/https/other.test/".to_owned()] {
            let (mut read, mut write) = rig.connect().await.into_split();
            let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4000000\r\n\r\n");
            let sent = tokio::spawn(async move {
                write.write_all(head.as_bytes()).await?;
                // It may end early: the gateway closes after the answer.
                let sent = write.write_all(&vec![7; 4_000_000]).await;
                drop(write);
                sent
            });
            let mut answer = Vec::new();
            let ended = read.read_to_end(&mut answer).await;
            let answer = String::from_utf8_lossy(&answer);
            // The origin may cut its HTTP/1.1 connection before its answer was read (RFC 9112 section 9.6).
            let expected: &[&str] = if path.contains("early") { &["413", "502"] } else { &["403"] };
            let status = answer.strip_prefix("HTTP/1.1 ").map_or("", |line| &line[..3]);
            assert!(expected.contains(&status), "{http:?} {path}: {answer:?}, {ended:?}");
            let _ = sent.await.expect("no panic");
        }
    }
}

#[tokio::test]
async fn a_body_that_is_cut_never_ends_as_if_it_were_whole() {
    let faults = [
        OriginFaults { reset_mid_body: Some(5000), ..OriginFaults::default() },
        OriginFaults { close_mid_body: Some(5000), ..OriginFaults::default() },
        OriginFaults { truncate: Some(5000), ..OriginFaults::default() },
    ];
    for http in BOTH {
        for fault in &faults {
            let rig = start(Settings { http, ..Settings::default() }).await;
            rig.lab.set_faults(rig.lab.addresses()[0], fault.clone());
            // Without a length, a stream of HTTP/2 that is ended early is not to be told from a whole one.
            let paths: &[&str] =
                if fault.truncate.is_some() { &["/bytes/1000000"] } else { &["/bytes/1000000", "/stream/200"] };
            for path in paths {
                let body = rig.send(rig.request("GET", &rig.path(path), &[])).await.into_body();
                assert!(body.collect().await.is_err(), "{http:?} {fault:?} {path}");
                let (answer, ended) = old(&rig, path).await;
                let is_whole = ended.is_ok() && !answer.to_ascii_lowercase().contains("content-length");
                assert!(!is_whole, "{http:?} {fault:?} {path}: {} bytes", answer.len());
            }
            eventually("all are counted", || rig.watch.stats().broken == 2 * paths.len() as u64).await;
        }
    }
}

/// Asks with HTTP/1.0, where the end of the connection is the end of the answer.
async fn old(rig: &Rig, path: &str) -> (String, std::io::Result<usize>) {
    let mut stream = rig.connect().await;
    let request = format!("GET {} HTTP/1.0\r\n\r\n", rig.path(path));
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut answer = Vec::new();
    let ended = stream.read_to_end(&mut answer).await;
    (String::from_utf8_lossy(&answer).into_owned(), ended)
}

#[tokio::test]
async fn a_client_of_http_1_0_gets_a_stream_to_its_end() {
    let rig = rig().await;
    let (answer, ended) = old(&rig, "/stream/20").await;
    ended.expect("a clean end");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(!head.to_ascii_lowercase().contains("chunked"), "{head}");
    // The pieces are bytes of any value, each of which is one character or a replacement here.
    assert!(!body.is_empty());
}

#[tokio::test]
async fn a_request_that_says_its_length_twice_is_sent_with_the_right_one() {
    let rig = rig().await;
    let request = format!(
        "POST {} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        rig.path("/upload")
    );
    let answer = rig.raw(&request).await;
    let answer = String::from_utf8_lossy(&answer);
    let is_right = answer.starts_with("HTTP/1.1 200 ") && answer.contains(&sha256_hex(b"hello"));
    assert!(is_right || answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test]
async fn a_client_that_goes_takes_its_request_with_it() {
    for http in BOTH {
        let rig = start(Settings { http, ..Settings::default() }).await;
        for _ in 0..5 {
            let mut answer = rig.send(rig.request("GET", &rig.path("/stream"), &[])).await;
            answer.body_mut().frame().await.expect("a piece").expect("data");
            drop(answer);
        }
        eventually("no stream is open", || rig.lab.total().streams_open == 0).await;
        rig.lab.update_faults(rig.lab.addresses()[0], |faults| faults.ignore_requests = true);
        let request = format!("GET {} HTTP/1.1\r\nhost: localhost\r\n\r\n", rig.path("/"));
        let mut stream = rig.connect().await;
        stream.write_all(request.as_bytes()).await.expect("written");
        eventually("it is under way", || rig.lab.total().streams_open == 1).await;
        drop(stream);
        eventually("it is given up", || rig.lab.total().streams_open == 0).await;
        eventually("no client is left", || rig.watch.stats().clients == 0).await;
    }
}

/// Bytes of this process that are in memory.
#[cfg(target_os = "linux")]
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn readers_that_wait_do_not_grow_memory() {
    const READERS: usize = 8;
    const LENGTH: u64 = 64 << 20;
    for http in BOTH {
        let rig = start(Settings { http, ..Settings::default() }).await;
        let path = format!("/bytes/{LENGTH}");
        rig.get("/bytes/1000000").await;
        let before = resident();
        let mut readers = Vec::new();
        for _ in 0..READERS {
            // Each on a connection of its own: on a shared one, a few of them use up its window.
            let request = rig.request("GET", &rig.path(&path), &[("keepwarm-fresh", "true")]);
            let mut answer = rig.send(request).await.into_body();
            let first = answer.frame().await.expect("a piece").expect("data").into_data().expect("data");
            readers.push((answer, first));
        }
        // Everything that can be on its way is, once the memory in use has not changed for a while.
        let (mut most, mut last, mut same) = (before, before, 0);
        while same < 20 {
            tokio::time::sleep(std::time::Duration::from_millis(25)).await;
            let now = resident();
            (most, same) = (most.max(now), if now.abs_diff(last) < 1 << 20 { same + 1 } else { 0 });
            last = now;
        }
        let grown = most.saturating_sub(before) >> 20;
        eprintln!("{http:?}: {READERS} readers that wait for 64 MiB each: {grown} MiB more");
        assert!(grown < 96, "{http:?}: {grown} MiB for {READERS} readers");
        assert_eq!(rig.lab.total().answers, 1, "no answer could be sent to its end");
        let (mut slow, first) = readers.swap_remove(0);
        let mut at = first.len() as u64;
        assert!(first == expected_body(&path, 0..at));
        drop(readers);
        while let Some(frame) = slow.frame().await {
            let data = frame.expect("data").into_data().expect("data");
            let end = at + data.len() as u64;
            // The middle is taken on trust, since the expected bytes are made slowly.
            if end <= 1 << 20 || at >= LENGTH - (1 << 20) {
                assert!(data == expected_body(&path, at..end));
            }
            at = end;
        }
        assert_eq!(at, LENGTH);
    }
}
